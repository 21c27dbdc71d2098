package freshness

import (
	"bytes"
	"math"
	"slices"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// EachLine calls f with the name and the whole line of each field line of a head block.
func EachLine(block []byte, f func(name, line []byte)) { eachLine(block, f) }

// A ContentRange is what a Content-Range says is enclosed (RFC 9110 §14.4): bytes From to To, this one not
// included, of Total; -1 if that is not known.
type ContentRange struct{ From, To, Total int64 }

// ParseContentRange reads a Content-Range of bytes that encloses some. False: it is malformed, of another unit, or the
// unsatisfied form.
func ParseContentRange(v []byte) (c ContentRange, ok bool) {
	const unit = "bytes "
	if len(v) < len(unit) || !header.EqualFold(v[:len(unit)], unit) {
		return c, false
	}
	span, total, slash := bytes.Cut(v[len(unit):], []byte("/"))
	first, last, dash := bytes.Cut(span, []byte("-"))
	if !slash || !dash {
		return c, false
	}
	from, ok1 := header.ParseUint(first)
	to, ok2 := header.ParseUint(last)
	if !ok1 || !ok2 || to < from || to == math.MaxInt64 {
		return c, false
	}
	c = ContentRange{from, to + 1, -1}
	if len(total) == 1 && total[0] == '*' {
		return c, true
	}
	c.Total, ok = header.ParseUint(total)
	return c, ok && c.To <= c.Total
}

// WholeOf is the exchange as if the response, a 206, had brought the whole of its representation, to be
// judged and stored by the rules for that (§3.3): without its Content-Range, which is of this message.
func (x *Exchange) WholeOf() Exchange {
	whole := *x.Response
	whole.Status = 200
	whole.Fields = slices.Clone(whole.Fields)
	for i := range whole.Fields {
		if f := &whole.Fields[i]; f.ID == header.ContentRange {
			f.ID = header.ContentLength // so it is not stored either
		}
	}
	y := *x
	y.Response = &whole
	return y
}

// Strong tells whether parts of the stored response may be combined with others (§3.4): it has a strong validator.
func Strong(m *cache.Meta, head []byte) bool {
	return strongETag(m, head) != nil || m.ETagLen == 0 && strongDate(m)
}

func strongETag(m *cache.Meta, head []byte) []byte {
	if tag := ETag(m, head); tag != nil && !header.WeakETag(tag) {
		return tag
	}
	return nil
}

// strongDate: RFC 9110 §8.8.2.2. A minute is what RFC 7232 asked for, since clocks differ.
func strongDate(m *cache.Meta) bool {
	return m.LastModified != 0 && m.LastModified+60*second <= m.Date
}

// AppendIfRange appends the field line that makes a request for the rest of a stored response one for all of what is
// there now, if that is another (RFC 9110 §13.1.5). Nothing is appended without a strong validator.
func AppendIfRange(dst []byte, m *cache.Meta, head []byte) []byte {
	switch tag := strongETag(m, head); {
	case tag != nil:
		return http1.AppendFieldID(dst, header.IfRange, tag)
	case m.ETagLen == 0 && strongDate(m):
		var b [header.DateLen]byte
		return http1.AppendFieldID(dst, header.IfRange, header.AppendDate(b[:0], m.LastModified/second))
	}
	return dst
}

// Alike tells whether two stored responses are parts of the same representation (§3.4): both
// have the same strong validator.
func Alike(a *cache.Meta, aHead []byte, b *cache.Meta, bHead []byte) bool {
	if a.ETagLen != 0 || b.ETagLen != 0 {
		return header.StrongMatch(ETag(a, aHead), ETag(b, bHead))
	}
	return strongDate(a) && strongDate(b) && a.LastModified == b.LastModified
}

// Continues tells whether the response in x is of the same representation as a stored one (§3.4).
func Continues(x *Exchange, m *cache.Meta, head []byte) bool {
	r := x.Response
	if tag := r.Value(x.ResponseHead, header.ETag); tag != nil || m.ETagLen != 0 {
		return !r.Repeated(header.ETag) && header.StrongMatch(tag, ETag(m, head))
	}
	t, ok := header.ParseDate(r.Value(x.ResponseHead, header.LastModified), floorSeconds(x.ResponseTime))
	return ok && !r.Repeated(header.LastModified) && strongDate(m) && t*second == m.LastModified
}

// FindETag returns the strong entity tag in a block of field lines, nil if there is none or more than one.
func FindETag(block []byte) []byte {
	tag := find(block, header.ETag)
	if !header.ValidETag(tag) || header.WeakETag(tag) {
		return nil
	}
	return tag
}

// FindContentRange returns the Content-Range in a block of field lines. False: there is none, or none that can be read.
func FindContentRange(block []byte) (ContentRange, bool) {
	return ParseContentRange(find(block, header.ContentRange))
}

// find returns the value of the only field with that name; nil if there is none or more than one.
func find(block []byte, id header.ID) (value []byte) {
	n := 0
	eachLine(block, func(name, line []byte) {
		if header.Lookup(name) == id {
			n++
			value = header.Trim(line[len(name)+1 : len(line)-2])
		}
	})
	if n != 1 {
		return nil
	}
	return value
}
