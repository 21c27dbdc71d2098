package parent

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/server/remap"
)

// Settings hold for all servers. Immutable.
type Settings struct {
	FailThreshold  int           // failures in a row that mark a server down; 0: never
	DownTime       time.Duration // for which it gets no request while others are up
	RetryBudget    int           // per cent of a group's requests that may be repeated
	MaxConnections int           // to one address, over all loops; 0: no limit
	MaxWaiting     int           // requests in line for one
}

// A Spec is a group as the configuration says it.
type Spec struct {
	Name        string
	Policy      Policy
	Servers     []ServerSpec // 1 to MaxServers
	RetryStatus []int        // 5xx
	Check       *Check       // nil: none
}

// A ServerSpec is one server of a Spec.
type ServerSpec struct {
	Host   string
	Port   uint16
	Weight int // at least 1
}

// A Directory has all groups and servers. Safe for any goroutine. It is shared by all loops of a server.
type Directory struct {
	tell     func(Change) // nil: nobody is told
	settings atomic.Pointer[Settings]
	checks   checks

	mu     sync.RWMutex // guards what follows
	groups map[string]*Group
	alone  map[address]*Group
	doors  map[address]*Door
	room   int // for servers without a group, before some are forgotten again; at least maxAlone
}

type address struct {
	host string
	port uint16
}

// maxAlone bounds the servers without a group that are remembered: those of rules are few, those that clients of a
// forward proxy name are not.
const maxAlone = 4096

// NewDirectory makes a directory without groups. tell is called from any goroutine with every change of a server's
// state; it may be nil.
func NewDirectory(set Settings, tell func(Change)) *Directory {
	d := &Directory{tell: tell, groups: map[string]*Group{}, alone: map[address]*Group{}, doors: map[address]*Door{}}
	d.settings.Store(&set)
	return d
}

// Of is the group that an origin's requests go to; nil for one whose group there is not (any more).
func (d *Directory) Of(o *remap.Origin) *Group {
	d.mu.RLock()
	var g *Group
	if o.Group != "" {
		g = d.groups[o.Group]
	} else {
		g = d.alone[address{o.Host, o.Port}]
	}
	d.mu.RUnlock()
	if g == nil && o.Group == "" {
		g = d.single(o.Host, o.Port)
	}
	return g
}

// single makes the group of a server that is in none.
func (d *Directory) single(host string, port uint16) *Group {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := address{host, port}
	if g := d.alone[a]; g != nil {
		return g
	}
	if len(d.alone) >= max(maxAlone, d.room) {
		d.forgetLocked()
		d.room = 2 * len(d.alone) // so that not every new one goes through all of them
	}
	s := d.newServerLocked("", ServerSpec{host, port, 1}, 0)
	s.lone = true
	g := &Group{servers: []*Server{s}, dir: d, course: &course{}}
	d.alone[a] = g
	return g
}

// forgetLocked forgets the servers without a group of which there is nothing to know, and of the others so many that
// there is room: clients can name as many hosts that cannot be reached as they like. Who still has one goes on with it.
func (d *Directory) forgetLocked() {
	for a, g := range d.alone {
		if g.servers[0].calm.Load() && g.servers[0].Door.used.Load() == 0 {
			delete(d.alone, a)
		}
	}
	for a, g := range d.alone {
		if len(d.alone) <= maxAlone/2 {
			break
		}
		if g.servers[0].Door.used.Load() == 0 {
			delete(d.alone, a)
		}
	}
	used := map[*Door]bool{}
	for _, g := range d.alone {
		used[g.servers[0].Door] = true
	}
	for _, g := range d.groups {
		for _, s := range g.servers {
			used[s.Door] = true
		}
	}
	for a, door := range d.doors {
		if !used[door] {
			delete(d.doors, a)
		}
	}
}

func (d *Directory) newServerLocked(group string, spec ServerSpec, index int) *Server {
	a := address{spec.Host, spec.Port}
	door := d.doors[a]
	if door == nil {
		door = &Door{dir: d}
		d.doors[a] = door
	}
	s := &Server{
		Host: spec.Host, Port: spec.Port, Door: door, name: serverName(spec.Host, spec.Port),
		index: index, weight: spec.Weight, group: group, dir: d,
	}
	s.calm.Store(true)
	return s
}

// Configure takes over settings and groups. What is known of servers that were there before stays known.
func (d *Directory) Configure(set Settings, specs []Spec) {
	d.settings.Store(&set)
	groups := map[string]*Group{}
	var wanted []check
	d.mu.Lock()
	for _, spec := range specs {
		g := &Group{name: spec.Name, policy: spec.Policy, dir: d, course: &course{}}
		before := d.groups[spec.Name]
		if before != nil {
			g.course = before.course
		}
		for i, ss := range spec.Servers {
			s := d.newServerLocked(spec.Name, ss, i)
			s.lone, s.retry = len(spec.Servers) == 1, &g.retry
			if before != nil {
				s.inherit(before)
			}
			if c := spec.Check; c != nil {
				s.rise, s.fall = c.Rise, c.Fall
				wanted = append(wanted, check{s, *c})
			} else if s.State() == Sick {
				s.well() // nobody would find out
			}
			g.servers = append(g.servers, s)
		}
		for _, status := range spec.RetryStatus {
			g.retry[status-500] = true
		}
		if g.policy == ConsistentHash {
			g.ring = newRing(g.servers)
		}
		groups[spec.Name] = g
	}
	d.groups = groups
	for _, door := range d.doors {
		door.widen()
	}
	d.mu.Unlock()
	d.checks.replace(wanted)
}

// inherit takes over what is known of the same server of the group as it was before. Nobody has s yet.
func (s *Server) inherit(before *Group) {
	for _, old := range before.servers {
		if old.Host != s.Host || old.Port != s.Port {
			continue
		}
		old.mu.Lock()
		s.health, s.since, s.why = old.health, old.since, old.why
		old.mu.Unlock()
		if s.health.state == Probing {
			s.health.state = Down // the request that finds out tells the old one
		}
		s.requests.Store(old.requests.Load())
		s.failures.Store(old.failures.Load())
		s.state.Store(uint32(s.health.state))
		s.calm.Store(s.health.state == Up && s.health.fails == 0)
	}
}

// well makes a server Up.
func (s *Server) well() {
	s.health = health{}
	s.state.Store(uint32(Up))
	s.calm.Store(true)
}

// Start begins the health checks; dial connects to a server, and may block.
func (d *Directory) Start(dial func(ctx context.Context, host string, port uint16) (net.Conn, error)) {
	d.checks.start(dial)
}

// Close ends the health checks and waits for them.
func (d *Directory) Close() { d.checks.close() }

// Report is what is known of one server.
type Report struct {
	Group       string    `json:"group,omitempty"` // "": it is in none
	Server      string    `json:"server"`
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"` // of the last change
	Requests    uint64    `json:"requests"`       // sent to it, by this process
	Failures    uint64    `json:"failures"`       // of them, without an answer
	Connections int64     `json:"connections"`    // open now, to this address
	Waiting     int64     `json:"waiting"`        // requests in line for one
	Why         string    `json:"why,omitempty"`  // the last failure
}

// Reports tells of every server, groups first.
func (d *Directory) Reports() []Report {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Report
	for _, g := range d.groups {
		for _, s := range g.servers {
			all = append(all, s.report())
		}
	}
	for _, g := range d.alone {
		all = append(all, g.servers[0].report())
	}
	slices.SortFunc(all, func(a, b Report) int {
		return cmp.Or(-cmp.Compare(min(1, len(a.Group)), min(1, len(b.Group))), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Server, b.Server))
	})
	return all
}

// CountDown is how many servers get no requests but those that find out.
func (d *Directory) CountDown() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for _, g := range d.groups {
		for _, s := range g.servers {
			if s.State() != Up {
				n++
			}
		}
	}
	for _, g := range d.alone {
		if g.servers[0].State() != Up {
			n++
		}
	}
	return n
}

func (s *Server) report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Report{
		Group: s.group, Server: s.name, State: s.health.state.String(), Since: s.since,
		Requests: s.requests.Load(), Failures: s.failures.Load(),
		Connections: s.Door.used.Load(), Waiting: s.Door.waiting.Load(), Why: s.why,
	}
}

// monotonic is the clock of the event loops, for goroutines that have none.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return t.Nano()
}
