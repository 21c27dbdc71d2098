package origin

import (
	"fmt"
	"net/netip"
)

// handOver gives the connection to the handler, with what came behind the head of a response. It carries no HTTP any more,
// or never did. Until the handler's own note names it, a successor closes it and begins anew.
func (c *Conn) handOver(early []byte) {
	x := c.x
	x.active, x.conn, c.x = false, nil, nil
	if err := c.pool.loop.Remove(&c.watch); err != nil {
		panic(fmt.Sprintf("origin: remove a watch: %v", err))
	}
	c.entry.Busy(c.pool.book)
	slot, page := c.entry.Yield()
	t := Switched{FD: c.fd, Slot: slot, Pages: append(c.spent, page, c.in, c.out), Rx: c.rx, Tx: c.tx}
	c.fd, c.in, c.out, c.spent = -1, 0, 0, nil
	x.Handler.OriginTunnel(t, early)
	c.close()
}

// permits reports whether the exchange may go to an address.
func (x *Exchange) permits(a netip.Addr) bool {
	g := x.Origin.Guard
	return g == nil || g.Check(netip.AddrPortFrom(a, x.Server.Port)) == nil
}

// permitted are those of the addresses that the exchange may go to.
func (x *Exchange) permitted(addrs []netip.Addr) []netip.Addr {
	if x.Origin.Guard == nil {
		return addrs
	}
	var ok []netip.Addr
	for _, a := range addrs {
		if x.permits(a) {
			ok = append(ok, a)
		}
	}
	return ok
}

// refuse ends the dial of an exchange that may go nowhere. The server has nothing to do with it.
func (d *dial) refuse() {
	d.settle()
	d.x.Forgo(d.pool.loop.Now())
	d.x.fail(Failure{Err: ErrForbidden})
}
