package freshness

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// explicitLifetime is freshness_lifetime of §4.2.1 for a shared cache: s-maxage, else
// max-age, else Expires minus Date; the first that is there counts even if it cannot be
// read, and then it is zero. False: the response says nothing.
func (x *Exchange) explicitLifetime(c *Control, date int64) (ns int64, explicit bool) {
	switch {
	case c.SMaxAge != Absent:
		return seconds(c.SMaxAge), true
	case c.MaxAge != Absent:
		return seconds(c.MaxAge), true
	case x.Response.Has(header.Expires):
		return x.expires(date), true
	case c.NoCache: // says that it may be kept, and is never to be used unasked
		return 0, true
	}
	return 0, false
}

// expires reads Expires (§5.3): an invalid one, above all "0", is in the past, and so
// are several that do not agree (§4.2.1).
func (x *Exchange) expires(date int64) int64 {
	var first int64
	seen := false
	for i := range x.Response.Fields {
		f := &x.Response.Fields[i]
		if f.ID != header.Expires {
			continue
		}
		t, ok := header.ParseDate(f.Value.In(x.ResponseHead), floorSeconds(x.ResponseTime))
		if !ok || (seen && t != first) {
			return 0
		}
		first, seen = t, true
	}
	return clampAge(min(first, 4*header.MaxDelta)*second - date)
}

// A Verdict says what to do about a request, given what is stored for it.
type Verdict uint8

// The verdicts.
const (
	// Fresh: serve the stored response as it is, with its Age.
	Fresh Verdict = iota
	// Stale: ask the origin whether it still holds (AppendConditions), then serve it.
	Stale
	// MustFetch: nothing stored helps; send the request on.
	MustFetch
	// OnlyIfCachedMiss: answer 504, the client wants nothing from the origin (§5.2.1.7).
	OnlyIfCachedMiss
)

func (v Verdict) String() string {
	return [...]string{"fresh", "stale", "must fetch", "only-if-cached miss"}[v]
}

// Decide says whether the stored response m may answer a request with the control c at
// the time now (§4, §4.2.4, §5.2.1); m nil means that nothing is stored. It holds for
// requests that MayAnswer.
func Decide(m *cache.Meta, c *Control, now int64) Verdict {
	switch {
	case m != nil && reusable(m, c, now):
		return Fresh
	case c.OnlyIfCached:
		return OnlyIfCachedMiss
	case m != nil && m.Flags&cache.HasValidator != 0:
		return Stale
	}
	return MustFetch
}

func reusable(m *cache.Meta, c *Control, now int64) bool {
	if c.NoCache || c.Malformed || m.Flags&cache.NoCache != 0 { // §5.2.1.4, §5.2.2.4
		return false
	}
	age := CurrentAge(m, now)
	if c.MaxAge != Absent && age > seconds(c.MaxAge) { // §5.2.1.1
		return false
	}
	left := m.Lifetime - age
	if c.MinFresh != Absent && left < seconds(c.MinFresh) { // §5.2.1.3
		return false
	}
	if left > 0 { // §4.2: fresh while freshness_lifetime > current_age
		return true
	}
	if m.Flags&cache.MustRevalidate != 0 { // §4.2.4: prohibited by an explicit directive
		return false
	}
	// §5.2.1.2. Stale answers are given to those only who asked for them.
	return c.MaxStale == Absent && c.AnyStale || c.MaxStale != Absent && -left <= seconds(c.MaxStale)
}

// Invalidates tells whether the final response to a request makes what is stored for
// its URI wrong (§4.4): a method that is not known to be safe, and no error.
func Invalidates(method http1.Method, status int) bool {
	return !method.Safe() && status >= 200 && status < 400
}

// InvalidatedTarget reads a Location or Content-Location of such a response. ok
// tells that it names a resource of the same origin, which is then to be invalidated too
// (§4.4); query is nil when there is none. Relative references without a leading slash are left alone.
func InvalidatedTarget(reference, scheme, host []byte) (path, query []byte, ok bool) {
	rest := reference
	if len(rest) == 0 {
		return nil, nil, false
	}
	if rest[0] != '/' {
		n := len(scheme) + len("://")
		if len(rest) < n+len(host) || !header.EqualFoldBytes(rest[:len(scheme)], scheme) ||
			string(rest[len(scheme):n]) != "://" || !header.EqualFoldBytes(rest[n:n+len(host)], host) {
			return nil, nil, false
		}
		rest = rest[n+len(host):]
	}
	if len(rest) == 0 {
		return []byte("/"), nil, true
	}
	if rest[0] != '/' || (len(rest) > 1 && rest[1] == '/' && len(rest) == len(reference)) {
		return nil, nil, false
	}
	return splitTarget(rest)
}

func splitTarget(rest []byte) (path, query []byte, ok bool) {
	for i, c := range rest {
		switch {
		case c == '#':
			return rest[:i], nil, true
		case c == '?':
			path, query = rest[:i], rest[i+1:]
			for j, c := range query {
				if c == '#' {
					return path, query[:j], true
				}
			}
			return path, query, true
		}
	}
	return rest, nil, true
}
