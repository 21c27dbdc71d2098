package session

import (
	"net/netip"

	"trafficd/eventloop"
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

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

	prev, next *Session // in host.sessions

	// What has been received. in is held only while there is something in it.
	lo, hi int
	base   uint64 // number in the client's stream of the page's first byte
	in     buffer.Ref
	scan   http1.HeadScan

	// Small fields stand together: ten thousand idle sessions are ten thousand times this struct.
	phase  phase
	blanks uint8 // empty lines skipped before this request
	// readable: the kernel may have more than we took. Events are
	// edge-triggered, so this is remembered.
	readable bool
	hangup   bool // the client's end is in the socket, behind what is to be read
	eof      bool
	counted  bool // rx and tx are known; of an adopted connection they are asked for when they are needed
	running  bool // guards against Wake from within run
	again    bool // Wake was called meanwhile
	turn     bool // another turn has been posted
	among    bool // see Host.Serve
	little   bool // the kernel takes little of us at a time; see fit
	looked   bool // taken is known, of a session that is idle or lingers

	served int    // requests answered
	rx, tx uint64 // bytes consumed and written since the connection began
	taken  uint64 // of tx, what the client had taken when that was last looked at
	entry  custody.Entry[record]
	blamed blame    // deaths that may be this request's doing
	waits  *Resumed // Start has not been called yet

	// work is what a request in progress needs; nil between requests.
	work *work
	tun  *tunnel.Tunnel // in phaseTunnel
}

// Serve makes a session of an accepted connection, non-blocking, and begins to
// serve it. The descriptor is the session's from now on.
//
// The first request has often arrived by now, and then it may be the last: the
// session is watched only when there is something to wait for.
//
// among says that it is one of the connections of its client that somebody counts: Host.Left is
// called when it has gone.
func (h *Host) Serve(fd int, peer netip.AddrPort, among bool) {
	s := h.takeSession()
	s.among = among
	s.fd, s.peer, s.readable, s.counted = fd, peer, true, true
	s.entry = custody.Enter[record](h.Book, fd, custody.Client)
	h.sessions.push(s)
	s.limit.Set(h.Limits.Header)
	s.run()
	if s.phase == phaseClosed || s.phase == phaseTunnel {
		return
	}
	s.listen()
}

// watched is what a session wants to know of its connection.
const watched = eventloop.Readable | eventloop.Writable | eventloop.Hangup | eventloop.Edge

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
			s.host.Book.Work(s.entry.Cookie())
			s.work.txn.BodyReady()
		}
	}
	s.run()
}

// RunTask implements eventloop.Task: another turn.
func (s *Session) RunTask() {
	s.turn = false
	s.run()
}

// anotherTurn goes on after the others of the loop.
func (s *Session) anotherTurn() {
	if !s.turn {
		s.turn = true
		s.host.Loop.PostTask(s)
	}
}

// Wake implements transaction.Client.
func (s *Session) Wake() {
	if s.running {
		s.again = true
		return
	}
	s.run()
}

// LeaveCustody implements transaction.Client.
func (s *Session) LeaveCustody() { s.entry.Close(s.host.Book) }

// Identity implements transaction.Client.
func (s *Session) Identity() transaction.Identity {
	return transaction.Identity{Conn: s.entry.Cookie(), Request: s.base + uint64(s.work.at)}
}

// count asks the kernel how far an adopted connection got, before its bytes are numbered
// for the first time.
func (s *Session) count() {
	if s.counted {
		return
	}
	s.counted = true
	if p, err := queue.ReadProgress(s.fd, queue.Passive); err == nil {
		s.rx, s.tx = p.Consumed, p.Written
	}
}

// Peer implements transaction.Client.
func (s *Session) Peer() netip.AddrPort {
	if !s.peer.IsValid() && s.fd >= 0 {
		s.peer = sock.Peer(s.fd)
	}
	return s.peer
}

// run takes the session as far as it goes now.
func (s *Session) run() {
	if s.waits != nil {
		return // Start looks at everything
	}
	if s.running {
		s.again = true
		return
	}
	s.running = true
	s.host.Book.Work(s.entry.Cookie())
	for n := 0; s.step() || s.takeAgain(); n++ {
		if n == maxSteps {
			s.anotherTurn()
			break
		}
	}
	s.running = false
}

// maxSteps bounds what one turn of a session does, so that a client that sends requests faster than they are
// answered keeps the loop from nobody else. A request that is answered at once takes two.
const maxSteps = 128

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

var _ transaction.Client = (*Session)(nil)
var _ origin.RequestBody = (*Session)(nil)
