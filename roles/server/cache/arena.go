package cache

import (
	"sync"
	"sync/atomic"
)

// An Arena is one event loop's access to a Store. Any goroutine may call its
// methods; that a loop has its own is what keeps loops from sharing cache lines.
type Arena struct {
	store *Store
	class uint32 // of the segments it fills: probation, but for Store.protected

	// pins counts, by segment, what this arena's readers and writers hold. It is in
	// process memory, so a death drops every pin; the next process pins again what
	// it goes on sending.
	pins    []atomic.Int32
	sharers int // guarded by store.ring

	mu     sync.Mutex
	cursor cursor    // guarded by mu; the segment's number is written under store.ring as well, and read under either
	idle   []*Writer // guarded by mu; for use again
}

func (s *Store) newArena(class uint32) *Arena {
	return &Arena{store: s, class: class, pins: make([]atomic.Int32, len(s.segs)), cursor: cursor{seg: -1}}
}

// A Matcher decides whether a request may be answered by the alternate with this
// vary block (RFC 9111 §4.1). The block is not empty; alternates that do not vary fit
// every request and are not asked about.
type Matcher interface {
	MatchVary(vary []byte) bool
}

// Lookup returns the newest object of k that m accepts, pinned; nil accepts every
// alternate. It takes no lock and allocates nothing. Whether the object is fresh is
// the caller's to decide.
func (a *Arena) Lookup(k Key, m Matcher) (Object, bool) {
	var best Object
	set, tag := a.store.set(k), k.tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		o, ok := a.open(location(set.locs[i].Load()))
		if !ok {
			continue
		}
		switch {
		case o.hdr.key != k,
			m != nil && o.hdr.varyLen != 0 && !m.MatchVary(o.Vary()),
			best.hdr != nil && !newer(&o.hdr.meta, &best.hdr.meta):
			o.Release()
		default:
			best.Release()
			best = o
		}
	}
	if best.hdr == nil {
		return Object{}, false
	}
	best.hdr.hit()
	return best, true
}

// newer orders alternates that fit alike (RFC 9111 §4.1: by Date).
func newer(a, b *Meta) bool {
	return a.Date > b.Date || a.Date == b.Date && a.ResponseTime > b.ResponseTime
}

// open pins the published record at l and all of its body, or nothing.
func (a *Arena) open(l location) (Object, bool) {
	if l == 0 || !a.pinServing(l) {
		return Object{}, false
	}
	h := a.store.header(l)
	flags := h.flags.Load()
	if flags&flagComplete == 0 || !a.pinBody(l, h, (*segmentHeader).serves) {
		a.unpin(l)
		return Object{}, false
	}
	o := Object{arena: a, hdr: h, loc: l}
	if flags&flagSoftened != 0 {
		o.soft = h.softMeta()
	}
	return o, true
}

// pinServing pins l's segment if its entry is still good. The pin comes before the
// look at the generation, and an evictor changes the generation before it looks at the
// pins: one of the two sees the other.
func (a *Arena) pinServing(l location) bool {
	seg := l.segment()
	if seg >= uint32(len(a.pins)) {
		return false
	}
	a.pins[seg].Add(1)
	if a.store.segs[seg].serves(l.generation()) {
		return true
	}
	a.pins[seg].Add(-1)
	return false
}

func (a *Arena) pin(l location)   { a.pins[l.segment()].Add(1) }
func (a *Arena) unpin(l location) { a.pins[l.segment()].Add(-1) }

// pinBody pins what the record at l, itself pinned, has in other segments, as long as
// usable says that they hold what they did. On false nothing of it is pinned.
func (a *Arena) pinBody(l location, h *objectHeader, usable func(*segmentHeader, uint32) bool) bool {
	s := a.store
	pin := func(f location) bool {
		if f.segment() == l.segment() {
			return f.generation() == l.generation()
		}
		a.pin(f)
		if usable(&s.segs[f.segment()], f.generation()) {
			return true
		}
		a.unpin(f)
		return false
	}
	over := location(h.overflow.Load())
	if over != 0 && !pin(over) {
		return false
	}
	n := h.fragments.Load()
	for i := range n {
		if !pin(s.fragment(h, i).loc) {
			a.unpinFragments(l, h, i)
			if over != 0 {
				a.unpinOther(l, over)
			}
			return false
		}
	}
	return true
}

func (a *Arena) unpinOther(l, f location) {
	if f.segment() != l.segment() {
		a.unpin(f)
	}
}

func (a *Arena) unpinFragments(l location, h *objectHeader, n uint32) {
	for i := range n {
		a.unpinOther(l, a.store.fragment(h, i).loc)
	}
}

// unpinRecord takes back every pin on the record at l, the record's own last.
func (a *Arena) unpinRecord(l location, h *objectHeader) {
	a.unpinFragments(l, h, h.fragments.Load())
	if over := location(h.overflow.Load()); over != 0 {
		a.unpinOther(l, over)
	}
	a.unpin(l)
}

// again pins once more what this arena has pinned already.
func (a *Arena) again(l location, h *objectHeader) Object {
	a.pin(l)
	a.pinBody(l, h, func(*segmentHeader, uint32) bool { return true })
	return Object{arena: a, hdr: h, loc: l}
}

// OpenID opens an object by its identity, also when it has been evicted since, as
// long as its bytes have not been overwritten. A process that goes on where another
// died calls it for every response that was being sent, before EndHold.
func (a *Arena) OpenID(id ID) (Object, bool) {
	l := location(id)
	h, ok := a.reopen(l)
	if !ok {
		return Object{}, false
	}
	if h.flags.Load()&flagComplete == 0 {
		a.unpinRecord(l, h)
		return Object{}, false
	}
	return Object{arena: a, hdr: h, loc: l}, true
}

// reopen pins the record at l whatever became of it, if its bytes are intact. It
// holds the ring's lock, so that no segment is opened for reuse between the look at it and the pin.
func (a *Arena) reopen(l location) (*objectHeader, bool) {
	s := a.store
	if l == 0 || l.segment() >= uint32(len(s.segs)) || l.offset()+headerSize > s.segSize {
		return nil, false
	}
	s.ring.Lock()
	defer s.ring.Unlock()
	if !s.segs[l.segment()].intact(l.generation()) {
		return nil, false
	}
	h := s.header(l)
	if h.seal != s.sealOf(l) {
		return nil, false
	}
	a.pin(l)
	if !a.pinBody(l, h, (*segmentHeader).intact) {
		a.unpin(l)
		return nil, false
	}
	return h, true
}
