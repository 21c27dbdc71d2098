package cache

// record is what goes into a new object header.
type record struct {
	key             Key
	meta            *Meta
	uri, vary, head []byte
	declared        int64
	flags           uint32 // that it begins with
	softened        uint32
}

func recordOf(h *objectHeader) record {
	return record{key: h.key, meta: &h.meta, uri: h.uri(), vary: h.varyBlock(), head: h.headBlock(), declared: h.declared, softened: h.softened.Load()}
}

func (r *record) size() uint32 {
	return headerSize + uint32(r.text())
}

// text is the length of what follows the header, the body aside.
func (r *record) text() int { return len(r.vary) + len(r.head) + len(r.uri) }

// writeRecord begins the record r in the n bytes at l, and describes what follows it
// there as the first fragment of its body. Nothing can find it yet.
func (s *Store) writeRecord(l location, r record, n uint32) *objectHeader {
	h := s.header(l)
	h.key, h.meta, h.declared = r.key, *r.meta, r.declared
	h.varyLen, h.headLen, h.uriLen = uint32(len(r.vary)), uint32(len(r.head)), uint32(len(r.uri))
	h.prev, h.overflowCap = 0, 0
	h.committed.Store(0)
	h.softened.Store(r.softened)
	h.flags.Store(r.flags)
	h.overflow.Store(0)
	copy(h.varyBlock(), r.vary)
	copy(h.headBlock(), r.head)
	copy(h.uri(), r.uri)
	killpoint()
	body := alignUp(r.size(), granule)
	if n > body {
		h.inline[0] = makeFragment(locate(l.segment(), l.offset()+body, l.generation()), 0, n-body)
		h.fragments.Store(1)
	} else {
		h.fragments.Store(0)
	}
	killpoint()
	h.seal = s.sealOf(l) // last: OpenID and Resume believe what is sealed
	killpoint()
	return h
}

// complete declares the body of the record at l to be all there, and links it into its
// segment's chain, by which an eviction finds what deserves a second chance.
func (s *Store) complete(l location, h *objectHeader, size int64) {
	h.committed.Store(uint64(size))
	killpoint()
	seg := &s.segs[l.segment()]
	if size > maxForwarded {
		seg.large.Add(1)
	}
	chain := &seg.last
	for {
		h.prev = chain.Load()
		killpoint()
		if chain.CompareAndSwap(h.prev, l.offset()/granule+1) {
			break
		}
	}
	killpoint()
	h.flags.Or(flagComplete)
	killpoint()
}
