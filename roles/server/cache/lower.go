package cache

// A Lower is the tier below a store: it keeps what is published here, and what it kept comes back by
// Writer.PublishLoaded. Its methods are called by whoever changes the store, a loop usually, and must
// not block.
type Lower interface {
	// Published says that id, pinned for the time of the call, with a body of size bytes, is the stored response for its key and
	// vary block from now on.
	Published(k Key, vary []byte, id ID, size int64)
	// Removed says that nothing stored under k may be served any more. Remove calls it twice, before it
	// removes anything and after: so what the tier below puts back up, having seen it there before the first call, is
	// removed with the rest, and what it has read here before the second call it can refuse.
	Removed(k Key)
	// Has tells whether anything may be stored under k there. No may also mean that it cannot tell without
	// blocking.
	Has(k Key) bool
	// Expect says that Has is about to be asked.
	Expect(k Key)
	// Count tells how many responses that is, one for each alternate.
	Count(k Key) int
	// Purge takes out, for good, whatever match accepts, alternate by alternate. labels are the lines of a head from which
	// Options.Tags reads the tags. It is not called on a loop and may block; match must not be called with a lock
	// held that the other methods take. False: it could not, or not all of it, as another process has it by now or is about to.
	Purge(match func(k Key, uri, labels []byte) bool) bool
	// Settle waits, within bounds, until what Removed has told of can come back by no order of deaths. It is not called on a
	// loop. False: it never will be, as another process has the tier.
	Settle() bool
}

// SetLower puts a tier below the store; nil takes it away.
func (s *Store) SetLower(l Lower) {
	if l == nil {
		s.lower.Store(nil)
		return
	}
	s.lower.Store(&l)
}

// tellPublished tells of whole responses only: parts are kept here and nowhere else.
func (s *Store) tellPublished(o Object) {
	if o.hdr.meta.RangeTotal != 0 {
		return
	}
	if l := s.lower.Load(); l != nil {
		(*l).Published(o.hdr.key, o.hdr.varyBlock(), o.ID(), o.BodyLen())
	}
}

// tellMoved tells once more of an object that has a new identity, unless the tier below has it already: the
// identity that it was told first may lead nowhere by the time it looks.
func (s *Store) tellMoved(l location, h *objectHeader) {
	if s.lower.Load() != nil && h.flags.Load()&flagOnDisk == 0 {
		o := s.common().again(l, h)
		s.tellPublished(o)
		o.Release()
	}
}

func (s *Store) tellRemoved(k Key) {
	if l := s.lower.Load(); l != nil {
		(*l).Removed(k)
	}
}

// SeedOf returns the seed of the keys in a mapping that was formatted by this version; false for any
// other. Nothing is changed.
func SeedOf(mem []byte) (seed [2]uint64, ok bool) {
	s, g, err := view(mem)
	if err != nil || !s.super.matches(g) {
		return seed, false
	}
	return s.super.keySeed(), true
}

// keySeed is what URIs are hashed with: the seed that the store was formatted with, unless a later Open
// brought another.
func (b *superblock) keySeed() [2]uint64 {
	if b.otherSeed != [2]uint64{} {
		return b.otherSeed
	}
	return b.seed
}

// OpenStored opens an object as long as it is the stored response for its key and vary
// block: not when it was replaced, removed, softened or evicted.
func (s *Store) OpenStored(id ID) (Object, bool) {
	o, ok := s.common().open(location(id))
	if ok && (o.soft != nil || !s.indexed(o.hdr.key, o.loc)) {
		o.Release()
		return Object{}, false
	}
	return o, ok
}

// Has tells whether an object with this vary block is stored under k. It does not count as a hit.
func (s *Store) Has(k Key, vary []byte) bool {
	o, ok := s.Find(k, vary)
	o.Release()
	return ok
}

// Find opens the object that is stored under k with this very vary block. It does not count as a hit.
func (s *Store) Find(k Key, vary []byte) (found Object, ok bool) {
	s.EachAlternate(k, func(o *Object) {
		if !ok && string(o.Vary()) == string(vary) {
			found, *o, ok = *o, Object{}, true
		}
	})
	return found, ok
}

// EachAlternate calls f with every response that is stored under k, pinned for the time of the call. It does
// not count as a hit.
func (s *Store) EachAlternate(k Key, f func(*Object)) {
	a, set, tag := s.common(), s.set(k), k.tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		o, ok := a.open(location(set.locs[i].Load()))
		if ok && o.hdr.key == k {
			f(&o)
		}
		o.Release()
	}
}

// PublishLoaded is Publish for what comes from the tier below: it gives way to any response with the same
// vary block, and to a removal. still is asked, while nobody can publish under the key, whether the
// tier below still has it. False: nothing was published, Abort it.
func (w *Writer) PublishLoaded(still func() bool) (bool, error) {
	a, h, l := w.arena, w.obj.hdr, w.obj.loc
	s := a.store
	if h.declared >= 0 && w.size != h.declared {
		return false, ErrIncomplete
	}
	if s.Fenced() {
		return false, ErrFenced
	}
	w.trim()
	s.complete(l, h, w.size)
	h.flags.Or(flagOnDisk)
	if !a.publishLoaded(l, h, still) {
		return false, nil
	}
	w.state.Store(uint32(Published))
	return true, nil
}

func (a *Arena) publishLoaded(l location, h *objectHeader, still func() bool) bool {
	s := a.store
	mu := s.shard(h.key)
	mu.Lock()
	defer mu.Unlock()
	set := s.set(h.key)
	v := a.survey(set, h)
	if !still() {
		return false
	}
	if v.same < 0 {
		s.takeWay(set, &v, h.key.tag(), l)
		return true
	}
	old := location(set.locs[v.same].Load())
	if o, ok := a.open(old); ok {
		o.Release()
		return false
	}
	// Of what is there the body has been evicted, or a part of it: nobody can open it any more.
	set.locs[v.same].Store(uint64(l))
	killpoint()
	s.discount(old)
	s.segs[l.segment()].live.Add(1)
	killpoint()
	return true
}

// LayoutVersion changes with the meaning of Meta, which the tier below keeps as it stands.
const LayoutVersion = 5
