package disk

import (
	"runtime/debug"
	"time"

	"trafficd/roles/server/cache"
)

// Purge implements cache.Lower: it takes out, for good, every response that match accepts, alternate by alternate.
// labels are what Options.Labels has found in its head. It reads the summaries of all segments, so it is not for a loop, and returns when what it did is
// on the medium. What is in memory is not its affair, but what was on its way from there when it began is. False: the store is closed, or
// was meanwhile, and not everything was looked at.
func (s *Store) Purge(match func(k cache.Key, uri, labels []byte) bool) bool {
	s.purging.RLock()
	defer s.purging.RUnlock()
	if s.closed.Load() {
		return false
	}
	if s.index.broken.Load() {
		return true
	}
	defer s.index.guard(debug.SetPanicOnFault(true))
	if !s.write.ask(func() {}) { // which segments there are is known once the writer takes turns
		return !s.stopping()
	}
	newest := s.index.hdr.seq.Load()
	some, ok := s.purgeSince(1, match)
	if !ok {
		return false
	}
	// What was on its way from memory when this began may have been written to a segment that had been looked at already. If memory
	// evicts it now, nobody else takes it out.
	if !s.write.ask(func() { s.write.work() }) {
		return !s.stopping()
	}
	late, ok := s.purgeSince(max(newest, 1), match)
	if !ok {
		return false
	}
	if !some && !late {
		return true
	}
	if err := s.Sync(); err != nil {
		if s.stopping() {
			return false
		}
		s.failed(err, "purge")
	}
	return true
}

// purgeSince takes out what match accepts of the segments with this number or a greater one. It reports whether that was anything, and
// whether it came to the end.
func (s *Store) purgeSince(least uint64, match func(k cache.Key, uri, labels []byte) bool) (some, ok bool) {
	var buf []byte
	for i := range s.index.rows {
		if s.stopping() {
			return some, false
		}
		seg := uint32(i)
		seq := s.index.sequence(seg)
		if seq < least {
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
	return some, true
}

// Settle implements cache.Lower: what was removed so far has its tombstones in the log when it returns, so that it stays away also if
// this process dies now and the index is lost later. A disk that stands still is not waited for any longer than settleWait.
func (s *Store) Settle() bool {
	limit := time.NewTimer(settleWait)
	defer limit.Stop()
	done := make(chan struct{})
	select {
	case s.write.asks <- func() { s.write.settle(); close(done) }:
	case <-s.write.done:
		return !s.stopping() // or the index is broken
	case <-limit.C:
		return true
	}
	select {
	case <-done:
	case <-limit.C:
	}
	return true
}

// purgeOne takes a response out if it is still there, and meant.
func (s *Store) purgeOne(seg uint32, seq uint64, e *entry, match func(k cache.Key, uri, labels []byte) bool, buf *[]byte) bool {
	p := placeOf(seg, e.off, seq)
	// While the index is made anew, what is not in it may still come. Whether it is being made is asked first: it may be done
	// between the two.
	if e.kind == kindTombstone || !s.scan.active.Load() && !s.index.leadsTo(e.key, p) {
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
