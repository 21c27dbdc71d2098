package lockfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What execve does to a lock, without one: the table of this process forgets it, and the descriptor
// goes on.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := l.Pass()
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		t.Errorf("flags %#x, %v: it would be closed", flags, err)
	}
	if _, err := Resume(path, fd); !errors.Is(err, ErrLost) {
		t.Errorf("resumed a lock that is held: %v", err)
	}
	held.mu.Lock()
	delete(held.locks, l.id)
	held.mu.Unlock()
	again, err := Resume(path, fd)
	if err != nil {
		t.Fatal(err)
	}
	flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: a child would inherit it", flags, err)
	}
	if err := again.Check(); err != nil {
		t.Error(err)
	}
	if owner, locked, err := Holder(path); err != nil || !locked || owner.PID != os.Getpid() {
		t.Errorf("holder %+v, %v, %v", owner, locked, err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
	if err := again.Withdraw(); !errors.Is(err, ErrReleased) {
		t.Errorf("withdrew a released lock: %v", err)
	}
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Resume(path, int(other.Fd())); !errors.Is(err, ErrLost) {
		t.Errorf("resumed with another file: %v", err)
	}
}
