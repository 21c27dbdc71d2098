package cache

// How much of an eviction's work one allocation may be charged with. Both bounds are
// there for the event loop that pays: at most half a segment is copied (512 KiB, some
// 100 µs) and at most maxEvictions segments are walked.
const (
	maxEvictions  = 4
	maxForwarded  = 64 << 10             // larger bodies get no second chance
	forwardShare  = 2                    // at most 1/forwardShare of a segment is filled with survivors
	maxChainSteps = maxSegSize / granule // more objects than a segment can hold: the chain is damaged
)

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
	if a.seg < 0 {
		a.reopenLeft()
	}
	if a.seg < 0 || s.segSize-a.used < least {
		if err := a.openNext(); err != nil {
			s.super.noSpace.Add(1)
			return 0, 0, err
		}
		if s.segSize-a.used < least { // survivors came in first
			return 0, 0, ErrNoSpace
		}
	}
	n := min(most, s.segSize-a.used)
	l := locate(uint32(a.seg), a.used, a.gen)
	a.pin(l)
	a.used += n
	s.segs[a.seg].used.Store(a.used)
	return l, n, nil
}

// giveBack returns the bytes from offset keep on of the allocation of n bytes at l, if
// it was the arena's last. The caller holds a.mu.
func (a *Arena) giveBack(l location, n, keep uint32) {
	keep = alignUp(keep, granule)
	if a.seg != int64(l.segment()) || a.gen != l.generation() || a.used != l.offset()+n {
		return
	}
	a.used = l.offset() + keep
	a.store.segs[a.seg].used.Store(a.used)
}

// openNext seals the arena's segment, opens the spare one and prepares the next
// spare, whose hot objects move into the one just opened. The caller holds a.mu.
func (a *Arena) openNext() error {
	s := a.store
	s.ring.Lock()
	defer s.ring.Unlock()
	if s.ring.spare < 0 {
		s.findSpare(nil)
	}
	a.seal()
	if s.ring.spare < 0 {
		return ErrNoSpace
	}
	seg := uint32(s.ring.spare)
	s.ring.spare = -1
	if !a.activate(seg) {
		return ErrNoSpace
	}
	s.findSpare(a)
	return nil
}

// leftWorth is the part of a segment that must be free for it to be filled up.
const leftWorth = 8

// reopenLeft goes on in a segment that a dead predecessor has not filled: behind all that it had allocated,
// whether it finished that or not. The caller holds a.mu.
func (a *Arena) reopenLeft() {
	s := a.store
	s.ring.Lock()
	defer s.ring.Unlock()
	for !s.hold.Load() && len(s.ring.left) > 0 {
		l := s.ring.left[len(s.ring.left)-1]
		s.ring.left = s.ring.left[:len(s.ring.left)-1]
		h := &s.segs[l.segment()]
		if h.word.CompareAndSwap(segmentWord(l.generation(), segSealed), segmentWord(l.generation(), segActive)) {
			a.seg, a.gen, a.used = int64(l.segment()), l.generation(), h.used.Load()
			return
		}
	}
}

func (a *Arena) seal() {
	if a.seg < 0 {
		return
	}
	a.store.segs[a.seg].word.CompareAndSwap(segmentWord(a.gen, segActive), segmentWord(a.gen, segSealed))
	killpoint()
	a.seg = -1
}

// activate opens a spare segment for writing. Until the word changes its bytes are
// those of the old generation; from then on nothing opens them any more. It changes by
// compare-and-swap, because a predecessor that is being fenced may want the same one.
func (a *Arena) activate(seg uint32) bool {
	s := a.store
	h := &s.segs[seg]
	w := h.word.Load()
	next := generationOf(w)%maxGeneration + 1
	if stateOf(w) == segFree {
		// Not 1, so that an identity from before a format names nothing after it.
		next = uint32(s.super.seed[1])%maxGeneration + 1
	}
	h.last.Store(0)
	killpoint()
	h.live.Store(0)
	h.used.Store(0)
	killpoint()
	h.seq.Store(s.super.filling.Add(1))
	killpoint()
	if !h.word.CompareAndSwap(w, segmentWord(next, segActive)) {
		return false
	}
	killpoint()
	a.seg, a.gen, a.used = int64(seg), next, 0
	return true
}

// findSpare goes round the ring, oldest first, for a segment that can be opened next.
// What is pinned is passed over and goes on serving. Hot objects of what is evicted
// move to the arena given; nil drops them. The caller holds ring.mu, and a.mu of a.
func (s *Store) findSpare(a *Arena) {
	budget := s.segSize / forwardShare
	evictions := 0
	for range s.segs {
		seg := s.ring.cursor
		s.ring.cursor = (seg + 1) % uint32(len(s.segs))
		switch h := &s.segs[seg]; stateOf(h.word.Load()) {
		case segFree:
			s.ring.spare = int64(seg)
			return
		case segCondemned:
			if !s.hold.Load() && !s.pinned(seg) {
				s.ring.spare = int64(seg)
				return
			}
		case segSealed:
			if s.hold.Load() || s.pinned(seg) {
				continue
			}
			if a != nil {
				budget -= a.forward(seg, budget)
			}
			if s.condemn(seg) {
				s.ring.spare = int64(seg)
				return
			}
			if evictions++; evictions == maxEvictions {
				return
			}
		}
	}
}

// condemn evicts a segment: one store, and every entry that leads into it is dead. It
// returns whether the segment can be used again at once; a reader that came in before
// the store keeps it until a later round.
func (s *Store) condemn(seg uint32) bool {
	h := &s.segs[seg]
	w := h.word.Load()
	if !h.word.CompareAndSwap(w, segmentWord(generationOf(w), segCondemned)) {
		return false
	}
	killpoint()
	s.super.evicted.Add(1)
	return !s.pinned(seg)
}

// forward copies the objects of a segment that were hit since they were written, newest
// first, into the arena's segment, up to budget bytes and as far as there is room, and returns how many bytes it
// took. The copies are found from the moment their entry is swapped; a death before
// that leaves them as garbage.
func (a *Arena) forward(seg, budget uint32) uint32 {
	s := a.store
	gen := generationOf(s.segs[seg].word.Load())
	spent := uint32(0)
	next := s.segs[seg].last.Load()
	for range maxChainSteps {
		if next == 0 || next > s.segSize/granule {
			break
		}
		l := locate(seg, (next-1)*granule, gen)
		h := s.header(l)
		if h.seal != s.sealOf(l) {
			break
		}
		next = h.prev
		spent += a.forwardOne(l, h, budget-spent)
	}
	return spent
}

// forwardOne gives one object its second chance and returns the bytes it took.
func (a *Arena) forwardOne(l location, h *objectHeader, budget uint32) uint32 {
	s := a.store
	const want = flagComplete | flagReferenced
	size := int64(h.committed.Load())
	if h.flags.Load()&want != want || size > maxForwarded || !s.indexed(h.key, l) {
		return 0
	}
	r := recordOf(h)
	record := alignUp(r.size(), granule)
	need := record + alignUp(uint32(size), granule)
	if need > budget || need > s.segSize-a.used || !s.bodyServes(h) {
		return 0
	}
	to, n, err := a.reserve(need, need)
	if err != nil {
		return 0
	}
	defer a.unpin(to)
	c := s.writeRecord(to, r, n)
	c.flags.Store(h.flags.Load() & flagOnDisk)
	body := s.bytesAt(to, n)[record:]
	for off := int64(0); off < size; {
		off += int64(copy(body[off:], s.fragmentAt(h, off)))
	}
	s.complete(to, c, size)
	mu := s.shard(h.key)
	mu.Lock()
	moved := s.swap(s.set(h.key), l, to)
	mu.Unlock()
	if moved {
		s.super.forwarded.Add(1)
	}
	return n
}

// indexed tells whether the index still leads to l.
func (s *Store) indexed(k Key, l location) bool {
	set := s.set(k)
	for i := range set.locs {
		if location(set.locs[i].Load()) == l {
			return true
		}
	}
	return false
}

// bodyServes tells whether every part of a body is still there. Nothing is used again
// meanwhile, because the caller holds ring.mu.
func (s *Store) bodyServes(h *objectHeader) bool {
	if over := location(h.overflow.Load()); over != 0 && !s.segs[over.segment()].serves(over.generation()) {
		return false
	}
	for i := range h.fragments.Load() {
		if f := s.fragment(h, i).loc; !s.segs[f.segment()].serves(f.generation()) {
			return false
		}
	}
	return true
}
