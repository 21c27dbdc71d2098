package freshness

import (
	"bytes"

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
	RequestTime  int64  // when the request was sent to the origin
	ResponseTime int64  // when the head of the response had arrived
	Born         uint64 // for cache.Meta
	Rules        Rules
	Location     []byte // Content-Location, if it means something else here than it says

	control Control  // of the response; Judge reads it
	names   [][]byte // of fields, in its no-cache and private; likewise
	updates bool     // the response is a stored one with an update merged into it
}

// A Reason says why a response is not stored.
type Reason uint8

// The reasons, in the order they are looked at. Storable is none.
const (
	Storable Reason = iota
	MethodNotCacheable
	StatusNotCacheable
	ControlMalformed
	ResponseNoStore
	ResponsePrivate
	HasCookie
	VaryAny
	NoLifetime
	NotReusable
	RequestNoStore
	Authorized
)

func (r Reason) String() string {
	return [...]string{
		"storable", "method is not cacheable", "status is not cacheable",
		"Cache-Control of the response is malformed", "no-store in the response",
		"private", "Set-Cookie", "Vary cannot be matched",
		"no lifetime", "stale at once and without a validator",
		"no-store in the request", "request with Authorization",
	}[r]
}

// OfRequest tells whether only the request is why: the same response to another one could be stored.
func (r Reason) OfRequest() bool { return r == RequestNoStore || r == Authorized }

// MayAnswer tells whether a request may be answered from the cache at all, by
// method and form (§4): GET or HEAD, no content, no change of protocol.
func MayAnswer(r *http1.Request) bool {
	return (r.Method == http1.GET || r.Method == http1.HEAD) &&
		r.ContentLength <= 0 && !r.Chunked && !r.Upgrade
}

// cacheable tells whether a final status may be stored at all (§3). Not among them: 206, which
// is judged as the whole (WholeOf), and 304, which updates what is stored; and what answers this request
// in particular, its fields, its content or its connection, so that whoever asks in an odd way would answer for all; or is
// forbidden to be stored (RFC 6585 §3 to §6, RFC 8470 §5.2).
func cacheable(status int) bool {
	switch status {
	case 206, 304, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 428, 429, 431, 511:
		return false
	}
	return status >= 200
}

// Particular tells whether a final status is about the request, as far as others of the same resource may be answered
// otherwise: its fields, its content, who sent it. It says nothing of whether those responses can be stored.
func Particular(status int) bool {
	switch status {
	case 400, 401, 402, 403, 406:
		return true
	case 206, 304:
		return false
	}
	return !cacheable(status)
}

// understood is the set of final statuses whose rules of caching this cache knows (§5.2.2.3): those
// of RFC 9110 §15 that are cacheable.
func understood(status int) bool {
	switch {
	case !cacheable(status):
		return false
	case status >= 200 && status <= 205, status >= 300 && status <= 308 && status != 306,
		status >= 400 && status <= 417, status == 422, status == 426, status >= 500 && status <= 505:
		return true
	}
	return false
}

// Judge decides whether the response may be stored (§3) and computes its metadata.
// The times and validators in the metadata are right also when the reason is not
// Storable. AppendHead completes it with the place of the ETag.
func (x *Exchange) Judge() (cache.Meta, Reason) {
	x.control = ParseResponse(x.Response, x.ResponseHead)
	x.readNames()
	c := &x.control
	m, from := x.meta(c)
	if r := x.forbidden(c); r != Storable {
		return m, r
	}
	switch {
	case from == byNobody:
		return m, NoLifetime
	case x.cookie() && !c.Public && (from != byResponse || !x.Rules.StoreCookies):
		return m, HasCookie
	case x.Request.Method == http1.POST && from != byResponse && !x.updates: // RFC 9110 §9.3.3
		return m, MethodNotCacheable
	case m.Flags&cache.HasValidator == 0 && (m.Flags&cache.NoCache != 0 || m.Lifetime+max(m.StaleWhileRevalidate, m.StaleIfError) <= m.InitialAge):
		return m, NotReusable
	}
	return m, x.unwilling(c)
}

// cookie tells whether a Set-Cookie would be stored. §7.3 leaves it to the origin to say, by the lifetime it gives, whether
// others may have it; of a lifetime that was guessed this cannot be said.
func (x *Exchange) cookie() bool {
	return x.Response.Has(header.SetCookie) && !x.named(setCookie)
}

var setCookie = []byte(header.SetCookie.String())

// cacheableMethod: GET; and a POST whose response says that it is what a GET would bring
// (RFC 9110 §9.3.3). The lifetime that it also needs is looked at later.
func (x *Exchange) cacheableMethod() bool {
	q := x.Request
	switch {
	case x.updates:
		return true
	case q.Method == http1.POST:
		return x.Representative()
	}
	return q.Method == http1.GET && MayAnswer(q)
}

// Representative tells whether the response to a POST is one of the resource itself: 2xx,
// with the URI of the request as its Content-Location (RFC 9110 §9.3.3).
func (x *Exchange) Representative() bool {
	q, head, r := x.Request, x.RequestHead, x.Response
	if q.Method != http1.POST || r.Status < 200 || r.Status > 299 || !r.Has(header.ContentLocation) || r.Repeated(header.ContentLocation) {
		return false
	}
	location := x.Location
	if location == nil {
		location = r.Value(x.ResponseHead, header.ContentLocation)
	}
	path, query, ok := InvalidatedTarget(location, schemeOf(q), q.Host.In(head))
	mine := q.Path.In(head)
	if len(mine) == 0 {
		mine = []byte("/")
	}
	return ok && bytes.Equal(path, mine) && (query != nil) == q.HasQuery && bytes.Equal(query, q.Query.In(head))
}

func schemeOf(q *http1.Request) []byte {
	if q.HTTPS {
		return []byte("https")
	}
	return []byte("http")
}

// forbidden goes through the conditions of §3 on the response that do not depend on time, and on the method.
func (x *Exchange) forbidden(c *Control) Reason {
	s := x.Response
	switch {
	case !x.cacheableMethod():
		return MethodNotCacheable
	case !cacheable(s.Status), c.MustUnderstand && !understood(s.Status): // §5.2.2.3
		return StatusNotCacheable
	case c.Malformed: // "private; max-age=60" must not be read as less than it says
		return ControlMalformed
	case c.NoStore && !c.MustUnderstand: // §5.2.2.5; §5.2.2.3 lifts it for an understood status
		return ResponseNoStore
	case c.Private: // §5.2.2.7
		return ResponsePrivate
	case !varyMatchable(s, x.ResponseHead):
		return VaryAny
	}
	return Storable
}

// unwilling goes through the conditions of §3 on the request. They come last: what is said of the response must be
// known of it, whoever asked.
func (x *Exchange) unwilling(c *Control) Reason {
	q := x.Request
	if rc := ParseRequest(q, x.RequestHead); rc.NoStore { // §5.2.1.5
		return RequestNoStore
	}
	if q.Has(header.Authorization) && !c.allowsAuthorized() {
		return Authorized
	}
	return Storable
}

// allowsAuthorized: §3.5.
func (c *Control) allowsAuthorized() bool {
	return c.Public || c.MustRevalidate || c.SMaxAge != Absent
}

// meta computes what is kept of the head for later decisions, and says who decided on
// the lifetime.
func (x *Exchange) meta(c *Control) (m cache.Meta, from source) {
	m.RequestTime, m.ResponseTime, m.Born = x.RequestTime, x.ResponseTime, x.Born
	m.Status = uint16(x.Response.Status)
	m.Date = x.date()
	m.InitialAge = x.initialAge(m.Date)
	m.Lifetime, from = x.lifetime(c, m.Date)
	if from == byGuess {
		m.Flags |= cache.Heuristic
	}
	x.validators(&m)
	if c.MustRevalidate || c.ProxyRevalidate || c.SMaxAge != Absent { // §5.2.2.10: s-maxage implies proxy-revalidate
		m.Flags |= cache.MustRevalidate
	}
	if c.NoCache {
		m.Flags |= cache.NoCache
	}
	if x.Response.Status == 204 {
		m.Flags |= cache.HeadOnly
	}
	x.windows(&m, c)
	return m, from
}

// LeavesOut tells whether AppendHead leaves out fields of the response that this one client may have.
func (x *Exchange) LeavesOut() bool {
	if !x.control.NoCacheFields && !x.control.PrivateFields {
		return false
	}
	for i := range x.Response.Fields {
		if x.named(x.Response.Fields[i].Name.In(x.ResponseHead)) {
			return true
		}
	}
	return false
}

// AppendHead appends the head block to store (§3.1) and notes in m where its ETag is. Judge comes first.
func (x *Exchange) AppendHead(dst []byte, m *cache.Meta) []byte {
	start := len(dst)
	m.ETagOff, m.ETagLen = 0, 0
	tag := m.Flags&hasETag != 0
	for i := range x.Response.Fields {
		f := &x.Response.Fields[i]
		if !stored(x.Response, x.ResponseHead, f) || x.named(f.Name.In(x.ResponseHead)) {
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
