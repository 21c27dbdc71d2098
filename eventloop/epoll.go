package eventloop

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An epoll is the kernel's side of a loop: one epoll instance and the buffer it fills.
//
// Two ways to ask it. poll returns at once and therefore goes through RawSyscall: the
// scheduler is not told, which saves most of the cost around the call. wait may sleep
// and must go through Syscall: a thread that slept in a raw call would still count as
// running Go code, and the garbage collector would wait for it to stop the world.
//
// epoll_wait(2) counts milliseconds, so a sleep up to a tick would end up to 1 ms after
// it. epoll_pwait2(2) (Linux 5.11) counts nanoseconds and is used where the kernel (or a
// seccomp filter older than it) lets us; otherwise sleeps are rounded up.
type epoll struct {
	fd     int               // immutable until release
	events []unix.EpollEvent // filled by the kernel; owned by the loop
	limit  unix.Timespec     // owned by the loop; here so that no wait allocates it
	coarse bool              // owned by the loop: epoll_pwait2 is not to be had
}

// wakeFD stands in an event for the wake-up descriptor: no real descriptor is negative.
const wakeFD = -1

func newEpoll(maxEvents int) (epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return epoll{}, fmt.Errorf("create epoll instance: %w", err)
	}
	return epoll{fd: fd, events: make([]unix.EpollEvent, maxEvents)}, nil
}

// control is epoll_ctl(2). It never sleeps: the one lock it takes inside the kernel is
// shared with nobody but this thread.
func (e *epoll) control(op, fd int, events uint32, generation uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(generation)}
	return e.controlRaw(op, fd, &ev)
}

func (e *epoll) controlRaw(op, fd int, ev *unix.EpollEvent) error {
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(e.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return errno
		}
	}
}

// poll fetches what is ready, without sleeping.
func (e *epoll) poll() (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), 0, 0, 0)
	return fetched(n, errno)
}

// wait sleeps until something is ready or d has passed. It may return early with nothing.
func (e *epoll) wait(d time.Duration) (int, error) {
	if e.coarse {
		return e.waitMillis(d)
	}
	e.limit = unix.NsecToTimespec(int64(d))
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), uintptr(unsafe.Pointer(&e.limit)), 0, 0)
	if errno == syscall.ENOSYS || errno == syscall.EPERM {
		e.coarse = true
		return e.waitMillis(d)
	}
	return fetched(n, errno)
}

// waitMillis is wait by epoll_pwait(2). It rounds up: to wake early would only mean to
// sleep again.
func (e *epoll) waitMillis(d time.Duration) (int, error) {
	ms := (d + time.Millisecond - 1) / time.Millisecond
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), uintptr(ms), 0, 0)
	return fetched(n, errno)
}

// fetched turns the result of a wait into a count. An interrupted wait fetched nothing,
// which the loop copes with anyway: the one place where EINTR of a wait is handled.
func fetched(n uintptr, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EINTR:
		return 0, nil
	default:
		return 0, fmt.Errorf("wait for events: %w", errno)
	}
}

func (e *epoll) close() error {
	if err := unix.Close(e.fd); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("close epoll instance: %w", err)
	}
	return nil
}
