package freshness

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// An Exchange is a final response and the request it answers, with their times.
type Exchange struct {
	Request      *http1.Request
	RequestHead  []byte
	Response     *http1.Response
	ResponseHead []byte
	RequestTime  int64 // when the request was sent to the origin
	ResponseTime int64 // when the head of the response had arrived
}

// A Reason says why a response is not stored.
type Reason uint8

// The reasons, in the order they are looked at. Storable is none.
const (
	Storable Reason = iota
	NotGet
	StatusNotCacheable
	RequestNoStore
	ControlMalformed
	ResponseNoStore
	ResponsePrivate
	Authorized
	HasCookie
	VaryAny
	NoLifetime
	NotReusable
)

func (r Reason) String() string {
	return [...]string{
		"storable", "method is not GET", "status is not cacheable", "no-store in the request",
		"Cache-Control of the response is malformed", "no-store in the response",
		"private", "request with Authorization", "Set-Cookie without public", "Vary cannot be matched",
		"no explicit lifetime", "stale at once and without a validator",
	}[r]
}

// MayAnswer tells whether a request may be answered from the cache at all, by
// method and form (§4): GET or HEAD, no content, no change of protocol.
func MayAnswer(r *http1.Request) bool {
	return (r.Method == http1.GET || r.Method == http1.HEAD) &&
		r.ContentLength <= 0 && !r.Chunked && !r.Upgrade
}

// understood is the set of final statuses that this cache stores (§3). Not among them:
// 206, which would need ranges to be kept, and 304, which updates what is stored.
func understood(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// Judge decides whether the response may be stored (§3) and computes its metadata.
// The times and validators in the metadata are right also when the reason is not
// Storable. AppendHead completes it with the place of the ETag.
func (x *Exchange) Judge() (cache.Meta, Reason) {
	c := ParseResponse(x.Response, x.ResponseHead)
	m, explicit := x.meta(&c)
	if r := x.forbidden(&c); r != Storable {
		return m, r
	}
	if !explicit {
		return m, NoLifetime
	}
	if m.Flags&cache.HasValidator == 0 && (m.Lifetime <= m.InitialAge || m.Flags&cache.NoCache != 0) {
		return m, NotReusable
	}
	return m, Storable
}

// forbidden goes through the conditions of §3 that do not depend on time.
func (x *Exchange) forbidden(c *Control) Reason {
	q, s := x.Request, x.Response
	rc := ParseRequest(q, x.RequestHead)
	switch {
	case q.Method != http1.GET || !MayAnswer(q):
		return NotGet
	case !understood(s.Status):
		return StatusNotCacheable
	case rc.NoStore: // §5.2.1.5
		return RequestNoStore
	case c.Malformed: // "private; max-age=60" must not be read as less than it says
		return ControlMalformed
	case c.NoStore && !c.MustUnderstand: // §5.2.2.5; §5.2.2.3 lifts it for an understood status
		return ResponseNoStore
	case c.Private: // §5.2.2.7
		return ResponsePrivate
	case q.Has(header.Authorization) && !c.allowsAuthorized():
		return Authorized
	case s.Has(header.SetCookie) && !c.Public:
		return HasCookie // §7.3 leaves it to the origin; see the package's doc
	case !varyMatchable(s, x.ResponseHead):
		return VaryAny
	}
	return Storable
}

// allowsAuthorized: §3.5.
func (c *Control) allowsAuthorized() bool {
	return c.Public || c.MustRevalidate || c.SMaxAge != Absent
}

// meta computes what is kept of the head for later decisions.
func (x *Exchange) meta(c *Control) (m cache.Meta, explicit bool) {
	m.RequestTime, m.ResponseTime = x.RequestTime, x.ResponseTime
	m.Status = uint16(x.Response.Status)
	m.Date = x.date()
	m.InitialAge = x.initialAge(m.Date)
	m.Lifetime, explicit = x.explicitLifetime(c, m.Date)
	x.validators(&m)
	if c.MustRevalidate || c.SMaxAge != Absent { // §5.2.2.10: s-maxage implies proxy-revalidate
		m.Flags |= cache.MustRevalidate
	}
	if c.NoCache {
		m.Flags |= cache.NoCache
	}
	if x.Response.Status == 204 {
		m.Flags |= cache.HeadOnly
	}
	if m.Flags&(cache.MustRevalidate|cache.NoCache) == 0 {
		m.StaleWhileRevalidate = seconds(max(0, c.StaleWhileRevalidate))
		m.StaleIfError = seconds(max(0, c.StaleIfError))
	}
	return m, explicit
}

// AppendHead appends the head block to store (§3.1) and notes in m where its ETag is.
func (x *Exchange) AppendHead(dst []byte, m *cache.Meta) []byte {
	start := len(dst)
	m.ETagOff, m.ETagLen = 0, 0
	tag := m.Flags&hasETag != 0
	for i := range x.Response.Fields {
		f := &x.Response.Fields[i]
		if !stored(x.Response, x.ResponseHead, f) {
			continue
		}
		dst = http1.AppendParsed(dst, x.ResponseHead, f)
		if f.ID == header.ETag && tag {
			m.ETagLen = f.Value.Len
			m.ETagOff = uint32(len(dst)-start-len("\r\n")) - f.Value.Len
		}
	}
	if !x.Response.Has(header.Date) { // RFC 9110 §6.6.1
		dst = append(dst, "Date: "...)
		dst = append(header.AppendDate(dst, floorSeconds(x.ResponseTime)), "\r\n"...)
	}
	m.Flags &^= hasETag
	return dst
}

// stored tells whether a field line goes into the head block.
func stored(r *http1.Response, head []byte, f *http1.Field) bool {
	switch f.ID {
	case header.Age, header.ContentLength:
		return false
	}
	return !r.HopByHop(head, f)
}
