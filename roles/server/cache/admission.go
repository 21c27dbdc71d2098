package cache

import (
	"math/bits"
	"slices"
)

// Admission and eviction are S3-FIFO (Yang and others, "FIFO queues are all you need for cache
// eviction", SOSP 2023), in segments instead of objects. What is new is written into segments on
// probation. As long as those are more than a tenth of the store, the oldest of them is evicted next: what was hit in it
// moves to protected segments, the rest goes, and leaves its tag behind as a ghost. Otherwise
// the oldest protected segment is evicted; what was hit in it since it was written there goes round
// once more. What comes back while its ghost is there is taken for hit.
//
// So a scan, however long, passes through the tenth: nothing in it is hit twice, and the protected
// segments are not touched. What is asked for again at longer distances is found by its ghost.
//
// Before all of the store has been used for the first time nothing has to be evicted. A flood of misses passes through the tenth all the
// same, as far as the tier below has what goes (passesThrough): memory is taken for what comes at leisure, or is asked for again.
const (
	probation = iota
	protected
	numClasses
)

const (
	probationShare = 10
	minProbation   = 2
)

// hit counts a hit. Once the counter is full this is a look at it; a count that is lost to another
// loop does not matter.
func (h *objectHeader) hit() {
	if f := h.flags.Load(); f&hitMask != hitMask {
		h.flags.CompareAndSwap(f, f+hitOne)
	}
}

func (h *objectHeader) wasHit() bool { return h.flags.Load()&hitMask != 0 }

// cool is what is left of the flags of an object that has had its second chance: in a protected
// segment one hit less, on probation none, since there they earned it the better place.
func cool(flags, class uint32) uint32 {
	if class == protected && flags&hitMask != 0 {
		return flags - hitOne
	}
	return flags &^ hitMask
}

// standing is what a record begins with that takes the place of the one at l: its hits, and at least one
// if it was protected. The new record begins on probation, and must not lose by that what the
// resource has earned.
func (s *Store) standing(l location, h *objectHeader) uint32 {
	hits := h.flags.Load() & hitMask
	if hits == 0 && s.segs[l.segment()].class.Load() == protected {
		hits = hitOne
	}
	return hits
}

// inherit gives h, complete and about to replace the record at l, that one's standing.
func (a *Arena) inherit(l location, h *objectHeader) {
	if !a.pinServing(l) {
		return
	}
	defer a.unpin(l)
	if hits := a.store.standing(l, a.store.header(l)); hits > h.flags.Load()&hitMask {
		h.flags.Or(hits)
		killpoint()
	}
}

// ghostTag is never 0, which is no ghost.
func (k Key) ghostTag() uint32 { return k.tag() | 1 }

// haunt leaves k's ghost behind, in place of an older one.
func (s *Store) haunt(k Key) {
	tag := k.ghostTag()
	s.set(k).ghosts[tag>>1%setWays].Store(tag)
	killpoint()
}

// returns tells whether k was evicted lately, and lays its ghost.
func (s *Store) returns(k Key) bool {
	tag := k.ghostTag()
	g := &s.set(k).ghosts[tag>>1%setWays]
	if g.Load() != tag {
		return false
	}
	g.Store(0)
	killpoint()
	s.super.returned.Add(1)
	return true
}

// fifo is a queue of segments; each is in at most one, so that it never needs to grow.
type fifo struct {
	ring []uint32 // a power of two
	head uint32   // of the oldest
	n    uint32
}

func newFIFO(most int) fifo {
	return fifo{ring: make([]uint32, 1<<bits.Len(uint(most)))}
}

func (q *fifo) at(i uint32) *uint32 { return &q.ring[(q.head+i)&uint32(len(q.ring)-1)] }

func (q *fifo) push(seg uint32) {
	*q.at(q.n) = seg
	q.n++
}

// pushFront enters one as the oldest.
func (q *fifo) pushFront(seg uint32) {
	q.head--
	q.n++
	*q.at(0) = seg
}

func (q *fifo) pop() uint32 {
	seg := *q.at(0)
	q.head++
	q.n--
	return seg
}

// remove takes one out of the middle, keeping the order.
func (q *fifo) remove(seg uint32) {
	for range q.n {
		if other := q.pop(); other != seg {
			q.push(other)
		}
	}
}

// probationTarget is how many full segments on probation are left alone.
func (s *Store) probationTarget() uint32 {
	return uint32(max(minProbation, len(s.segs)/probationShare))
}

// victim takes the segment out that is to be evicted next. What is pinned is passed over, to the
// end of its queue, and goes on serving. It is nobody else's from then on: one that a predecessor has not filled is not
// filled any more. The caller holds ring.mu.
func (s *Store) victim() (uint32, bool) {
	if s.hold.Load() || s.Fenced() {
		return 0, false
	}
	first := protected
	if s.ring.sealed[probation].n > s.probationTarget() {
		first = probation
	}
	for _, class := range [...]int{first, 1 - first} {
		q := &s.ring.sealed[class]
		for range q.n {
			seg := q.pop()
			if !s.pinned(seg) {
				s.ring.left = slices.DeleteFunc(s.ring.left, func(l location) bool { return l.segment() == seg })
				return seg, true
			}
			q.push(seg)
		}
	}
	return 0, false
}

// queue enters a sealed segment as the newest of its class. The caller holds ring.mu.
func (s *Store) queue(seg uint32) {
	class := min(s.segs[seg].class.Load(), numClasses-1)
	s.ring.sealed[class].push(seg)
}

// takeStock sorts the segments, but for those that this process allocates from, into the ring's queues, from
// what their table says. The caller holds ring.mu.
func (s *Store) takeStock() {
	s.ring.sealed = [numClasses]fifo{newFIFO(len(s.segs)), newFIFO(len(s.segs))}
	s.ring.spares = newFIFO(len(s.segs))
	s.ring.condemned = make([]uint32, 0, len(s.segs))
	// The serial number of the opening, which orders them, above the segment's own.
	order := make([]uint64, 0, len(s.segs))
	for i := range s.segs {
		order = append(order, s.segs[i].seq.Load()<<20|uint64(i))
	}
	slices.Sort(order)
	for _, o := range order {
		seg := uint32(o) & (1<<20 - 1)
		switch stateOf(s.segs[seg].word.Load()) {
		case segFree:
			s.ring.spares.push(seg)
		case segSealed:
			s.queue(seg)
		case segCondemned:
			s.ring.condemned = append(s.ring.condemned, seg)
		}
	}
}
