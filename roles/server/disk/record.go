package disk

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"trafficd/roles/server/cache"
)

// kind says what a record is.
type kind uint8

const (
	kindObject    kind = iota + 1 // a response, its body behind it
	kindList                      // a response, its body in chunks
	kindChunk                     // a part of a body
	kindTombstone                 // nothing older under this key counts
)

// A record is one entry of the log.
//
//	0  magic 4
//	4  checksum 4 of the head: all that follows but the body
//	8  store id 8, 16 sequence number of the segment 8, 24 segment 4, 28 offset 4: where it lies
//	32 key 16
//	48 kind 1, 0 3
//	52 length of the head 4, 56 of the record 4, of its vary block 4, URI 4, head block 4
//	72 fragments 4, 76 chunks 4, 80 bytes of the body 8
//	88 number of a chunk 4, 0 4
//	96 metadata, vary block, URI, head block, checksum of each fragment 4, chunks 24 each
//
// The body follows at the next multiple of granule. Numbers are little endian, the metadata is as it
// is in memory.
type record struct {
	kind     kind
	id, seq  uint64
	seg, off uint32
	key      cache.Key
	headLen  uint32 // of the record's head
	length   uint32 // of the record, a multiple of granule
	part     uint32
	body     int64

	meta            cache.Meta
	vary, uri, head []byte
	sums            []byte // of the fragments
	chunks          []byte
}

const (
	recordMagic = 0x31636572
	fixedSize   = 96
	metaSize    = int(unsafe.Sizeof(cache.Meta{}))
	chunkSize   = 24
)

func metaBytes(m *cache.Meta) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(m)), metaSize)
}

func fragments(n int64) int { return int((n + fragmentSize - 1) / fragmentSize) }

// shape works out the lengths of a record from what goes into it; body says how much of a body lies in it.
func (r *record) shape(chunks int) {
	n := fixedSize
	if r.kind == kindObject || r.kind == kindList {
		n += metaSize + len(r.vary) + len(r.uri) + len(r.head)
	}
	n += 4*fragments(r.inline()) + chunkSize*chunks
	r.headLen = uint32(n)
	r.length = uint32(alignUp(alignUp(int64(n), granule)+r.inline(), granule))
}

// inline is how much of a body lies in the record itself.
func (r *record) inline() int64 {
	if r.kind == kindObject || r.kind == kindChunk {
		return r.body
	}
	return 0
}

// bodyAt is where in the record its body begins.
func (r *record) bodyAt() uint32 { return alignUp(r.headLen, granule) }

// encode writes the record's head into b, which has r.length bytes and the body in its place already. chunks is what
// lists them.
func (r *record) encode(b []byte, chunks []byte) {
	le := binary.LittleEndian
	clear(b[:fixedSize])
	le.PutUint32(b, recordMagic)
	le.PutUint64(b[8:], r.id)
	le.PutUint64(b[16:], r.seq)
	le.PutUint32(b[24:], r.seg)
	le.PutUint32(b[28:], r.off)
	copy(b[32:], r.key[:])
	b[48] = byte(r.kind)
	for i, v := range [...]int{int(r.headLen), int(r.length), len(r.vary), len(r.uri), len(r.head), fragments(r.inline()), len(chunks) / chunkSize} {
		le.PutUint32(b[52+4*i:], uint32(v))
	}
	le.PutUint64(b[80:], uint64(r.body))
	le.PutUint32(b[88:], r.part)
	n := fixedSize
	if r.kind == kindObject || r.kind == kindList {
		n += copy(b[n:], metaBytes(&r.meta))
		n += copy(b[n:], r.vary)
		n += copy(b[n:], r.uri)
		n += copy(b[n:], r.head)
	}
	for body := b[r.bodyAt():][:r.inline()]; len(body) > 0; n += 4 {
		f := body[:min(len(body), fragmentSize)]
		le.PutUint32(b[n:], checksum(f))
		body = body[len(f):]
	}
	n += copy(b[n:], chunks)
	clear(b[n:r.bodyAt()])
	clear(b[int64(r.bodyAt())+r.inline():])
	le.PutUint32(b[4:], checksum(b[8:r.headLen]))
}

// What parseRecord finds wrong.
var (
	errNoRecord = errors.New("no record here")
	errShort    = errors.New("the record goes on behind what was read")
	errDamaged  = errors.New("a checksum does not fit")
)

// parseRecord reads the head of the record that b begins with. What r refers to lies in b. The body is not
// looked at.
func parseRecord(b []byte) (r record, err error) {
	le := binary.LittleEndian
	if len(b) < fixedSize {
		return r, errShort
	}
	if le.Uint32(b) != recordMagic {
		return r, errNoRecord
	}
	var n [7]uint32
	for i := range n {
		n[i] = le.Uint32(b[52+4*i:])
	}
	r = record{
		kind: kind(b[48]), id: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), seg: le.Uint32(b[24:]), off: le.Uint32(b[28:]),
		key: cache.Key(b[32:48]), headLen: n[0], length: n[1], part: le.Uint32(b[88:]), body: int64(le.Uint64(b[80:])),
	}
	if !r.plausible(&n) {
		return r, errNoRecord
	}
	if int64(r.headLen) > int64(len(b)) {
		return r, errShort
	}
	if le.Uint32(b[4:]) != checksum(b[8:r.headLen]) {
		return r, errDamaged
	}
	rest := b[fixedSize:r.headLen]
	take := func(n int) (p []byte) { p, rest = rest[:n:n], rest[n:]; return p }
	if r.kind == kindObject || r.kind == kindList {
		copy(metaBytes(&r.meta), take(metaSize))
		r.vary, r.uri, r.head = take(int(n[2])), take(int(n[3])), take(int(n[4]))
	}
	r.sums, r.chunks = take(4*int(n[5])), take(chunkSize*int(n[6]))
	return r, nil
}

// plausible checks that the lengths agree with each other, before anything is done by them.
func (r *record) plausible(n *[7]uint32) bool {
	if r.body < 0 || r.inline() > maxSegment {
		return false
	}
	head := int64(fixedSize) + 4*int64(n[5]) + chunkSize*int64(n[6])
	text := int64(n[2]) + int64(n[3]) + int64(n[4])
	switch r.kind {
	case kindObject, kindList:
		head += int64(metaSize) + text
	case kindChunk, kindTombstone:
		if text != 0 {
			return false
		}
	default:
		return false
	}
	return int(n[5]) == fragments(r.inline()) && (n[6] != 0) == (r.kind == kindList) && (r.kind != kindTombstone || r.body == 0) &&
		int64(r.headLen) == head && head <= maxSegment &&
		int64(r.length) == alignUp(alignUp(head, granule)+r.inline(), granule) && r.length <= maxSegment
}

// lies reports whether the record is the one that was written to this place.
func (r *record) lies(id, seq uint64, seg, off uint32) bool {
	return r.id == id && r.seq == seq && r.seg == seg && r.off == off
}

// verify checks the body in b, which holds all of the record.
func (r *record) verify(b []byte) ([]byte, error) {
	body := b[r.bodyAt():][:r.inline()]
	sums := r.sums
	for rest := body; len(rest) > 0; sums = sums[4:] {
		f := rest[:min(len(rest), fragmentSize)]
		if binary.LittleEndian.Uint32(sums) != checksum(f) {
			return nil, errDamaged
		}
		rest = rest[len(f):]
	}
	return body, nil
}

// A chunk is where a part of a body lies.
type chunk struct {
	seq    uint64
	seg    uint32
	off    uint32
	length uint32 // of the record
	bytes  uint32
}

func appendChunk(b []byte, c chunk) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, c.seq)
	for _, v := range [...]uint32{c.seg, c.off, c.length, c.bytes} {
		b = le.AppendUint32(b, v)
	}
	return b
}

func decodeChunk(b []byte) chunk {
	le := binary.LittleEndian
	return chunk{seq: le.Uint64(b), seg: le.Uint32(b[8:]), off: le.Uint32(b[12:]), length: le.Uint32(b[16:]), bytes: le.Uint32(b[20:])}
}
