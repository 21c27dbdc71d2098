package cache

import (
	"fmt"
	"testing"
)

// reached is the key under which a URI lies for those who say how they have reached it; "": its own.
func reached(s *Store, uri, way string) Key {
	k := s.keyOfURI([]byte(uri))
	if way == "" {
		return k
	}
	return s.KeyOf([]byte("http"), []byte(uri), []byte(way), nil)
}

// keep stores a response, or, of what begins with "part", a part of one, that came at a time.
func keep(t *testing.T, s *Store, uri, way string, came int64) {
	t.Helper()
	k, m := reached(s, uri, way), Meta{Status: 200, Lifetime: 100e9, ResponseTime: came}
	if len(way) > 3 && way[:4] == "part" {
		k, m.RangeTotal = k.Parts(), 100
	}
	if err := putUnder(t, s, k, &m, uri, "", ""); err != nil {
		t.Fatal(err)
	}
}

// expectKept compares the times at which what is found came.
func expectKept(t *testing.T, s *Store, want ...int64) {
	t.Helper()
	got := map[int64]bool{}
	s.Walk(func(o *Object) bool { got[o.Meta().ResponseTime] = true; return true })
	for _, n := range want {
		if !got[n] {
			t.Errorf("what came at %d is gone", n)
		}
		delete(got, n)
	}
	if len(got) > 0 {
		t.Errorf("what came at %v is still there", got)
	}
}

func TestSweep(t *testing.T) {
	s := newStore(t, small, Options{})
	keep(t, s, "h/a", "", 1)
	keep(t, s, "h/a", "one", 2)
	keep(t, s, "h/a", "two", 3)
	keep(t, s, "h/a", "part", 4)
	keep(t, s, "h/b", "one", 5)
	s.RemoveOthers([]byte("h/a"), 50)
	if s.sweep(); len(s.sweeps.at) != 0 {
		t.Error("something is waiting although a URI has one key")
	}
	expectKept(t, s, 1, 2, 3, 4, 5)

	s.NoteKeys()
	below := &cellar{map[Key]string{reached(s, "h/a", "three"): "h/a ", reached(s, "h/b", "three"): "h/b ", reached(s, "h/a", ""): "h/a "}}
	s.SetLower(below)
	keep(t, s, "h/a", "four", 60) // since
	s.RemoveOthers([]byte("h/a"), 40)
	s.RemoveOthers([]byte("h/a"), 50)
	s.RemoveOthers([]byte("h/c"), 50)
	s.sweep()
	expectKept(t, s, 1, 5, 60)
	if len(below.kept) != 2 || below.Has(reached(s, "h/a", "three")) {
		t.Errorf("below is left %v", below.kept)
	}
	if len(s.sweeps.at) != 0 || len(s.sweeps.free) != maxSwept {
		t.Errorf("%d are waiting, %d places are free", len(s.sweeps.at), len(s.sweeps.free))
	}
}

// What is waiting when its server dies is done by the next one.
func TestSweepAfterADeath(t *testing.T) {
	mem, _ := shared(t, small)
	s := open(t, mem, Options{})
	s.NoteKeys()
	keep(t, s, "h/a", "one", 1)
	keep(t, s, "h/b", "one", 2)
	s.RemoveOthers([]byte("h/a"), 50)
	next := open(t, mem, Options{})
	s.RemoveOthers([]byte("h/b"), 50) // by one that is not the server any more
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { next.Sweep(stop); close(ended) }()
	for left := 2; left > 1; {
		left = 0
		next.Walk(func(*Object) bool { left++; return true })
	}
	close(stop)
	<-ended
	expectKept(t, next, 2)
	if third := open(t, mem, Options{}); len(third.sweeps.at) != 0 {
		t.Error("it is done once more")
	}
}

// Of more URIs than can be waiting none is forgotten.
func TestSweepOfMany(t *testing.T) {
	mem, _ := shared(t, small)
	s := open(t, mem, Options{})
	s.NoteKeys()
	keep(t, s, "h/a", "", 1)
	keep(t, s, "h/last", "one", 2)
	keep(t, s, "h/later", "one", 60)
	for i := range maxSwept {
		s.RemoveOthers(fmt.Append(nil, "h/", i), 50)
	}
	if len(s.sweeps.hurry) == 0 {
		t.Error("it does not hurry")
	}
	s.RemoveOthers([]byte("h/last"), 50)
	s = open(t, mem, Options{}) // nor by a death
	s.sweep()
	expectKept(t, s, 1, 60)
	if s.fences.all.Load() != 0 || len(s.sweeps.free) != maxSwept {
		t.Error("something is still waiting")
	}
}
