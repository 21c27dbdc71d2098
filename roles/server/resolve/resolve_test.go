package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	first  = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	second = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
)

// a fake name server: each answer is given when the test sends it.
type server struct{ answers chan answer }

type answer struct {
	addrs []netip.Addr
	err   error
}

func (s server) lookup(context.Context, string) ([]netip.Addr, error) {
	a := <-s.answers
	return a.addrs, a.err
}

func start() (*Resolver, server, *time.Time) {
	s := server{make(chan answer)}
	r := New(time.Minute, s.lookup)
	now := time.Unix(1000, 0)
	r.now = func() time.Time { return now }
	return r, s, &now
}

func post(f func()) bool { f(); return true }

// ask resolves host in the background and returns where the answer arrives.
func ask(r *Resolver, host string) chan answer {
	got := make(chan answer, 1)
	r.Resolve(host, post, func(a []netip.Addr, err error) { got <- answer{a, err} })
	return got
}

func TestLiteralsNeedNoLookup(t *testing.T) {
	r, _, _ := start()
	for _, lit := range []string{"127.0.0.1", "::1", "::ffff:192.0.2.1"} {
		a, ok := r.Cached(lit)
		if !ok || len(a) != 1 || a[0].Is4In6() {
			t.Errorf("%s: got %v, %v", lit, a, ok)
		}
	}
}

func TestAnswersAreRememberedForTheTTL(t *testing.T) {
	r, s, now := start()
	if _, ok := r.Cached("h"); ok {
		t.Fatal("a name never asked for is known")
	}
	one, two := ask(r, "h"), ask(r, "h")
	s.answers <- answer{addrs: first}
	for _, c := range []chan answer{one, two} {
		if a := <-c; a.err != nil || a.addrs[0] != first[0] {
			t.Errorf("got %v, want one look-up's answer for both", a)
		}
	}
	if a, ok := r.Cached("h"); !ok || a[0] != first[0] {
		t.Errorf("Cached: got %v %v", a, ok)
	}
	*now = now.Add(2 * time.Minute)
	if _, ok := r.Cached("h"); ok {
		t.Error("the answer outlived its TTL")
	}
	again := ask(r, "h")
	s.answers <- answer{addrs: second}
	if a := <-again; a.addrs[0] != second[0] {
		t.Errorf("got %v, want the new answer", a)
	}
}

func TestAnOldAnswerOutlivesTheNameServer(t *testing.T) {
	r, s, now := start()
	got := ask(r, "h")
	s.answers <- answer{addrs: first}
	<-got
	*now = now.Add(time.Hour)
	got = ask(r, "h")
	s.answers <- answer{err: errors.New("no answer")}
	if a := <-got; a.err != nil || a.addrs[0] != first[0] {
		t.Errorf("got %v, want the old answer", a)
	}
}

func TestFailuresAreDelivered(t *testing.T) {
	r, s, _ := start()
	for _, a := range []answer{{err: errors.New("no such host")}, {}} {
		got := ask(r, "h")
		s.answers <- a
		if a := <-got; a.err == nil {
			t.Errorf("got %v, want an error", a)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	r := New(time.Minute, func(context.Context, string) ([]netip.Addr, error) { return first, nil })
	for i := range maxNames + 10 {
		<-ask(r, fmt.Sprint("host", i))
	}
	if n := len(r.names); n > maxNames {
		t.Errorf("got %d names, want at most %d", n, maxNames)
	}
}
