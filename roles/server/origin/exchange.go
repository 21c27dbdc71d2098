package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/resolve"
)

// A Handler is told how an exchange goes. All calls are made on the loop.
type Handler interface {
	// OriginInterim reports an interim response (1xx other than 101), the n-th of the exchange; after a
	// death it may come once more.
	OriginInterim(n int, r *http1.Response, head []byte)

	// OriginHead reports the final response's head; r and head are valid only
	// during the call. The body goes to the sink that is returned.
	OriginHead(r *http1.Response, head []byte, f http1.Framing) Sink

	// OriginUnkept says, before a byte of the request is sent, that no successor will know that it was: the
	// connection is not in custody, or the exchange has no Token. It must not cancel the exchange.
	OriginUnkept()

	// OriginProgress ends a burst: all that could be received for now has been
	// given to the sink.
	OriginProgress()

	// OriginEnd reports that the response is complete.
	OriginEnd()

	// OriginFail reports that the exchange is over without a complete response.
	OriginFail(f Failure)

	// OriginTunnel hands over a connection that has left HTTP (101). early is
	// what the origin sent behind the head; it is valid only during the call.
	OriginTunnel(t Switched, early []byte)

	// OriginResumed says, of an exchange that comes from a dead server and whose head was
	// reported there, with which byte of the body it goes on. direct bytes from there on lie in the
	// Space that was given for them already.
	OriginResumed(at int64, direct int) Sink
}

// Switched is a connection that has left HTTP. Whoever has it closes it: the
// descriptor, and before that its place in custody.
type Switched struct {
	FD     int
	Slot   *queue.Slot  // nil: not in custody
	Pages  []buffer.Ref // to be given back once the slot names them no more
	Rx, Tx uint64       // bytes consumed and written
}

// A Sink takes a response body.
type Sink interface {
	// Space returns memory to receive into; empty means not now: the exchange
	// waits for Resume. It is also empty when Space has cancelled the exchange.
	Space() []byte
	// Commit says that the first n bytes of the last Space hold the next bytes
	// of the body.
	Commit(n int)
}

// A RequestBody is where an exchange takes the body of its request from. The
// whole body passes through it, decoded.
type RequestBody interface {
	// Next returns bytes that have been received, valid until Advance. With
	// none: BodyWait (Exchange.BodyReady is called later), BodyEnd, or
	// BodyFailed when the client is gone.
	Next() (p []byte, state BodyState)
	// Advance says that n bytes were taken over.
	Advance(n int)
	// Taken is how many bytes were taken over.
	Taken() uint64
}

// BodyState says what is known of a body beyond the bytes at hand.
type BodyState uint8

const (
	BodyWait   BodyState = iota // more will come
	BodyEnd                     // there is no more
	BodyFailed                  // there would be more, but it cannot be had
)

func (s BodyState) String() string {
	return [...]string{"wait", "end", "failed"}[s]
}

// A Failure says how an exchange ended before its response did.
type Failure struct {
	Err error
	// Timeout: a time limit passed (504 rather than 502).
	Timeout bool
	// Idle: the connection had carried an earlier exchange and no byte of a
	// response came: most likely the origin had closed it before the request
	// reached it.
	Idle bool
	// Connected: the request may have reached the origin.
	Connected bool
	// Begun: the response's head had come.
	Begun bool
	// BodyTaken: some of the request's body has been taken over.
	BodyTaken bool
}

// Public is what a client may be told: no names, no addresses.
func (f Failure) Public() string {
	var fault *http1.Error
	switch {
	case errors.Is(f.Err, ErrTimeout):
		return ErrTimeout.Error()
	case errors.Is(f.Err, ErrBusy):
		return ErrBusy.Error()
	case errors.Is(f.Err, syscall.ECONNREFUSED):
		return "the origin refused the connection"
	case errors.Is(f.Err, resolve.ErrUnresolved):
		return "the origin's name could not be resolved"
	case !f.Connected && !errors.Is(f.Err, ErrNoBuffers) && !errors.Is(f.Err, ErrForbidden):
		return "the origin could not be reached"
	case errors.As(f.Err, &fault):
		return "the origin's response is malformed"
	}
	for _, err := range []error{ErrForbidden, ErrTruncated, ErrBody, ErrNoBuffers, ErrNoAnswer, ErrNotUpgrade} {
		if errors.Is(f.Err, err) {
			return err.Error()
		}
	}
	return "the connection to the origin broke"
}

// Failures that a transaction tells apart.
var (
	ErrTruncated  = errors.New("the origin closed the connection before the end of its response")
	ErrTimeout    = errors.New("the origin took too long")
	ErrBody       = errors.New("the request's body is malformed, or its end never came")
	ErrNoBuffers  = errors.New("all buffers are in use")
	ErrBusy       = errors.New("the origin has as many connections as it may have")
	ErrNoAnswer   = errors.New("the origin closed the connection without an answer")
	ErrNotUpgrade = errors.New("the origin switched protocols without being asked to")
	ErrForbidden  = errors.New("the host has no address that may be connected to from here")
)

// An Exchange is one request to an origin and its response. It is embedded in
// the transaction; the exported fields are set before Pool.Start and are not
// changed until the exchange is over. Owned by its loop.
type Exchange struct {
	Handler Handler
	Origin  *remap.Origin
	// Server is the origin's server that is asked; nil for the built-in origin, and after a
	// death, when the one that is being asked is not known any more.
	Server *parent.Server
	// Probe: the request finds out whether Server is up again.
	Probe bool
	// Peer is whom the request was sent to last; set by the pool.
	Peer netip.AddrPort
	// ConnectLimit and ResponseLimit take the place of the pool's; 0: its own hold.
	ConnectLimit, ResponseLimit time.Duration
	Method                      http1.Method
	Path                        string // of the built-in origin; unused for others
	// Head is the request's head as it goes on the wire; copied by Start, so it
	// is set anew for every Start.
	Head []byte
	// Body is nil for a request without one.
	Body    RequestBody
	Chunked bool // the body goes in chunks; otherwise the head says its length
	// Expect: wait for 100 (Continue) or a second before the body is sent.
	Expect bool
	// Upgrade: the client asked to leave HTTP, so 101 is an answer.
	Upgrade bool
	// Tunnel: nothing is sent. The connection is handed over, by OriginTunnel, once it is made.
	Tunnel bool
	// Once: the request must not be sent twice, so it does not go over a
	// connection that the origin may just be closing.
	Once bool
	// Fresh: use no connection that was used before.
	Fresh bool
	// Token and Attempt are the handler's names for what is fetched and for this time of
	// sending the request, kept with the connection for a successor.
	Token   custody.Name
	Attempt uint32
	// Leader is the identity of the connection whose request this is.
	Leader uint64
	// BodyDone: the origin has the whole body of the request. Set before OriginEnd.
	BodyDone bool

	conn      *Conn // nil while there is none yet and when over
	dial      *dial // while there is no connection
	active    bool  // started and neither ended, failed nor cancelled
	bodyTaken bool
	echo      []byte // of the built-in origin: the body so far
	echoing   *Pool  // nil: there is none
	head      []byte // Head, copied while there is no connection yet
}

// BodyTaken reports whether some of the request's body has been taken over in this attempt.
func (x *Exchange) BodyTaken() bool { return x.bodyTaken }

// BodyReady says that the request body has more bytes, or has ended or failed.
func (x *Exchange) BodyReady() {
	if x.conn != nil {
		x.conn.expecting = false
		x.conn.flush()
	} else if x.echoing != nil {
		x.goOnEchoing()
	}
}

// Resume says that the sink has space again.
func (x *Exchange) Resume() {
	if x.conn != nil && x.conn.paused {
		x.conn.paused = false
		x.conn.allow(x.conn.pool.limits.Body)
		x.conn.readable()
	}
}

// Cancel ends the exchange without a further call to the handler. The
// connection is closed: what is under way on it cannot be taken back.
func (x *Exchange) Cancel() { x.Leave()() }

// Leave is Cancel in two steps: nothing more comes of the exchange, but its connection is closed only by the
// function that it returns. Until then a successor finds there that the request was sent.
func (x *Exchange) Leave() (closeConn func()) {
	if !x.active {
		return func() {}
	}
	x.active = false
	x.echo, x.echoing = nil, nil
	if d := x.dial; d != nil {
		x.dial = nil
		d.giveUp()
	}
	c := x.conn
	if c == nil {
		return func() {}
	}
	x.conn, c.x = nil, nil
	x.Forgo(c.pool.loop.Now())
	return c.close
}

// Forgo says that nobody learns whether the server would have answered. It is for the exchange that is not started after
// all; of any other the pool says so.
func (x *Exchange) Forgo(now int64) {
	if x.Probe {
		x.Probe = false
		x.Server.Abandon(now)
	}
}

// reached says that there is a connection to the server.
func (x *Exchange) reached() {
	if x.Server.Reached() {
		x.Probe = false
	}
}

// passed says that the server has answered. A request that finds out whether it does has found out, whatever the status.
func (x *Exchange) passed(status int) {
	if !x.Probe && x.Server.Doubtful(status) {
		return
	}
	x.Probe = false
	x.Server.Pass()
}

// blame tells the server what it has to do with a failure. A connection that was idle may have been closed by a server
// that is well, and a body that does not come is the client's.
func (x *Exchange) blame(f Failure, now int64) {
	switch {
	case f.Begun:
	case f.Idle, f.Err == ErrBody, f.Err == ErrBusy, f.Err == ErrNoBuffers:
		x.Forgo(now)
	default:
		x.Probe = false
		x.Server.Fail(now, f.Connected, f.Err)
	}
}

// name is what logs call whom the exchange is with.
func (x *Exchange) name() string {
	if x.Server == nil || x.Origin.Group == "" {
		return x.Origin.Name
	}
	return x.Origin.Name + " (" + x.Server.Name() + ")"
}

// fail ends the exchange and tells the handler.
func (x *Exchange) fail(f Failure) {
	if !x.active {
		return
	}
	x.active = false
	x.conn, x.dial = nil, nil
	f.BodyTaken = x.bodyTaken
	x.Handler.OriginFail(f)
}

func connectError(x *Exchange, err error) error {
	return fmt.Errorf("connect to origin %s: %w", x.name(), err)
}
