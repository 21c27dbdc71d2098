package cache

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Tend does, until stop is closed, what would cost a loop too much or too often: it keeps spare
// segments, so that evictions are not paid for by allocations, has memory behind the one that is opened next,
// and moves large objects that were hit out of the segments that are evicted next. Without it the store works, but for
// those of them that take more than an allocation may be charged with.
// One goroutine beside the loops runs it. It sleeps until segments are opened.
func (s *Store) Tend(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-s.wake:
		}
		s.gaugeFlood(time.Now())
		s.tend()
		s.populateSpare()
	}
}

// populateSpare has the kernel put memory behind the spare segment that is opened next, if that was never used: page by page, as a
// loop fills it for the first time, that is a twentieth of what a miss costs.
func (s *Store) populateSpare() {
	s.ring.Lock()
	if !s.unusedSpare(0) {
		s.ring.Unlock()
		return
	}
	next := locate(*s.ring.spares.at(0), 0, 0)
	s.ring.Unlock()
	// An error (before Linux 5.14) changes nothing: the pages come as they are touched.
	_ = unix.Madvise(s.bytesAt(next, s.segSize), unix.MADV_POPULATE_WRITE)
}

// unusedSpare reports whether the i-th spare segment, and with it all that follow, was never used. The caller holds ring.mu.
func (s *Store) unusedSpare(i uint32) bool {
	q := &s.ring.spares
	return i < q.n && stateOf(s.segs[*q.at(i)].word.Load()) == segFree
}

// rouse tells a goroutine that there is something to do.
func rouse(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told already
	}
}

// stockTarget is how many spare segments the tender keeps: enough for the time it takes to get a processor.
func (s *Store) stockTarget() uint32 { return max(s.wanted(), uint32(min(2+len(s.segs)/32, 12))) }

// maxPromotions is how many segments the tender keeps whole in a row. When all of them are hot, something hot
// has to go.
const maxPromotions = 16

// tend fills the stock. It lets go of the ring as often as it can, since a loop may wait for it.
func (s *Store) tend() {
	for promoted := 0; ; promoted++ {
		seg, ok := s.nextVictim()
		if !ok {
			return
		}
		if s.segs[seg].large.Load() != 0 {
			s.rescueLarge(seg, math.MaxInt64)
		}
		s.ring.Lock()
		before := s.ring.spares.n
		s.evict(seg, promoted >= maxPromotions)
		if s.ring.spares.n > before {
			promoted = 0
		}
		s.ring.Unlock()
	}
}

// nextVictim takes a segment out, so that nobody else evicts it; false when there is stock enough.
func (s *Store) nextVictim() (uint32, bool) {
	s.ring.Lock()
	defer s.ring.Unlock()
	s.reclaim()
	if s.ring.spares.n >= s.stockTarget() && !s.passesThrough() {
		return 0, false
	}
	return s.victim()
}

// From floodRate bytes a second on, in the mean of floodTime, misses are a flood.
const (
	floodRate = 32 << 20
	floodTime = 100 * time.Millisecond
)

// gaugeFlood finds out how fast segments are opened.
func (s *Store) gaugeFlood(now time.Time) {
	opened := s.super.filling.Load()
	took := now.Sub(s.tender.looked)
	if took < floodTime {
		return
	}
	flood := float64(opened-s.tender.opened)*float64(s.segSize) >= floodRate*took.Seconds()
	s.tender.opened, s.tender.looked = opened, now
	s.ring.Lock()
	s.ring.flood = flood
	s.ring.Unlock()
}

// passesThrough reports whether a flood of misses is to take the place of what is on probation although there are segments
// that were never used. To touch memory for the first time is a twentieth of what a miss costs, and a fifth where a
// hypervisor has to find it. Nothing is lost, since the tier below has what goes. The caller holds ring.mu.
func (s *Store) passesThrough() bool {
	q := &s.ring.sealed[probation]
	if !s.ring.flood || q.n <= s.probationTarget() || !s.unusedSpare(s.stockTarget()-1) {
		return false
	}
	oldest := *q.at(0)
	return !s.pinned(oldest) && s.isBelow(oldest)
}

// isBelow reports whether the tier below has all that a segment serves.
func (s *Store) isBelow(seg uint32) bool {
	all := true
	s.records(seg, func(l location, h *objectHeader) {
		all = all && (h.flags.Load()&flagOnDisk != 0 || !s.indexed(h.key, l))
	})
	return all
}

// rescueLarge copies the large objects of a victim that were hit, as long as they fit what is left of the budget in
// bytes, and returns what is left after. The caller does not hold ring.mu.
func (s *Store) rescueLarge(seg uint32, budget int64) int64 {
	a := s.protected
	w := s.segs[seg].word.Load()
	here := locate(seg, 0, generationOf(w))
	if stateOf(w) != segSealed || !a.pinServing(here) {
		return budget
	}
	defer a.unpin(here)
	class := s.segs[seg].class.Load()
	s.records(seg, func(l location, h *objectHeader) {
		if h.committed.Load() <= maxForwarded {
			return
		}
		if o, ok := a.current(l, h); ok {
			if n := o.BodyLen(); o.hdr.wasHit() && n <= min(budget, s.largest()) {
				a.move(&o, class)
				budget -= n
			}
			o.Release()
		}
	})
	return budget
}

// largest bounds what is moved: more than an eighth of the store would drive out too much that is just as good.
func (s *Store) largest() int64 { return int64(len(s.segs)) * int64(s.segSize) / 8 }

// current opens the object at l, or the one that has the same body under a newer head.
func (a *Arena) current(l location, h *objectHeader) (Object, bool) {
	set := a.store.set(h.key)
	for i := range set.locs {
		if set.tags[i].Load() != h.key.tag() {
			continue
		}
		o, ok := a.open(location(set.locs[i].Load()))
		if !ok {
			continue
		}
		if o.loc == l || o.hdr.key == h.key && o.hdr.fragments.Load() > 0 && h.fragments.Load() > 0 &&
			a.store.fragment(o.hdr, 0).loc == a.store.fragment(h, 0).loc {
			return o, true
		}
		o.Release()
	}
	return Object{}, false
}

// move copies o into the arena's segments and swaps the entry that leads to it.
func (a *Arena) move(o *Object, class uint32) {
	r := recordOf(o.hdr)
	r.declared, r.flags = o.BodyLen(), cool(o.hdr.flags.Load(), class)&flagsMoved
	w, err := a.create(r)
	if err != nil {
		return
	}
	defer w.Release()
	for off := int64(0); off < o.BodyLen(); {
		n, err := w.Write(o.Fragment(off))
		if err != nil {
			w.Abort()
			return
		}
		off += int64(n)
	}
	if w.replace(o) {
		a.store.super.forwarded.Add(1)
		a.store.tellMoved(w.obj.loc, w.obj.hdr)
	}
}
