package queue

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Notice is where the kernel writes down that one thread has died: at once,
// before it takes the address space apart, which for a large process is what a
// pidfd, SIGCHLD and the end of a socket all wait for.
//
// The mechanism is the robust futex (Documentation/locking/robust-futexes.rst,
// get_robust_list(2)): a thread tells the kernel where a list of futex words
// is that hold its thread ID. When the thread exits, whatever the reason,
// exit_robust_list (kernel/futex/core.c) puts FUTEX_OWNER_DIED into each word
// and wakes one waiter of it. This happens in exit_mm_release: before
// exit_mm, before exit_files, and after the thread's last system call. So the
// notice is also a proof: this thread does nothing any more.
//
// The kernel wakes ONE waiter of a word. A waiter that was killed while it
// should have woken the others would leave them waiting, hence each watcher
// has a word of its own, and nobody depends on anybody.
//
// Life cycle of a word, the only values it has:
//
//	0  not registered, or released
//	   │ Register                        ▲ release
//	   ▼                                 │
//	thread ID | FUTEX_WAITERS ───────────┘
//	   │ the thread exits (or its process calls execve)
//	   ▼
//	FUTEX_OWNER_DIED | FUTEX_WAITERS     until the next Register
//
// There is no false notice: the kernel changes a word only if it holds the
// thread ID of the thread that exits, and only Register puts one there.
//
// The memory must be shared (MAP_SHARED) between the thread's process and the
// watchers, and mapped for as long as the thread lives.
type Notice struct {
	head  robustHead // the owner's addresses: meaningless to others
	_     [8]byte
	nodes [NoticeWatchers]noticeNode
	_     [32]byte
}

// NoticeSize is the number of bytes of shared memory a Notice takes.
const NoticeSize = 128

// The watchers of a thread, each with a word of its own.
const (
	WatcherKeeper = iota
	WatcherStandby
	WatcherManager
	WatcherCop

	NoticeWatchers
)

// robustHead is struct robust_list_head (include/uapi/linux/futex.h).
type robustHead struct {
	next    uint64
	offset  int64  // from a node to its word
	pending uint64 // for a lock being taken; never used here
}

// noticeNode is one member of the kernel's list: the address of the next, and
// the word at head.offset.
type noticeNode struct {
	next uint64
	word uint32
	_    uint32
}

const (
	futexWaiters   = 0x80000000 // FUTEX_WAITERS
	futexOwnerDied = 0x40000000 // FUTEX_OWNER_DIED
	futexTIDMask   = 0x3fffffff // FUTEX_TID_MASK

	futexWait = 0 // FUTEX_WAIT without FUTEX_PRIVATE_FLAG: between processes
	futexWake = 1 // FUTEX_WAKE
	futexU32  = 2 // FUTEX2_SIZE_U32

	// futexSlice bounds a wait where something else than the word has to be
	// looked at as well.
	futexSlice = 100 * time.Millisecond
)

var (
	// ErrNotRegistered reports that no thread has registered with this Notice,
	// or that it took itself off in order.
	ErrNotRegistered = errors.New("no thread is registered for a death notice")
	// ErrNoticeHeld reports that a thread that lives has this Notice.
	ErrNoticeHeld = errors.New("death notice belongs to another thread")
)

// NoticeAt gives the Notice in mem, which must be NoticeSize bytes of shared
// memory, aligned to 8. Fresh memory (zeros) is a Notice nobody has registered
// with.
func NoticeAt(mem []byte) (*Notice, error) {
	p := unsafe.Pointer(unsafe.SliceData(mem))
	if len(mem) < NoticeSize || uintptr(p)%8 != 0 {
		return nil, fmt.Errorf("place death notice: %d bytes at %p, need %d aligned to 8", len(mem), p, NoticeSize)
	}
	return (*Notice)(p), nil
}

// Register has the kernel announce the death of the calling thread to every
// watcher. The caller must have locked itself to the thread
// (runtime.LockOSThread) and stay locked.
//
// A thread has one list. Register replaces what was there (in a program with
// cgo: the C library's, so do not call C code that uses robust mutexes on this
// thread), and release puts it back. release must be called on the same
// thread; watchers then get ErrNotRegistered.
func (n *Notice) Register() (release func() error, err error) {
	if err := n.vacant(); err != nil {
		return nil, fmt.Errorf("register for death notice: %w", err)
	}
	tid := unix.Gettid()
	before := robustListOf()
	n.link()
	if err := setRobustList(uint64(addr(&n.head))); err != nil {
		return nil, fmt.Errorf("register for death notice: %w", err)
	}
	// Only now: with the words first, a death in between would leave the ID of
	// a dead thread in them, and watchers that wait for ever.
	for i := range n.nodes {
		atomic.StoreUint32(&n.nodes[i].word, uint32(tid)|futexWaiters)
	}
	return func() error { return n.release(tid, before) }, nil
}

// vacant returns nil if the Notice is nobody's. The kernel, and release, go
// through the words in order: a successor that was woken by an early one finds
// later ones still held, for some microseconds, which it waits out.
func (n *Notice) vacant() error {
	end := deadlineAfter(time.Second)
	for i := range n.nodes {
		for v := n.load(i); v != 0 && v&futexOwnerDied == 0; v = n.load(i) {
			left, err := remaining(end)
			if i == 0 || err != nil {
				return fmt.Errorf("%w (%d)", ErrNoticeHeld, v&futexTIDMask)
			}
			if err := waitWord(n, v, i, left); err != nil {
				return err
			}
		}
	}
	return nil
}

// link makes the ring head → node 0 → … → head that the kernel will walk.
func (n *Notice) link() {
	n.head.offset = int64(unsafe.Offsetof(noticeNode{}.word))
	n.head.pending = 0
	next := uint64(addr(&n.head))
	for i := len(n.nodes) - 1; i >= 0; i-- {
		n.nodes[i].next = next
		next = uint64(addr(&n.nodes[i]))
	}
	n.head.next = next
}

func (n *Notice) release(tid int, before uint64) error {
	if unix.Gettid() != tid {
		return fmt.Errorf("release death notice: called on thread %d, registered by %d", unix.Gettid(), tid)
	}
	for i := range n.nodes {
		n.withdraw(i)
	}
	if err := setRobustList(before); err != nil {
		return fmt.Errorf("release death notice: %w", err)
	}
	return nil
}

// withdraw takes back what was promised to one watcher, and tells it so. May be
// called by any thread of the owner's process.
func (n *Notice) withdraw(watcher int) {
	atomic.StoreUint32(&n.nodes[watcher].word, 0)
	n.wake(watcher)
}

func (n *Notice) load(watcher int) uint32 { return atomic.LoadUint32(&n.nodes[watcher].word) }

func (n *Notice) wake(watcher int) {
	const all = 1<<31 - 1
	_, _, _ = unix.Syscall(unix.SYS_FUTEX, addr(&n.nodes[watcher].word), futexWake, all)
}

// Died tells whether the thread has died since it registered.
func (n *Notice) Died() bool { return n.load(0)&futexOwnerDied != 0 }

// Thread is the ID of the registered thread as its own process sees it, 0 if
// there is none or it has died.
func (n *Notice) Thread() int { return int(n.load(0) & futexTIDMask) }

// Wait returns nil when the thread has died. It blocks the calling OS thread
// for at most timeout (0: for ever), then gives os.ErrDeadlineExceeded.
// ErrNotRegistered is returned at once if there is nothing to wait for, also
// when the thread takes itself off in the meantime.
func (n *Notice) Wait(watcher int, timeout time.Duration) error {
	_, err := WaitNotices([]*Notice{n}, watcher, timeout)
	return err
}

// WaitNotices waits as watcher until a thread of several has died, and returns
// which (the index; the first if there are more). Timeout and errors are those
// of Wait; ErrNotRegistered if one of them has no thread. At most 128
// (FUTEX_WAITV_MAX).
//
// One futex_waitv does it where there is one (Linux 5.16). Elsewhere a goroutine
// waits for each, and they have ended when WaitNotices returns.
func WaitNotices(ns []*Notice, watcher int, timeout time.Duration) (int, error) {
	return waitNotices(ns, watcher, timeout, waitvOnce)
}

// WaitAllNotices waits until the last of the threads has died: then the whole
// process issues no system call any more, as far as its registered threads go.
// Threads that never registered, or released, are passed over. timeout is for
// all of them together.
func WaitAllNotices(ns []*Notice, watcher int, timeout time.Duration) error {
	end := deadlineAfter(timeout)
	for _, n := range ns {
		left, err := remaining(end)
		if err != nil {
			return err
		}
		if err := n.Wait(watcher, left); err != nil && !errors.Is(err, ErrNotRegistered) {
			return err
		}
	}
	return nil
}

// A waitFunc waits until a word may have changed. It may return early.
type waitFunc func(ns []*Notice, seen []uint32, watcher int, left time.Duration) error

func waitNotices(ns []*Notice, watcher int, timeout time.Duration, wait waitFunc) (int, error) {
	if len(ns) == 0 || len(ns) > 128 {
		return -1, fmt.Errorf("wait for death notice: %d threads", len(ns))
	}
	end := deadlineAfter(timeout)
	seen := make([]uint32, len(ns))
	for {
		for i, n := range ns {
			seen[i] = n.load(watcher)
			switch {
			case seen[i] == 0:
				return i, ErrNotRegistered
			case seen[i]&futexOwnerDied != 0:
				return i, nil
			}
		}
		left, err := remaining(end)
		if err != nil {
			return -1, err
		}
		err = wait(ns, seen, watcher, left)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
			// Linux before 5.16, or a seccomp filter older than the call.
			wait, err = waitEach, nil
		}
		if err != nil {
			return -1, fmt.Errorf("wait for death notice: %w", err)
		}
	}
}

// futexWaitv is struct futex_waitv (include/uapi/linux/futex.h).
type futexWaitv struct {
	val      uint64
	uaddr    uint64
	flags    uint32
	reserved uint32
}

func waitvOnce(ns []*Notice, seen []uint32, watcher int, left time.Duration) error {
	vs := make([]futexWaitv, len(ns))
	for i, n := range ns {
		vs[i] = futexWaitv{val: uint64(seen[i]), uaddr: uint64(addr(&n.nodes[watcher].word)), flags: futexU32}
	}
	var until *unix.Timespec
	if left > 0 {
		ts := unix.NsecToTimespec(Monotonic() + int64(left))
		until = &ts
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX_WAITV, uintptr(unsafe.Pointer(&vs[0])), uintptr(len(vs)), 0,
		uintptr(unsafe.Pointer(until)), unix.CLOCK_MONOTONIC, 0)
	return harmless(errno)
}

// waitEach is waitvOnce without futex_waitv.
func waitEach(ns []*Notice, seen []uint32, watcher int, left time.Duration) error {
	if left == 0 || left > futexSlice {
		left = futexSlice // and then the words are looked at again
	}
	if len(ns) == 1 {
		return waitWord(ns[0], seen[0], watcher, left)
	}
	errs := make(chan error, len(ns))
	var all sync.WaitGroup
	for i, n := range ns {
		all.Go(func() { errs <- waitWord(n, seen[i], watcher, left) })
	}
	err := <-errs
	// The words are this watcher's own, so nobody else is disturbed. One that
	// was not asleep yet misses it, and wakes up at the end of the slice.
	for _, n := range ns {
		n.wake(watcher)
	}
	all.Wait()
	return err
}

func waitWord(n *Notice, seen uint32, watcher int, left time.Duration) error {
	ts := unix.NsecToTimespec(int64(left))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, addr(&n.nodes[watcher].word), futexWait, uintptr(seen),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	runtime.KeepAlive(n)
	return harmless(errno)
}

// harmless turns the ways in which a wait ends in order into nil: the caller
// looks at the words and at the clock anyway.
func harmless(errno unix.Errno) error {
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR, unix.ETIMEDOUT:
		return nil
	}
	return errno
}

// deadlineAfter and remaining: the zero duration is "for ever" in both.
func deadlineAfter(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

func remaining(end time.Time) (time.Duration, error) {
	if end.IsZero() {
		return 0, nil
	}
	left := time.Until(end)
	if left <= 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return left, nil
}

func addr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func setRobustList(head uint64) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(head), unsafe.Sizeof(robustHead{}), 0)
	if errno != 0 {
		return fmt.Errorf("set_robust_list: %w", errno)
	}
	return nil
}

// robustListOf is the calling thread's present list, 0 if there is none or the
// kernel does not tell.
func robustListOf() uint64 {
	var head, size uint64
	_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, 0, addr(&head), addr(&size))
	if errno != 0 || size != uint64(unsafe.Sizeof(robustHead{})) {
		return 0
	}
	return head
}
