package cache

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// What an operation that did not work reports. All are expected: the response is
// then served without being stored.
var (
	ErrTooLarge   = errors.New("cache: object larger than the store takes")
	ErrNoSpace    = errors.New("cache: no segment free, all are being read or written")
	ErrFenced     = errors.New("cache: another process has opened the store")
	ErrIncomplete = errors.New("cache: body shorter than announced")
	ErrSuperseded = errors.New("cache: object is no longer the stored one")
	ErrPurged     = errors.New("cache: purged while it was on its way")
)

// Options of Open. The zero value is usable.
type Options struct {
	// MaxObject is the largest body stored, in bytes; 0 means a sixteenth of the
	// store. More than a quarter of the store is cut to that.
	MaxObject int64
	// MaxAlternates bounds the alternates kept for one key; what was never hit goes first. 0, or more than 12, means
	// 12: they share one set of the index, and what is there of other keys must not lose all of it.
	MaxAlternates int
	// Hold keeps every segment that was ever used untouched until EndHold: the
	// predecessor may still be reading them, or this process may not yet have opened
	// by OpenID what its predecessor was sending. Only never used segments are
	// written meanwhile.
	Hold bool
	// Tags reports whether has is true of any tag in the lines of a head; nil: there are no tags.
	Tags func(lines []byte, has func(tag []byte) bool) bool
	// Seed is what URIs are hashed with, so that the keys are those of the tier below; zero: what the store has,
	// or a random one. With another seed than before nothing that is stored is found any more.
	Seed [2]uint64
}

// A Store is a cache in one shared mapping. Its methods may be called from any
// goroutine; an event loop takes an Arena of its own for speed.
type Store struct {
	mem   []byte         // the mapping; the caller keeps it mapped as long as the Store is used
	base  unsafe.Pointer // &mem[0]
	super *superblock

	fences *fenceBook      // in the mapping
	segs   []segmentHeader // the segment table, in the mapping
	sets   []indexSet      // the index, in the mapping

	segSize uint32
	dataOff uint64
	epoch   uint64 // immutable after Open; super.epoch beyond it means this process is fenced
	opts    Options
	hold    atomic.Bool
	keySeed [2]uint64 // immutable after Open
	lower   atomic.Pointer[Lower]

	// arenas is replaced as a whole, under ring.mu, so that pins can be summed
	// without a lock.
	arenas    atomic.Pointer[[]*Arena]
	protected *Arena // for what is known to be worth it; in arenas
	wake      chan struct{}

	ring struct {
		sync.Mutex
		sealed    [numClasses]fifo // full segments that serve, the oldest of each class first
		spares    fifo             // can be opened: first what was evicted and is not pinned, then what was never used
		flood     bool             // misses come in a flood, as Tend has found
		condemned []uint32         // evicted, but pinned when last looked at
		keep      cursor           // a protected segment, for what survives an eviction
		// left are segments that predecessors have not filled, the newest last. Once it is certain that
		// those are gone (EndHold) they are filled up, or each death would cost one for each
		// loop, and in the end a hot object its place. Only segment and generation count.
		left []location
	}

	// tender is what Tend knows of the past. Its goroutine owns it.
	tender struct {
		opened uint64 // segments, when it looked last
		looked time.Time
	}

	fencing sync.Mutex // for one purge at a time to put up its fences
	sweeps  sweeping

	// shards guard changes of index sets; look-ups take none of them.
	shards [shardCount]struct {
		sync.Mutex
		_ [56]byte
	}
}

const shardCount = 64

const maxAlternates = setWays * 3 / 4

// Open takes the store in mem, which must be aligned to a page and shared by every process that
// is to see it. What an earlier process left is adopted in a time that grows with
// the number of segments only; a mapping that is empty, of another size or of
// another version is formatted. From now on every process that opened it earlier is
// fenced: it may read what it has pinned, and stores nothing more.
//
// If the predecessor may still run, or objects are to be opened again by OpenID, set Options.Hold.
func Open(mem []byte, o Options) (*Store, error) {
	s, g, err := view(mem)
	if err != nil {
		return nil, err
	}
	s.opts = o
	if !s.super.matches(g) {
		s.format(g)
	}
	s.attach(g)
	s.adopt()
	return s, nil
}

// view is a store of which nothing has been looked at yet.
func view(mem []byte) (*Store, geometry, error) {
	g, err := plan(uint64(len(mem)))
	if err != nil {
		return nil, g, err
	}
	s := &Store{mem: mem, base: unsafe.Pointer(unsafe.SliceData(mem))}
	if uintptr(s.base)%pageSize != 0 {
		return nil, g, fmt.Errorf("cache: open mapping: not aligned to %d bytes", pageSize)
	}
	s.super = (*superblock)(s.base)
	return s, g, nil
}

// geometry is what follows from the size of the mapping alone.
type geometry struct {
	total             uint64
	segSize, segCount uint32
	setCount          uint32
	dataOff           uint64
}

const (
	maxSegSize  = 1 << 20
	minSegSize  = 64 << 10
	minSegments = 16
	maxSegments = 1<<20 - 1
)

// plan divides a mapping: 1 MiB segments, smaller ones when there would be fewer than
// 64 of them, and an index entry for each KiB, since an object of that size takes somewhat more with its
// head (1.6 % to 3.1 % of the mapping).
func plan(total uint64) (geometry, error) {
	g := geometry{total: total, segSize: maxSegSize}
	for total/uint64(g.segSize) < 64 && g.segSize > minSegSize {
		g.segSize /= 2
	}
	for n := min(total/uint64(g.segSize), maxSegments); n >= minSegments; n-- {
		g.segCount = uint32(n)
		g.setCount = setsFor(n * uint64(g.segSize))
		g.dataOff = alignUp(pageSize+fenceSize+n*segRowSize+uint64(g.setCount)*setSize, pageSize)
		if g.dataOff+n*uint64(g.segSize) <= total {
			return g, nil
		}
	}
	return g, fmt.Errorf("cache: open mapping: %d bytes hold fewer than %d segments of %d", total, minSegments, g.segSize)
}

func setsFor(data uint64) uint32 {
	sets := uint32(1)
	for uint64(sets)*setWays < data/1024 {
		sets *= 2
	}
	return sets
}

func (b *superblock) sum() uint64 {
	h := uint64(b.version)
	for _, v := range [...]uint64{uint64(b.segSize), uint64(b.segCount), uint64(b.setCount), b.total, b.seed[0], b.seed[1]} {
		h = (h ^ v) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

func (b *superblock) matches(g geometry) bool {
	return b.magic.Load() == magic && b.version == version && b.checksum == b.sum() &&
		b.total == g.total && b.segSize == g.segSize && b.segCount == g.segCount && b.setCount == g.setCount
}

// format makes an empty store. The magic number goes first and comes back last, so a
// death in between leaves a mapping that the next Open formats again.
func (s *Store) format(g geometry) {
	b := s.super
	b.magic.Store(0)
	killpoint()
	clear(s.mem[:g.dataOff])
	killpoint()
	b.version, b.total = version, g.total
	b.segSize, b.segCount, b.setCount = g.segSize, g.segCount, g.setCount
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // documented never to fail
	b.seed[0], b.seed[1] = binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:])
	b.checksum = b.sum()
	killpoint()
	b.magic.Store(magic)
}

// attach sets up what this process needs to find its way in the mapping.
func (s *Store) attach(g geometry) {
	s.segSize, s.dataOff = g.segSize, g.dataOff
	s.segs = unsafe.Slice((*segmentHeader)(unsafe.Add(s.base, pageSize+fenceSize)), g.segCount)
	s.sets = unsafe.Slice((*indexSet)(unsafe.Add(s.base, pageSize+fenceSize+uint64(g.segCount)*segRowSize)), g.setCount)
	s.fences = (*fenceBook)(unsafe.Add(s.base, pageSize))
	s.opts.MaxObject = boundObject(s.opts.MaxObject, g)
	if s.opts.MaxAlternates <= 0 || s.opts.MaxAlternates > maxAlternates {
		s.opts.MaxAlternates = maxAlternates
	}
	s.hold.Store(s.opts.Hold)
	if s.opts.Seed != [2]uint64{} && s.opts.Seed != s.super.keySeed() {
		s.super.otherSeed = s.opts.Seed
	}
	s.keySeed = s.super.keySeed()
	s.ring.keep.seg = -1
	s.protected = s.newArena(protected)
	first := []*Arena{s.newArena(probation), s.protected}
	s.arenas.Store(&first)
	s.wake = make(chan struct{}, 1)
	s.attachSweeps()
}

func boundObject(want int64, g geometry) int64 {
	data := int64(g.segCount) * int64(g.segSize)
	if want <= 0 {
		want = data / 16
	}
	// A fragment table must fit half a segment.
	tableLimit := int64(g.segSize/2/fragmentSize) * int64(g.segSize/16)
	return min(want, data/4, tableLimit)
}

// adopt fences the predecessors and seals the segments they allocated from, so
// that nothing is ever written behind what a dead process left half done.
func (s *Store) adopt() {
	s.epoch = s.super.epoch.Add(1)
	for i := range s.segs {
		h := &s.segs[i]
		killpoint()
		w := h.word.Load()
		if stateOf(w) == segActive {
			h.word.CompareAndSwap(w, segmentWord(generationOf(w), segSealed))
		}
		if st := stateOf(w); (st == segActive || st == segSealed) && s.segSize-h.used.Load() >= s.segSize/leftWorth {
			s.ring.left = append(s.ring.left, locate(uint32(i), 0, generationOf(w)))
		}
	}
	slices.SortFunc(s.ring.left, func(a, b location) int {
		return cmp.Compare(s.segs[a.segment()].seq.Load(), s.segs[b.segment()].seq.Load())
	})
	s.takeStock()
}

// EndHold ends Options.Hold: the predecessor is gone, and whatever it was sending
// has been opened again or given up. From now on old segments are used again. A segment
// that the predecessor opened while it was being fenced is sealed now.
func (s *Store) EndHold() {
	s.ring.Lock()
	defer s.ring.Unlock()
	for i := range s.segs {
		h := &s.segs[i]
		if w := h.word.Load(); stateOf(w) == segActive && !s.ownsLocked(int64(i)) {
			h.word.CompareAndSwap(w, segmentWord(generationOf(w), segSealed))
		}
	}
	s.hold.Store(false)
	s.takeStock()
}

// ownsLocked tells whether an arena of this process allocates from the segment. The
// caller holds ring.mu.
func (s *Store) ownsLocked(seg int64) bool {
	for _, a := range *s.arenas.Load() {
		if a.cursor.seg == seg {
			return true
		}
	}
	return s.ring.keep.seg == seg
}

// Fenced tells whether a later process has opened the store.
func (s *Store) Fenced() bool { return s.super.epoch.Load() != s.epoch }

// MaxObject returns the largest body the store takes, in bytes.
func (s *Store) MaxObject() int64 { return s.opts.MaxObject }

// Arena returns a handle for one event loop: segments of its own to write
// to and pin counters of its own, so that loops do not contend. At most a quarter of the segments
// are open to loops at a time, so on a small store with many loops several share one.
func (s *Store) Arena() *Arena {
	s.ring.Lock()
	defer s.ring.Unlock()
	old := *s.arenas.Load()
	if loops := len(old) - 2; loops >= len(s.segs)/4-2 {
		shared := old[0]
		for _, a := range old {
			if a.class == probation && a.sharers < shared.sharers {
				shared = a
			}
		}
		shared.sharers++
		return shared
	}
	a := s.newArena(probation)
	a.sharers = 1
	all := append(append(make([]*Arena, 0, len(old)+1), old...), a)
	s.arenas.Store(&all)
	return a
}

// Create is Arena.Create for a caller without a loop.
func (s *Store) Create(k Key, meta *Meta, uri, vary, head []byte, size int64) (*Writer, error) {
	return s.common().Create(k, meta, uri, vary, head, size)
}

func (s *Store) common() *Arena { return (*s.arenas.Load())[0] }

// header returns the record at l. The caller holds a pin on its segment.
func (s *Store) header(l location) *objectHeader {
	return (*objectHeader)(s.at(l))
}

func (s *Store) at(l location) unsafe.Pointer {
	return unsafe.Add(s.base, s.dataOff+uint64(l.segment())*uint64(s.segSize)+uint64(l.offset()))
}

// bytesAt returns the n bytes from l on; n must not cross the end of the segment.
func (s *Store) bytesAt(l location, n uint32) []byte {
	return unsafe.Slice((*byte)(s.at(l)), n)
}

// sealOf is what the header of the record at l must begin with. It depends on the
// seed, so a location from before a format opens nothing.
func (s *Store) sealOf(l location) uint64 {
	x := (uint64(l) ^ s.super.seed[0]) * 0x9e3779b97f4a7c15
	return (x ^ x>>32) + s.super.seed[1]
}

// Stats is the state of a store. The counters outlive the process.
type Stats struct {
	Objects  int64 // objects that can be found; may be off by what deaths interrupted
	Bytes    int64 // bytes taken in segments that serve, waste included
	Capacity int64 // bytes of all segments
	Segments int   // number of segments
	Pinned   int   // segments with a reader or writer of this process

	Protected int64 // of Bytes, what lies in protected segments

	Published uint64 // objects stored
	Updated   uint64 // objects given a new head by a 304
	Removed   uint64 // objects removed by key
	Evicted   uint64 // segments evicted
	Forwarded uint64 // objects that were moved to a protected segment, or kept in one
	Returned  uint64 // objects stored again while their eviction was remembered
	Lost      uint64 // objects evicted although they had been hit, for want of room
	Displaced uint64 // objects dropped for want of a way in their index set, or as an alternate too many
	NoSpace   uint64 // fills refused or broken off because every segment was pinned
}

// Stats reads the counters and adds up the segment table.
func (s *Store) Stats() Stats {
	b := s.super
	st := Stats{
		Capacity: int64(len(s.segs)) * int64(s.segSize), Segments: len(s.segs),
		Published: b.published.Load(), Updated: b.updated.Load(), Removed: b.removed.Load(), Evicted: b.evicted.Load(),
		Forwarded: b.forwarded.Load(), Returned: b.returned.Load(), Lost: b.lost.Load(), Displaced: b.displaced.Load(), NoSpace: b.noSpace.Load(),
	}
	for i := range s.segs {
		if s.pinned(uint32(i)) {
			st.Pinned++
		}
		if state := stateOf(s.segs[i].word.Load()); state == segActive || state == segSealed {
			st.Objects += max(0, int64(s.segs[i].live.Load()))
			st.Bytes += int64(s.segs[i].used.Load())
			if s.segs[i].class.Load() == protected {
				st.Protected += int64(s.segs[i].used.Load())
			}
		}
	}
	return st
}
