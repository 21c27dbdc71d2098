package queue

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A custodyMessage is what a keeper sends: a header, and an entry for each
// descriptor that comes with it. Native byte order and the compiler's layout
// (no padding: checked by a test): sender and receiver are on one machine, and
// custodyMagic changes with the layout.
type custodyMessage struct {
	magic       uint32
	op          uint32
	generation  uint64
	start       uint64 // start time of the sender, 0: unknown
	pid         uint32 // of the sender
	index       uint32 // of this message, from 0
	count       uint32 // entries in this message
	descriptors uint32 // in this and all messages before: in END, the total
	entries     [MaxFDs]custodyEntry
}

type custodyEntry struct {
	cookie uint64 // SO_COOKIE of a socket, inode of a pipe
	fd     int32  // number in the sender's table
	kind   Kind
}

// custodyControl is the ancillary data of a message (cmsg(3)), laid out for
// the keeper, which cannot build it step by step.
type custodyControl struct {
	len   uint64
	level int32
	typ   int32
	fds   [MaxFDs + 1]int32
}

const (
	custodyMagic       = 0x314b4654 // "TFK1"
	custodyDescriptors = 1
	custodyEnd         = 2
	custodyFirstEnd    = 3 // what goes first has been sent

	custodyHeaderLen  = int(unsafe.Offsetof(custodyMessage{}.entries))
	custodyControlLen = int(unsafe.Offsetof(custodyControl{}.fds))
	custodyMessageLen = int(unsafe.Sizeof(custodyMessage{}))
)

var (
	errCustodyMessage = errors.New("not a message of a keeper")
	errAllEnded       = errors.New("every keeper has ended")
)

// Sender names a keeper that is expected to send.
type Sender struct {
	Generation uint64
	PID        int    // 0: unknown
	StartTime  uint64 // 0: unknown
}

// over tells whether the keeper has exited, false if that cannot be told.
func (s Sender) over() bool {
	if s.PID == 0 {
		return false
	}
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	if s.StartTime != 0 && startTime(s.PID) != s.StartTime {
		return true
	}
	n, err := pollFor([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0, true)
	return err == nil && n == 1
}

// Kept is one descriptor out of custody. FD is the receiver's: close-on-exec,
// and the receiver's to close.
type Kept struct {
	FD         int
	Kind       Kind
	Cookie     uint64 // SO_COOKIE of a socket, inode number of anything else
	Number     int    // what FD was in the dead process
	Generation uint64 // of the process it was kept for
}

// IncompleteError reports keepers that are gone without having sent
// everything, as far as this receiver saw.
type IncompleteError struct {
	Missing []Sender
}

// Error implements error.
func (e *IncompleteError) Error() string {
	return fmt.Sprintf("receive custody: %d keepers died before their END, first: generation %d, pid %d",
		len(e.Missing), e.Missing[0].Generation, e.Missing[0].PID)
}

// ErrCustodyGap reports that a message between two others was not received.
var ErrCustodyGap = errors.New("messages of a keeper are missing")

// A Custody receives what keepers send into a socketpair.
//
// There may be more than one of them: a standby that dies while it adopts has
// a keeper of its own, which sends what it had received, while the keeper
// before goes on sending the rest. So messages are told apart by sender, each
// with its own numbering and END, and the same socket arriving twice (a dup,
// or received by a dead standby and sent again) is handed out once, by cookie.
//
// A Custody is used by one goroutine. Not everything needs to be received
// before the first connection is served.
type Custody struct {
	end     int // borrowed
	stream  bool
	timeout time.Duration

	senders map[senderKey]*sender
	seen    map[keptKey]struct{}
	batch   custodyMessage
	err     error

	duplicates int
	lost       int
}

type senderKey struct {
	generation uint64
	pid        uint32
}

type keptKey struct {
	kind   Kind
	access int // the two ends of a pipe have one inode
	cookie uint64
}

// sender is what is known of one keeper.
type sender struct {
	Sender
	pidfd   int // -1: none
	next    uint32
	started bool
	first   bool
	ended   bool
	gone    bool
}

// CustodyOptions says what a Custody is to wait for.
type CustodyOptions struct {
	// Senders are the keepers whose END is awaited. Others that send meanwhile
	// are received as well, and awaited once they have begun. None: the first
	// that sends.
	Senders []Sender
	// Timeout bounds the wait for each message; then Err is
	// os.ErrDeadlineExceeded. Zero: no bound.
	Timeout time.Duration
}

// ReceiveCustody prepares to receive from end, a socket whose peer keepers
// send into. It is borrowed.
func ReceiveCustody(end int, o CustodyOptions) (*Custody, error) {
	typ, err := unix.GetsockoptInt(end, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("receive custody: %w", err)
	}
	c := &Custody{
		end: end, stream: typ == unix.SOCK_STREAM, timeout: o.Timeout,
		senders: make(map[senderKey]*sender), seen: make(map[keptKey]struct{}),
	}
	for _, s := range o.Senders {
		c.expect(s)
	}
	return c, nil
}

// expect enters a sender, with a pidfd if the process can be had. A process
// that is not there any more, or not the same, is gone: what it sent is in the
// socket, or was taken out by somebody else.
func (c *Custody) expect(who Sender) *sender {
	s := &sender{Sender: who, pidfd: -1}
	c.senders[senderKey{who.Generation, uint32(who.PID)}] = s
	if who.PID == 0 {
		return s
	}
	fd, err := unix.PidfdOpen(who.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		s.gone = true
	case err != nil: // no pidfd here: the timeout is all there is
	case who.StartTime != 0 && startTime(who.PID) != who.StartTime:
		unix.Close(fd)
		s.gone = true
	default:
		s.pidfd = fd
	}
	return s
}

// All hands out the descriptors, each once, until every keeper has ended and the
// socket is empty: messages of a keeper that is over and was not named may lie
// behind the END of one that was. The loop may be left early; a second All goes on
// behind the message that was left, whose remaining descriptors are closed. Look
// at Err afterwards.
func (c *Custody) All() iter.Seq[Kept] {
	return func(yield func(Kept) bool) {
		for c.err == nil {
			fds, err := c.receive()
			if errors.Is(err, errAllEnded) {
				break
			}
			if err != nil {
				c.err = err
				break
			}
			if !c.handOut(fds, yield) {
				return
			}
		}
		c.closePidfds()
	}
}

// Err says what went wrong, nil if every keeper has sent all it had.
//
// IncompleteError is not always a loss: what a keeper sent may have been
// received by a standby that died, and come again from that one's keeper. The
// journal knows: a slot whose cookie never came is a lost connection.
func (c *Custody) Err() error {
	if c.err != nil {
		return c.err
	}
	var missing []Sender
	for _, s := range c.senders {
		if !s.ended {
			missing = append(missing, s.Sender)
		}
	}
	if len(missing) > 0 {
		return &IncompleteError{Missing: missing}
	}
	if c.lost > 0 {
		return fmt.Errorf("receive custody: %d descriptors: %w", c.lost, ErrNoDescriptors)
	}
	return nil
}

// Duplicates is how many descriptors were of a socket that had been handed
// out before, and were closed.
func (c *Custody) Duplicates() int { return c.duplicates }

// Ended tells whether the keeper of this generation has sent its END.
func (c *Custody) Ended(generation uint64) bool {
	for k, s := range c.senders {
		if k.generation == generation && s.ended {
			return true
		}
	}
	return false
}

// First tells whether every sender has sent what goes first (KeeperOptions.First): it is asked
// between two descriptors that All hands out.
func (c *Custody) First() bool {
	for _, s := range c.senders {
		if !s.first && !s.ended {
			return false
		}
	}
	return len(c.senders) > 0
}

// complete: everybody has ended who was named or has begun. Senders that are gone
// are waited for until the socket is empty, which receive finds out.
func (c *Custody) complete() bool {
	for _, s := range c.senders {
		if !s.ended {
			return false
		}
	}
	return len(c.senders) > 0
}

// receive reads the next message into c.batch. io.EOF-like ends and the death
// of the last sender make it return an error.
func (c *Custody) receive() ([]int, error) {
	for {
		fds, err := c.receiveNow()
		if !errors.Is(err, unix.EAGAIN) {
			return fds, err
		}
		if c.complete() {
			return nil, errAllEnded
		}
		if err := c.wait(); err != nil {
			return nil, err
		}
	}
}

func (c *Custody) receiveNow() ([]int, error) {
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&c.batch)), custodyMessageLen)
	oob := make([]byte, unix.CmsgSpace(MaxFDs*4))
	want := len(buf)
	if c.stream {
		want = custodyHeaderLen
	}
	n, fds, flags, err := recvOnce(c.end, buf[:want], oob, 0)
	if errors.Is(err, io.EOF) {
		if c.complete() {
			return nil, errAllEnded
		}
		return nil, c.incomplete(io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, err
	}
	if c.stream {
		more, err := c.readRest(buf, n)
		fds = append(fds, more...)
		if err != nil {
			CloseAll(fds)
			return nil, err
		}
		n = custodyHeaderLen + int(c.batch.count)*int(unsafe.Sizeof(custodyEntry{}))
	}
	err = c.check(n, len(fds), flags)
	if err == nil {
		err = c.account()
	}
	if err != nil {
		CloseAll(fds)
		return nil, err
	}
	return fds, nil
}

// readRest completes a message on a stream, of which n bytes are there.
func (c *Custody) readRest(buf []byte, n int) (fds []int, err error) {
	for {
		want := custodyHeaderLen
		if n >= custodyHeaderLen {
			if c.batch.magic != custodyMagic || c.batch.count > MaxFDs {
				return fds, fmt.Errorf("receive custody: %w", errCustodyMessage)
			}
			want += int(c.batch.count) * int(unsafe.Sizeof(custodyEntry{}))
		}
		if n == want {
			return fds, nil
		}
		oob := make([]byte, unix.CmsgSpace(MaxFDs*4))
		m, more, _, err := recvOnce(c.end, buf[n:want], oob, 0)
		fds = append(fds, more...)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = c.wait()
		case errors.Is(err, io.EOF):
			err = c.incomplete(io.ErrUnexpectedEOF)
		}
		if err != nil {
			return fds, err
		}
		n += m
	}
}

func (c *Custody) check(n, fds, flags int) error {
	m := &c.batch
	if n < custodyHeaderLen || m.magic != custodyMagic {
		return fmt.Errorf("receive custody: %w: %d bytes, magic %#x", errCustodyMessage, n, m.magic)
	}
	entries := n - custodyHeaderLen
	if flags&unix.MSG_TRUNC != 0 || m.count > MaxFDs || fds > int(m.count) || entries != int(m.count)*int(unsafe.Sizeof(custodyEntry{})) {
		return fmt.Errorf("receive custody: %w: %d entries in %d bytes", errCustodyMessage, m.count, n)
	}
	if m.op < custodyDescriptors || m.op > custodyFirstEnd || m.op != custodyDescriptors && m.count > 0 {
		return fmt.Errorf("receive custody: %w: operation %d with %d entries", errCustodyMessage, m.op, m.count)
	}
	return nil
}

// account enters the message in its sender's book.
func (c *Custody) account() error {
	m := &c.batch
	s := c.senderOf(m)
	if s.started && m.index != s.next || s.ended {
		return fmt.Errorf("receive custody: %w: generation %d, message %d where %d was due", ErrCustodyGap, m.generation, m.index, s.next)
	}
	// A first message that is not number 0: a standby took the ones before,
	// and has died since.
	s.started, s.next = true, m.index+1
	s.ended = m.op == custodyEnd
	s.first = s.first || m.op == custodyFirstEnd
	return nil
}

func (c *Custody) senderOf(m *custodyMessage) *sender {
	if s := c.senders[senderKey{m.generation, m.pid}]; s != nil {
		return s
	}
	// Expected without a PID?
	anonymous := senderKey{m.generation, 0}
	if c.senders[anonymous] != nil {
		delete(c.senders, anonymous)
	}
	return c.expect(Sender{Generation: m.generation, PID: int(m.pid), StartTime: m.start})
}

func (c *Custody) handOut(fds []int, yield func(Kept) bool) (more bool) {
	m := &c.batch
	// Fewer than announced: this process's table is full, and the kernel
	// dropped the rest (MSG_CTRUNC).
	c.lost += int(m.count) - len(fds)
	for i, fd := range fds {
		e := m.entries[i]
		k := Kept{FD: fd, Kind: e.kind, Cookie: e.cookie, Number: int(e.fd), Generation: m.generation}
		if c.known(k) {
			c.duplicates++
			unix.Close(fd)
			continue
		}
		Killpoint(stepReceived)
		if !yield(k) {
			CloseAll(fds[i+1:])
			return false
		}
	}
	return true
}

func (c *Custody) known(k Kept) bool {
	key := keptKey{kind: k.Kind, cookie: k.Cookie}
	if k.Kind == KindPipe {
		flags, _ := unix.FcntlInt(uintptr(k.FD), unix.F_GETFL, 0)
		key.access = flags & unix.O_ACCMODE
	}
	_, known := c.seen[key]
	c.seen[key] = struct{}{}
	return known
}

// wait returns when there may be something to receive. When every sender that
// is still awaited has died, and the socket was empty after that, it says so.
func (c *Custody) wait() error {
	fds := []unix.PollFd{{Fd: int32(c.end), Events: unix.POLLIN}}
	awaited, living := 0, 0
	var watched []*sender
	for _, s := range c.senders {
		if s.ended {
			continue
		}
		awaited++
		if s.gone {
			continue
		}
		living++
		if s.pidfd >= 0 {
			fds = append(fds, unix.PollFd{Fd: int32(s.pidfd), Events: unix.POLLIN})
			watched = append(watched, s)
		}
	}
	patience := c.timeout
	lastLook := awaited > 0 && living == 0
	n, err := pollFor(fds, patience, lastLook)
	switch {
	case err != nil:
		return fmt.Errorf("receive custody: %w", err)
	case n == 0 && lastLook:
		return c.incomplete(nil)
	case n == 0:
		return fmt.Errorf("receive custody: %w", os.ErrDeadlineExceeded)
	}
	if fds[0].Revents != 0 {
		return nil
	}
	for i, s := range watched {
		if fds[i+1].Revents != 0 {
			s.gone = true // and the socket is looked at once more
		}
	}
	return nil
}

// pollFor is poll with a timeout (0: none; now: do not wait).
func pollFor(fds []unix.PollFd, timeout time.Duration, now bool) (int, error) {
	end := deadlineAfter(timeout)
	for {
		var ts *unix.Timespec
		if now {
			ts = &unix.Timespec{}
		} else if !end.IsZero() {
			v := unix.NsecToTimespec(int64(max(0, time.Until(end))))
			ts = &v
		}
		n, err := unix.Ppoll(fds, ts, nil)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// incomplete is the error of an end before every END; cause may be nil.
func (c *Custody) incomplete(cause error) error {
	e := &IncompleteError{}
	for _, s := range c.senders {
		if !s.ended {
			e.Missing = append(e.Missing, s.Sender)
		}
	}
	if len(e.Missing) == 0 {
		return fmt.Errorf("receive custody: %w", cause)
	}
	return e
}

func (c *Custody) closePidfds() {
	for _, s := range c.senders {
		if s.pidfd >= 0 {
			unix.Close(s.pidfd)
			s.pidfd = -1
		}
	}
}
