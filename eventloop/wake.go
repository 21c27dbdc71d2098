package eventloop

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waker ends the sleep of a loop: an eventfd(2) and a word that says whether anybody
// sleeps. Writing the eventfd costs a system call and an inter-processor interrupt, so it is done only
// for a loop that sleeps, and by one poster only.
//
//	awake ── loop: prepare ──▶ asleep ── poster: wake ──▶ notified
//	  ▲                          │                          │
//	  └──────── loop: resume ────┴──────────────────────────┘
//
// No wake-up is lost: the loop says asleep, then looks at the queue; the poster fills
// the queue, then looks at the word. Go's atomics are sequentially consistent, so at
// least one of them sees what the other did.
//
// The eventfd is watched edge-triggered and never read: each write is an edge, and its
// 64-bit counter does not fill up in the life of a machine.
type waker struct {
	fd      int // immutable until release
	state   atomic.Uint32
	writers atomic.Int32 // posters that may be about to write fd
}

// Values of waker.state.
const (
	awake uint32 = iota
	asleep
	notified
)

func newWaker() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("create wake-up descriptor: %w", err)
	}
	return fd, nil
}

// prepare announces a sleep. The loop must look at its queue again afterwards.
func (w *waker) prepare() { w.state.Store(asleep) }

// resume ends a sleep, or the intention of one.
func (w *waker) resume() { w.state.Store(awake) }

// wake ends the sleep of the loop if it sleeps. Any goroutine.
func (w *waker) wake() error {
	if w.state.Load() != asleep {
		return nil
	}
	w.writers.Add(1)
	defer w.writers.Add(-1)
	if !w.state.CompareAndSwap(asleep, notified) {
		return nil
	}
	one := uint64(1)
	for {
		// Raw: an eventfd that is non-blocking and nowhere near full does not sleep.
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return fmt.Errorf("wake loop: %w", errno)
		}
	}
}

// close gives the descriptor back. The loop must be awake for good. A poster that found it
// asleep may still be about to write, and would otherwise hit a stranger
// with the same number: wait for it, it is between two instructions.
func (w *waker) close() error {
	for w.writers.Load() != 0 {
		runtime.Gosched()
	}
	if err := unix.Close(w.fd); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("close wake-up descriptor: %w", err)
	}
	return nil
}
