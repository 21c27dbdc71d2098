package session

import (
	"net/netip"
	"time"

	"trafficd/queue"
	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
)

// A tale is what the access log wants to know of a request at its end, and what could not be found out then by a
// successor. It is a part of the record.
type tale struct {
	began   int64  // wall ns
	request uint64 // number in the client's stream of the request's first byte
	at      uint32 // where that lies in the page
	headLen uint32 // bytes of the reply's head
	first   uint64 // number in our stream of its first byte
	offset  int64  // where in Reply.Body its body begins
	client  address
	origin  address
	result  accesslog.Result
}

// An address is a netip.AddrPort for shared memory: without pointers.
type address struct {
	ip   [16]byte
	port uint16
	ok   bool
}

func pack(a netip.AddrPort) address {
	if !a.IsValid() {
		return address{}
	}
	return address{a.Addr().As16(), a.Port(), true}
}

func (a *address) unpack() netip.AddrPort {
	if !a.ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.ip).Unmap(), a.port)
}

// remember begins the tale of the request that lies at s.lo.
func (s *Session) remember(now int64) {
	t := &s.work.tale
	t.began, t.request, t.at = now, s.base+uint64(s.lo), uint32(s.lo)
}

// log writes the request's line, if it has none yet. It is followed by the commit that ends the request, and by
// nothing else before that: a successor takes the last line of a loop for that of a request whose end is not noted.
func (s *Session) log(aborted, keep bool) {
	w := s.work
	if s.host.Log == nil || w.logged {
		return
	}
	w.logged = true
	e := &s.host.entry
	*e = accesslog.Entry{
		Conn: s.entry.Cookie(), Request: w.tale.request, Client: s.Peer(),
		Began: w.tale.began, Ended: s.host.Env.Loop.Wall(),
		Aborted: aborted, Keep: keep, Served: s.served, Outcome: w.txn.Outcome(),
	}
	if s.in != 0 {
		e.Head = s.host.Arena.Bytes(s.in)[w.tale.at:s.hi]
	}
	if !w.refused && w.req.HeadLen > 0 {
		e.Req, e.Head = &w.req, e.Head[:w.req.HeadLen]
		e.Received = int64(w.req.HeadLen) + int64(w.taken)
	} else {
		e.Received = int64(len(e.Head))
	}
	w.tellReply(s, e)
	s.host.Log.Add(e)
}

// tellReply tells what became of the reply.
func (w *work) tellReply(s *Session, e *accesslog.Entry) {
	if !w.rendered || s.tx == w.tale.first {
		e.Status = accesslog.ClientGone
		return
	}
	e.Status = w.reply.Status
	e.Sent = int64(s.tx - w.tale.first)
	if e.Body = e.Sent - int64(w.tale.headLen); w.reply.Body != nil {
		e.Body = w.off - w.tale.offset
	}
	e.Body = max(e.Body, 0)
	if page := s.host.Arena.Bytes(w.out); len(page) >= int(w.tale.headLen) {
		// The head of a chunk takes the place of the status line at most.
		e.Lines = page[:w.tale.headLen]
	}
}

// describeTale writes down what is known by now.
func (s *Session) describeTale(r *record) {
	w := s.work
	if s.host.Log == nil {
		return
	}
	r.tale = w.tale
	r.tale.client = pack(s.Peer())
	o := w.txn.Outcome()
	r.tale.result, r.tale.origin = o.Result, pack(o.Origin)
	r.flags.Set(flagLogged, w.logged)
}

// restoreTale takes over what the record says.
func (s *Session) restoreTale(r *record) {
	w := s.work
	if r.state == recordHead || r.tale.began == 0 {
		s.remember(time.Now().UnixNano()) // the loop does not run yet
	} else {
		w.tale = r.tale
	}
	w.logged = r.flags.Has(flagLogged)
}

// outcome is what the record says of the request's part in cache and origin.
func (t *tale) outcome() accesslog.Outcome {
	return accesslog.Outcome{Result: t.result, Origin: t.origin.unpack()}
}

// Acknowledge marks the request in a slot as logged, if the last line that the dead server logged is its. It is
// called for every session before anything else is logged. The slot's tag is custody.Session.
func (h *Host) Acknowledge(slot *queue.Slot) {
	if h.Log == nil {
		return
	}
	r := custody.Read[record](h.Book, slot)
	if h.Log.Logged(slot.Cookie(), h.request(&r)) {
		r.flags.Set(flagLogged, true)
		custody.Amend(h.Book, slot, &r, custody.StepLogged)
	}
}

// request is the number of the request's first byte.
func (h *Host) request(r *record) uint64 {
	if r.state != recordHead && r.tale.began != 0 {
		return r.tale.request
	}
	page := h.Arena.Bytes(r.in)
	if int(r.at) > len(page) {
		return 0
	}
	return r.base + uint64(r.at) + uint64(http1.SkipEmptyLines(page[r.at:]))
}

// Gone logs the request of a connection that has ended while nobody was there to see it. The slot's
// tag is custody.Session; l has what is known of the connection still.
func (h *Host) Gone(l Left) {
	r := custody.Read[record](h.Book, l.Slot)
	if h.Log == nil || r.flags.Has(flagLogged) || r.state == recordLingering || r.in == 0 {
		return
	}
	e := &h.entry
	*e = accesslog.Entry{
		Conn: l.Slot.Cookie(), Request: h.request(&r), Client: r.tale.client.unpack(),
		Began: r.tale.began, Ended: h.Env.Loop.Wall(), Status: accesslog.ClientGone, Aborted: true, Outcome: r.tale.outcome(),
	}
	at := int(e.Request - r.base)
	page := h.Arena.Bytes(r.in)
	end := int(r.inHi)
	if r.state == recordHead {
		// May be one too high: a head that is complete ends before that.
		end, e.Began = int(l.Progress.Consumed-r.base), e.Ended
	}
	if at > end || end > len(page) {
		return
	}
	e.Head = page[at:end]
	e.Received = int64(len(e.Head))
	w := h.takeWork()
	defer h.putWork(w)
	if err := w.req.Parse(e.Head, &h.Limits.Head); err == nil && !r.flags.Has(flagRefused) {
		e.Req, e.Head = &w.req, e.Head[:w.req.HeadLen]
		e.Received = int64(w.req.HeadLen) + int64(r.taken)
	} else if r.state == recordHead {
		return // not a request yet
	}
	if r.state == recordReplying && l.Progress.Written > r.tale.first {
		r.tellReply(h, l.Progress.Written, e)
	}
	h.Log.Add(e)
}

// tellReply tells how far the reply in the record came, of which the kernel took the bytes up to number tx of our stream.
func (r *record) tellReply(h *Host, tx uint64, e *accesslog.Entry) {
	e.Status = int(r.status)
	e.Sent = int64(tx - r.tale.first)
	body := int64(tx-r.outTx) - int64(r.outLen)
	e.Body = max(e.Sent-int64(r.tale.headLen), 0)
	if r.source != noSource {
		e.Body = max(r.from-r.tale.offset+max(body, 0), 0)
	}
	switch {
	case r.flags.Has(flagChunked):
		e.Aborted = !r.flags.Has(flagLastSent) || body < 0
	case r.end >= 0:
		e.Aborted = body < r.end-r.from
	}
	if page := h.Arena.Bytes(r.out); len(page) >= int(r.tale.headLen) {
		e.Lines = page[:r.tale.headLen]
	}
}
