package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OnDisk reports whether there is to be a cache on disk.
func (c Cache) OnDisk() bool { return c.Size != 0 && c.DiskSize != 0 && c.DiskPath != Off }

// NamedDisk is the directory that somebody has named for the cache on disk; "": nobody has, or there is to be none.
func (c Cache) NamedDisk() string {
	if !c.OnDisk() {
		return ""
	}
	return c.DiskPath
}

// CheckPaths refuses a cache.disk_path that cannot be made, and an access_log.path that cannot be written. Load does not: whoever
// goes on with an instance does so without what is gone, and only who starts one (inForce is nil then), or names another path than the one
// in force, is told that it is wrong.
func (c *Config) CheckPaths(inForce *Config) error {
	var ps []Problem
	check := func(name, path, before, cannot string, try func(string) error) {
		if path == "" || path == before {
			return
		}
		if err := try(path); err != nil {
			from := c.SourceOf(name)
			at := place{file: from.Where, name: from.Where, from: from.From}
			ps = append(ps, Problem{place: at, Msg: fmt.Sprintf("%s: cannot %s %s: %v", name, cannot, path, err)})
		}
	}
	var disk, log string
	if inForce != nil {
		disk, log = inForce.Cache.NamedDisk(), inForce.AccessLog.Path
	}
	check("cache.disk_path", c.Cache.NamedDisk(), disk, "make", tryDir)
	check("access_log.path", c.AccessLog.Path, log, "write", tryFile)
	return newError(ps)
}

// tryDir makes a directory, and takes away what it has made. Only that shows whether it can be made: a file system may refuse
// what its modes allow.
func tryDir(dir string) error {
	var made []string
	for at := filepath.Clean(dir); at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Lstat(at); err == nil {
			break
		}
		made = append(made, at)
	}
	err := os.MkdirAll(dir, 0o700)
	for _, d := range made { // the deepest first; what somebody has put something into stays
		_ = os.Remove(d)
	}
	return err
}

// tryFile tells whether a file can be opened for writing, or made. It does neither: who reads a pipe would see it.
func tryFile(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK)
	case err != nil:
		return errors.Unwrap(err) // without the path, which is said already
	case st.IsDir():
		return unix.EISDIR
	}
	return unix.Access(path, unix.W_OK)
}
