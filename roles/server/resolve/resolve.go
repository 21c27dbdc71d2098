// Package resolve turns host names into addresses without blocking an event
// loop.
//
// An address literal is answered at once, and so is a name that was resolved
// less than TTL ago. Any other name is looked up on a goroutine of its own,
// once for all who ask meanwhile, and the answer is delivered by the asker's
// own post function. When a look-up fails but an older answer is known, the
// older one is given: an origin does not vanish because its name server did.
//
// It is not a DNS client: looking up is the standard library's.
package resolve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Lookup asks the system for the addresses of a host. It may block.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// A Resolver remembers answers for all loops of a server. Safe for any
// goroutine.
type Resolver struct {
	ttl    time.Duration
	lookup Lookup
	now    func() time.Time

	mu    sync.Mutex // guards names
	names map[string]*name
}

// name is what is known of one host. Guarded by Resolver.mu.
type name struct {
	addrs   []netip.Addr // immutable once set
	expires time.Time
	asked   time.Time // last use, for eviction
	waiting []func([]netip.Addr, error)
}

// maxNames bounds the memory of names that were once asked for.
const maxNames = 4096

// staleFor is how long an older answer is given without asking again, after a
// look-up that failed.
const staleFor = 5 * time.Second

// lookupTimeout bounds one look-up.
const lookupTimeout = 10 * time.Second

// System looks names up as the system is configured to.
func System(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// New makes a resolver that trusts an answer for ttl.
func New(ttl time.Duration, lookup Lookup) *Resolver {
	return &Resolver{ttl: ttl, lookup: lookup, now: time.Now, names: map[string]*name{}}
}

// Cached returns the addresses of host if they are known now.
func (r *Resolver) Cached(host string) ([]netip.Addr, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil || n.addrs == nil || r.now().After(n.expires) {
		return nil, false
	}
	n.asked = r.now()
	return n.addrs, true
}

// Resolve looks host up and then calls done through post, exactly once, with at
// least one address or an error. It never blocks.
func (r *Resolver) Resolve(host string, post func(func()) bool, done func([]netip.Addr, error)) {
	deliver := func(addrs []netip.Addr, err error) { post(func() { done(addrs, err) }) }
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil {
		r.evictLocked()
		n = &name{}
		r.names[host] = n
	}
	n.asked = r.now()
	n.waiting = append(n.waiting, deliver)
	if len(n.waiting) == 1 {
		go r.ask(host, n)
	}
}

func (r *Resolver) ask(host string, n *name) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addrs, err := r.lookup(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("resolve %s: no addresses", host)
	}
	r.mu.Lock()
	if err == nil {
		n.addrs, n.expires = addrs, r.now().Add(r.ttl)
	} else if n.addrs != nil {
		// Good enough for a while: not everybody has to wait for a name server
		// that does not answer.
		addrs, err = n.addrs, nil
		n.expires = r.now().Add(min(r.ttl, staleFor))
	}
	waiting := n.waiting
	n.waiting = nil
	r.mu.Unlock()
	for _, deliver := range waiting {
		deliver(addrs, err)
	}
}

// evictLocked makes room for one more name by forgetting the one that was not
// asked for the longest.
func (r *Resolver) evictLocked() {
	if len(r.names) < maxNames {
		return
	}
	var oldest string
	var when time.Time
	for host, n := range r.names {
		if len(n.waiting) == 0 && (oldest == "" || n.asked.Before(when)) {
			oldest, when = host, n.asked
		}
	}
	delete(r.names, oldest)
}
