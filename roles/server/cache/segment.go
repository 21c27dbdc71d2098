package cache

import "trafficd/roles/server/prefetch"

// A cursor is where in an open segment the next allocation goes.
type cursor struct {
	seg  int64 // -1 none
	gen  uint32
	used uint32 // bytes handed out
}

// pinned tells whether any reader or writer of this process holds the segment.
func (s *Store) pinned(seg uint32) bool {
	for _, a := range *s.arenas.Load() {
		if a.pins[seg].Load() != 0 {
			return true
		}
	}
	return false
}

// reserve hands out between least and most bytes, whole granules, of the segment the
// arena allocates from, opening the next one when less than least are left. It pins
// the segment for the caller. The caller holds a.mu.
func (a *Arena) reserve(least, most uint32) (location, uint32, error) {
	s := a.store
	if s.Fenced() {
		return 0, 0, ErrFenced
	}
	least, most = alignUp(least, granule), alignUp(most, granule)
	if a.cursor.seg < 0 {
		s.ring.Lock()
		s.reopenLeft(&a.cursor, a.class)
		s.ring.Unlock()
	}
	if a.cursor.seg < 0 || s.segSize-a.cursor.used < least {
		if err := a.openNext(); err != nil {
			s.super.noSpace.Add(1)
			return 0, 0, err
		}
	}
	l, n := s.take(&a.cursor, most)
	a.pin(l)
	a.expectNext(n)
	return l, n, nil
}

// maxExpected bounds what is fetched ahead of an allocation: the beginning of a larger one has the processor see
// where it goes.
const maxExpected = 4 << 10

// expectNext has the processor fetch what is allocated next, if that is about as large as the last one. The caller holds
// a.mu.
func (a *Arena) expectNext(last uint32) {
	c := &a.cursor
	if n := min(last, maxExpected, a.store.segSize-c.used); n > 0 {
		prefetch.Lines(a.store.at(locate(uint32(c.seg), c.used, c.gen)), uintptr(n))
	}
}

// take hands out up to most bytes of the cursor's segment.
func (s *Store) take(c *cursor, most uint32) (location, uint32) {
	n := min(most, s.segSize-c.used)
	l := locate(uint32(c.seg), c.used, c.gen)
	c.used += n
	s.segs[c.seg].used.Store(c.used)
	return l, n
}

// giveBack returns the bytes from offset keep on of the allocation of n bytes at l, if
// it was the arena's last. The caller holds a.mu.
func (a *Arena) giveBack(l location, n, keep uint32) {
	keep = alignUp(keep, granule)
	if a.cursor.seg != int64(l.segment()) || a.cursor.gen != l.generation() || a.cursor.used != l.offset()+n {
		return
	}
	a.cursor.used = l.offset() + keep
	a.store.segs[a.cursor.seg].used.Store(a.cursor.used)
}

// openNext seals the arena's segment and opens a spare one. Usually the tender has seen
// to it that there is one; if not, this is where eviction is paid for. The caller holds a.mu.
func (a *Arena) openNext() error {
	s := a.store
	s.ring.Lock()
	defer s.ring.Unlock()
	s.seal(&a.cursor)
	want := s.wanted()
	if a.class == protected {
		want = 1 // it is the tender who allocates, mostly, to evict with more care than is taken here
	}
	budget := s.rescueLimit()
	for try := 1; s.ring.spares.n < want && try <= maxEvictions; try++ {
		seg, ok := s.victim()
		if !ok {
			break
		}
		if a.class != protected && s.segs[seg].large.Load() != 0 {
			s.ring.Unlock() // the victim is nobody else's, and the order of the locks is arena, ring
			budget = s.rescueLarge(seg, budget)
			s.ring.Lock()
		}
		s.evict(seg, try == maxEvictions && s.ring.spares.n == 0)
	}
	if !s.openSpare(&a.cursor, a.class) {
		return ErrNoSpace
	}
	rouse(s.wake)
	return nil
}

// wanted is how many spare segments there should be when a loop opens one: for itself, for small survivors and for large ones.
func (s *Store) wanted() uint32 { return 3 + uint32(s.rescueLimit()/int64(s.segSize)) }

// rescueLimit bounds the large bodies that a loop moves when it opens a segment.
func (s *Store) rescueLimit() int64 { return min(maxRescued, 2*int64(s.segSize)) }

// leftWorth is the part of a segment that must be free for it to be filled up.
const leftWorth = 8

// reopenLeft goes on in a segment that a dead predecessor has not filled: behind all that it had allocated,
// whether it finished that or not. The caller holds ring.mu.
func (s *Store) reopenLeft(c *cursor, class uint32) {
	for i := len(s.ring.left) - 1; i >= 0 && !s.hold.Load(); i-- {
		l := s.ring.left[i]
		h := &s.segs[l.segment()]
		if h.class.Load() != class {
			continue
		}
		s.ring.left = append(s.ring.left[:i], s.ring.left[i+1:]...)
		if h.word.CompareAndSwap(segmentWord(l.generation(), segSealed), segmentWord(l.generation(), segActive)) {
			s.ring.sealed[class].remove(l.segment())
			*c = cursor{seg: int64(l.segment()), gen: l.generation(), used: h.used.Load()}
			return
		}
	}
}

// seal closes the cursor's segment, if it has one. The caller holds ring.mu.
func (s *Store) seal(c *cursor) {
	if c.seg < 0 {
		return
	}
	if s.segs[c.seg].word.CompareAndSwap(segmentWord(c.gen, segActive), segmentWord(c.gen, segSealed)) {
		s.queue(uint32(c.seg))
	}
	killpoint()
	c.seg = -1
}

// openSpare opens a spare segment for the cursor. False: there is none. The caller holds ring.mu.
func (s *Store) openSpare(c *cursor, class uint32) bool {
	s.reclaim()
	for s.ring.spares.n > 0 {
		if seg := s.ring.spares.pop(); s.activate(c, seg, class) {
			return true
		}
	}
	return false
}

// reclaim makes spares of what was condemned and is pinned no longer. They are used again first: the processor has more of
// them than of others. The caller holds ring.mu.
func (s *Store) reclaim() {
	if s.hold.Load() {
		return
	}
	still := s.ring.condemned[:0]
	for _, seg := range s.ring.condemned {
		if s.pinned(seg) {
			still = append(still, seg)
		} else {
			s.ring.spares.pushFront(seg)
		}
	}
	s.ring.condemned = still
}

// activate opens a spare segment for writing. Until the word changes its bytes are
// those of the old generation; from then on nothing opens them any more. It changes by
// compare-and-swap, because a predecessor that is being fenced may want the same one.
func (s *Store) activate(c *cursor, seg, class uint32) bool {
	h := &s.segs[seg]
	w := h.word.Load()
	next := generationOf(w)%maxGeneration + 1
	switch stateOf(w) {
	case segFree:
		// Not 1, so that an identity from before a format names nothing after it.
		next = uint32(s.super.seed[1])%maxGeneration + 1
	case segActive, segSealed:
		return false
	}
	h.last.Store(0)
	killpoint()
	h.live.Store(0)
	h.used.Store(0)
	h.large.Store(0)
	killpoint()
	h.class.Store(class)
	killpoint()
	h.seq.Store(s.super.filling.Add(1))
	killpoint()
	if !h.word.CompareAndSwap(w, segmentWord(next, segActive)) {
		return false
	}
	killpoint()
	*c = cursor{seg: int64(seg), gen: next}
	return true
}
