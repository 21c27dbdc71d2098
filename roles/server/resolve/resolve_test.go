package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var (
	first  = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	second = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
)

// rig is a resolver whose name server answers when the test says so, and whose clock the test sets.
type rig struct {
	*Resolver
	answers chan answer

	mu     sync.Mutex // guards what follows
	clock  time.Time
	alarms []func()
}

type answer struct {
	addrs []netip.Addr
	err   error
	ttl   time.Duration
}

func (r *rig) lookup(context.Context, string) (Answer, error) {
	a := <-r.answers
	return Answer{a.addrs, a.ttl}, a.err
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.clock.Add(d)
}

func start() *rig {
	r := &rig{answers: make(chan answer), clock: time.Unix(1000, 0)}
	r.Resolver = New(Limits{Min: time.Second, Max: time.Hour}, r.lookup)
	r.now = func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.clock
	}
	r.after = func(_ time.Duration, f func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.alarms = append(r.alarms, f)
	}
	return r
}

// alarm runs what was to run later.
func (r *rig) alarm() {
	r.mu.Lock()
	alarms := r.alarms
	r.alarms = nil
	r.mu.Unlock()
	for _, f := range alarms {
		f()
	}
}

func post(f func()) bool { f(); return true }

// ask resolves host in the background and returns where the answer arrives.
func ask(r *Resolver, host string) chan answer {
	got := make(chan answer, 1)
	r.Resolve(host, post, func(a []netip.Addr, err error) { got <- answer{addrs: a, err: err} })
	return got
}

// know lets the resolver learn an answer.
func (r *rig) know(t *testing.T, a answer) {
	t.Helper()
	got := ask(r.Resolver, "h")
	r.answers <- a
	if g := <-got; (g.err != nil) != (a.err != nil) {
		t.Fatalf("got %v of %v", g, a)
	}
}

func (r *rig) wantCached(t *testing.T, want []netip.Addr) {
	t.Helper()
	a, ok := r.Cached("h")
	if ok != (want != nil) || ok && a[0] != want[0] {
		t.Errorf("Cached: got %v %v, want %v", a, ok, want)
	}
}

func TestLiteralsNeedNoLookup(t *testing.T) {
	r := start()
	for _, lit := range []string{"127.0.0.1", "::1", "::ffff:192.0.2.1"} {
		a, ok := r.Cached(lit)
		if !ok || len(a) != 1 || a[0].Is4In6() {
			t.Errorf("%s: got %v, %v", lit, a, ok)
		}
	}
}

func TestAnswersAreRememberedForTheirTTL(t *testing.T) {
	r := start()
	r.wantCached(t, nil)
	one, two := ask(r.Resolver, "h"), ask(r.Resolver, "h")
	r.answers <- answer{addrs: first, ttl: time.Minute}
	for _, c := range []chan answer{one, two} {
		if a := <-c; a.err != nil || a.addrs[0] != first[0] {
			t.Errorf("got %v, want one look-up's answer for both", a)
		}
	}
	r.wantCached(t, first)
	r.advance(61 * time.Second)
	r.wantCached(t, nil)
	r.know(t, answer{addrs: second, ttl: time.Minute})
	r.wantCached(t, second)
}

func TestATTLIsBounded(t *testing.T) {
	for _, c := range []struct{ ttl, held, gone time.Duration }{
		{0, 900 * time.Millisecond, 1100 * time.Millisecond},
		{10 * 24 * time.Hour, 59 * time.Minute, 61 * time.Minute},
	} {
		r := start()
		r.know(t, answer{addrs: first, ttl: c.ttl})
		r.advance(c.held)
		if a := r.names["h"]; r.now().After(a.expires) {
			t.Errorf("a TTL of %v does not last for %v", c.ttl, c.held)
		}
		r.advance(c.gone - c.held)
		if a := r.names["h"]; !r.now().After(a.expires) {
			t.Errorf("a TTL of %v lasts for %v", c.ttl, c.gone)
		}
	}
}

// A name in use is looked up again before its answer expires, and nobody waits for that.
func TestANameInUseIsRefreshed(t *testing.T) {
	r := start()
	r.know(t, answer{addrs: first, ttl: time.Minute})
	r.advance(55 * time.Second)
	r.wantCached(t, first)
	r.wantCached(t, first) // and asks once only: the next answer is taken by that look-up
	r.answers <- answer{addrs: second, ttl: time.Minute}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if a, _ := r.Cached("h"); a[0] == second[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new answer is never used")
		}
	}
	r.advance(50 * time.Second)
	r.wantCached(t, second)
}

func TestAnOldAnswerOutlivesTheNameServer(t *testing.T) {
	r := start()
	r.know(t, answer{addrs: first, ttl: time.Minute})
	r.advance(time.Hour)
	got := ask(r.Resolver, "h")
	r.answers <- answer{err: errors.New("no answer")}
	if a := <-got; a.err != nil || a.addrs[0] != first[0] {
		t.Errorf("got %v, want the old answer", a)
	}
	r.wantCached(t, first)
	r.advance(2 * staleMost)
	got = ask(r.Resolver, "h")
	r.answers <- answer{err: errors.New("no answer")}
	if a := <-got; !errors.Is(a.err, ErrUnresolved) {
		t.Errorf("after two days: %v", a)
	}
}

// A name server that says nothing lets nobody wait who could have an older answer.
func TestNobodyWaitsForASilentNameServer(t *testing.T) {
	r := start()
	r.know(t, answer{addrs: first, ttl: time.Minute})
	r.advance(time.Hour)
	got := ask(r.Resolver, "h")
	r.alarm()
	if a := <-got; a.err != nil || a.addrs[0] != first[0] {
		t.Errorf("got %v, want the old answer", a)
	}
	r.wantCached(t, first)
	r.answers <- answer{addrs: second, ttl: time.Minute} // late, and learnt
	for a, _ := r.Cached("h"); a[0] != second[0]; a, _ = r.Cached("h") {
	}
}

// follow asks as one does who keeps connections to h, and wants them to lead to want; nil: nowhere.
func (r *rig) follow(t *testing.T, wantKnown bool, want []netip.Addr) (again time.Duration) {
	t.Helper()
	a, known, again := r.Follow("h")
	if known != wantKnown || len(a) != len(want) || len(a) > 0 && a[0] != want[0] {
		t.Errorf("got %v, known %v, want %v, %v", a, known, want, wantKnown)
	}
	return again
}

// looked waits until nothing is being looked up.
func (r *rig) looked() {
	for asking := true; asking; {
		r.Resolver.mu.Lock()
		asking = r.names["h"].asking
		r.Resolver.mu.Unlock()
	}
}

// Who keeps connections waits for no answer: the one that has expired is given until a newer one is there, and where
// nothing is known everything stays as it is.
func TestFollowing(t *testing.T) {
	r := start()
	r.follow(t, false, nil) // and looks it up
	r.answers <- answer{addrs: first, ttl: time.Minute}
	r.looked()
	if again := r.follow(t, true, first); again < 50*time.Second || again > time.Minute {
		t.Errorf("to be asked again after %v, of a minute", again)
	}
	r.advance(time.Hour)
	if again := r.follow(t, true, first); again != followWait {
		t.Errorf("to be asked again after %v, while it is looked up", again)
	}
	r.follow(t, true, first) // looked up once: the next answer is taken by that
	r.answers <- answer{addrs: second, ttl: time.Minute}
	r.looked()
	r.follow(t, true, second)
	r.advance(time.Hour)
	r.follow(t, true, second)
	r.answers <- answer{err: errors.New("no name server answers")}
	r.looked()
	r.follow(t, true, second)
	r.advance(time.Hour)
	r.follow(t, true, second)
	r.answers <- answer{err: &NotFoundError{Host: "h", TTL: time.Minute}}
	r.looked()
	r.follow(t, true, nil)
	r.advance(time.Hour)
	r.follow(t, true, nil)
	r.answers <- answer{err: errors.New("no name server answers")}
	r.looked()
	r.follow(t, false, nil)
}

// That a name does not exist is an answer: it takes an older one away, and holds for a while.
func TestThatThereIsNoSuchNameIsRemembered(t *testing.T) {
	r := start()
	r.know(t, answer{addrs: first, ttl: time.Minute})
	r.advance(time.Hour)
	r.know(t, answer{err: &NotFoundError{Host: "h", TTL: time.Minute}})
	r.wantCached(t, nil)
	r.advance(59 * time.Second)
	if a := <-ask(r.Resolver, "h"); !errors.Is(a.err, ErrUnresolved) {
		t.Errorf("got %v without a look-up", a)
	}
	r.advance(2 * time.Second)
	r.know(t, answer{addrs: second, ttl: time.Minute})
}

func TestFailuresAreDelivered(t *testing.T) {
	r := start()
	for _, a := range []answer{{err: errors.New("no such host")}, {}} {
		got := ask(r.Resolver, "h")
		r.answers <- a
		if a := <-got; !errors.Is(a.err, ErrUnresolved) {
			t.Errorf("got %v, want an error", a)
		}
		r.advance(time.Minute)
	}
}

func TestNamesAreBounded(t *testing.T) {
	r := New(Limits{Max: time.Hour}, func(context.Context, string) (Answer, error) { return Answer{first, time.Hour}, nil })
	for i := range maxNames + 10 {
		<-ask(r, fmt.Sprint("host", i))
	}
	if n := len(r.names); n > maxNames {
		t.Errorf("got %d names, want at most %d", n, maxNames)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	gate := make(chan struct{})
	r := New(Limits{Max: time.Hour}, func(context.Context, string) (Answer, error) { <-gate; return Answer{first, time.Hour}, nil })
	var waiting []chan answer
	for i := range maxAsking {
		waiting = append(waiting, ask(r, fmt.Sprint("host", i)))
	}
	if a := <-ask(r, "one more"); !errors.Is(a.err, ErrUnresolved) {
		t.Errorf("got %v", a)
	}
	close(gate)
	for _, c := range waiting {
		if a := <-c; a.err != nil {
			t.Error(a.err)
		}
	}
}
