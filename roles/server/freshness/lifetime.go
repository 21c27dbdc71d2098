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
	case x.Response.Has(header.Expires) && !c.Targeted:
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
	// Revalidate: serve it, although it is stale, and ask the origin meanwhile (RFC 5861 §3).
	Revalidate
	// Stale: ask the origin whether it still holds (AppendConditions), then serve it.
	Stale
	// MustFetch: nothing stored helps; send the request on.
	MustFetch
	// OnlyIfCachedMiss: answer 504, the client wants nothing from the origin (§5.2.1.7).
	OnlyIfCachedMiss
)

func (v Verdict) String() string {
	return [...]string{"fresh", "revalidate", "stale", "must fetch", "only-if-cached miss"}[v]
}

// Decide says whether the stored response m may answer a request with the control c at
// the time now (§4, §4.2.4, §5.2.1); m nil means that nothing is stored. It holds for
// requests that MayAnswer.
func Decide(m *cache.Meta, c *Control, now int64) Verdict {
	if m != nil {
		if v, ok := reuse(m, c, now); ok {
			return v
		}
	}
	switch {
	case c.OnlyIfCached:
		return OnlyIfCachedMiss
	case m != nil && m.Flags&cache.HasValidator != 0:
		return Stale
	}
	return MustFetch
}

// reuse decides whether the stored response may be served without asking first.
func reuse(m *cache.Meta, c *Control, now int64) (v Verdict, ok bool) {
	if !acceptable(m, c) {
		return 0, false
	}
	age := CurrentAge(m, now)
	if c.MaxAge != Absent && age > seconds(c.MaxAge) { // §5.2.1.1
		return 0, false
	}
	left := m.Lifetime - age
	if c.MinFresh != Absent && left < seconds(c.MinFresh) { // §5.2.1.3
		return 0, false
	}
	switch {
	case left > 0: // §4.2: fresh while freshness_lifetime > current_age
		return Fresh, true
	case m.Flags&cache.MustRevalidate != 0: // §4.2.4: prohibited by an explicit directive
		return 0, false
	case m.StaleWhileRevalidate > 0 && -left <= m.StaleWhileRevalidate && !c.OnlyIfCached:
		return Revalidate, true
	}
	// §5.2.1.2. Else stale answers are given to those only who asked for them.
	return Fresh, c.MaxStale == Absent && c.AnyStale || c.MaxStale != Absent && -left <= seconds(c.MaxStale)
}

// acceptable: neither the response nor the client wants it to be validated in any case
// (§5.2.1.4, §5.2.2.4).
func acceptable(m *cache.Meta, c *Control) bool {
	return !c.NoCache && !c.Malformed && m.Flags&cache.NoCache == 0
}

// SingleUse reports whether the response may be used for no other request than the one it answers without having been
// validated for that: also not for those who waited for it. no-cache says so (§5.2.2.4), and, of what is
// stale from the start, must-revalidate (§5.2.2.2).
func SingleUse(m *cache.Meta) bool {
	return m.Flags&cache.NoCache != 0 || m.Flags&cache.MustRevalidate != 0 && m.Lifetime <= m.InitialAge
}

// ErrorStatus tells whether a status stands for an error that a stale response may be served in
// place of (RFC 5861 §4; RFC 9111 §4.3.3 lets a cache act as if the origin had not answered).
func ErrorStatus(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// OnError decides whether m may be served to a request with the control c although the origin could not be asked, or
// answered with an error (§4.2.4, RFC 5861 §4). usual is for how long what does not say so itself may: not
// if it was never meant to be fresh, since then its origin wanted to be asked each time.
func OnError(m *cache.Meta, c *Control, usual, now int64) bool {
	if !acceptable(m, c) || m.Flags&cache.MustRevalidate != 0 {
		return false
	}
	age := CurrentAge(m, now)
	if c.MaxAge != Absent && age > seconds(c.MaxAge) { // §5.2.1.1
		return false
	}
	window := m.StaleIfError
	if m.Flags&cache.SaysStaleIfError == 0 && m.Lifetime > 0 {
		window = usual
	}
	window = max(window, seconds(max(0, c.StaleIfError)))
	return window > 0 && age-m.Lifetime <= window
}

// TTL is for how many seconds more the stored response is fresh; below zero, how long it has not been.
func TTL(m *cache.Meta, now int64) int64 { return floorSeconds(m.Lifetime - CurrentAge(m, now)) }

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
