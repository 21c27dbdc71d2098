package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"trafficd/queue"
)

// ErrClosed reports that the connection ended, here or there, before a call
// was answered or a message sent.
var ErrClosed = errors.New("link is closed")

const (
	// inboxLen bounds how many calls and events may wait for their handler.
	// A peer that is further ahead is out of order and is disconnected:
	// blocking the reader instead would block the replies behind them.
	inboxLen = 1024
	// sendTimeout bounds a send to a peer that does not read (stopped).
	sendTimeout = 2 * time.Second
	// helloTimeout bounds the hand-shake.
	helloTimeout = 5 * time.Second
)

// Reply is what a handler answers to a call.
type Reply struct {
	Body any   // marshalled to JSON; nil: none
	FDs  []int // duplicates of these are sent; they stay the handler's
	// Sent, if not nil, is called when FDs are no longer needed.
	Sent func()
}

// Handler serves one operation. The message is closed when it returns. The
// reply to an event is ignored. ctx ends with the connection.
type Handler func(ctx context.Context, c *Conn, m *Message) (Reply, error)

// Mux maps operations to handlers. One Mux serves any number of connections.
type Mux struct {
	mu sync.RWMutex
	m  map[string]Handler // guarded by mu
}

// NewMux makes a Mux without handlers.
func NewMux() *Mux { return &Mux{m: make(map[string]Handler)} }

// Handle sets the handler of op, for calls and events alike. hello is not for
// taking.
func (x *Mux) Handle(op string, h Handler) {
	if op == "" || op == opHello || len(op) > maxOp || h == nil {
		panic("link: invalid handler for op " + op)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.m[op] = h
}

func (x *Mux) find(op string) Handler {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.m[op]
}

// Conn is a connection whose hand-shake is done. Safe for concurrent use.
type Conn struct {
	c     *net.UnixConn
	mux   *Mux
	peer  Peer  // immutable
	hello Hello // immutable: the peer's

	ctx    context.Context // ends when done closes
	cancel context.CancelFunc
	inbox  chan *Message // written and closed by the reader, read by the dispatcher
	done   chan struct{} // closed by end
	wg     sync.WaitGroup

	wmu sync.Mutex // one send at a time, with its deadline

	mu      sync.Mutex
	nextID  uint64                 // guarded by mu
	calls   map[uint64]chan answer // guarded by mu: calls not answered yet
	err     error                  // guarded by mu: why it ended
	aborted bool                   // guarded by mu: drop what has not been handled
}

type answer struct {
	m   *Message
	err error
}

func newConn(c *net.UnixConn, mux *Mux, peer Peer) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	if mux == nil {
		mux = NewMux()
	}
	return &Conn{
		c: c, mux: mux, peer: peer,
		ctx: ctx, cancel: cancel,
		inbox: make(chan *Message, inboxLen),
		done:  make(chan struct{}),
		calls: make(map[uint64]chan answer),
	}
}

// start begins to read, runs onConnect, and then begins to handle: so
// onConnect may Call, and no handler sees the connection before it.
func (c *Conn) start(onConnect func(*Conn)) {
	c.wg.Add(2)
	go c.read()
	if onConnect != nil {
		onConnect(c)
	}
	go c.dispatch()
}

// Hello is how the peer introduced itself when the connection was made.
func (c *Conn) Hello() Hello { return c.hello }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection ended; nil while it has not. io.EOF: the peer
// closed or died.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. Calls under way return ErrClosed; messages not
// yet handled are dropped. It does not wait for a handler that runs.
func (c *Conn) Close() error {
	c.end(ErrClosed, true)
	return nil
}

// end is the one way a connection ends; the first reason stays. abort: what
// was received and not handled is dropped. (After an EOF it is still handled:
// the peer's last words count.)
func (c *Conn) end(err error, abort bool) {
	c.mu.Lock()
	c.aborted = c.aborted || abort
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		close(c.done)
		c.cancel()
		c.c.Close()
	}
}

// wait returns when both goroutines have ended.
func (c *Conn) wait() { c.wg.Wait() }

// Call asks the peer to perform op and waits for its reply, whose descriptors
// the caller must take or Close. body is marshalled to JSON (nil: none, and
// json.RawMessage is sent as it is); duplicates of fds go with it. An error
// the peer answered is a *RemoteError.
func (c *Conn) Call(ctx context.Context, op string, body any, fds ...int) (*Message, error) {
	id, ch := c.register()
	err := c.send(ctx, &envelope{Kind: kindCall, ID: id, Op: op}, body, fds)
	if err != nil {
		c.abandon(id, ch)
		return nil, fmt.Errorf("link: call %s: %w", op, err)
	}
	select {
	case a := <-ch:
		return a.result(op)
	case <-ctx.Done():
		c.abandon(id, ch)
		return nil, fmt.Errorf("link: call %s: %w", op, ctx.Err())
	case <-c.done:
	}
	// The answer may have been the last thing to arrive.
	select {
	case a := <-ch:
		return a.result(op)
	default:
		c.abandon(id, ch)
		return nil, fmt.Errorf("link: call %s: %w: %w", op, ErrClosed, c.Err())
	}
}

func (a answer) result(op string) (*Message, error) {
	if a.err != nil {
		return nil, fmt.Errorf("link: call %s: %w", op, a.err)
	}
	return a.m, nil
}

func (c *Conn) register() (uint64, chan answer) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	c.calls[c.nextID] = ch
	return c.nextID, ch
}

// abandon forgets a call. If its reply has arrived meanwhile, nobody else will
// close that.
func (c *Conn) abandon(id uint64, ch chan answer) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
	select {
	case a := <-ch:
		if a.m != nil {
			a.m.Close()
		}
	default:
	}
}

// Emit tells the peer something and expects no answer. nil means sent, not
// handled.
func (c *Conn) Emit(op string, body any, fds ...int) error {
	if err := c.send(context.Background(), &envelope{Kind: kindEvent, Op: op}, body, fds); err != nil {
		return fmt.Errorf("link: emit %s: %w", op, err)
	}
	return nil
}

func (c *Conn) send(ctx context.Context, e *envelope, body any, fds []int) error {
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode body: %w", err)
		}
		e.Body = b
	}
	if len(e.Body) > maxInline {
		fd, err := sealBody(e.Body)
		if err != nil {
			return err
		}
		defer queue.CloseAll([]int{fd})
		e.Memory, e.Body = int64(len(e.Body)), nil
		fds = append(append([]int(nil), fds...), fd)
	}
	b, err := e.encode()
	if err != nil {
		return err
	}
	return c.write(ctx, b, fds)
}

func (c *Conn) write(ctx context.Context, b []byte, fds []int) error {
	deadline := time.Now().Add(sendTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.c.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	err := queue.Send(c.c, b, fds...)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, queue.ErrPeerGone) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// receive reads one message; on an error nothing of it is left open.
func receive(c *net.UnixConn, buf []byte) (*envelope, []int, error) {
	n, fds, err := queue.Recv(c, buf)
	if err != nil {
		if errors.Is(err, queue.ErrTruncated) {
			err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return nil, nil, err
	}
	e, err := decode(buf[:n], len(fds))
	if err == nil && e.Memory > 0 {
		last := len(fds) - 1
		e.Body, err = readBody(fds[last], e.Memory)
		queue.CloseAll(fds[last:])
		fds = fds[:last]
	}
	if err != nil {
		queue.CloseAll(fds)
		return e, nil, err
	}
	return e, fds, nil
}

func (c *Conn) read() {
	defer c.wg.Done()
	defer close(c.inbox)
	buf := make([]byte, maxDatagram)
	for {
		e, fds, err := receive(c.c, buf)
		if err == nil {
			err = c.accept(e, fds)
		}
		if err == nil {
			continue
		}
		c.end(err, !errors.Is(err, io.EOF))
		return
	}
}

// accept sorts one message: to the call that waits for it, or to the inbox.
func (c *Conn) accept(e *envelope, fds []int) error {
	m := &Message{Op: e.Op, Body: e.Body, id: e.ID, fds: fds}
	if e.Kind == kindReply {
		c.answer(e, m)
		return nil
	}
	select {
	case c.inbox <- m:
		return nil
	default:
		m.Close()
		return fmt.Errorf("link: peer is %d messages ahead", inboxLen)
	}
}

func (c *Conn) answer(e *envelope, m *Message) {
	c.mu.Lock()
	ch := c.calls[e.ID]
	delete(c.calls, e.ID)
	if ch != nil && e.Error == nil {
		ch <- answer{m: m} // under mu, so that abandon cannot miss it
	}
	if ch != nil && e.Error != nil {
		ch <- answer{err: e.Error}
	}
	c.mu.Unlock()
	if ch == nil || e.Error != nil {
		m.Close() // nobody waits any more, or an error brought descriptors
	}
}

func (c *Conn) dispatch() {
	defer c.wg.Done()
	for m := range c.inbox {
		c.mu.Lock()
		drop := c.aborted
		c.mu.Unlock()
		if !drop {
			c.handle(m)
		}
		m.Close()
	}
}

func (c *Conn) handle(m *Message) {
	h := c.mux.find(m.Op)
	var r Reply
	var err error
	if h == nil {
		err = &RemoteError{Code: CodeUnknownOp, Text: "no operation " + m.Op}
	} else {
		r, err = h(c.ctx, c, m)
	}
	if m.id != 0 {
		c.reply(m.id, r, err)
	}
	if r.Sent != nil {
		r.Sent()
	}
}

func (c *Conn) reply(id uint64, r Reply, err error) {
	if err == nil {
		err = c.send(c.ctx, &envelope{Kind: kindReply, ID: id}, r.Body, r.FDs)
		if err == nil || errors.Is(err, ErrClosed) {
			return
		}
		// The result could not be sent (too large, not JSON): say so, or the
		// peer would wait for nothing.
	}
	var remote *RemoteError
	if !errors.As(err, &remote) {
		remote = &RemoteError{Code: CodeFailed, Text: err.Error()}
	}
	if err := c.send(c.ctx, &envelope{Kind: kindReply, ID: id, Error: remote}, nil, nil); err != nil {
		c.end(fmt.Errorf("link: reply: %w", err), true)
	}
}
