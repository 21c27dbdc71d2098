package transaction

import (
	"net/netip"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
)

// Stale responses are served in two cases that no client asks for (RFC 5861).
//
// While they are validated: the client gets what there is at once, and a fetch that
// nobody waits for asks the origin. It is like every other, so who comes when the window is over may follow it; but it
// dies with the process, and its failure changes nothing: the next request begins another.
//
// In place of an error: when a fetch has failed, or brought 500, 502, 503 or 504, each
// transaction that waits for it looks into the cache once more. What to do follows from the request and
// what is stored, so a successor decides the same.

// A refresh is the client of a fetch that nobody waits for: it has a copy of
// the request that found the response stale, and ends with the fetch. Owned by the loop.
type refresh struct {
	txn    Transaction
	req    http1.Request
	head   []byte
	peer   netip.AddrPort
	ending bool
}

// Peer implements Client: the origin is told for whom it is.
func (r *refresh) Peer() netip.AddrPort { return r.peer }

// Identity implements Client: no successor finds it again.
func (r *refresh) Identity() Identity { return Identity{} }

// LeaveCustody implements Client: it is in none.
func (r *refresh) LeaveCustody() {}

// Wake implements Client; there is never a reply.
func (r *refresh) Wake() {}

// Interim implements Client.
func (r *refresh) Interim(int, int, []byte) {}

// RequestBody implements Client: what may be answered from the cache has none.
func (r *refresh) RequestBody() origin.RequestBody { return nil }

// maxRefreshes bounds the fetches of a loop that nobody waits for. Without a bound one client could begin as many as there are
// stale responses, as fast as it can ask for them; beyond it clients wait for the origin, as they do
// outside the window.
const maxRefreshes = 256

// mayRefresh reports whether what is stale can be validated behind the client's back. What a HEAD brings validates
// nothing, and a part is validated by a request for its range.
func (t *Transaction) mayRefresh() bool {
	return t.req.Method == http1.GET && t.obj.Meta().RangeTotal == 0 && t.env.refreshes < maxRefreshes
}

// refreshFlight is what the validation of t.obj behind clients' backs is entered under. It is not t.flight: while the
// responses to others cannot be stored, or another alternate is fetched, this one is to be validated all the same.
func (t *Transaction) refreshFlight() cache.Key {
	return t.alternate(t.obj.Vary())
}

// refresh validates what is stored for t's key, unless somebody does so already.
func (t *Transaction) refresh() {
	e := t.env
	if t.control.NoStore {
		return // nothing of what it brings could be kept
	}
	f := &fetch{env: e, loop: e.Loop, key: t.key, flight: t.refreshFlight(), passes: t.passes(), store: true}
	if e.Flights.Join(f.flight, t.asker(), f, e.Loop.Now(), func(*fetch) bool { return false }) != cache.Lead {
		return
	}
	f.collapsed = true
	r := &refresh{req: *t.req, head: append([]byte(nil), t.head...), peer: t.client.Peer()}
	r.req.Fields = append([]http1.Field(nil), t.req.Fields...)
	b := &r.txn
	b.take(e, r, &r.req, r.head)
	b.settings, b.began, b.behind = t.settings, e.Loop.Wall(), r
	if status, _ := b.findRoute(); status == 0 && b.findKey() && !b.fresh() {
		e.Stats.Inc(stats.CacheBackground)
		e.refreshes++
		b.state = looking
		f.begin(b)
		return
	}
	f.finish(again, reason{})
	b.obj.Release()
}

// fresh looks once more, now that nobody else can begin to fetch the key. What it finds is what the fetch validates.
func (t *Transaction) fresh() bool {
	t.obj, _ = t.env.Cache.Lookup(t.key, &t.sel)
	return t.obj.Valid() && t.verdict() == freshness.Fresh
}

// moved takes the news of the fetch: as long as something is coming into the cache,
// the transaction stays.
func (r *refresh) moved() {
	f := r.txn.place.f
	f.mu.Lock()
	goesOn := f.progress == pending || f.progress == open && f.writing
	r.txn.place.waiting = goesOn
	f.mu.Unlock()
	if goesOn || r.ending {
		return
	}
	r.ending = true
	r.txn.env.Loop.PostTask(r) // the fetch is still at work
}

// RunTask implements eventloop.Task: the end.
func (r *refresh) RunTask() {
	r.txn.env.refreshes--
	r.txn.End()
}

// validating serves what is stored, although it is stale, and has it validated.
func (t *Transaction) validating() {
	t.env.Stats.Inc(stats.CacheStaleRevalidating)
	t.detail = whileRevalidating
	t.refresh()
	t.hit()
}

// standIn answers with a stale response in place of an error. False: there is none that may be.
func (t *Transaction) standIn() bool {
	o, ok := t.pinOnError()
	if !ok {
		return false
	}
	t.leavePlace()
	t.obj.Release()
	t.obj = o
	t.env.Stats.Inc(stats.CacheStaleOnError)
	t.detail = onError
	t.found()
	t.serveStored(o.Meta(), o.Head())
	return true
}

// pinOnError finds what may be served in place of an error, and pins it.
func (t *Transaction) pinOnError() (cache.Object, bool) {
	if !t.keyed {
		return cache.Object{}, false
	}
	o, found := t.env.Cache.Lookup(t.key, &t.sel)
	if !found {
		return o, false
	}
	if freshness.OnError(o.Meta(), &t.control, t.settings.Freshness.StaleIfError, t.env.Loop.Wall()) {
		return o, true
	}
	o.Release()
	return cache.Object{}, false
}

// hushes reports whether a response is not passed on, since there is something better: it is an error,
// and the leader is served what is stored; or nobody waits for it.
func (f *fetch) hushes(status int) bool {
	if !freshness.ErrorStatus(status) {
		return false
	}
	if f.lead.behind != nil {
		return true
	}
	o, ok := f.lead.pinOnError()
	o.Release()
	return ok
}

// hush ends the fetch as if the origin had not answered (RFC 9111 §4.3.3).
func (f *fetch) hush(status int) {
	f.lead.fwdStatus = uint16(status)
	f.mu.Lock()
	f.hushed = true
	f.mu.Unlock()
	f.finish(failed, reason{status, "the origin answered with an error"})
}

// headSeen holds the response to a HEAD against what is stored for a GET (RFC 9111 §4.3.5).
func (f *fetch) headSeen(x *freshness.Exchange) {
	t := f.lead
	if !t.keyed || t.req.Method != http1.HEAD {
		return
	}
	o, found := t.env.Cache.Lookup(t.key, &t.sel)
	if !found {
		return
	}
	defer o.Release()
	switch freshness.HeadEffect(x, o.Meta(), o.Head(), o.BodyLen()) {
	case freshness.Outdates:
		f.env.Store.Remove(t.key)
	case freshness.Freshens:
		meta, lines, why, err := f.env.update.Apply(x, o.Meta(), o.Head())
		if err != nil || why != freshness.Storable || len(lines) > maxLines {
			return
		}
		if n, err := f.env.Cache.Update(&o, &meta, lines); err == nil {
			n.Release()
		}
	}
}

// conditional reports whether the client has a response already and asks whether it is still good.
func (t *Transaction) conditional() bool {
	return t.req.Has(header.IfNoneMatch) || t.req.Has(header.IfModifiedSince)
}
