package transaction

import (
	"bytes"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
)

// cutRange serves one range of a full response (RFC 9110 §14.2). Several ranges,
// and what cannot be understood, are answered with the whole.
func (t *Transaction) cutRange(meta *cache.Meta, lines []byte) {
	if t.req.Repeated(header.Range) || !t.rangeApplies(meta, lines) {
		return
	}
	size := t.reply.Length
	from, n, ok := parseRange(t.req.Value(t.head, header.Range), size)
	if !ok {
		return
	}
	b := append(t.extra[:0], "Content-Range: bytes "...)
	if n == 0 {
		b = append(b, "*/"...)
		t.reply.Status, t.reply.Body, t.reply.Length = 416, nil, 0
	} else {
		b = header.AppendUint(b, uint64(from))
		b = append(b, '-')
		b = header.AppendUint(b, uint64(from+n-1))
		b = append(b, '/')
		t.reply.Status, t.reply.Offset, t.reply.Length = 206, from, n
	}
	b = header.AppendUint(b, uint64(size))
	t.reply.Extra = append(b, "\r\n"...)
}

// rangeApplies evaluates If-Range (RFC 9110 §13.1.5): a range of another
// representation than the client has would be of no use to it.
func (t *Transaction) rangeApplies(meta *cache.Meta, lines []byte) bool {
	v := t.req.Value(t.head, header.IfRange)
	if v == nil {
		return true
	}
	if header.ValidETag(v) {
		return header.StrongMatch(v, freshness.ETag(meta, lines))
	}
	unix, ok := header.ParseDate(v, meta.ResponseTime/1e9)
	// A date is a strong validator only if it is well before the response's.
	return ok && meta.LastModified != 0 && unix*1e9 == meta.LastModified && meta.LastModified+60e9 <= meta.Date
}

// parseRange reads "bytes=FIRST-LAST", "bytes=FIRST-" or "bytes=-SUFFIX" against
// a size. n is 0 when no byte of the range exists; ok is false when the field
// is to be ignored.
func parseRange(v []byte, size int64) (from, n int64, ok bool) {
	const unit = "bytes="
	if len(v) < len(unit) || !header.EqualFold(v[:len(unit)], unit) {
		return 0, 0, false
	}
	first, last, dash := bytes.Cut(v[len(unit):], []byte("-"))
	if !dash {
		return 0, 0, false
	}
	if len(first) == 0 {
		suffix, ok := header.ParseUint(last)
		suffix = min(suffix, size)
		return size - suffix, suffix, ok
	}
	from, ok = header.ParseUint(first)
	end := size - 1
	if ok && len(last) > 0 {
		var to int64
		if to, ok = header.ParseUint(last); to < from {
			return 0, 0, false
		}
		end = min(to, end)
	}
	return from, max(end-from+1, 0), ok
}
