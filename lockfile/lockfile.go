package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The two locked bytes; see the package comment.
const (
	whoByte     = 0 // POSIX lock
	whetherByte = 1 // OFD lock
)

// maxReplaced bounds how often Acquire starts again because the file was replaced while it was being locked.
// Twice is an accident; this many times means that somebody keeps deleting it.
const maxReplaced = 64

var (
	// ErrHeld is matched (errors.Is) by the *HeldError of Acquire.
	ErrHeld = errors.New("lock file is held")
	// ErrLost is matched by what Check returns when the path no longer names the locked file, so that another process may
	// hold a lock of the same name.
	ErrLost = errors.New("lock file was replaced")
	// ErrNotRegular is matched when the path names something that is not a regular file: a directory, a FIFO, a device, a
	// symbolic link.
	ErrNotRegular = errors.New("not a regular file")
	// ErrReleased is returned by Check after Release.
	ErrReleased = errors.New("lock was released")
)

// HeldError says that somebody else holds a lock file. It matches ErrHeld.
type HeldError struct {
	Path string
	PID  int // 0: not known (the holder is in another PID namespace, or has just taken the lock)
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock file %s is held", e.Path)
	}
	return fmt.Sprintf("lock file %s is held by process %d", e.Path, e.PID)
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// Lock is a held lock file. It is released by Release or by the end of the process and by nothing else.
// All methods may be called from any goroutine.
type Lock struct {
	path string // as given to Acquire; immutable
	id   fileID // immutable

	// Guarded by held.mu.
	fd       int   // -1 after Release. An int, not an *os.File: a finalizer must not drop the lock
	parked   []int // descriptors of the same file that cannot be closed before fd; see openUnheld
	textErr  error // why the text could not be written; immutable after Acquire
	released bool
}

// fileID identifies a file on this host for as long as it exists.
type fileID struct{ dev, ino uint64 }

// held is what this process holds. One table for the whole process, because POSIX locks are the process's.
// Its mutex is kept during every open and close of a lock file, so that no close of one goroutine drops the
// lock another has just taken.
var held = struct {
	mu    sync.Mutex
	locks map[fileID]*Lock
}{locks: map[fileID]*Lock{}}

// Acquire takes the lock file at path, making the file (mode 0644 less the umask) if there is none, and writes this
// process's PID into it. It never waits.
//
// The error is a *HeldError (errors.Is ErrHeld) when somebody holds it, this process included; it matches
// ErrNotRegular when path is no regular file (a symbolic link is not followed); otherwise it is what the system said.
//
// A text that cannot be written, say because the disk is full, does not make Acquire fail: the lock is what
// counts, and a full disk must not keep a service from being restarted. See TextError.
func Acquire(path string) (*Lock, error) {
	held.mu.Lock()
	defer held.mu.Unlock()
	for range maxReplaced {
		l, err := tryAcquire(path)
		if errors.Is(err, errReplaced) {
			continue
		}
		if err != nil {
			return nil, err
		}
		held.locks[l.id] = l
		l.writeText()
		return l, nil
	}
	return nil, fmt.Errorf("lock %s: %w %d times while it was being locked", path, errReplaced, maxReplaced)
}

// errReplaced: the file we locked is no longer the one the path names. Try again.
var errReplaced = errors.New("file was replaced")

func tryAcquire(path string) (*Lock, error) {
	// O_NONBLOCK: opening a FIFO or a device must not wait for anybody.
	fd, id, ours, err := openUnheld(path, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if ours != nil {
		return nil, &HeldError{Path: path, PID: os.Getpid()}
	}
	if err := setLock(fd, unix.F_OFD_SETLK, unix.F_WRLCK, whetherByte); err != nil {
		defer unix.Close(fd)
		return nil, lockError(fd, path, err)
	}
	if err := setLock(fd, unix.F_SETLK, unix.F_WRLCK, whoByte); err != nil {
		defer unix.Close(fd)
		return nil, lockError(fd, path, err)
	}
	// The file may have been unlinked between open and lock; then the lock guards a name that does not exist.
	if !stillNames(path, id) {
		unix.Close(fd)
		return nil, errReplaced
	}
	return &Lock{path: path, id: id, fd: fd}, nil
}

// lockError turns a refused lock into a HeldError that names the holder.
func lockError(fd int, path string, err error) error {
	if err != unix.EAGAIN && err != unix.EACCES { // either, says POSIX
		return fmt.Errorf("lock %s: %w", path, err)
	}
	o, _, err := ask(fd)
	if err != nil {
		return &HeldError{Path: path}
	}
	return &HeldError{Path: path, PID: o.PID}
}

// openUnheld opens path without following a symbolic link and makes sure that it is a regular file which this process
// does not hold. If it does, ours is its Lock and no descriptor is returned. held.mu is held.
func openUnheld(path string, flags int) (fd int, id fileID, ours *Lock, err error) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		if l := held.locks[idOf(&st)]; l != nil {
			return -1, l.id, l, nil
		}
	}
	fd, err = open(path, flags)
	if err != nil {
		return -1, id, nil, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, id, nil, fmt.Errorf("examine %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, id, nil, fmt.Errorf("open %s: %w", path, ErrNotRegular)
	}
	id = idOf(&st)
	if l := held.locks[id]; l != nil {
		// Between Lstat and open the path came to name a file we hold. Closing this descriptor would drop our
		// POSIX lock on it, so it lives as long as the lock.
		l.parked = append(l.parked, fd)
		return -1, id, l, nil
	}
	return fd, id, nil, nil
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NOCTTY, 0o644)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
		case unix.ELOOP, unix.EISDIR, unix.ENXIO:
			return -1, fmt.Errorf("open %s: %w (%w)", path, ErrNotRegular, err)
		default:
			return -1, fmt.Errorf("open %s: %w", path, err)
		}
	}
}

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// stillNames reports whether path names the file id.
func stillNames(path string, id fileID) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && idOf(&st) == id
}

func setLock(fd, cmd int, typ int16, at int64) error {
	lk := unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: at, Len: 1}
	for {
		err := unix.FcntlFlock(uintptr(fd), cmd, &lk)
		if err != unix.EINTR {
			return err
		}
	}
}

// writeText writes who we are. The new text goes over the old one before the rest is cut off, so a reader finds a
// whole PID on the first line at any time.
func (l *Lock) writeText() {
	b := ownText().bytes()
	_, err := unix.Pwrite(l.fd, b, 0)
	if err == nil {
		err = unix.Ftruncate(l.fd, int64(len(b)))
	} else {
		unix.Ftruncate(l.fd, 0) // no text rather than the previous holder's
	}
	if err != nil {
		l.textErr = fmt.Errorf("write %s: %w", l.path, err)
	}
}

// Path returns the path given to Acquire.
func (l *Lock) Path() string { return l.path }

// Descriptors are the lock's: while one of them is open in any table that shares this process's
// locks, as that of a task cloned with CLONE_FILES does, the lock is held. They stay the lock's.
func (l *Lock) Descriptors() []int {
	held.mu.Lock()
	defer held.mu.Unlock()
	if l.fd < 0 {
		return nil
	}
	return append([]int{l.fd}, l.parked...)
}

// TextError says why the text could not be written, nil if it was. The lock is held either way.
func (l *Lock) TextError() error { return l.textErr }

// Check makes sure that the lock still does what it is for. It takes the POSIX lock again, in case some code in this
// process has opened and closed the file; and it returns an error that matches ErrLost if the path no longer names
// the locked file, which is to say that a second process may believe to be the only one.
func (l *Lock) Check() error {
	held.mu.Lock()
	defer held.mu.Unlock()
	if l.released {
		return fmt.Errorf("check %s: %w", l.path, ErrReleased)
	}
	if err := setLock(l.fd, unix.F_SETLK, unix.F_WRLCK, whoByte); err != nil {
		return fmt.Errorf("lock %s again: %w", l.path, err)
	}
	if !stillNames(l.path, l.id) {
		return fmt.Errorf("check %s: %w", l.path, ErrLost)
	}
	return nil
}

// Release empties the file and gives up the lock. The file stays: unlinking it would let two holders exist. A second
// Release does nothing.
func (l *Lock) Release() error {
	held.mu.Lock()
	defer held.mu.Unlock()
	if l.released {
		return nil
	}
	l.released = true
	delete(held.locks, l.id)
	unix.Ftruncate(l.fd, 0) // only a courtesy to tools that trust the text
	// Unlock before close: a child between fork and exec shares the descriptor, and with it the OFD lock.
	err := setLock(l.fd, unix.F_OFD_SETLK, unix.F_UNLCK, whetherByte)
	err = errors.Join(err, unix.Close(l.fd))
	l.fd = -1
	for _, fd := range l.parked {
		unix.Close(fd)
	}
	l.parked = nil
	if err != nil {
		return fmt.Errorf("release %s: %w", l.path, err)
	}
	return nil
}

// Owner is what is known about the holder of a lock file.
type Owner struct {
	// PID of the holder in this process's PID namespace, 0 if not known. Named by the kernel if FromKernel, otherwise
	// only claimed by the text.
	//
	// The kernel may name a process that is dead, if another one shares its descriptor table (see the package
	// comment). So before anything is done to the holder, open a pidfd and compare the start time.
	PID        int
	FromKernel bool

	// StartTime of the holder in clock ticks since boot (field 22 of proc_pid_stat(5)), as it wrote it into the file;
	// 0 if not known, or if the text was written by another process or before the last boot. A process with this
	// PID and another start time is a stranger with a recycled PID.
	StartTime uint64
	// BootID is what the holder wrote with it; empty if not known.
	BootID string

	// TextPID is the PID in the text as it stands, 0 if there is none. It can be from a dead holder, from another PID
	// namespace or garbage. For messages only.
	TextPID int
}

// Holder says who holds the lock file at path. It never takes the lock, also not for an instant, and needs
// only read permission. A file that does not exist is held by nobody.
func Holder(path string) (Owner, bool, error) {
	held.mu.Lock()
	defer held.mu.Unlock()
	fd, _, ours, err := openUnheld(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, err
	}
	if ours != nil {
		t := ownText()
		return Owner{PID: t.pid, FromKernel: true, StartTime: t.startTime, BootID: t.bootID, TextPID: t.pid}, true, nil
	}
	defer unix.Close(fd)
	o, locked, err := ask(fd)
	if err != nil {
		return Owner{}, false, fmt.Errorf("examine lock %s: %w", path, err)
	}
	return o, locked, nil
}

// ask finds out about the holder of the open file fd, which this process does not hold.
func ask(fd int) (Owner, bool, error) {
	for range 8 {
		whether, err := getLock(fd, unix.F_OFD_GETLK, whetherByte)
		if err != nil {
			return Owner{}, false, err
		}
		who, err := getLock(fd, unix.F_GETLK, whoByte)
		if err != nil {
			return Owner{}, false, err
		}
		if whether.Type == unix.F_UNLCK && who.Type == unix.F_UNLCK {
			return Owner{}, false, nil
		}
		if who.Type != unix.F_UNLCK {
			return describe(readText(fd), max(0, int(who.Pid)), true), true, nil
		}
		// Held, but by nobody the kernel could name. Either the holder was between its two locks or has just
		// died, and asking again will tell; or its POSIX lock has been dropped by a stray close.
	}
	return describe(readText(fd), 0, false), true, nil
}

func getLock(fd, cmd int, at int64) (unix.Flock_t, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	err := unix.FcntlFlock(uintptr(fd), cmd, &lk)
	return lk, err
}

// describe joins what the kernel said with what the text claims. named tells that the kernel knows the holder, even if it
// has no PID for it in our namespace; then the text's PID is from a foreign namespace and is not taken for one of ours.
func describe(t text, pid int, named bool) Owner {
	o := Owner{PID: pid, FromKernel: named && pid != 0, TextPID: t.pid}
	if !named {
		o.PID = t.pid
	}
	if t.bootID != "" {
		if now := readBootID(); now != "" && now != t.bootID {
			// Written before the last boot: neither PID nor start time mean anything now.
			if !named {
				o.PID = 0
			}
			return o
		}
	}
	if t.pid == o.PID && o.PID != 0 {
		o.StartTime, o.BootID = t.startTime, t.bootID
	}
	return o
}

func readText(fd int) text {
	var b [maxText + 1]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil || n < 0 {
		return text{}
	}
	return parseText(b[:n])
}
