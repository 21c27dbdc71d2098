package origin

import "trafficd/roles/server/http1"

// processPlain moves the bytes of an unchunked body to the sink.
func (c *Conn) processPlain() bool {
	for c.inLo < c.inHi {
		src := c.pool.arena.Bytes(c.in)[c.inLo:c.inHi]
		if c.framing == http1.Length && int64(len(src)) > c.left {
			src = src[:c.left]
		}
		n := c.give(src)
		if n == 0 {
			return false
		}
		c.inLo += n
		c.at += int64(n)
		c.dirty = true
		if c.framing == http1.Length {
			if c.left -= int64(n); c.left == 0 {
				c.complete()
				return false
			}
		}
	}
	if c.eof {
		c.ended()
		return false
	}
	c.spendIn()
	c.dirty = true
	return true
}

// give copies bytes to the sink, as many as fit at once; none pauses reading.
func (c *Conn) give(src []byte) int {
	space := c.sink.Space()
	if len(space) == 0 {
		c.pause()
		return 0
	}
	n := copy(space, src)
	c.sink.Commit(n)
	c.allow(c.pool.limits.Body)
	return n
}

// processChunks decodes a chunked body into the sink. What is framing only, such as the end, needs no space there: a sink
// that knows how long the body is has none left by then.
func (c *Conn) processChunks() bool {
	for c.inLo < c.inHi {
		in := c.pool.arena.Bytes(c.in)[c.inLo:c.inHi]
		before := c.chunks
		data, n, err := c.chunks.Next(in)
		if err != nil {
			c.malformed("chunk", err)
			return false
		}
		if data.Len > 0 {
			space := c.sink.Space()
			if len(space) == 0 {
				c.chunks = before
				c.pause()
				return false
			}
			if int(data.Len) > len(space) {
				// Decoding does not depend on where its input is cut: repeat the
				// step for as much as there is space for.
				c.chunks = before
				data, n, _ = c.chunks.Next(in[:int(data.Off)+len(space)])
			}
			c.sink.Commit(copy(space, data.In(in)))
			c.at += int64(data.Len)
			c.allow(c.pool.limits.Body)
		}
		c.inLo += n
		c.dirty = true
		if c.chunks.Done() {
			c.complete()
			return false
		}
		if n == 0 {
			break // the rest of a trailer line is missing
		}
	}
	if c.eof {
		c.ended()
		return false
	}
	return true
}

// spendIn gives up the page, of which all is consumed.
func (c *Conn) spendIn() {
	c.spend(c.in)
	c.in, c.inLo, c.inHi, c.base = 0, 0, 0, c.rx
}
