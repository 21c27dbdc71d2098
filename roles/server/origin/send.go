package origin

import (
	"time"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
)

// begin sends the exchange's request. The connection is made and carries it.
func (c *Conn) begin(head []byte) {
	x := c.x
	x.reached()
	ref, ok := c.pool.arena.Get(len(head))
	if !ok {
		c.fail(Failure{Err: ErrNoBuffers})
		return
	}
	c.state = readingHead
	c.out, c.outLo, c.outHi, c.outTx = ref, 0, copy(c.pool.arena.Bytes(ref), head), c.tx
	c.taken, c.at = 0, 0
	c.bodyDone, c.sendFailed = x.Body == nil, false
	c.expecting = x.Expect && x.Body != nil
	c.scan, c.got, c.eof, c.paused = http1.HeadScan{}, false, false, false
	c.sink, c.framing, c.rest, c.interims = nil, http1.None, false, 0
	c.resting, c.endBy = 0, 0
	if total := c.pool.limits.Total; total > 0 {
		c.endBy = c.pool.loop.Now() + int64(total)
	}
	c.await(c.pool.limits.Body)
	c.fit()
	c.note(custody.StepRequest)
	if c.pool.book != nil && (!c.entry.Kept() || x.Token == custody.Name{}) {
		x.Handler.OriginUnkept()
	}
	c.flush()
}

// await limits the time to the origin's next move while its response has not
// begun: to take a byte of the request, or to answer it.
func (c *Conn) await(d time.Duration) {
	if c.state == readingHead {
		c.allow(d)
	}
}

// responseLimit is the time for the response's head to come.
func (c *Conn) responseLimit() time.Duration {
	if c.x != nil && c.x.ResponseLimit != 0 {
		return c.x.ResponseLimit
	}
	return c.pool.limits.Response
}

// flush sends what is ready and then what the body has, until the socket takes
// no more or the body has no more for now.
func (c *Conn) flush() {
	if c.state != readingHead && c.state != readingBody || c.sendFailed || c.x == nil || c.out == 0 {
		return
	}
	buf := c.pool.arena.Bytes(c.out)
	for {
		for c.outLo < c.outHi {
			n, errno := sock.Send(c.fd, buf[c.outLo:c.outHi])
			if errno == sock.Again {
				if c.resting != 0 {
					c.await(c.pool.limits.Body) // the client has made its move, and the origin takes nothing
				}
				return
			}
			if errno != 0 {
				// An origin that refuses a body may have answered before it
				// closed; that answer is read, and only its absence is a failure.
				c.sendFailed = true
				return
			}
			queue.Killpoint(custody.StepTaken)
			c.outLo += n
			c.tx += uint64(n)
			c.pool.stats.Sent(n)
			c.await(c.pool.limits.Body)
		}
		sent := c.outHi > 0
		c.outLo, c.outHi = 0, 0
		if c.bodyDone {
			c.releaseOut()
			c.await(c.responseLimit())
			return
		}
		if c.expecting {
			if sent {
				c.await(c.pool.hold)
			}
			return
		}
		if !c.fillOut() {
			return
		}
		buf = c.pool.arena.Bytes(c.out)
	}
}

func (c *Conn) releaseOut() {
	c.spend(c.out)
	c.out = 0
}

// fillOut takes what the body has into the out buffer, framed. It reports
// whether there is something to send.
func (c *Conn) fillOut() bool {
	if len(c.pool.arena.Bytes(c.out)) < buffer.Large {
		ref, ok := c.pool.arena.GetLarge()
		if !ok {
			c.fail(Failure{Err: ErrNoBuffers, Connected: true})
			return false
		}
		c.spend(c.out)
		c.out = ref
	}
	const frame = 24 // room for a chunk's header, its end and the last chunk
	buf := c.pool.arena.Bytes(c.out)
	p, state := c.x.Body.Next()
	if len(p) > 0 {
		c.x.bodyTaken = true
		n := min(len(p), len(buf)-frame)
		dst := buf[:0]
		if c.x.Chunked {
			dst = http1.AppendChunkHeader(dst, int64(n))
		}
		dst = append(dst, p[:n]...)
		if c.x.Chunked {
			dst = append(dst, "\r\n"...)
		}
		c.outHi, c.outTx = len(dst), c.tx
		c.taken += uint64(n)
		c.note(custody.StepUpload) // before the body's own note can say that they are taken
		c.x.Body.Advance(n)
		return true
	}
	switch state {
	case BodyWait:
		if c.state == readingHead {
			c.clientsTurn() // the client's apply
		}
		return false
	case BodyFailed:
		c.fail(Failure{Err: ErrBody, Connected: true})
		return false
	}
	c.bodyDone = true
	if c.x.Chunked {
		c.outHi = copy(buf, http1.LastChunk)
	}
	c.outTx = c.tx
	c.note(custody.StepUpload)
	return true
}
