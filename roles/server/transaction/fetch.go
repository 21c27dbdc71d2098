package transaction

import (
	"sync"

	"trafficd/eventloop"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
)

// progress is how far a fetch has come.
type progress uint8

const (
	pending  progress = iota // no head yet
	open                     // the head is known, the body is coming
	complete                 // all of it has come
	failed                   // it ended before it was complete
	again                    // what was to be fetched is in the cache now, or nobody fetches: look again
)

func (p progress) String() string {
	return [...]string{"pending", "open", "complete", "failed", "again"}[p]
}

// A fetch is one exchange with an origin and the response it brings, on its way
// into the cache if it may be stored, and to the transactions that follow.
//
// The body lies in two parts: what was written to the cache, and behind it a
// window for what was not. Usually one of them is empty; both are used when a
// body of unknown length turns out to be too large to be stored.
type fetch struct {
	env  *Env            // of the owner; immutable
	loop *eventloop.Loop // the owner's; immutable

	// Owned by the loop.
	x         origin.Exchange
	lead      *Transaction // whose request is sent; nil once its head has no more say
	key       cache.Key
	collapsed bool          // entered in env.Flights under flight
	flight    cache.Key     // key, or one for those who select the same alternate
	passes    int           // how often its leader's request has come through here
	store     bool          // the response may be stored if the rules allow it
	most      int64         // bytes of a body that are; 0: as many as the cache takes
	stale     cache.Object  // being validated, if valid
	started   int64         // wall ns when the request was sent
	group     *parent.Group // whose servers are asked; nil before one is
	tried     parent.Set    // which of them have been
	refused   parent.Set    // those whose status another one was asked for
	whole     bool          // the validation was of no use: fetch the whole response
	moved     bool          // followers have not been told yet
	ringRef   buffer.Ref
	linesRef  buffer.Ref // head.lines of a response that is not stored
	pieces    pieces     // around what comes; immutable from the head on
	asks      asking
	ranged    bool       // for a request with Range: key is that of the parts
	rangeID   uint64     // of that request; 0 unknown; immutable
	resumes   int        // how often the rest was asked for
	resuming  bool       // it is being asked for now
	base      int64      // how much had come when this exchange began
	at        int64      // how much of the body has come; less than there is only while it comes again
	from      int64      // where the window's part of the body begins
	floor     int64      // followers that have had less of the body are given up; see slow.go
	slow      *slow      // nil until the window was full
	page      *fetchPage // of its record; nil: it has none
	name      custody.Name

	mu        sync.Mutex // guards what follows
	progress  progress
	born      uint64 // purges there were when the request was sent; written by the loop
	head      responseHead
	w         *cache.Writer // the stored part; nil if nothing is stored
	writing   bool          // w takes more
	ring      []byte        // the window, once it is needed
	tail, end int64         // offsets in the body that the window holds
	low       int64         // floor, once that is noted
	paused    bool          // the exchange waits for space in the window
	followers []*follower
	failure   reason
	left      bool // it is over only because its leader left: whoever looks again may wait again
	hushed    bool // the origin did answer: who cannot do without asks again
}

// responseHead is what followers need of the head, immutable once progress is
// past pending.
type responseHead struct {
	status int
	lines  []byte // end-to-end field lines
	own    []byte // the leader's, if others must not have all of them
	length int64  // of the body, -1 unknown
	age    int64  // as the origin said; -1 if it did not
	meta   cache.Meta
	vary   []byte
	shared bool // other requests than the leader's may be answered with it
	noBody bool // none will come, whatever the length says
	bent   bool // the leader gets it with the Content-Range that it came with
}

// reason is why a fetch failed, for those who have had nothing of it yet.
type reason struct {
	status int
	text   string
}

// A follower is a transaction's place at a fetch. Owned by the transaction's
// loop, but for what is guarded by the fetch's mu.
type follower struct {
	t *Transaction
	f *fetch // nil when it follows none

	released int64 // guarded by f.mu: nothing below is read again
	waiting  bool  // guarded by f.mu: to be woken when something has changed
	late     int   // guarded by f.mu: looks at which it was waited for, less those at which it was not; see slow.go
}

// follow makes t a follower. It reports false when the fetch is over.
func (f *fetch) follow(t *Transaction) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress != pending && (f.progress != open || !f.writing) || !f.servesLocked(t) {
		return false
	}
	f.joinLocked(t)
	return true
}

func (f *fetch) joinLocked(t *Transaction) {
	t.place = follower{t: t, f: f, waiting: true}
	f.followers = append(f.followers, &t.place)
}

// leave ends a follower's interest.
func (f *fetch) leave(p *follower) {
	f.mu.Lock()
	for i, q := range f.followers {
		if q == p {
			f.followers[i] = f.followers[len(f.followers)-1]
			f.followers = f.followers[:len(f.followers)-1]
			break
		}
	}
	p.f = nil
	orphan := len(f.followers) == 0
	f.advanceLocked()
	f.mu.Unlock()
	switch {
	case p.t.env != f.env:
		if orphan {
			f.loop.Post(f.orphaned)
		}
	case orphan:
		f.lead = nil
		f.orphaned()
	case p.t == f.lead:
		f.abandoned()
	}
}

// abandoned deals with a leader that leaves others behind: its request is what
// the response would be judged by, so without a head one of them has to begin
// anew.
func (f *fetch) abandoned() {
	f.lead = nil
	if f.progress == pending { // only the owner changes it
		f.mu.Lock()
		f.left = true
		f.mu.Unlock()
		f.finish(again, reason{})
	}
}

// worthFinishing bounds the bytes that are still fetched for the cache when
// nobody waits for them any more.
const worthFinishing = 1 << 20

// orphaned decides what becomes of a fetch that nobody follows. It runs on the
// owner's loop.
func (f *fetch) orphaned() {
	f.mu.Lock()
	wanted := len(f.followers) > 0
	left := int64(-1)
	if f.w != nil && f.w.Declared() >= 0 {
		left = f.w.Declared() - f.w.Len()
	}
	over := f.progress != pending && f.progress != open
	worth := f.progress == open && f.writing && left >= 0 && left <= worthFinishing
	if !wanted && !over && !worth {
		f.progress = again // from here on nobody follows: what he was sent would end at this very instant
	}
	f.mu.Unlock()
	switch {
	case wanted:
	case over:
		f.free()
	case worth:
	default:
		f.finish(again, reason{})
	}
}

// free gives the memory back; the fetch is over and nobody follows.
func (f *fetch) free() {
	f.mu.Lock()
	w := f.w
	f.w, f.ring = nil, nil
	f.mu.Unlock()
	f.forget()
	if w != nil {
		w.Release()
	}
	f.env.Arena.Put(f.ringRef)
	f.env.Arena.Put(f.linesRef)
	f.ringRef, f.linesRef = 0, 0
	if f.slow != nil {
		f.slow.limit.Stop()
	}
	f.stale.Release()
	f.pieces.release()
}

// finish ends the fetch, with its exchange if that goes on, and tells the followers.
func (f *fetch) finish(p progress, why reason) {
	f.land()
	if p != complete {
		f.keepPart()
	}
	f.mu.Lock()
	if f.writing {
		f.writing = false
		f.w.Abort()
	}
	f.progress, f.failure = p, why
	empty := len(f.followers) == 0
	f.mu.Unlock()
	if f.page != nil {
		f.note(custody.StepEnded)
	}
	f.lead = nil
	f.moved = true
	if p != complete {
		// Once those who have asked have noted their answer: until then its connection alone says that the request was sent.
		defer f.x.Leave()()
	}
	if empty {
		f.free()
		return
	}
	f.tell()
}

// uncacheableFor is how long requests for a key whose response could not be
// stored are not made to wait for each other, in nanoseconds.
const uncacheableFor = int64(10e9)

// land takes the fetch out of the table of flights: nobody joins any more.
func (f *fetch) land() {
	if f.collapsed {
		f.collapsed = false
		f.env.Flights.Finish(f.flight, f)
	}
}

// landUncacheable is land for a response that is not stored, whoever asks for it.
func (f *fetch) landUncacheable() { f.landUncacheableFor(cache.Anybody) }

func (f *fetch) landUncacheableFor(by cache.Asker) {
	if f.collapsed {
		f.collapsed = false
		f.env.Flights.FinishUncacheable(f.flight, by, f, f.loop.Now()+uncacheableFor)
	}
}

// landUnstored is land for a response that is not stored: since it is too large, for this reason, or, if it could be,
// since what was asked for is not what others ask for. A reason that is in the request says nothing of the
// requests of others: that Authorization was too much holds for those that have one, and what remains for none. Or one odd
// request now and then would have all the others sent to the origin.
func (f *fetch) landUnstored(fits bool, why freshness.Reason, status int) {
	switch {
	case !fits:
		f.landUncacheable()
	case why == freshness.Authorized:
		f.landUncacheableFor(cache.Somebody)
	case why == freshness.Storable, why.OfRequest(), freshness.Particular(status):
		f.land()
	default:
		f.landUncacheable()
	}
}

// tell wakes the followers that wait, each on its own loop.
func (f *fetch) tell() {
	if !f.moved {
		return
	}
	f.moved = false
	var near [8]*follower
	own := near[:0]
	f.mu.Lock()
	for _, p := range f.followers {
		if !p.waiting {
			continue
		}
		p.waiting = false
		if p.t.env == f.env {
			own = append(own, p)
			continue
		}
		p.t.env.Loop.Post(func() { p.moved(f) })
	}
	f.mu.Unlock()
	for _, p := range own {
		p.moved(f)
	}
}

// moved takes the news to the follower's transaction, unless it has gone on to
// something else meanwhile.
func (p *follower) moved(f *fetch) {
	if p.f == f {
		p.t.fetchMoved()
	}
}

// Bytes implements Body.
func (p *follower) Bytes(off int64) ([]byte, origin.BodyState) {
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pieces.front.Valid() {
		if b := f.pieces.front.Fragment(off); len(b) > 0 {
			return b, origin.BodyWait
		}
		off -= f.pieces.ahead()
	}
	if f.pieces.back.Valid() && off >= f.w.Declared() {
		return f.pieces.back.Fragment(off - f.w.Declared()), origin.BodyEnd
	}
	if f.w != nil {
		if b := f.w.Fragment(off); len(b) > 0 {
			return b, origin.BodyWait
		}
	}
	if f.ring != nil && off < f.tail {
		return nil, origin.BodyFailed // given up
	}
	if f.ring != nil && off < f.end {
		size := int64(len(f.ring))
		from := off % size
		return f.ring[from:min(from+f.end-off, size)], origin.BodyWait
	}
	switch f.progress {
	case complete:
		return nil, origin.BodyEnd
	case open, pending: // pending: of a dead server, until the head has come once more
		p.waiting = true
		return nil, origin.BodyWait
	}
	return nil, origin.BodyFailed
}

// Release implements Body.
func (p *follower) Release(off int64) {
	f := p.f
	f.mu.Lock()
	p.released = max(off-f.pieces.ahead(), 0)
	f.advanceLocked()
	f.mu.Unlock()
}

// advanceLocked moves the window up to what the slowest follower has released,
// and lets the exchange go on if it waited for that.
func (f *fetch) advanceLocked() {
	if f.ring == nil || len(f.followers) == 0 {
		return
	}
	f.tail = max(f.tail, f.heldLocked())
	if f.paused && f.end-f.tail <= int64(len(f.ring))/2 {
		f.paused = false
		f.loop.Post(f.x.Resume)
	}
}

// heldLocked is up to where the window holds what no follower needs any more.
func (f *fetch) heldLocked() int64 {
	held := f.end
	for _, p := range f.followers {
		if p.released >= f.low {
			held = min(held, p.released)
		}
	}
	return max(held, f.low)
}

// Space implements origin.Sink.
func (f *fetch) Space() []byte {
	if f.w != nil && f.at < f.w.Len() {
		return f.w.Fragment(f.at) // it has come before, to a server that is dead
	}
	if f.writing {
		space, err := f.w.Space()
		if f.most > 0 {
			space = space[:max(min(int64(len(space)), f.most-f.w.Len()), 0)]
		}
		if err == nil && len(space) > 0 {
			return space
		}
		if !f.overflow() {
			f.finish(again, reason{})
			return nil
		}
	}
	if f.ringRef == 0 {
		ref, ok := f.env.Arena.GetLarge()
		if !ok {
			f.finish(failed, reason{503, "all buffers are in use"})
			return nil
		}
		f.ringRef = ref
		f.mu.Lock()
		f.ring = f.env.Arena.Bytes(ref)
		f.mu.Unlock()
		f.note(custody.StepWindow)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	size := int64(len(f.ring))
	if f.end-f.tail == size && len(f.followers) > 0 {
		f.tail = max(f.tail, f.heldLocked()) // what comes again, after a death, nobody has to release once more
	}
	free := size - (f.end - f.tail)
	if free == 0 {
		f.paused = true
		f.watchSlow()
		return nil
	}
	at := f.end % size
	return f.ring[at:min(at+free, size)]
}

// overflow goes on without storing: the body is larger than the cache takes, or
// there is no room. What was written stays for its readers. It reports whether there are any: the window of a
// response that nobody follows would never move on.
func (f *fetch) overflow() (wanted bool) {
	f.env.Stats.Inc(statStoreFailed)
	f.landUncacheable()
	f.mu.Lock()
	f.writing = false
	f.w.Abort()
	f.tail, f.end = f.w.Len(), f.w.Len()
	f.from = f.end
	wanted = len(f.followers) > 0
	f.mu.Unlock()
	f.note(custody.StepWindow)
	return wanted
}

// Commit implements origin.Sink.
func (f *fetch) Commit(n int) {
	f.moved = true
	f.at += int64(n)
	if f.w != nil && f.at <= f.w.Len() {
		return
	}
	if f.writing {
		f.w.Commit(int(f.at - f.w.Len()))
		return
	}
	f.mu.Lock()
	f.end = f.at
	f.mu.Unlock()
}

// OriginInterim implements origin.Handler. 100 (Continue) is the exchange's
// own affair; the others go to a client that asked alone.
func (f *fetch) OriginInterim(n int, r *http1.Response, head []byte) {
	if r.Status == 100 || f.lead == nil {
		return
	}
	f.lead.client.Interim(n, r.Status, f.env.appendLines(f.env.scratch[:0], r, head))
}

// OriginUnkept implements origin.Handler. A successor that knows nothing of the fetch begins the request anew, which is
// to be acted on once: rather its client is left without an answer, as it would be by any server that dies.
func (f *fetch) OriginUnkept() {
	if f.lead != nil && !f.x.Method.Idempotent() {
		f.lead.client.LeaveCustody()
	}
}

// OriginProgress implements origin.Handler.
func (f *fetch) OriginProgress() { f.tell() }

// OriginEnd implements origin.Handler.
func (f *fetch) OriginEnd() {
	if f.writing {
		f.publish()
	}
	switch {
	case f.progress == open: // only the owner changes it
		f.finish(complete, reason{})
	case f.whole && f.lead != nil:
		f.refetch()
	case f.progress == pending: // a 304
		f.finish(again, reason{})
	}
}

// refetch asks again, without conditions.
func (f *fetch) refetch() {
	f.whole = false
	f.stale.Release()
	f.send()
}

// publish makes what was stored findable, before the flight ends, and that ends before the fetch cannot be followed any more: whoever
// comes finds one or the other.
func (f *fetch) publish() {
	if f.w.State() == cache.Published { // by a server that died before it could say so
		f.wrote()
		return
	}
	err := f.publishBody()
	f.wrote()
	if err != nil {
		f.env.Stats.Inc(statStoreFailed)
	}
	f.w.Abort() // unless it is published itself
	if err != nil {
		return
	}
	f.env.Flights.Forget(f.key)
	f.env.Stats.Inc(statStored)
	switch {
	case f.head.meta.RangeTotal != 0:
		f.env.Stats.Inc(stats.CachePartialStores)
	case f.asks != askWhole:
		f.env.Store.RemoveParts(f.wholeKey())
	}
}

// wrote ends the flight and then the fill.
func (f *fetch) wrote() {
	f.land()
	f.mu.Lock()
	f.writing = false
	f.mu.Unlock()
}

func (f *fetch) publishBody() error {
	if f.pieces.valid() {
		return f.assemble()
	}
	o, err := f.w.Publish()
	o.Release()
	return err
}

func failureReason(why origin.Failure) reason {
	switch {
	case why.Timeout:
		return reason{504, why.Public()}
	case why.Err == origin.ErrNoBuffers, why.Err == origin.ErrBusy:
		return reason{503, why.Public()}
	case why.Err == origin.ErrForbidden:
		return reason{403, why.Public()}
	case why.Err == origin.ErrBody: // the client broke it off or framed it wrongly
		return reason{400, why.Public()}
	}
	return reason{502, why.Public()}
}

// OriginTunnel implements origin.Handler.
func (f *fetch) OriginTunnel(s origin.Switched, early []byte) {
	t := f.lead // there is one: nobody else follows a request to switch
	if f.x.Tunnel {
		f.head = responseHead{status: 200, length: -1, age: -1}
	}
	t.takeTunnel(s, early)
	f.finish(complete, reason{})
}
