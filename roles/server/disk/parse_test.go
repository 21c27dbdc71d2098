package disk

import (
	"bytes"
	"testing"

	"trafficd/roles/server/cache"
)

// sample encodes a record of each kind.
func sample(k kind, body []byte) []byte {
	r := record{kind: k, id: 7, seq: 9, seg: 2, off: 128, key: keyOf(1), part: 3, body: int64(len(body))}
	var list []byte
	if k == kindObject || k == kindList {
		r.meta = cache.Meta{Status: 200, Date: 5}
		r.vary, r.uri, r.head = []byte("a: b\r\n"), uriOf(1), headOf(1, len(body))
	}
	if k == kindList {
		list = appendChunk(appendChunk(nil, chunk{1, 2, 3, 4, 5}), chunk{6, 7, 8, 9, 10})
	}
	if k == kindTombstone {
		r.body = 0
	}
	r.shape(len(list) / chunkSize)
	b := make([]byte, r.length)
	copy(b[r.bodyAt():], body[:r.inline()])
	r.encode(b, list)
	return b
}

func TestRecordsComeBack(t *testing.T) {
	for _, k := range []kind{kindObject, kindList, kindChunk, kindTombstone} {
		for _, size := range sizes {
			want := sample(k, content(1, 1, size))
			r, err := parseRecord(want)
			if err != nil {
				t.Fatalf("kind %d, %d bytes: %v", k, size, err)
			}
			if !r.lies(7, 9, 2, 128) || r.key != keyOf(1) || int(r.length) != len(want) || r.part != 3 {
				t.Errorf("kind %d: %+v", k, r)
			}
			body, err := r.verify(want)
			if err != nil || !bytes.Equal(body, content(1, 1, size)[:r.inline()]) {
				t.Errorf("kind %d, %d bytes: body of %d, %v", k, size, len(body), err)
			}
			if k == kindObject && (string(r.uri) != string(uriOf(1)) || string(r.vary) != "a: b\r\n" || r.meta.Status != 200) {
				t.Errorf("%+v", r)
			}
			if k == kindList && decodeChunk(r.chunks[chunkSize:]) != (chunk{6, 7, 8, 9, 10}) {
				t.Errorf("chunks %v", r.chunks)
			}
		}
	}
}

// TestEveryBitCounts: whatever bit of a record is changed, it is noticed, but for those that fill up.
func TestEveryBitCounts(t *testing.T) {
	for _, k := range []kind{kindObject, kindList, kindChunk, kindTombstone} {
		good := sample(k, content(1, 1, 300))
		r, _ := parseRecord(good)
		counts := func(at int) bool {
			return at < int(r.headLen) || at >= int(r.bodyAt()) && at < int(r.bodyAt())+int(r.inline())
		}
		for bit := range len(good) * 8 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			r, err := parseRecord(b)
			if err == nil {
				_, err = r.verify(b)
			}
			if (err != nil) != counts(bit/8) {
				t.Fatalf("kind %d, bit %d: %v", k, bit, err)
			}
		}
	}
}

// FuzzRecord: any bytes are refused, or are a record that is as long as they say and comes out the same again.
func FuzzRecord(f *testing.F) {
	for _, k := range []kind{kindObject, kindList, kindChunk, kindTombstone} {
		f.Add(sample(k, content(1, 1, 100)))
		f.Add(sample(k, content(1, 1, fragmentSize+100)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// A fuzzer finds no checksums.
		if len(b) >= fixedSize {
			if n := int64(leUint32(b[52:])); n >= 8 && n <= int64(len(b)) {
				putUint32(b[4:], checksum(b[8:n]))
			}
		}
		r, err := parseRecord(b)
		if err != nil || int(r.length) > len(b) {
			return
		}
		if _, err := r.verify(b); err != nil {
			return
		}
		again := bytes.Clone(b[:r.length])
		r.encode(again, r.chunks)
		if s, err := parseRecord(again); err != nil || s.length != r.length || s.key != r.key || !bytes.Equal(s.head, r.head) {
			t.Fatalf("%v: %+v became %+v", err, r, s)
		}
	})
}

func FuzzSummary(f *testing.F) {
	var b []byte
	for n := range 3 {
		e := entry{key: keyOf(n), off: 64, length: 640, vary: 9, kind: kindObject, uri: uriOf(n), labels: []byte("Cache-Tag: a\r\n")}
		b = e.append(b)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		es, ok := parseSummary(nil, b)
		if !ok {
			return
		}
		n := 0
		for i := range es {
			n += es[i].size()
		}
		if n != len(b) {
			t.Fatalf("%d bytes of %d", n, len(b))
		}
	})
}

// FuzzSegment: a walk over any bytes ends, and finds nothing outside of them.
func FuzzSegment(f *testing.F) {
	h := segmentHeader{id: 7, seq: 9, seg: 2}
	b := make([]byte, segHeaderSize, 4096)
	h.encode(b)
	b = append(b, make([]byte, 64)...)
	b = append(b, sample(kindObject, content(1, 1, 100))...)
	b = append(b, sample(kindTombstone, nil)...)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= segHeaderSize {
			h.encode(b)
		}
		s := &Store{header: storeHeader{id: 7}, opts: Options{Labels: testLabels}}
		end := s.walkRecords(b, 2, 9, func(e *entry) {
			if int64(e.off)+int64(e.length) > int64(len(b)) {
				t.Fatalf("%+v in %d bytes", e, len(b))
			}
		})
		if int64(end) > int64(len(b)) {
			t.Fatalf("ends at %d of %d", end, len(b))
		}
	})
}

// FuzzHeaders: of the store, of a segment and of a trailer.
func FuzzHeaders(f *testing.F) {
	h := storeHeader{geometry: plan(1 << 30), layout: layout, id: 1, seed: [2]uint64{2, 3}}
	f.Add(h.encode())
	f.Add([]byte("tfstore\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, k := decodeStoreHeader(b); k == ours && h.sound() && h.storeSize() <= 0 {
			t.Fatalf("%+v", h)
		}
		decodeSegmentHeader(b)
		decodeTrailer(b)
	})
}
