package cache

// How much of an eviction's work one allocation may be charged with, when nobody has done it before: at
// most maxEvictions segments are walked, the last of which must yield, and of that at most half (512 KiB, some
// 100 µs) is copied; of large bodies maxRescued more, from all of them together.
const (
	maxEvictions  = 6
	maxForwarded  = 64 << 10 // larger bodies are not copied in one piece (rescueLarge)
	maxRescued    = 512 << 10
	hotShare      = 2                    // a segment is kept whole if 1/hotShare of it was hit
	maxChainSteps = maxSegSize / granule // more objects than a segment can hold: the chain is damaged
)

// evict deals with a victim. If much of it was hit it is kept whole, with nothing copied, unless it has to yield;
// otherwise what was hit moves to the ring's own segment, and the rest is gone. The caller holds ring.mu.
func (s *Store) evict(seg uint32, yield bool) {
	if !yield && s.hotBytes(seg) >= s.segSize/hotShare {
		s.promote(seg)
		return
	}
	s.rescue(seg)
	s.condemn(seg)
}

// condemn evicts a segment: one store, and every entry that leads into it is dead. A reader that came in
// before the store keeps it until a later round. The caller holds ring.mu.
func (s *Store) condemn(seg uint32) {
	h := &s.segs[seg]
	w := h.word.Load()
	if !h.word.CompareAndSwap(w, segmentWord(generationOf(w), segCondemned)) {
		return
	}
	killpoint()
	s.super.evicted.Add(1)
	s.ring.condemned = append(s.ring.condemned, seg)
	s.reclaim()
}

// records goes through what was completed in a sealed segment, newest first.
func (s *Store) records(seg uint32, f func(location, *objectHeader)) {
	gen := generationOf(s.segs[seg].word.Load())
	next := s.segs[seg].last.Load()
	for range maxChainSteps {
		if next == 0 || next > s.segSize/granule {
			return
		}
		l := locate(seg, (next-1)*granule, gen)
		h := s.header(l)
		if h.seal != s.sealOf(l) {
			return
		}
		next = h.prev
		if h.flags.Load()&flagComplete != 0 {
			f(l, h)
		}
	}
}

// hotBytes is what forwarding all that was hit in a segment would take.
func (s *Store) hotBytes(seg uint32) (n uint32) {
	s.records(seg, func(l location, h *objectHeader) {
		if h.wasHit() && h.committed.Load() <= maxForwarded && s.indexed(h.key, l) {
			n += h.need()
		}
	})
	return n
}

// need is what a copy of a record and its body takes, in one piece.
func (h *objectHeader) need() uint32 {
	r := recordOf(h)
	return alignUp(r.size(), granule) + alignUp(uint32(h.committed.Load()), granule)
}

// promote makes a segment the newest protected one. The objects stay where they are, and
// what was not hit stays with them. The caller holds ring.mu.
func (s *Store) promote(seg uint32) {
	h := &s.segs[seg]
	was := h.class.Load()
	s.records(seg, func(_ location, r *objectHeader) {
		f := r.flags.Load()
		if f&hitMask != 0 && r.flags.CompareAndSwap(f, cool(f, was)) {
			s.super.forwarded.Add(1)
			killpoint()
		}
	})
	h.class.Store(protected)
	killpoint()
	h.seq.Store(s.super.filling.Add(1))
	killpoint()
	s.queue(seg)
}

// rescue copies what was hit in a segment that is to be evicted, newest first, up to half a segment. What has to
// be left behind leaves a ghost, unless it had its chance in a protected segment. The caller holds ring.mu.
func (s *Store) rescue(seg uint32) {
	class := s.segs[seg].class.Load()
	budget := s.segSize / hotShare
	leave := func(l location) {
		h := s.header(l)
		hit := h.wasHit()
		if !hit && class == protected || !s.indexed(h.key, l) {
			return
		}
		if hit && h.committed.Load() <= maxForwarded {
			if need := h.need(); need <= budget && s.bodyServes(h) && s.forward(l, h, need, class) {
				budget -= need
				return
			}
		}
		if hit {
			s.super.lost.Add(1)
		}
		s.haunt(h.key)
	}
	// Each has its place in a set of its own, which is cold. Those of some are fetched at a time.
	var due [8]location
	n := 0
	s.records(seg, func(l location, h *objectHeader) {
		s.set(h.key).expect()
		due[n] = l
		if n++; n == len(due) {
			for _, l := range due {
				leave(l)
			}
			n = 0
		}
	})
	for _, l := range due[:n] {
		leave(l)
	}
}

// forward copies one object into the ring's own segment. The copy is found from the moment the entry
// is swapped; a death before that leaves it as garbage.
func (s *Store) forward(l location, h *objectHeader, need, class uint32) bool {
	k := &s.ring.keep
	if k.seg < 0 {
		s.reopenLeft(k, protected)
	}
	if k.seg < 0 || s.segSize-k.used < need {
		s.seal(k)
		if !s.openSpare(k, protected) {
			return false
		}
	}
	to, n := s.take(k, need)
	r := recordOf(h)
	r.flags = cool(h.flags.Load(), class) & flagsMoved
	c := s.writeRecord(to, r, n)
	size := int64(h.committed.Load())
	body := s.bytesAt(to, n)[alignUp(r.size(), granule):]
	for off := int64(0); off < size; {
		off += int64(copy(body[off:], s.fragmentAt(h, off)))
	}
	s.complete(to, c, size)
	if s.moveEntry(l, h, to, c) {
		s.super.forwarded.Add(1)
		s.tellMoved(to, c)
	}
	return true
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
