package cache

// Update stores a new head and new metadata for o after a 304 (RFC 9111 §4.3.4). The
// body is the same: shared where it is large, copied where it is small, so that a hit
// goes on reading adjacent lines. It returns the updated object, pinned; o stays pinned and
// unchanged. ErrSuperseded when another response has replaced o meanwhile, which is
// then the one to keep; ErrPurged, ErrNoSpace, ErrTooLarge and ErrFenced leave o as it was.
func (a *Arena) Update(o *Object, meta *Meta, head []byte) (Object, error) {
	s, old := a.store, o.hdr
	r := record{key: old.key, meta: meta, uri: old.uri(), vary: old.varyBlock(), head: head, declared: old.declared, flags: s.standing(o.loc, old)}
	if r.text() > s.maxHead() {
		return Object{}, ErrTooLarge
	}
	if !s.indexed(old.key, o.loc) {
		return Object{}, ErrSuperseded
	}
	size := o.BodyLen()
	var l location
	var err error
	if size <= s.small() {
		l, err = a.copyWhole(r, old, size)
	} else {
		l, err = a.shareBody(r, old, size)
	}
	if err != nil {
		return Object{}, err
	}
	h := s.header(l)
	n := Object{arena: a, hdr: h, loc: l}
	if err := a.publish(l, h, o.loc); err != nil {
		n.Release()
		return Object{}, err
	}
	s.super.updated.Add(1)
	s.tellPublished(n)
	return n, nil
}

// copyWhole writes the record with the body behind it, and leaves it pinned.
func (a *Arena) copyWhole(r record, old *objectHeader, size int64) (location, error) {
	s := a.store
	need := alignUp(r.size(), granule) + uint32(size)
	a.mu.Lock()
	l, n, err := a.reserve(need, need)
	a.mu.Unlock()
	if err != nil {
		return 0, err
	}
	h := s.writeRecord(l, r, n)
	body := s.bytesAt(l, n)[alignUp(r.size(), granule):]
	for off := int64(0); off < size; {
		off += int64(copy(body[off:], s.fragmentAt(old, off)))
	}
	s.complete(l, h, size)
	return l, nil
}

// shareBody writes the record with a table of the fragments that are there already,
// and leaves it and them pinned.
func (a *Arena) shareBody(r record, old *objectHeader, size int64) (location, error) {
	s := a.store
	count := old.fragments.Load()
	record := alignUp(r.size(), granule)
	table := uint32(0)
	if count > inlineFrs {
		table = (count - inlineFrs) * fragmentSize
	}
	a.mu.Lock()
	l, _, err := a.reserve(record+table, record+table)
	a.mu.Unlock()
	if err != nil {
		return 0, err
	}
	h := s.writeRecord(l, r, 0)
	if table != 0 {
		h.overflowCap = count - inlineFrs
		h.overflow.Store(uint64(locate(l.segment(), l.offset()+record, l.generation())))
	}
	for i := range count {
		*s.fragment(h, i) = *s.fragment(old, i)
	}
	h.fragments.Store(count)
	a.pinBody(l, h, func(*segmentHeader, uint32) bool { return true })
	s.complete(l, h, size)
	return l, nil
}
