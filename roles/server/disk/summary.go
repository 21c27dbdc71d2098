package disk

import (
	"encoding/binary"

	"trafficd/roles/server/cache"
)

// A summary lists the responses and tombstones of a segment in their order, so that neither a rebuild nor a purge
// reads the records. Chunks are not in it: nothing looks for them but the record that lists them.
//
//	key 16, offset 4, length 4, vary hash 4, kind 1, 0 1, length of the URI 2, of the labels 2, 0 2, URI, labels
//
// Behind it, in the last granule of the segment, the trailer:
//
//	0 magic 8, 8 store id 8, 16 sequence number 8, 24 offset 4, 28 length 4, 32 entries 4, 36 checksum of them 4, 40 own 4
type entry struct {
	key         cache.Key
	off, length uint32
	vary        uint32
	kind        kind
	long        bool // URI and labels are to be found in the record only
	uri, labels []byte
}

const (
	entrySize    = 36
	longText     = 2048 // of a URI or labels: more is left to the record
	longFlag     = 0x80
	trailerMagic = 0x72656c6961727464
	trailerSize  = granule
)

func (e *entry) size() int { return entrySize + len(e.uri) + len(e.labels) }

// shorten drops what is too long for a summary.
func (e *entry) shorten() {
	if len(e.uri) > longText || len(e.labels) > longText {
		e.long, e.uri, e.labels = true, nil, nil
	}
}

func (e *entry) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, e.key[:]...)
	b = le.AppendUint32(b, e.off)
	b = le.AppendUint32(b, e.length)
	b = le.AppendUint32(b, e.vary)
	k := byte(e.kind)
	if e.long {
		k |= longFlag
	}
	b = append(b, k, 0)
	b = le.AppendUint16(b, uint16(len(e.uri)))
	b = le.AppendUint16(b, uint16(len(e.labels)))
	b = append(b, 0, 0)
	b = append(b, e.uri...)
	return append(b, e.labels...)
}

// parseSummary appends the entries of a summary to es. What they refer to lies in b. False: it is not one.
func parseSummary(es []entry, b []byte) ([]entry, bool) {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < entrySize {
			return es, false
		}
		u, l := int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
		if len(b) < entrySize+u+l {
			return es, false
		}
		e := entry{
			key: cache.Key(b[:16]), off: le.Uint32(b[16:]), length: le.Uint32(b[20:]), vary: le.Uint32(b[24:]),
			kind: kind(b[28] &^ longFlag), long: b[28]&longFlag != 0, uri: b[entrySize:][:u], labels: b[entrySize+u:][:l],
		}
		if e.kind != kindObject && e.kind != kindList && e.kind != kindTombstone {
			return es, false
		}
		es = append(es, e)
		b = b[entrySize+u+l:]
	}
	return es, true
}

type trailer struct {
	id, seq     uint64
	off, length uint32
	count       uint32
	sum         uint32
}

func (t *trailer) encode(b []byte) {
	le := binary.LittleEndian
	clear(b[:trailerSize])
	le.PutUint64(b, trailerMagic)
	le.PutUint64(b[8:], t.id)
	le.PutUint64(b[16:], t.seq)
	for i, v := range [...]uint32{t.off, t.length, t.count, t.sum} {
		le.PutUint32(b[24+4*i:], v)
	}
	le.PutUint32(b[40:], checksum(b[:40]))
}

func decodeTrailer(b []byte) (t trailer, ok bool) {
	le := binary.LittleEndian
	if len(b) < trailerSize || le.Uint64(b) != trailerMagic || le.Uint32(b[40:]) != checksum(b[:40]) {
		return t, false
	}
	return trailer{
		id: le.Uint64(b[8:]), seq: le.Uint64(b[16:]),
		off: le.Uint32(b[24:]), length: le.Uint32(b[28:]), count: le.Uint32(b[32:]), sum: le.Uint32(b[36:]),
	}, true
}
