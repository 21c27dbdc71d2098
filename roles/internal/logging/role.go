package logging

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ForRole makes the log of a role, which goes to standard error. A daemon's standard
// error is the file at path; then it is opened by its path as well, so that Rotate can
// open it again.
func ForRole(role, path, level, format string) (*Log, error) {
	o := Options{Role: role, Level: level, Format: format}
	if sameFile(2, path) {
		o.Path = path
	}
	return New(o)
}

func sameFile(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Rotate reopens the log's file, for standard output and error too: that is where stacks
// go, and what children inherit. A log without a file of its own is left as it is.
func (l *Log) Rotate() error {
	if err := l.Reopen(); err != nil {
		return err
	}
	if l.FD() == 2 {
		return nil
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(l.FD(), fd, 0); err != nil {
			return fmt.Errorf("reopen descriptor %d: %w", fd, err)
		}
	}
	return nil
}
