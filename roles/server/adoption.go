package server

import (
	"errors"
	"time"

	"trafficd/queue"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/session"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

// An adoption goes on with the connections of a dead server:
//
//	read      what the journal says, and with it which memory is in use
//	receive   the descriptors, from the dead server's keeper
//	goOn      fetches, then what follows them, then the connections to origins, and start all of it:
//	          as soon as all that is in progress has come
//	take      idle connections as they come, some at a time
//
// It may be killed anywhere: nothing in the journal changes before a connection is
// touched, and what has been received is in this process's own keeper. Owned by the goroutine that takes over.
type adoption struct {
	k        *keeping
	workers  []*worker
	slots    map[uint64]*leftover
	order    []*leftover
	joined   map[uint64]*leftover // cookies of origins' connections in tunnels
	fetches  map[custody.Name]*transaction.Resumed
	leaders  map[transaction.Identity]*transaction.Resumed
	starts   [][]func()                        // by loop
	gaps     []int                             // accepted, and nothing more
	idle     [][]*leftover                     // by loop: nothing is in progress on them, and they are still to be handed over
	idles    int                               // clients' connections of this kind
	active   bool                              // what is in progress goes on
	accused  []uint64                          // by loop: whose request the dead server was at
	held     map[*transaction.Resumed]*suspect // by the fetch that it leads
	suspects []*suspect
	told     crash.Adoption
}

// A leftover is a connection in the journal.
type leftover struct {
	loop     int
	slot     *queue.Slot
	cookie   uint64
	tag      custody.Tag
	fd       int  // -1: it has not come
	done     bool // closed
	progress queue.Progress
}

func newAdoption(k *keeping) *adoption {
	return &adoption{
		k: k, workers: k.server.workers, slots: map[uint64]*leftover{}, joined: map[uint64]*leftover{},
		fetches: map[custody.Name]*transaction.Resumed{}, leaders: map[transaction.Identity]*transaction.Resumed{},
		starts: make([][]func(), len(k.server.workers)), idle: make([][]*leftover, len(k.server.workers)),
		held: map[*transaction.Resumed]*suspect{},
	}
}

func (a *adoption) book(loop int) *custody.Book { return a.workers[loop].host.Book }

// read takes stock of the journal.
func (a *adoption) read() error {
	named := make([][]buffer.Ref, len(a.workers))
	for i, w := range a.workers {
		w.env.Book.Ledger = a.k.journal.Ledger(i)
		a.accused = append(a.accused, w.env.Book.Accused())
		for s := range w.env.Book.Ledger.All() {
			tag, _ := custody.Split(s.Word())
			l := &leftover{loop: i, slot: s, cookie: s.Cookie(), tag: tag, fd: -1}
			a.slots[l.cookie] = l
			a.order = append(a.order, l)
			if tag == custody.Tunnel {
				a.joined[tunnel.Origin(w.env.Book, s)] = l
			}
		}
	}
	for _, l := range a.order {
		if a.joined[l.cookie] != nil {
			l.tag = custody.Nothing // what its own slot says is from before
			continue
		}
		a.pages(l, func(r buffer.Ref) { named[l.loop] = append(named[l.loop], r) }, func(n custody.Name) {
			if _, known := a.fetches[n]; known || int(n.Loop) >= len(a.workers) {
				return
			}
			if transaction.FetchPages(a.workers[n.Loop].env.Arena, n, func(r buffer.Ref) { named[n.Loop] = append(named[n.Loop], r) }) {
				a.fetches[n] = nil
			}
		})
	}
	for i, w := range a.workers {
		if err := w.env.Arena.Reserve(named[i]); err != nil {
			return err
		}
	}
	return nil
}

// forsake gives up everything that is in the journal.
func (a *adoption) forsake() {
	for _, l := range a.order {
		a.book(l.loop).Ledger.Close(l.slot)
		a.tell(l, crash.Connection{Kind: crash.Client, State: crash.Nowhere, Outcome: crash.Lost, Why: "the journal cannot be trusted"})
	}
	a.order = nil
	clear(a.slots)
	clear(a.joined)
	clear(a.fetches)
}

// pages tells what the record of a connection names, and where it lies itself.
func (a *adoption) pages(l *leftover, page func(buffer.Ref), fetch func(custody.Name)) {
	b := a.book(l.loop)
	if l.tag != custody.Nothing {
		_, ref := custody.Split(l.slot.Word())
		page(ref)
	}
	switch l.tag {
	case custody.Session:
		session.Pages(b, l.slot, page, fetch)
	case custody.Exchange:
		origin.Pages(b, l.slot, page)
		name, _ := origin.Token(b, l.slot)
		fetch(name)
	case custody.Tunnel:
		tunnel.Pages(b, l.slot, page)
	}
}

// custodyPatience is how long a keeper may take for its next message.
const custodyPatience = 5 * time.Second

// receive takes the descriptors out of custody.
func (a *adoption) receive() error {
	senders := a.k.journal.Outstanding()
	if len(senders) == 0 {
		return nil
	}
	c, err := queue.ReceiveCustody(a.k.out, queue.CustodyOptions{Senders: senders, Timeout: custodyPatience})
	if err != nil {
		return err
	}
	for k := range c.All() {
		if !a.active && c.First() && a.complete() {
			a.goOn()
		}
		a.take(k)
	}
	// A predecessor that received an END and died has made this keeper's missing; whether anything is, the
	// slots tell.
	var incomplete *queue.IncompleteError
	if err := c.Err(); err != nil && !errors.As(err, &incomplete) {
		return err
	}
	return nil
}

// take takes one descriptor.
func (a *adoption) take(k queue.Kept) {
	l := a.slots[k.Cookie]
	if l == nil {
		// Without a slot: it was accepted and not read from, or it was being closed.
		p, err := queue.ReadProgress(k.FD, queue.Passive)
		if err == nil && p.Written == 0 && p.Consumed == 0 && !p.State.WeDone() {
			a.gaps = append(a.gaps, k.FD)
			return
		}
		sock.Close(k.FD)
		return
	}
	l.fd = k.FD
	if !a.atRest(l) {
		return
	}
	a.idle[l.loop] = append(a.idle[l.loop], l)
	if l.slot.Kind() == custody.Client {
		a.idles++
	}
	if a.active && len(a.idle[l.loop]) >= idleChunk {
		a.goOnIdle(l.loop)
	}
}

// atRest reports whether nothing is in progress on a connection.
func (a *adoption) atRest(l *leftover) bool {
	return l.tag == custody.Nothing && a.joined[l.cookie] == nil
}

// complete reports whether every connection that something is in progress on has come.
func (a *adoption) complete() bool {
	for _, l := range a.order {
		if l.fd < 0 && !a.atRest(l) {
			return false
		}
	}
	return true
}

// goOn restores what is in progress while the loops stand still, and starts it.
func (a *adoption) goOn() {
	a.active = true
	thaw := a.k.server.freeze()
	a.resumeFetches()
	a.settle()
	a.resumeSessions()
	a.resumeExchanges()
	a.resumeTunnels()
	if a.k.before.PID != 0 && !a.k.before.Asked {
		a.workers[0].row.Inc(stats.CrashesMasked)
	}
	if a.k.server.store != nil {
		// The dead server's loops are dead, and what they were sending is pinned by those who send it now.
		a.k.server.store.EndHold()
	}
	thaw()
	a.start()
	for _, who := range a.suspects {
		go who.judge()
	}
	for loop := range a.idle {
		a.goOnIdle(loop)
	}
}

// start has the loops do what is in starts.
func (a *adoption) start() {
	for i, w := range a.workers {
		starts := a.starts[i]
		a.starts[i] = nil
		w.loop.Post(func() {
			for _, start := range starts {
				start()
				queue.Killpoint(custody.StepAdopted)
			}
		})
	}
}

// finish goes on with what is left when the last descriptor has come, and gives up what has
// not.
func (a *adoption) finish() {
	if !a.active {
		a.goOn()
	}
	var missing []*leftover
	for _, l := range a.order {
		if l.fd < 0 && !l.done {
			missing = append(missing, l)
		}
	}
	if len(missing) > 0 {
		thaw := a.k.server.freeze()
		for _, l := range missing {
			a.lose(l, "its descriptor never came")
		}
		thaw()
		a.start()
	}
	for loop := range a.idle {
		a.goOnIdle(loop)
	}
	for i, fd := range a.gaps {
		a.told.Add(crash.Connection{Kind: crash.Client, State: crash.AcceptGap, Outcome: crash.Resumed})
		w := a.workers[i%len(a.workers)]
		w.loop.Post(func() { w.serve(fd, sock.Peer(fd)) })
	}
	queue.Killpoint(custody.StepServing)
}

// idleChunk is how many idle connections a loop takes in one turn: what is in progress goes on in
// between.
const idleChunk = 64

// goOnIdle hands the idle connections of a loop over to it; those to origins are closed.
func (a *adoption) goOnIdle(loop int) {
	w, chunk := a.workers[loop], a.idle[loop]
	a.idle[loop] = nil
	for len(chunk) > 0 {
		n := min(len(chunk), idleChunk)
		some := chunk[:n]
		chunk = chunk[n:]
		w.loop.Post(func() {
			for _, l := range some {
				w.resumeIdle(l)
			}
		})
	}
}

func (w *worker) resumeIdle(l *leftover) {
	if l.slot.Kind() != custody.Client {
		w.host.Book.Ledger.Close(l.slot)
		sock.Close(l.fd)
		return
	}
	w.row.Inc(stats.ClientConnectionsCurrent)
	w.row.Inc(stats.ConnectionsAdopted)
	w.host.ResumeIdle(l.fd, l.slot)
}

// resumeFetches makes the fetches and finds out who leads them.
func (a *adoption) resumeFetches() {
	for name := range a.fetches {
		f, ok := a.workers[name.Loop].env.ResumeFetch(name)
		if !ok {
			delete(a.fetches, name)
			continue
		}
		a.fetches[name] = f
		if c := f.Leader(); c.Conn != 0 {
			a.leaders[c] = f
		}
	}
	for _, l := range a.order {
		if l.tag != custody.Exchange {
			continue
		}
		f := a.carried(l)
		if f == nil || f.Over() {
			continue
		}
		f.Sent()
		if l.fd >= 0 && a.measure(l, queue.Active) {
			f.Link()
		}
	}
}

// carried is the fetch whose request a connection to an origin carries; nil: none any more.
func (a *adoption) carried(l *leftover) *transaction.Resumed {
	name, attempt := origin.Token(a.book(l.loop), l.slot)
	if f := a.fetches[name]; f != nil && f.Attempt() == attempt {
		return f
	}
	return nil
}

// measure asks how far a connection got. False: it is over.
func (a *adoption) measure(l *leftover, side queue.Side) bool {
	var err error
	l.progress, err = queue.ReadProgress(l.fd, side)
	return err == nil
}

// measureTunnel is measure for both ends of a tunnel. One that has ended in both directions may still have to be
// read from.
func (a *adoption) measureTunnel(l, o *leftover) bool {
	client, origin := tunnel.Shut(a.book(l.loop), l.slot)
	for _, end := range []struct {
		l    *leftover
		side queue.Side
		shut bool
	}{{l, queue.Passive, client}, {o, queue.Active, origin}} {
		read := queue.ReadProgress
		if end.shut {
			read = queue.ReadEnded
		}
		var err error
		if end.l.progress, err = read(end.l.fd, end.side); err != nil {
			return false
		}
	}
	return true
}

// resumeSessions goes on with what clients have asked for.
func (a *adoption) resumeSessions() {
	for _, l := range a.order {
		switch host := a.workers[l.loop].host; l.tag {
		case custody.Session:
			host.Acknowledge(l.slot)
		case custody.Tunnel:
			host.AcknowledgeTunnel(l.slot)
		}
	}
	for _, l := range a.order {
		if l.tag != custody.Session || l.fd < 0 || l.done {
			continue
		}
		if !a.measure(l, queue.Passive) {
			a.gone(l) // the client has gone
			a.drop(l)
			continue
		}
		w := a.workers[l.loop]
		w.host.Book.Work(l.cookie)
		r, err := w.host.Resume(session.Left{
			FD: l.fd, Peer: sock.Peer(l.fd), Slot: l.slot, Progress: l.progress, Blame: a.blame(l), Lead: a.lead,
			Fetch: func(n custody.Name) *transaction.Resumed { return a.fetches[n] },
		})
		if err != nil {
			a.lose(l, err.Error())
			continue
		}
		w.row.Inc(stats.ClientConnectionsCurrent)
		a.note(l, r.Fate)
		if who := a.suspect(l, r); who != nil {
			if r.Lead != nil {
				a.held[r.Lead] = who
			}
			continue
		}
		a.starts[l.loop] = append(a.starts[l.loop], r.Start)
	}
}

// lead finds the fetch that sends a request, and that the request goes on with.
func (a *adoption) lead(id transaction.Identity) *transaction.Resumed {
	if f := a.leaders[id]; f != nil && f.Leads() {
		return f
	}
	return nil
}

// resumeExchanges goes on with the connections to origins, once it is known who waits for them.
func (a *adoption) resumeExchanges() {
	for _, l := range a.order {
		if l.tag != custody.Exchange || l.fd < 0 || l.done {
			continue
		}
		f := a.carried(l)
		if f == nil || !f.Linked() {
			a.dropLater(l, a.held[f])
			continue
		}
		c, err := a.workers[l.loop].env.Origins.Resume(l.fd, l.slot, l.progress, f.Exchange())
		if err != nil {
			f.Unlink()
			a.lose(l, err.Error())
			continue
		}
		a.workers[l.loop].row.Inc(stats.OriginConnectionsCurrent)
		a.later(l, a.held[f], c.Start)
	}
}

// later has something done about a connection to an origin when the sessions go on; with who, the suspect whose request it
// carries, when that one is judged.
func (a *adoption) later(l *leftover, who *suspect, do func()) {
	starts := &a.starts[l.loop]
	if who != nil {
		starts = &who.starts
	}
	*starts = append(*starts, do)
}

// resumeTunnels goes on with connections that have left HTTP.
func (a *adoption) resumeTunnels() {
	for cookie, l := range a.joined {
		o := a.slots[cookie]
		switch {
		case l.fd < 0 || o == nil || o.fd < 0:
			a.lose(l, "one of its two descriptors never came")
			if o != nil {
				a.drop(o)
			}
			continue
		case !a.measureTunnel(l, o):
			a.gone(l)
			a.drop(l)
			a.drop(o)
			continue
		}
		w := a.workers[l.loop]
		r, ok := w.host.ResumeTunnel(
			tunnel.End{FD: l.fd, Slot: l.slot, Rx: l.progress.Consumed, Tx: l.progress.Written},
			tunnel.End{FD: o.fd, Slot: o.slot, Rx: o.progress.Consumed, Tx: o.progress.Written}, sock.Peer(l.fd))
		if !ok {
			a.tell(l, crash.Connection{Kind: crash.Tunnel, State: crash.Tunnelling, Outcome: crash.Lost, Why: "its two connections do not fit its record"})
			continue
		}
		w.row.Inc(stats.ClientConnectionsCurrent)
		w.row.Inc(stats.TunnelsCurrent)
		a.note(l, r.Fate)
		a.starts[l.loop] = append(a.starts[l.loop], r.StartTunnel)
	}
}

// settle has what cannot go on ended: before anything of a loop starts.
func (a *adoption) settle() {
	for name, f := range a.fetches {
		a.starts[name.Loop] = append(a.starts[name.Loop], f.Settle)
	}
}

// dropLater is drop for a connection to an origin, when what becomes of its request has been noted (settle, and the session
// that waits for it): until then only the connection's record says that the request was sent, and must not be sent again.
func (a *adoption) dropLater(l *leftover, who *suspect) {
	l.done = true
	a.later(l, who, func() { a.release(l) })
}

// drop closes a connection, and gives back what its record names.
func (a *adoption) drop(l *leftover) {
	l.done = true
	a.release(l)
}

// release is the work of drop. The loop stands still, or it is its own work.
func (a *adoption) release(l *leftover) {
	b := a.book(l.loop)
	var refs []buffer.Ref
	a.pages(l, func(r buffer.Ref) { refs = append(refs, r) }, func(custody.Name) {})
	b.Ledger.Close(l.slot)
	for _, r := range refs {
		b.Arena.Put(r)
	}
	if l.fd >= 0 {
		sock.Close(l.fd)
	}
}

// gone logs the request of a connection that does not go on.
func (a *adoption) gone(l *leftover) {
	left := session.Left{Slot: l.slot, Progress: l.progress}
	switch host := a.workers[l.loop].host; l.tag {
	case custody.Session:
		host.Gone(left)
	case custody.Tunnel:
		host.GoneTunnel(left)
	}
}
