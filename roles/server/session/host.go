package session

import (
	"net/netip"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

// Limits bound what a client may do. Times of 0 mean no limit.
type Limits struct {
	Head   http1.Limits  // of request heads
	Header time.Duration // from the first byte of a head to its last
	Idle   time.Duration // between requests
	Body   Pace          // of a request's body
	Write  Pace          // of a client that takes a reply
	Tunnel time.Duration // without a byte either way
	// Untaken is how many bytes may lie in the kernel for clients that are waited for before all get little
	// at a time; see fit. 0: no limit.
	Untaken int64
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
	Evicted() // to make room
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
	Book   *custody.Book // nil: sessions end with this process
	Env    *transaction.Env
	Limits *Limits // replaced as a whole on reload
	Stats  Stats
	Log    *accesslog.Log // nil: requests are not logged
	Closed func()         // called after a session has gone
	// Left is called with the address of a session that was served as one of several of
	// its client, after it has gone; nil where none is.
	Left func(netip.Addr)

	// Draining: every reply ends its connection, and no idle one is kept.
	Draining bool

	untaken  int64 // the sum of work.untaken
	sessions list
	asleep   dormants
	spare    []*Session // closed, for reuse
	works    []*work    // likewise
	entry    accesslog.Entry
}

// Drain closes idle sessions and makes all others end with their reply.
func (h *Host) Drain() {
	h.Draining = true
	for s := h.sessions.head; s != nil; {
		next := s.next
		if s.phase == phaseIdle && s.served > 0 && s.lo == s.hi {
			s.close()
		}
		s = next
	}
	for _, s := range h.wakeOldest(h.asleep.n) {
		s.close()
	}
}

// Sessions returns the number of open sessions.
func (h *Host) Sessions() int { return h.sessions.n + h.asleep.n }

// CloseAll ends every session, whatever it is doing.
func (h *Host) CloseAll() {
	h.wakeOldest(h.asleep.n)
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
