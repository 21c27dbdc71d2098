package transaction

import (
	"net/netip"
	"sync/atomic"

	"trafficd/eventloop"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
)

// Settings are what a reload replaces, as a whole. Immutable; a transaction
// keeps those it began with.
type Settings struct {
	Remap      *remap.Table
	Via        string // pseudonym in Via
	Freshness  freshness.Rules
	Attempts   int // of sending one request, in all; at least 1
	Forward    *remap.Forward
	PurgeAllow []netip.Prefix // clients that may PURGE
	// PreserveHost: origins see the Host that the client asked for, unless the rule says otherwise.
	PreserveHost bool
	Status       *Status // nil: no Cache-Status

	Partial        bool // parts of responses are stored
	ResumeAttempts int  // how often a response that breaks off is gone on with
}

// Flights is the table of fetches that others may follow.
type Flights = cache.Flights[*fetch]

// NewFlights makes the table that all loops of a server share.
func NewFlights() *Flights { return cache.NewFlights[*fetch]() }

// Counters, under the names used here.
const (
	statStored      = stats.CacheStores
	statStoreFailed = stats.CacheStoreFailures
	statRetried     = stats.OriginRetries
)

// Env is what the transactions of one loop share. The fields are set before the
// first transaction begins and belong to the loop.
type Env struct {
	Loop     *eventloop.Loop
	Arena    *buffer.Arena
	Store    *cache.Store // nil: nothing is cached
	Cache    *cache.Arena // this loop's access to Store
	Disk     Disk         // nil: what is not in Store is nowhere
	Flights  *Flights
	Purges   *Purges // all loops share it
	Origins  *origin.Pool
	Parents  *parent.Directory
	Stats    *stats.Row
	Settings *atomic.Pointer[Settings]
	Book     *custody.Book // nil: fetches end with this process
	// Generation of this process, for the names of fetches.
	Generation uint64

	// Hook is called with every request; nil but in tests.
	Hook func(*http1.Request, []byte)

	serial    uint64         // of the last fetch
	refreshes int            // fetches under way that nobody waits for
	scratch   []byte         // for heads on their way into something else
	block     []byte         // for vary blocks likewise
	keyed     []byte         // for what is hashed as a key
	parts     []cache.Object // none of them pinned
	judging   freshness.Exchange
	update    freshness.Update
	date      http1.DateLine
	via       []byte // the Via line
	viaOf     *Settings
	groups    map[*remap.Origin]*parent.Group // of origins that were asked lately
	groupsOf  *Settings                       // under which they are that
	line      [64]byte
}

// DateLine returns the Date field line of now.
func (e *Env) DateLine() []byte { return e.date.Append(e.line[:0], e.Loop.Wall()/1e9) }

// ViaLine returns the Via field line for a message received over HTTP/1.1.
func (e *Env) ViaLine() []byte {
	if s := e.Settings.Load(); s != e.viaOf {
		e.viaOf = s
		e.via = http1.AppendVia(nil, 1, s.Via)
	}
	return e.via
}

// A Transaction is one request and its answer. It is embedded in what its
// session keeps for a request in progress, and used again. Owned by the loop.
type Transaction struct {
	env      *Env
	client   Client
	settings *Settings
	state    state

	// The request; the session's, valid until End.
	req     *http1.Request
	head    []byte
	sel     freshness.Selection
	control freshness.Control // its Cache-Control

	match     remap.Match
	path      []byte
	key       cache.Key
	flight    cache.Key // under which others fetch it: key, or one for those who select the same alternate
	apart     bool      // a fetch that was followed has brought something else
	keyed     bool      // key is set: the cache may answer
	began     int64     // wall ns
	place     follower
	leading   bool         // place.f is our own
	obj       cache.Object // what is served, or validated, from the cache
	looks     int          // at the cache, for this request
	asked     bool         // the disk has been
	loads     int          // from the disk
	load      *load        // what the disk is asked for; nil: nothing
	serve     bool         // obj, just validated, is served under lines
	validated cache.Meta   // its metadata then
	outcome   accesslog.Outcome
	pieces    pieces // what is stored of the response, to be put together with the rest

	ready bool
	reply Reply
	local Memory
	multi *multipart // the reply's body, if it is several ranges
	extra [128]byte
	lines []byte // of a reply that are not a stored head as it stands
	// reversed are those that lead back here, normal a path in the form that rules are about.
	reversed, normal []byte
	text             []byte

	purging  *purging        // what a PURGE waits for
	switched origin.Switched // FD -1: none
	early    []byte

	behind *refresh // whose transaction it is; nil for a session's

	// What Cache-Status says.
	ttl       int64   // seconds
	fwdStatus uint16  // of the origin's response, if that is not the reply's
	fwd       forward // why
	detail    detail
	follows   bool // another's fetch
	fills     bool // the response goes into the cache
	stored    bool // it comes from there, or is going to: ttl is set
}

// Begin starts the transaction of a request. head is what req was parsed from;
// both stay unchanged until End. The client may be woken before Begin returns.
func (t *Transaction) Begin(e *Env, c Client, req *http1.Request, head []byte) {
	t.take(e, c, req, head)
	t.began = e.Loop.Wall()
	t.on(evBegin)
}

// take takes a request over, with the settings of now.
func (t *Transaction) take(e *Env, c Client, req *http1.Request, head []byte) {
	t.env, t.client, t.req, t.head = e, c, req, head
	t.settings = e.Settings.Load()
	t.switched.FD = -1
}

// Refuse starts a transaction for a request that could not be understood, beyond that it is a HEAD perhaps.
func (t *Transaction) Refuse(e *Env, c Client, status int, text string, isHead bool) {
	t.env, t.client = e, c
	t.switched.FD = -1
	t.state = looking
	t.failWith(status, text)
	if isHead {
		t.reply.Body = nil
	}
	t.reply.Close = true
	t.give()
}

// Reply returns the answer; nil while there is none.
func (t *Transaction) Reply() *Reply {
	if !t.ready {
		return nil
	}
	return &t.reply
}

// BodyReady says that more of the request's body may have come.
func (t *Transaction) BodyReady() {
	if t.leading && t.place.f != nil {
		t.place.f.x.BodyReady()
	}
}

// End is the session's last word: the reply has been sent, or never will be.
func (t *Transaction) End() { t.on(evEnd) }

// release lets go of everything the transaction holds.
func (t *Transaction) release() {
	if f := t.place.f; f != nil {
		f.leave(&t.place)
	}
	if t.load != nil {
		t.load.t = nil
	}
	if t.purging != nil {
		t.purging.t = nil
	}
	t.obj.Release()
	t.pieces.release()
	if t.switched.FD >= 0 {
		t.env.Origins.Abandon(t.switched)
	}
	*t = Transaction{text: t.text[:0], lines: t.lines[:0], early: t.early[:0], reversed: t.reversed[:0], normal: t.normal[:0], switched: origin.Switched{FD: -1}}
}

func (t *Transaction) wake() { t.client.Wake() }

// look decides how the request is answered.
func (t *Transaction) look() {
	if t.env.Hook != nil {
		t.env.Hook(t.req, t.head)
	}
	if status, text := t.unacceptable(); status != 0 {
		t.fail(status, text)
		return
	}
	if t.req.Method == http1.CONNECT {
		t.connect()
		return
	}
	if t.endsHere() {
		t.describe()
		return
	}
	if t.req.Method == http1.PURGE {
		t.purge()
		return
	}
	if t.route() {
		t.decide()
	}
}

// unacceptable refuses what a reverse proxy has no answer for.
func (t *Transaction) unacceptable() (status int, text string) {
	switch {
	case t.req.HTTPS:
		return 421, "https is not served here"
	case t.req.Method == http1.TRACE && t.endsHere():
		return 405, "TRACE is not answered here"
	case t.passes() >= maxPasses:
		return 508, "this request has come through here too often"
	}
	return 0, ""
}

// decide asks the cache, if the request may be answered from it, and fetches
// otherwise.
func (t *Transaction) decide() {
	if !t.findKey() {
		t.fetch(plan{})
		return
	}
	t.consult()
}

// findKey finds what the request asks of the cache. False: it may not be answered from there.
func (t *Transaction) findKey() bool {
	policy := t.match.Policy()
	if t.env.Store == nil || !policy.Cache.Or(true) {
		t.fwd = fwdBypass
		return false
	}
	if !freshness.MayAnswer(t.req) || t.req.Nominates() {
		t.fwd = fwdMethod
		return false
	}
	t.sel = freshness.Selection{Request: t.req, Head: t.head}
	t.control = freshness.ParseRequest(t.req, t.head)
	if policy.IgnoreClientNoCache {
		t.control.IgnoreReload()
	}
	t.key, t.keyed = t.keyOf(t.path, t.query()), true
	t.env.Store.Expect(t.key)
	t.flight = t.key
	return true
}

// keyOf is the key of a resource of the request's host; query comes with its "?".
func (t *Transaction) keyOf(path, query []byte) cache.Key {
	return t.env.Store.KeyOf(schemeHTTP, t.req.Host.In(t.head), path, t.told(t.keyQuery(query)))
}

// keyQuery is what of a query is part of the key.
func (t *Transaction) keyQuery(query []byte) []byte {
	if t.match.Policy().IgnoreQuery {
		return nil
	}
	return query
}

// appendURI appends the URI that the key was made of.
func (t *Transaction) appendURI(b []byte) []byte {
	return cache.AppendURI(b, schemeHTTP, t.req.Host.In(t.head), t.path, t.keyQuery(t.query()))
}

var schemeHTTP = []byte("http")

// query is the key's part behind the path, with its "?": "/a?" is not "/a".
func (t *Transaction) query() []byte {
	if !t.req.HasQuery {
		return nil
	}
	q := t.req.Query
	return t.head[q.Off-1 : q.End()]
}

// maxLooks bounds how often a request goes back to the cache because the fetch
// that it followed was for nothing.
const maxLooks = 3

// consult looks into the cache.
func (t *Transaction) consult() {
	t.looks++
	if o, found := t.env.Cache.Lookup(t.key, &t.sel); found {
		t.obj = o
	} else if t.askDisk() {
		return
	} else {
		t.consultParts()
	}
	switch t.verdict() {
	case freshness.Fresh:
		t.hit()
		return
	case freshness.Revalidate:
		if t.mayRefresh() {
			t.validating()
			return
		}
		t.missed()
		t.env.Stats.Inc(stats.CacheStale)
	case freshness.OnlyIfCachedMiss:
		t.obj.Release()
		t.fail(504, "the response is not in the cache")
		return
	case freshness.Stale:
		t.missed()
		t.env.Stats.Inc(stats.CacheStale)
	case freshness.MustFetch:
		t.missed()
		t.obj.Release()
		t.env.Stats.Inc(stats.CacheMisses)
	}
	p := t.plan()
	if !p.store {
		t.obj.Release()
	}
	t.fetch(p)
}

// verdict decides what t.obj, if there is one, is good for.
func (t *Transaction) verdict() freshness.Verdict {
	if !t.obj.Valid() {
		return freshness.Decide(nil, &t.control, t.env.Loop.Wall())
	}
	m := t.obj.Meta()
	if m.ResponseTime >= t.began && !freshness.SingleUse(m) {
		// It came from the origin after this request did: nothing could be
		// fresher (RFC 9111 §4, collapsed requests).
		return freshness.Fresh
	}
	return freshness.Decide(m, &t.control, t.env.Loop.Wall())
}

// lookAgain goes back to the cache after a fetch that was not followed to its
// end: somebody else's response may be there now.
func (t *Transaction) lookAgain() {
	t.leavePlace()
	t.consult()
}

// fetchApart fetches a response that cannot be had from the fetch that was followed. Whom the same has happened to may
// do so together, once: a response that suits none of them would have them all go one after the other.
func (t *Transaction) fetchApart() {
	together := !t.apart && t.regroup(t.place.f)
	t.apart = true
	t.leavePlace()
	p := t.plan()
	p.collapse = together
	t.fetch(p)
}

// regroup finds those who are to wait for the same as t, now that f has brought something else. False: there is no telling.
func (t *Transaction) regroup(f *fetch) bool {
	f.mu.Lock()
	p := f.progress
	f.mu.Unlock()
	h := &f.head // immutable by now
	switch {
	case p == failed:
		return false
	case !h.shared:
		return freshness.Particular(h.status)
	case t.sel.MatchVary(h.vary):
		return false
	}
	t.flight = t.alternate(h.vary)
	return true
}

// alternate is the flight of those to whom a response with this vary block is the same.
func (t *Transaction) alternate(vary []byte) cache.Key {
	return t.env.Store.Alternate(t.key, t.sel.AppendSelecting(nil, vary))
}

func (t *Transaction) leavePlace() {
	t.sentTo()
	if f := t.place.f; f != nil {
		f.leave(&t.place)
	}
	t.leading = false
}

// fetchMoved is called when the fetch that is followed has news.
func (t *Transaction) fetchMoved() {
	if t.behind != nil {
		t.behind.moved()
		return
	}
	if t.state != waiting {
		if t.state == answering {
			t.on(evMoved)
		}
		return
	}
	f := t.place.f
	f.mu.Lock()
	p, why, hushed, left := f.progress, f.failure, f.hushed, f.left
	suits := t.leading || f.head.shared && (len(f.head.vary) == 0 || t.sel.MatchVary(f.head.vary)) && f.servesLocked(t)
	f.mu.Unlock()
	switch {
	case p == pending:
	case p == again && t.serve:
		t.leavePlace()
		t.found()
		t.serveStored(&t.validated, t.lines)
	case p == again:
		if left {
			t.looks-- // or a few clients that leave would send all that wait to the origin at once
		}
		t.on(evAgain)
	case p == failed && freshness.ErrorStatus(why.status) && t.standIn():
	case p == failed && hushed:
		t.on(evApart)
	case p == failed:
		t.fail(why.status, why.text)
	case suits:
		t.answerFrom(f)
	default:
		t.on(evApart)
	}
}

// takeTunnel takes over the connection to an origin that has switched.
func (t *Transaction) takeTunnel(s origin.Switched, early []byte) {
	t.switched = s
	t.early = append(t.early[:0], early...)
	t.on(evSwitched)
}

// Tunnelled reports whether the connection has left HTTP.
func (t *Transaction) Tunnelled() bool { return t.state == tunnelling }

// TakeTunnel gives the origin's connection away, with the status to answer with, the field lines of
// its 101 and what it sent behind them, both valid until End.
func (t *Transaction) TakeTunnel() (s origin.Switched, status int, lines, early []byte) {
	s, t.switched = t.switched, origin.Switched{FD: -1}
	h := &t.place.f.head
	return s, h.status, h.lines, t.early
}
