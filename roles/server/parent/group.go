package parent

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
)

// A Policy is how a group's servers share its requests.
type Policy uint8

// The policies, by the names of the original.
const (
	RoundRobin     Policy = iota // in turn, by weight
	Strict                       // the first that is well
	ConsistentHash               // by URL
	Latched                      // the same until it fails, then the next
)

// Policies are the names of the policies in the configuration.
var Policies = map[string]Policy{"round_robin": RoundRobin, "strict": Strict, "consistent_hash": ConsistentHash, "latched": Latched}

// A Group is one server or several that hold the same. Safe for any goroutine. A reload makes another one, of the same
// servers as far as they are in both.
type Group struct {
	name    string        // "": of a single server; immutable
	policy  Policy        // immutable
	servers []*Server     // immutable
	ring    ring          // of ConsistentHash; immutable
	retry   retryStatuses // statuses after which another server is asked; immutable
	dir     *Directory

	*course // goes on over a reload
}

// course is what a group remembers of its requests.
type course struct {
	budget budget
	latch  atomic.Int32 // of Latched: which server
	mu     sync.Mutex   // guards Server.current
}

// Hashes reports whether Pick looks at the hash that it is given.
func (g *Group) Hashes() bool { return g.policy == ConsistentHash }

// RetryStatus reports whether another server is to be asked after a response with that status.
func (g *Group) RetryStatus(status int) bool {
	return g.retry.has(status)
}

// retryStatuses are some of 5xx.
type retryStatuses [100]bool

func (s *retryStatuses) has(status int) bool {
	return s != nil && status >= 500 && status < 600 && s[status-500]
}

// Outdone says that a server that was not tried before has answered a request for which those answered with a status after which
// another server is asked. So it was they who failed, not the request.
func (g *Group) Outdone(servers Set, now int64) {
	for i, s := range g.servers {
		if servers.Has(i) {
			s.Fail(now, true, errOutdone)
		}
	}
}

var errOutdone = errors.New("a status of retry_status, where another server had an answer")

// Pick chooses the server for a request: by hash, if the policy is ConsistentHash, and none that was tried for this
// request before. probe: the server was down and the request finds out how it is; then one of Pass, Fail and Abandon
// must follow. nil: none is up, or all that are have been tried.
func (g *Group) Pick(hash uint64, tried Set, now int64) (s *Server, probe bool) {
	if s, probe = g.choose(hash, tried, now); s == nil {
		if s = g.findOut(tried, now); s == nil {
			return nil, false
		}
		probe = true
	}
	s.requests.Add(1)
	return s, probe
}

// Others reports whether Pick would find a server that was not tried and is up.
func (g *Group) Others(tried Set) bool {
	for i, s := range g.servers {
		if !tried.Has(i) && s.State() == Up {
			return true
		}
	}
	return false
}

// Index is the number of a server of the group, for a Set.
func (s *Server) Index() int { return s.index }

// choose finds a server that is up, or whose time to be asked again has come.
func (g *Group) choose(hash uint64, tried Set, now int64) (s *Server, probe bool) {
	ask := func(i int) bool {
		c := g.servers[i]
		if tried.Has(i) {
			return false
		}
		switch c.State() {
		case Up:
			s = c
		case Down:
			if g.policy != Latched && c.due(now) && c.probe(now) {
				s, probe = c, true
			}
		}
		return s != nil
	}
	switch g.policy {
	case RoundRobin:
		g.inTurn(now, ask)
	case ConsistentHash:
		g.ring.from(hash, ask)
	case Latched:
		first := int(g.latch.Load()) % len(g.servers)
		for i := range g.servers {
			if n := (first + i) % len(g.servers); ask(n) {
				if g.servers[first].State() != Up {
					g.latch.CompareAndSwap(int32(first), int32(n))
				}
				break
			}
		}
	default:
		for i := range g.servers {
			if ask(i) {
				break
			}
		}
	}
	return s, probe
}

// inTurn is smooth weighted round robin: each server gains its weight with each request, and the one that is chosen
// pays what all have gained; so the turns of a heavy one are spread among those of the others.
func (g *Group) inTurn(now int64, ask func(int) bool) {
	if len(g.servers) == 1 {
		ask(0)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var refused Set
	for range g.servers {
		best := -1
		for i, s := range g.servers {
			if !refused.Has(i) && (best < 0 || s.current+s.weight > g.servers[best].current+g.servers[best].weight) {
				best = i
			}
		}
		if ask(best) {
			sum := 0
			for i, s := range g.servers {
				// One that is out gains nothing meanwhile: it would get a burst when it is back.
				if i == best || !refused.Has(i) && (s.State() == Up || s.due(now)) {
					s.current += s.weight
					sum += s.weight
				}
			}
			g.servers[best].current -= sum
			return
		}
		refused.Add(best)
	}
}

// findOut chooses a server when none is up: the one that has been down for the longest, unless one is being asked.
func (g *Group) findOut(tried Set, now int64) *Server {
	var longest *Server
	for i, s := range g.servers {
		switch s.State() {
		case Probing:
			return nil
		case Down:
			if !tried.Has(i) && (longest == nil || s.until() < longest.until()) {
				longest = s
			}
		}
	}
	if longest != nil && longest.probe(now) {
		return longest
	}
	return nil
}

// Sent counts a request, not its repetitions.
func (g *Group) Sent(now int64) { g.budget.sent(now) }

// Again takes one repetition out of the group's budget. False: there is none left.
func (g *Group) Again(now int64) bool {
	return g.budget.spend(now, g.dir.settings.Load().RetryBudget)
}

func serverName(host string, port uint16) string {
	for _, c := range host {
		if c == ':' {
			return "[" + host + "]:" + strconv.Itoa(int(port))
		}
	}
	return host + ":" + strconv.Itoa(int(port))
}
