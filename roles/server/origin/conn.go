package origin

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/parent"
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
	server    *parent.Server // whose Door it has entered; nil for an inherited one; immutable
	addr      netip.Addr     // immutable
	fd        int            // immutable
	watch     eventloop.Watch
	limit     deadline.Deadline
	state     connState
	used      int       // exchanges carried before this one
	inherited bool      // made by a server that is dead, for what may have been another origin's rules
	idleSince int64     // monotonic ns
	parked    bool      // idle, and the Door knows
	dial      *dial     // while connecting
	x         *Exchange // nil while connecting, when idle or closed
	endBy     int64     // monotonic ns; 0: no limit for all of the exchange
	resting   int64     // since when it is the client's turn, monotonic ns; 0: it is not

	entry  custody.Entry[record]
	rx, tx uint64 // bytes consumed and written since the connection began
	// dirty: something was consumed since the last note. spent pages are given back with the next one.
	dirty bool
	spent []buffer.Ref

	// The request. out holds what is ready for the wire and not yet sent.
	out          buffer.Ref
	outLo, outHi int
	outTx        uint64 // number in our stream of the first byte of out
	taken        uint64 // bytes of the request's body taken into out
	bodyDone     bool   // nothing more to take from the body
	expecting    bool   // the body waits for 100 (Continue)
	sendFailed   bool   // the origin takes no more; an answer may still come

	// The response. in holds what was received and not yet consumed.
	in         buffer.Ref
	inLo, inHi int
	base       uint64 // number in the origin's stream of the first byte of in
	at         int64  // bytes of the body consumed
	scan       http1.HeadScan
	got        bool
	resp       http1.Response
	framing    http1.Framing
	left       int64 // bytes of the body still to come, for http1.Length
	chunks     http1.Chunked
	sink       Sink
	paused     bool // the sink had no space
	untaken    int  // bytes in the kernel for a sink without space, when that was last looked at
	little     bool // the origin is told to send little at a time; an inherited one may have been
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
	case c.x != nil:
		c.pool.book.Work(c.x.Leader)
	case c.dial != nil:
		c.pool.book.Work(c.dial.x.Leader)
	}
	switch {
	case c.state == connecting:
		c.connected()
		if c.x == nil {
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
		c.dial.failed(c, Failure{Err: connectError(c.dial.x, err)})
		return
	}
	c.entry = custody.Enter[record](c.pool.book, c.fd, custody.Origin)
	c.dial.made(c)
}

// carry begins an exchange on the connection.
func (c *Conn) carry(x *Exchange) {
	x.conn, c.x, x.Peer = c, x, c.peer()
	if x.Tunnel {
		x.passed(200)
		c.handOver(nil)
		return
	}
	c.begin(x.head)
}

// name is what logs call whom it leads to: a connection may be used again by another rule than it was made for.
func (c *Conn) name() string {
	switch {
	case c.x != nil:
		return c.x.name()
	case c.dial != nil:
		return c.dial.x.name()
	}
	return ""
}

// peer is the address of the other end.
func (c *Conn) peer() netip.AddrPort { return netip.AddrPortFrom(c.addr, c.server.Port) }

// allow limits the time to the origin's next move; 0: by none but that for all of the exchange.
func (c *Conn) allow(d time.Duration) {
	now := c.pool.loop.Now()
	if c.resting != 0 {
		if c.endBy != 0 {
			c.endBy += now - c.resting
		}
		c.resting = 0
	}
	if c.endBy != 0 {
		left := max(time.Duration(c.endBy-now), 1)
		if d == 0 || left < d {
			d = left
		}
	}
	c.limit.Set(d)
}

// clientsTurn takes the limits away: it is for the client to make the next move.
func (c *Conn) clientsTurn() {
	if c.resting == 0 {
		c.resting = c.pool.loop.Now()
	}
	c.limit.Clear()
}

// unpark tells the Door that the connection is idle no more.
func (c *Conn) unpark() {
	if c.parked {
		c.parked = false
		c.server.Door.Used(c.pool)
	}
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
	c.fail(Failure{Err: fmt.Errorf("receive from origin %s: %w", c.name(), errno),
		Connected: true, Idle: c.used > 0 && !c.got})
}

// complete ends the exchange well and keeps the connection if it can be used
// again.
func (c *Conn) complete() {
	x := c.x
	// A body without a length ends with the connection, and what comes behind
	// the end of a response belongs to no request: neither may be used again. Nor where content was promised and there can
	// be none (HEAD, 304): of an origin that sends it all the same nobody knows when it comes, and it would be the next
	// answer. An inherited connection need not lead to where its origin is by now.
	promised := c.framing == http1.None && (c.resp.ContentLength > 0 || c.resp.Chunked)
	keep := !c.inherited && !c.resp.Close && c.framing != http1.UntilClose && !promised && !c.eof &&
		c.bodyDone && c.outLo == c.outHi && !c.sendFailed && c.inLo == c.inHi && c.silent() && c.pool.room(c)
	c.x = nil
	x.active, x.conn, x.BodyDone = false, nil, c.bodyDone
	c.sink = nil
	if keep {
		c.used++
		c.pool.put(c)
	}
	// The note stays until the handler has made its own: whoever finds it there completes
	// the exchange once more.
	x.Handler.OriginEnd()
	switch {
	case c.state == idle:
		c.entry.Rest(c.pool.book)
		c.release()
		c.pool.offer(c)
	case !keep:
		c.close()
	}
}

// silent reports whether the origin has sent nothing beyond the response, its
// end included: what waits in the socket now would make no event later, and be
// taken for the answer to the next request.
func (c *Conn) silent() bool {
	if c.hangup {
		return false
	}
	return !c.rest || c.quiet()
}

// quiet asks the socket whether anything has come.
func (c *Conn) quiet() bool {
	var one [1]byte
	_, errno := sock.Recv(c.fd, one[:])
	return errno == sock.Again
}

// fail ends the exchange badly; the connection is closed.
func (c *Conn) fail(f Failure) {
	x := c.x
	f.Begun = c.state == readingBody
	c.x = nil
	if x != nil {
		c.pool.fail(x, f)
	}
	c.close()
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
		c.dial.failed(c, Failure{Err: connectError(c.dial.x, ErrTimeout), Timeout: true})
	default:
		c.fail(Failure{Err: fmt.Errorf("origin %s: %w", c.name(), ErrTimeout), Timeout: true, Connected: true})
	}
}

// close gives everything back. The exchange, if any, has been taken off.
func (c *Conn) close() {
	if c.state == closed {
		return
	}
	c.state = closed
	c.limit.Stop()
	c.weigh()
	c.entry.Close(c.pool.book)
	c.release()
	c.pool.arena.Put(c.in)
	c.pool.arena.Put(c.out)
	c.in, c.out = 0, 0
	if c.fd >= 0 {
		c.pool.loop.Forget(&c.watch)
		sock.Close(c.fd)
	}
	c.pool.stats.Closed()
	if c.server != nil {
		c.server.Door.Leave()
	}
}
