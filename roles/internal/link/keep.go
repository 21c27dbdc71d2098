package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// connect is the dialer's half of the hand-shake on u, a Unix SOCK_SEQPACKET socket,
// which it closes when it fails. A refusal is a *RemoteError.
func connect(ctx context.Context, u *net.UnixConn, self Hello, mux *Mux) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = u.SetReadDeadline(time.Unix(1, 0)) })
	c, err := sayHello(ctx, u, self, mux)
	if err == nil && stop() {
		err = u.SetReadDeadline(time.Time{})
	} else if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		u.Close()
		return nil, fmt.Errorf("link: say hello: %w", err)
	}
	return c, nil
}

func sayHello(ctx context.Context, u *net.UnixConn, self Hello, mux *Mux) (*Conn, error) {
	peer, err := peerOf(u)
	if err == nil {
		err = peer.trusted()
	}
	if err != nil {
		return nil, err
	}
	c := newConn(u, mux, peer)
	if err := u.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err() // the deadline of AfterFunc was just overwritten
	}
	c.nextID = 1
	if err := c.send(ctx, &envelope{Kind: kindCall, ID: 1, Op: opHello}, self, nil); err != nil {
		return nil, err
	}
	e, fds, err := receive(u, make([]byte, maxDatagram))
	if err != nil {
		return nil, err
	}
	m := &Message{Body: e.Body, fds: fds}
	defer m.Close()
	switch {
	case e.Kind != kindReply || e.ID != 1:
		return nil, fmt.Errorf("%w: %s instead of the reply to hello", ErrMalformed, e.Kind)
	case e.Error != nil:
		return nil, e.Error
	}
	return c, m.Decode(&c.hello)
}

// KeepOptions tells a Tether whom to dial and how to introduce itself.
type KeepOptions struct {
	// Dial makes a connection to the hub's socket, a *net.UnixConn of network
	// "unixpacket". Required.
	Dial func(ctx context.Context) (net.Conn, error)
	// Self is called for every hello, so that it tells the present state.
	// Required.
	Self func() Hello
	// Mux serves what the hub calls. nil: nothing.
	Mux *Mux
	// OnConnect gets every new connection before any call of the hub's on it
	// is handled; it may itself Call. OnLost gets it when it has ended and its
	// last message was handled. OnRefused is told that hello was not accepted,
	// or that it was not the hub who answered; the next try is a second later.
	// All three are called one after the other from the Tether's goroutine.
	OnConnect func(c *Conn)
	OnLost    func(c *Conn, err error)
	OnRefused func(err error)
	// Dir and Name say where the hub's socket appears: Dir is watched by
	// inotify for Name. Empty, or where there is no inotify: it is tried every
	// 50 ms.
	Dir, Name string
}

const (
	retryFast    = 50 * time.Millisecond
	retryWatched = 500 * time.Millisecond // in case inotify lost an event
	retryRefused = time.Second
	// fastTries after a loss or an event bridge the time between bind, which
	// inotify reports, and listen.
	fastTries = 40
)

// Tether keeps one connection to the hub: when it ends, it makes the next as
// soon as there is a hub again. It owns one goroutine, and one for inotify.
type Tether struct {
	o      KeepOptions
	cancel context.CancelFunc
	done   chan struct{} // closed when its goroutine has ended

	mu      sync.Mutex
	conn    *Conn         // guarded by mu; nil: none now
	changed chan struct{} // guarded by mu: closed and replaced when conn changes
}

// Keep starts a Tether, which works until Close or the end of ctx.
func Keep(ctx context.Context, o KeepOptions) *Tether {
	ctx, cancel := context.WithCancel(ctx)
	t := &Tether{o: o, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go t.run(ctx)
	return t
}

// Conn is the connection as it is now; nil while there is none.
func (t *Tether) Conn() *Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn
}

// Wait returns the connection as soon as there is one.
func (t *Tether) Wait(ctx context.Context) (*Conn, error) {
	for {
		t.mu.Lock()
		conn, changed := t.conn, t.changed
		t.mu.Unlock()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("link: wait for connection: %w", ctx.Err())
		case <-t.done:
			return nil, ErrClosed
		}
	}
}

// Close ends the connection and waits for the Tether's goroutines. Not to be
// called from a handler or callback, which it would wait for.
func (t *Tether) Close() {
	t.cancel()
	<-t.done
}

func (t *Tether) set(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = c
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *Tether) run(ctx context.Context) {
	defer close(t.done)
	w := watch(t.o.Dir, t.o.Name)
	defer w.close()
	for fast := fastTries; ctx.Err() == nil; {
		c, err := t.dial(ctx)
		if err == nil {
			t.hold(ctx, c)
			fast = fastTries
			continue // at once: a successor may be listening already
		}
		pause := retryFast
		var refusal *refusedError
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &refusal):
			if t.o.OnRefused != nil {
				t.o.OnRefused(refusal.err)
			}
			pause = retryRefused
		case fast > 0:
			fast--
		case w.working():
			pause = retryWatched
		}
		if w.wait(ctx, pause) {
			fast = fastTries
		}
	}
}

// refusedError marks a hand-shake that failed although somebody was there.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

func (t *Tether) dial(ctx context.Context) (*Conn, error) {
	raw, err := t.o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	u, ok := raw.(*net.UnixConn)
	if !ok {
		raw.Close()
		return nil, &refusedError{fmt.Errorf("link: dial made a %T, want a *net.UnixConn", raw)}
	}
	c, err := connect(ctx, u, t.o.Self(), t.o.Mux)
	var remote *RemoteError
	var version *VersionError
	if errors.As(err, &remote) || errors.As(err, &version) || errors.Is(err, ErrMalformed) {
		err = &refusedError{err}
	}
	return c, err
}

// hold lives as long as the connection does.
func (t *Tether) hold(ctx context.Context, c *Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	c.start(func(c *Conn) {
		t.set(c)
		if t.o.OnConnect != nil {
			t.o.OnConnect(c)
		}
	})
	<-c.Done()
	t.set(nil)
	c.wait()
	if t.o.OnLost != nil {
		t.o.OnLost(c, c.Err())
	}
}
