package session

import (
	"fmt"
	"net/netip"
	"slices"

	"trafficd/queue"
	"trafficd/roles/internal/crash"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

// A Left is a client's connection as a dead server left it.
type Left struct {
	FD       int
	Peer     netip.AddrPort
	Slot     *queue.Slot
	Progress queue.Progress
	// Fetch finds the fetch that a record names; nil: there is none any more.
	Fetch func(custody.Name) *transaction.Resumed
	// Blame is the generation that died while it worked on this connection's request; 0: it did not.
	Blame uint64
	// Lead finds the fetch that sends a request; nil: none does, and it begins anew.
	Lead func(transaction.Identity) *transaction.Resumed
}

// A Resumed is a session that goes on. Start is called once on its loop.
type Resumed struct {
	s    *Session
	Fate Fate
	Lead *transaction.Resumed // the fetch that sends its request; nil: none
}

// Fate is what was found of a connection.
type Fate struct {
	State   crash.State // what it was doing
	Request string      // method and target, of a request in progress
	Sent    uint64      // bytes of the reply that are sent
	Taken   uint64      // bytes of the request's body that were taken
}

// ResumeIdle makes the session of a connection on which nothing is in progress, and begins to
// wait for it. What has come meanwhile is reported at once, so nothing is asked of the socket.
func (h *Host) ResumeIdle(fd int, slot *queue.Slot) {
	if h.addDormant(fd, slot) == nil {
		return
	}
	s := h.takeSession()
	s.fd, s.served = fd, 1
	s.entry.Slot, s.entry.FD = slot, fd
	h.sessions.push(s)
	s.abort()
}

// Resume makes the session of a connection that something is in progress on. An error says
// why it cannot go on; then slot and descriptor stay the caller's. It may be called
// before the loop runs; Start then begins.
func (h *Host) Resume(l Left) (*Resumed, error) {
	entry, r := custody.Resume[record](h.Book, l.FD, l.Slot)
	if l.Blame != 0 {
		r.blamed.add(l.Blame)
		entry.Commit(h.Book, custody.Session, &r, custody.StepBlame) // before it can do it again
	}
	s := h.takeSession()
	s.fd, s.peer, s.readable = l.FD, l.Peer, true
	s.rx, s.tx, s.counted = l.Progress.Consumed, l.Progress.Written, true
	s.served = 1
	s.blamed = r.blamed
	f := &Resumed{s: s}
	s.entry = entry
	err := s.restore(&r, &l, f)
	if err != nil {
		s.entry = custody.Entry[record]{} // the slot stays the caller's
		if s.work != nil {
			s.work.out, s.work.page = 0, 0 // the slot still names them
			s.endWork()
		}
		s.in = 0
		h.putSession(s)
		return nil, err
	}
	s.waits = f
	h.sessions.push(s)
	return f, nil
}

// restore takes over what the record says.
func (s *Session) restore(r *record, l *Left, f *Resumed) error {
	fate := &f.Fate
	if r.state == recordLingering {
		s.phase, fate.State = phaseLingering, crash.Closing
		return nil
	}
	s.in, s.base, s.lo = r.in, r.base, int(r.at)
	if s.in == 0 {
		return fmt.Errorf("its record names no page")
	}
	s.hi = int(s.rx - r.base)
	if r.page != 0 {
		s.hi = int(r.inHi)
	}
	if size := len(s.host.Arena.Bytes(s.in)); s.hi < s.lo || s.hi > size {
		return fmt.Errorf("bytes %d to %d of its page of %d", s.lo, s.hi, size)
	}
	if !r.flags.Has(flagRefused) {
		f.Lead = l.Lead(s.identify(r))
	}
	if r.state == recordHead && f.Lead == nil {
		s.phase, fate.State = phaseHead, crash.PartialHead
		if s.lo == s.hi {
			s.phase, fate.State = phaseIdle, crash.Idle
		}
		return nil
	}
	return s.restoreWork(r, l, f)
}

// identify says which request the record is about.
func (s *Session) identify(r *record) transaction.Identity {
	at := s.lo
	if r.state == recordHead {
		at += http1.SkipEmptyLines(s.host.Arena.Bytes(s.in)[s.lo:s.hi])
	}
	return transaction.Identity{Conn: s.entry.Cookie(), Request: s.base + uint64(at)}
}

// restoreWork takes over a request in progress.
func (s *Session) restoreWork(r *record, l *Left, f *Resumed) error {
	fate := &f.Fate
	w := s.host.takeWork()
	s.work = w
	s.phase, fate.State = phaseAnswering, crash.Waiting
	head, err := s.parseAgain(r)
	if err != nil {
		return err
	}
	s.restoreTale(r)
	if !r.flags.Has(flagRefused) {
		fate.Request = string(w.req.MethodName.In(head)) + " " + string(w.req.Target.In(head))
	}
	if r.state == recordHead {
		w.at = s.lo
		s.lo += w.req.HeadLen
		s.startBody()
	} else if err := s.restoreBody(r); err != nil {
		return err
	}
	if w.framing != noBody && w.framing != endedBody {
		fate.State = crash.Upload
	}
	fate.Taken = w.taken
	if r.out != 0 {
		w.out, w.outHi, w.outTx = r.out, int(r.outLen), r.outTx
		w.outLo = int(min(s.tx-r.outTx, uint64(r.outLen)))
		if s.tx < r.outTx {
			return fmt.Errorf("%d bytes were written where its reply begins with number %d", s.tx, r.outTx)
		}
	}
	if r.state == recordReplying {
		return s.restoreReply(r, l, head, f)
	}
	if f.Lead != nil {
		w.txn.Lead(s.host.Env, s, &w.req, head, f.Lead)
	}
	return nil
}

// parseAgain parses the request's head once more.
func (s *Session) parseAgain(r *record) ([]byte, error) {
	if r.flags.Has(flagRefused) {
		return nil, nil
	}
	w := s.work
	b := s.host.Arena.Bytes(s.in)[r.at:s.hi]
	if r.state == recordHead {
		s.lo += http1.SkipEmptyLines(b)
		b = b[http1.SkipEmptyLines(b):]
	}
	if err := w.req.Parse(b, &s.host.Limits.Head); err != nil {
		return nil, fmt.Errorf("its request cannot be parsed again: %w", err)
	}
	return b[:w.req.HeadLen], nil
}

func (s *Session) restoreBody(r *record) error {
	w := s.work
	w.at, w.interims = int(r.at), int(r.interims)
	w.framing, w.left, w.chunks = r.framing, r.left, r.chunks
	w.data, w.taken, w.dropped = int(r.data), r.taken, r.dropped
	w.page, w.pageBase = r.page, r.pageBase
	w.close = r.flags.Has(flagClose) || w.req.Close
	w.expect, w.failed, w.refused = r.flags.Has(flagExpect), r.flags.Has(flagFailed), r.flags.Has(flagRefused)
	if w.page == 0 {
		s.lo = int(r.next - s.base)
	} else {
		s.lo = s.hi
		w.pageLo, w.pageHi = int(r.next-w.pageBase), int(s.rx-w.pageBase)
	}
	if s.lo > s.hi || w.pageLo > w.pageHi || w.pageHi > len(s.host.Arena.Bytes(w.page)) {
		return fmt.Errorf("its body does not lie where its record says")
	}
	return nil
}

// restoreReply goes on with a reply, of which the kernel has so many bytes.
func (s *Session) restoreReply(r *record, l *Left, head []byte, f *Resumed) error {
	w, fate := s.work, &f.Fate
	fate.State = crash.PartlyAnswered
	fate.Sent = s.tx - r.outTx
	w.from, w.off, w.end = r.from, r.from, r.end
	w.chunked, w.lastSent, w.untilClose = r.flags.Has(flagChunked), r.flags.Has(flagLastSent), r.flags.Has(flagUntilClose)
	if r.flags.Has(flagTail) {
		w.tail = len(crlf)
	}
	body := fate.Sent - min(fate.Sent, uint64(r.outLen))
	run := body
	if w.end >= 0 {
		run = min(body, uint64(w.end-w.off))
	}
	w.off += int64(run)
	if rest := int(body - run); rest > w.tail {
		return fmt.Errorf("%d bytes more were sent than its reply has", rest-w.tail)
	}
	w.tail -= int(body - run)
	var from *transaction.Resumed
	if r.source == fetchSource {
		if from = l.Fetch(r.fetch); from == nil {
			return fmt.Errorf("what it was being sent is gone")
		}
	}
	if !w.txn.ResumeReply(s.host.Env, s, &w.req, head, int(r.status), r.object, from, from != nil && from == f.Lead, w.off) {
		return fmt.Errorf("what it was being sent is no longer in the cache")
	}
	w.reply, w.rendered = w.txn.Reply(), true
	w.txn.Recall(r.tale.outcome())
	if w.finished() {
		fate.State = crash.Answered
	}
	return nil
}

// Suspect returns the generations that died while they worked on the request, if that has happened
// more than once.
func (r *Resumed) Suspect() []uint64 {
	if n := r.s.blamed.count(); n > 1 {
		return slices.Clone(r.s.blamed[:n]) // the session may be another one's by the time it is looked at
	}
	return nil
}

// Acquit takes the blame off the request for deaths that were not its doing. It runs on the loop, before Start.
func (r *Resumed) Acquit(generations []uint64) {
	if r.s.waits == r {
		r.s.blamed.remove(generations)
	}
}

// here ends the wait. It reports whether the session is still there: one that waits long may have been
// ended meanwhile, and be another connection's by now.
func (r *Resumed) here() bool {
	if r.s.waits != r {
		return false
	}
	r.s.waits = nil
	return r.s.phase != phaseClosed
}

// Condemn fails the request, and nothing else, instead of going on with it: it runs on the loop in place of Start.
func (r *Resumed) Condemn() {
	s := r.s
	if !r.here() {
		return
	}
	if s.phase != phaseAnswering && s.phase != phaseHead || s.work != nil && s.work.rendered {
		s.abort() // its reply has begun: it can only be cut
		return
	}
	if s.work != nil {
		if !s.restAhead() {
			return
		}
		s.giveUp()
	}
	s.refuse(&http1.Error{Status: 502, Reason: "the server died of this request, and did so again"})
	s.run()
	if s.phase != phaseClosed {
		s.listen()
	}
}

// Start goes on with the session. It runs on the loop.
func (r *Resumed) Start() {
	s := r.s
	if !r.here() {
		return
	}
	limits := s.host.Limits
	switch s.phase {
	case phaseIdle:
		s.limit.Set(limits.Idle)
	case phaseHead:
		s.limit.Set(limits.Header)
		s.run()
	case phaseLingering:
		sock.ShutdownWrite(s.fd)
		s.limit.Set(lingerTime)
	case phaseAnswering:
		if !s.startAnswer() {
			return
		}
	}
	if s.phase != phaseClosed && s.phase != phaseTunnel {
		s.listen()
	}
}

// startAnswer goes on with a request in progress. It reports whether the session is still one.
func (s *Session) startAnswer() bool {
	w := s.work
	if !s.restAhead() {
		return false
	}
	switch {
	case w.reply == nil && w.txn.Idle() && (w.refused || w.taken > w.dropped):
		// It was given up, or what was taken went to an origin that is gone: it must not be sent twice.
		s.refuse(&http1.Error{Status: 502, Reason: "the connection to the origin broke"})
	case w.reply == nil && w.txn.Idle():
		w.txn.Begin(s.host.Env, s, &w.req, s.host.Arena.Bytes(s.in)[w.at:w.at+w.req.HeadLen])
	default:
		// Also beside a reply: whether the connection goes on depends on it.
		if w.txn.BodyDone() {
			s.passBody()
		}
		w.txn.Started()
	}
	s.run()
	return s.phase != phaseClosed && s.phase != phaseTunnel
}

// restAhead sends the rest of what goes ahead of the reply. It reports whether the session is still one.
func (s *Session) restAhead() bool {
	w := s.work
	if w.reply != nil {
		return true
	}
	if rest := s.host.Arena.Bytes(w.out)[w.outLo:w.outHi]; len(rest) > 0 {
		n, errno := sock.Send(s.fd, rest)
		if errno != 0 || n < len(rest) {
			s.abort()
			return false
		}
		s.tx += uint64(n)
	}
	s.sentAhead()
	w.outLo = 0
	return true
}

// passBody moves past the body of the request.
func (s *Session) passBody() {
	for s.work.framing != noBody && s.work.framing != endedBody {
		p, _ := s.Next()
		if len(p) == 0 {
			return
		}
		s.Advance(len(p))
	}
}

// listen watches the connection. Whatever has happened on it is reported at once.
func (s *Session) listen() {
	if err := s.host.Loop.Watch(&s.watch, s.fd, watched, s); err != nil {
		s.abort()
	}
}

// ResumeTunnel makes the session of a tunnel. False: it cannot go on; then slots and descriptors are
// closed. Start is called on the loop.
func (h *Host) ResumeTunnel(client, origin tunnel.End, peer netip.AddrPort) (*Resumed, bool) {
	s := h.takeSession()
	s.fd, s.peer, s.phase = -1, peer, phaseTunnel
	t, ok := tunnel.Resume(s.tunnelOptions(), client, origin)
	if !ok {
		h.putSession(s)
		return nil, false
	}
	s.tun = t
	h.sessions.push(s)
	return &Resumed{s: s, Fate: Fate{State: crash.Tunnelling}}, true
}

// StartTunnel moves the tunnel's bytes on. It runs on the loop.
func (r *Resumed) StartTunnel() { r.s.tun.Start() }
