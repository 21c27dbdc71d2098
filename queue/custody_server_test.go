package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The service of these tests: a small protocol with all that matters of
// HTTP/1.1. Requests with a body, kept alive and pipelined, answers of a head that differs
// from process to process and a body that does not, connections that are
// closed behind an answer.
//
//	request  magic, number, length of its body, length of the answer's, flags; body
//	answer   magic, number, length of the body, pid, length of the padding; padding of pid; body
const (
	askMagic  = 0x3f6b7361
	tellMagic = 0x6c6c6574
	askLen    = 20
	tellLen   = 20

	flagClose = 1
)

// pattern is what bodies are cut from: byte i of body n is pattern[(i+977n) mod 64 Ki].
var pattern = func() []byte {
	p := make([]byte, 2<<16)
	x := uint32(1)
	for i := range 1 << 16 {
		x = x*1664525 + 1013904223
		p[i], p[i+1<<16] = byte(x>>24), byte(x>>24)
	}
	return p
}()

// bodyPart is a run of body n from byte at on, at most most bytes.
func bodyPart(n uint32, at, most int) []byte {
	start := (at + 977*int(n)) & 0xffff
	return pattern[start : start+min(most, 1<<16)]
}

func appendAsk(b []byte, n uint32, body, answer int, flags uint32) []byte {
	for _, v := range []uint32{askMagic, n, uint32(body), uint32(answer), flags} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	for at := 0; at < body; at += 1 << 16 {
		b = append(b, bodyPart(n, at, body-at)...)
	}
	return b
}

// tally is shared with the test: what the servers found.
type tally struct {
	conditions [conditions]atomic.Int64
	reasons    [reasons]atomic.Int64
	vanished   atomic.Int64 // slots whose socket never came
	duplicates atomic.Int64
	served     atomic.Int64
	serving    atomic.Int64 // the generation that serves
	badAsks    atomic.Int64
}

// A server is one generation of it: a single loop.
type server struct {
	journal  *Journal
	ledger   *Ledger
	tally    *tally
	epoll    int
	listener int
	conns    map[int]*conn
	rendered uint32
}

type conn struct {
	fd       int
	slot     *Slot
	page     Page
	base     uint64
	rx       uint64 // where the present request begins
	consumed uint64
	written  uint64

	// The answer under way; head.Length 0: none.
	head   Head
	number uint32
	body   uint64
	begun  uint64 // written when it began
	flags  uint32
}

// runServer: 3 end to send into, 4 end to receive from, 5 journal, 6
// listener, 7 tally.
func runServer() error {
	mem, err := mapShared(7, int(unsafe.Sizeof(tally{})))
	if err != nil {
		return err
	}
	s := &server{tally: (*tally)(unsafe.Pointer(&mem[0])), listener: 6, conns: make(map[int]*conn)}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if s.journal, err = OpenJournal(5); err != nil {
		return err
	}
	runtime.LockOSThread()
	generation, err := s.journal.Claim()
	if err != nil {
		return err
	}
	if _, err := s.journal.Notice(0).Register(); err != nil {
		return err
	}
	if err := s.journal.KeepFromChildren(); err != nil {
		return err
	}
	k, err := StartKeeper(KeeperOptions{End: 3, Generation: generation, Kinds: KindTCP, Threads: s.journal.Notices()})
	if err != nil {
		return err
	}
	s.journal.MarkKept(k)
	if s.ledger, err = s.journal.Ledger(0); err != nil {
		return err
	}
	if err := s.adoptAll(4); err != nil {
		return err
	}
	s.tally.serving.Store(int64(generation))
	return s.run()
}

func (s *server) adoptAll(end int) error {
	slots := s.ledger.Find()
	if senders := s.journal.Outstanding(); len(senders) > 0 {
		c, err := ReceiveCustody(end, CustodyOptions{Senders: senders, Timeout: 30 * time.Second})
		if err != nil {
			return err
		}
		for k := range c.All() {
			slot := slots[k.Cookie]
			delete(slots, k.Cookie)
			if err := s.adopt(k, slot); err != nil {
				return err
			}
		}
		s.tally.duplicates.Add(int64(c.Duplicates()))
		// A predecessor that received an END and died has made this
		// keeper's missing; whether anything is, the slots tell.
		var incomplete *IncompleteError
		if err := c.Err(); err != nil && !(errors.As(err, &incomplete) && len(senders) > 1) {
			return err
		}
	}
	for _, slot := range slots {
		s.tally.vanished.Add(1)
		s.ledger.Close(slot)
	}
	s.journal.MarkReceived()
	return nil
}

// adopt goes on with one connection of a dead generation.
func (s *server) adopt(k Kept, slot *Slot) error {
	var state SlotState
	if slot != nil {
		state = slot.State()
	}
	p, err := ReadProgress(k.FD, Passive)
	if err != nil && !errors.Is(err, ErrConnectionOver) {
		return err
	}
	v := Classify(state, p)
	s.tally.conditions[v.Condition].Add(1)
	s.tally.reasons[v.Reason].Add(1)
	switch v.Condition {
	case Lost, Closing:
		if slot != nil {
			s.ledger.Close(slot)
		}
		return unix.Close(k.FD)
	case AcceptGap:
		return s.welcome(k.FD)
	}
	c := &conn{
		fd: k.FD, slot: slot, page: state.Page, base: state.Base, rx: state.Rx,
		consumed: p.Consumed, written: p.Written,
		head: state.Head, number: uint32(state.Object), body: state.Body, begun: state.Tx, flags: slot.Note(),
	}
	return s.enter(c)
}

func (s *server) welcome(fd int) error {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	slot, err := s.ledger.Open(cookie, 0, 0, 0)
	if err != nil {
		return err
	}
	return s.enter(&conn{fd: fd, slot: slot})
}

func (s *server) enter(c *conn) error {
	s.conns[c.fd] = c
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, c.fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET&0xffffffff, Fd: int32(c.fd)})
}

func (s *server) run() error {
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, s.listener, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.listener)}); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == s.listener {
				err = s.accept()
			} else if c := s.conns[int(ev.Fd)]; c != nil {
				err = s.serve(c)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (s *server) accept() error {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil // taken by nobody, or gone again
	}
	return s.welcome(fd)
}

// serve goes on until the kernel has nothing to read or no room to write.
func (s *server) serve(c *conn) error {
	for {
		var again bool
		var err error
		switch {
		case c.head.Length > 0:
			again, err = s.write(c)
		case s.parse(c):
			again, err = true, nil
		default:
			again, err = s.read(c)
		}
		if err != nil {
			s.close(c)
			return nil
		}
		if !again {
			return nil
		}
	}
}

func (s *server) close(c *conn) {
	s.ledger.Close(c.slot)
	delete(s.conns, c.fd)
	unix.Close(c.fd)
}

// parse commits an answer if a whole request lies in the page.
func (s *server) parse(c *conn) bool {
	pending := c.consumed - c.rx
	if pending < askLen {
		return false
	}
	from := int(c.rx - c.base)
	ask := s.ledger.Bytes(c.page)[from : from+int(pending)]
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(ask[4*i:]) }
	n, body := word(1), int(word(2))
	if word(0) != askMagic {
		s.tally.badAsks.Add(1)
		return false
	}
	if int(pending) < askLen+body {
		return false
	}
	for at := 0; at < body; at += 1 << 16 {
		part := bodyPart(n, at, body-at)
		if string(ask[askLen+at:askLen+at+len(part)]) != string(part) {
			s.tally.badAsks.Add(1)
		}
	}
	c.slot.SetNote(word(4))
	c.slot.Complete(uint64(askLen + body))
	c.number, c.body, c.flags = n, uint64(word(3)), word(4)
	c.head = s.render(n, uint32(c.body))
	c.begun = c.written
	c.slot.Answer(c.head, uint64(n), c.body)
	return true
}

// render writes a head that no other process would.
func (s *server) render(n, body uint32) Head {
	p, ok := s.ledger.Page(SmallPage)
	if !ok {
		panic("no page for a head")
	}
	s.rendered++
	pid := uint32(unix.Getpid())
	padding := (s.rendered*7 + pid) % 700
	b := s.ledger.Bytes(p)[:0]
	for _, v := range []uint32{tellMagic, n, body, pid, padding} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	for i := range padding {
		b = append(b, byte(pid+i))
	}
	return Head{Page: p, Length: len(b)}
}

func (s *server) write(c *conn) (again bool, err error) {
	sent := c.written - c.begun
	head := uint64(c.head.Length)
	if sent == head+c.body {
		return true, s.finish(c)
	}
	var parts [][]byte
	if sent < head {
		parts = append(parts, s.ledger.Bytes(c.head.Page)[c.head.Offset:][sent:head])
		sent = head
	}
	if left := c.body - (sent - head); left > 0 {
		parts = append(parts, bodyPart(c.number, int(sent-head), int(left)))
	}
	n, err := unix.Writev(c.fd, parts)
	if err == unix.EAGAIN {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.written += uint64(n)
	return true, nil
}

func (s *server) finish(c *conn) error {
	s.tally.served.Add(1)
	if c.flags&flagClose != 0 {
		// Without Finish, which would forget that this was the last: a
		// successor would take the connection for an idle one.
		return io.EOF
	}
	c.rx += c.slot.State().Request
	c.slot.Finish(c.written)
	s.ledger.Free(c.head.Page)
	c.head = Head{}
	return nil
}

func (s *server) read(c *conn) (again bool, err error) {
	if err := s.makeRoom(c); err != nil {
		return false, err
	}
	n, err := unix.Read(c.fd, s.ledger.Bytes(c.page)[c.consumed-c.base:])
	switch {
	case err == unix.EAGAIN:
		if c.consumed == c.rx {
			c.slot.Detach()
			s.ledger.Free(c.page)
			c.page = 0
		}
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, io.EOF
	}
	c.consumed += uint64(n)
	return true, nil
}

// makeRoom attaches a page, or puts a larger one in place of a full one.
func (s *server) makeRoom(c *conn) error {
	if c.page != 0 && int(c.consumed-c.base) < c.page.Len() {
		return nil
	}
	pending := int(c.consumed - c.rx)
	p, ok := s.ledger.Page(pending + 1)
	if !ok {
		return fmt.Errorf("no page for %d bytes", pending)
	}
	if c.page == 0 {
		c.slot.Attach(p, c.consumed)
		c.page, c.base = p, c.consumed
		return nil
	}
	copy(s.ledger.Bytes(p), s.ledger.Bytes(c.page)[c.rx-c.base:c.consumed-c.base])
	c.slot.Replace(p, c.rx)
	s.ledger.Free(c.page)
	c.page, c.base = p, c.rx
	return nil
}
