package transaction

import (
	"sync/atomic"
	"unsafe"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
)

// A fetchRecord is what a successor must know of a fetch. How far its body has come is
// not in it: that follows from the connection to the origin, and in the end from end.
type fetchRecord struct {
	progress progress
	method   http1.Method
	flags    custody.Flags
	status   uint16     // of the response; of the answer in its place, if the fetch has failed
	lines    buffer.Ref // of a response that is not stored, or not as the leader gets it
	linesLen uint32
	attempt  uint32 // of sending the request
	tried    parent.Set
	leader   Identity
	key      cache.Key
	started  int64
	born     uint64
	length   int64
	age      int64
	writer   cache.ID // what is stored of it
	stale    cache.ID
	window   buffer.Ref // of what is not stored
	from     int64      // where the window's part of the body begins
	floor    int64      // followers that have had less are given up
	end      int64      // of the body, once it is complete

	// The parts around what comes, and what is asked for.
	front, back cache.ID
	rest        span
	size        int64
	asks        asking
	resumes     uint8
	base        int64 // how much had come when the exchange began
}

const (
	fetchStore custody.Flags = 1 << iota
	fetchCollapsed
	fetchWriting
	fetchShared
	fetchNoBody
	fetchWhole
	fetchBodyDone
	fetchRanged
	fetchResuming
	fetchBent
)

// A fetchPage is the page that a fetch's record lies in. Whose it is stands beside the record and not in it: of the two
// copies there one is from before, and whoever has the page next may make it the true one, being of another size.
type fetchPage struct {
	serial atomic.Uint64 // of the fetch; 0 before the page is given back
	record queue.Record[fetchRecord]
}

var _ = [1]struct{}{}[min(unsafe.Sizeof(fetchPage{})/buffer.Record, 1)]

// pageOf is the page with this name; nil: it is that fetch's no more.
func pageOf(a *buffer.Arena, n custody.Name) *fetchPage {
	if n.Serial == 0 {
		return nil
	}
	if p := fetchPageAt(a.Bytes(n.Page)); p.serial.Load() == n.Serial {
		return p
	}
	return nil
}

func fetchPageAt(mem []byte) *fetchPage { return (*fetchPage)(unsafe.Pointer(unsafe.SliceData(mem))) }

// note commits where the fetch stands. It runs on the owner's loop.
//
// That the origin has switched is not noted: the tunnel's own note says so, and a successor that does not find
// that one reads the head again and makes the tunnel.
func (f *fetch) note(step queue.Step) {
	b := f.env.Book
	if b == nil || f.head.status == 101 || f.x.Tunnel {
		return
	}
	fresh := f.page == nil
	if fresh {
		ref, ok := b.Arena.GetRecord()
		if !ok {
			return // its followers' notes name none, and end with this process; see OriginUnkept
		}
		f.env.serial++
		f.page = fetchPageAt(b.Arena.Bytes(ref))
		f.name = custody.Name{Loop: uint32(b.Loop), Page: ref, Serial: f.env.Generation<<32 | f.env.serial}
		f.x.Token = f.name
	}
	r := f.describe()
	f.page.record.Commit(&r, step)
	if fresh {
		f.page.serial.Store(f.name.Serial)
	}
}

func (f *fetch) describe() fetchRecord {
	r := fetchRecord{
		progress: f.progress, method: f.x.Method, status: uint16(f.head.status),
		attempt: f.x.Attempt, tried: f.tried, lines: f.linesRef, linesLen: uint32(len(f.head.lines)),
		key: f.key, started: f.started, born: f.born, length: f.head.length, age: f.head.age,
		window: f.ringRef, from: f.from, floor: f.floor, end: f.end,
		rest: f.pieces.rest, size: f.pieces.size, asks: f.asks, resumes: uint8(f.resumes), base: f.base,
	}
	if f.pieces.front.Valid() {
		r.front = f.pieces.front.ID()
	}
	if f.pieces.back.Valid() {
		r.back = f.pieces.back.ID()
	}
	if f.head.own != nil {
		r.linesLen = uint32(len(f.head.own))
	}
	if f.lead != nil {
		r.leader = f.lead.client.Identity()
	}
	if f.w != nil {
		r.writer = f.w.ID()
	}
	if f.stale.Valid() {
		r.stale = f.stale.ID()
	}
	if f.progress == failed {
		r.status = uint16(f.failure.status)
	}
	r.flags.Set(fetchStore, f.store)
	r.flags.Set(fetchCollapsed, f.collapsed)
	r.flags.Set(fetchWriting, f.writing)
	r.flags.Set(fetchShared, f.head.shared)
	r.flags.Set(fetchNoBody, f.head.noBody)
	r.flags.Set(fetchWhole, f.whole)
	r.flags.Set(fetchBodyDone, f.x.BodyDone)
	r.flags.Set(fetchRanged, f.ranged)
	r.flags.Set(fetchResuming, f.resuming)
	r.flags.Set(fetchBent, f.head.bent)
	return r
}

// forget gives the record back: nobody's note names the fetch any more, but for that of its
// connection, which may do so for an instant.
func (f *fetch) forget() {
	if f.page == nil {
		return
	}
	f.page.serial.Store(0)
	queue.Killpoint(custody.StepEnded)
	f.env.Book.Arena.Put(f.name.Page)
	f.page, f.name = nil, custody.Name{}
}

// Object names the stored response that the reply's body comes from; 0: it does not.
func (t *Transaction) Object() cache.ID {
	body := t.reply.Body
	if m, ok := body.(*multipart); ok {
		body = m.body
	}
	if _, stored := body.(*storedBody); stored {
		return t.obj.ID()
	}
	return 0
}

// Fetch names the fetch that the reply's body comes from.
func (t *Transaction) Fetch() custody.Name {
	if f := t.place.f; f != nil {
		return f.name
	}
	return custody.Name{}
}

// FetchPages tells which pages the record of a fetch names, itself included. False: there is
// no such fetch any more.
func FetchPages(a *buffer.Arena, n custody.Name, page func(buffer.Ref)) bool {
	p := pageOf(a, n)
	if p == nil {
		return false
	}
	r := p.record.Load()
	page(n.Page)
	page(r.lines)
	page(r.window)
	return true
}

// A Resumed is a fetch of a dead server that goes on in this one.
type Resumed struct {
	f      *fetch
	record fetchRecord
	linked bool // its connection to the origin is there
	sent   bool // it was, and may have carried the request
}

// ResumeFetch makes the fetch that a record tells of. It has no connection and no follower yet: Exchange is what
// the connection is restored with, Lead and ResumeReply bring the followers, and Settle ends
// what nobody wants. Before the loop runs anything of it.
func (e *Env) ResumeFetch(n custody.Name) (*Resumed, bool) {
	p := pageOf(e.Arena, n)
	if p == nil {
		return nil, false
	}
	r := p.record.Load()
	f := &fetch{
		env: e, loop: e.Loop, key: r.key, flight: r.key, store: r.flags.Has(fetchStore), started: r.started, born: r.born,
		passes: maxPasses, // which is not on record: whoever comes may follow
		tried:  r.tried, whole: r.flags.Has(fetchWhole), linesRef: r.lines, ringRef: r.window,
		progress: r.progress, page: p, name: n, from: r.from, tail: r.from, floor: r.floor, low: r.floor, end: r.end,
		asks: r.asks, ranged: r.flags.Has(fetchRanged), resuming: r.flags.Has(fetchResuming), resumes: int(r.resumes), base: r.base, at: r.base,
	}
	f.x.Handler, f.x.Method, f.x.Token, f.x.Attempt = f, r.method, n, r.attempt
	f.x.BodyDone = r.flags.Has(fetchBodyDone)
	f.head = responseHead{status: int(r.status), length: r.length, age: r.age, shared: r.flags.Has(fetchShared), noBody: r.flags.Has(fetchNoBody), bent: r.flags.Has(fetchBent)}
	if r.lines != 0 {
		f.head.lines = e.Arena.Bytes(r.lines)[:r.linesLen]
	}
	if r.window != 0 {
		f.ring = e.Arena.Bytes(r.window)
	}
	if r.progress == failed {
		f.failure = reason{int(r.status), "the request to the origin failed"}
	}
	if !f.reopenPieces(r) && r.progress == open || r.writer != 0 && !f.reopen(r) {
		f.progress, f.failure = failed, torn
		f.pieces.release() // they are nothing without what lies between them
	}
	if r.stale != 0 {
		f.stale, _ = e.Cache.OpenID(r.stale)
	}
	return &Resumed{f: f, record: r}, true
}

// torn is what those are told whose fetch has lost its connection with the server that made it.
var torn = reason{502, "the connection to the origin broke"}

// reopenPieces finds the parts around it. False: they are not all there.
func (f *fetch) reopenPieces(r fetchRecord) bool {
	f.pieces.rest, f.pieces.size = r.rest, r.size
	if f.env.Cache == nil {
		return r.front == 0 && r.back == 0
	}
	found := true
	if r.front != 0 {
		f.pieces.front, found = f.env.Cache.OpenID(r.front)
	}
	if r.back != 0 && found {
		f.pieces.back, found = f.env.Cache.OpenID(r.back)
	}
	if !found {
		f.pieces.release()
	}
	return found
}

// reopen finds what the fetch has stored.
func (f *fetch) reopen(r fetchRecord) bool {
	if f.env.Cache == nil {
		return false
	}
	w, ok := f.env.Cache.Rejoin(r.writer)
	if !ok {
		return false
	}
	f.w = w
	f.writing = r.flags.Has(fetchWriting) && w.State() == cache.Filling
	if !f.writing {
		// Also when the fill was given up and the record does not say so yet: the window begins where it ends.
		f.from = w.Len()
		f.tail, f.end = f.from, max(f.end, f.from)
	}
	f.head.own = f.head.lines // nil: all have the same
	f.head.meta, f.head.vary, f.head.lines = *w.Meta(), w.Vary(), w.Head()
	return true
}

// Leader is the request that the fetch sends. It need not be there any more: a connection goes on to its
// next request while a response is still coming for the cache.
func (r *Resumed) Leader() Identity { return r.record.leader }

// Replied reports whether the response's head is known.
func (r *Resumed) Replied() bool { return r.f.progress != pending }

// Over reports whether nothing more is to come of the fetch. What the record of its connection says then is
// from before, and must not be done again: its leader may have gone on to another request.
func (r *Resumed) Over() bool { return r.f.progress != pending && r.f.progress != open }

// Sent says that the request was on its way: a connection to the origin has been noted for it. Whether that
// connection is there is another matter.
func (r *Resumed) Sent() { r.sent = true }

// Leads reports whether its leader goes on with the fetch. Otherwise the leader begins anew, as it
// must not when the origin may have acted on the request and would do so twice.
func (r *Resumed) Leads() bool {
	return r.linked || r.Replied() || r.sent && !r.record.method.Idempotent()
}

// Attempt is the number of the time of sending the request that the fetch is at.
func (r *Resumed) Attempt() uint32 { return r.record.attempt }

// Link says that the fetch's connection to the origin is there, Unlink that it is not, after all. While it is, others
// may follow the fetch.
func (r *Resumed) Link() {
	f := r.f
	r.linked = true
	if r.record.flags.Has(fetchCollapsed) && (f.progress == pending || f.progress == open && f.writing) {
		f.collapsed = f.env.Flights.Join(f.flight, cache.Anybody, f, 0, func(*fetch) bool { return false }) == cache.Lead
	}
}

// Unlink takes Link back.
func (r *Resumed) Unlink() {
	r.linked = false
	r.f.land()
}

// Linked reports which of the two it is.
func (r *Resumed) Linked() bool { return r.linked }

// Exchange is what the fetch's connection is restored with.
func (r *Resumed) Exchange() *origin.Exchange { return &r.f.x }

// Settle decides, once connection and followers are restored, what cannot go on: without a connection
// no more comes. It runs on the loop.
func (r *Resumed) Settle() {
	f := r.f
	f.mu.Lock()
	f.placeLocked()
	orphan := len(f.followers) == 0
	f.mu.Unlock()
	switch {
	case orphan:
		if !r.linked && !r.Over() {
			f.finish(again, reason{}) // for whoever came at this very instant
			return
		}
		f.orphaned()
	case f.progress == pending && f.lead == nil:
		f.abandoned() // those who follow have come this moment, from other loops
	case !r.linked && !r.Over():
		if !f.resume(origin.Failure{}) {
			f.finish(failed, torn)
		}
	}
}

// ResumeReply goes on with a reply whose head is rendered: only its body is of interest.
// obj, or else from, is where that comes from; released is how much of it is sent already.
// False: it cannot be had any more. leads: the request is the one that the fetch sends.
func (t *Transaction) ResumeReply(e *Env, c Client, req *http1.Request, head []byte, status int, obj cache.ID, from *Resumed, leads bool, released int64) bool {
	t.take(e, c, req, head)
	t.reply = Reply{Status: status, Age: -1, Length: -1}
	switch {
	case obj != 0:
		if e.Cache == nil {
			return false
		}
		var ok bool
		if t.obj, ok = e.Cache.OpenID(obj); !ok {
			return false
		}
		t.reply.Body = (*storedBody)(&t.obj)
	case from != nil:
		f := from.f
		f.mu.Lock()
		f.joinLocked(t)
		t.place.released = max(released-f.pieces.ahead(), 0)
		f.mu.Unlock()
		t.reply.Body = &t.place
		if leads {
			f.ledBy(t)
		}
	}
	t.resumeRanges(released)
	t.ready = true
	t.state = answering
	return true
}

// Lead goes on with the request that a fetch sends, and which has no reply yet. Start is called later, on the
// loop.
func (t *Transaction) Lead(e *Env, c Client, req *http1.Request, head []byte, r *Resumed) {
	f := r.f
	t.take(e, c, req, head)
	t.began = f.started
	t.state = waiting
	f.ledBy(t)
	f.mu.Lock()
	f.joinLocked(t)
	f.mu.Unlock()
}

// ledBy makes t the fetch's leader again. The rules may have changed since; what was sent to the origin stays
// sent.
func (f *fetch) ledBy(t *Transaction) {
	f.lead, t.leading = t, true
	t.findRoute()
	if t.findKey() {
		t.fwd = fwdMiss
		switch {
		case f.pieces.valid():
			t.fwd = fwdPartial
		case f.stale.Valid():
			t.fwd = fwdStale
		}
	}
	f.describeRequest(t)
}

// Idle reports whether no request has begun.
func (t *Transaction) Idle() bool { return t.state == idle }

// BodyDone reports whether the origin has had the whole body of the request already, whatever
// the client's side has noted of it.
func (t *Transaction) BodyDone() bool { return t.leading && t.place.f != nil && t.place.f.x.BodyDone }

// Started takes the news that there may have been meanwhile.
func (t *Transaction) Started() {
	if t.state == waiting && t.place.f != nil {
		t.fetchMoved()
	}
}

// OriginResumed implements origin.Handler: the body goes on at byte at, of which
// direct bytes behind it have been received into Space already.
func (f *fetch) OriginResumed(at int64, direct int) origin.Sink {
	f.at = f.base + at
	f.mu.Lock()
	if !f.writing {
		f.end = max(f.at, f.from)
	}
	f.mu.Unlock()
	if direct > 0 {
		f.Commit(direct)
	}
	f.mu.Lock()
	f.placeLocked()
	f.mu.Unlock()
	return f
}

// placeLocked finds where the window begins: behind what every follower has had.
func (f *fetch) placeLocked() {
	f.tail = max(f.from, f.heldLocked())
}
