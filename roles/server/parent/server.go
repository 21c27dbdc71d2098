package parent

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Server is one server of a group. Safe for any goroutine.
type Server struct {
	Host string // name or address, without brackets; immutable
	Port uint16 // immutable
	Door *Door  // bounds the connections to it, whichever group it is in; immutable

	name   string         // host:port, for logs; immutable
	index  int            // in its group; immutable
	weight int            // immutable
	lone   bool           // the only one of its origin; immutable
	group  string         // name, for logs; immutable
	retry  *retryStatuses // its group's; nil: there is none; immutable
	dir    *Directory

	// What a request looks at without a lock: what mu guards is written here as well.
	state atomic.Uint32
	calm  atomic.Bool // Up, and no failure is counted

	requests, failures atomic.Uint64
	turn               atomic.Uint32 // counts up: which address is tried first

	mu         sync.Mutex // guards what follows
	health     health
	rise, fall int       // of its health checks
	since      time.Time // when the state was entered
	why        string    // the last failure
	avoid      map[netip.Addr]int64
	current    int // smooth round robin; guarded by Group.mu
}

// Name is host:port, as a log says it.
func (s *Server) Name() string { return s.name }

// State is what is known of the server.
func (s *Server) State() State { return State(s.state.Load()) }

// Doubtful reports whether a response with that status tells nothing yet of the server: another one of the group is asked, and
// its answer tells (Group.Outdone).
func (s *Server) Doubtful(status int) bool {
	return s != nil && s.retry.has(status)
}

// Pass says that a response has begun.
func (s *Server) Pass() {
	if s == nil || s.calm.Load() {
		return
	}
	s.on(evPass, 0, "")
}

// Reached says that there is a connection to the server, and reports whether that is proof that it is up. It is for one
// that is alone: with more asked of it, a request that it never answers would keep all others waiting for the proof.
func (s *Server) Reached() (proof bool) {
	if s == nil || !s.lone {
		return false
	}
	s.Pass()
	return true
}

// Fail says that a request got no response, and why; reached: a connection was there. Of a server that is alone only
// those without one count: nobody else could be asked, and what it does to some requests it need not do to others.
func (s *Server) Fail(now int64, reached bool, why error) {
	if s == nil {
		return
	}
	s.failures.Add(1)
	if !reached || !s.lone {
		s.on(evFail, now, why.Error())
	}
}

// Abandon says that nobody will learn whether the server would have answered. It is of interest only of
// a request that Pick gave as a probe.
func (s *Server) Abandon(now int64) {
	if s != nil {
		s.on(evAbandon, now, "")
	}
}

// probe asks to find out how the server is, with one request.
func (s *Server) probe(now int64) bool { return s.on(evProbe, now, "") }

// checked takes the result of a health check.
func (s *Server) checked(err error) {
	if err == nil {
		s.on(evGood, monotonic(), "")
		return
	}
	s.on(evBad, monotonic(), "health check: "+err.Error())
}

// on takes a step of the state machine, and tells of a change that matters.
func (s *Server) on(ev event, now int64, why string) bool {
	set := s.dir.settings.Load()
	s.mu.Lock()
	before := s.health.state
	taken := s.health.on(ev, &rules{
		threshold: set.FailThreshold, downTime: int64(set.DownTime), rise: s.rise, fall: s.fall, now: now,
	})
	after := s.health.state
	s.state.Store(uint32(after))
	s.calm.Store(after == Up && s.health.fails == 0)
	if why != "" {
		s.why = why
	}
	c := Change{Group: s.group, Server: s.name, From: before, To: after, Why: s.why}
	if before != after {
		s.since = time.Now()
	}
	s.mu.Unlock()
	if before != after && s.dir.tell != nil {
		s.dir.tell(c)
	}
	return taken
}

// A Change is a change of a server's state.
type Change struct {
	Group    string // "": a server without one
	Server   string
	From, To State
	Why      string // the last failure
}

// due reports whether a server that is down may be asked again although others are up.
func (s *Server) due(now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.state == Down && now >= s.health.until
}

func (s *Server) until() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.until
}

// avoidFor is how long an address to which no connection could be made is tried after the others of
// its name.
const avoidFor = int64(60 * time.Second)

// maxAvoid bounds the addresses that are remembered so.
const maxAvoid = 64

// Unreachable says that no connection could be made to one of the server's addresses.
func (s *Server) Unreachable(a netip.Addr, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.avoid == nil || len(s.avoid) >= maxAvoid {
		s.avoid = map[netip.Addr]int64{}
	}
	s.avoid[a] = now + avoidFor
}

// Reachable takes that back.
func (s *Server) Reachable(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.avoid, a)
}

// Order gives the addresses of the server's name in the order in which they are to be tried: in turn, the two
// families alternating, beginning with that of the first (RFC 8305 §4), those that could not be reached
// lately last. addrs is not changed.
func (s *Server) Order(addrs []netip.Addr, now int64) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	var same, other []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	turn := int(s.turn.Add(1) - 1)
	rotate(same, turn)
	rotate(other, turn)
	s.mu.Lock()
	defer s.mu.Unlock()
	var good, bad []netip.Addr
	for i := range max(len(same), len(other)) {
		for _, family := range [][]netip.Addr{same, other} {
			if i >= len(family) {
				continue
			}
			if until, known := s.avoid[family[i]]; known && now < until {
				bad = append(bad, family[i])
			} else {
				good = append(good, family[i])
			}
		}
	}
	return append(good, bad...)
}

// rotate begins with element n, modulo the length.
func rotate(a []netip.Addr, n int) {
	if len(a) == 0 {
		return
	}
	n %= len(a)
	turned := append(append([]netip.Addr(nil), a[n:]...), a[:n]...)
	copy(a, turned)
}
