package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// testTags reads "Tag: a b" lines.
func testTags(lines []byte, has func(tag []byte) bool) bool {
	for line := range bytes.Lines(lines) {
		if rest, ok := bytes.CutPrefix(line, []byte("Tag: ")); ok {
			for tag := range bytes.FieldsSeq(rest) {
				if has(tag) {
					return true
				}
			}
		}
	}
	return false
}

func taggedStore(t testing.TB) *Store { return newStore(t, small, Options{Tags: testTags}) }

// put stores a response for a URI, asked for at the purge sequence born.
func put(t testing.TB, s *Store, uri, vary, tags string, born uint64) error {
	t.Helper()
	return putUnder(t, s, s.keyOfURI([]byte(uri)), &Meta{Status: 200, Lifetime: 100e9, Born: born}, uri, vary, "Tag: "+tags+"\r\n")
}

// putUnder stores a response under a key of the caller's. What it returns is the error of Publish.
func putUnder(t testing.TB, s *Store, k Key, m *Meta, uri, vary, head string) error {
	t.Helper()
	w, err := s.Create(k, m, []byte(uri), []byte(vary), []byte(head), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if _, err := w.Write([]byte("body")); err != nil {
		t.Fatal(err)
	}
	o, err := w.Publish()
	o.Release()
	return err
}

func TestPurge(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Purge
		gone []string
	}{
		{"URI, with its alternates", Purge{URI: []byte("a.example/x")}, []string{"a.example/x", "a.example/xgzip"}},
		{"URI that is not there", Purge{URI: []byte("a.example/")}, nil},
		{"URI with a query", Purge{URI: []byte("a.example/x?1")}, []string{"a.example/x?1"}},
		{"prefix", Purge{Prefix: []byte("a.example/d/")}, []string{"a.example/d/1", "a.example/d/2"}},
		{"prefix of a host", Purge{Prefix: []byte("b.")}, []string{"b.example/d/1"}},
		{"tag", Purge{Tags: [][]byte{[]byte("red")}}, []string{"a.example/x", "a.example/d/1", "b.example/d/1"}},
		{"tags", Purge{Tags: [][]byte{[]byte("blue"), []byte("none")}}, []string{"a.example/x?1", "a.example/d/1"}},
		{"all at once", Purge{URI: []byte("a.example/x?1"), Prefix: []byte("b."), Tags: [][]byte{[]byte("green")}},
			[]string{"a.example/x?1", "b.example/d/1", "a.example/d/2"}},
	} {
		for _, soft := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " soft ", soft), func(t *testing.T) {
				s := taggedStore(t)
				for _, r := range [][3]string{
					{"a.example/x", "", "red"}, {"a.example/x", "gzip", ""}, {"a.example/x?1", "", "blue"},
					{"a.example/d/1", "", "red blue"}, {"a.example/d/2", "", "green"}, {"b.example/d/1", "", "red"},
				} {
					if err := put(t, s, r[0], r[1], r[2], 0); err != nil {
						t.Fatal(err)
					}
				}
				p := c.p
				p.Soft, p.Now = soft, 50e9
				n, err := s.Purge(&p)
				if err != nil || n.Memory != len(c.gone) || n.Below != 0 {
					t.Errorf("purged %+v, %v, want %d", n, err, len(c.gone))
				}
				gone := map[string]bool{}
				for _, name := range c.gone {
					gone[name] = true
				}
				seen := 0
				s.Walk(func(o *Object) bool {
					seen++
					name := string(o.URI()) + string(o.Vary())
					switch want := o.Meta().Lifetime; {
					case gone[name] && !soft:
						t.Errorf("%s is still there", name)
					case gone[name] && want != 50e9, !gone[name] && want != 100e9:
						t.Errorf("%s lives %d s", name, want/1e9)
					}
					return true
				})
				if want := 6 - len(c.gone); !soft && seen != want || soft && seen != 6 {
					t.Errorf("%d are left", seen)
				}
				if n := s.Stats().Pinned; n > 1 {
					t.Errorf("%d segments still pinned", n)
				}
			})
		}
	}
}

// TestPurgeOutrunsFills: what was asked for before a purge that means it is not stored after it.
func TestPurgeOutrunsFills(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Purge
		want bool // "h/a/b", tagged red, may be stored
	}{
		{"its URI", Purge{URI: []byte("h/a/b")}, false},
		{"another URI", Purge{URI: []byte("h/a/c")}, true},
		{"its prefix", Purge{Prefix: []byte("h/a")}, false},
		{"all of it", Purge{Prefix: []byte("h/a/b")}, false},
		{"another prefix", Purge{Prefix: []byte("h/b")}, true},
		{"a longer prefix", Purge{Prefix: []byte("h/a/b/c")}, true},
		{"its tag", Purge{Tags: [][]byte{[]byte("blue"), []byte("red")}}, false},
		{"another tag", Purge{Tags: [][]byte{[]byte("blue")}}, true},
	} {
		for _, soft := range []bool{false, true} {
			s := taggedStore(t)
			before := s.Sequence()
			c.p.Soft = soft
			if _, err := s.Purge(&c.p); err != nil {
				t.Fatal(err)
			}
			if err := put(t, s, "h/a/b", "", "red", before); (err == nil) != c.want || err != nil && !errors.Is(err, ErrPurged) {
				t.Errorf("%s: got %v, want it stored: %v", c.name, err, c.want)
			}
			if err := put(t, s, "h/a/b", "", "red", s.Sequence()); err != nil {
				t.Errorf("%s: what was asked for after the purge: %v", c.name, err)
			}
		}
	}
}

// TestManyPrefixes: of more purges than are listed none is forgotten.
func TestManyPrefixes(t *testing.T) {
	s := taggedStore(t)
	before := s.Sequence()
	for n := range 3 * fencePrefixes {
		if _, err := s.Purge(&Purge{Prefix: fmt.Appendf(nil, "h/%d/", n)}); err != nil {
			t.Fatal(err)
		}
		if err := put(t, s, "h/0/x", "", "", before); !errors.Is(err, ErrPurged) {
			t.Fatalf("after %d purges: got %v", n+1, err)
		}
		if err := put(t, s, "h/0/y", "", "", s.Sequence()); err != nil {
			t.Fatalf("after %d purges: got %v", n+1, err)
		}
	}
}

func TestPurgeOutrunsUpdate(t *testing.T) {
	s := taggedStore(t)
	if err := put(t, s, "h/a", "", "red", 0); err != nil {
		t.Fatal(err)
	}
	o, _ := s.common().Lookup(s.keyOfURI([]byte("h/a")), nil)
	defer o.Release()
	if _, err := s.Purge(&Purge{Tags: [][]byte{[]byte("red")}, Soft: true, Now: 1e9}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.common().Update(&o, &Meta{Lifetime: 200e9}, o.Head()); !errors.Is(err, ErrPurged) {
		t.Errorf("a validation from before: got %v", err)
	}
	n, err := s.common().Update(&o, &Meta{Lifetime: 200e9, Born: s.Sequence()}, o.Head())
	if err != nil || n.Meta().Lifetime != 200e9 {
		t.Errorf("a validation from after: got %v", err)
	}
	n.Release()
}

// TestSoftenedStaysSoft: wherever it is moved, and whatever reads it.
func TestSoftenedStaysSoft(t *testing.T) {
	for _, size := range []int{1000, 200_000} {
		s := newStore(t, 16<<20, Options{})
		a := s.Arena()
		o := store(t, a, keyN(1), 1, "", size, true)
		id := o.ID()
		o.Release()
		o, _ = a.Lookup(keyN(1), nil)
		o.MarkOnDisk()
		o.Release()
		if n, _ := s.Purge(&Purge{Prefix: []byte("example.org/"), Soft: true}); n.Memory != 1 {
			t.Fatalf("purged %+v", n)
		}
		if _, ok := s.OpenStored(id); ok {
			t.Error("the tier below may keep it")
		}
		for n := range uint64(2 * 16 << 20 / 20_000) {
			f := store(t, a, keyN(100+n), 1, "", 20_000, true)
			f.Release()
			s.tend()
		}
		o, ok := a.Lookup(keyN(1), nil)
		if !ok || o.ID() == id || o.Meta().Lifetime != 0 || o.OnDisk() {
			t.Errorf("%d bytes: found %v, moved %v", size, ok, ok && o.ID() != id)
		}
		o.Release()
	}
}

// TestNoteKeys: a response under another key than its URI's own is purged with it.
func TestNoteKeys(t *testing.T) {
	s := taggedStore(t)
	if err := put(t, s, "h/a", "", "", 0); err != nil {
		t.Fatal(err)
	}
	s.NoteKeys()
	w, err := s.Create(keyN(1), &Meta{}, []byte("h/a"), nil, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.Publish()
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
	w.Release()
	if n, _ := s.Purge(&Purge{URI: []byte("h/a")}); n.Memory != 2 {
		t.Errorf("purged %+v, want 2", n)
	}
}

// cellar is a tier below that keeps URIs.
type cellar struct{ kept map[Key]string }

func (c *cellar) Published(Key, []byte, ID, int64) {}
func (c *cellar) Removed(k Key)                    { delete(c.kept, k) }
func (c *cellar) Expect(Key)                       {}
func (c *cellar) Has(k Key) bool                   { return c.kept[k] != "" }
func (c *cellar) Count(k Key) int {
	if c.Has(k) {
		return 1
	}
	return 0
}
func (c *cellar) Settle() bool { return true }
func (c *cellar) Purge(match func(Key, []byte, []byte) bool) bool {
	for k, text := range c.kept {
		uri, labels, _ := strings.Cut(text, " ")
		if match(k, []byte(uri), []byte(labels)) {
			delete(c.kept, k)
		}
	}
	return true
}

// TestPurgeBelow: what is in both tiers is counted once, and gone from both.
func TestPurgeBelow(t *testing.T) {
	for _, p := range []Purge{
		{URI: []byte("h/below")}, {URI: []byte("h/both")}, {Prefix: []byte("h/b")}, {Tags: [][]byte{[]byte("red")}},
		{Prefix: []byte("h/b"), Soft: true},
	} {
		s := taggedStore(t)
		below := &cellar{map[Key]string{}}
		for _, uri := range []string{"h/below", "h/both", "h/other"} {
			tag := "red"
			if uri == "h/other" {
				tag = "blue"
			}
			below.kept[s.keyOfURI([]byte(uri))] = uri + " Tag: " + tag + "\n"
		}
		s.SetLower(below)
		if err := put(t, s, "h/both", "", "red", 0); err != nil {
			t.Fatal(err)
		}
		n, err := s.Purge(&p)
		if err != nil {
			t.Fatal(err)
		}
		left := 1
		want := Purged{Memory: 1, Below: 1}
		if p.URI != nil {
			left = 2
			if want.Memory = 0; string(p.URI) == "h/both" {
				want = Purged{Memory: 1}
			}
		}
		if n != want || len(below.kept) != left {
			t.Errorf("%+v: purged %+v, want %+v; %d left below, want %d", p, n, want, len(below.kept), left)
		}
	}
}

// shy is a cellar that does not say what it has.
type shy struct{ cellar }

func (*shy) Has(Key) bool  { return false }
func (*shy) Expect(Key)    {}
func (*shy) Count(Key) int { return 0 }

// TestPurgeBelowWhatIsNotTold: a tier below that does not know yet what it has is purged all the same.
func TestPurgeBelowWhatIsNotTold(t *testing.T) {
	s := taggedStore(t)
	below := &shy{cellar{map[Key]string{s.keyOfURI([]byte("h/a")): "h/a "}}}
	s.SetLower(below)
	if n, err := s.Purge(&Purge{URI: []byte("h/a")}); err != nil || n != (Purged{}) || len(below.kept) != 0 {
		t.Errorf("purged %+v, %v; %d left below", n, err, len(below.kept))
	}
}

// given is a cellar that another process has by now.
type given struct{ cellar }

func (*given) Purge(func(Key, []byte, []byte) bool) bool { return false }

// TestPurgeBelowThatIsAnothers: a purge that the tier below does not take part in is refused, and a sweep is left to the successor.
func TestPurgeBelowThatIsAnothers(t *testing.T) {
	s := taggedStore(t)
	s.SetLower(new(given))
	if _, err := s.Purge(&Purge{Prefix: []byte("h/")}); !errors.Is(err, ErrFenced) {
		t.Errorf("a purge: %v", err)
	}
	s.NoteKeys()
	s.RemoveOthers([]byte("h/a"), 1)
	s.sweep()
	if len(s.sweeps.at) != 1 {
		t.Error("what the tier below was not asked for is forgotten")
	}
}

// TestPurgeAmongLoops: loops store what the origin has, while that changes and is purged. After each purge nothing from before
// it is found.
func TestPurgeAmongLoops(t *testing.T) {
	s := taggedStore(t)
	var origin atomic.Int64 // version of all it has
	var loops sync.WaitGroup
	var stop atomic.Bool
	for n := range 3 {
		a := s.Arena()
		loops.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for !stop.Load() {
				uri := fmt.Appendf(nil, "h/%d", r.IntN(50))
				if o, ok := a.Lookup(s.keyOfURI(uri), nil); ok && r.IntN(2) == 0 {
					m := Meta{Born: s.Sequence()}
					m.Date = origin.Load()
					u, err := a.Update(&o, &m, o.Head())
					if err == nil {
						u.Release()
					}
					o.Release()
					continue
				} else if ok {
					o.Release()
				}
				m := Meta{Born: s.Sequence()}
				m.Date = origin.Load() // the origin answers after the request
				w, err := a.Create(s.keyOfURI(uri), &m, uri, nil, fmt.Appendf(nil, "Tag: t%d\r\n", r.IntN(3)), 4)
				if err != nil {
					continue
				}
				_, _ = w.Write([]byte("body"))
				if o, err := w.Publish(); err == nil {
					o.Release()
				}
				w.Release()
			}
		})
	}
	for n := range 300 {
		version := origin.Add(1)
		p := Purge{Prefix: []byte("h/")}
		if n%2 == 0 {
			p = Purge{Tags: [][]byte{[]byte("t0"), []byte("t1"), []byte("t2")}}
		}
		if _, err := s.Purge(&p); err != nil {
			t.Fatal(err)
		}
		s.Walk(func(o *Object) bool {
			if o.Meta().Date < version {
				t.Errorf("purge %d: version %d of %s is found, want at least %d", n, o.Meta().Date, o.URI(), version)
				return false
			}
			return true
		})
	}
	stop.Store(true)
	loops.Wait()
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

// TestFencesAreNotShared: what is on its way is refused for its own fence, and not for those of others, as long as there is room for
// them; and when there is not, it is refused rather than stored.
func TestFencesAreNotShared(t *testing.T) {
	s := taggedStore(t)
	before := s.Sequence()
	for n := range fenceSets {
		s.Outdate(fmt.Appendf(nil, "h/other/%d", n))
	}
	for n := range 50 {
		if err := put(t, s, fmt.Sprintf("h/mine/%d", n), "", "", before); err != nil {
			t.Errorf("after %d fences of others: %v", fenceSets, err)
		}
	}
	s.Outdate([]byte("h/a"))
	for n := range 20 * fenceSets {
		s.Outdate(fmt.Appendf(nil, "h/more/%d", n))
	}
	if err := put(t, s, "h/a", "", "", before); !errors.Is(err, ErrPurged) {
		t.Errorf("its own fence has had to make way: got %v", err)
	}
	if err := put(t, s, "h/a", "", "", s.Sequence()); err != nil {
		t.Errorf("what was asked for after all of them: %v", err)
	}
}

// TestOutdate: what was asked for before is refused, of that URI only, and what is stored stays.
func TestOutdate(t *testing.T) {
	s := taggedStore(t)
	before := s.Sequence()
	if err := put(t, s, "h/old", "", "", before); err != nil {
		t.Fatal(err)
	}
	s.Outdate([]byte("h/a"))
	if err := put(t, s, "h/a", "", "", before); !errors.Is(err, ErrPurged) {
		t.Errorf("what was asked for before: got %v", err)
	}
	if err := put(t, s, "h/b", "", "", before); err != nil {
		t.Errorf("another URI: %v", err)
	}
	if err := put(t, s, "h/a", "", "", s.Sequence()); err != nil {
		t.Errorf("what was asked for after it: %v", err)
	}
	if !s.Has(s.keyOfURI([]byte("h/old")), nil) {
		t.Error("another response is gone")
	}
}
