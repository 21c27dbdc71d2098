package transaction

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/origin"
)

// A multipart is several ranges of a body as one: multipart/byteranges (RFC 9110 §14.6). Heads and ends of the
// parts are text made here, the bytes between them are the body's.
//
// It need not be noted for a successor: it follows from the request and from the object or fetch that the
// body is, which are. So what goes into it may depend on nothing else.
type multipart struct {
	body  Body
	first int64 // number in the representation of the body's first byte
	text  []byte
	parts []part // the last has no bytes: it is the end
}

// A part begins at offset at with text[head:end], and goes on with the bytes of the span.
type part struct {
	at        int64
	head, end int
	span
}

func (p *part) data() int64 { return p.at + int64(p.end-p.head) }

// length of the whole.
func (m *multipart) length() int64 { return m.parts[len(m.parts)-1].data() }

// find returns the part that offset off is in.
func (m *multipart) find(off int64) *part {
	i := 0
	for i+1 < len(m.parts) && m.parts[i+1].at <= off {
		i++
	}
	return &m.parts[i]
}

// Bytes implements Body.
func (m *multipart) Bytes(off int64) ([]byte, origin.BodyState) {
	p := m.find(off)
	data := p.data()
	if off < data {
		return m.text[p.end-int(data-off) : p.end], origin.BodyEnd
	}
	if p.len() == 0 {
		return nil, origin.BodyEnd
	}
	k := off - data
	b, state := m.body.Bytes(p.from - m.first + k)
	return b[:min(int64(len(b)), p.len()-k)], state
}

// Release implements Body. The parts of a body that cannot be read again are in its order.
func (m *multipart) Release(off int64) {
	p := m.find(off)
	m.body.Release(p.from - m.first + max(off-p.data(), 0))
}

// manyRanges answers with several ranges of a body whose first byte is number first.
func (t *Transaction) manyRanges(r []span, first, size int64, lines []byte) {
	if t.reply.Body == nil {
		return
	}
	boundary := t.joinRanges(r, first, size, lines)
	b := append(t.moreExtra(), "Content-Type: multipart/byteranges; boundary="...)
	b = append(b, boundary...)
	t.reply.Extra = append(b, "\r\n"...)
	t.reply.Status, t.reply.Offset, t.reply.Length = 206, 0, t.multi.length()
	t.reply.Lines = t.without(lines, header.ContentType, header.ContentRange)
}

// joinRanges makes the reply's body the parts of what it is, and returns the boundary.
func (t *Transaction) joinRanges(r []span, first, size int64, lines []byte) (boundary []byte) {
	if _, stored := t.reply.Body.(*storedBody); !stored {
		// It may be gone, once it was sent. RFC 9110 §15.3.7.2 only recommends the order of the request.
		slices.SortFunc(r, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	}
	if t.obj.Valid() {
		lines = t.obj.Head() // those of an update that could not be stored are not there for a successor
	}
	var contentType []byte
	freshness.EachLine(lines, func(name, line []byte) {
		if header.Lookup(name) == header.ContentType {
			contentType = line
		}
	})
	boundary = t.boundary()
	m := &multipart{body: t.reply.Body, first: first}
	at := int64(0)
	for _, s := range r {
		head := len(m.text)
		m.text = append(m.text, "\r\n--"...)
		m.text = append(m.text, boundary...)
		m.text = append(m.text, "\r\n"...)
		m.text = append(m.text, contentType...)
		m.text = appendContentRange(m.text, s, size)
		m.text = append(m.text, "\r\n"...)
		p := part{at, head, len(m.text), s}
		m.parts = append(m.parts, p)
		at = p.data() + s.len()
	}
	head := len(m.text)
	m.text = append(m.text, "\r\n--"...)
	m.text = append(m.text, boundary...)
	m.text = append(m.text, "--\r\n"...)
	m.parts = append(m.parts, part{at: at, head: head, end: len(m.text)})
	t.multi = m
	t.reply.Body = m
	return boundary
}

// boundary is a word that the body does not contain but by a chance of one in 2^128, and that
// nobody can know beforehand: the key is a keyed hash of the URI, and the object's own name is mixed in.
func (t *Transaction) boundary() []byte {
	k, id := t.bodyName()
	x := uint64(id)
	for i := range k {
		if i%8 == 0 { // splitmix64
			x += 0x9e3779b97f4a7c15
			x ^= x >> 30
			x *= 0xbf58476d1ce4e5b9
			x ^= x >> 27
			x *= 0x94d049bb133111eb
			x ^= x >> 31
		}
		k[i] ^= byte(x >> (i % 8 * 8))
	}
	return hex.AppendEncode(nil, k[:])
}

// bodyName is what the reply's body is called in the cache.
func (t *Transaction) bodyName() (cache.Key, cache.ID) {
	if t.obj.Valid() {
		return t.obj.Key(), t.obj.ID()
	}
	if f := t.place.f; f != nil && f.w != nil {
		return f.w.Key(), f.w.ID()
	}
	return cache.Key{}, 0
}

// resumeRanges makes a reply's body several ranges again, if it was. Of them released bytes are not wanted any more.
func (t *Transaction) resumeRanges(released int64) {
	v := t.req.Value(t.head, header.Range)
	if t.reply.Status != 206 || bytes.IndexByte(v, ',') < 0 {
		return
	}
	var buf [maxSpecs]span
	switch f := t.place.f; {
	case t.obj.Valid():
		have, size := spanOf(t.obj.Meta(), t.obj.BodyLen())
		if r, ok := parseRanges(buf[:0], v, size); ok && len(r) > 1 {
			t.joinRanges(r, have.from, size, nil)
		}
	case f != nil && f.head.shared:
		h := &f.head
		have, size := spanOf(&h.meta, h.length)
		if r, whole := t.wanted(buf[:0], &h.meta, h.lines, size); !whole && len(r) > 1 && have.holdsAll(r) {
			t.joinRanges(r, have.from, size, h.lines)
			t.multi.Release(released)
		}
	}
}
