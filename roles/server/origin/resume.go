package origin

import (
	"errors"
	"fmt"

	"trafficd/eventloop"
	"trafficd/queue"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/sock"
)

// errResume is the cause of a failure that only a successor can have: what its predecessor left does
// not fit together.
var errResume = errors.New("the exchange could not be taken over")

// Resume makes the connection of a dead server that carries x; the handler, and what x says of the request, are
// set. An error says why it cannot go on; then slot and descriptor stay the caller's.
// It may be called before the loop runs; Conn.Start then begins.
func (p *Pool) Resume(fd int, slot *queue.Slot, at queue.Progress, x *Exchange) (*Conn, error) {
	entry, r := custody.Resume[record](p.book, fd, slot)
	if x.Origin == nil {
		// Nobody asks for it any more; what is under way comes to its end.
		x.Origin = &remap.Origin{Name: sock.Peer(fd).String()}
	}
	x.Peer = sock.Peer(fd)
	c := &Conn{pool: p, fd: fd, state: r.state, inherited: true, little: true, rx: at.Consumed, tx: at.Written}
	if err := c.restore(&r); err != nil {
		return nil, err
	}
	c.entry = entry
	c.limit.Init(p.loop, c.expired)
	c.x = x
	x.conn, x.active, x.bodyTaken = c, true, c.taken > 0
	return c, nil
}

// restore takes over what the record says.
func (c *Conn) restore(r *record) error {
	if r.state != readingHead && r.state != readingBody {
		return fmt.Errorf("it is %v", r.state)
	}
	if r.flags.Has(flagUsed) {
		c.used = 1
	}
	c.taken, c.bodyDone, c.expecting = r.taken, r.flags.Has(flagBodyDone), r.flags.Has(flagExpecting)
	c.resp.Close, c.interims = r.flags.Has(flagClose), int(r.interims)
	if r.out != 0 {
		if c.tx < r.outTx {
			return fmt.Errorf("%d bytes were written where its request begins with number %d", c.tx, r.outTx)
		}
		c.out, c.outHi, c.outTx = r.out, int(r.outLen), r.outTx
		c.outLo = int(min(c.tx-r.outTx, uint64(r.outLen)))
	}
	c.framing, c.left, c.chunks, c.at = r.framing, r.left, r.chunks, r.at
	if r.in != 0 {
		c.in, c.base = r.in, r.base
		c.inLo, c.inHi = int(r.next-r.base), int(c.rx-r.base)
		if c.inLo > c.inHi || c.inHi > len(c.pool.arena.Bytes(c.in)) {
			return fmt.Errorf("bytes %d to %d of its page of %d", c.inLo, c.inHi, len(c.pool.arena.Bytes(c.in)))
		}
		c.got = c.inHi > c.inLo
	} else if c.rx < r.next || r.state == readingHead && c.rx > r.next {
		return fmt.Errorf("%d bytes were consumed where number %d is next", c.rx, r.next)
	}
	c.rest = true
	return nil
}

// direct is how many bytes have been received past the page since the last note.
func (r *record) direct(rx uint64) int {
	if r.in != 0 || r.state != readingBody {
		return 0
	}
	return int(rx - r.next)
}

// Start goes on with the exchange. It runs on the loop, when whoever follows the exchange is back.
func (c *Conn) Start() {
	x := c.x
	if x == nil {
		return // cancelled meanwhile
	}
	c.pool.book.Work(x.Leader)
	rec := c.entry.Load()
	if c.state == readingBody {
		direct := rec.direct(c.rx)
		c.sink = x.Handler.OriginResumed(c.at, direct)
		c.at += int64(direct)
		if c.framing == http1.Length {
			c.left -= int64(direct)
		}
	}
	const all = eventloop.Readable | eventloop.Writable | eventloop.Hangup | eventloop.Edge
	if err := c.pool.loop.Watch(&c.watch, c.fd, all, c); err != nil {
		c.fail(Failure{Err: err, Connected: true})
		return
	}
	if !c.skipTaken() {
		c.fail(Failure{Err: errResume, Connected: true})
		return
	}
	c.allow(c.responseLimit())
	if c.expecting {
		c.await(c.pool.hold) // also when nothing is left to be sent before it
	}
	if c.state == readingBody {
		c.allow(c.pool.limits.Body)
		if c.framing == http1.None || c.framing == http1.Length && c.left == 0 && c.inLo == c.inHi {
			c.complete()
			return
		}
	}
	c.flush()
	if c.x == x && x.active {
		c.readable()
	}
}

// skipTaken moves the request's body to where this connection has taken it: the client's side notes
// that later than this one.
func (c *Conn) skipTaken() bool {
	b := c.x.Body
	if b == nil && c.bodyDone {
		return true
	}
	if b == nil {
		// Whose it was is gone: the origin can have no more of it.
		c.bodyDone, c.sendFailed = true, true
		return true
	}
	for b.Taken() < c.taken {
		p, _ := b.Next()
		if len(p) == 0 {
			return false
		}
		b.Advance(int(min(uint64(len(p)), c.taken-b.Taken())))
	}
	if c.bodyDone {
		_, _ = b.Next() // moves past what ends it
	}
	return true
}
