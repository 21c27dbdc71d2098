package origin

import (
	"fmt"
	"net/netip"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/resolve"
	"trafficd/roles/server/sock"
)

// Limits bound what an origin may do. Times of 0 mean no limit.
type Limits struct {
	Connect  time.Duration // to make a connection, for each address
	Response time.Duration // from the last byte of the request sent to the response's head
	Body     time.Duration // between bytes of a body, the request's or the response's
	Idle     time.Duration // how long a connection waits in the pool
	MaxIdle  int           // connections that wait, for each origin
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

	idle map[address]*idleList
}

// address is what connections are alike by.
type address struct {
	host string
	port uint16
}

// idleList holds the idle connections to one address, the one used last at the
// end.
type idleList struct{ conns []*Conn }

// Stats counts what a pool does, in units of one except where it says bytes.
type Stats interface {
	Opened()
	Reused()
	Closed()
	// Failed reports an exchange without a complete response.
	Failed(o *remap.Origin, f Failure)
	Malformed()
	Sent(bytes int)
	Received(bytes int)
}

// NewPool makes a pool for a loop.
func NewPool(l *eventloop.Loop, a *buffer.Arena, b *custody.Book, r *resolve.Resolver, s Stats) *Pool {
	return &Pool{loop: l, arena: a, book: b, resolver: r, stats: s, idle: map[address]*idleList{}}
}

// SetLimits replaces the limits; exchanges under way keep the time limits they
// are waiting for.
func (p *Pool) SetLimits(l Limits) { p.limits = l }

// Start begins an exchange. The handler may be called before Start returns.
func (p *Pool) Start(x *Exchange) {
	x.conn, x.active, x.bodyTaken, x.addrs = nil, true, false, nil
	o := x.Origin
	if o.Builtin {
		p.startBuiltin(x)
		return
	}
	if !x.Fresh {
		if c := p.take(address{o.Host, o.Port}, x.Once); c != nil {
			p.stats.Reused()
			x.conn, c.x = c, x
			c.begin(x.Head)
			return
		}
	}
	x.head = append(x.head[:0], x.Head...)
	if addrs, ok := p.resolver.Cached(o.Host); ok {
		x.addrs = addrs
		p.dial(x)
		return
	}
	serial := x.begin()
	p.resolver.Resolve(o.Host, p.loop.Post, func(addrs []netip.Addr, err error) {
		switch {
		case !x.active || x.serial != serial:
		case err != nil:
			p.fail(x, Failure{Err: fmt.Errorf("resolve origin %s: %w", o.Name, err)})
		default:
			x.addrs = addrs
			p.dial(x)
		}
	})
}

// dial opens a connection for x to the first of its addresses that can be
// reached.
func (p *Pool) dial(x *Exchange) {
	var err error
	for len(x.addrs) > 0 {
		addr := netip.AddrPortFrom(x.addrs[0], x.Origin.Port)
		x.addrs = x.addrs[1:]
		if err = p.dialAddr(x, addr); err == nil {
			return
		}
	}
	p.fail(x, Failure{Err: connectError(x.Origin, err)})
}

// fail ends an exchange badly.
func (p *Pool) fail(x *Exchange, f Failure) {
	p.stats.Failed(x.Origin, f)
	x.fail(f)
}

func (p *Pool) dialAddr(x *Exchange, addr netip.AddrPort) error {
	fd, err := sock.Connect(addr)
	if err != nil {
		return err
	}
	c := &Conn{pool: p, origin: x.Origin, fd: fd, state: connecting, x: x}
	c.limit.Init(p.loop, c.expired)
	if err := p.loop.Watch(&c.watch, fd, eventloop.Readable|eventloop.Writable|eventloop.Hangup|eventloop.Edge, c); err != nil {
		sock.Close(fd)
		return err
	}
	p.stats.Opened()
	x.conn = c
	c.limit.Set(p.limits.Connect)
	return nil
}

// onceIdle is how long a connection may have been idle and still carry a request
// that must not be sent twice. Origins keep connections for seconds at least; one
// that was used a moment ago is not being closed now.
const onceIdle = int64(time.Second)

// take removes the connection used last to addr from the pool: it is the one
// least likely to have been closed by the origin, and its state is warm.
func (p *Pool) take(addr address, once bool) *Conn {
	l := p.idle[addr]
	if l == nil || len(l.conns) == 0 {
		return nil
	}
	c := l.conns[len(l.conns)-1]
	if once && p.loop.Now()-c.idleSince > onceIdle {
		return nil
	}
	l.conns = l.conns[:len(l.conns)-1]
	return c
}

// room reports whether one more connection like c may wait.
func (p *Pool) room(c *Conn) bool {
	l := p.idle[address{c.origin.Host, c.origin.Port}]
	return p.limits.MaxIdle > 0 && (l == nil || len(l.conns) < p.limits.MaxIdle)
}

// put keeps a connection for the next exchange.
func (p *Pool) put(c *Conn) {
	c.spendIn()
	addr := address{c.origin.Host, c.origin.Port}
	l := p.idle[addr]
	if l == nil {
		l = &idleList{}
		p.idle[addr] = l
	}
	c.state = idle
	c.idleSince = p.loop.Now()
	c.limit.Set(p.limits.Idle)
	l.conns = append(l.conns, c)
}

// drop takes a connection out of the pool.
func (p *Pool) drop(c *Conn) {
	l := p.idle[address{c.origin.Host, c.origin.Port}]
	for i, other := range l.conns {
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
		for _, c := range l.conns {
			c.close()
		}
		l.conns = nil
	}
}
