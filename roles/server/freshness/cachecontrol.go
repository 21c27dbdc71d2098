package freshness

import (
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// Control is what the Cache-Control fields of one message say (RFC 9111 §5.2).
// Durations are seconds, at most header.MaxDelta; Absent means that the directive
// is not there.
type Control struct {
	NoStore, NoCache, NoTransform, OnlyIfCached bool
	Private, Public                             bool
	// MustRevalidate stands for proxy-revalidate too: this cache is shared.
	MustRevalidate, MustUnderstand bool
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
	if r.Has(header.Pragma) && !r.Has(header.CacheControl) {
		for i := range r.Fields {
			if f := &r.Fields[i]; f.ID == header.Pragma && header.HasToken(f.Value.In(head), "no-cache") {
				c.NoCache = true
			}
		}
	}
	return c
}

// ParseResponse reads the Cache-Control of a response. Its Pragma means nothing (§5.4).
func ParseResponse(r *http1.Response, head []byte) Control {
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
	case header.NoCache: // also with field names: the package's doc says why
		c.NoCache = true
	case header.Private:
		c.Private = true
	case header.Public:
		c.Public = true
	case header.NoTransform:
		c.NoTransform = true
	case header.OnlyIfCached:
		c.OnlyIfCached = true
	case header.MustRevalidate, header.ProxyRevalidate:
		c.MustRevalidate = true
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
	n, ok := header.ParseDelta(d.Value)
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
		if !d.HasValue {
			c.AnyStale = true
			return
		}
		settle(&c.MaxStale, n, ok, 0)
	}
}

func settle(field *int64, n int64, ok bool, strictest int64) {
	if !ok || (*field != Absent && *field != n) {
		n = strictest
	}
	*field = n
}
