// Package tunnel joins two connections that have left HTTP (RFC 9110 §7.8): what
// one side sends, the other gets.
//
// Each direction has a window of one page; a side that does not read stops the
// other from being read. The end of one direction is passed on as the end of
// that direction only, so half-closed protocols work; an error ends both. A
// direction without bytes in flight holds no page.
//
// A tunnel belongs to one event loop. It knows no protocol, and it counts bytes
// only to report them.
package tunnel

import (
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/sock"
)

// Options of a tunnel. All fields are needed.
type Options struct {
	Loop  *eventloop.Loop
	Arena *buffer.Arena
	Idle  time.Duration // without a byte either way; 0: no limit
	// Closed is called once, after both descriptors have been closed.
	Closed func(s Summary)
}

// A Summary says what a tunnel did.
type Summary struct {
	ToClient, ToOrigin int64 // bytes
	TimedOut           bool
}

// A Tunnel is two joined connections. Owned by its loop.
type Tunnel struct {
	o      Options
	limit  deadline.Deadline
	client side
	origin side
	closed bool
	turn   bool // another turn has been posted
}

// side is one connection and the bytes on their way to it.
type side struct {
	t     *Tunnel
	fd    int
	watch eventloop.Watch
	page  buffer.Ref
	lo    int
	hi    int
	sent  int64
	// eof: the other side has ended; shut: this side has been told so.
	eof, shut bool
}

// turnReads bounds how much one turn reads for one direction, in pages.
const turnReads = 16

// Start joins two non-blocking connections; both descriptors are the tunnel's
// from now on, also when it fails. toClient and toOrigin are sent first; a tunnel
// of which one does not fit into a Large page is closed at once.
func Start(o Options, client, origin int, toClient, toOrigin []byte) (*Tunnel, error) {
	t := &Tunnel{o: o, client: side{fd: client}, origin: side{fd: origin}}
	t.client.t, t.origin.t = t, t
	t.limit.Init(o.Loop, func() { t.close(true) })
	sock.KeepAlive(client)
	sock.KeepAlive(origin)
	if err := t.watch(); err != nil {
		t.o.Closed = func(Summary) {}
		t.close(false)
		return nil, err
	}
	if !t.client.preload(toClient) || !t.origin.preload(toOrigin) {
		t.close(false)
		return t, nil
	}
	t.limit.Set(o.Idle)
	t.run()
	return t, nil
}

func (t *Tunnel) watch() error {
	const all = eventloop.Readable | eventloop.Writable | eventloop.Hangup | eventloop.Edge
	if err := t.o.Loop.Watch(&t.client.watch, t.client.fd, all, &t.client); err != nil {
		return err
	}
	return t.o.Loop.Watch(&t.origin.watch, t.origin.fd, all, &t.origin)
}

func (s *side) preload(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if !s.takePage() {
		return false
	}
	s.hi = copy(s.t.o.Arena.Bytes(s.page), p)
	return s.hi == len(p)
}

func (s *side) takePage() bool {
	ref, ok := s.t.o.Arena.GetLarge()
	s.page, s.lo, s.hi = ref, 0, 0
	return ok
}

// HandleEvent implements eventloop.Handler.
func (s *side) HandleEvent(_ *eventloop.Watch, ev eventloop.Event) {
	if ev&eventloop.Broken != 0 && ev&eventloop.Readable == 0 {
		s.t.close(false)
		return
	}
	s.t.run()
}

// RunTask implements eventloop.Task: another turn.
func (t *Tunnel) RunTask() {
	t.turn = false
	t.run()
}

// run moves bytes both ways until neither side has anything to give or take.
func (t *Tunnel) run() {
	if t.closed {
		return
	}
	a := t.client.pump(&t.origin)
	b := t.origin.pump(&t.client)
	switch {
	case a == dead || b == dead, t.client.shut && t.origin.shut:
		t.close(false)
		return
	case a == busy || b == busy:
		if !t.turn {
			t.turn = true
			t.o.Loop.PostTask(t)
		}
	}
	t.limit.Set(t.o.Idle)
}

// flow is how moving bytes in one direction ended.
type flow uint8

const (
	quiet flow = iota // one side has to move first
	busy              // there may be more at once
	dead              // a connection is broken
)

// pump moves bytes from from to s.
func (s *side) pump(from *side) flow {
	for range turnReads {
		if s.lo < s.hi {
			n, errno := sock.Send(s.fd, s.t.o.Arena.Bytes(s.page)[s.lo:s.hi])
			if errno == sock.Again {
				return quiet
			}
			if errno != 0 {
				return dead
			}
			s.lo += n
			s.sent += int64(n)
			continue
		}
		if s.eof {
			s.finish()
			return quiet
		}
		if s.page == 0 && !s.takePage() {
			return dead
		}
		n, errno := sock.Recv(from.fd, s.t.o.Arena.Bytes(s.page))
		switch {
		case errno == sock.Again:
			s.releasePage()
			return quiet
		case errno != 0:
			return dead
		}
		s.lo, s.hi, s.eof = 0, n, n == 0
	}
	return busy
}

// finish passes the end of a direction on.
func (s *side) finish() {
	s.releasePage()
	if !s.shut {
		s.shut = true
		sock.ShutdownWrite(s.fd)
	}
}

func (s *side) releasePage() {
	s.t.o.Arena.Put(s.page)
	s.page, s.lo, s.hi = 0, 0, 0
}

// Close ends the tunnel at once.
func (t *Tunnel) Close() { t.close(false) }

func (t *Tunnel) close(timedOut bool) {
	if t.closed {
		return
	}
	t.closed = true
	t.limit.Stop()
	for _, s := range []*side{&t.client, &t.origin} {
		s.releasePage()
		if s.watch.Active() {
			t.o.Loop.Forget(&s.watch)
		}
		sock.Close(s.fd)
	}
	t.o.Closed(Summary{ToClient: t.client.sent, ToOrigin: t.origin.sent, TimedOut: timedOut})
}
