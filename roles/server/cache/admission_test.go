package cache

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A rival is a cache of as many objects as fit the store, which evicts the oldest.
type rival struct {
	order []uint64
	has   map[uint64]bool
	next  int
}

func newRival(objects int) *rival {
	return &rival{order: make([]uint64, 0, objects), has: map[uint64]bool{}}
}

func (r *rival) request(n uint64) (hit bool) {
	if r.has[n] {
		return true
	}
	if len(r.order) < cap(r.order) {
		r.order = append(r.order, n)
	} else {
		delete(r.has, r.order[r.next])
		r.order[r.next] = n
		r.next = (r.next + 1) % len(r.order)
	}
	r.has[n] = true
	return false
}

// A contest gives the same requests to a store and to its rival.
type contest struct {
	t     *testing.T
	s     *Store
	a     *Arena
	size  int
	rival *rival
	tend  bool

	requests, hits, rivalHits int
}

// newContest makes one of objects of a size. The rival may use every byte of the store.
func newContest(t *testing.T, store, size int) *contest {
	s := newStore(t, store, Options{})
	r := record{vary: nil, head: sampleHead(0), uri: uriOf(keyN(0))}
	each := int(alignUp(r.size(), granule) + alignUp(uint32(size), granule))
	return &contest{t: t, s: s, a: s.Arena(), size: size, rival: newRival(len(s.segs) * int(s.segSize) / each)}
}

func (c *contest) request(n uint64) {
	c.requests++
	if c.rival.request(n) {
		c.rivalHits++
	}
	if o, ok := c.a.Lookup(keyN(n), nil); ok {
		if c.hits++; c.hits%97 == 0 {
			check(c.t, &o, 1, c.size)
		}
		o.Release()
		return
	}
	o := store(c.t, c.a, keyN(n), 1, "", c.size, true)
	o.Release()
	if c.tend {
		c.s.tend()
	}
}

func (c *contest) start() { c.requests, c.hits, c.rivalHits = 0, 0, 0 }

func (c *contest) ratio() (ours, theirs float64) {
	return float64(c.hits) / float64(c.requests), float64(c.rivalHits) / float64(c.requests)
}

// capacity is how many objects the rival holds.
func (c *contest) capacity() int { return cap(c.rival.order) }

// TestHotSetSurvivesScan: a fifth of the store is asked for now and then, while a scan of many times the
// store passes. The rival loses an object between any two requests for it, and so would a cache that keeps what was hit
// during one turn only.
func TestHotSetSurvivesScan(t *testing.T) {
	for _, test := range []struct {
		name  string
		store int
		size  int
		tend  bool
		least float64
	}{
		// Without the tender something hot is lost while the store fills up for the first time.
		{"small objects", small, 2000, false, 0.95},
		{"small objects, tended", small, 2000, true, 0.99},
		{"larger segments", 16 << 20, 20_000, false, 0.95},
		// A loop moves three of them and no more when it opens a segment.
		{"large objects", 32 << 20, 150_000, false, 0.88},
		{"large objects, tended", 32 << 20, 150_000, true, 0.99},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newContest(t, test.store, test.size)
			c.tend = test.tend
			hot := uint64(c.capacity() / 5)
			for range 3 {
				for n := range hot {
					c.request(n)
				}
			}
			c.start()
			scan := uint64(1 << 32)
			next, asked, found := uint64(0), 0, 0
			for range 6 * c.capacity() {
				c.request(scan)
				scan++
				if scan%5 != 0 { // each hot object is asked for once in a turn of the store
					continue
				}
				before := c.hits
				c.request(next % hot)
				next++
				asked++
				found += c.hits - before
			}
			_, theirs := c.ratio()
			if theirs > 0.03 {
				t.Fatalf("the rival hits %.3f: this is no scan", theirs)
			}
			if ours := float64(found) / float64(asked); ours < test.least {
				t.Errorf("hit ratio of the hot set during the scan %.3f, of a FIFO %.3f", ours, theirs)
			}
			if n := c.s.Stats().Pinned; n != 0 {
				t.Errorf("%d segments still pinned", n)
			}
		})
	}
}

// TestMixedRequests: popularity after Zipf with scans in between, of sizes that take large and small bodies.
func TestMixedRequests(t *testing.T) {
	for _, size := range []int{1000, 20_000} {
		c := newContest(t, 16<<20, size)
		c.tend = true
		r := rand.New(rand.NewPCG(1, uint64(size)))
		popular := rand.NewZipf(r, 1.1, 4, uint64(10*c.capacity()))
		scan := uint64(1 << 32)
		for turn := range 24 {
			if turn == 6 {
				c.start() // warm
			}
			for range c.capacity() / 2 {
				c.request(popular.Uint64())
			}
			if turn%4 == 0 {
				for range c.capacity() {
					c.request(scan)
					scan++
				}
			}
		}
		ours, theirs := c.ratio()
		if ours <= theirs {
			t.Errorf("objects of %d bytes: hit ratio %.3f, a FIFO's %.3f", size, ours, theirs)
		}
		t.Logf("objects of %d bytes: hit ratio %.3f, a FIFO's %.3f", size, ours, theirs)
	}
}

// TestHotSetChanges: what was hot once does not keep its place for ever.
func TestHotSetChanges(t *testing.T) {
	c := newContest(t, small, 2000)
	hot := uint64(c.capacity() / 2)
	for generation := range uint64(4) {
		for turn := range 12 {
			if turn == 11 {
				c.start()
			}
			for n := range hot {
				c.request(generation<<20 + n)
			}
		}
		if ours, _ := c.ratio(); ours < 0.95 {
			t.Errorf("hot set %d: hit ratio %.3f after 11 turns", generation, ours)
		}
	}
}

// TestGhostReturns: what was evicted and is stored again survives the next scan, although nobody hit it yet.
func TestGhostReturns(t *testing.T) {
	for _, size := range []int{1000, 200_000} {
		s := newStore(t, 16<<20, Options{})
		a := s.Arena()
		scan := uint64(1000)
		pass := func(turns int) {
			for range turns * 16 << 20 / 100_000 {
				o := store(t, a, keyN(scan), 1, "", 60_000, true)
				o.Release()
				scan++
			}
		}
		put := func() {
			o := store(t, a, keyN(1), 1, "", size, true)
			o.Release()
		}
		found := func() bool {
			o, ok := s.common().Lookup(keyN(1), nil)
			if ok {
				check(t, &o, 1, size)
			}
			o.Release()
			return ok
		}
		put()
		pass(3)
		if found() {
			t.Fatalf("%d bytes: a scan of three times the store left it there", size)
		}
		put()
		pass(3)
		if !found() {
			t.Errorf("%d bytes: gone after it had returned", size)
		}
		if n := s.Stats().Returned; n != 1 {
			t.Errorf("%d bytes: %d returned, want 1", size, n)
		}
	}
}

// TestRenewedObjectKeepsItsStanding: an update and a new response in its place are no reason to lose it.
func TestRenewedObjectKeepsItsStanding(t *testing.T) {
	for name, renew := range map[string]func(a *Arena, o *Object){
		"updated": func(a *Arena, o *Object) {
			n, err := a.Update(o, o.Meta(), o.Head())
			if err != nil {
				t.Fatal(err)
			}
			n.Release()
		},
		"stored again": func(a *Arena, o *Object) {
			n := store(t, a, o.Key(), 1, "", int(o.BodyLen()), true)
			n.Release()
		},
	} {
		for _, size := range []int{1000, 200_000} {
			s := newStore(t, 16<<20, Options{})
			a := s.Arena()
			scan := uint64(1000)
			pass := func(turns int) {
				for range turns * 16 << 20 / 60_000 {
					o := store(t, a, keyN(scan), 1, "", 60_000, true)
					o.Release()
					s.tend()
					scan++
				}
			}
			o := store(t, a, keyN(1), 1, "", size, true)
			o.Release()
			o, _ = a.Lookup(keyN(1), nil)
			o.Release()
			pass(2)
			o, ok := a.Lookup(keyN(1), nil)
			if !ok {
				t.Fatalf("%s, %d bytes: gone although it was hit", name, size)
			}
			renew(a, &o)
			o.Release()
			pass(2)
			if o, ok = a.Lookup(keyN(1), nil); !ok {
				t.Errorf("%s, %d bytes: gone", name, size)
			} else {
				check(t, &o, 1, size)
			}
			o.Release()
		}
	}
}

// TestProtectionOutlivesTheProcess: a successor knows what was protected and what was evicted lately.
func TestProtectionOutlivesTheProcess(t *testing.T) {
	mem, fd := shared(t, small)
	s := open(t, mem, Options{})
	a := s.Arena()
	for n := range uint64(300) {
		o := store(t, a, keyN(n), 1, "", 2000, true)
		o.Release()
		o, _ = a.Lookup(keyN(n), nil)
		o.Release()
	}
	scan := uint64(1 << 32)
	for range 5 {
		for range 2500 {
			o := store(t, a, keyN(scan), 1, "", 2000, true)
			o.Release()
			s.tend()
			scan++
		}
		s = open(t, mapFD(t, fd, small), Options{Hold: true})
		a = s.Arena()
		s.EndHold()
	}
	found := 0
	for n := range uint64(300) {
		if o, ok := a.Lookup(keyN(n), nil); ok {
			check(t, &o, 1, 2000)
			o.Release()
			found++
		}
	}
	if found < 290 {
		t.Errorf("%d of 300 found after a scan through five processes", found)
	}
	if s.Stats().Protected == 0 {
		t.Error("nothing is protected")
	}
}

// A flood of misses passes through the part of the store that is on probation, as long as the tier below has what goes, although
// there is memory that was never used. What is hit stays.
func TestAFloodPassesThroughWhatIsOnProbation(t *testing.T) {
	for _, test := range []struct {
		name         string
		flood, below bool
		through      bool
	}{
		{"a flood", true, true, true},
		{"no flood", false, true, false},
		{"a flood that the tier below has not", true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newContest(t, 16<<20, 2000)
			s, all := c.s, uint64(c.capacity()*2/3)
			s.ring.flood = test.flood
			for n := range all {
				o := store(t, c.a, keyN(n), 1, "", c.size, true)
				if test.below {
					o.MarkOnDisk()
				}
				o.Release()
				if n%100 == 1 { // hit while it is on probation
					for range 2 {
						o, _ := c.a.Lookup(keyN(n), nil)
						o.Release()
					}
				}
				select {
				case <-s.wake:
					s.tend()
				default:
				}
			}
			unused := 0
			for i := range s.segs {
				if stateOf(s.segs[i].word.Load()) == segFree {
					unused++
				}
			}
			if through := unused > len(s.segs)/2; through != test.through {
				t.Errorf("of %d segments %d were never used", len(s.segs), unused)
			}
			for n := uint64(1); n < all; n += 100 {
				o, found := c.a.Lookup(keyN(n), nil)
				if !found {
					t.Errorf("%d was hit, and is gone", n)
				}
				o.Release()
			}
		})
	}
}

// So many segments in so short a time are a flood.
func TestWhatIsAFlood(t *testing.T) {
	s := newStore(t, small, Options{})
	now := time.Now()
	look := func(segments int, after time.Duration) bool {
		now = now.Add(after)
		s.super.filling.Add(uint64(segments))
		s.gaugeFlood(now)
		return s.ring.flood
	}
	much := 2 * floodRate / int(s.segSize)
	look(0, time.Hour)
	for _, step := range []struct {
		segments int
		after    time.Duration
		want     bool
	}{
		{1, floodTime / 2, false}, {much, floodTime / 4, false}, {0, time.Second, true}, {much / 4, time.Second, false},
		{much, time.Second, true}, {0, floodTime / 2, true}, {1, floodTime, false}, {1, time.Hour, false},
	} {
		if got := look(step.segments, step.after); got != step.want {
			t.Errorf("%d segments after %v: %v", step.segments, step.after, got)
		}
	}
}

// TestTenderKeepsStock: with it running, allocations find spare segments, and pins end with it.
func TestTenderKeepsStock(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() { s.Tend(stop); close(ended) }()
	hammer(t, s, a, 1, 5_000)
	close(stop)
	<-ended
	s.tend()
	s.ring.Lock()
	spares := s.ring.spares.n
	s.ring.Unlock()
	if spares < s.stockTarget() {
		t.Errorf("%d spare segments, want %d", spares, s.stockTarget())
	}
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

// TestAVictimIsNotFilled: a segment that a dead process has not filled, and that the tender is about to evict, is not gone on
// with meanwhile: what is written to it would be written into what is opened in its place.
func TestAVictimIsNotFilled(t *testing.T) {
	mem, _ := shared(t, small)
	o := store(t, open(t, mem, Options{}).Arena(), keyN(1), 1, "", 100, true)
	left := o.loc.segment()
	s := open(t, mem, Options{})
	s.ring.Lock()
	seg, ok := s.victim()
	s.ring.Unlock()
	if !ok || seg != left {
		t.Fatalf("the victim is %d, %v, want %d", seg, ok, left)
	}
	o = store(t, s.Arena(), keyN(2), 1, "", 100, true)
	defer o.Release()
	if o.loc.segment() == left {
		t.Error("the victim was opened again")
	}
}

// TestSparesArePopulated: a segment has memory before it is opened, so that no loop waits for the kernel to find some.
func TestSparesArePopulated(t *testing.T) {
	mem, fd := shared(t, small)
	s := open(t, mem, Options{})
	inMemory := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	first := store(t, s.Arena(), keyN(1), 1, "", 100, true)
	defer first.Release()
	before := inMemory()
	s.populateSpare()
	if got := inMemory() - before; got != int64(s.segSize) {
		t.Fatalf("%d bytes got memory, want one segment, %d", got, s.segSize)
	}
	s.populateSpare()
	next := store(t, s.Arena(), keyN(2), 1, "", int(s.segSize), true) // goes on in the next segment
	defer next.Release()
	if got := inMemory() - before; got > int64(s.segSize)+2*pageSize {
		t.Errorf("%d bytes got memory, want the segment that was opened and little more", got)
	}
	check(t, &first, 1, 100)
	check(t, &next, 1, int(s.segSize))
}

func TestFIFO(t *testing.T) {
	q := newFIFO(3)
	for n := range uint32(10) {
		q.push(n)
		if n >= 2 {
			if got := q.pop(); got != n-2 {
				t.Errorf("got %d, want %d", got, n-2)
			}
		}
	}
	q.push(10)
	q.remove(9)
	if q.n != 2 || q.pop() != 8 || q.pop() != 10 {
		t.Error("the wrong one was removed, or the order is lost")
	}
}

// told is a tier below that only listens.
type told struct{ ids map[Key]ID }

func (t told) Published(k Key, _ []byte, id ID, _ int64) { t.ids[k] = id }
func (t told) Removed(Key)                               {}
func (t told) Expect(Key)                                {}
func (t told) Has(Key) bool                              { return false }
func (t told) Count(Key) int                             { return 0 }
func (t told) Settle() bool                              { return true }
func (t told) Purge(func(Key, []byte, []byte) bool) bool { return true }

// TestLowerLearnsOfMoves: the last identity that the tier below was told of is the one that is stored.
func TestLowerLearnsOfMoves(t *testing.T) {
	s := newStore(t, 16<<20, Options{})
	below := told{map[Key]ID{}}
	s.SetLower(below)
	a := s.Arena()
	first := map[uint64]ID{}
	for n, size := range []int{1000, 200_000} {
		o := store(t, a, keyN(uint64(n)), 1, "", size, true)
		first[uint64(n)] = o.ID()
		o.Release()
		o, _ = a.Lookup(keyN(uint64(n)), nil)
		o.Release()
	}
	for n := range uint64(2 * 16 << 20 / 20_000) {
		o := store(t, a, keyN(100+n), 1, "", 20_000, true)
		o.Release()
		s.tend()
	}
	for n, id := range first {
		o, ok := s.OpenStored(below.ids[keyN(n)])
		if !ok || o.ID() == id {
			t.Errorf("object %d: what was told last is found: %v, and it was moved: %v", n, ok, o.Valid() && o.ID() != id)
		}
		o.Release()
	}
}
