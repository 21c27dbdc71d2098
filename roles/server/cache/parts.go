package cache

// Parts of representations. A response that brought, or had brought when it broke off, only some of a
// representation's bytes is an object whose Meta says which. Such objects lie under a key of their own, so that no
// look-up for the whole ever meets them. An alternate may have several parts, each known by its first byte.
//
// Parts that fit are put together by reference: Assemble makes a record whose fragments are those of
// its pieces, as Update does for a new head. So a download that is completed piece by
// piece is never copied as a whole, and nothing takes longer than its number of fragments.

// Parts returns the key of the parts of what k names. Of that key it returns k. It is in the same set, of
// which a look-up for the whole has just read the tags.
func (k Key) Parts() Key {
	for i := 8; i < len(k); i++ {
		k[i] = ^k[i]
	}
	return k
}

// AppendParts appends the objects of k that m accepts, as Lookup does, each pinned.
func (a *Arena) AppendParts(dst []Object, k Key, m Matcher) []Object {
	set, tag := a.store.set(k), k.tag()
	for i := range set.tags {
		if set.tags[i].Load() != tag {
			continue
		}
		o, ok := a.open(location(set.locs[i].Load()))
		if !ok {
			continue
		}
		if o.hdr.key != k || m != nil && o.hdr.varyLen != 0 && !m.MatchVary(o.Vary()) {
			o.Release()
			continue
		}
		dst = append(dst, o)
	}
	return dst
}

// RemoveParts makes the parts of what k names unfindable, and returns how many there were.
func (s *Store) RemoveParts(k Key) int {
	if s.Fenced() {
		return 0
	}
	return s.removeHere(k.Parts())
}

// Discard makes one object unfindable.
func (s *Store) Discard(o *Object) {
	mu := s.shard(o.Key())
	mu.Lock()
	defer mu.Unlock()
	set := s.set(o.Key())
	for i := range set.locs {
		if location(set.locs[i].Load()) == o.loc && !s.Fenced() {
			s.drop(set, i)
		}
	}
}

// Reader returns what the fill has so far, pinned for itself, as an object to assemble another from: nobody
// can find it.
func (w *Writer) Reader() Object { return w.arena.again(w.obj.loc, w.obj.hdr) }

// A stretch is a run of the new body: a fragment of a piece, or several small neighbours, which are copied
// into one, so that a body that came in small pieces does not stay in them.
type stretch struct {
	loc  location // of a fragment that is shared; 0: copied
	size int64
}

// Assemble publishes an object of k whose body is that of the pieces, one behind the other.
// The pieces stay pinned and as they are. Errors: ErrTooLarge, ErrNoSpace, ErrPurged, ErrFenced; then nothing has changed.
func (a *Arena) Assemble(k Key, meta *Meta, uri, vary, head []byte, pieces ...*Object) error {
	s := a.store
	all := *meta
	for _, p := range pieces {
		all.Born = min(all.Born, p.hdr.meta.Born)
	}
	r := record{key: k, meta: &all, uri: uri, vary: vary, head: head, declared: -1}
	plan, total := s.stretches(pieces)
	r.declared = total
	table := uint32(0)
	if n := uint32(len(plan)); n > inlineFrs {
		table = (n - inlineFrs) * fragmentSize
	}
	if total > s.opts.MaxObject || r.text() > s.maxHead() || table > s.segSize/2 {
		return ErrTooLarge
	}
	if s.Fenced() {
		return ErrFenced
	}
	record := alignUp(r.size(), granule)
	a.mu.Lock()
	l, _, err := a.reserve(record+table, record+table)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	h := s.writeRecord(l, r, 0)
	if table != 0 {
		h.overflowCap = uint32(len(plan)) - inlineFrs
		h.overflow.Store(uint64(locate(l.segment(), l.offset()+record, l.generation())))
	}
	o := Object{arena: a, hdr: h, loc: l}
	defer o.Release()
	if err := a.fill(l, h, plan, pieces); err != nil {
		return err
	}
	s.complete(l, h, total)
	if err := a.publish(l, h, 0); err != nil {
		return err
	}
	s.super.published.Add(1)
	s.tellPublished(o)
	return nil
}

// stretches decides what of the pieces is shared and what is copied. Two small neighbours are copied into one, unless the
// first is the larger: so a byte that comes in small pieces is copied a few times only, and there are
// few fragments for each 64 KiB.
func (s *Store) stretches(pieces []*Object) (plan []stretch, total int64) {
	for _, o := range pieces {
		size := o.BodyLen()
		for i := range o.hdr.fragments.Load() {
			f := s.fragment(o.hdr, i)
			n := min(f.capacity(), size-f.start())
			if n <= 0 {
				break
			}
			total += n
			plan = append(plan, stretch{f.loc, n})
			for last := len(plan) - 1; last > 0 && plan[last-1].size <= plan[last].size && plan[last].size < s.small(); last-- {
				plan[last-1] = stretch{0, plan[last-1].size + plan[last].size}
				plan = plan[:last]
			}
		}
	}
	return plan, total
}

// fill enters the stretches of a plan in the record at l, each pinned for it.
func (a *Arena) fill(l location, h *objectHeader, plan []stretch, pieces []*Object) error {
	s, start := a.store, int64(0)
	for i, p := range plan {
		loc := p.loc
		if loc == 0 {
			a.mu.Lock()
			to, _, err := a.reserve(uint32(p.size), uint32(p.size))
			a.mu.Unlock()
			if err != nil {
				return err
			}
			loc = to
			copyPieces(s.bytesAt(to, uint32(p.size)), pieces, start)
		} else {
			a.pin(loc)
		}
		if loc.segment() == l.segment() {
			a.unpin(loc) // the record's own pin covers it
		}
		*s.fragment(h, uint32(i)) = makeFragment(loc, start, uint32(p.size))
		h.fragments.Store(uint32(i) + 1)
		start += p.size
	}
	return nil
}

// copyPieces copies the bytes from off on of the pieces' common body.
func copyPieces(dst []byte, pieces []*Object, off int64) {
	for _, o := range pieces {
		size := o.BodyLen()
		for off < size && len(dst) > 0 {
			n := copy(dst, o.Fragment(off))
			dst, off = dst[n:], off+int64(n)
		}
		off -= size
	}
}
