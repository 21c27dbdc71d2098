package session

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

// Limits bound what a client may do. Times of 0 mean no limit.
type Limits struct {
	Head   http1.Limits  // of request heads
	Header time.Duration // from the first byte of a head to its last
	Idle   time.Duration // between requests
	Body   time.Duration // between bytes of a request's body
	Write  time.Duration // without the client taking a byte
	Tunnel time.Duration // without a byte either way
}

// Stats counts what sessions do, in units of one except where it says bytes.
type Stats interface {
	Request()
	Response(status int)
	Received(bytes int)
	Sent(bytes int)
	Malformed()
	Aborted()
	Timeout(t Timeout)
	NoBuffers()
	TunnelOpened()
	TunnelClosed(tunnel.Summary)
}

// Timeout names a time limit of a session.
type Timeout uint8

const (
	HeaderTimeout Timeout = iota
	IdleTimeout
	BodyTimeout
	WriteTimeout
)

// A Host is what the sessions of one loop share. Owned by the loop.
type Host struct {
	Loop   *eventloop.Loop
	Arena  *buffer.Arena
	Env    *transaction.Env
	Limits *Limits // replaced as a whole on reload
	Stats  Stats
	Closed func() // called after a session has gone

	// Draining: every reply ends its connection, and no idle one is kept.
	Draining bool

	sessions list
	spare    []*Session // closed, for reuse
	works    []*work    // likewise
}

// phase is where a session stands.
type phase uint8

const (
	phaseIdle      phase = iota // between requests; nothing received
	phaseHead                   // a head has begun
	phaseAnswering              // a transaction is under way
	phaseTunnel                 // no longer HTTP
	phaseLingering              // the last reply is sent; waiting for the client to close
	phaseClosed
)

func (p phase) String() string {
	return [...]string{"idle", "head", "answering", "tunnel", "lingering", "closed"}[p]
}

// A Session is one client connection. Owned by its host's loop.
type Session struct {
	host  *Host
	fd    int
	watch eventloop.Watch
	limit deadline.Deadline
	peer  netip.AddrPort
	phase phase

	prev, next *Session // in host.sessions

	// What has been received. in is held only while there is something in it.
	in     buffer.Ref
	lo, hi int
	scan   http1.HeadScan
	blanks bool // the empty lines before this request have been skipped
	// readable: the kernel may have more than we took. Events are
	// edge-triggered, so this is remembered.
	readable bool
	hangup   bool // the client's end is in the socket, behind what is to be read
	eof      bool

	served  int    // requests answered
	rx, tx  uint64 // bytes consumed and written since the connection began
	running bool   // guards against Wake from within run
	again   bool   // Wake was called meanwhile

	// work is what a request in progress needs; nil between requests.
	work *work
	tun  *tunnel.Tunnel // in phaseTunnel
}

// work is the part of a session that an idle one does not need.
type work struct {
	req http1.Request
	txn transaction.Transaction

	// The request's body.
	framing bodyFraming
	left    int64
	chunks  http1.Chunked
	data    int        // decoded bytes that come next, not yet taken
	page    buffer.Ref // what came after the page that the head is in
	pageLo  int
	pageHi  int
	failed  bool // the body can never be completed
	expect  bool // the client waits for 100 (Continue)

	// The reply.
	reply *transaction.Reply
	close bool
	out   buffer.Ref
	outLo int
	outHi int
	// The body's run that goes with out: [off, end) of the reply's body, then
	// tail bytes of CRLF.
	off        int64
	end        int64 // of the run when chunked; of the body otherwise; -1 unknown
	tail       int
	chunked    bool
	lastSent   bool // the last chunk is in out
	untilClose bool // the end of the connection ends the body
	iov        [sock.IOVMax]unix.Iovec
}

// bodyFraming says how the end of a request's body is known.
type bodyFraming uint8

const (
	noBody bodyFraming = iota
	lengthBody
	chunkedBody
	endedBody // it was, and its end has been consumed
)

// lingerTime is how long a connection that we have ended may take to be closed
// by the client, so that our last reply is not lost to a reset (RFC 9112 §9.6).
const lingerTime = 3 * time.Second

// Serve makes a session of an accepted connection, non-blocking, and begins to
// serve it. The descriptor is the session's from now on.
//
// The first request has often arrived by now, and then it may be the last: the
// session is watched only when there is something to wait for.
func (h *Host) Serve(fd int, peer netip.AddrPort) {
	s := h.takeSession()
	s.fd, s.peer, s.readable = fd, peer, true
	h.sessions.push(s)
	s.limit.Set(h.Limits.Header)
	s.run()
	if s.phase == phaseClosed || s.phase == phaseTunnel {
		return
	}
	// Whatever has happened on the connection meanwhile is reported at once.
	if err := h.Loop.Watch(&s.watch, fd, eventloop.Readable|eventloop.Writable|eventloop.Hangup|eventloop.Edge, s); err != nil {
		s.abort()
	}
}

// HandleEvent implements eventloop.Handler.
func (s *Session) HandleEvent(_ *eventloop.Watch, ev eventloop.Event) {
	if ev&(eventloop.Readable|eventloop.Hangup) != 0 {
		s.readable = true
	}
	s.hangup = s.hangup || ev&eventloop.Hangup != 0
	if s.phase == phaseAnswering {
		if ev&eventloop.Broken != 0 {
			s.abort()
			return
		}
		if s.readable && s.work.framing != noBody {
			s.work.txn.BodyReady()
		}
	}
	s.run()
}

// RunTask implements eventloop.Task: another turn.
func (s *Session) RunTask() { s.run() }

// Wake implements transaction.Client.
func (s *Session) Wake() {
	if s.running {
		s.again = true
		return
	}
	s.run()
}

// Peer implements transaction.Client.
func (s *Session) Peer() netip.AddrPort { return s.peer }

// run takes the session as far as it goes now.
func (s *Session) run() {
	if s.running {
		s.again = true
		return
	}
	s.running = true
	for s.step() || s.takeAgain() {
	}
	s.running = false
}

func (s *Session) takeAgain() bool {
	again := s.again
	s.again = false
	return again
}

// step does one thing and reports whether there may be another to do.
func (s *Session) step() bool {
	switch s.phase {
	case phaseIdle, phaseHead:
		return s.receiveHead()
	case phaseAnswering:
		return s.answer()
	case phaseLingering:
		s.linger()
	}
	return false
}

// receiveHead receives and, once a head is complete, begins its transaction.
func (s *Session) receiveHead() bool {
	if s.lo == s.hi {
		if !s.readable {
			return false
		}
		if !s.receive() {
			return false
		}
	}
	s.phase = phaseHead
	buf := s.host.Arena.Bytes(s.in)
	if s.scan == (http1.HeadScan{}) {
		// Nearly every head comes in one piece: parse first, and look for its
		// end only when that fails.
		if !s.blanks {
			s.lo += http1.SkipEmptyLines(buf[s.lo:s.hi])
			s.blanks = true
			if s.lo == s.hi {
				return true
			}
		}
		if s.begin(buf[s.lo:s.hi]) {
			return true
		}
	}
	part := buf[s.lo:s.hi]
	end, err := s.scan.Request(part, &s.host.Limits.Head)
	if err == nil && end > 0 {
		s.begin(part)
		return true
	}
	if err != nil {
		s.refuse(err)
		return true
	}
	if s.eof {
		s.close()
		return false
	}
	return s.readable && s.receive()
}

// receive takes what the kernel has into the page. It reports whether a byte or
// the end of the stream has come; without either the session waits, or is
// closed.
func (s *Session) receive() bool {
	if !s.makeRoom() {
		s.host.Stats.NoBuffers()
		s.close()
		return false
	}
	buf := s.host.Arena.Bytes(s.in)[s.hi:]
	n, errno := sock.Recv(s.fd, buf)
	switch {
	case errno == sock.Again:
		s.readable = false
		s.releaseIn()
		return false
	case errno != 0:
		s.close()
		return false
	case n == 0:
		s.eof, s.readable = true, false
		if s.phase == phaseIdle || s.lo == s.hi {
			s.close()
			return false
		}
		return true
	}
	if s.phase == phaseIdle {
		s.limit.Set(s.host.Limits.Header)
	}
	// A short read has emptied the socket, unless its end is still in it; what
	// comes later makes an event.
	s.readable = n == len(buf) || s.hangup
	s.hi += n
	s.rx += uint64(n)
	s.host.Stats.Received(n)
	return true
}

// makeRoom sees to it that the page has room for more. Bytes are never moved
// within a page, only to another one: what lies in a page stays where it is
// said to be until the page is given back.
func (s *Session) makeRoom() bool {
	a := s.host.Arena
	if s.in == 0 {
		ref, ok := a.GetSmall()
		if !ok {
			return false
		}
		s.in, s.lo, s.hi = ref, 0, 0
		return true
	}
	buf := a.Bytes(s.in)
	if s.hi < len(buf) {
		return true
	}
	ref, ok := a.Get(max(2*(s.hi-s.lo), buffer.Small))
	if !ok {
		if ref, ok = a.GetLarge(); !ok {
			return false
		}
	}
	n := copy(a.Bytes(ref), buf[s.lo:s.hi])
	a.Put(s.in)
	s.in, s.lo, s.hi = ref, 0, n
	return n < len(a.Bytes(ref))
}

// releaseIn gives the page back if there is nothing in it.
func (s *Session) releaseIn() {
	if s.lo == s.hi && s.in != 0 {
		s.host.Arena.Put(s.in)
		s.in, s.lo, s.hi = 0, 0, 0
	}
}

// begin starts the transaction of the request that b begins with. It reports
// false when the head is not complete yet.
func (s *Session) begin(b []byte) bool {
	w := s.host.takeWork()
	err := w.req.Parse(b, &s.host.Limits.Head)
	if err == http1.ErrIncomplete {
		s.host.putWork(w)
		return false
	}
	s.work = w
	s.scan, s.blanks = http1.HeadScan{}, false
	if err != nil {
		s.refuse(err)
		return true
	}
	s.phase = phaseAnswering
	s.limit.Clear()
	s.lo += w.req.HeadLen
	s.host.Stats.Request()
	w.close = w.req.Close
	switch {
	case w.req.Chunked:
		w.framing = chunkedBody
	case w.req.ContentLength > 0:
		w.framing, w.left = lengthBody, w.req.ContentLength
	}
	w.expect = w.req.Expect100
	w.txn.Begin(s.host.Env, s, &w.req, b[:w.req.HeadLen])
	return true
}

// refuse answers a request that cannot be understood and closes: where the next
// request would begin is not known.
func (s *Session) refuse(err error) {
	if s.work == nil {
		s.work = s.host.takeWork()
	}
	status, reason := 400, err.Error()
	var fault *http1.Error
	if errors.As(err, &fault) {
		status = fault.Status
	}
	s.phase = phaseAnswering
	s.limit.Clear()
	s.host.Stats.Malformed()
	s.work.framing = noBody
	s.work.close = true
	s.work.txn.Refuse(s.host.Env, s, status, reason)
}

// nextRequest ends the transaction and goes on to the next request.
func (s *Session) nextRequest() {
	w := s.work
	s.host.Stats.Response(w.reply.Status)
	asked := w.req.Close && w.bodyConsumed()
	last := w.close || s.host.Draining || !w.bodyConsumed()
	if w.pageLo < w.pageHi {
		// The next request has come behind this one's body.
		s.host.Arena.Put(s.in)
		s.in, s.lo, s.hi = w.page, w.pageLo, w.pageHi
		w.page = 0
	}
	s.endWork()
	s.served++
	if last {
		s.shutdown(asked)
		return
	}
	s.phase = phaseIdle
	s.releaseIn()
	if s.lo == s.hi {
		s.limit.Set(s.host.Limits.Idle)
	} else {
		s.limit.Set(s.host.Limits.Header)
	}
}

// endWork gives back what only a request in progress needs.
func (s *Session) endWork() {
	w := s.work
	w.txn.End()
	s.work = nil
	s.host.Arena.Put(w.out)
	s.host.Arena.Put(w.page)
	s.host.putWork(w)
}

// shutdown ends the connection after its last reply. asked says that the client
// wants that, too.
func (s *Session) shutdown(asked bool) {
	quiet := s.lo == s.hi && !s.readable
	if s.lo == s.hi && s.eof || quiet && asked {
		s.close()
		return
	}
	// Bytes of the client that we have not read would turn our close into a
	// reset, and the reset could overtake the reply (RFC 9112 §9.6).
	sock.ShutdownWrite(s.fd)
	s.phase = phaseLingering
	s.limit.Set(lingerTime)
	if quiet {
		s.releaseIn()
	}
}

// linger throws away what the client still sends until it closes, or the time
// for that is over.
func (s *Session) linger() {
	if !s.readable {
		return
	}
	s.lo, s.hi = 0, 0
	if s.in == 0 && !s.makeRoom() {
		s.close()
		return
	}
	buf := s.host.Arena.Bytes(s.in)
	for range maxTurn / buffer.Small {
		n, errno := sock.Recv(s.fd, buf)
		if errno == sock.Again {
			s.readable = false
			s.releaseIn()
			return
		}
		if errno != 0 || n == 0 {
			s.close()
			return
		}
	}
	s.host.Loop.PostTask(s)
}

// abort ends everything at once: the client is gone or cannot be served on.
func (s *Session) abort() {
	if s.tun != nil {
		s.tun.Close() // and with it the session
		return
	}
	if s.work != nil {
		s.host.Stats.Aborted()
		if s.work.untilClose && s.fd >= 0 {
			// Only a reset tells this end from the end of the body.
			sock.ResetOnClose(s.fd)
		}
	}
	s.close()
}

// close closes the connection. No transaction is under way.
func (s *Session) close() {
	if s.phase == phaseClosed {
		return
	}
	if s.work != nil {
		s.endWork()
	}
	s.phase = phaseClosed
	s.limit.Stop()
	s.host.Arena.Put(s.in)
	s.in = 0
	s.host.sessions.remove(s)
	if s.fd >= 0 {
		if s.watch.Active() {
			s.host.Loop.Forget(&s.watch)
		}
		sock.Close(s.fd)
	}
	s.host.putSession(s)
	s.host.Closed()
}

// expired is called when a time limit passes.
func (s *Session) expired() {
	switch s.phase {
	case phaseHead:
		s.host.Stats.Timeout(HeaderTimeout)
		s.refuse(&http1.Error{Status: 408, Reason: "the request took too long to arrive"})
		s.run()
	case phaseAnswering:
		if s.work.reply != nil {
			s.host.Stats.Timeout(WriteTimeout)
			s.abort()
			return
		}
		s.host.Stats.Timeout(BodyTimeout)
		s.work.txn.End()
		s.refuse(&http1.Error{Status: 408, Reason: "the request's body took too long to arrive"})
		s.run()
	default:
		s.host.Stats.Timeout(IdleTimeout)
		s.close()
	}
}

// Drain closes idle sessions and makes all others end with their reply.
func (h *Host) Drain() {
	h.Draining = true
	for s := h.sessions.head; s != nil; {
		next := s.next
		if s.phase == phaseIdle && s.served > 0 {
			s.close()
		}
		s = next
	}
}

// Sessions returns the number of open sessions.
func (h *Host) Sessions() int { return h.sessions.n }

// CloseAll ends every session, whatever it is doing.
func (h *Host) CloseAll() {
	for h.sessions.head != nil {
		h.sessions.head.abort()
	}
}

// maxSpare bounds what is kept for reuse.
const maxSpare = 1024

func (h *Host) takeSession() *Session {
	if n := len(h.spare); n > 0 {
		s := h.spare[n-1]
		h.spare = h.spare[:n-1]
		s.reset()
		return s
	}
	s := &Session{host: h}
	s.limit.Init(h.Loop, s.expired)
	return s
}

// reset makes a closed session as good as new. A turn that was posted for its
// former self does no harm: it finds nothing to do.
func (s *Session) reset() {
	*s = Session{host: s.host, limit: s.limit}
}

func (h *Host) putSession(s *Session) {
	if len(h.spare) < maxSpare {
		h.spare = append(h.spare, s)
	}
}

func (h *Host) takeWork() *work {
	if n := len(h.works); n > 0 {
		w := h.works[n-1]
		h.works = h.works[:n-1]
		return w
	}
	return &work{}
}

func (h *Host) putWork(w *work) {
	w.reset()
	if len(h.works) < maxSpare {
		h.works = append(h.works, w)
	}
}

func (w *work) reset() {
	w.framing, w.left, w.chunks, w.data = noBody, 0, http1.Chunked{}, 0
	w.page, w.pageLo, w.pageHi = 0, 0, 0
	w.failed, w.expect = false, false
	w.reply, w.close = nil, false
	w.out, w.outLo, w.outHi = 0, 0, 0
	w.off, w.end, w.tail = 0, 0, 0
	w.chunked, w.lastSent, w.untilClose = false, false, false
}

// bodyConsumed reports whether the request's body is behind us, so that the
// next bytes are the next request.
func (w *work) bodyConsumed() bool {
	return w.framing == noBody || w.framing == endedBody
}

// list is the sessions of a host.
type list struct {
	head *Session
	n    int
}

func (l *list) push(s *Session) {
	s.next = l.head
	if l.head != nil {
		l.head.prev = s
	}
	l.head = s
	l.n++
}

func (l *list) remove(s *Session) {
	if s.prev != nil {
		s.prev.next = s.next
	} else if l.head == s {
		l.head = s.next
	} else {
		return // never pushed
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	l.n--
}

var _ transaction.Client = (*Session)(nil)
var _ origin.RequestBody = (*Session)(nil)
