package cache

import (
	"fmt"
	"slices"
	"testing"
)

// diary is a tier below that writes down what it is told.
type diary struct{ lines []string }

func (d *diary) Published(k Key, vary []byte, id ID, _ int64) {
	d.lines = append(d.lines, fmt.Sprintf("published %x %q %v", k[0], vary, id != 0))
}
func (d *diary) Has(Key) bool { return false }

func (d *diary) Expect(Key) {}

func (d *diary) Count(Key) int { return 0 }

func (d *diary) Settle() bool { return true }

func (d *diary) Purge(func(Key, []byte, []byte) bool) bool { return true }

func (d *diary) Removed(k Key) { d.lines = append(d.lines, fmt.Sprintf("removed %x", k[0])) }

func TestTheTierBelowIsTold(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	d := new(diary)
	s.SetLower(d)
	k := Key{7}
	o := store(t, a, k, 1, "a: b\r\n", 100, true)
	u, err := a.Update(&o, o.Meta(), o.Head())
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
	u.Release()
	s.Remove(k)
	s.SetLower(nil)
	o = store(t, a, k, 1, "", 100, true)
	o.Release()
	line := `published 7 "a: b\r\n" true`
	if want := []string{line, line, "removed 7", "removed 7"}; !slices.Equal(d.lines, want) {
		t.Errorf("was told %q, want %q", d.lines, want)
	}
}

// TestPublishLoadedGivesWay: to what is there, and to a removal; to another alternate it does not.
func TestPublishLoadedGivesWay(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	d := new(diary)
	s.SetLower(d)
	load := func(k Key, v byte, vary string, still bool) bool {
		t.Helper()
		w, err := s.Create(k, &Meta{Lifetime: int64(v)}, uriOf(k), []byte(vary), sampleHead(v), 100)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Release()
		if _, err := w.Write(content(k, v, 100)); err != nil {
			t.Fatal(err)
		}
		ok, err := w.PublishLoaded(func() bool { return still })
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	k := keyN(1)
	if load(k, 1, "", false) || s.Has(k, nil) {
		t.Error("what was removed meanwhile was published")
	}
	if !load(k, 1, "", true) || !s.Has(k, nil) {
		t.Error("was not published")
	}
	if load(k, 2, "", true) {
		t.Error("replaced what was there")
	}
	if !load(k, 3, "a: b\r\n", true) {
		t.Error("another alternate was not published")
	}
	o, ok := s.Find(k, nil)
	if !ok || !o.OnDisk() {
		t.Fatal("not there, or not marked")
	}
	check(t, &o, 1, 100)
	if same, ok := s.OpenStored(o.ID()); !ok {
		t.Error("not the stored one")
	} else {
		same.Release()
	}
	n := store(t, a, k, 4, "", 100, true)
	n.Release()
	if _, ok := s.OpenStored(o.ID()); ok {
		t.Error("opened what was replaced")
	}
	o.Release()
	if len(d.lines) != 1 {
		t.Errorf("told of what came from below: %q", d.lines)
	}
	if n := s.Stats().Pinned; n > 1 {
		t.Errorf("%d segments still pinned", n)
	}
}

// TestTheSeedCanBeGiven: keys are then the tier's below, also in a store that had another seed.
func TestTheSeedCanBeGiven(t *testing.T) {
	mem, _ := shared(t, small)
	if _, ok := SeedOf(mem); ok {
		t.Error("an empty mapping has a seed")
	}
	key := func(o Options) Key {
		t.Helper()
		s, err := Open(mem, o)
		if err != nil {
			t.Fatal(err)
		}
		return s.KeyOf([]byte("http"), []byte("a"), []byte("/"), nil)
	}
	random := key(Options{})
	seed, ok := SeedOf(mem)
	if !ok || key(Options{Seed: seed}) != random {
		t.Error("its own seed changes the keys")
	}
	given := key(Options{Seed: [2]uint64{1, 2}})
	if given == random || key(Options{}) != given {
		t.Error("the seed given does not stay")
	}
	mem, _ = shared(t, small)
	if key(Options{Seed: [2]uint64{1, 2}}) != given {
		t.Error("two stores with one seed have different keys")
	}
}

// TestPublishLoadedReplacesWhatHasLostItsBody: a record outlives its body when that lies in an older segment; nobody can open
// it then, and it must not be in the way of what can be.
func TestPublishLoadedReplacesWhatHasLostItsBody(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	k := keyN(1)
	o := store(t, a, k, 1, "", 100_000, false)
	u, err := a.Update(&o, o.Meta(), o.Head())
	if err != nil {
		t.Fatal(err)
	}
	body := s.fragment(u.hdr, 0).loc.segment()
	o.Release()
	u.Release()
	s.ring.Lock()
	h := &s.segs[body]
	h.word.Store(segmentWord(generationOf(h.word.Load()), segCondemned))
	s.ring.Unlock()
	if !s.segs[u.loc.segment()].serves(u.loc.generation()) {
		t.Fatal("the record is gone, too")
	}
	if s.Has(k, nil) {
		t.Fatal("it can be opened")
	}
	w, err := s.Create(k, &Meta{Lifetime: 2}, uriOf(k), nil, sampleHead(2), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if _, err := w.Write(content(k, 2, 10)); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.PublishLoaded(func() bool { return true }); !ok || err != nil {
		t.Errorf("it was not published: %v", err)
	}
	n, ok := s.Find(k, nil)
	if !ok {
		t.Fatal("it is not there")
	}
	check(t, &n, 2, 10)
	n.Release()
}
