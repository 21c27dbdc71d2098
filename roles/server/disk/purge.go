package disk

import (
	"runtime/debug"

	"trafficd/roles/server/cache"
)

// Purge implements cache.Lower: it takes out, for good, every response that match accepts, alternate by alternate.
// labels are what Options.Labels has found in its head. It reads the summaries of all segments, so it is not for a loop, and returns when what it did is
// on the medium. What is in memory is not its affair, nor what is on its way from there.
func (s *Store) Purge(match func(k cache.Key, uri, labels []byte) bool) {
	if s.closed.Load() || s.index.broken.Load() {
		return
	}
	defer s.index.guard(debug.SetPanicOnFault(true))
	if !s.write.ask(func() {}) { // which segments there are is known once the writer takes turns
		return
	}
	var buf []byte
	some := false
	for i := range s.index.rows {
		seg := uint32(i)
		seq := s.index.sequence(seg)
		if seq == 0 {
			continue
		}
		es, err := s.contents(seg, seq)
		if err != nil {
			s.forget(seg, seq) // what is meant may be there
			continue
		}
		for i := range es {
			some = s.purgeOne(seg, seq, &es[i], match, &buf) || some
		}
	}
	if !some {
		return
	}
	if err := s.Sync(); err != nil {
		s.failed(err, "purge")
	}
}

// purgeOne takes a response out if it is still there, and meant.
func (s *Store) purgeOne(seg uint32, seq uint64, e *entry, match func(k cache.Key, uri, labels []byte) bool, buf *[]byte) bool {
	p := placeOf(seg, e.off, seq)
	// While the index is made anew, what is not in it may still come.
	if e.kind == kindTombstone || !s.index.leadsTo(e.key, p) && !s.scan.active.Load() {
		return false
	}
	if e.long {
		r, _, err := s.fetch(seg, e.off, e.length, seq, buf)
		if err == nil && !match(e.key, r.uri, s.opts.Labels(nil, r.head)) {
			return false // and what cannot be read may be meant
		}
	} else if !match(e.key, e.uri, e.labels) {
		return false
	}
	s.scan.touch(e.key)
	s.index.remove(e.key, func(q place, _ info) bool { return p == q })
	s.backlog.remove(grave{e.key, e.vary})
	return true
}

// forget gives a segment up that cannot be read.
func (s *Store) forget(seg uint32, seq uint64) {
	x := s.index
	if !x.rows[seg].seq.CompareAndSwap(seq, 0) {
		return
	}
	x.hdr.objects.Add(-x.rows[seg].live.Swap(0))
	s.write.ask(func() {
		if s.write.seg == seg {
			s.write.flush()
			s.write.abandon()
		}
	})
}
