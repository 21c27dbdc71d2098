package cache

import (
	"sync"
	"testing"
)

// TestWalkSeesEveryObject: each alternate once, nothing that was removed or evicted.
func TestWalkSeesEveryObject(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	want := map[string]int{}
	for n := range uint64(200) {
		for _, vary := range []string{"", "accept-encoding: gzip\r\n"} {
			o := store(t, a, keyN(n), 1, vary, int(n)*20, n%2 == 0)
			want[string(o.URI())+vary]++
			o.Release()
		}
	}
	for n := range uint64(50) {
		s.Remove(keyN(n))
		delete(want, string(uriOf(keyN(n))))
		delete(want, string(uriOf(keyN(n)))+"accept-encoding: gzip\r\n")
	}
	got := map[string]int{}
	s.Walk(func(o *Object) bool {
		check(t, o, 1, int(o.BodyLen()))
		got[string(o.URI())+string(o.Vary())]++
		return true
	})
	if len(got) != len(want) {
		t.Errorf("saw %d objects, want %d", len(got), len(want))
	}
	for uri, n := range got {
		if n != 1 || want[uri] != 1 {
			t.Errorf("%q seen %d times, want %d", uri, n, want[uri])
		}
	}
	if n := s.Stats().Pinned; n > 1 {
		t.Errorf("%d segments still pinned", n)
	}
}

func TestWalkEndsWhenToldTo(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	for n := range uint64(100) {
		o := store(t, a, keyN(n), 1, "", 10, true)
		o.Release()
	}
	calls := 0
	s.Walk(func(*Object) bool { calls++; return calls < 7 })
	if calls != 7 {
		t.Errorf("got %d calls, want 7", calls)
	}
}

// TestWalkBesideLoops walks while loops store, move, evict and remove, and checks every byte it sees.
func TestWalkBesideLoops(t *testing.T) {
	s := newStore(t, small, Options{})
	var loops sync.WaitGroup
	done := make(chan struct{})
	for n := range 2 {
		a := s.Arena()
		loops.Go(func() { hammer(t, s, a, uint64(n), 3000) })
	}
	go func() { loops.Wait(); close(done) }()
	seen := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		s.Walk(func(o *Object) bool {
			if msg := verify(o, o.Key()); msg != "" {
				t.Error(msg)
				return false
			}
			seen++
			return true
		})
	}
	if seen == 0 {
		t.Error("saw nothing")
	}
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

// TestOnDiskMark: it follows an object that is moved, and no new or updated one.
func TestOnDiskMark(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	o := store(t, a, keyN(1), 1, "", 1000, true)
	if o.OnDisk() {
		t.Error("a new object is marked")
	}
	o.MarkOnDisk()
	u, err := a.Update(&o, o.Meta(), o.Head())
	if err != nil {
		t.Fatal(err)
	}
	if u.OnDisk() {
		t.Error("an updated object is marked")
	}
	u.MarkOnDisk()
	first := u.ID()
	u.Release()
	o.Release()
	for n := uint64(2); ; n++ {
		f := store(t, a, keyN(n), 1, "", 10_000, true)
		f.Release()
		h, ok := a.Lookup(keyN(1), nil)
		if !ok {
			t.Fatal("lost the object")
		}
		marked, moved := h.OnDisk(), h.ID() != first
		h.Release()
		if !marked {
			t.Fatal("the mark got lost")
		}
		if moved {
			return
		}
	}
}

func TestAppendURI(t *testing.T) {
	for _, c := range []struct{ scheme, host, path, query, want string }{
		{"http", "Example.ORG", "/A/b", "", "example.org/A/b"},
		{"http", "example.org:80", "/", "?q=1", "example.org/?q=1"},
		{"http", "example.org:", "/", "?", "example.org/?"},
		{"http", "example.org:8080", "/", "", "example.org:8080/"},
		{"https", "[2001:DB8::1]:443", "/x", "", "[2001:db8::1]/x"},
	} {
		if got := AppendURI([]byte("-"), []byte(c.scheme), []byte(c.host), []byte(c.path), []byte(c.query)); string(got) != "-"+c.want {
			t.Errorf("%v: got %q, want %q", c, got[1:], c.want)
		}
	}
}
