package cache

import (
	"bytes"
	"sync"
	"unsafe"

	"trafficd/roles/server/prefetch"
)

// place is the number of k's set.
func (s *Store) place(k Key) uint32 { return uint32(k.low()) & uint32(len(s.sets)-1) }

func (s *Store) set(k Key) *indexSet { return &s.sets[s.place(k)] }

// Expect has the processor fetch what a look-up of k, here and below, and the publication after it look at. It is for
// when there is something else to do until then.
func (s *Store) Expect(k Key) {
	s.set(k).expect()
	if l := s.lower.Load(); l != nil {
		(*l).Expect(k)
	}
}

func (set *indexSet) expect() { prefetch.Lines(unsafe.Pointer(set), unsafe.Sizeof(*set)) }

func (s *Store) shard(k Key) *sync.Mutex { return &s.shards[s.place(k)%shardCount].Mutex }

// put writes an entry into way i of a set whose shard the caller has locked. A reader
// or a death between the stores finds the way empty, or pairs a tag with a location
// that is not its own, which the full key in the record tells.
func (set *indexSet) put(i int, tag uint32, l location) {
	set.locs[i].Store(0)
	killpoint()
	set.tags[i].Store(tag)
	killpoint()
	set.locs[i].Store(uint64(l))
	killpoint()
}

// drop empties way i and takes its object off the books.
func (s *Store) drop(set *indexSet, i int) {
	l := location(set.locs[i].Load())
	set.locs[i].Store(0)
	killpoint()
	s.discount(l)
}

// discount notes that the object at l can no longer be found.
func (s *Store) discount(l location) {
	if l == 0 || l.segment() >= uint32(len(s.segs)) {
		return
	}
	if h := &s.segs[l.segment()]; h.serves(l.generation()) {
		h.live.Add(-1)
	}
}

// publish makes the record at l, pinned by the caller, findable. It replaces the alternate with the same
// vary block, or part of it with the same first byte, in one store; otherwise it takes a way: an empty or dead one, that of the key's least useful
// alternate when there are too many, or the oldest of the set. With only set, nothing but that location
// is replaced, and ErrSuperseded says that it was not there.
func (a *Arena) publish(l location, h *objectHeader, only location) error {
	s := a.store
	mu := s.shard(h.key)
	mu.Lock()
	defer mu.Unlock()
	if s.Outrun(h.meta.Born, h.uri(), h.headBlock()) {
		return ErrPurged
	}
	set := s.set(h.key)
	if only != 0 {
		if !s.swap(set, only, l) {
			return ErrSuperseded
		}
		return nil
	}
	v := a.survey(set, h)
	switch {
	case v.same >= 0:
		old := location(set.locs[v.same].Load())
		a.inherit(old, h)
		set.locs[v.same].Store(uint64(l)) // the tag is the same: one store replaces
		killpoint()
		s.discount(old)
		s.segs[l.segment()].live.Add(1)
		killpoint()
	default:
		s.takeWay(set, &v, h.key.tag(), l)
	}
	return nil
}

// takeWay enters l in a way of its own. The caller has locked the shard.
func (s *Store) takeWay(set *indexSet, v *survey, tag uint32, l location) {
	switch {
	case v.alternates >= s.opts.MaxAlternates:
		s.displace(set, v.useless(s.opts.MaxAlternates), tag, l)
	case v.free >= 0:
		set.put(v.free, tag, l)
	default:
		s.displace(set, v.oldest, tag, l)
	}
	s.segs[l.segment()].live.Add(1)
	killpoint()
}

func (s *Store) displace(set *indexSet, i int, tag uint32, l location) {
	s.drop(set, i)
	set.put(i, tag, l)
	s.super.displaced.Add(1)
}

// swap replaces one location by another for the same key and vary block.
func (s *Store) swap(set *indexSet, from, to location) bool {
	for i := range set.locs {
		if location(set.locs[i].Load()) != from {
			continue
		}
		set.locs[i].Store(uint64(to))
		killpoint()
		s.discount(from)
		s.segs[to.segment()].live.Add(1)
		return true
	}
	return false
}

// moveEntry has the index lead to the copy c at to instead of to h at from, which may have been softened since it was
// copied. False: it does not lead there any more.
func (s *Store) moveEntry(from location, h *objectHeader, to location, c *objectHeader) bool {
	mu := s.shard(h.key)
	mu.Lock()
	defer mu.Unlock()
	if h.flags.Load()&flagSoftened != 0 {
		c.soften(int64(h.softened.Load()) * 1e9)
	}
	return s.swap(s.set(h.key), from, to)
}

// survey is what publish needs to know of a set; -1 means no such way.
type survey struct {
	same, free, oldest int

	// The key's alternates.
	alternates int
	untried    int // of them never hit
	oldestNew  int // of those
	leastHit   int // of the others; of those that were hit alike, the oldest
}

// newAlternates is the share of a key's alternates that what was never hit keeps, if there are too many: room to be asked for
// again in. What was hit has the rest, so a flood of values that nobody asks for twice leaves it alone.
const newAlternates = 3

// useless is the way of the alternate that goes when there are most of them.
func (v *survey) useless(most int) int {
	if v.leastHit < 0 || v.oldestNew >= 0 && v.untried >= max(most/newAlternates, 1) {
		return v.oldestNew
	}
	return v.leastHit
}

func (a *Arena) survey(set *indexSet, h *objectHeader) survey {
	s := a.store
	v := survey{same: -1, free: -1, oldest: -1, oldestNew: -1, leastHit: -1}
	none := ^uint64(0)
	oldest, oldestNew, leastHit, fewest := none, none, none, ^uint32(0)
	for i := range set.locs {
		l := location(set.locs[i].Load())
		if l == 0 || !s.segs[l.segment()].serves(l.generation()) {
			v.free = i
			continue
		}
		age := s.ageOf(l)
		if age < oldest {
			v.oldest, oldest = i, age
		}
		if set.tags[i].Load() != h.key.tag() {
			continue
		}
		hits, same, is := a.rivalAt(l, h)
		switch {
		case !is:
			continue
		case hits == 0:
			if v.untried++; age < oldestNew {
				v.oldestNew, oldestNew = i, age
			}
		case hits < fewest || hits == fewest && age < leastHit:
			v.leastHit, leastHit, fewest = i, age, hits
		}
		if v.alternates++; same {
			v.same = i
		}
	}
	return v
}

// ageOf orders locations by what can be dropped first: what is on probation, then by when it was
// written, the smaller, the older.
func (s *Store) ageOf(l location) uint64 {
	h := &s.segs[l.segment()]
	return uint64(h.class.Load())<<63 | h.seq.Load()<<16 | uint64(l.offset()/granule)
}

func (a *Arena) hasKey(l location, k Key) bool {
	if !a.pinServing(l) {
		return false
	}
	defer a.unpin(l)
	return a.store.header(l).key == k
}

// rivalAt looks at what is at l, beside h. is: it has h's key. same: h is to take its place. hits: it was hit, and how often.
func (a *Arena) rivalAt(l location, h *objectHeader) (hits uint32, same, is bool) {
	if !a.pinServing(l) {
		return 0, false, false
	}
	defer a.unpin(l)
	old := a.store.header(l)
	if old.key != h.key {
		return 0, false, false
	}
	same = old.meta.RangeFrom == h.meta.RangeFrom && bytes.Equal(old.varyBlock(), h.varyBlock())
	return a.store.standing(l, old), same, true
}

// Remove makes every alternate of k, and every part of one, unfindable and returns how many there were. Who
// has one pinned goes on reading it.
func (s *Store) Remove(k Key) int { return s.removeKey(k) + s.RemoveParts(k) }

func (s *Store) removeKey(k Key) int {
	if s.Fenced() {
		return 0
	}
	s.tellRemoved(k)
	n := s.removeHere(k)
	s.tellRemoved(k)
	return n
}

func (s *Store) removeHere(k Key) int {
	a := s.common()
	mu := s.shard(k)
	mu.Lock()
	defer mu.Unlock()
	set, n := s.set(k), 0
	for i := range set.locs {
		l := location(set.locs[i].Load())
		if l != 0 && set.tags[i].Load() == k.tag() && a.hasKey(l, k) {
			s.drop(set, i)
			n++
		}
	}
	s.super.removed.Add(uint64(n))
	return n
}
