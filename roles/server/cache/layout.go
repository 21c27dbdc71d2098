package cache

import (
	"sync/atomic"
	"unsafe"
)

// Everything in this file, and fenceBook, lies in the shared mapping. Nothing in it is a pointer,
// every structure has a fixed size that a test holds, and fields that change after
// they became reachable are atomic.

const (
	magic   = 0x6568636164726674 // "tfrdache", little endian
	version = 6

	granule   = 64 // alignment of every allocation
	pageSize  = 4096
	setWays   = 16
	inlineFrs = 4 // fragments described in the header itself
)

// superblock is the first page of the mapping.
type superblock struct {
	// Written once by format; magic last, by an atomic store.
	magic    atomic.Uint64
	version  uint32
	segSize  uint32
	segCount uint32
	setCount uint32
	total    uint64
	seed     [2]uint64 // key of the URI hash and of the seals
	checksum uint64    // over the fields above, without magic

	// otherSeed, unless zero, replaces seed as the key of the URI hash, so that the keys are those of the
	// tier below. Written by Open, before anything is looked up.
	otherSeed [2]uint64
	_         [48]byte

	// Live words.
	epoch   atomic.Uint64 // processes that have opened the store; the newest may write
	filling atomic.Uint64 // serial number of the segment opened last
	_       [48]byte

	// Counters that must not go back because of a death.
	published atomic.Uint64
	updated   atomic.Uint64
	removed   atomic.Uint64
	evicted   atomic.Uint64
	forwarded atomic.Uint64
	displaced atomic.Uint64
	noSpace   atomic.Uint64
	returned  atomic.Uint64
	lost      atomic.Uint64
}

// A segment's state, the low byte of its word.
const (
	segFree      = iota // never used since the store was formatted
	segActive           // an arena of the living process allocates from it
	segSealed           // full, or left behind by a dead process; its objects are served
	segCondemned        // evicted: no entry leads here, but its bytes are still untouched
)

// segmentHeader is a row of the segment table.
type segmentHeader struct {
	// word is generation<<8 | state. One store of it is the eviction of everything
	// in the segment; one store of it opens the segment for its next use.
	word atomic.Uint64
	seq  atomic.Uint64 // order in which segments were opened: the ring's age
	last atomic.Uint32 // newest object header in it: granule number + 1, 0 none
	live atomic.Int32  // objects the index leads to; a gauge, may be off by what a death interrupted
	used atomic.Uint32 // bytes handed out; a gauge

	class atomic.Uint32 // probation or protected; advice only, any value may follow a death
	large atomic.Uint32 // records in it whose bodies are too large to be moved in one piece; a gauge
	_     [28]byte
}

func segmentWord(generation uint32, state uint8) uint64 {
	return uint64(generation)<<8 | uint64(state)
}

func stateOf(word uint64) uint8       { return uint8(word) }
func generationOf(word uint64) uint32 { return uint32(word >> 8) }

// serves tells whether entries that recorded this generation are still good.
func (h *segmentHeader) serves(generation uint32) bool {
	w := h.word.Load()
	return generationOf(w) == generation && (stateOf(w) == segSealed || stateOf(w) == segActive)
}

// intact tells whether bytes written in this generation have not been overwritten.
func (h *segmentHeader) intact(generation uint32) bool {
	w := h.word.Load()
	return generationOf(w) == generation && stateOf(w) != segFree
}

// A location is segment:20 | granule:16 | generation:28. It never names two
// different records: a generation recurs only after 2^28 uses of one segment, which
// is 256 TiB written through 1 MiB. Zero is no location (generations start at 1).
type location uint64

const maxGeneration = 1<<28 - 1

func locate(segment, offset, generation uint32) location {
	return location(uint64(segment)<<44 | uint64(offset/granule)<<28 | uint64(generation))
}

func (l location) segment() uint32    { return uint32(l >> 44) }
func (l location) offset() uint32     { return uint32(l>>28) & 0xffff * granule }
func (l location) generation() uint32 { return uint32(l) & maxGeneration }

// indexSet is where a key's entries must be: 16 ways, 16 bytes an entry, of which
// a look-up that misses touches the first cache line only. An entry is a tag and a
// location; the location is the commit word. ghosts are the tags of keys that were
// evicted lately; nothing but policy follows from them.
type indexSet struct {
	tags   [setWays]atomic.Uint32
	locs   [setWays]atomic.Uint64
	ghosts [setWays]atomic.Uint32
}

// Object states, bits of objectHeader.flags.
const (
	flagComplete = 1 << iota // the body is all there; never taken back
	flagAborted              // the fill was given up
	flagOnDisk               // the tier below has it; a hint, set after publication
	flagSoftened             // stale from objectHeader.softened on; set after publication

	// Above them, how often it was hit: 0 to 3, and no further.
	hitOne  = 1 << 8
	hitMask = 3 * hitOne

	flagsMoved = hitMask | flagOnDisk | flagSoftened // what a copy takes along
)

// objectHeader begins an object's record; the vary block, the head block, the URI and,
// for what was small when it was begun, the body follow it. Fields without atomic are
// immutable once another thread can find the record.
type objectHeader struct {
	seal      uint64 // proves that a record for this location was begun here
	key       Key
	committed atomic.Uint64 // body bytes that are in place
	flags     atomic.Uint32
	fragments atomic.Uint32 // entries of the fragment table that are filled in
	prev      uint32        // the object before it in this segment: granule number + 1, 0 none
	varyLen   uint32
	headLen   uint32
	uriLen    uint32
	declared  int64 // body length announced at the start, -1 unknown

	meta Meta

	overflow    atomic.Uint64 // location of the rest of the fragment table, 0 none
	overflowCap uint32
	softened    atomic.Uint32 // when, in seconds since 1970
	inline      [inlineFrs]fragment
}

// A fragment is one contiguous run of a body.
type fragment struct {
	loc  location
	span uint64 // offset within the body:40 | capacity in bytes:24
}

func makeFragment(l location, start int64, capacity uint32) fragment {
	return fragment{loc: l, span: uint64(start)<<24 | uint64(capacity)}
}

func (f fragment) start() int64    { return int64(f.span >> 24) }
func (f fragment) capacity() int64 { return int64(f.span & (1<<24 - 1)) }
func (f fragment) end() int64      { return f.start() + f.capacity() }

const (
	headerSize   = uint32(unsafe.Sizeof(objectHeader{}))
	fragmentSize = uint32(unsafe.Sizeof(fragment{}))
	segRowSize   = uint64(unsafe.Sizeof(segmentHeader{}))
	setSize      = uint64(unsafe.Sizeof(indexSet{}))
)

func alignUp[T uint32 | uint64 | int64](n, to T) T { return (n + to - 1) / to * to }
