package freshness

import (
	"bytes"
	"errors"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// eachLine calls f with the name and the whole line of each field line of a head block.
func eachLine(block []byte, f func(name, line []byte)) {
	for len(block) > 0 {
		end := bytes.Index(block, []byte("\r\n"))
		colon := bytes.IndexByte(block, ':')
		if end < 0 || colon < 0 || colon > end {
			return
		}
		f(block[:colon], block[:end+2])
		block = block[end+2:]
	}
}

// ErrOtherResponse says that a 304 is not about the stored response.
var ErrOtherResponse = errors.New("freshness: update stored response: the 304 has another validator")

// ErrVariesMore says that the response varies by more than it did when it was stored. Which requests
// select it cannot be said of what is stored then.
var ErrVariesMore = errors.New("freshness: update stored response: the 304 varies by more")

// An Update makes the new head of a stored response from a 304. It keeps buffers and may
// be used again and again, by one goroutine.
type Update struct {
	merged http1.Response
	buf    []byte
}

// neverUpdated are fields of a 304 that do not replace what is stored (§3.2): what is not
// stored at all, and what describes the stored bytes themselves. A weak tag stays weak: a strong one in the 304 differs from
// it by that alone, and the bytes are not certain to be those that it means (§4.3.4, RFC 9110 §8.8.1).
func neverUpdated(id header.ID, weak bool) bool {
	switch id {
	case header.Age, header.ContentLength, header.ContentEncoding, header.ContentRange:
		return true
	case header.ETag:
		return weak
	}
	return false
}

// Apply makes the metadata and the head block of a stored response after the 304 in x
// (§4.3.4, §3.2), or after the response to a HEAD that freshens it (§4.3.5). The block is valid until the next Apply. The reason says whether the response may
// still be stored; if not, it may answer this one request, and is to be removed unless that is the request's doing. Errors:
// ErrOtherResponse, ErrVariesMore, and a merged head beyond the limits; then fetch the whole.
func (u *Update) Apply(x *Exchange, m *cache.Meta, head []byte) (cache.Meta, []byte, Reason, error) {
	if !concerns(x, m, head) {
		return cache.Meta{}, nil, Storable, ErrOtherResponse
	}
	if variesMore(x, head) {
		return cache.Meta{}, nil, Storable, ErrVariesMore
	}
	u.merge(x, int(m.Status), head, header.WeakETag(ETag(m, head)))
	if err := u.merged.Parse(u.buf, nil); err != nil {
		return cache.Meta{}, nil, Storable, err
	}
	y := *x
	y.Response, y.ResponseHead, y.updates = &u.merged, u.buf, true
	next, why := y.Judge()
	// Judge saw no Age: it is never part of what is stored, but this 304 may have one.
	next.InitialAge = x.initialAge(next.Date)
	next.Flags |= m.Flags & cache.HeadOnly
	block := len(u.buf)
	u.buf = y.AppendHead(u.buf, &next)
	return next, u.buf[block:], why, nil
}

// concerns tells whether the 304 is about the stored response (§4.3.4): a strong
// validator must be the same; else whichever it has must agree.
func concerns(x *Exchange, m *cache.Meta, head []byte) bool {
	r := x.Response
	if r.Has(header.ETag) {
		tag, have := r.Value(x.ResponseHead, header.ETag), ETag(m, head)
		return have != nil && !r.Repeated(header.ETag) && header.WeakMatch(tag, have)
	}
	if r.Has(header.LastModified) && m.LastModified != 0 {
		t, ok := header.ParseDate(r.Value(x.ResponseHead, header.LastModified), floorSeconds(x.ResponseTime))
		return ok && t == m.LastModified/second
	}
	return true // no validator: it answers the one request that was made
}

// variesMore tells whether the 304 nominates a field that the stored response does not. One whose Vary cannot be
// matched is for Judge.
func variesMore(x *Exchange, head []byte) bool {
	var names [maxVaryFields][]byte
	n, ok := varyNames(x.Response, x.ResponseHead, &names)
	for i := 0; ok && i < n; i++ {
		if !nominates(head, names[i]) {
			return true
		}
	}
	return false
}

// nominates tells whether a Vary in a head block has this member.
func nominates(head, field []byte) (found bool) {
	eachLine(head, func(name, line []byte) {
		if header.Lookup(name) != header.Vary {
			return
		}
		l := header.Members(header.Trim(line[len(name)+1 : len(line)-2]))
		for m, ok := l.Next(); ok && !found; m, ok = l.Next() {
			found = header.EqualFoldBytes(m, field)
		}
	})
	return found
}

// merge writes a complete response head into u.buf: what stays of the stored block, then what
// the 304 replaces or adds, in its order. weak: the stored tag is.
func (u *Update) merge(x *Exchange, status int, head []byte, weak bool) {
	u.buf = http1.AppendStatusLine(u.buf[:0], status)
	r := x.Response
	eachLine(head, func(name, line []byte) {
		id := header.Lookup(name)
		if id == header.Date && !r.Has(header.Date) { // AppendHead gives it the time of arrival
			return
		}
		if !replaced(r, x.ResponseHead, id, name, weak) {
			u.buf = append(u.buf, line...)
		}
	})
	for i := range r.Fields {
		f := &r.Fields[i]
		if stored(r, x.ResponseHead, f) && !neverUpdated(f.ID, weak) {
			u.buf = http1.AppendParsed(u.buf, x.ResponseHead, f)
		}
	}
	u.buf = append(u.buf, "\r\n"...)
}

// replaced tells whether the 304 has a field of this name that may replace the stored one.
func replaced(r *http1.Response, head []byte, id header.ID, name []byte, weak bool) bool {
	if neverUpdated(id, weak) {
		return false
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; hasName(f, head, id, name) && stored(r, head, f) {
			return true
		}
	}
	return false
}

// Effect is what the response to a HEAD means for what is stored of the resource (§4.3.5).
type Effect uint8

// The effects.
const (
	NoEffect Effect = iota
	Freshens        // it is the same: Update.Apply
	Outdates        // a GET would bring something else
)

// HeadEffect holds the response to a HEAD against the stored response to a GET: whatever it says of
// validators and length must be the same. One that says nothing of them proves nothing; an error but that the resource is
// gone says nothing either.
func HeadEffect(x *Exchange, m *cache.Meta, head []byte, bodyLen int64) Effect {
	r := x.Response
	switch {
	case r.Status == 404 || r.Status == 410:
		if int(m.Status) != r.Status {
			return Outdates
		}
		return NoEffect
	case r.Status != int(m.Status) || r.Status > 299:
		return NoEffect
	}
	said := false
	if r.Has(header.ETag) {
		tag := r.Value(x.ResponseHead, header.ETag)
		if said = true; r.Repeated(header.ETag) || !header.WeakMatch(tag, ETag(m, head)) {
			return Outdates
		}
	}
	if r.Has(header.LastModified) {
		t, ok := x.lastModified()
		if said = true; !ok || t != m.LastModified {
			return Outdates
		}
	}
	if r.ContentLength >= 0 {
		if said = true; r.ContentLength != bodyLen {
			return Outdates
		}
	}
	if !said {
		return NoEffect
	}
	return Freshens
}
