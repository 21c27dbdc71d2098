package origin

import (
	"net/netip"
	"slices"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/resolve"
	"trafficd/roles/server/sock"
)

// Limits bound what an origin may do. Times of 0 mean no limit.
type Limits struct {
	Connect  time.Duration // to make a connection, for each address
	Wait     time.Duration // for room at a server that has as many connections as it may
	Response time.Duration // from the last byte of the request sent to the response's head
	Body     time.Duration // between bytes of a body, the request's or the response's
	Total    time.Duration // of one exchange, from the moment its connection is made
	Idle     time.Duration // how long a connection waits in the pool
	MaxIdle  int           // connections that wait, for each server
	Bound    int           // connections to a server over all loops, as its Door has it; 0: no bound
	Untaken  int64         // bytes that may lie in the kernel for clients that take none before origins send little at a time; 0: no limit
	Head     http1.Limits  // of response heads
}

// A Pool makes exchanges with origins over connections that it keeps. One for
// each loop: connections are not shared between loops.
type Pool struct {
	loop     *eventloop.Loop
	arena    *buffer.Arena
	book     *custody.Book // nil: connections end with this process
	resolver *resolve.Resolver
	stats    Stats
	limits   Limits
	hold     time.Duration // continueWait; stories that are not about it have more

	idle    map[address]*idleList
	untaken int64 // the sum of Conn.untaken
}

// address is what connections are alike by.
type address struct {
	host string
	port uint16
}

// idleList holds the idle connections to one address, the one used last at the
// end. They lead to where the host's name led when the resolver was asked last.
type idleList struct {
	conns   []*Conn
	literal bool         // the host is an address, which leads nowhere else
	addrs   []netip.Addr // of the name; immutable
	known   bool         // addrs are what the resolver knows; else it knows nothing
	look    int64        // when it is to be asked again, monotonic ns
}

func newIdleList(host string) *idleList {
	_, err := netip.ParseAddr(host)
	return &idleList{literal: err == nil}
}

// has reports whether a connection to an address leads to where the name does.
func (l *idleList) has(a netip.Addr) bool {
	return l.literal || !l.known || slices.Contains(l.addrs, a)
}

// Stats counts what a pool does, in units of one except where it says bytes.
type Stats interface {
	Opened()
	Reused()
	Closed()
	// Failed reports an exchange without a complete response.
	Failed(o *remap.Origin, s *parent.Server, f Failure)
	// Busy reports an exchange that got no connection because its server has as many as it may.
	Busy()
	Malformed()
	Sent(bytes int)
	Received(bytes int)
}

// NewPool makes a pool for a loop.
func NewPool(l *eventloop.Loop, a *buffer.Arena, b *custody.Book, r *resolve.Resolver, s Stats) *Pool {
	return &Pool{loop: l, arena: a, book: b, resolver: r, stats: s, hold: continueWait, idle: map[address]*idleList{}}
}

// SetLimits replaces the limits; exchanges under way keep the time limits they
// are waiting for.
func (p *Pool) SetLimits(l Limits) {
	if l.Bound != p.limits.Bound {
		p.CloseIdle() // the Doors know only of those that became idle under a bound
	}
	p.limits = l
}

// Start begins an exchange. The handler may be called before Start returns.
func (p *Pool) Start(x *Exchange) {
	x.conn, x.dial, x.active, x.bodyTaken = nil, nil, true, false
	if x.Origin.Builtin {
		p.startBuiltin(x)
		return
	}
	if !x.Fresh {
		if c := p.take(x.Server, x.Once); c != nil && !x.permits(c.addr) {
			c.close() // somebody who may asked for it
		} else if c != nil {
			p.stats.Reused()
			x.conn, c.x, x.Peer = c, x, c.peer()
			c.begin(x.Head)
			return
		}
	}
	x.head = append(x.head[:0], x.Head...)
	d := &dial{pool: p, x: x}
	x.dial = d
	d.begin()
}

// fail ends an exchange badly.
func (p *Pool) fail(x *Exchange, f Failure) {
	if f.Err == ErrBusy {
		p.stats.Busy()
	} else {
		p.stats.Failed(x.Origin, x.Server, f)
	}
	x.blame(f, p.loop.Now())
	x.fail(f)
}

// onceIdle is how long a connection may have been idle and still carry a request
// that must not be sent twice. Origins keep connections for seconds at least; one
// that was used a moment ago is not being closed now.
const onceIdle = int64(time.Second)

// take removes the connection used last to a server from the pool: it is the one
// least likely to have been closed by the origin, and its state is warm.
func (p *Pool) take(s *parent.Server, once bool) *Conn {
	l := p.idle[address{s.Host, s.Port}]
	if l == nil || len(l.conns) == 0 {
		return nil
	}
	if !l.literal && p.loop.Now() >= l.look {
		p.follow(l, s.Host)
	}
	for len(l.conns) > 0 {
		c := l.conns[len(l.conns)-1]
		if once && p.loop.Now()-c.idleSince > onceIdle {
			return nil
		}
		p.drop(c)
		// What has come meanwhile, and its event has not, is no answer to what is going to be asked (RFC 9112
		// section 9.2): it would be another's, and might be stored. The loop knows of it; of what comes in this very
		// moment only the socket does, which is asked where a request must not be sent in vain.
		if !once && !p.loop.Pending(&c.watch) || c.quiet() {
			return c
		}
		c.close()
	}
	return nil
}

// follow asks where a name leads by now, and closes the idle connections that lead elsewhere. Nobody waits for a name
// server: until it has answered its last answer holds, and without any so does every connection.
func (p *Pool) follow(l *idleList, host string) {
	addrs, known, again := p.resolver.Follow(host)
	l.addrs, l.known, l.look = addrs, known, p.loop.Now()+int64(again)
	kept := l.conns[:0]
	for _, c := range l.conns {
		if l.has(c.addr) {
			kept = append(kept, c)
			continue
		}
		c.unpark()
		c.close()
	}
	clear(l.conns[len(kept):])
	l.conns = kept
}

// room reports whether the connection c may wait for one more exchange: there is room, and it leads to where its
// server's name does. Of an address that is new to us the resolver knows.
func (p *Pool) room(c *Conn) bool {
	if c.server == nil || p.limits.MaxIdle <= 0 {
		return false
	}
	l := p.idle[address{c.server.Host, c.server.Port}]
	if l == nil {
		return true
	}
	if !l.literal && (p.loop.Now() >= l.look || !l.has(c.addr)) {
		p.follow(l, c.server.Host)
	}
	return len(l.conns) < p.limits.MaxIdle && l.has(c.addr)
}

// put keeps a connection for the next exchange.
func (p *Pool) put(c *Conn) {
	c.spendIn()
	addr := address{c.server.Host, c.server.Port}
	l := p.idle[addr]
	if l == nil {
		p.forgetEmpty()
		l = newIdleList(addr.host)
		p.idle[addr] = l
	}
	c.state = idle
	c.idleSince = p.loop.Now()
	c.limit.Set(p.limits.Idle)
	l.conns = append(l.conns, c)
}

// maxLists bounds the lists of idle connections that may be empty: those of the addresses in rules are few, those
// that clients of a forward proxy name are not.
const maxLists = 1024

// forgetEmpty makes room for one more list.
func (p *Pool) forgetEmpty() {
	if len(p.idle) < maxLists {
		return
	}
	for a, l := range p.idle {
		if len(l.conns) == 0 {
			delete(p.idle, a)
		}
	}
}

// offer gives a connection that has just become idle to who waits for one.
func (p *Pool) offer(c *Conn) {
	door := c.server.Door
	if !door.Limited() {
		return
	}
	next, stay := door.Idle(p)
	switch {
	case stay:
		c.parked = true
	case next != nil:
		p.drop(c)
		next.Owner.(*dial).take(c)
	default:
		p.drop(c)
		c.close()
	}
}

// Spare implements parent.Keeper.
func (p *Pool) Spare(d *parent.Door) {
	p.loop.Post(func() { d.Spared(p, p.closeOne(d)) })
}

// closeOne closes an idle connection to a door. It reports whether there was one.
func (p *Pool) closeOne(d *parent.Door) bool {
	for _, l := range p.idle {
		for _, c := range l.conns {
			if c.server.Door == d {
				p.drop(c)
				c.close()
				return true
			}
		}
	}
	return false
}

// drop takes a connection, mostly the one used last, out of the pool.
func (p *Pool) drop(c *Conn) {
	c.unpark()
	l := p.idle[address{c.server.Host, c.server.Port}] // c is in it
	for i, other := range slices.Backward(l.conns) {
		if other == c {
			l.conns = append(l.conns[:i], l.conns[i+1:]...)
			return
		}
	}
}

// Abandon closes a connection that has left HTTP and that nobody has taken over.
func (p *Pool) Abandon(t Switched) {
	if t.Slot != nil {
		p.book.Ledger.Close(t.Slot)
	}
	for _, r := range t.Pages {
		p.arena.Put(r)
	}
	sock.Close(t.FD)
}

// CloseIdle closes every idle connection.
func (p *Pool) CloseIdle() {
	for _, l := range p.idle {
		conns := l.conns
		l.conns = nil
		for _, c := range conns {
			c.unpark()
			c.close()
		}
	}
}
