package origin

import (
	"fmt"
	"syscall"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/sock"
)

// connState is where a connection stands.
type connState uint8

const (
	connecting  connState = iota // waiting for the handshake
	readingHead                  // the request is on its way; no final head yet
	readingBody                  // the head was reported; the body is coming
	idle                         // in the pool
	closed
)

func (s connState) String() string {
	return [...]string{"connecting", "reading head", "reading body", "idle", "closed"}[s]
}

// A Conn is a connection to an origin. Owned by its pool's loop.
type Conn struct {
	pool      *Pool
	origin    *remap.Origin // immutable
	fd        int           // immutable
	watch     eventloop.Watch
	limit     deadline.Deadline
	state     connState
	used      int       // exchanges carried before this one
	idleSince int64     // monotonic ns
	x         *Exchange // nil when idle or closed

	// The request. out holds what is ready for the wire and not yet sent.
	out          buffer.Ref
	outLo, outHi int
	bodyDone     bool // nothing more to take from the body
	expecting    bool // the body waits for 100 (Continue)
	sendFailed   bool // the origin takes no more; an answer may still come

	// The response. in holds what was received and not yet consumed.
	in         buffer.Ref
	inLo, inHi int
	scan       http1.HeadScan
	got        bool
	resp       http1.Response
	framing    http1.Framing
	left       int64 // bytes of the body still to come, for http1.Length
	chunks     http1.Chunked
	sink       Sink
	paused     bool // the sink had no space
	eof        bool
	hangup     bool // the end is in the socket, behind what is to be read
	rest       bool // the socket may hold more than was received
	interims   int  // interim responses to this request
	reading    bool // guards against a Resume from within a call to the handler
}

// continueWait is how long a body is held back for 100 (Continue): an origin
// may not know the expectation (RFC 9110 §10.1.1).
const continueWait = time.Second

// maxInterim bounds the interim responses to one request.
const maxInterim = 32

// HandleEvent implements eventloop.Handler.
func (c *Conn) HandleEvent(_ *eventloop.Watch, ev eventloop.Event) {
	c.hangup = c.hangup || ev&eventloop.Hangup != 0
	switch {
	case c.state == connecting:
		c.connected()
		if c.state == connecting || c.x == nil {
			return
		}
	case ev&eventloop.Writable != 0 && c.state != idle:
		c.flush()
	}
	// Also of the event that made the connection: the origin may have spoken, or
	// gone, already, and no second event would say so.
	if ev&(eventloop.Readable|eventloop.Hangup) != 0 && c.state != closed {
		c.readable()
	}
}

func (c *Conn) connected() {
	if err := sock.SocketError(c.fd); err != nil {
		c.notConnected(Failure{Err: connectError(c.origin, err)})
		return
	}
	c.begin(c.x.head)
}

// notConnected gives the exchange on to the next address of the origin, or ends
// it.
func (c *Conn) notConnected(f Failure) {
	x := c.x
	c.x, x.conn = nil, nil
	c.close()
	if len(x.addrs) > 0 {
		c.pool.dial(x)
		return
	}
	c.pool.fail(x, f)
}

// begin sends the exchange's request. The connection is made and carries it.
func (c *Conn) begin(head []byte) {
	x := c.x
	ref, ok := c.pool.arena.Get(len(head))
	if !ok {
		c.fail(Failure{Err: ErrNoBuffers})
		return
	}
	c.state = readingHead
	c.out, c.outLo, c.outHi = ref, 0, copy(c.pool.arena.Bytes(ref), head)
	c.bodyDone, c.sendFailed = x.Body == nil, false
	c.expecting = x.Expect && x.Body != nil
	c.scan, c.got, c.eof, c.paused = http1.HeadScan{}, false, false, false
	c.sink, c.framing, c.rest, c.interims = nil, http1.None, false, 0
	c.await(c.pool.limits.Body)
	c.flush()
}

// await limits the time to the origin's next move while its response has not
// begun: to take a byte of the request, or to answer it.
func (c *Conn) await(d time.Duration) {
	if c.state == readingHead {
		c.limit.Set(d)
	}
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
				return
			}
			if errno != 0 {
				// An origin that refuses a body may have answered before it
				// closed; that answer is read, and only its absence is a failure.
				c.sendFailed = true
				return
			}
			c.outLo += n
			c.pool.stats.Sent(n)
			c.await(c.pool.limits.Body)
		}
		sent := c.outHi > 0
		c.outLo, c.outHi = 0, 0
		if c.bodyDone {
			c.releaseOut()
			c.await(c.pool.limits.Response)
			return
		}
		if c.expecting {
			if sent {
				c.await(continueWait)
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
	c.pool.arena.Put(c.out)
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
		c.pool.arena.Put(c.out)
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
		c.outHi = len(dst)
		c.x.Body.Advance(n)
		return true
	}
	switch state {
	case BodyWait:
		c.await(0) // the client's limits apply
		return false
	case BodyFailed:
		c.fail(Failure{Err: ErrBody, Connected: true})
		return false
	}
	c.bodyDone = true
	if c.x.Chunked {
		c.outHi = copy(buf, http1.LastChunk)
	}
	return true
}

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
	x := c.x
	more := true
	if c.state == readingBody && c.inLo < c.inHi {
		more = c.process() // what was left when the sink was full
	}
	for more && c.x == x && x != nil && !c.paused {
		more = c.receive()
	}
	c.reading = false
	if x != nil && x.active && x.conn == c {
		x.Handler.OriginProgress()
	}
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
		c.inHi += n
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
		c.paused = true
		c.limit.Clear()
		return false
	}
	if c.framing == http1.Length && int64(len(space)) > c.left {
		space = space[:c.left]
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
	c.rest = n == len(space) || c.hangup
	c.limit.Set(c.pool.limits.Body)
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
		c.in, c.inLo, c.inHi = ref, 0, 0
	}
	buf := c.pool.arena.Bytes(c.in)
	if c.inLo == c.inHi {
		c.inLo, c.inHi = 0, 0
	}
	if c.inHi < len(buf) {
		return true
	}
	if c.inLo > 0 {
		c.inHi = copy(buf, buf[c.inLo:c.inHi])
		c.inLo = 0
		return true
	}
	if len(buf) == buffer.Large {
		return true // full of unconsumed bytes; process decides
	}
	ref, ok := c.pool.arena.GetLarge()
	if !ok {
		c.fail(Failure{Err: ErrNoBuffers, Connected: true})
		return false
	}
	c.inHi = copy(c.pool.arena.Bytes(ref), buf[:c.inHi])
	c.pool.arena.Put(c.in)
	c.in = ref
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
		head = head[:c.resp.HeadLen]
		c.inLo += len(head)
		if c.resp.Status == 101 {
			c.tunnel()
			return false
		}
		if c.resp.Status >= 200 {
			c.finalHead(head)
			return c.state == readingBody
		}
		x := c.x
		x.Handler.OriginInterim(&c.resp, head)
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
	c.fail(Failure{Err: fmt.Errorf("origin %s: more than %d interim responses", c.origin.Name, maxInterim), Connected: true})
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
	c.fail(Failure{Err: fmt.Errorf("origin %s: malformed %s: %w", c.origin.Name, what, err), Connected: true})
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
	c.state = readingBody
	c.limit.Set(c.pool.limits.Body)
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
	x.active, x.conn, c.x = false, nil, nil
	if err := c.pool.loop.Remove(&c.watch); err != nil {
		panic(fmt.Sprintf("origin: remove a watch: %v", err))
	}
	fd := c.fd
	c.fd = -1
	x.Handler.OriginTunnel(fd, early)
	c.close()
}

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
	c.releaseIn()
	return true
}

// give copies bytes to the sink, as many as fit at once; none pauses reading.
func (c *Conn) give(src []byte) int {
	space := c.sink.Space()
	if len(space) == 0 {
		c.paused = true
		c.limit.Clear()
		return 0
	}
	n := copy(space, src)
	c.sink.Commit(n)
	c.limit.Set(c.pool.limits.Body)
	return n
}

// processChunks decodes a chunked body into the sink.
func (c *Conn) processChunks() bool {
	for c.inLo < c.inHi {
		space := c.sink.Space()
		if len(space) == 0 {
			c.paused = true
			c.limit.Clear()
			return false
		}
		in := c.pool.arena.Bytes(c.in)[c.inLo:c.inHi]
		before := c.chunks
		data, n, err := c.chunks.Next(in)
		if int(data.Len) > len(space) {
			// Decoding does not depend on where its input is cut: repeat the
			// step for as much as there is space for.
			c.chunks = before
			data, n, err = c.chunks.Next(in[:int(data.Off)+len(space)])
		}
		if err != nil {
			c.malformed("chunk", err)
			return false
		}
		if data.Len > 0 {
			c.sink.Commit(copy(space, data.In(in)))
			c.limit.Set(c.pool.limits.Body)
		}
		c.inLo += n
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

func (c *Conn) releaseIn() {
	c.pool.arena.Put(c.in)
	c.in, c.inLo, c.inHi = 0, 0, 0
}

// ended deals with the end of the stream before the end of the response.
func (c *Conn) ended() {
	switch {
	case c.state == readingBody && c.framing == http1.UntilClose:
		c.complete()
	case c.state == readingBody:
		c.fail(Failure{Err: ErrTruncated, Connected: true})
	case c.got:
		c.fail(Failure{Err: ErrTruncated, Connected: true})
	default:
		c.fail(Failure{Err: ErrNoAnswer, Connected: true, Idle: c.used > 0})
	}
}

// broken deals with an error of the socket.
func (c *Conn) broken(errno syscall.Errno) {
	c.fail(Failure{Err: fmt.Errorf("receive from origin %s: %w", c.origin.Name, errno),
		Connected: true, Idle: c.used > 0 && !c.got})
}

// complete ends the exchange well and keeps the connection if it can be used
// again.
func (c *Conn) complete() {
	x := c.x
	// A body without a length ends with the connection, and what comes behind
	// the end of a response belongs to no request: neither may be used again.
	keep := !c.resp.Close && c.framing != http1.UntilClose && !c.eof &&
		c.bodyDone && c.outLo == c.outHi && !c.sendFailed && c.inLo == c.inHi && c.silent()
	c.x = nil
	x.active, x.conn = false, nil
	c.sink = nil
	if keep {
		c.used++
		c.pool.put(c)
	} else {
		c.close()
	}
	x.Handler.OriginEnd()
}

// silent reports whether the origin has sent nothing beyond the response, its
// end included: what waits in the socket now would make no event later, and be
// taken for the answer to the next request.
func (c *Conn) silent() bool {
	if c.hangup {
		return false
	}
	if !c.rest {
		return true
	}
	var one [1]byte
	_, errno := sock.Recv(c.fd, one[:])
	return errno == sock.Again
}

// fail ends the exchange badly; the connection is closed.
func (c *Conn) fail(f Failure) {
	x := c.x
	f.Begun = c.state == readingBody
	c.x = nil
	c.close()
	if x != nil {
		c.pool.fail(x, f)
	}
}

// expired is called when the time limit passes.
func (c *Conn) expired() {
	switch {
	case c.state == idle:
		c.pool.drop(c)
		c.close()
	case c.expecting && c.state == readingHead:
		c.expecting = false
		c.flush()
	case c.state == connecting:
		c.notConnected(Failure{Err: connectError(c.origin, ErrTimeout), Timeout: true})
	default:
		c.fail(Failure{Err: fmt.Errorf("origin %s: %w", c.origin.Name, ErrTimeout), Timeout: true, Connected: true})
	}
}

// close gives everything back. The exchange, if any, has been taken off.
func (c *Conn) close() {
	if c.state == closed {
		return
	}
	c.state = closed
	c.limit.Stop()
	c.pool.arena.Put(c.in)
	c.pool.arena.Put(c.out)
	c.in, c.out = 0, 0
	if c.fd >= 0 {
		c.pool.loop.Forget(&c.watch)
		sock.Close(c.fd)
	}
	c.pool.stats.Closed()
}
