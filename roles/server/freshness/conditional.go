package freshness

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// hasETag marks, between Judge and AppendHead, that the response has one valid ETag.
// It is never stored: ETagLen says it there.
const hasETag cache.Flags = 1 << 31

// validators notes which validators a response has (RFC 9110 §8.8). An ETag that is
// malformed or there twice, and a Last-Modified that cannot be read, are none.
func (x *Exchange) validators(m *cache.Meta) {
	r := x.Response
	if tag := r.Value(x.ResponseHead, header.ETag); !r.Repeated(header.ETag) && header.ValidETag(tag) && !x.named(eTag) {
		m.Flags |= cache.HasValidator | hasETag
		if header.WeakETag(tag) {
			m.Flags |= cache.WeakETag
		}
	}
	if t, ok := x.lastModified(); ok {
		m.Flags |= cache.HasValidator
		m.LastModified = t
	}
}

var eTag = []byte(header.ETag.String())

// lastModified is the Last-Modified of the response.
func (x *Exchange) lastModified() (ns int64, ok bool) {
	r := x.Response
	if !r.Has(header.LastModified) || r.Repeated(header.LastModified) {
		return 0, false
	}
	t, ok := header.ParseDate(r.Value(x.ResponseHead, header.LastModified), floorSeconds(x.ResponseTime))
	return t * second, ok && t > 0 && t < 4*header.MaxDelta
}

// ETag returns the entity tag of a stored response, nil if it has none. head is its head block.
func ETag(m *cache.Meta, head []byte) []byte {
	if m.ETagLen == 0 || uint64(m.ETagOff)+uint64(m.ETagLen) > uint64(len(head)) {
		return nil
	}
	return head[m.ETagOff : m.ETagOff+m.ETagLen]
}

// AppendConditions appends the field lines that make a request validate the stored
// response (§4.3.1). They take the place of the client's own If-None-Match and
// If-Modified-Since, which are then evaluated here by NotModified.
func AppendConditions(dst []byte, m *cache.Meta, head []byte) []byte {
	if tag := ETag(m, head); tag != nil {
		dst = http1.AppendFieldID(dst, header.IfNoneMatch, tag)
	}
	if m.LastModified != 0 {
		var b [header.DateLen]byte
		dst = http1.AppendFieldID(dst, header.IfModifiedSince, header.AppendDate(b[:0], m.LastModified/second))
	}
	return dst
}

// IsCondition tells whether a request field is left out when the request is sent
// on to validate or to fill the cache, so that the answer is the whole response
// (§4.3.1). If-Match and If-Unmodified-Since go on to the origin, whose they are.
func IsCondition(id header.ID) bool {
	switch id {
	case header.IfNoneMatch, header.IfModifiedSince, header.IfRange, header.Range:
		return true
	}
	return false
}

// NotModified evaluates the client's conditions against the stored response (§4.3.2,
// in the order of RFC 9110 §13.2.2): true means 304 instead of the whole. If-Match and
// If-Unmodified-Since do not concern a cache (RFC 9110 §13.1.1, §13.1.4).
func NotModified(r *http1.Request, reqHead []byte, m *cache.Meta, head []byte) bool {
	if m.Status < 200 || m.Status > 299 { // RFC 9110 §13.2.1
		return false
	}
	if r.Has(header.IfNoneMatch) { // takes precedence over If-Modified-Since
		return noneMatchFails(r, reqHead, ETag(m, head))
	}
	if !r.Has(header.IfModifiedSince) || r.Repeated(header.IfModifiedSince) {
		return false
	}
	since, ok := header.ParseDate(r.Value(reqHead, header.IfModifiedSince), floorSeconds(m.ResponseTime))
	if !ok { // RFC 9110 §13.1.3: ignored
		return false
	}
	changed := m.LastModified
	if changed == 0 { // §4.3.2: then the Date
		changed = m.Date
	}
	return changed/second <= since
}

// noneMatchFails: RFC 9110 §13.1.2, with the weak comparison.
func noneMatchFails(r *http1.Request, head, tag []byte) bool {
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.ID != header.IfNoneMatch {
			continue
		}
		v := f.Value.In(head)
		if header.IsAny(v) && !r.Repeated(header.IfNoneMatch) {
			return true
		}
		tags := header.ETags(v)
		for tag != nil && tags.Next() {
			if header.WeakMatch(tags.Tag, tag) {
				return true
			}
		}
	}
	return false
}

// AppendNotModified appends the lines of a head block that a 304 made from it must carry
// (RFC 9110 §15.4.5), and Last-Modified, for clients that know no ETag.
func AppendNotModified(dst, head []byte) []byte {
	eachLine(head, func(name, line []byte) {
		switch header.Lookup(name) {
		case header.CacheControl, header.ContentLocation, header.Date, header.ETag, header.Expires, header.Vary, header.LastModified:
			dst = append(dst, line...)
		}
	})
	return dst
}
