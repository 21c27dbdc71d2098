package disk

import (
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"trafficd/roles/server/cache"
)

const (
	granule  = 64 // alignment of records
	pageSize = 4096
	setWays  = 16

	fragmentSize = 64 << 10 // of a body, with a checksum of its own

	minSegment  = 256 << 10
	maxSegment  = 8 << 20
	maxSegments = 1<<24 - 1
	minSegments = 8

	// MinSize is the smallest store, in bytes.
	MinSize = minSegments*minSegment + pageSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// geometry is what follows from the size of a store.
type geometry struct {
	segSize  uint32
	segCount uint32
	setCount uint32
}

// plan divides size bytes: some 256 segments, and a way of the index for every 2 KiB.
func plan(size int64) geometry {
	g := geometry{segSize: maxSegment}
	for g.segSize > minSegment && size/int64(g.segSize) < 256 {
		g.segSize /= 2
	}
	g.segCount = uint32(min((size-pageSize)/int64(g.segSize), maxSegments))
	g.setCount = g.sets()
	return g
}

// sound reports whether a geometry is one that plan may have made.
func (g geometry) sound() bool {
	return g.segSize >= minSegment && g.segSize <= maxSegment && g.segSize&(g.segSize-1) == 0 &&
		g.segCount >= minSegments && g.segCount <= maxSegments && g.setCount == g.sets()
}

func (g geometry) sets() uint32 {
	return uint32(max(1, int64(g.segCount)*int64(g.segSize)/(2048*setWays)))
}

func (g geometry) segmentAt(seg uint32) int64 { return pageSize + int64(seg)*int64(g.segSize) }
func (g geometry) storeSize() int64           { return g.segmentAt(g.segCount) }
func (g geometry) rowsSize() int64            { return int64(g.segCount) * int64(unsafe.Sizeof(row{})) }
func (g geometry) setsAt() int64              { return alignUp(pageSize+g.rowsSize(), pageSize) }
func (g geometry) indexSize() int64 {
	return alignUp(g.setsAt()+int64(g.setCount)*int64(unsafe.Sizeof(indexSet{})), pageSize)
}

// The bounds of one record, so that a segment holds several.
func (g geometry) maxInline() int64 { return int64(g.segSize) / 8 } // body beside its head
func (g geometry) maxHead() int     { return int(g.segSize) / 4 }   // all but the body
func (g geometry) maxChunk() int64  { return int64(g.segSize) / 4 }

func alignUp[T uint32 | int64 | int](n, to T) T { return (n + to - 1) / to * to }

// The header of a store is its first page.
//
//	0  magic    8   "tfstore" and the version
//	8  layout   4   of the records' metadata, which is the memory tier's
//	12 segment size, segments, sets   4 each
//	24 id       8   random: records and index of another store are foreign
//	32 seed    16   of the keys
//	48 checksum 4   of all before
const (
	storeMagic   = "tfstore\x01"
	storeHeaderN = 52
)

// layout changes with what a record's metadata means.
const layout = uint32(cache.LayoutVersion)<<16 | uint32(unsafe.Sizeof(cache.Meta{}))

type storeHeader struct {
	geometry
	layout uint32
	id     uint64
	seed   [2]uint64
}

func (h *storeHeader) encode() []byte {
	b := make([]byte, 0, pageSize)
	b = append(b, storeMagic...)
	for _, v := range [...]uint32{h.layout, h.segSize, h.segCount, h.setCount} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{h.id, h.seed[0], h.seed[1]} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	return b[:pageSize]
}

// kinship is what the first page of a file says of it.
type kinship uint8

const (
	ours    kinship = iota // a store of this version
	blank                  // nothing was written there yet
	older                  // a store, but of another version, or damaged
	foreign                // somebody else's file
)

func decodeStoreHeader(b []byte) (h storeHeader, k kinship) {
	if len(b) < storeHeaderN {
		return h, kinOf(b)
	}
	le := binary.LittleEndian
	if string(b[:8]) != storeMagic || le.Uint32(b[48:]) != checksum(b[:48]) {
		return h, kinOf(b)
	}
	h.layout, h.segSize, h.segCount, h.setCount = le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	h.id, h.seed = le.Uint64(b[24:]), [2]uint64{le.Uint64(b[32:]), le.Uint64(b[40:])}
	if h.layout != layout {
		return h, older
	}
	return h, ours
}

func kinOf(b []byte) kinship {
	if len(b) >= 7 && string(b[:7]) == storeMagic[:7] {
		return older
	}
	for _, c := range b {
		if c != 0 {
			return foreign
		}
	}
	return blank
}

// A segment's header.
//
//	0 magic 8, 8 store id 8, 16 sequence number 8, 24 floor 8, 32 segment 4, 36 checksum 4
const (
	segMagic      = 0x746e656d67657364
	segHeaderSize = granule
)

type segmentHeader struct {
	id    uint64
	seq   uint64
	floor uint64 // no record of a segment with a smaller number counts; of all headers the highest
	seg   uint32
}

func (h *segmentHeader) encode(b []byte) {
	le := binary.LittleEndian
	clear(b[:segHeaderSize])
	le.PutUint64(b, segMagic)
	le.PutUint64(b[8:], h.id)
	le.PutUint64(b[16:], h.seq)
	le.PutUint64(b[24:], h.floor)
	le.PutUint32(b[32:], h.seg)
	le.PutUint32(b[36:], checksum(b[:36]))
}

func decodeSegmentHeader(b []byte) (h segmentHeader, ok bool) {
	le := binary.LittleEndian
	if len(b) < segHeaderSize || le.Uint64(b) != segMagic || le.Uint32(b[36:]) != checksum(b[:36]) {
		return h, false
	}
	return segmentHeader{id: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), floor: le.Uint64(b[24:]), seg: le.Uint32(b[32:])}, true
}

// A place is segment:24 | offset/64:18 | sequence number:22. Zero is none: no record lies at offset 0.
type place uint64

const seqMask = 1<<22 - 1

func placeOf(seg, off uint32, seq uint64) place {
	return place(seg)<<40 | place(off/granule)<<22 | place(seq&seqMask)
}

func (p place) segment() uint32 { return uint32(p >> 40) }
func (p place) offset() uint32  { return uint32(p>>22) & (1<<18 - 1) * granule }
func (p place) seq() uint64     { return uint64(p) & seqMask }

// An info is length/64:18 | vary hash:14 of the record that an entry leads to.
type info uint32

func infoOf(length uint32, vary uint32) info { return info(length/granule)<<14 | info(vary&(1<<14-1)) }

func (i info) length() uint32 { return uint32(i>>14) * granule }
func (i info) vary() uint32   { return uint32(i) & (1<<14 - 1) }

// varyHash tells the alternates of a key apart; 0 for the one that does not vary.
func varyHash(vary []byte) uint32 {
	if len(vary) == 0 {
		return 0
	}
	return checksum(vary)%(1<<14-1) + 1
}

// What follows lies in the mapping of the index. Fields that change are atomic.

const indexMagic = 0x3178646e69667401 // its lowest byte is the version

// indexHeader is the first page of the index.
type indexHeader struct {
	magic    atomic.Uint64 // stored last
	store    uint64        // id of the store it belongs to
	segSize  uint32
	segCount uint32
	setCount uint32
	_        uint32
	boot     [16]byte      // boot id of the machine it was last used on
	state    atomic.Uint32 // see below
	_        uint32
	seq      atomic.Uint64 // number of the segment opened last
	floor    atomic.Uint64
	cursor   atomic.Uint32 // the segment opened last
	keys     atomic.Uint32 // 1: a URI here may have several keys (cache.Store.NoteKeys)
	objects  atomic.Int64  // a gauge, may be off by what a death interrupted
}

// States of an index.
const (
	indexUsed     = iota // good as long as the machine is up
	indexClosed          // all of it is on disk
	indexRebuilds        // it is being made anew, and what it lacks may be in the log
)

// row is what the index knows of a segment.
type row struct {
	seq  atomic.Uint64 // 0: never used
	used atomic.Uint32 // bytes written
	full atomic.Uint32 // 1: it has its summary
	live atomic.Int64  // entries that lead here; a gauge
	_    uint64
}

type indexSet struct {
	tags   [setWays]atomic.Uint32
	infos  [setWays]atomic.Uint32
	places [setWays]atomic.Uint64
}
