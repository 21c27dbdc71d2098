package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/stats"
)

// lookAgain is how long a loop that has no room for more connections waits before it looks whether
// there is some by now.
const lookAgain = 100 * time.Millisecond

// full reports whether this loop has its share of connections, or of descriptors, for those to
// origins are taken from the same. A loop that is full leaves accepting to the others; when all are, each
// makes room.
func (w *worker) full() bool {
	n := w.host.Sessions()
	full := n >= w.limit || n+w.origins() >= w.descriptors
	if full != w.crowded {
		w.crowded = full
		if full {
			w.server.crowded.Add(1)
		} else {
			w.server.crowded.Add(-1)
		}
	}
	return full
}

// origins is the number of this loop's connections to origins.
func (w *worker) origins() int { return int(w.row.Load(stats.OriginConnectionsCurrent)) }

// roomy reports whether there is so much room that it is worth accepting again.
func (w *worker) roomy() bool {
	n := w.host.Sessions()
	return n < w.limit-w.limit/20 && n+w.origins() < w.descriptors-w.descriptors/20
}

// makeRoom closes connections that hold their places without using them, the oldest of those between
// two requests first, so that others can come. It reports whether there was any.
func (w *worker) makeRoom() bool { return w.host.MakeRoom(w.limit/32+1) > 0 }

// allFull reports whether no loop has room.
func (w *worker) allFull() bool { return int(w.server.crowded.Load()) == len(w.server.workers) }

// descriptors is how many connections the limit of descriptors leaves room for.
func descriptors() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		lim.Cur = 1024
	}
	n := int(min(lim.Cur, 1<<20)) - 256
	return max(n-n/10, 64)
}

// clients counts the connections of each client, of all loops. Those that a server has taken over from
// a dead one are not among them.
type clients struct {
	most     atomic.Int64 // of one client
	loopback atomic.Bool  // is counted, too
	shards   [64]shard
}

type shard struct {
	mu sync.Mutex
	n  map[netip.Addr]int64 // guarded by mu
}

// configure takes a limit over; all is how many connections there may be of all clients. Without
// a number of its own no client may have more than half of them, so that none can keep all others out.
// Loopback is then not counted: behind it is a proxy on the same machine, with the connections of everybody.
func (c *clients) configure(cfg *config.Config, all int) {
	most := int64(cfg.Limits.PerClient)
	c.loopback.Store(most > 0)
	if most == 0 {
		most = int64(max(all/2, 1))
	}
	c.most.Store(most)
}

// client is what counts as one client: an address, or of IPv6 the /64 that a household gets.
func client(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

func (c *clients) shardOf(a netip.Addr) *shard {
	b := a.As16()
	return &c.shards[(b[15]^b[14]^b[13]^b[7]^b[6]^b[5])%byte(len(c.shards))]
}

// enter counts a new connection. counted says that leave is to be called when it has gone; ok is
// false if the client has too many.
func (c *clients) enter(a netip.Addr) (counted, ok bool) {
	if !a.IsValid() || a.IsLoopback() && !c.loopback.Load() {
		return false, true
	}
	a = client(a)
	s := c.shardOf(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[netip.Addr]int64{}
	}
	if s.n[a] >= c.most.Load() {
		return false, false
	}
	s.n[a]++
	return true, true
}

// leave counts a connection off.
func (c *clients) leave(a netip.Addr) {
	a = client(a)
	s := c.shardOf(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[a]--; s.n[a] <= 0 {
		delete(s.n, a)
	}
}
