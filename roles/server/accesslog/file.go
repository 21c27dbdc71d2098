package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A file is where lines go.
type file struct {
	f        *os.File
	dev, ino uint64
	regular  bool // what is in it can be looked at
}

// fileMode is that of a log: it tells who asked for what.
const fileMode = 0o640

// openFile opens a log by its path, and makes it if it is not there. To be able to look at what
// is in it, it is opened for reading too, where that is allowed.
func openFile(path string) (*file, error) {
	const flags = os.O_APPEND | os.O_CREATE | unix.O_NOCTTY
	f, err := os.OpenFile(path, os.O_RDWR|flags, fileMode)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(path, os.O_WRONLY|flags, fileMode)
	}
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return newFile(f)
}

func newFile(f *os.File) (*file, error) {
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("access log: %w", err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return &file{f: f, dev: uint64(sys.Dev), ino: sys.Ino, regular: st.Mode().IsRegular()}, nil
}

// findFile opens the log that had this inode: under its path, or in the same directory under the
// name that a rotation has given it. Nil: it is not there any more.
func findFile(path string, dev, ino uint64) *file {
	names := []string{filepath.Base(path)}
	dir := filepath.Dir(path)
	if list, err := os.ReadDir(dir); err == nil {
		for _, e := range list {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, name), &st) != nil || uint64(st.Dev) != dev || st.Ino != ino {
			continue
		}
		for _, mode := range []int{os.O_RDWR, os.O_WRONLY} {
			f, err := os.OpenFile(filepath.Join(dir, name), mode|os.O_APPEND|unix.O_NOCTTY, 0)
			if err != nil {
				continue
			}
			if found, err := newFile(f); err == nil && found.dev == dev && found.ino == ino {
				return found
			}
			f.Close()
		}
	}
	return nil
}

// size is the length of the file; 0 for what has none.
func (f *file) size() uint64 {
	st, err := f.f.Stat()
	if err != nil || !f.regular {
		return 0
	}
	return uint64(st.Size())
}

// written returns how many bytes of p lie in the file behind its first base bytes: those that a
// dead server could still append. Behind base may lie lines of a server that was about to end; and a
// file that is shorter than base has been truncated.
func (f *file) written(p []byte, base uint64) int {
	size := f.size()
	if !f.regular || size == 0 {
		return 0
	}
	if size < base {
		base = 0
	}
	there := make([]byte, min(size-base, maxSearch))
	n, err := f.f.ReadAt(there, int64(base))
	if n == 0 {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EBADF) {
			return int(min(size-base, uint64(len(p)))) // not readable: as if nobody else had written
		}
		return 0
	}
	there = there[:n]
	line := p
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		line = p[:i+1]
	}
	best := 0
	for at := 0; ; {
		common := commonPrefix(there[at:], p)
		if common == len(p) || at+common == len(there) {
			return common
		}
		if common >= len(line) {
			best = max(best, common)
		}
		next := bytes.Index(there[at+1:], line[:1])
		if next < 0 {
			return best
		}
		at += 1 + next
	}
}

// maxSearch bounds what is read of the file to find a batch in it.
const maxSearch = 4 << 20

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (f *file) close() {
	if f != nil {
		f.f.Close()
	}
}
