package queue

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	// ErrFull reports that the FIFO takes no more connections now: its limit is
	// reached, its socket buffer is, or (unprivileged) the kernel's limit of
	// descriptors in flight. The connection stays the caller's.
	ErrFull = errors.New("connection queue is full")
	// ErrEmpty reports that no connection is waiting in the FIFO.
	ErrEmpty = errors.New("connection queue is empty")
	// ErrNoDescriptors reports that this process has no free descriptor to
	// receive a connection with. The connection is still in the FIFO.
	ErrNoDescriptors = errors.New("no free descriptor to take a connection")
)

// FIFO is the second stage of the connection queue: accepted connections,
// oldest first, lying as SCM_RIGHTS messages in the receive queue of a Unix
// socketpair. It exists in the kernel and nowhere else: as long as any process
// holds both ends, nothing queued is lost, whoever dies.
//
// Both ends belong to the heritage (names queue.in and queue.out) and are held
// by cop, manager and server. They must stay together: if the last copy of one
// end goes, the kernel drops what is queued.
//
// Who may do what, and when, is in the package documentation under "Hand-off".
// A FIFO value is safe for concurrent use.
type FIFO struct {
	in, out int // immutable after New/Adopt; owned by the FIFO until Close
	limit   int // immutable after New/Adopt

	mu   sync.Mutex
	room int // guarded by mu: Puts left before Len must be asked again

	// learned is the length at which the kernel gave ETOOMANYREFS; 0: never.
	// Without it every further connection would be accepted only to be turned
	// away, although it could have waited in the kernel's queue.
	learned   atomic.Int64
	malformed atomic.Uint64
	overflows atomic.Uint64
}

// bytesPerEntry is what one waiting connection is charged against SO_SNDBUF
// (truesize of its skb). Measured on 6.18/amd64: 768. Other configurations of
// the kernel may charge more, so the buffer is asked for with room to spare;
// when it is short all the same, Put says ErrFull early, nothing else.
const bytesPerEntry = 1280

const measuredPerEntry = 768

// NewFIFO makes an empty FIFO for at most limit connections.
//
// What really fits: a process with CAP_NET_ADMIN sizes the socket buffer
// (SO_SNDBUFFORCE) for the limit: 50,000 were put in without trouble, charged
// 768 bytes each. Without it the buffer is capped at twice net.core.wmem_max
// (see Fits): 10,923 connections at 4 MiB, 555 at the usual 208 KiB. And a
// user without CAP_SYS_RESOURCE or CAP_SYS_ADMIN can have only RLIMIT_NOFILE
// (the soft limit) + 1 descriptors in flight, over all his processes and
// sockets (ETOOMANYREFS, unix(7)). Put turns each into ErrFull: what does not
// fit stays in the kernel's backlog.
func NewFIFO(limit int) (*FIFO, error) {
	if limit < 1 {
		return nil, fmt.Errorf("make connection queue: limit %d", limit)
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make connection queue: socketpair: %w", err)
	}
	f := &FIFO{in: p[0], out: p[1], limit: limit}
	f.grow()
	return f, nil
}

// AdoptFIFO goes on with a FIFO that another process made, with all that
// waits in it. in and out are checked (Unix SOCK_SEQPACKET, connected, no
// foreign bytes waiting in the wrong direction) and become the FIFO's on
// success; on an error they stay the caller's.
func AdoptFIFO(in, out, limit int) (*FIFO, error) {
	if limit < 1 {
		return nil, fmt.Errorf("adopt connection queue: limit %d", limit)
	}
	for _, fd := range []int{in, out} {
		if err := checkSeqpacket(fd); err != nil {
			return nil, fmt.Errorf("adopt connection queue: descriptor %d: %w", fd, err)
		}
	}
	if back, err := unix.IoctlGetInt(in, unix.SIOCINQ); err != nil || back != 0 {
		return nil, fmt.Errorf("adopt connection queue: descriptor %d: %d bytes wait at the sending end (ends exchanged?): %v", in, back, err)
	}
	f := &FIFO{in: in, out: out, limit: limit}
	f.grow()
	return f, nil
}

func checkSeqpacket(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return errors.New("not a Unix SOCK_SEQPACKET socket")
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return fmt.Errorf("not connected: %w", err)
	}
	return nil
}

// grow asks for a send buffer that holds limit entries. The kernel doubles
// what it is given, so half is asked for. Failure is not an error: Put finds
// out where the end is.
func (f *FIFO) grow() {
	want := f.limit * bytesPerEntry / 2
	if unix.SetsockoptInt(f.in, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, want) != nil {
		_ = unix.SetsockoptInt(f.in, unix.SOL_SOCKET, unix.SO_SNDBUF, want)
	}
}

// Fits estimates how many connections the socket buffer has room for; below
// Limit when an unprivileged process could not make it larger. An estimate for
// the operator's eyes; Put knows exactly.
func (f *FIFO) Fits() int {
	n, err := unix.GetsockoptInt(f.in, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0
	}
	return min(f.limit, n/measuredPerEntry)
}

// Limit is the limit given at New or Adopt, or a lower one learned from the
// kernel's refusal to have more descriptors in flight; that one is forgotten
// when the FIFO has become empty.
func (f *FIFO) Limit() int {
	if n := f.learned.Load(); n > 0 {
		return min(f.limit, int(n))
	}
	return f.limit
}

// In is the sending end, Out the receiving one. They stay the FIFO's: pass
// them on by duplicating.
func (f *FIFO) In() int { return f.in }

// Out is the receiving end. It polls readable when a connection waits.
func (f *FIFO) Out() int { return f.out }

// Put queues the accepted connection fd behind all others. On success the
// FIFO holds it and fd is closed; on an error fd is still the caller's.
// e.Queued and e.Cookie are filled in here; e.Arrived 0 means: ask the kernel
// (see Arrived).
func (f *FIFO) Put(fd int, e Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reserveLocked(); err != nil {
		return err
	}
	var err error
	if e.Arrived == 0 {
		if e.Arrived, err = Arrived(fd); err != nil {
			return fmt.Errorf("queue connection: %w", err)
		}
	}
	e.Queued = max(Monotonic(), e.Arrived)
	if e.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return fmt.Errorf("queue connection: socket cookie: %w", err)
	}
	var buf [recordLen]byte
	err = SendFD(f.in, e.append(buf[:0]), fd)
	switch {
	case err == nil:
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ETOOMANYREFS):
		f.overflows.Add(1)
		f.learnLocked(err)
		return fmt.Errorf("queue connection: %w: %w", ErrFull, err)
	default:
		return fmt.Errorf("queue connection: %w", err)
	}
	f.room--
	unix.Close(fd)
	return nil
}

func (f *FIFO) learnLocked(err error) {
	f.room = 0
	if n, lenErr := f.Len(); lenErr == nil && errors.Is(err, unix.ETOOMANYREFS) {
		f.learned.Store(int64(n))
	}
}

// reserve reports ErrFull if a Put would find the limit or the socket buffer
// used up. Only other Puts can make it untrue again.
func (f *FIFO) reserve() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reserveLocked(); err != nil {
		return err
	}
	// Not POLLOUT: for a Unix socket that means three quarters free
	// (unix_writable). A send succeeds while less than SO_SNDBUF is in use
	// (sock_alloc_send_pskb).
	used, err := f.Bytes()
	if err != nil {
		return err
	}
	size, err := unix.GetsockoptInt(f.in, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return fmt.Errorf("socket buffer of connection queue: %w", err)
	}
	if used >= size {
		f.overflows.Add(1)
		return fmt.Errorf("queue connection: %w: socket buffer of %d bytes used up", ErrFull, size)
	}
	return nil
}

// reserveLocked checks the limit. Counting what waits costs a walk over it, so
// the room found is used up before it is asked for again: others only take,
// so it can only have grown.
func (f *FIFO) reserveLocked() error {
	if f.room > 0 {
		return nil
	}
	n, err := f.Len()
	if err != nil {
		return err
	}
	if n == 0 {
		f.learned.Store(0)
	}
	if f.room = f.Limit() - n; f.room <= 0 {
		f.overflows.Add(1)
		return fmt.Errorf("queue connection: %w: %d of %d", ErrFull, n, f.Limit())
	}
	return nil
}

// Take removes the oldest connection and returns it; fd is then the caller's,
// with close-on-exec set. Nothing waiting is ErrEmpty.
//
// It looks first (MSG_PEEK hands out a duplicate of the descriptor) and
// removes second. So a process that has no descriptor free, or dies in
// between, leaves the connection where it was; a plain receive would lose it
// without a trace. Two processes that take at the same time each get a
// different connection: whoever finds that the message removed is not the one
// he looked at lets go of the latter, which is in the other's hands.
func (f *FIFO) Take() (e Entry, fd int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		e, fd, err = f.takeLocked()
		if !errors.Is(err, errRecord) {
			return e, fd, err
		}
		f.malformed.Add(1)
	}
}

func (f *FIFO) takeLocked() (Entry, int, error) {
	seen, err := f.receive(unix.MSG_PEEK)
	if err != nil {
		return Entry{}, -1, err
	}
	if seen.dropped {
		CloseAll(seen.fds)
		return Entry{}, -1, fmt.Errorf("take connection: %w", ErrNoDescriptors)
	}
	got, err := f.receive(0)
	if err != nil {
		CloseAll(seen.fds)
		return Entry{}, -1, err
	}
	if got.bytes == seen.bytes {
		CloseAll(got.fds) // second duplicates of what was looked at
	} else {
		CloseAll(seen.fds)
		seen = got
	}
	return seen.connection()
}

// received is one message of the FIFO as it came.
type received struct {
	bytes   [recordLen]byte
	n       int
	fds     []int
	dropped bool // the kernel could not install every descriptor
}

func (f *FIFO) receive(flags int) (r received, err error) {
	// Room for two descriptors: a record with more than one is foreign, and is
	// then closed as a whole.
	var oob [64]byte
	n, fds, got, err := recvOnce(f.out, r.bytes[:], oob[:], flags)
	if errors.Is(err, unix.EAGAIN) {
		return r, ErrEmpty
	}
	if err != nil {
		return r, fmt.Errorf("take connection: %w", err)
	}
	r.n, r.fds, r.dropped = n, fds, got&unix.MSG_CTRUNC != 0
	if got&unix.MSG_TRUNC != 0 {
		r.n = 0 // longer than any record
	}
	return r, nil
}

func (r *received) connection() (Entry, int, error) {
	e, err := parseRecord(r.bytes[:r.n])
	if err == nil && len(r.fds) != 1 {
		err = fmt.Errorf("%w: %d descriptors", errRecord, len(r.fds))
	}
	if err != nil {
		CloseAll(r.fds)
		return Entry{}, -1, err
	}
	return e, r.fds[0], nil
}

// TakeOlder is Take if the oldest connection arrived at or before cutoff
// (CLOCK_MONOTONIC ns), else ErrEmpty. For the manager, which refuses what has
// waited too long while no server is ready.
func (f *FIFO) TakeOlder(cutoff int64) (Entry, int, error) {
	e, err := f.Peek()
	if err != nil {
		return Entry{}, -1, err
	}
	if e.Arrived > cutoff {
		return Entry{}, -1, ErrEmpty
	}
	return f.Take()
}

// Peek returns the oldest connection's Entry and leaves it where it is.
// Nothing waiting is ErrEmpty. It receives without a control buffer, so no
// duplicate of the descriptor is made.
func (f *FIFO) Peek() (Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		var buf [recordLen]byte
		n, _, got, err := recvOnce(f.out, buf[:], nil, unix.MSG_PEEK)
		if errors.Is(err, unix.EAGAIN) {
			return Entry{}, ErrEmpty
		}
		if err != nil {
			return Entry{}, fmt.Errorf("look at connection queue: %w", err)
		}
		e, err := parseRecord(buf[:n])
		if err == nil && got&unix.MSG_TRUNC == 0 {
			return e, nil
		}
		// Foreign bytes at the head would hide everything behind them.
		f.malformed.Add(1)
		if err := f.discardLocked(); err != nil {
			return Entry{}, err
		}
	}
}

func (f *FIFO) discardLocked() error {
	var b [1]byte
	if _, _, _, err := recvOnce(f.out, b[:], nil, 0); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("drop foreign message from connection queue: %w", err)
	}
	return nil
}

// Len is the number of connections that wait, whoever put them there. The
// kernel walks the queue to tell it: not for a hot path.
func (f *FIFO) Len() (int, error) {
	n, err := unix.IoctlGetInt(f.out, unix.SIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("length of connection queue: %w", err)
	}
	return (n + recordLen - 1) / recordLen, nil
}

// Bytes is the kernel memory that the waiting messages are charged for. The
// sockets themselves, and what clients have sent on them, are not in it.
func (f *FIFO) Bytes() (int, error) {
	n, err := unix.IoctlGetInt(f.in, unix.SIOCOUTQ)
	if err != nil {
		return 0, fmt.Errorf("memory of connection queue: %w", err)
	}
	return n, nil
}

// Malformed counts messages that were no records of this version and were
// dropped, their descriptors closed.
func (f *FIFO) Malformed() uint64 { return f.malformed.Load() }

// Overflows counts Puts that found no room.
func (f *FIFO) Overflows() uint64 { return f.overflows.Load() }

// Close closes this process's two descriptors. What waits is lost only if no
// other process holds them. The FIFO must not be in use.
func (f *FIFO) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.in < 0 {
		return nil
	}
	err := errors.Join(unix.Close(f.in), unix.Close(f.out))
	f.in, f.out = -1, -1
	return err
}

var _ io.Closer = (*FIFO)(nil)
