package origin

import (
	"fmt"

	"trafficd/roles/server/http1"
)

// processHead looks for complete heads: interim ones, then the final one. It
// reports whether the final one was found.
func (c *Conn) processHead() bool {
	for ; c.interims <= maxInterim; c.interims++ {
		head := c.pool.arena.Bytes(c.in)[c.inLo:c.inHi]
		err := c.parseHead(head)
		if err == http1.ErrIncomplete {
			return c.headMissing()
		}
		if err != nil {
			c.malformed("response", err)
			return false
		}
		c.x.passed(c.resp.Status)
		head = head[:c.resp.HeadLen]
		c.inLo += len(head)
		c.dirty = true
		if c.resp.Status == 101 {
			c.tunnel()
			return false
		}
		if c.resp.Status >= 200 {
			c.finalHead(head)
			return c.state == readingBody
		}
		x := c.x
		x.Handler.OriginInterim(c.interims+1, &c.resp, head)
		if c.x != x || x == nil {
			return false
		}
		if c.resp.Status == 100 {
			x.BodyReady()
		}
		if c.x != x {
			return false
		}
	}
	c.fail(Failure{Err: fmt.Errorf("origin %s: more than %d interim responses", c.name(), maxInterim), Connected: true})
	return false
}

// parseHead parses the head that b begins with. Most come in one piece; for the
// others the scan remembers how far it has looked.
func (c *Conn) parseHead(b []byte) error {
	lim := &c.pool.limits.Head
	if c.scan == (http1.HeadScan{}) {
		if err := c.resp.Parse(b, lim); err != http1.ErrIncomplete {
			return err
		}
	}
	end, err := c.scan.Response(b, lim)
	if err != nil {
		return err
	}
	if end == 0 {
		return http1.ErrIncomplete
	}
	c.scan = http1.HeadScan{}
	return c.resp.Parse(b, lim)
}

// malformed ends an exchange with an origin that does not speak HTTP.
func (c *Conn) malformed(what string, err error) {
	c.pool.stats.Malformed()
	c.fail(Failure{Err: fmt.Errorf("origin %s: malformed %s: %w", c.name(), what, err), Connected: true})
}

// headMissing deals with a head that is not complete yet. It reports whether
// more bytes may complete it.
func (c *Conn) headMissing() bool {
	if c.eof {
		c.ended()
		return false
	}
	return true
}

func (c *Conn) finalHead(head []byte) {
	x := c.x
	c.framing = c.resp.Body(x.Method)
	c.left = c.resp.ContentLength
	c.chunks = http1.Chunked{}
	c.state, c.at = readingBody, 0
	c.allow(c.pool.limits.Body)
	c.sink = x.Handler.OriginHead(&c.resp, head, c.framing)
	if c.x != x {
		return
	}
	if c.framing == http1.Length && c.left == 0 {
		c.framing = http1.None
	}
}

// tunnel gives the connection away.
func (c *Conn) tunnel() {
	x := c.x
	if !x.Upgrade {
		c.fail(Failure{Err: ErrNotUpgrade, Connected: true})
		return
	}
	if !c.bodyDone || c.outLo < c.outHi {
		c.fail(Failure{Err: ErrNotUpgrade, Connected: true}) // it cannot have read what it agrees to
		return
	}
	head := c.pool.arena.Bytes(c.in)[:c.inLo]
	early := c.pool.arena.Bytes(c.in)[c.inLo:c.inHi]
	x.Handler.OriginHead(&c.resp, head[len(head)-c.resp.HeadLen:], http1.Tunnel)
	if c.x != x || !x.active {
		return
	}
	c.handOver(early)
}
