package disk

import (
	"cmp"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"trafficd/roles/server/cache"
)

// A rebuild makes the entries anew that were lost in a power cut, from the log, the newest first. What is older than what is
// found already, or than a tombstone, does not count; nor does what has been changed since the start.
type rebuild struct {
	store    *Store
	rebuilds bool // immutable: there is something to do
	active   atomic.Bool

	mu      sync.Mutex
	touched map[cache.Key]struct{} // guarded by mu: keys that were published or removed since the start
}

// maxTouched bounds the keys that are remembered. Beyond it the rest of the log is given up.
const maxTouched = 1 << 20

func (r *rebuild) init(s *Store, rebuilds bool) {
	r.store, r.rebuilds, r.touched = s, rebuilds, map[cache.Key]struct{}{}
	r.active.Store(rebuilds)
}

// touch notes that what the log has of k is out of date.
func (r *rebuild) touch(k cache.Key) {
	if !r.active.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.touched[k] = struct{}{}; len(r.touched) > maxTouched {
		r.active.Store(false)
	}
}

func (r *rebuild) mayEnter(k cache.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, touched := r.touched[k]
	return !touched && r.active.Load()
}

// prepare finds out which segments there are and which is the newest, before the writer writes. False: the store is
// being closed.
func (r *rebuild) prepare() bool {
	if !r.rebuilds {
		return true
	}
	s, x := r.store, r.store.index
	heads := make([]segmentHeader, x.segCount)
	newest, floor := segmentHeader{}, uint64(0)
	b := make([]byte, segHeaderSize)
	for i := range heads {
		if r.store.stopping() {
			return false
		}
		if err := readAll(s.dev, b, x.segmentAt(uint32(i))); err != nil {
			s.failed(err, "read")
			continue
		}
		h, ok := decodeSegmentHeader(b)
		if !ok || h.id != s.header.id || h.seg != uint32(i) {
			continue
		}
		heads[i] = h
		floor = max(floor, h.floor)
		if h.seq > newest.seq {
			newest = h
		}
	}
	if newest.seq != 0 {
		x.hdr.seq.Store(newest.seq + maxAhead)
	}
	x.hdr.cursor.Store(newest.seg)
	x.hdr.floor.Store(floor)
	for i, h := range heads {
		if h.seq != 0 && h.seq >= floor {
			x.rows[i].used.Store(x.segSize)
			x.rows[i].seq.Store(h.seq)
		}
	}
	return true
}

// run goes through the log.
func (r *rebuild) run() {
	if !r.rebuilds {
		return
	}
	s, x := r.store, r.store.index
	defer x.guard(debug.SetPanicOnFault(true))
	type segment struct {
		seg uint32
		seq uint64
	}
	var order []segment
	for i := range x.rows {
		// The writer opens segments meanwhile; what it writes is no affair of ours.
		if seq := x.rows[i].seq.Load(); seq != 0 {
			order = append(order, segment{uint32(i), seq})
		}
	}
	slices.SortFunc(order, func(a, b segment) int { return cmp.Compare(b.seq, a.seq) })
	dead := map[grave]struct{}{}
	full := make([]bool, x.setCount)
	for _, g := range order {
		if r.store.stopping() {
			return
		}
		es, err := s.contents(g.seg, g.seq)
		if err != nil {
			continue
		}
		for _, e := range slices.Backward(es) {
			if e.kind == kindTombstone {
				dead[grave{e.key, e.vary}] = struct{}{}
				continue
			}
			_, gone := dead[grave{e.key, everyAlternate}]
			if _, this := dead[grave{e.key, e.vary}]; gone || this {
				continue
			}
			x.putOlder(e.key, placeOf(g.seg, e.off, g.seq), infoOf(e.length, e.vary), full, func() bool { return r.mayEnter(e.key) })
		}
	}
	x.hdr.state.CompareAndSwap(indexRebuilds, indexUsed)
	r.active.Store(false)
	r.mu.Lock()
	clear(r.touched)
	r.mu.Unlock()
	if s.opts.Log != nil {
		s.opts.Log.Info().Int("segments", len(order)).Int64("objects", x.hdr.objects.Load()).Msg("index of the cache on disk made anew")
	}
}
