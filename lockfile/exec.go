package lockfile

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Pass prepares the lock for an execve(2) of this process: its descriptor, which it returns, stays
// open through it, and with it the OFD lock, without an instant in which the lock is free. The new
// program takes it up with Resume. Withdraw takes that back, if execve failed.
func (l *Lock) Pass() (fd int, err error) { return l.fd, l.closeOnExec(0) }

// Withdraw undoes Pass.
func (l *Lock) Withdraw() error { return l.closeOnExec(unix.FD_CLOEXEC) }

func (l *Lock) closeOnExec(flag int) error {
	held.mu.Lock()
	defer held.mu.Unlock()
	if l.released {
		return fmt.Errorf("pass %s: %w", l.path, ErrReleased)
	}
	if _, err := unix.FcntlInt(uintptr(l.fd), unix.F_SETFD, flag); err != nil {
		return fmt.Errorf("pass %s: %w", l.path, err)
	}
	return nil
}

// Resume takes up the lock on path whose descriptor fd this process's former program passed. fd
// belongs to the Lock on success, and stays the caller's on an error: one that matches ErrLost if
// fd is not the file that path names, or a *HeldError.
//
// The OFD lock has never been free. The POSIX lock is the process's, and may have been dropped when
// execve closed other descriptors of the file; it is taken again.
func Resume(path string, fd int) (*Lock, error) {
	held.mu.Lock()
	defer held.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("resume %s: %w", path, err)
	}
	id := idOf(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !stillNames(path, id) || held.locks[id] != nil {
		return nil, fmt.Errorf("resume %s: %w", path, ErrLost)
	}
	if err := setLock(fd, unix.F_OFD_SETLK, unix.F_WRLCK, whetherByte); err != nil {
		return nil, lockError(fd, path, err)
	}
	if err := setLock(fd, unix.F_SETLK, unix.F_WRLCK, whoByte); err != nil {
		return nil, lockError(fd, path, err)
	}
	unix.CloseOnExec(fd)
	l := &Lock{path: path, id: id, fd: fd}
	held.locks[id] = l
	l.writeText()
	return l, nil
}
