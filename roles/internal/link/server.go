package link

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ServerOptions tells a hub how to treat who dials in.
type ServerOptions struct {
	// Self is how the hub introduces itself; called for every hello.
	Self func() Hello
	// Mux serves what peers call. nil: nothing.
	Mux *Mux
	// Admit decides on a peer whose version, user and PID are right. An error
	// is told to it (code refused) and the connection closed. nil: all.
	Admit func(p Peer, h Hello) error
	// OnConnect gets a connection before any of its calls is handled; it may
	// itself Call. OnClose gets it when its last message was handled.
	OnConnect func(c *Conn)
	OnClose   func(c *Conn, err error)
	// MaxConns bounds connections, those in the hand-shake included. Default 64.
	MaxConns int
}

// Server is a hub: it accepts connections until Close. It owns its goroutines,
// one to accept and one per connection beside the connection's own two.
type Server struct {
	l    net.Listener
	o    ServerOptions
	stop chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu     sync.Mutex
	raw    map[net.Conn]struct{} // guarded by mu: all connections, to cut them at Close
	conns  map[*Conn]struct{}    // guarded by mu: those past the hand-shake
	closed bool                  // guarded by mu
}

// Serve accepts on l, a Unix SOCK_SEQPACKET listener ("unixpacket"), which it
// owns from now on.
func Serve(l net.Listener, o ServerOptions) *Server {
	if o.MaxConns <= 0 {
		o.MaxConns = 64
	}
	s := &Server{
		l: l, o: o,
		stop:  make(chan struct{}),
		raw:   make(map[net.Conn]struct{}),
		conns: make(map[*Conn]struct{}),
	}
	s.wg.Add(1)
	go s.acceptLoop()
	return s
}

// Close stops accepting, ends every connection and waits for all goroutines.
// Not to be called from a handler, which it would wait for.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	close(s.stop)
	for c := range s.raw {
		c.Close()
	}
	for c := range s.conns {
		c.end(ErrClosed, true)
	}
	s.mu.Unlock()
	err := s.l.Close()
	s.wg.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("link: close: %w", err)
	}
	return nil
}

// acceptPause is how long the hub waits after an error that is not its
// listener's end: no descriptors, most likely.
const acceptPause = 50 * time.Millisecond

func (s *Server) acceptLoop() {
	defer s.wg.Done()
	for {
		c, err := s.l.Accept()
		if err == nil {
			s.begin(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case <-s.stop:
			return
		case <-time.After(acceptPause):
		}
	}
}

func (s *Server) begin(c net.Conn) {
	u, isUnix := c.(*net.UnixConn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !isUnix || len(s.raw) >= s.o.MaxConns {
		c.Close()
		return
	}
	s.raw[c] = struct{}{}
	s.wg.Add(1)
	go s.serve(u)
}

func (s *Server) serve(u *net.UnixConn) {
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.raw, u)
		s.mu.Unlock()
	}()
	c, err := s.shake(u)
	if err != nil {
		u.Close()
		return
	}
	if !s.add(c) {
		c.end(ErrClosed, true)
	}
	c.start(s.o.OnConnect)
	c.wait()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if s.o.OnClose != nil {
		s.o.OnClose(c, c.Err())
	}
}

func (s *Server) add(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[c] = struct{}{}
	}
	return !s.closed
}

// shake is the hub's half of the hand-shake, see the package documentation.
func (s *Server) shake(u *net.UnixConn) (*Conn, error) {
	peer, err := peerOf(u)
	if err == nil {
		err = peer.trusted()
	}
	if err != nil {
		return nil, err // not even told why
	}
	c := newConn(u, s.o.Mux, peer)
	if err := u.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	id, err := s.readHello(c)
	if err != nil {
		c.refuse(id, err)
		return nil, err
	}
	if err := u.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return c, c.send(c.ctx, &envelope{Kind: kindReply, ID: id}, s.o.Self(), nil)
}

// readHello returns the id to answer to, 0 if there is none.
func (s *Server) readHello(c *Conn) (id uint64, err error) {
	e, fds, err := receive(c.c, make([]byte, maxDatagram))
	if err != nil {
		return s.badHello(e, err)
	}
	m := &Message{Op: e.Op, Body: e.Body, fds: fds}
	defer m.Close()
	if e.Kind != kindCall || e.Op != opHello {
		return e.ID, fmt.Errorf("%w: %s before hello", ErrMalformed, m.what())
	}
	if err := m.Decode(&c.hello); err != nil {
		return e.ID, err
	}
	if err := c.hello.check(c.peer); err != nil {
		return e.ID, err
	}
	if s.o.Admit != nil {
		return e.ID, s.o.Admit(c.peer, c.hello)
	}
	return e.ID, nil
}

func (s *Server) badHello(e *envelope, err error) (uint64, error) {
	var v *VersionError
	if errors.As(err, &v) {
		return max(e.ID, 1), err // the peer counts calls from 1, as all versions do
	}
	return 0, err
}

// refuse tells the peer why its hello was not accepted, if it can be told.
func (c *Conn) refuse(id uint64, why error) {
	if id == 0 {
		return
	}
	code := CodeRefused
	var v *VersionError
	if errors.As(why, &v) {
		code = CodeVersion
	}
	// The peer may be gone; then it does not matter.
	_ = c.send(c.ctx, &envelope{Kind: kindReply, ID: id, Error: &RemoteError{Code: code, Text: why.Error()}}, nil, nil)
}
