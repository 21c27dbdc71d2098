package cache

// A Purge says what is to go. Its parts are alternatives: what any of them means is meant.
type Purge struct {
	URI    []byte   // as AppendURI writes it; nil none
	Prefix []byte   // of such; nil none
	Tags   [][]byte // of the response, see Options.Tags

	// Soft leaves what is meant where it is, stale from Now on, wall nanoseconds. On the tier below it is
	// gone all the same.
	Soft bool
	Now  int64
}

// Purged is what a purge found: responses, each of them counted once.
type Purged struct {
	Memory int // in this store
	Below  int // in the tier below only
}

// Purge makes everything that p means unfindable, or stale. When it returns that is so for every
// process, whatever dies next, and stays so: a fill whose Meta.Born is from before the purge is refused. It walks over
// the whole store, unless p has but a URI, and may wait for the tier below: not for a loop. Interrupted by a death it
// is to be repeated.
func (s *Store) Purge(p *Purge) (n Purged, err error) {
	if s.Fenced() {
		return n, ErrFenced
	}
	// Twice: what the tier below puts up meanwhile it has seen there before it was taken out, so before the second.
	s.putUp(p)
	var ok bool
	if n.Below, ok = s.purgeBelow(p); !ok {
		return n, ErrFenced // or as good as that
	}
	s.putUp(p)
	if p.narrow() && s.fences.told.Load() == 0 {
		n.Memory = s.purgeSet(s.place(s.keyOfURI(p.URI)), p)
	} else {
		for i := range s.sets {
			n.Memory += s.purgeSet(uint32(i), p)
		}
	}
	if l := s.lower.Load(); l != nil && !(*l).Settle() {
		return n, ErrFenced // or as good as that
	}
	return n, nil
}

// narrow tells whether p means one URI only.
func (p *Purge) narrow() bool { return p.URI != nil && p.Prefix == nil && len(p.Tags) == 0 }

// NoteKeys says that a URI may be stored under other keys than its own, so that to purge it one has to look
// everywhere.
func (s *Store) NoteKeys() {
	if s.fences.told.Load() == 0 {
		s.fences.told.Store(1)
	}
}

// KeysNoted tells whether NoteKeys was called.
func (s *Store) KeysNoted() bool { return s.fences.told.Load() != 0 }

// means tells whether p means a response with this URI and these lines of a head.
func (s *Store) means(p *Purge, uri, lines []byte) bool {
	if p.URI != nil && string(p.URI) == string(uri) {
		return true
	}
	if p.Prefix != nil && len(uri) >= len(p.Prefix) && string(p.Prefix) == string(uri[:len(p.Prefix)]) {
		return true
	}
	return len(p.Tags) > 0 && s.opts.Tags != nil && s.opts.Tags(lines, func(tag []byte) bool {
		for _, t := range p.Tags {
			if string(t) == string(tag) {
				return true
			}
		}
		return false
	})
}

// purgeBelow purges the tier below, and counts what was not in memory as well. False: it could not.
func (s *Store) purgeBelow(p *Purge) (n int, ok bool) {
	l := s.lower.Load()
	if l == nil {
		return 0, true
	}
	if p.narrow() && s.fences.told.Load() == 0 {
		k := s.keyOfURI(p.URI)
		if !s.has(k) {
			n = (*l).Count(k)
		}
		(*l).Removed(k) // in any case: it may not know yet what it has
		return n, true
	}
	ok = (*l).Purge(func(k Key, uri, labels []byte) bool {
		if !s.means(p, uri, labels) {
			return false
		}
		if !s.has(k) {
			n++
		}
		return true
	})
	return n, ok
}

// has tells whether anything is stored under k.
func (s *Store) has(k Key) bool {
	a, set := s.common(), s.set(k)
	for i := range set.tags {
		if set.tags[i].Load() == k.tag() && a.hasKey(location(set.locs[i].Load()), k) {
			return true
		}
	}
	return false
}

// purgeSet purges one set of the index, and what the tier below was writing of it meanwhile; that may have been put
// up again before, so it looks twice.
func (s *Store) purgeSet(i uint32, p *Purge) int {
	var gone [setWays]Key
	n := s.purgeOnce(i, p, &gone)
	if n > 0 && s.lower.Load() != nil {
		for _, k := range gone[:n] {
			s.tellRemoved(k)
		}
		s.purgeOnce(i, p, &gone)
	}
	s.super.removed.Add(uint64(n))
	return n
}

// purgeOnce has the set's shard locked for the time that takes: what is published after that has seen the
// fences.
func (s *Store) purgeOnce(i uint32, p *Purge, gone *[setWays]Key) (n int) {
	set, mu := &s.sets[i], &s.shards[i%shardCount].Mutex
	mu.Lock()
	defer mu.Unlock()
	for way := range set.locs {
		o, ok := s.common().open(location(set.locs[way].Load()))
		if !ok {
			continue
		}
		if s.means(p, o.URI(), o.Head()) {
			gone[n] = o.hdr.key
			n++
			if p.Soft {
				o.hdr.soften(p.Now)
			} else {
				s.drop(set, way)
			}
		}
		o.Release()
	}
	return n
}

// soften notes since when the record is stale by somebody's word.
func (h *objectHeader) soften(now int64) {
	if h.flags.Load()&flagSoftened == 0 {
		h.softened.Store(uint32(now / 1e9))
		killpoint()
		h.flags.Or(flagSoftened)
		killpoint()
	}
	h.flags.And(^uint32(flagOnDisk))
	killpoint()
}

// softMeta is the metadata of a record that was softened: it became stale at that moment, if it was not before.
func (h *objectHeader) softMeta() *Meta {
	m := h.meta
	age := m.InitialAge + int64(h.softened.Load())*1e9 - m.ResponseTime
	m.Lifetime = min(m.Lifetime, max(0, age))
	return &m
}
