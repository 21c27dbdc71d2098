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

// condition is how a connection was left by the server that died.
type condition int

const (
	inGap      condition = iota // accepted, and nothing more
	closing                     // its slot was closed
	idle                        // nothing in progress
	begun                       // a place to receive into, and nothing in it
	half                        // a part of a request, or one that was not looked at
	unanswered                  // the head of the answer is committed, and not sent
	partly                      // some of the answer is sent
	answered                    // all of it is
	over                        // both sides have closed
	broken                      // the journal and the kernel contradict each other

	conditions
)

var conditionNames = [conditions]string{
	"in the accept gap", "closing", "idle", "begun", "half a request", "unanswered", "partly answered", "answered", "over", "broken",
}

func (c condition) String() string { return conditionNames[c] }

// The steps of this service, behind those of the journal. A commit has two
// places to die, before and after it.
const (
	stepTurn Step = UserStep + iota // commit: where to receive
	stepBegun
	stepTaken    // received some
	stepMoved    // commit: a larger place
	stepTold     // commit: the answer
	stepSentSome // and there is more
	stepSentAll
	stepNext // commit: the request that was pipelined; the last
)

// tally is shared with the test: what the servers found.
type tally struct {
	adopted    [conditions]atomic.Int64
	now        [conditions]atomic.Int64 // of the server that serves, behind its last turn
	taken      atomic.Int64             // places in the pool, likewise
	vanished   atomic.Int64             // slots whose socket never came
	duplicates atomic.Int64
	served     atomic.Int64
	serving    atomic.Int64 // the generation that serves
	badAsks    atomic.Int64
}

// turn is one request and its answer, and all that the kernel does not know of
// it. A connection on which nothing is in progress has none.
type turn struct {
	page    uint32 // place in the pool that is received into
	head    uint32 // place of the answer's head
	headLen uint32 // 0: there is no answer yet
	number  uint32 // of the request, and so what the body of the answer is
	flags   uint32
	_       uint32
	base    uint64 // byte of the stream at the start of page
	rx, tx  uint64 // byte of either stream that request and answer begin with
	length  uint64 // of the request
	body    uint64 // length of the answer's body
}

// A pool shares out a loop's pool of the journal in places of three sizes. A
// place is its offset; nothing lies at 0.
type pool struct {
	mem  []byte
	free [3][]uint32
}

var poolSizes = [3]struct{ size, count int }{{256, 128}, {4096, 128}, {1 << 16, 32}}

const poolBytes = 4096 + 128*256 + 128*4096 + 32<<16

// newPool takes what is not used for free.
func newPool(mem []byte, used map[uint32]bool) *pool {
	p := &pool{mem: mem}
	at := uint32(4096)
	for class, c := range poolSizes {
		for range c.count {
			if !used[at] {
				p.free[class] = append(p.free[class], at)
			}
			at += uint32(c.size)
		}
	}
	return p
}

// take finds a place of at least n bytes. There are more than the clients of a
// test can need.
func (p *pool) take(n int) uint32 {
	for class, c := range poolSizes {
		if free := &p.free[class]; n <= c.size && len(*free) > 0 {
			at := (*free)[len(*free)-1]
			*free = (*free)[:len(*free)-1]
			return at
		}
	}
	panic(fmt.Sprintf("no place for %d bytes", n))
}

// give takes a place back; 0 is none.
func (p *pool) give(at uint32) {
	if at != 0 {
		class := p.class(at)
		p.free[class] = append(p.free[class], at)
	}
}

func (p *pool) class(at uint32) int {
	end := uint32(4096)
	for class, c := range poolSizes {
		if end += uint32(c.size * c.count); at < end {
			return class
		}
	}
	panic("no such place")
}

func (p *pool) bytes(at uint32) []byte {
	size := uint32(poolSizes[p.class(at)].size)
	return p.mem[at : at+size : at+size]
}

func (p *pool) taken() (n int64) {
	for class, c := range poolSizes {
		n += int64(c.count - len(p.free[class]))
	}
	return n
}

func (p *pool) record(at uint32) *Record[turn] { return RecordAt[turn](p.bytes(at)) }

// A server is one generation of it: a single loop.
type server struct {
	journal  *Journal
	ledger   *Ledger
	pool     *pool
	tally    *tally
	epoll    int
	listener int
	conns    map[int]*conn
	rendered uint32
}

type conn struct {
	fd       int
	slot     *Slot
	at       uint32 // place of the record; 0: nothing is in progress
	turn     turn   // what is committed
	consumed uint64
	written  uint64
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
	if _, err := StartKeeper(KeeperOptions{
		End: 3, Generation: generation, Kinds: KindTCP, Threads: s.journal.Notices(), Journal: s.journal, Replaced: func(Sender, error) {},
	}); err != nil {
		return err
	}
	s.ledger = s.journal.Ledger(0)
	if err := s.adoptAll(4); err != nil {
		return err
	}
	s.tally.serving.Store(int64(generation))
	return s.run()
}

// survey makes the pool out of what the slots name, and the slots findable.
func (s *server) survey() map[uint64]*Slot {
	slots, used := make(map[uint64]*Slot), make(map[uint32]bool)
	mem := s.journal.Pool(0)
	everything := newPool(mem, nil)
	for slot := range s.ledger.All() {
		slots[slot.Cookie()] = slot
		at := uint32(slot.Word())
		if at == 0 {
			continue
		}
		t := everything.record(at).Load()
		for _, place := range []uint32{at, t.page, t.head} {
			if place != 0 && used[place] {
				s.tally.adopted[broken].Add(1) // two say that it is theirs
			}
			used[place] = true
		}
	}
	s.pool = newPool(mem, used)
	return slots
}

func (s *server) adoptAll(end int) error {
	slots := s.survey()
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
	p, err := ReadProgress(k.FD, Passive)
	if err != nil && !errors.Is(err, ErrConnectionOver) {
		return err
	}
	if slot == nil {
		if err == nil && p.Consumed == 0 && p.Written == 0 && !p.State.WeDone() {
			s.tally.adopted[inGap].Add(1)
			return s.welcome(k.FD)
		}
		s.tally.adopted[closing].Add(1)
		return unix.Close(k.FD)
	}
	c := &conn{fd: k.FD, slot: slot, at: uint32(slot.Word()), consumed: p.Consumed, written: p.Written}
	if c.at != 0 {
		c.turn = s.pool.record(c.at).Load()
	}
	condition := over
	if err == nil {
		condition = s.conditionOf(c)
	}
	s.tally.adopted[condition].Add(1)
	if condition == over || condition == broken {
		s.close(c)
		return nil
	}
	return s.enter(c)
}

// conditionOf is a function of what is committed, and of what the kernel has
// counted.
func (s *server) conditionOf(c *conn) condition {
	t := &c.turn
	if c.at == 0 {
		return idle
	}
	sent := c.written - t.tx
	all := uint64(t.headLen) + t.body
	switch {
	case t.page == 0 || c.consumed < t.rx || t.rx < t.base || c.written < t.tx,
		c.consumed-t.base > uint64(len(s.pool.bytes(t.page))),
		t.headLen == 0 && sent > 0,
		t.headLen > 0 && (sent > all || c.consumed-t.rx < t.length):
		return broken
	case t.headLen == 0 && c.consumed == t.rx:
		return begun
	case t.headLen == 0:
		return half
	case sent == 0:
		return unanswered
	case sent < all:
		return partly
	}
	return answered
}

func (s *server) welcome(fd int) error {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	slot, err := s.ledger.Open(cookie, 0)
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
		s.publish()
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

// publish tells the test what would be adopted if the server died now.
func (s *server) publish() {
	var now [conditions]int64
	for _, c := range s.conns {
		now[s.conditionOf(c)]++
	}
	for i := range now {
		s.tally.now[i].Store(now[i])
	}
	s.tally.taken.Store(s.pool.taken())
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
		case c.turn.headLen > 0:
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
	s.forget(c)
	delete(s.conns, c.fd)
	unix.Close(c.fd)
}

// forget gives back what no slot names any more.
func (s *server) forget(c *conn) {
	s.pool.give(c.turn.head)
	s.pool.give(c.turn.page)
	s.pool.give(c.at)
	c.at, c.turn = 0, turn{}
}

func (s *server) commit(c *conn, t turn, step Step) {
	s.pool.record(c.at).Commit(&t, step)
	c.turn = t
}

// parse commits an answer if a whole request lies in the page.
func (s *server) parse(c *conn) bool {
	t := c.turn
	pending := c.consumed - t.rx
	if c.at == 0 || pending < askLen {
		return false
	}
	from := int(t.rx - t.base)
	ask := s.pool.bytes(t.page)[from : from+int(pending)]
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
	t.length, t.number, t.body, t.flags = uint64(askLen+body), n, uint64(word(3)), word(4)
	t.head, t.headLen = s.render(n, uint32(t.body))
	s.commit(c, t, stepTold)
	return true
}

// render writes a head that no other process would.
func (s *server) render(n, body uint32) (at, length uint32) {
	s.rendered++
	pid := uint32(unix.Getpid())
	padding := (s.rendered*7 + pid) % 700
	at = s.pool.take(tellLen + int(padding))
	b := s.pool.bytes(at)[:0]
	for _, v := range []uint32{tellMagic, n, body, pid, padding} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	for i := range padding {
		b = append(b, byte(pid+i))
	}
	return at, uint32(len(b))
}

func (s *server) write(c *conn) (again bool, err error) {
	t := &c.turn
	sent, head := c.written-t.tx, uint64(t.headLen)
	if sent == head+t.body {
		Killpoint(stepSentAll)
		return true, s.finish(c)
	}
	var parts [][]byte
	if sent < head {
		parts = append(parts, s.pool.bytes(t.head)[sent:head])
		sent = head
	}
	if left := t.body - (sent - head); left > 0 {
		parts = append(parts, bodyPart(t.number, int(sent-head), int(left)))
	}
	n, err := unix.Writev(c.fd, parts)
	if err == unix.EAGAIN {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if c.written += uint64(n); c.written-t.tx < head+t.body {
		Killpoint(stepSentSome)
	}
	return true, nil
}

func (s *server) finish(c *conn) error {
	s.tally.served.Add(1)
	t := c.turn
	if t.flags&flagClose != 0 {
		// Still with its record, which says that this was the last: a
		// successor would take the connection for an idle one.
		return io.EOF
	}
	if c.consumed == t.rx+t.length {
		s.rest(c)
		return nil
	}
	s.commit(c, turn{page: t.page, base: t.base, rx: t.rx + t.length, tx: c.written}, stepNext)
	s.pool.give(t.head)
	return nil
}

// rest ends a turn behind which nothing was received.
func (s *server) rest(c *conn) {
	c.slot.Set(0)
	s.forget(c)
}

func (s *server) read(c *conn) (again bool, err error) {
	s.makeRoom(c)
	n, err := unix.Read(c.fd, s.pool.bytes(c.turn.page)[c.consumed-c.turn.base:])
	switch {
	case err == unix.EAGAIN:
		if c.consumed == c.turn.rx {
			s.rest(c)
		}
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, io.EOF
	}
	c.consumed += uint64(n)
	Killpoint(stepTaken)
	return true, nil
}

// makeRoom begins a turn, or puts a larger place in that of a full one.
func (s *server) makeRoom(c *conn) {
	if c.at == 0 {
		c.at = s.pool.take(RecordSize[turn]())
		s.commit(c, turn{page: s.pool.take(1), base: c.consumed, rx: c.consumed, tx: c.written}, stepTurn)
		c.slot.Set(uint64(c.at))
		Killpoint(stepBegun)
		return
	}
	t := c.turn
	old := s.pool.bytes(t.page)
	if int(c.consumed-t.base) < len(old) {
		return
	}
	pending := old[t.rx-t.base : c.consumed-t.base]
	t.page, t.base = s.pool.take(len(pending)+1), t.rx
	copy(s.pool.bytes(t.page), pending)
	was := c.turn.page
	s.commit(c, t, stepMoved)
	s.pool.give(was)
}
