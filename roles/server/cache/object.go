package cache

import "unsafe"

// An Object is a stored response, pinned: its bytes stay where they are and as they
// are until Release, also when it is evicted, replaced or removed meanwhile. It is a
// value; copying it does not pin again, and exactly one copy must be released. The
// slices it returns are the shared mapping itself: read only, and dead after Release.
type Object struct {
	arena *Arena
	hdr   *objectHeader
	loc   location
	soft  *Meta // in place of the record's, which was softened; nil usually
}

// An ID names one stored body for ever: it opens the same bytes or nothing. It is
// one word, so that a journal can keep it. Zero names nothing.
type ID uint64

// ID returns the identity to open the object again with, in this process or a later one.
func (o *Object) ID() ID { return ID(o.loc) }

// Valid tells whether o holds an object.
func (o *Object) Valid() bool { return o.hdr != nil }

// Meta returns what the freshness rules need. Read only.
func (o *Object) Meta() *Meta {
	if o.soft != nil {
		return o.soft
	}
	return &o.hdr.meta
}

// Key returns the key it is stored under.
func (o *Object) Key() Key { return o.hdr.key }

// Vary returns the vary block it was stored with, empty when it fits every request.
func (o *Object) Vary() []byte { return o.hdr.varyBlock() }

// URI returns the normalised URI it is stored under, as AppendURI makes it.
func (o *Object) URI() []byte { return o.hdr.uri() }

// OnDisk tells whether MarkOnDisk was called for it.
func (o *Object) OnDisk() bool { return o.hdr.flags.Load()&flagOnDisk != 0 }

// MarkOnDisk notes that the tier below holds this very record. A new record and an
// updated one come without the mark, a survivor of an eviction keeps it unless it is set at that
// moment. So it may be missing where it is due, and is never set where it is not.
func (o *Object) MarkOnDisk() { o.hdr.flags.Or(flagOnDisk) }

// Hits is how often it was hit since it came to its place, up to 3. Protected tells whether that
// is one that a scan does not reach.
func (o *Object) Hits() int { return int(o.hdr.flags.Load() & hitMask / hitOne) }

// Protected see Hits.
func (o *Object) Protected() bool {
	return o.arena.store.segs[o.loc.segment()].class.Load() == protected
}

// Softened tells whether a soft purge has made it stale.
func (o *Object) Softened() bool { return o.soft != nil }

// Head returns the head block.
func (o *Object) Head() []byte { return o.hdr.headBlock() }

// BodyLen returns the number of body bytes.
func (o *Object) BodyLen() int64 { return int64(o.hdr.committed.Load()) }

// Fragment returns the longest contiguous run of the body that starts at off; empty
// at the end of the body.
func (o *Object) Fragment(off int64) []byte { return o.arena.store.fragmentAt(o.hdr, off) }

// Release unpins the object. A second call on the same value does nothing.
func (o *Object) Release() {
	if o.hdr == nil {
		return
	}
	h := o.hdr
	o.hdr = nil
	o.arena.unpinRecord(o.loc, h)
}

func (h *objectHeader) varyBlock() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerSize)), h.varyLen)
}

func (h *objectHeader) headBlock() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerSize+h.varyLen)), h.headLen)
}

// uri lies behind the head block, so that what every hit reads is adjacent.
func (h *objectHeader) uri() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerSize+h.varyLen+h.headLen)), h.uriLen)
}

// fragment returns the i-th entry of the fragment table. The caller has pinned the
// record, and the overflow table with it.
func (s *Store) fragment(h *objectHeader, i uint32) *fragment {
	if i < inlineFrs {
		return &h.inline[i]
	}
	table := s.at(location(h.overflow.Load()))
	return (*fragment)(unsafe.Add(table, (i-inlineFrs)*fragmentSize))
}

// fragmentAt finds the run that holds body offset off among what is committed. The
// committed length is read first: whatever lies below it was stored before it.
func (s *Store) fragmentAt(h *objectHeader, off int64) []byte {
	size := int64(h.committed.Load())
	if off < 0 || off >= size {
		return nil
	}
	lo, hi := uint32(0), h.fragments.Load()
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if s.fragment(h, mid).start() <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	f := s.fragment(h, lo)
	run := s.bytesAt(f.loc, uint32(min(f.capacity(), size-f.start())))
	return run[off-f.start():]
}
