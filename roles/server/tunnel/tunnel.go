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
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/deadline"
	"trafficd/roles/server/sock"
)

// Options of a tunnel. All fields are needed.
type Options struct {
	Loop  *eventloop.Loop
	Arena *buffer.Arena
	Book  *custody.Book // nil: the tunnel ends with this process
	Idle  time.Duration // without a byte either way; 0: no limit
	// Keep is a page of the owner's that lives as long as the tunnel, over deaths, too; 0: none.
	Keep buffer.Ref
	// Ending is called at the end, before anything is given up, with that page; nil: nobody wants to know.
	Ending func(s Summary, keep buffer.Ref)
	// Closed is called once, after both descriptors have been closed.
	Closed func(s Summary)
}

// A Summary says what a tunnel did.
type Summary struct {
	ToClient, ToOrigin int64 // bytes that this process moved
	TimedOut           bool

	ClientRx, ClientTx uint64 // bytes consumed from the client and written to it since its connection began
}

// An End is one of the two connections, as it comes to the tunnel.
type End struct {
	FD     int
	Slot   *queue.Slot // nil: not in custody
	Rx, Tx uint64      // bytes consumed and written so far
}

// A Tunnel is two joined connections. Owned by its loop.
type Tunnel struct {
	o      Options
	limit  deadline.Deadline
	client side
	origin side
	entry  custody.Entry[record] // in the client's slot
	closed bool
	turn   bool // another turn has been posted
}

// side is one connection and the bytes on their way to it.
type side struct {
	t     *Tunnel
	fd    int
	watch eventloop.Watch
	slot  *queue.Slot // the origin's; the client's is the tunnel's entry
	page  buffer.Ref
	lo    int
	hi    int
	base  uint64 // number in the other side's stream of the page's first byte
	first uint64 // number in this side's stream of the same byte
	rx    uint64 // bytes consumed from this side
	tx    uint64 // and written to it
	sent  int64
	// eof: the other side has ended; shut: this side has been told so.
	eof, shut bool
}

// turnReads bounds how much one turn reads for one direction, in pages.
const turnReads = 16

// Join joins two non-blocking connections; both descriptors and slots are the tunnel's
// from now on. toClient and toOrigin are sent first. Once it returns, nothing that was noted of the two
// connections before is needed any more. Start begins to move bytes.
func Join(o Options, client, origin End, toClient, toOrigin []byte) *Tunnel {
	t := newTunnel(o, client, origin)
	sock.KeepAlive(client.FD)
	sock.KeepAlive(origin.FD)
	if !t.client.preload(&t.origin, toClient) || !t.origin.preload(&t.client, toOrigin) {
		t.close(false)
		return t
	}
	if client.Slot == nil || origin.Slot == nil {
		t.leaveCustody()
		return t
	}
	t.note(custody.StepTunnel)
	t.origin.slot.Set(0)
	return t
}

func newTunnel(o Options, client, origin End) *Tunnel {
	t := &Tunnel{o: o}
	t.client = side{t: t, fd: client.FD, rx: client.Rx, tx: client.Tx}
	t.origin = side{t: t, fd: origin.FD, rx: origin.Rx, tx: origin.Tx, slot: origin.Slot}
	t.entry.Slot, t.entry.FD = client.Slot, client.FD
	t.limit.Init(o.Loop, func() { t.close(true) })
	return t
}

// Start begins to move bytes. A tunnel of which what is to be sent first did not fit into a page is
// closed already; so is one that cannot be watched.
func (t *Tunnel) Start() {
	if t.closed {
		return
	}
	if err := t.watch(); err != nil {
		t.close(false)
		return
	}
	t.limit.Set(t.o.Idle)
	t.run()
}

func (t *Tunnel) watch() error {
	const all = eventloop.Readable | eventloop.Writable | eventloop.Hangup | eventloop.Edge
	if err := t.o.Loop.Watch(&t.client.watch, t.client.fd, all, &t.client); err != nil {
		return err
	}
	return t.o.Loop.Watch(&t.origin.watch, t.origin.fd, all, &t.origin)
}

func (s *side) preload(from *side, p []byte) bool {
	if len(p) == 0 {
		return true
	}
	ref, ok := s.t.o.Arena.GetLarge()
	if !ok {
		return false
	}
	s.page, s.lo, s.hi = ref, 0, copy(s.t.o.Arena.Bytes(ref), p)
	// As if these bytes had been the last that came from there.
	s.base, s.first = from.rx-uint64(s.hi), s.tx
	return s.hi == len(p)
}

// emptyPage sees to it that there is a page with room at its end. Nothing is in flight.
func (s *side) emptyPage(from *side) bool {
	if s.page != 0 && s.hi < buffer.Large {
		return true
	}
	if s.page == 0 {
		ref, ok := s.t.o.Arena.GetLarge()
		if !ok {
			return false
		}
		s.page = ref
	}
	s.lo, s.hi, s.base, s.first = 0, 0, from.rx, s.tx
	s.t.note(custody.StepFlow)
	return true
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
			queue.Killpoint(custody.StepMoved)
			s.lo += n
			s.tx += uint64(n)
			s.sent += int64(n)
			continue
		}
		if s.eof {
			s.finish()
			return quiet
		}
		if !s.emptyPage(from) {
			return dead
		}
		n, errno := sock.Recv(from.fd, s.t.o.Arena.Bytes(s.page)[s.hi:])
		switch {
		case errno == sock.Again:
			s.releasePage()
			return quiet
		case errno != 0:
			return dead
		}
		queue.Killpoint(custody.StepMoved)
		s.hi += n
		from.rx += uint64(n)
		s.eof = n == 0
	}
	return busy
}

// finish passes the end of a direction on.
func (s *side) finish() {
	s.releasePage()
	if !s.shut {
		s.shut = true
		s.t.note(custody.StepFlow)
		sock.ShutdownWrite(s.fd)
	}
}

func (s *side) releasePage() {
	if s.page == 0 {
		return
	}
	ref := s.page
	s.page, s.lo, s.hi = 0, 0, 0
	s.t.note(custody.StepFlow)
	s.t.o.Arena.Put(ref)
}

// Close ends the tunnel at once.
func (t *Tunnel) Close() { t.close(false) }

func (t *Tunnel) close(timedOut bool) {
	if t.closed {
		return
	}
	t.closed = true
	t.limit.Stop()
	sum := Summary{
		ToClient: t.client.sent, ToOrigin: t.origin.sent, TimedOut: timedOut, ClientRx: t.client.rx, ClientTx: t.client.tx,
	}
	if t.o.Ending != nil {
		t.o.Ending(sum, t.o.Keep)
	}
	t.leaveCustody()
	t.o.Arena.Put(t.o.Keep)
	t.o.Keep = 0
	for _, s := range []*side{&t.client, &t.origin} {
		s.releasePage()
		if s.watch.Active() {
			t.o.Loop.Forget(&s.watch)
		}
		sock.Close(s.fd)
	}
	t.o.Closed(sum)
}
