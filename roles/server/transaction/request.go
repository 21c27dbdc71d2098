package transaction

import (
	"bytes"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// plan says what a fetch is for.
type plan struct {
	store    bool // the response may be stored
	collapse bool // others may wait for it
	asks     asking
}

// fetch goes to the origin, or follows a fetch that is under way.
func (t *Transaction) fetch(p plan) {
	t.went()
	f := &fetch{env: t.env, loop: t.env.Loop, key: t.key, flight: t.flight, passes: t.passes(), store: p.store, asks: p.asks}
	if p.asks != askWhole && t.req.Has(header.Range) {
		if p.collapse && t.followFlight(f, f.flight) {
			t.followed()
			return
		}
		f.key, f.flight = f.key.Parts(), f.flight.Parts()
		f.ranged, f.rangeID = true, t.rangeID()
	}
	if p.collapse {
		// A validation may have begun behind somebody's back, while the stored response could be served.
		if t.obj.Valid() && t.obj.Meta().StaleWhileRevalidate > 0 && t.followFlight(f, t.refreshFlight()) {
			t.followed()
			return
		}
		t.depose(f, f.flight)
		switch t.join(f) {
		case cache.Follow:
			t.followed()
			return
		case cache.Pass:
			// Nothing is likely to be stored: whether the client has it already is for the
			// origin to say, in as few bytes as it can.
			f.store = t.obj.Valid() || !t.conditional() || p.asks != askWhole
		case cache.Lead:
			f.collapsed = true
			if t.filledMeanwhile() {
				// Others may be following already: they look again, too.
				f.finish(again, reason{})
				return
			}
		}
	}
	f.begin(t)
}

// followFlight waits for what is entered under k, if that is something f may wait for.
func (t *Transaction) followFlight(f *fetch, k cache.Key) bool {
	t.depose(f, k)
	return t.env.Flights.Follow(k, t.followAs(f))
}

// followAs makes t wait, in the place of f, for a fetch that leads.
func (t *Transaction) followAs(f *fetch) func(leader *fetch) bool {
	return func(leader *fetch) bool { return f.mayFollow(leader) && leader.follow(t) }
}

// join asks who fetches what f would. Nobody is made to wait for what a request with no-store brings: it is for that one
// alone, whatever it is.
func (t *Transaction) join(f *fetch) cache.Verdict {
	follow := t.followAs(f)
	switch {
	case !t.control.NoStore:
		return t.env.Flights.Join(f.flight, t.asker(), f, t.env.Loop.Now(), follow)
	case t.env.Flights.Follow(f.flight, follow):
		return cache.Follow
	}
	return cache.Pass
}

// asker says whether the response may be one that is stored only for others.
func (t *Transaction) asker() cache.Asker {
	if t.req.Has(header.Authorization) {
		return cache.Somebody
	}
	return cache.Anybody
}

// followed goes on with somebody else's fetch.
func (t *Transaction) followed() {
	t.env.Stats.Inc(stats.CacheCollapsed)
	t.follows = true
	t.obj.Release()
	t.pieces.release()
	t.on(evFetch)
	t.fetchMoved() // it may have its head already
}

// filledMeanwhile looks once more, now that nobody else can begin to fetch the
// key: the one before us may have published since we looked.
func (t *Transaction) filledMeanwhile() bool {
	o, found := t.env.Cache.Lookup(t.key, &t.sel)
	if !found {
		return false
	}
	t.obj.Release()
	t.obj = o
	if t.verdict() != freshness.Fresh {
		return false
	}
	t.hit()
	return true
}

// begin sends t's request to the origin.
func (f *fetch) begin(t *Transaction) {
	f.lead = t
	f.stale, t.obj = t.obj, cache.Object{}
	f.pieces, t.pieces = t.pieces, pieces{}
	f.x.Handler = f
	f.describeRequest(t)
	if f.x.Origin.Builtin {
		f.x.Path = string(t.match.AppendTarget(nil, t.path))
	}
	t.leading = true
	f.mu.Lock()
	f.joinLocked(t)
	f.mu.Unlock()
	t.on(evFetch)
	if f.choose() {
		f.send()
	}
}

// describeRequest tells the exchange what there is to know of the leader's request.
func (f *fetch) describeRequest(t *Transaction) {
	f.x.Origin = t.match.Origin
	f.x.ConnectLimit, f.x.ResponseLimit = t.match.Policy().ConnectTimeout, t.match.Policy().ResponseTimeout
	f.x.Leader = t.client.Identity().Conn
	f.x.Method = t.req.Method
	f.x.Body = t.client.RequestBody()
	f.x.Chunked = t.req.Chunked
	f.x.Expect = t.req.Expect100
	f.x.Upgrade = t.mayUpgrade()
	f.x.Tunnel = t.req.Method == http1.CONNECT
	f.x.Fresh = f.x.Tunnel
	f.x.Once = !t.req.Method.Idempotent() || f.x.Body != nil
}

// send starts the exchange with the leader's request. The head is written anew
// each time: it is kept only where the next request writes its own.
func (f *fetch) send() {
	if f.lead.homeless() {
		f.finish(failed, nowhere)
		return
	}
	if f.x.Server == nil && !f.x.Origin.Builtin { // the fetch comes from a server that is dead
		f.tried, f.refused = 0, 0
		if !f.choose() {
			return
		}
	}
	f.started = f.loop.Wall()
	f.x.Attempt++
	if !f.resuming { // what has come already is from before the purges since
		f.bear()
	}
	f.note(custody.StepFetch)
	if f.x.Tunnel {
		f.x.Head = nil
		f.env.Origins.Start(&f.x)
		return
	}
	f.x.Head = f.lead.appendRequest(f.env.scratch[:0], f)
	f.env.scratch = f.x.Head
	if len(f.x.Head) > buffer.Large {
		f.x.Forgo(f.loop.Now())
		f.finish(failed, reason{431, "the request's head is too large to be passed on"})
		return
	}
	f.env.Origins.Start(&f.x)
}

// homeless reports whether there is no origin for the request any more: it was begun by a server that is dead, and
// by what is configured now it would not be.
func (t *Transaction) homeless() bool { return t.match.Origin == nil }

// nowhere is why a fetch cannot be gone on with whose request has no origin any more.
var nowhere = reason{502, "the origin of this rule is not configured any more"}

// appendRequest writes the head of the request as the origin gets it.
func (t *Transaction) appendRequest(b []byte, f *fetch) []byte {
	req, head := t.req, t.head
	b = append(b, req.MethodName.In(head)...)
	b = append(b, ' ')
	b = t.match.AppendTarget(b, t.path)
	b = append(b, t.query()...)
	b = t.appendHost(append(b, " HTTP/1.1\r\nHost: "...))
	b = append(b, "\r\n"...)
	for i := range req.Fields {
		if fld := &req.Fields[i]; !t.withheld(fld, f.store || f.resuming) {
			b = http1.AppendParsed(b, head, fld)
		}
	}
	b = t.appendMaxForwards(b)
	if f.stale.Valid() {
		b = freshness.AppendConditions(b, f.stale.Meta(), f.stale.Head())
	}
	b = f.appendRange(b, t)
	b = t.appendForwardedFor(b)
	b = http1.AppendVia(b, req.Minor, t.settings.Via)
	switch {
	case req.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case req.ContentLength >= 0:
		b = http1.AppendContentLength(b, req.ContentLength)
	}
	if req.Expect100 {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	if f.x.Upgrade {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, req.Value(head, header.Upgrade)...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// withheld reports whether a field of the request is not passed on: what
// concerns the connection only, what is written anew, and, for a response that
// is to be stored, what would bring less than the whole of it.
func (t *Transaction) withheld(f *http1.Field, store bool) bool {
	switch f.ID {
	case header.Host, header.ContentLength, header.Expect, header.MaxForwards:
		return true
	}
	if store && freshness.IsCondition(f.ID) {
		return true
	}
	return t.forged(f) || t.req.HopByHop(t.head, f)
}

// mayUpgrade reports whether a wish to leave HTTP/1.1 is passed on. Not to
// another version of HTTP or to TLS: requests inside such a tunnel would pass by
// every rule that applies to requests. Nor with content, whose end and the
// beginning of the new protocol would be one stream. Nor when any member is no protocol: an
// origin may find one in it that is not seen here.
func (t *Transaction) mayUpgrade() bool {
	if !t.req.Upgrade || t.req.Repeated(header.Upgrade) || t.req.HasContent() {
		return false
	}
	n := 0
	l := header.Members(t.req.Value(t.head, header.Upgrade))
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		name := protocolName(m)
		if n++; name == nil || header.EqualFold(name, "h2c") || header.EqualFold(name, "h2") || header.EqualFold(name, "http") || header.EqualFold(name, "tls") {
			return false
		}
	}
	return n > 0
}

// mayBecome reports whether what an origin has switched to is what it was asked for, and is said (RFC 9110 §7.8).
func (t *Transaction) mayBecome(r *http1.Response, head []byte) bool {
	n := 0
	l := header.Members(r.Value(head, header.Upgrade))
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		if n++; !t.wishesFor(protocolName(m)) {
			return false
		}
	}
	return n > 0 && !r.Repeated(header.Upgrade)
}

// wishesFor reports whether the client's Upgrade has a protocol.
func (t *Transaction) wishesFor(name []byte) bool {
	l := header.Members(t.req.Value(t.head, header.Upgrade))
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		if header.EqualFoldBytes(protocolName(m), name) {
			return true
		}
	}
	return false
}

// protocolName is a member of Upgrade without its version; nil: it is no protocol (RFC 9110 §7.8).
func protocolName(m []byte) []byte {
	name, version, versioned := bytes.Cut(m, slash)
	if !header.IsToken(name) || versioned && !header.IsToken(version) {
		return nil
	}
	return name
}
