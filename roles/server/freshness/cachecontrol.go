package freshness

import (
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// Control is what the Cache-Control fields of one message say (RFC 9111 §5.2), or
// a targeted field in their place (RFC 9213). Durations are seconds, at most
// header.MaxDelta; Absent means that the directive is not there.
type Control struct {
	NoStore, NoCache, NoTransform, OnlyIfCached bool
	Private, Public                             bool
	// NoCacheFields and PrivateFields: the directive names fields, and holds for these alone
	// (§5.2.2.4, §5.2.2.7). Which they are, Exchange.named reads again.
	NoCacheFields, PrivateFields bool
	// Targeted: CDN-Cache-Control said it. Cache-Control and Expires then say
	// nothing (RFC 9213 §2.2).
	Targeted bool
	// ProxyRevalidate is apart, although this cache is shared: it permits nothing (§3.5, §5.2.2.8).
	MustRevalidate, ProxyRevalidate, MustUnderstand bool
	// AnyStale: max-stale without a value (§5.2.1.2).
	AnyStale bool
	// Malformed: something in it was no directive. Nothing in it is then taken for a
	// permission.
	Malformed bool

	MaxAge, SMaxAge, MinFresh, MaxStale int64
	StaleWhileRevalidate, StaleIfError  int64 // RFC 5861
}

// Absent is the value of a duration that was not given.
const Absent = -1

func newControl() Control {
	return Control{
		MaxAge: Absent, SMaxAge: Absent, MinFresh: Absent, MaxStale: Absent,
		StaleWhileRevalidate: Absent, StaleIfError: Absent,
	}
}

// ParseRequest reads the Cache-Control of a request, and Pragma: no-cache where
// there is no Cache-Control (§5.4).
func ParseRequest(r *http1.Request, head []byte) Control {
	c := parseControl(&r.FieldSet, head)
	if c.NoCacheFields { // names mean nothing in a request
		c.NoCache = true
	}
	if r.Has(header.Pragma) && !r.Has(header.CacheControl) {
		for i := range r.Fields {
			if f := &r.Fields[i]; f.ID == header.Pragma && header.HasToken(f.Value.In(head), "no-cache") {
				c.NoCache = true
			}
		}
	}
	return c
}

// IgnoreReload makes a client's wish for what is fresher than fresh unheard.
func (c *Control) IgnoreReload() {
	c.NoCache, c.Malformed, c.MaxAge, c.MinFresh = false, false, Absent, Absent
}

// ParseResponse reads the CDN-Cache-Control of a response, or its Cache-Control where
// there is none that can be read. Its Pragma means nothing (§5.4).
func ParseResponse(r *http1.Response, head []byte) Control {
	if r.Has(header.CDNCacheControl) {
		if c, ok := parseTargeted(&r.FieldSet, head); ok {
			return c
		}
	}
	return parseControl(&r.FieldSet, head)
}

func parseControl(s *http1.FieldSet, head []byte) Control {
	c := newControl()
	if !s.Has(header.CacheControl) {
		return c
	}
	for i := range s.Fields {
		if f := &s.Fields[i]; f.ID == header.CacheControl {
			c.add(f.Value.In(head))
		}
	}
	return c
}

// add takes the directives of one field line. Unknown ones are ignored (§5.2.3).
func (c *Control) add(value []byte) {
	d := header.Directives(value)
	for d.Next() {
		c.directive(header.LookupDirective(d.Name), &d)
	}
	c.Malformed = c.Malformed || d.Malformed()
}

func (c *Control) directive(id header.Directive, d *header.DirectiveCursor) {
	switch id {
	case header.NoStore:
		c.NoStore = true
	case header.NoCache:
		qualified(&c.NoCache, &c.NoCacheFields, d.HasValue, d.Value)
	case header.Private:
		qualified(&c.Private, &c.PrivateFields, d.HasValue, d.Value)
	case header.Public:
		c.Public = true
	case header.NoTransform:
		c.NoTransform = true
	case header.OnlyIfCached:
		c.OnlyIfCached = true
	case header.MustRevalidate:
		c.MustRevalidate = true
	case header.ProxyRevalidate:
		c.ProxyRevalidate = true
	case header.MustUnderstand:
		c.MustUnderstand = true
	default:
		c.duration(id, d)
	}
}

// duration takes a directive with delta-seconds. Where one is unusable, or repeated with
// another value, the strictest meaning is taken: §4.2.1 lets a cache consider the response
// stale, and encourages to.
func (c *Control) duration(id header.Directive, d *header.DirectiveCursor) {
	if id == header.MaxStale && !d.HasValue {
		c.AnyStale = true
		return
	}
	n, ok := header.ParseDelta(d.Value)
	c.seconds(id, n, ok)
}

func (c *Control) seconds(id header.Directive, n int64, ok bool) {
	switch id {
	case header.MaxAge:
		settle(&c.MaxAge, n, ok, 0)
	case header.SMaxAge:
		settle(&c.SMaxAge, n, ok, 0)
	case header.StaleWhileRevalidate:
		settle(&c.StaleWhileRevalidate, n, ok, 0)
	case header.StaleIfError:
		settle(&c.StaleIfError, n, ok, 0)
	case header.MinFresh:
		settle(&c.MinFresh, n, ok, header.MaxDelta)
	case header.MaxStale:
		settle(&c.MaxStale, n, ok, 0)
	}
}

func settle(field *int64, n int64, ok bool, strictest int64) {
	if !ok || (*field != Absent && *field != n) {
		n = strictest
	}
	*field = n
}

// qualified takes a directive that may name fields. One whose names cannot be read
// holds for the whole response.
func qualified(whole, fields *bool, hasValue bool, names []byte) {
	if hasValue && isNames(names) {
		*fields = true
		return
	}
	*whole = true
}

// isNames reports whether b is a list of one field name or more. A backslash in it is
// no part of a name.
func isNames(b []byte) bool {
	l := header.Members(b)
	n := 0
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		if !header.IsToken(m) {
			return false
		}
		n++
	}
	return n > 0
}
