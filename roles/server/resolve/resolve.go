package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Lookup finds the addresses of a host. It may block until ctx ends. An error that is a *NotFoundError is an
// answer, too; any other says that there was none.
type Lookup func(ctx context.Context, host string) (Answer, error)

// An Answer is the addresses of a host, in the order of preference, and for how long they hold.
type Answer struct {
	Addrs []netip.Addr
	TTL   time.Duration
}

// NotFoundError says that a name does not exist, or has no addresses, and for how long that holds.
type NotFoundError struct {
	Host string
	TTL  time.Duration
}

func (e *NotFoundError) Error() string { return "no such host: " + e.Host }

// ErrUnresolved is what every error that Resolve delivers wraps.
var ErrUnresolved = errors.New("the name could not be resolved")

// Limits bound for how long an answer is believed, whatever it says.
type Limits struct{ Min, Max time.Duration }

// A Resolver remembers answers for all loops of a server. Safe for any
// goroutine.
type Resolver struct {
	limits atomic.Pointer[Limits]
	lookup Lookup
	now    func() time.Time
	after  func(time.Duration, func()) // calls after a time

	mu    sync.Mutex // guards names, and what is in them
	names map[string]*name
}

// name is what is known of one host. Guarded by Resolver.mu.
type name struct {
	addrs   []netip.Addr // immutable once set
	err     error        // why there are none, until expires
	learnt  time.Time    // when addrs came
	refresh time.Time    // from when on it is looked up again, with nobody waiting
	expires time.Time
	asked   time.Time // last use, for eviction
	asking  bool
	waiting []func([]netip.Addr, error)
}

const (
	maxNames      = 4096             // that are remembered
	maxAsking     = 512              // look-ups at a time
	lookupTimeout = 10 * time.Second // of one look-up
	staleWait     = 1800 * time.Millisecond
	staleFor      = 30 * time.Second      // for which an older answer is given without waiting again (RFC 8767 §5: "at least 30 seconds")
	staleMost     = 24 * time.Hour        // after which an older answer is not given any more (RFC 8767 §4: one to three days)
	failedFor     = time.Second           // for which it is remembered that there was no answer
	notFoundMost  = 5 * time.Minute       // for which it is believed that there is no such name, at most
	followWait    = 10 * time.Millisecond // after which Follow has something new to say, at the soonest
)

// New makes a resolver.
func New(l Limits, lookup Lookup) *Resolver {
	r := &Resolver{lookup: lookup, now: time.Now, names: map[string]*name{}}
	r.after = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	r.SetLimits(l)
	return r
}

// SetLimits replaces the limits, for answers that come from now on.
func (r *Resolver) SetLimits(l Limits) { r.limits.Store(&l) }

// Cached returns the addresses of host if they are known now.
func (r *Resolver) Cached(host string) ([]netip.Addr, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, true
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil || n.addrs == nil || now.After(n.expires) {
		return nil, false
	}
	n.asked = now
	if now.After(n.refresh) && !n.asking {
		r.askLocked(host, n)
	}
	return n.addrs, true
}

// Follow is for who keeps connections to host: it says where they may lead by now, and after how long to ask again. It
// gives an answer that has expired, too, which is then looked up again with nobody waiting. known is false when nothing
// is known of the host, not even that it does not exist: what there is stays good.
func (r *Resolver) Follow(host string) (addrs []netip.Addr, known bool, again time.Duration) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil {
		if !r.makeRoomLocked() {
			return nil, false, failedFor
		}
		n = &name{}
		r.names[host] = n
	}
	n.asked = now
	if now.After(n.stale()) && !n.asking {
		r.askLocked(host, n)
	}
	again = followWait
	if !n.asking {
		again = max(again, n.stale().Sub(now))
	}
	var missing *NotFoundError
	return n.addrs, n.addrs != nil || errors.As(n.err, &missing), again
}

// stale is from when on what is known is to be looked up again.
func (n *name) stale() time.Time {
	if n.addrs == nil {
		return n.expires
	}
	return n.refresh
}

// Resolve looks host up and then calls done through post, exactly once, with at
// least one address or an error. It never blocks.
func (r *Resolver) Resolve(host string, post func(func()) bool, done func([]netip.Addr, error)) {
	deliver := func(addrs []netip.Addr, err error) { post(func() { done(addrs, err) }) }
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil {
		if !r.makeRoomLocked() {
			go deliver(nil, fmt.Errorf("%w: %s: too many names are being looked up", ErrUnresolved, host))
			return
		}
		n = &name{}
		r.names[host] = n
	}
	n.asked = r.now()
	if n.asked.Before(n.expires) {
		go deliver(n.addrs, n.err) // as it was found to be a moment ago
		return
	}
	n.waiting = append(n.waiting, deliver)
	if !n.asking {
		r.askLocked(host, n)
	}
	if n.addrs != nil && len(n.waiting) == 1 {
		r.after(staleWait, func() { r.settle(n) })
	}
}

// askLocked begins a look-up.
func (r *Resolver) askLocked(host string, n *name) {
	n.asking = true
	go r.ask(host, n)
}

func (r *Resolver) ask(host string, n *name) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	a, err := r.lookup(ctx, host)
	if err == nil && len(a.Addrs) == 0 {
		err = &NotFoundError{Host: host}
	}
	r.mu.Lock()
	n.asking = false
	r.learnLocked(host, n, a, err)
	r.tell(n) // unlocks
}

// learnLocked takes the outcome of a look-up.
func (r *Resolver) learnLocked(host string, n *name, a Answer, err error) {
	now, lim := r.now(), r.limits.Load()
	var missing *NotFoundError
	switch {
	case err == nil:
		ttl := bound(a.TTL, lim.Min, lim.Max)
		n.addrs, n.err, n.learnt = a.Addrs, nil, now
		n.expires = now.Add(ttl)
		n.refresh = n.expires.Add(-min(ttl/10, 30*time.Second))
	case errors.As(err, &missing):
		n.addrs, n.err = nil, fmt.Errorf("%w: %w", ErrUnresolved, err)
		n.expires = now.Add(bound(missing.TTL, lim.Min, min(lim.Max, notFoundMost)))
	case n.addrs != nil && now.Sub(n.learnt) < staleMost:
		r.keepLocked(n)
	default:
		n.addrs, n.err = nil, fmt.Errorf("%w: %s: %w", ErrUnresolved, host, err)
		n.expires = now.Add(failedFor)
	}
}

func bound(d, low, high time.Duration) time.Duration { return max(min(d, high), low) }

// keepLocked makes an older answer good enough for a while: not everybody has to wait for a name server that does
// not answer.
func (r *Resolver) keepLocked(n *name) {
	until := r.now().Add(staleFor)
	if until.After(n.expires) {
		n.expires = until
	}
	n.refresh = r.now().Add(staleFor / 10)
}

// settle gives those who have waited long enough the older answer; the look-up goes on.
func (r *Resolver) settle(n *name) {
	r.mu.Lock()
	if n.asking && n.addrs != nil && len(n.waiting) > 0 && r.now().Sub(n.learnt) < staleMost {
		r.keepLocked(n)
		r.tell(n) // unlocks
		return
	}
	r.mu.Unlock()
}

// tell delivers what is known to all who wait. It is called with the lock and gives it up.
func (r *Resolver) tell(n *name) {
	waiting, addrs, err := n.waiting, n.addrs, n.err
	n.waiting = nil
	r.mu.Unlock()
	for _, deliver := range waiting {
		deliver(addrs, err)
	}
}

// makeRoomLocked makes room for one more name by forgetting the one that was not asked for the longest. False: too
// many are being looked up.
func (r *Resolver) makeRoomLocked() bool {
	if len(r.names) < maxAsking {
		return true
	}
	asking := 0
	var oldest string
	var when time.Time
	for host, n := range r.names {
		if n.asking {
			asking++
		} else if oldest == "" || n.asked.Before(when) {
			oldest, when = host, n.asked
		}
	}
	if asking >= maxAsking {
		return false
	}
	if len(r.names) >= maxNames && oldest != "" {
		delete(r.names, oldest)
	}
	return true
}
