package transaction

import (
	"bytes"
	"math"
	"slices"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
)

// A span is a run of bytes of a representation: from included, to not.
type span struct{ from, to int64 }

func (s span) len() int64 { return s.to - s.from }

func (s span) holds(r span) bool { return s.from <= r.from && r.to <= s.to }

// What a Range field may ask for, at most (RFC 9110 §14.2, §17.15): so many ranges as they stand, and so many
// parts once those that overlap or touch are one. What asks for more is not served in parts. No
// byte is sent twice, so that an answer is never larger than the representation and the heads of its parts.
const (
	maxSpecs = 64
	maxParts = 16
)

// spanOf is where the body of a response lies in its representation, and how large that is.
func spanOf(meta *cache.Meta, length int64) (s span, size int64) {
	if meta.RangeTotal == 0 {
		return span{0, length}, length
	}
	return span{meta.RangeFrom, meta.RangeFrom + length}, meta.RangeTotal
}

// wanted is what the request asks of a representation: all of it, or these spans; none of them
// if it has no byte of what is asked for.
func (t *Transaction) wanted(dst []span, meta *cache.Meta, lines []byte, size int64) (r []span, whole bool) {
	if !t.req.Has(header.Range) || t.req.Repeated(header.Range) || !t.rangeApplies(meta, lines) {
		return nil, true
	}
	r, ok := parseRanges(dst, t.req.Value(t.head, header.Range), size)
	return r, !ok || len(r) > maxParts
}

// cutRange turns a response that could be 200 into what its request's Range asks for (RFC 9110 §14.2).
func (t *Transaction) cutRange(meta *cache.Meta, lines []byte) {
	have, size := spanOf(meta, t.reply.Length)
	if f := t.place.f; t.leading && f != nil && f.head.bent {
		t.oneRange(span{have.from, have.to + 1}, have, size+1)
		t.reply.Length--
		return
	}
	var buf [maxSpecs]span
	r, whole := t.wanted(buf[:0], meta, lines, size)
	switch {
	case !whole && len(r) == 0:
		t.unsatisfiable(size)
	case whole && meta.RangeTotal == 0:
	case whole || !have.holdsAll(r):
		// The origin has sent something else than it was asked for. Its client can
		// tell from the Content-Range (RFC 9110 §15.3.7).
		t.oneRange(have, have, size)
	case len(r) == 1:
		t.oneRange(r[0], have, size)
	default:
		t.manyRanges(r, have.from, size, lines)
	}
}

func (s span) holdsAll(r []span) bool {
	return !slices.ContainsFunc(r, func(o span) bool { return !s.holds(o) })
}

func (t *Transaction) unsatisfiable(size int64) {
	b := append(t.moreExtra(), "Content-Range: bytes */"...)
	b = header.AppendUint(b, uint64(size))
	t.reply.Extra = append(b, "\r\n"...)
	t.reply.Lines = t.without(t.reply.Lines, header.ContentRange)
	t.reply.Status, t.reply.Body, t.reply.Length = 416, nil, 0
}

// oneRange answers with one part of a body that lies at have.
func (t *Transaction) oneRange(r, have span, size int64) {
	t.reply.Extra = appendContentRange(t.moreExtra(), r, size)
	t.reply.Lines = t.without(t.reply.Lines, header.ContentRange)
	t.reply.Status, t.reply.Offset, t.reply.Length = 206, r.from-have.from, r.len()
	if t.reply.Body != nil && t.reply.Offset > 0 {
		t.reply.Body.Release(t.reply.Offset)
	}
}

// without returns the field lines without those of one name, or two.
func (t *Transaction) without(lines []byte, ids ...header.ID) []byte {
	found := false
	freshness.EachLine(lines, func(name, _ []byte) { found = found || slices.Contains(ids, header.Lookup(name)) })
	if !found {
		return lines
	}
	kept := t.lines[:0] // lines may lie in it: what is kept moves down
	freshness.EachLine(lines, func(name, line []byte) {
		if !slices.Contains(ids, header.Lookup(name)) {
			kept = append(kept, line...)
		}
	})
	t.lines = kept
	return kept
}

// moreExtra is the reply's extra lines, to be appended to.
func (t *Transaction) moreExtra() []byte {
	if t.reply.Extra == nil {
		return t.extra[:0]
	}
	return t.reply.Extra
}

func appendContentRange(b []byte, r span, size int64) []byte {
	b = append(b, "Content-Range: bytes "...)
	b = header.AppendUint(b, uint64(r.from))
	b = append(b, '-')
	b = header.AppendUint(b, uint64(r.to-1))
	b = append(b, '/')
	b = header.AppendUint(b, uint64(size))
	return append(b, "\r\n"...)
}

// rangeApplies evaluates If-Range (RFC 9110 §13.1.5): a range of another
// representation than the client has would be of no use to it.
func (t *Transaction) rangeApplies(meta *cache.Meta, lines []byte) bool {
	v := t.req.Value(t.head, header.IfRange)
	if v == nil {
		return true
	}
	if t.req.Repeated(header.IfRange) {
		return false // which of them is meant is not known
	}
	if header.ValidETag(v) {
		return header.StrongMatch(v, freshness.ETag(meta, lines))
	}
	unix, ok := header.ParseDate(v, meta.ResponseTime/1e9)
	// A date is a strong validator only if it is well before the response's.
	return ok && meta.LastModified != 0 && unix*1e9 == meta.LastModified && meta.LastModified+60e9 <= meta.Date
}

// parseRanges reads a Range field against a size: what there is of the ranges, in their order, those that
// overlap or touch put together. ok is false when the field is to be ignored: it is malformed, of another unit, or
// asks for too much.
func parseRanges(dst []span, v []byte, size int64) (r []span, ok bool) {
	const unit = "bytes="
	if len(v) < len(unit) || !header.EqualFold(v[:len(unit)], unit) {
		return nil, false
	}
	specs := 0
	for rest, more := v[len(unit):], true; more; {
		var spec []byte
		spec, rest, more = bytes.Cut(rest, comma)
		if spec = header.Trim(spec); len(spec) == 0 {
			continue // RFC 9110 §5.6.1.2
		}
		if specs++; specs > maxSpecs {
			return nil, false
		}
		s, ok := parseRange(spec, size)
		if !ok {
			return nil, false
		}
		if s.len() > 0 {
			dst = insert(dst, s)
		}
	}
	return dst, specs > 0
}

var comma = []byte(",")

// insert adds s, or makes it one with what it overlaps or touches, in the place of the first of them.
func insert(r []span, s span) []span {
	at := -1
	for i := 0; i < len(r); i++ {
		if i == at || s.from > r[i].to || r[i].from > s.to {
			continue
		}
		s = span{min(s.from, r[i].from), max(s.to, r[i].to)}
		if at < 0 {
			at = i
		} else {
			r = slices.Delete(r, max(at, i), max(at, i)+1)
			at = min(at, i)
		}
		r[at] = s
		i = -1 // it may have reached others
	}
	if at < 0 {
		return append(r, s)
	}
	return r
}

// parseRange reads "FIRST-LAST", "FIRST-" or "-SUFFIX" against a size. The span is empty
// when no byte of the range exists; ok is false when it is malformed.
func parseRange(spec []byte, size int64) (s span, ok bool) {
	first, last, dash := bytes.Cut(spec, dash)
	if !dash {
		return span{}, false
	}
	if len(first) == 0 {
		suffix, ok := parsePosition(last)
		return span{size - min(suffix, size), size}, ok
	}
	from, ok := parsePosition(first)
	to := size
	if ok && len(last) > 0 {
		var end int64
		if end, ok = parsePosition(last); end < from {
			return span{}, false
		}
		to = min(end, size-1) + 1
	}
	from = min(from, size)
	return span{from, max(to, from)}, ok
}

var dash = []byte("-")

// parsePosition reads a number of any length; what is beyond int64 is beyond every size.
func parsePosition(b []byte) (int64, bool) {
	if n, ok := header.ParseUint(b); ok || len(b) < 19 {
		return n, ok
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	return math.MaxInt64, true
}
