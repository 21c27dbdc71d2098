package cache

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"unsafe"
)

const small = 4 << 20 // a store of 62 segments of 64 KiB

func TestLayoutIsFixed(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"superblock fits a page", unsafe.Sizeof(superblock{}) / (pageSize + 1), 0},
		{"segment header", unsafe.Sizeof(segmentHeader{}), 64},
		{"index set: 16 bytes an entry", unsafe.Sizeof(indexSet{}), 256},
		{"object header", unsafe.Sizeof(objectHeader{}), 256},
		{"meta", unsafe.Sizeof(Meta{}), 112},
		{"fragment", unsafe.Sizeof(fragment{}), 16},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, c.got, c.want)
		}
	}
}

func TestLocationKeepsItsParts(t *testing.T) {
	l := locate(1<<20-2, 4<<20-granule, maxGeneration)
	if l.segment() != 1<<20-2 || l.offset() != 4<<20-granule || l.generation() != maxGeneration {
		t.Errorf("got %d %d %d", l.segment(), l.offset(), l.generation())
	}
}

func TestSipHashVectors(t *testing.T) {
	// From the authors' vectors.h, SipHash-2-4-128, key 00 01 … 0f, input 00 01 ….
	for n, want := range []string{"a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45"} {
		var h sipHash
		h.init(0x0706050403020100, 0x0f0e0d0c0b0a0908)
		for i := range n {
			h.writeByte(byte(i))
		}
		if k := h.sum(); hex.EncodeToString(k[:]) != want {
			t.Errorf("input of %d bytes: got %x, want %s", n, k, want)
		}
	}
}

func TestSipHashDoesNotDependOnPieces(t *testing.T) {
	in := content(Key{1}, 0, 1000)
	var one, many sipHash
	one.init(1, 2)
	one.write(in)
	many.init(1, 2)
	for i := 0; i < len(in); i += 7 {
		many.write(in[i:min(i+7, len(in))])
	}
	if a, b := one.sum(), many.sum(); a != b {
		t.Errorf("got %x and %x", a, b)
	}
}

func TestKeyOfNormalises(t *testing.T) {
	s := newStore(t, small, Options{})
	key := func(scheme, host, path string, query []byte) Key {
		return s.KeyOf([]byte(scheme), []byte(host), []byte(path), query)
	}
	base := key("http", "example.org", "/a", nil)
	for _, c := range []struct {
		name               string
		scheme, host, path string
		query              []byte
		same               bool
	}{
		{"host case", "http", "EXAMPLE.org", "/a", nil, true},
		{"scheme case", "HTTP", "example.org", "/a", nil, true},
		{"default port", "http", "example.org:80", "/a", nil, true},
		{"empty port", "http", "example.org:", "/a", nil, true},
		{"other port", "http", "example.org:8080", "/a", nil, false},
		{"https port on http", "http", "example.org:443", "/a", nil, false},
		{"https", "https", "example.org", "/a", nil, false},
		{"path case", "http", "example.org", "/A", nil, false},
		{"empty query", "http", "example.org", "/a", []byte{}, false},
		{"joint moved", "http", "example.or", "g/a", nil, false},
	} {
		if got := key(c.scheme, c.host, c.path, c.query) == base; got != c.same {
			t.Errorf("%s: same key %v, want %v", c.name, got, c.same)
		}
	}
	if key("https", "h:443", "/", nil) != key("https", "h", "/", nil) {
		t.Error("https default port not dropped")
	}
}

func TestStoreAndLookUpEverySize(t *testing.T) {
	for _, known := range []bool{true, false} {
		s := newStore(t, 16<<20, Options{MaxObject: 2 << 20})
		a := s.Arena()
		for i, size := range []int{0, 1, 63, 64, 1024, 16 << 10, 16<<10 + 1, 64 << 10, 100_000, 300_000, 1 << 20, 2<<20 - 1} {
			k := keyN(uint64(i))
			o := store(t, a, k, 3, "", size, known)
			check(t, &o, 3, size)
			o.Release()
			got, ok := a.Lookup(k, nil)
			if !ok {
				t.Fatalf("%d bytes, known %v: not found", size, known)
			}
			check(t, &got, 3, size)
			for _, off := range []int64{0, int64(size) / 2, int64(size) - 1} {
				if off >= 0 && off < int64(size) && got.Fragment(off)[0] != content(k, 3, size)[off] {
					t.Fatalf("%d bytes: wrong byte at %d", size, off)
				}
			}
			if got.Fragment(int64(size)) != nil || got.Fragment(-1) != nil {
				t.Fatalf("%d bytes: a fragment outside the body", size)
			}
			got.Release()
		}
		if n := s.Stats().Pinned; n != 0 {
			t.Errorf("known %v: %d segments still pinned", known, n)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := newStore(t, small, Options{MaxObject: 100_000})
	a := s.Arena()
	if _, err := a.Create(keyN(1), &Meta{}, nil, nil, nil, 100_001); !errors.Is(err, ErrTooLarge) {
		t.Errorf("announced: got %v, want ErrTooLarge", err)
	}
	if _, err := a.Create(keyN(1), &Meta{}, nil, nil, make([]byte, 32<<10), 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("head: got %v, want ErrTooLarge", err)
	}
	w, err := a.Create(keyN(1), &Meta{}, nil, nil, nil, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.Write(make([]byte, 100_001))
	if n != 100_000 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("unannounced: got %d, %v, want 100000, ErrTooLarge", n, err)
	}
	w.Abort()
	if got := w.Fragment(99_999); len(got) != 1 {
		t.Errorf("after Abort a reader finds %d bytes, want 1", len(got))
	}
	w.Release()
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

func TestIncompleteIsNotPublished(t *testing.T) {
	a := newStore(t, small, Options{}).Arena()
	w, _ := a.Create(keyN(1), &Meta{}, nil, nil, nil, 10)
	if _, err := w.Write([]byte("123456789")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	w.Abort()
	w.Release()
	if _, ok := a.Lookup(keyN(1), nil); ok {
		t.Error("found what was never complete")
	}
}

func TestReadWhileWrite(t *testing.T) {
	a := newStore(t, 8<<20, Options{}).Arena()
	k := keyN(1)
	want := content(k, 0, 400_000)
	w, _ := a.Create(k, &Meta{}, uriOf(k), nil, sampleHead(0), -1)
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var got []byte
			for len(got) < len(want) {
				got = append(got, w.Fragment(int64(len(got)))...)
			}
			if !bytes.Equal(got, want) {
				t.Error("a reader saw other bytes than were written")
			}
		})
	}
	for rest := want; len(rest) > 0; rest = rest[min(len(rest), 997):] {
		if _, err := w.Write(rest[:min(len(rest), 997)]); err != nil {
			t.Fatal(err)
		}
	}
	o, err := w.Publish()
	if err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	w.Release()
	o.Release()
}

type exactly string

func (e exactly) MatchVary(vary []byte) bool { return string(vary) == string(e) }

func TestAlternates(t *testing.T) {
	s := newStore(t, small, Options{MaxAlternates: 3})
	a, k := s.Arena(), keyN(1)
	put := func(v byte, vary string) { o := store(t, a, k, v, vary, 100, true); o.Release() }
	find := func(vary string) int {
		o, ok := a.Lookup(k, exactly(vary))
		if !ok {
			return -1
		}
		defer o.Release()
		return int(o.Meta().Lifetime)
	}
	put(1, "gzip")
	put(2, "br")
	put(3, "gzip") // replaces the first
	put(4, "zstd")
	if g, b, z := find("gzip"), find("br"), find("zstd"); g != 3 || b != 2 || z != 4 {
		t.Errorf("gzip %d br %d zstd %d, want 3 2 4", g, b, z)
	}
	put(5, "identity") // one too many: all have been hit alike, and the oldest goes
	if b, i := find("br"), find("identity"); b != -1 || i != 5 {
		t.Errorf("br %d identity %d, want -1 5", b, i)
	}
	if o, ok := a.Lookup(k, nil); !ok || o.Meta().Lifetime != 5 {
		t.Error("a look-up that takes any does not find the newest")
	} else {
		o.Release()
	}
	if n := s.Stats().Objects; n != 3 {
		t.Errorf("%d objects, want 3", n)
	}
	if n := s.Remove(k); n != 3 {
		t.Errorf("Remove: %d, want 3", n)
	}
	if _, ok := a.Lookup(k, nil); ok || s.Stats().Objects != 0 {
		t.Error("found after Remove")
	}
}

// As many values as there is room for, asked for in turn, are all found the next time.
func TestAlternatesInTurn(t *testing.T) {
	a, k := newStore(t, small, Options{}).Arena(), keyN(1)
	hits := 0
	for range 2 {
		for i := range maxAlternates {
			o, ok := a.Lookup(k, exactly(string(rune('a'+i))))
			if ok {
				hits++
			} else {
				o = store(t, a, k, 1, string(rune('a'+i)), 100, true)
			}
			o.Release()
		}
	}
	if hits != maxAlternates {
		t.Errorf("%d hits, want %d", hits, maxAlternates)
	}
}

// A flood of values that nobody asks for twice does not throw out what is asked for again; and what is new has the time to be.
func TestAlternatesInAFlood(t *testing.T) {
	a, k := newStore(t, small, Options{}).Arena(), keyN(1)
	ask := func(vary string) (hit bool) {
		o, hit := a.Lookup(k, exactly(vary))
		if !hit {
			o = store(t, a, k, 1, vary, 100, true)
		}
		o.Release()
		return hit
	}
	// Hot is what is left for what was hit. Behind it another one has come and was hit once, long ago.
	const hot = maxAlternates - maxAlternates/newAlternates
	for range 3 {
		for i := range hot {
			ask(fmt.Sprint("hot ", i))
		}
	}
	ask("once")
	ask("once")
	for i := range 1000 {
		ask(fmt.Sprint("bogus ", i))
		if n := i % hot; i%7 == 0 && !ask(fmt.Sprint("hot ", n)) {
			t.Errorf("after %d bogus values, number %d of what is hot is gone", i, n)
		}
	}
	for i := range hot {
		if !ask(fmt.Sprint("hot ", i)) {
			t.Errorf("number %d of what is hot is gone", i)
		}
	}
	if ask("once") {
		t.Error("what was hit once, and least, is still there")
	}
	ask("new")
	ask("bogus x")
	ask("bogus y")
	if !ask("new") {
		t.Error("two bogus values have thrown out what is new")
	}
}

func TestUpdateKeepsTheBody(t *testing.T) {
	for _, size := range []int{0, 1000, 300_000, 1 << 20} {
		a := newStore(t, 8<<20, Options{MaxObject: 2 << 20}).Arena()
		k := keyN(uint64(size))
		o := store(t, a, k, 1, "v", size, true)
		before := o.ID()
		n, err := a.Update(&o, &Meta{Status: 200, Lifetime: 2, LastModified: 255}, sampleHead(2))
		if err != nil {
			t.Fatalf("%d bytes: Update: %v", size, err)
		}
		check(t, &n, 2, size)
		check(t, &o, 1, size)
		if n.ID() == before {
			t.Errorf("%d bytes: one identity for two heads", size)
		}
		if _, err := a.Update(&o, &Meta{}, nil); !errors.Is(err, ErrSuperseded) {
			t.Errorf("%d bytes: second Update of the old object: got %v, want ErrSuperseded", size, err)
		}
		o.Release()
		n.Release()
		got, ok := a.Lookup(k, exactly("v"))
		if !ok {
			t.Fatalf("%d bytes: not found", size)
		}
		check(t, &got, 2, size)
		got.Release()
		if p := a.store.Stats().Pinned; p != 0 {
			t.Errorf("%d bytes: %d segments still pinned", size, p)
		}
	}
}

func TestPinnedObjectOutlivesEviction(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	o := store(t, a, keyN(1), 1, "", 200_000, true)
	for i := range uint64(3000) {
		n := store(t, a, keyN(100+i), 0, "", 5000, true)
		n.Release()
	}
	check(t, &o, 1, 200_000)
	if s.Stats().Evicted < 62 {
		t.Errorf("only %d evictions: the ring did not go round", s.Stats().Evicted)
	}
	o.Release()
	for i := range uint64(3000) {
		n := store(t, a, keyN(9100+i), 0, "", 5000, true)
		n.Release()
	}
	if _, ok := a.Lookup(keyN(1), nil); ok {
		t.Error("still found after the ring went round unpinned")
	}
	if _, ok := a.OpenID(o.ID()); ok {
		t.Error("opened by its identity after its bytes were overwritten")
	}
}

func TestHotObjectGetsAnotherRound(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	hot, cold := keyN(1), keyN(2)
	for _, k := range []Key{hot, cold} {
		o := store(t, a, k, 1, "", 1000, false)
		o.Release()
	}
	for i := range uint64(4000) {
		o, ok := a.Lookup(hot, nil)
		if !ok {
			t.Fatalf("hot object gone after %d others", i)
		}
		if i%100 == 0 {
			check(t, &o, 1, 1000)
		}
		o.Release()
		n := store(t, a, keyN(100+i), 0, "", 3000, true)
		n.Release()
	}
	if _, ok := a.Lookup(cold, nil); ok {
		t.Error("an object never hit was kept")
	}
	if s.Stats().Forwarded == 0 {
		t.Error("nothing was forwarded")
	}
}

func TestNoSpaceWhenEverythingIsPinned(t *testing.T) {
	s := newStore(t, small, Options{MaxObject: 1 << 20})
	a := s.Arena()
	var held []Object
	for i := range uint64(1000) {
		o, err := tryStore(a, keyN(i), 0, "", 50_000, true)
		if err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatalf("got %v, want ErrNoSpace", err)
			}
			break
		}
		held = append(held, o)
	}
	if len(held) == 1000 {
		t.Fatal("a store of 4 MiB held 50 MB pinned")
	}
	for i := range held {
		check(t, &held[i], 0, 50_000)
		held[i].Release()
	}
	o := store(t, a, keyN(5000), 1, "", 50_000, true)
	check(t, &o, 1, 50_000)
	o.Release()
}

func TestReopenFindsEverything(t *testing.T) {
	mem, fd := shared(t, small)
	old := open(t, mem, Options{})
	a := old.Arena()
	for i := range uint64(100) {
		o := store(t, a, keyN(i), byte(i), "", 4000, i%2 == 0)
		o.Release()
	}
	s := open(t, mapFD(t, fd, small), Options{})
	for i := range uint64(100) {
		o, ok := s.common().Lookup(keyN(i), nil)
		if !ok {
			t.Fatalf("object %d gone", i)
		}
		check(t, &o, byte(i), 4000)
		o.Release()
	}
	if got, want := s.Stats().Published, uint64(100); got != want {
		t.Errorf("published: got %d, want %d", got, want)
	}
	if _, err := tryStore(a, keyN(1), 0, "", 10, true); !errors.Is(err, ErrFenced) {
		t.Errorf("the old process stores: got %v, want ErrFenced", err)
	}
	if old.Remove(keyN(1)) != 0 {
		t.Error("the old process removes")
	}
}

func TestHoldSparesWhatThePredecessorReads(t *testing.T) {
	mem, fd := shared(t, small)
	old := open(t, mem, Options{})
	a := old.Arena()
	for i := range uint64(2000) {
		o := store(t, a, keyN(i), 0, "", 3000, true)
		o.Release()
	}
	reading, ok := a.Lookup(keyN(1999), nil)
	if !ok {
		t.Fatal("the newest object is gone")
	}
	s := open(t, mapFD(t, fd, small), Options{Hold: true})
	b := s.Arena()
	for i := range uint64(2000) {
		o, err := tryStore(b, keyN(10_000+i), 0, "", 3000, true)
		if err == nil {
			o.Release()
		} else if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("got %v, want ErrNoSpace", err)
		}
	}
	check(t, &reading, 0, 3000)
	resumed, ok := b.OpenID(reading.ID())
	if !ok {
		t.Fatal("the successor cannot open what the predecessor was sending")
	}
	s.EndHold()
	for i := range uint64(4000) {
		o := store(t, b, keyN(20_000+i), 0, "", 3000, true)
		o.Release()
	}
	check(t, &resumed, 0, 3000)
	resumed.Release()
}

func TestEndHoldSealsWhatNobodyOwns(t *testing.T) {
	mem, _ := shared(t, small)
	s := open(t, mem, Options{Hold: true})
	mine := store(t, s.Arena(), keyN(1), 0, "", 100, true)
	mine.Release()
	// A predecessor that passed its fence check just before this process opened.
	late := &s.segs[len(s.segs)-1]
	late.word.Store(segmentWord(5, segActive))
	s.EndHold()
	if got := stateOf(late.word.Load()); got != segSealed {
		t.Errorf("the predecessor's segment is in state %d, want sealed", got)
	}
	if got := stateOf(s.segs[0].word.Load()); got != segActive {
		t.Errorf("our own segment is in state %d, want active", got)
	}
}

// TestFragmentTableIsMadeOnce: an extent may be refused after the table for it was made;
// the next attempt must not make another, whose pin would hide the first one's.
func TestFragmentTableIsMadeOnce(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	w, err := a.Create(keyN(1), &Meta{}, nil, nil, nil, -1)
	if err != nil {
		t.Fatal(err)
	}
	var tables [2]uint64
	for i := range tables {
		a.mu.Lock()
		err := w.makeRoom(inlineFrs, 100_000)
		a.mu.Unlock()
		if tables[i] = w.obj.hdr.overflow.Load(); err != nil || tables[i] == 0 {
			t.Fatalf("attempt %d: table %x, %v", i, tables[i], err)
		}
	}
	if tables[0] != tables[1] {
		t.Error("the second attempt made another table")
	}
	w.Abort()
	w.Release()
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

func TestResumeFill(t *testing.T) {
	for _, size := range []int{1000, 40_000, 500_000} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(size, known), func(t *testing.T) {
				mem, fd := shared(t, 8<<20)
				a := open(t, mem, Options{MaxObject: 1 << 20}).Arena()
				k := keyN(7)
				declared := int64(-1)
				if known {
					declared = int64(size)
				}
				want := content(k, 1, size)
				w, err := a.Create(k, &Meta{Lifetime: 1}, uriOf(k), nil, sampleHead(1), declared)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(want[:size/2]); err != nil {
					t.Fatal(err)
				}
				s := open(t, mapFD(t, fd, 8<<20), Options{MaxObject: 1 << 20, Hold: true})
				b := s.Arena()
				if _, ok := b.OpenID(w.ID()); ok {
					t.Fatal("half a body opened as an object")
				}
				r, ok := b.Rejoin(w.ID())
				if !ok || r.State() != Filling {
					t.Fatal("cannot resume")
				}
				if r.Len() != int64(size/2) {
					t.Fatalf("resumed at %d, want %d", r.Len(), size/2)
				}
				if _, err := r.Write(want[size/2:]); err != nil {
					t.Fatal(err)
				}
				o, err := r.Publish()
				if err != nil {
					t.Fatal(err)
				}
				r.Release()
				s.EndHold()
				check(t, &o, 1, size)
				o.Release()
				r, ok = b.Rejoin(w.ID())
				if !ok || r.State() != Published {
					t.Error("resumed a finished fill")
				}
				r.Release()
				if n := s.Stats().Pinned; n != 0 {
					t.Errorf("%d segments still pinned", n)
				}
			})
		}
	}
}

func TestForeignMappingIsFormatted(t *testing.T) {
	for name, spoil := range map[string]func(m []byte){
		"noise":         func(m []byte) { copy(m, content(Key{9}, 0, len(m))) },
		"other version": func(m []byte) { m[8]++ },
		"bad checksum":  func(m []byte) { m[32] ^= 1 },
	} {
		mem, _ := shared(t, small)
		o := store(t, open(t, mem, Options{}).Arena(), keyN(1), 0, "", 100, true)
		id := o.ID()
		spoil(mem)
		s := open(t, mem, Options{})
		if _, ok := s.common().Lookup(keyN(1), nil); ok {
			t.Errorf("%s: an object was believed", name)
		}
		n := store(t, s.Arena(), keyN(2), 0, "", 100, true)
		n.Release()
		if _, ok := s.Arena().OpenID(id); ok {
			t.Errorf("%s: an identity from before the format opened something", name)
		}
	}
	if _, err := Open(make([]byte, 1<<20)[:5000], Options{}); err == nil {
		t.Error("opened a store in 5000 bytes")
	}
}

func TestGeometry(t *testing.T) {
	for _, c := range []struct {
		total    uint64
		segSize  uint32
		atLeast  uint32
		overhead float64
	}{
		{2 << 20, 64 << 10, 16, 0.1}, {16 << 20, 256 << 10, 60, 0.035}, {1 << 30, 1 << 20, 990, 0.035}, {64 << 30, 1 << 20, 60_000, 0.035},
	} {
		g, err := plan(c.total)
		if err != nil || g.segSize != c.segSize || g.segCount < c.atLeast {
			t.Errorf("%d bytes: got %+v, %v", c.total, g, err)
		}
		if f := 1 - float64(g.segCount)*float64(g.segSize)/float64(c.total); f > c.overhead {
			t.Errorf("%d bytes: %.3f is not for objects", c.total, f)
		}
	}
}

// TestLoopsShareOneStore has several loops store, find, update and remove the same few keys
// in a store that is far too small, and checks every byte of every object seen.
func TestLoopsShareOneStore(t *testing.T) {
	s := newStore(t, small, Options{})
	var loops sync.WaitGroup
	for n := range 4 {
		a := s.Arena()
		loops.Go(func() { hammer(t, s, a, uint64(n), 3000) })
	}
	loops.Wait()
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

func hammer(t *testing.T, s *Store, a *Arena, seed uint64, rounds int) {
	r := newWork(seed)
	for range rounds {
		if msg := r.step(s, a); msg != "" {
			t.Error(msg)
			return
		}
	}
}
