package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// NamedDisk is the directory that somebody has named for the cache on disk; "": nobody has, or there is to be none.
func (c Cache) NamedDisk() string {
	if c.Size == 0 || c.DiskSize == 0 || c.DiskPath == Off {
		return ""
	}
	return c.DiskPath
}

// CheckDisk refuses a cache.disk_path that cannot be made. Load does not: whoever goes on with an instance does so without a
// disk that is gone, and only who starts one, or names another path, is told that it is wrong.
func (c *Config) CheckDisk() error {
	dir := c.Cache.NamedDisk()
	if dir == "" {
		return nil
	}
	err := tryDir(dir)
	if err == nil {
		return nil
	}
	from := c.SourceOf("cache.disk_path")
	at := place{file: from.Where, name: from.Where, from: from.From}
	return newError([]Problem{{place: at, Msg: fmt.Sprintf("cache.disk_path: cannot make %s: %v", dir, err)}})
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
