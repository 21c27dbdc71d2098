package disk

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"unsafe"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/prefetch"
)

// index is the mapping that says where things are. Look-ups take no lock; changes take the shard of their set.
type index struct {
	geometry
	hdr  *indexHeader
	rows []row
	sets []indexSet

	// broken is set when the mapping faulted: whoever truncated the file has taken the index away.
	broken atomic.Bool
	lost   func() // called once then, by whoever noticed, a loop perhaps; immutable; nil: nobody wants to know

	shards [indexShards]indexShard
}

const indexShards = 64

type indexShard struct {
	mu sync.Mutex
	// changes counts removals and replacements, guarded by mu: the writer, who has looked at memory before it wrote, looks
	// again if there was one.
	changes uint64
	_       [40]byte
}

func newIndex(g geometry, mem []byte) *index {
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return &index{
		geometry: g,
		hdr:      (*indexHeader)(base),
		rows:     unsafe.Slice((*row)(unsafe.Add(base, pageSize)), g.segCount),
		sets:     unsafe.Slice((*indexSet)(unsafe.Add(base, g.setsAt())), g.setCount),
	}
}

// guard is deferred by all that touches the mapping, with the result of debug.SetPanicOnFault(true): a fault
// there ends the index, not the process.
func (x *index) guard(old bool) {
	debug.SetPanicOnFault(old)
	r := recover()
	if r == nil {
		return
	}
	if _, fault := r.(interface{ Addr() uintptr }); !fault {
		panic(r)
	}
	if !x.broken.Swap(true) && x.lost != nil {
		x.lost()
	}
}

func (x *index) setOf(k cache.Key) uint32 {
	return uint32(uint64(k.Spread()) * uint64(x.setCount) >> 32)
}

func (x *index) shard(set uint32) *indexShard { return &x.shards[set%indexShards] }

// serves reports whether the segment of an entry still has what it had.
func (x *index) serves(p place) bool {
	return p != 0 && p.segment() < x.segCount && x.rows[p.segment()].seq.Load()&seqMask == p.seq() && p.seq() != 0
}

// expect has the processor fetch the set of k: of it the line that has looks at, or all that put does.
func (x *index) expect(k cache.Key, all bool) {
	set := &x.sets[x.setOf(k)]
	n := unsafe.Sizeof(set.tags)
	if all {
		n = unsafe.Sizeof(*set)
	}
	prefetch.Lines(unsafe.Pointer(set), n)
}

// has reports whether there may be something under k.
func (x *index) has(k cache.Key) (found bool) {
	if x.broken.Load() {
		return false
	}
	defer x.guard(debug.SetPanicOnFault(true))
	set, tag := &x.sets[x.setOf(k)], k.Tag()
	for i := range set.tags {
		if set.tags[i].Load() == tag && x.serves(place(set.places[i].Load())) {
			return true
		}
	}
	return false
}

// holds reports whether there is an entry for this alternate of k.
func (x *index) holds(k cache.Key, vary uint32) bool {
	var few [setWays]candidate
	for _, c := range x.find(few[:0], k) {
		if c.info.vary() == vary {
			return true
		}
	}
	return false
}

// leadsTo reports whether there is an entry for k with this place.
func (x *index) leadsTo(k cache.Key, p place) bool {
	var few [setWays]candidate
	for _, c := range x.find(few[:0], k) {
		if c.place == p {
			return true
		}
	}
	return false
}

// A candidate is an entry that may be for the key that was looked for.
type candidate struct {
	way   *atomic.Uint64
	place place
	info  info
}

// find appends the entries that may be for k, the newest first.
func (x *index) find(c []candidate, k cache.Key) []candidate {
	if x.broken.Load() {
		return c
	}
	defer x.guard(debug.SetPanicOnFault(true))
	set, tag := &x.sets[x.setOf(k)], k.Tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		p := place(set.places[i].Load())
		if !x.serves(p) {
			continue
		}
		in := info(set.infos[i].Load())
		if place(set.places[i].Load()) != p {
			continue // it is being replaced: the length may be another's
		}
		c = append(c, candidate{&set.places[i], p, in})
		for j := len(c) - 1; j > 0 && x.age(c[j].place) > x.age(c[j-1].place); j-- {
			c[j], c[j-1] = c[j-1], c[j]
		}
	}
	return c
}

// age orders places by when they were written: the smaller, the older.
func (x *index) age(p place) uint64 {
	return x.rows[p.segment()].seq.Load()<<18 | uint64(p.offset()/granule)
}

// drop takes a candidate for k out, unless something else is there by now.
func (x *index) drop(k cache.Key, c candidate) {
	if x.broken.Load() {
		return
	}
	defer x.guard(debug.SetPanicOnFault(true))
	sh := x.shard(x.setOf(k))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c.way.CompareAndSwap(uint64(c.place), 0) {
		x.discount(c.place)
	}
}

// still reports whether a candidate is what it was.
func (x *index) still(c candidate) (ok bool) {
	if x.broken.Load() {
		return false
	}
	defer x.guard(debug.SetPanicOnFault(true))
	return place(c.way.Load()) == c.place && x.serves(c.place)
}

// remove takes out all entries under k, or the one of an alternate. It reports whether there were any, and
// counts as a change if there were none, too.
func (x *index) remove(k cache.Key, alternate func(place, info) bool) (found bool) {
	if x.broken.Load() {
		return false
	}
	defer x.guard(debug.SetPanicOnFault(true))
	n := x.setOf(k)
	sh := x.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.changes++
	set, tag := &x.sets[n], k.Tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag { // first, since it lies in the first line
			continue
		}
		p, in := place(set.places[i].Load()), info(set.infos[i].Load())
		if p == 0 || alternate != nil && !alternate(p, in) {
			continue
		}
		if x.serves(p) {
			found = true
			x.discount(p)
		}
		set.places[i].Store(0)
	}
	return found
}

// changes is what put compares.
func (x *index) changes(k cache.Key) uint64 {
	sh := x.shard(x.setOf(k))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.changes
}

// put makes an entry. It replaces the one with the same tag and vary hash in one store; otherwise it takes a way that
// is free, or the oldest. allowed is asked under the shard's lock.
func (x *index) put(k cache.Key, p place, in info, allowed func(changes uint64) bool) (done bool) {
	return x.insert(k, p, in, nil, allowed)
}

// putOlder is put for what is older than all that was given to it so far: it replaces nothing. full, one for each set, notes where
// there was no room for something: what is older than that must not take its place when there is room again.
func (x *index) putOlder(k cache.Key, p place, in info, full []bool, allowed func() bool) (done bool) {
	return x.insert(k, p, in, full, func(uint64) bool { return allowed() })
}

func (x *index) insert(k cache.Key, p place, in info, full []bool, allowed func(changes uint64) bool) (done bool) {
	if x.broken.Load() {
		return false
	}
	defer x.guard(debug.SetPanicOnFault(true))
	n := x.setOf(k)
	sh := x.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !x.serves(p) || !allowed(sh.changes) {
		return false
	}
	set := &x.sets[n]
	way, same := x.choose(set, k.Tag(), in)
	if full != nil {
		if same || full[n] {
			return false
		}
		if full[n] = x.serves(place(set.places[way].Load())); full[n] {
			return false
		}
	}
	x.enter(set, way, same, k.Tag(), p, in)
	return true
}

// choose finds the way of an entry with this tag and vary hash, or else the one to take. The tags lie in one cache
// line, and the first free place is mostly in the next: a set is cold when the writer comes to it.
func (x *index) choose(set *indexSet, tag uint32, in info) (way int, same bool) {
	for i := range set.tags {
		if set.tags[i].Load() == tag && x.serves(place(set.places[i].Load())) && info(set.infos[i].Load()).vary() == in.vary() {
			return i, true
		}
	}
	oldest, least := 0, ^uint64(0)
	for i := range set.places {
		p := place(set.places[i].Load())
		if !x.serves(p) {
			return i, false
		}
		if a := x.age(p); a < least {
			oldest, least = i, a
		}
	}
	return oldest, false
}

func (x *index) enter(set *indexSet, way int, same bool, tag uint32, p place, in info) {
	if old := place(set.places[way].Load()); x.serves(old) {
		x.discount(old)
	}
	if !same || info(set.infos[way].Load()) != in {
		set.places[way].Store(0) // whoever reads in between finds nothing, and never a mixture
		set.tags[way].Store(tag)
		set.infos[way].Store(uint32(in))
	}
	set.places[way].Store(uint64(p))
	x.rows[p.segment()].live.Add(1)
	x.hdr.objects.Add(1)
}

// discount takes an entry that served off the books.
func (x *index) discount(p place) {
	x.rows[p.segment()].live.Add(-1)
	x.hdr.objects.Add(-1)
}

// sequence is the number of a segment's present use.
func (x *index) sequence(seg uint32) (seq uint64) {
	if x.broken.Load() || seg >= x.segCount {
		return 0
	}
	defer x.guard(debug.SetPanicOnFault(true))
	return x.rows[seg].seq.Load()
}
