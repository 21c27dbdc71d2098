package server

import (
	"fmt"
	"net/netip"

	"trafficd/eventloop"
	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/session"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
)

// A worker is one event loop and all that is its own.
type worker struct {
	server *Server // immutable
	index  int     // immutable
	loop   *eventloop.Loop
	row    *stats.Row
	env    *transaction.Env
	host   *session.Host

	// Owned by the loop.
	acceptors []*acceptor
	paused    bool // too many connections: not accepting for now
	limit     int  // connections of this loop
	// descriptors bounds them together with those to origins. crowded: one of the two is reached.
	descriptors int
	crowded     bool
}

// An acceptor is one listener as one loop sees it.
type acceptor struct {
	worker *worker
	fd     int
	watch  eventloop.Watch
	resume eventloop.Timer
}

// newWorker makes the worker of loop i. The loop does not run yet.
func (s *Server) newWorker(i int, loop *eventloop.Loop) (*worker, error) {
	arena, err := s.arena(i)
	if err != nil {
		return nil, fmt.Errorf("loop %d: %w", i, err)
	}
	w := &worker{server: s, index: i, loop: loop, row: s.bank.Row(i)}
	var book *custody.Book // its ledger comes with the take-over
	if s.custody != nil {
		book = custody.NewBook(s.custody.journal, i, arena, s.custody.busy)
	}
	w.env = &transaction.Env{
		Loop:     loop,
		Arena:    arena,
		Store:    s.store,
		Flights:  s.flights,
		Purges:   s.purges,
		Origins:  origin.NewPool(loop, arena, book, s.resolver, &originCounters{row: w.row, log: s.log, loop: loop}),
		Parents:  s.parents,
		Stats:    w.row,
		Settings: &s.settings,
		Book:     book,

		Generation: s.generation,
		Hook:       s.hook(),
	}
	if s.store != nil {
		w.env.Cache = s.store.Arena()
	}
	w.host = &session.Host{
		Loop:   loop,
		Arena:  arena,
		Book:   book,
		Env:    w.env,
		Stats:  clientCounters{w.row},
		Closed: w.sessionClosed,
		Left:   s.clients.leave,
	}
	return w, nil
}

// configure takes over a configuration. It runs on the loop, or before it runs.
func (w *worker) configure(c *config.Config) {
	head := http1.Limits{
		RequestLine: int(c.Limits.RequestLine),
		Head:        min(int(c.Limits.HeaderSize), buffer.Large),
		Fields:      c.Limits.HeaderFields,
	}
	w.host.Limits = &session.Limits{
		Head:   head,
		Header: c.Timeouts.ClientHeader,
		Idle:   c.Timeouts.ClientIdle,
		Body:   session.Pace{Window: c.Timeouts.ClientBody, Rate: c.Limits.MinBodyRate},
		Write:  session.Pace{Window: c.Timeouts.ClientWrite, Rate: c.Limits.MinSendRate},
		Tunnel: c.Timeouts.TunnelIdle,

		Untaken: c.Limits.Untaken,
	}
	w.env.Origins.SetLimits(origin.Limits{
		Connect:  c.Timeouts.OriginConnect,
		Wait:     c.Origin.MaxWait,
		Response: c.Timeouts.OriginResponse,
		Body:     c.Timeouts.OriginBody,
		Total:    c.Timeouts.OriginTotal,
		Idle:     c.Timeouts.OriginIdle,
		MaxIdle:  c.Origin.MaxIdle,
		Untaken:  c.Limits.Untaken,
		Bound:    c.Origin.MaxConnections,
		Head:     head,
	})
	w.limit = w.server.connectionsPerLoop(c)
	w.descriptors = max(descriptors()/len(w.server.workers), 1)
	w.server.clients.configure(c, w.limit*len(w.server.workers))
	w.useAccessLog()
}

// acceptOn begins to accept from a listener.
func (w *worker) acceptOn(fd int) error {
	a := &acceptor{worker: w, fd: fd}
	a.resume.Init(w.loop, eventloop.TimerFunc(func(*eventloop.Timer) { w.resumeAccepting() }))
	if err := a.listen(); err != nil {
		return err
	}
	w.acceptors = append(w.acceptors, a)
	return nil
}

// listen watches the listener. Of several loops that wait for it the kernel
// wakes one (EPOLLEXCLUSIVE).
func (a *acceptor) listen() error {
	ev := eventloop.Readable
	if len(a.worker.server.workers) > 1 {
		ev |= eventloop.Exclusive
	}
	return a.worker.loop.Watch(&a.watch, a.fd, ev, a)
}

// acceptBatch bounds how many connections one event accepts, so that loops
// share a burst and those that are served already are not kept waiting.
const acceptBatch = 16

// HandleEvent implements eventloop.Handler.
func (a *acceptor) HandleEvent(*eventloop.Watch, eventloop.Event) {
	w := a.worker
	for range acceptBatch {
		if w.paused {
			return
		}
		fd, peer, errno := sock.Accept(a.fd)
		switch {
		case errno == sock.Again:
			return
		case errno == 0:
			w.serve(fd, peer)
		case transientAcceptError(errno):
		default:
			// Out of descriptors or memory: the connections wait in the kernel
			// until there are some again.
			w.row.Inc(stats.ClientRejected)
			if !w.makeRoom() {
				w.pauseAccepting()
				return
			}
		}
	}
}

// serve makes a session of an accepted connection.
func (w *worker) serve(fd int, peer netip.AddrPort) {
	w.row.Inc(stats.ClientConnections)
	among, ok := w.server.clients.enter(peer.Addr())
	if !ok {
		w.row.Inc(stats.ClientOverLimit)
		sock.ResetOnClose(fd)
		sock.Close(fd)
		return
	}
	w.row.Inc(stats.ClientConnectionsCurrent)
	w.host.Serve(fd, peer, among)
	if w.full() && !(w.allFull() && w.makeRoom()) {
		w.pauseAccepting()
	}
}

// takeQueue serves what the manager has queued, oldest first. It runs before
// anything newer is accepted.
func (w *worker) takeQueue(f *queue.FIFO) (n int) {
	for {
		_, fd, err := f.Take()
		if err != nil {
			return n
		}
		n++
		w.row.Inc(stats.QueueHandedOver)
		w.serve(fd, sock.Peer(fd))
	}
}

func (w *worker) sessionClosed() {
	w.row.Dec(stats.ClientConnectionsCurrent)
	if w.paused && w.roomy() {
		w.resumeAccepting()
	}
}

func (w *worker) pauseAccepting() {
	if w.paused {
		return
	}
	w.paused = true
	for _, a := range w.acceptors {
		a.stop()
		a.resume.Reset(lookAgain)
	}
}

func (w *worker) resumeAccepting() {
	if !w.paused || w.host.Draining {
		return
	}
	if w.full() && !(w.allFull() && w.makeRoom()) {
		for _, a := range w.acceptors {
			a.resume.Reset(lookAgain)
		}
		return
	}
	if !w.paused {
		return // what was closed to make room has resumed
	}
	w.paused = false
	for _, a := range w.acceptors {
		if err := a.listen(); err != nil {
			w.pauseAccepting() // those that listen by now, too: they begin together
			return
		}
	}
}

func (a *acceptor) stop() {
	if a.watch.Active() {
		if err := a.worker.loop.Remove(&a.watch); err != nil {
			panic("server: stop watching a listener: " + err.Error())
		}
	}
}

// stopAccepting ends accepting for good.
func (w *worker) stopAccepting() {
	for _, a := range w.acceptors {
		a.stop()
		a.resume.Stop()
	}
	w.acceptors = nil
}
