package origin

import (
	"fmt"
	"net/netip"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/sock"
)

// A dial makes the connection of one exchange:
//
//	look up ─▶ enter the server's Door, or wait there ─▶ connect ─▶ carry the exchange
//
// Of several addresses the next is tried when one fails, and beside it when it has not connected after an instant
// (RFC 8305 §5): the first connection that is made is used and the others are given up. A connection to the
// server that becomes idle meanwhile is taken instead, by who waits. Owned by its pool's loop.
type dial struct {
	pool  *Pool
	x     *Exchange
	addrs []netip.Addr // still to be tried
	conns []*Conn      // being made: two at most, as a rule
	err   Failure      // of the address tried last

	limit   deadline.Deadline // until the next address is tried; while it waits, until that is given up
	set     bool              // limit is in use
	waits   bool              // at the Door
	waiter  parent.Waiter
	door    *parent.Door // that waiter was at; x may be on its way to another server when it is told
	settled bool         // over: made, failed or given up
}

// stagger is how long a connection may take before the next address is tried as well (RFC 8305 §5, "Connection
// Attempt Delay").
const stagger = 250 * time.Millisecond

// begin finds the server's addresses.
func (d *dial) begin() {
	host := d.x.Server.Host
	if addrs, ok := d.pool.resolver.Cached(host); ok {
		d.have(addrs)
		return
	}
	d.pool.resolver.Resolve(host, d.pool.loop.Post, func(addrs []netip.Addr, err error) {
		switch {
		case d.settled:
		case err != nil:
			d.fail(Failure{Err: fmt.Errorf("resolve origin %s: %w", d.x.name(), err)})
		default:
			d.have(addrs)
		}
	})
}

func (d *dial) have(addrs []netip.Addr) {
	if addrs = d.x.permitted(addrs); len(addrs) == 0 {
		d.refuse()
		return
	}
	d.addrs = d.x.Server.Order(addrs, d.pool.loop.Now())
	if len(d.addrs) > 1 {
		d.arm(0)
	}
	d.enter()
}

// arm sets the limit, which most dials do without.
func (d *dial) arm(after time.Duration) {
	if !d.set {
		d.set = true
		d.limit.Init(d.pool.loop, d.expired)
	}
	d.limit.Set(after)
}

// enter asks for room for a connection.
func (d *dial) enter() {
	d.waiter = parent.Waiter{Owner: d, Admit: func() { d.pool.loop.Post(d.admitted) }}
	if !d.x.Fresh && !d.x.Tunnel && d.x.Origin.Guard == nil {
		d.waiter.Keeper = d.pool // a connection that was used before will do
	}
	d.door = d.x.Server.Door
	switch d.door.Enter(&d.waiter) {
	case parent.Enter:
		d.connect()
	case parent.Wait:
		d.waits = true
		d.arm(d.pool.limits.Wait)
	default:
		d.fail(Failure{Err: ErrBusy})
	}
}

// admitted is called on the loop when there is room after all.
func (d *dial) admitted() {
	if d.settled {
		d.door.Leave() // for the next in line
		return
	}
	d.waits = false
	d.limit.Clear()
	d.connect()
}

// take uses a connection that has become idle while we waited, if it can.
func (d *dial) take(c *Conn) {
	if d.x.Tunnel || !d.x.permits(c.addr) || !c.quiet() {
		d.waits = false
		c.close()
		d.enter()
		return
	}
	d.settle()
	d.pool.stats.Reused()
	c.carry(d.x)
}

// connect tries the next address that can be tried at all, having room for one connection.
func (d *dial) connect() {
	for len(d.addrs) > 0 {
		addr := d.addrs[0]
		d.addrs = d.addrs[1:]
		err := d.open(addr)
		if err == nil {
			if len(d.addrs) > 0 {
				d.arm(stagger)
			}
			return
		}
		d.err = Failure{Err: connectError(d.x, err)}
		d.unreachable(addr)
	}
	d.x.Server.Door.Leave()
	if len(d.conns) == 0 {
		d.fail(d.err)
	}
}

func (d *dial) open(addr netip.Addr) error {
	p, x := d.pool, d.x
	x.Peer = netip.AddrPortFrom(addr, x.Server.Port)
	fd, err := sock.Connect(x.Peer)
	if err != nil {
		return err
	}
	c := &Conn{pool: p, server: x.Server, addr: addr, fd: fd, state: connecting, dial: d}
	c.limit.Init(p.loop, c.expired)
	if err := p.loop.Watch(&c.watch, fd, eventloop.Readable|eventloop.Writable|eventloop.Hangup|eventloop.Edge, c); err != nil {
		sock.Close(fd)
		return err
	}
	p.stats.Opened()
	d.conns = append(d.conns, c)
	limit := p.limits.Connect
	if x.ConnectLimit != 0 {
		limit = x.ConnectLimit
	}
	c.limit.Set(limit)
	return nil
}

// expired is called when it has been waited long enough: for room, or for a connection before another is tried beside it.
func (d *dial) expired() {
	switch {
	case d.settled:
	case d.waits:
		if d.x.Server.Door.Forget(&d.waiter) {
			d.fail(Failure{Err: ErrBusy})
		}
	case len(d.addrs) > 0 && d.x.Server.Door.Enter(nil) == parent.Enter:
		d.connect()
	}
}

// made is called when a connection is there.
func (d *dial) made(c *Conn) {
	if d.tried() > 1 {
		d.x.Server.Reachable(c.addr)
	}
	d.remove(c)
	d.settle()
	c.dial = nil
	c.carry(d.x)
}

// tried is how many addresses were, or could be, tried.
func (d *dial) tried() int {
	n := len(d.conns) + len(d.addrs)
	if d.err.Err != nil {
		n++
	}
	return n
}

// failed is called when a connection cannot be made.
func (d *dial) failed(c *Conn, f Failure) {
	d.unreachable(c.addr)
	d.remove(c)
	c.dial = nil
	d.err = f
	c.close()
	switch {
	case d.settled || d.waits:
	case len(d.addrs) > 0:
		d.limit.Clear()
		d.enter()
	case len(d.conns) == 0:
		d.fail(f)
	}
}

// unreachable remembers an address that could not be reached, if there are others to try before it.
func (d *dial) unreachable(a netip.Addr) {
	if d.tried() > 1 {
		d.x.Server.Unreachable(a, d.pool.loop.Now())
	}
}

func (d *dial) remove(c *Conn) {
	for i, other := range d.conns {
		if other == c {
			d.conns = append(d.conns[:i], d.conns[i+1:]...)
			return
		}
	}
}

func (d *dial) fail(f Failure) {
	d.settle()
	d.pool.fail(d.x, f)
}

// giveUp ends the dial for an exchange that is cancelled.
func (d *dial) giveUp() {
	d.settle()
	d.x.Forgo(d.pool.loop.Now())
}

// settle ends the dial: nothing more is tried or waited for.
func (d *dial) settle() {
	d.settled = true
	d.x.dial = nil
	if d.set {
		d.limit.Stop()
	}
	if d.waits {
		// Not in line any more: it was let in, and will be told so, and leaves again.
		d.waits = false
		d.x.Server.Door.Forget(&d.waiter)
	}
	for _, c := range d.conns {
		c.dial = nil
		c.close()
	}
	d.conns = nil
}
