package origin

import (
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
)

// readable receives until the socket is empty, the sink is full or the
// exchange is over.
func (c *Conn) readable() {
	if c.reading || c.state == connecting {
		return
	}
	if c.state == idle {
		// Anything on an idle connection, a byte or its end, makes it useless.
		c.pool.drop(c)
		c.close()
		return
	}
	c.reading, c.rest = true, true
	c.fit()
	x := c.x
	more := true
	if c.inLo < c.inHi && !c.paused { // paused, it is the client's turn until Resume, and no limit is to run
		more = c.process() // what was left when the sink was full, or by a server that is dead
	}
	for more && c.x == x && x != nil && !c.paused {
		more = c.receive()
	}
	c.reading = false
	if c.dirty && c.x == x && x != nil {
		c.note(custody.StepResponse)
	}
	if x != nil && x.active && x.conn == c {
		x.Handler.OriginProgress()
	}
	c.weigh()
}

// receive makes one call to the socket and works through what came. It reports
// whether another call may bring more.
func (c *Conn) receive() bool {
	if c.state == readingBody && c.inLo == c.inHi && c.framing != http1.ChunkedBody && c.sink != nil {
		return c.receiveDirect()
	}
	if !c.makeRoom() {
		return false
	}
	buf := c.pool.arena.Bytes(c.in)
	if c.inHi < len(buf) && !c.eof {
		n, errno := sock.Recv(c.fd, buf[c.inHi:])
		if errno == sock.Again {
			return false
		}
		if errno != 0 {
			c.broken(errno)
			return false
		}
		c.eof = n == 0
		// A short read has emptied the socket, unless its end is still in it.
		c.rest = n == len(buf)-c.inHi || c.hangup
		queue.Killpoint(custody.StepTaken)
		c.inHi += n
		c.rx += uint64(n)
		c.pool.stats.Received(n)
		c.got = c.got || n > 0
		return c.process() && c.rest && !c.eof
	}
	return c.process() && !c.eof
}

// receiveDirect receives a body straight into its sink.
func (c *Conn) receiveDirect() bool {
	space := c.sink.Space()
	if len(space) == 0 {
		c.pause()
		return false
	}
	if c.framing == http1.Length && int64(len(space)) > c.left {
		space = space[:c.left]
	}
	if c.dirty || c.in != 0 {
		// From here on what is consumed goes past the page.
		c.spendIn()
		c.note(custody.StepResponse)
	}
	n, errno := sock.Recv(c.fd, space)
	switch {
	case errno == sock.Again:
		return false
	case errno != 0:
		c.broken(errno)
		return false
	case n == 0:
		c.eof = true
		c.ended()
		return false
	}
	c.pool.stats.Received(n)
	queue.Killpoint(custody.StepTaken)
	c.rest = n == len(space) || c.hangup
	c.allow(c.pool.limits.Body)
	c.rx += uint64(n)
	c.at += int64(n)
	c.sink.Commit(n)
	if c.framing == http1.Length {
		if c.left -= int64(n); c.left == 0 {
			c.complete()
			return false
		}
	}
	return c.rest
}

// makeRoom sees to it that there is a buffer with room, or bytes to work on.
func (c *Conn) makeRoom() bool {
	if c.in == 0 {
		ref, ok := c.pool.arena.GetSmall()
		if !ok {
			c.fail(Failure{Err: ErrNoBuffers, Connected: true})
			return false
		}
		c.in, c.inLo, c.inHi, c.base = ref, 0, 0, c.rx
		c.note(custody.StepOrigin)
	}
	buf := c.pool.arena.Bytes(c.in)
	if c.inLo == c.inHi && c.inHi > 0 {
		c.inLo, c.inHi, c.base = 0, 0, c.rx
		c.note(custody.StepOrigin)
	}
	if c.inHi < len(buf) {
		return true
	}
	if c.inLo == 0 && len(buf) == buffer.Large {
		return true // full of unconsumed bytes; process decides
	}
	// Bytes are never moved in a page, only to another one.
	ref, ok := c.pool.arena.GetLarge()
	if !ok {
		c.fail(Failure{Err: ErrNoBuffers, Connected: true})
		return false
	}
	c.base += uint64(c.inLo)
	c.inHi = copy(c.pool.arena.Bytes(ref), buf[c.inLo:c.inHi])
	c.inLo = 0
	c.spend(c.in)
	c.in = ref
	c.note(custody.StepOrigin)
	return true
}

// process consumes what was received. It reports whether the exchange goes on
// and wants more bytes.
func (c *Conn) process() bool {
	if c.state == readingHead && !c.processHead() {
		return false
	}
	if c.state != readingBody {
		return c.state == readingHead && c.x != nil
	}
	switch c.framing {
	case http1.ChunkedBody:
		return c.processChunks()
	case http1.None:
		c.complete()
		return false
	}
	return c.processPlain()
}
