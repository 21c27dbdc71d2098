package transaction

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/custody/custodytest"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
)

// estate is what outlives a server.
type estate struct {
	journal *queue.Journal
	cache   []byte
}

var estateShape = buffer.Shape{Records: 8, Smalls: 8, Larges: 4}

func newEstate(t *testing.T) *estate {
	t.Helper()
	j := custodytest.Journal(t, 8, estateShape)
	mem, err := unix.Mmap(-1, 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return &estate{j, mem}
}

// env is the estate as a server of this generation sees it, with these pages in use.
func (e *estate) env(t *testing.T, generation uint64, used []buffer.Ref) *Env {
	t.Helper()
	a := buffer.Over(e.journal.Pool(0), estateShape)
	if err := a.Reserve(used); err != nil {
		t.Fatal(err)
	}
	s, err := cache.Open(e.cache, cache.Options{Hold: generation > 1})
	if err != nil {
		t.Fatal(err)
	}
	return &Env{
		Arena: a, Store: s, Cache: s.Arena(), Flights: NewFlights(), Generation: generation,
		Book: custody.NewBook(e.journal, 0, a, nil),
	}
}

// after is the fetch as the next server finds it.
func (e *estate) after(t *testing.T, f *fetch) *Resumed {
	t.Helper()
	var used []buffer.Ref
	if !FetchPages(f.env.Arena, f.name, func(r buffer.Ref) { used = append(used, r) }) {
		t.Fatal("there is no record of the fetch")
	}
	r, ok := e.env(t, f.env.Generation+1, used).ResumeFetch(f.name)
	if !ok {
		t.Fatal("the fetch is not resumed")
	}
	return r
}

// A body that cannot be stored to its end goes on in the window. The server dies between giving the fill up
// and noting where the window begins.
func TestTheWindowBeginsWhereTheFillEnds(t *testing.T) {
	const stored, noted = 1000, 100
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: -1}}
	f.key = f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil)
	w, err := f.env.Cache.Create(f.key, &cache.Meta{Status: 200}, nil, nil, []byte("A: b\r\n"), -1)
	if err != nil {
		t.Fatal(err)
	}
	f.w, f.writing = w, true
	f.note(custody.StepOpened)
	for i := range stored {
		if _, err := w.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	w.Abort()

	next := e.after(t, f).f
	next.OriginResumed(noted, stored-noted)
	space := next.Space()
	const more = 500
	for i := range more {
		space[i] = byte(stored + i)
	}
	next.Commit(more)
	p := &follower{f: next}
	for off := int64(0); off < stored+more; {
		b, state := p.Bytes(off)
		if len(b) == 0 {
			t.Fatalf("byte %d: nothing is there, %v", off, state)
		}
		for _, c := range b {
			if c != byte(off) {
				t.Fatalf("byte %d: got %d, want %d", off, c, byte(off))
			}
			off++
		}
	}
}

// The server dies between noting that a fetch has failed and the answer to its leader.
func TestAFailureKeepsItsStatus(t *testing.T) {
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil)}
	f.note(custody.StepFetch)
	f.followers = []*follower{{waiting: false}}
	f.finish(failed, reason{504, "the origin took too long"})
	if got := e.after(t, f).f.failure; got.status != 504 || got.text == "" {
		t.Errorf("got %+v", got)
	}
}

// An arena that had no page for a fetch's record has left names that name nothing.
func TestNoNameNamesNoFetch(t *testing.T) {
	e := newEstate(t)
	if FetchPages(e.env(t, 1, nil).Arena, custody.Name{}, func(buffer.Ref) { t.Error("it has a page") }) {
		t.Error("it is found")
	}
}

// A connection's record still names a fetch that is over, and its page is somebody else's by then. The server dies.
func TestAPageThatHasChangedHandsIsNoFetch(t *testing.T) {
	for changes := range 4 {
		e := newEstate(t)
		f := &fetch{env: e.env(t, 1, nil)}
		for range 3 {
			f.note(custody.StepFetch)
		}
		name := f.name
		f.forget()
		ref, ok := f.env.Arena.GetRecord()
		if !ok || ref != name.Page {
			t.Fatalf("the next record is in page %#x, not %#x", ref, name.Page)
		}
		for v := range uint64(changes) {
			queue.RecordAt[uint64](f.env.Arena.Bytes(ref)).Commit(&v, custody.StepHead)
		}
		if FetchPages(f.env.Arena, name, func(buffer.Ref) {}) {
			t.Errorf("after %d commits of another record the fetch is there again", changes)
		}
	}
}

// The server dies between noting a response's head of the fetch and of the connection. The head comes
// again, maybe when the client that asked for it has gone, and the body from its beginning.
func TestAHeadMayComeTwice(t *testing.T) {
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: -1}}
	f.key = f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil)
	w, err := f.env.Cache.Create(f.key, &cache.Meta{Status: 200}, nil, nil, nil, -1)
	if err != nil {
		t.Fatal(err)
	}
	f.w, f.writing = w, true
	f.note(custody.StepOpened)
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}

	next := e.after(t, f).f
	sink := next.OriginHead(nil, nil, 0)
	for _, part := range []string{"hel", "lo wor", "ld"} {
		for rest := part; len(rest) > 0; {
			n := copy(sink.Space(), rest)
			sink.Commit(n)
			rest = rest[n:]
		}
	}
	if got, _ := (&follower{f: next}).Bytes(0); string(got) != "hello world" {
		t.Errorf("got %q", got)
	}
}

// leaver is a client that may have left custody.
type leaver struct {
	nobody
	left bool
}

func (l *leaver) LeaveCustody() { l.left = true }

// What a successor would send anew, because it does not know that it was sent, is found by none if it must not be sent
// twice.
func TestARequestThatIsNotNotedLeavesCustody(t *testing.T) {
	for method, want := range map[http1.Method]bool{http1.GET: false, http1.PUT: false, http1.DELETE: false, http1.POST: true, http1.PATCH: true} {
		l := &leaver{}
		f := &fetch{lead: &Transaction{client: l}}
		f.x.Method = method
		f.OriginUnkept()
		if l.left != want {
			t.Errorf("%v: left %v, want %v", method, l.left, want)
		}
	}
	(&fetch{}).OriginUnkept() // nobody waits for it any more
}

// A fetch whose leader has gone with the server has nobody whose request its response could be judged by.
func TestAFetchWithoutItsLeaderIsNotFollowed(t *testing.T) {
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil)}
	f.note(custody.StepFetch)
	next := e.after(t, f)
	next.Link()
	next.f.followers = []*follower{{}} // it has come before Settle could be called
	next.Settle()
	if next.f.progress != again {
		t.Errorf("it is %v", next.f.progress)
	}
}

// What is stored of a response is not all that its leader may have of it. The server dies before the leader's reply is
// rendered.
func TestTheLeaderKeepsItsOwnLines(t *testing.T) {
	const all, stored = "A: 1\r\nSet-Cookie: a=b\r\n", "A: 1\r\n"
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: 5, shared: true}}
	f.key = f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil)
	f.head.own = f.keepLines([]byte(all))
	w, err := f.env.Cache.Create(f.key, &cache.Meta{Status: 200}, nil, nil, []byte(stored), 5)
	if err != nil {
		t.Fatal(err)
	}
	f.w, f.writing, f.head.lines = w, true, w.Head()
	f.note(custody.StepOpened)
	if got := e.after(t, f).f.head; string(got.own) != all || string(got.lines) != stored {
		t.Errorf("the leader gets %q, others get %q", got.own, got.lines)
	}
}

// Of an origin that counts one byte too many the leader gets the Content-Range that it came with. The server dies before
// the leader's reply is rendered.
func TestTheLeaderKeepsItsContentRange(t *testing.T) {
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open}
	f.key = f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil).Parts()
	meta := cache.Meta{Status: 200, Lifetime: 1e9, RangeFrom: 5, RangeTotal: 10}
	w, err := f.env.Cache.Create(f.key, &meta, nil, nil, []byte("A: 1\r\n"), 5)
	if err != nil {
		t.Fatal(err)
	}
	f.w, f.writing = w, true
	f.head = responseHead{status: 200, length: 5, meta: meta, lines: w.Head(), shared: true, bent: true}
	f.note(custody.StepOpened)
	head := []byte("GET / HTTP/1.1\r\nHost: example.com\r\nRange: bytes=5-\r\n\r\n")
	var req http1.Request
	if err := req.Parse(head, nil); err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]*fetch{"before": f, "after": e.after(t, f).f} {
		for leading, want := range map[bool]string{true: "Content-Range: bytes 5-10/11\r\n", false: "Content-Range: bytes 5-9/10\r\n"} {
			lead := &Transaction{env: g.env, req: &req, head: head, leading: leading}
			lead.place = follower{t: lead, f: g}
			lead.reply = Reply{Status: 200, Lines: g.head.lines, Length: g.head.length}
			lead.narrow(&g.head.meta, g.head.lines)
			if got := string(lead.reply.Extra); got != want || lead.reply.Length != 5 || lead.reply.Status != 206 {
				t.Errorf("%s the death, leader %v: got %d %q, %d bytes, want %q", name, leading, lead.reply.Status, got, lead.reply.Length, want)
			}
		}
	}
}

// A body that is not stored comes again from its beginning, because its connection broke as the server died. What its client has had
// already, the client does not release once more: the window moves on without it.
func TestWhatComesAgainDoesNotFillTheWindow(t *testing.T) {
	const had, size = 3 * buffer.Large, 4 * buffer.Large
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: size}}
	f.ringRef, _ = f.env.Arena.GetLarge()
	f.note(custody.StepWindow)

	next := e.after(t, f).f
	p := &follower{f: next, released: had}
	next.followers = []*follower{p}
	next.mu.Lock()
	next.placeLocked()
	next.mu.Unlock()
	for next.at <= had {
		next.Commit(len(next.Space()))
	}
	if b, _ := p.Bytes(had); len(b) == 0 {
		t.Error("nothing is there of what the client waits for")
	}
}

// Of a response that is put together what comes is gone. The parts around it are no use alone.
func TestPartsAroundNothingAreNotServed(t *testing.T) {
	e := newEstate(t)
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: 10}}
	k := f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil)
	w, err := f.env.Cache.Create(k, &cache.Meta{Status: 200, Lifetime: 1e9, RangeFrom: 5, RangeTotal: 10}, nil, nil, nil, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	if f.pieces.back, err = w.Publish(); err != nil {
		t.Fatal(err)
	}
	f.note(custody.StepOpened)
	r := f.describe()
	r.writer = 1 // names nothing
	f.page.record.Commit(&r, custody.StepOpened)

	next := e.after(t, f).f
	if b, state := (&follower{f: next}).Bytes(0); len(b) > 0 || state != origin.BodyFailed {
		t.Errorf("got %q, %v", b, state)
	}
}

// A fetch of a dead server has to be sent anew, and what is configured now has no origin for it.
func TestAFetchWhoseOriginIsGoneFails(t *testing.T) {
	for name, o := range map[string]*remap.Origin{"no rule": nil, "no group": {Name: "group:g", Group: "g"}} {
		e := newEstate(t)
		f := &fetch{env: e.env(t, 1, nil)}
		f.note(custody.StepFetch)
		next := e.after(t, f).f
		next.env.Parents, next.env.Settings = parent.NewDirectory(parent.Settings{}, nil), new(atomic.Pointer[Settings])
		next.lead = &Transaction{client: &refresh{}, match: remap.Match{Origin: o}}
		next.x.Origin = o
		next.followers = []*follower{{}}
		next.refetch()
		if next.progress != failed || next.failure != nowhere {
			t.Errorf("%s: it is %v, %v", name, next.progress, next.failure)
		}
	}
}

// The leader of a response that goes on without it is gone for good. Another of its clients is asked for in its place.
func TestAFollowerOfADeadServerHasARouteAgain(t *testing.T) {
	f := &fetch{env: &Env{}}
	head := []byte("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n")
	var req http1.Request
	if err := req.Parse(head, nil); err != nil {
		t.Fatal(err)
	}
	rules, err := remap.New([]remap.Spec{{Prefix: "/", Origin: "http://127.0.0.1:9"}})
	if err != nil {
		t.Fatal(err)
	}
	f.followers = []*follower{{t: &Transaction{env: f.env, client: &refresh{}, req: &req, head: head, settings: &Settings{Remap: rules}}}}
	if !f.findLead() || f.lead.homeless() || f.x.Origin == nil {
		t.Errorf("its origin is %v", f.x.Origin)
	}
}
