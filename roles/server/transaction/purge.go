package transaction

import (
	"net/netip"
	"sync"

	"trafficd/eventloop"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/purge"
)

// A purging is a purge that a client waits for: a walk over the whole cache is no work for a loop. It outlives the
// transaction, which then takes itself out. No successor is told of it: there is no reply yet, so the request begins
// anew there, and a purge may be done twice.
type purging struct {
	t    *Transaction // nil: nobody waits any more; the loop's
	loop *eventloop.Loop
	want purge.Request
	done cache.Purged
	err  error
}

// Purges are what clients wait for, of all loops. A walk costs as much as many requests, so there are few at a time; those
// that come meanwhile wait for them in their order, and beyond that are told to come again.
type Purges struct {
	mu      sync.Mutex
	running int      // guarded by mu
	waiting []func() // guarded by mu
}

const (
	maxPurges        = 2
	maxPurgesWaiting = 100
)

// start has do done, which is no work for a loop, soon. False: too much of that is waiting.
func (q *Purges) start(do func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.running < maxPurges:
		q.running++
		go q.run(do)
	case len(q.waiting) < maxPurgesWaiting:
		q.waiting = append(q.waiting, do)
	default:
		return false
	}
	return true
}

func (q *Purges) run(do func()) {
	for do != nil {
		do()
		do = q.next()
	}
}

// next is what is done next; nil: nothing is waiting.
func (q *Purges) next() (do func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.running--
		return nil
	}
	do = q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	return do
}

// RunTask implements eventloop.Task.
func (p *purging) RunTask() {
	if t := p.t; t != nil {
		t.purging = nil
		t.purged(p)
	}
}

// purge deals with a PURGE (package purge).
func (t *Transaction) purge() {
	if !mayPurge(t.settings.PurgeAllow, t.client.Peer()) {
		t.fail(403, "PURGE is not allowed from your address")
		return
	}
	t.findRule() // of which only what it says of the key matters here
	want, err := purge.Parse(&t.req.FieldSet, t.head, t.path, t.query())
	if err != nil {
		t.fail(400, err.Error())
		return
	}
	p := &purging{t: t, loop: t.env.Loop, want: want}
	if t.env.Store == nil {
		t.env.Stats.Inc(stats.CachePurges)
		t.purged(p)
		return
	}
	store, what := t.env.Store, t.purgeOf(&want)
	if !t.env.Purges.start(func() { p.run(store, what) }) {
		t.fail(503, "too many purges are waiting")
		return
	}
	t.env.Stats.Inc(stats.CachePurges)
	t.purging = p
	t.on(evFetch)
}

// purgeOf makes of a request what the store is told. It refers to nothing of the transaction.
func (t *Transaction) purgeOf(want *purge.Request) cache.Purge {
	c := cache.Purge{Soft: want.Soft, Now: t.env.Loop.Wall(), Tags: want.Tags}
	switch want.By {
	case purge.ByURL:
		c.URI = t.appendURI(nil)
	case purge.ByPrefix:
		path := t.path
		if want.Star {
			path = path[:len(path)-1]
		}
		c.Prefix = cache.AppendURI(nil, schemeHTTP, t.req.Host.In(t.head), path, t.query())
	}
	return c
}

func (p *purging) run(s *cache.Store, c cache.Purge) {
	p.done, p.err = s.Purge(&c)
	p.loop.PostTask(p)
}

// purged answers a PURGE.
func (t *Transaction) purged(p *purging) {
	if p.err != nil {
		t.fail(503, "another server has the cache now")
		return
	}
	n := uint64(p.done.Memory + p.done.Below)
	t.env.Stats.Add(stats.CachePurged, n)
	t.text = append(t.text[:0], `{"purged":`...)
	t.text = header.AppendUint(t.text, n)
	t.text = append(append(append(t.text, `,"by":"`...), p.want.By.String()...), `","soft":`...)
	if p.want.Soft {
		t.text = append(t.text, "true}\n"...)
	} else {
		t.text = append(t.text, "false}\n"...)
	}
	t.local = Memory(t.text)
	extra := append(t.extra[:0], "Purged: "...)
	extra = append(header.AppendUint(extra, n), "\r\n"...)
	t.reply = Reply{Status: 200, Lines: purgedLines, Extra: extra, Age: -1, Length: int64(len(t.text)), Body: &t.local, Local: true}
	t.give()
}

var purgedLines = []byte("Server: trafficd\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n")

// mayPurge reports whether a client is among those who may.
func mayPurge(allow []netip.Prefix, peer netip.AddrPort) bool {
	a := peer.Addr().Unmap()
	for _, p := range allow {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// noteKeys says that what is about to be stored lies under another key than its URI's own, if it does.
func (t *Transaction) noteKeys() {
	if t.req.HasAny(&header.Reached) {
		t.env.Store.NoteKeys()
	}
}

// bear notes which purges the request comes after that is about to be sent.
func (f *fetch) bear() {
	if f.env.Store == nil {
		return
	}
	f.mu.Lock()
	f.born = f.env.Store.Sequence()
	f.mu.Unlock()
}

// depose keeps t from following a fetch that a purge has outrun: from the answer to a purge on nobody gets what was there
// before. f, which is about to take part in the fetching of k, begins now.
func (t *Transaction) depose(f *fetch, k cache.Key) {
	f.born = t.env.Store.Sequence()
	if f.born != 0 {
		t.env.Flights.Depose(k, func(leader *fetch) bool { return leader.outrun(t) })
	}
}

// outrun reports whether a purge has come since f's request was sent, that means or may mean what it
// brings. t asks for the same.
func (f *fetch) outrun(t *Transaction) bool {
	s := f.env.Store
	f.mu.Lock()
	born, lines := f.born, f.head.lines
	f.mu.Unlock()
	if s.Sequence() == born {
		return false
	}
	var b [1024]byte
	return s.Outrun(born, t.appendURI(b[:0]), lines)
}
