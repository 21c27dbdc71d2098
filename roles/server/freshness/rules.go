package freshness

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
)

// Rules are what the operator decides where RFC 9111 leaves a choice. Durations are
// nanoseconds. The zero value stores no cookies and guesses nothing.
type Rules struct {
	// StoreCookies: a response with Set-Cookie is stored if it says how long it is
	// fresh, as RFC 9111 §7.3 has it. False: only if it says public.
	StoreCookies bool
	// HeuristicMax bounds what is guessed from Last-Modified (§4.2.2); 0: nothing is guessed.
	HeuristicMax int64
	// NegativeTTL is the lifetime of a 404, a 410 or a 5xx that does not say one; 0: none.
	NegativeTTL int64
	// StaleIfError is how long a response that does not say so itself may be
	// served stale while there is no answer from its origin (§4.2.4); 0: not at all.
	StaleIfError int64

	// TTL is the lifetime of every response that may be stored, whatever it says; 0: as it says. It and
	// DefaultTTL are not for errors, nor for redirects that hold once.
	TTL int64
	// DefaultTTL is that of a response that does not say any; 0: there is none.
	DefaultTTL int64
	// OwnStaleIfError and OwnStaleWhileRevalidate take the place of what a response
	// says about that (RFC 5861); 0: as it says; Never: not at all.
	OwnStaleIfError, OwnStaleWhileRevalidate int64
}

// Never is a time of Rules that says not at all, where 0 says nothing.
const Never int64 = -1

// lifetime is freshness_lifetime, and who says so.
func (x *Exchange) lifetime(c *Control, date int64) (ns int64, from source) {
	ns, explicit := x.explicitLifetime(c, date)
	lasting := guessable(x.Response.Status) && x.Response.Status < 400
	switch {
	case explicit && x.Rules.TTL > 0 && lasting:
		return x.Rules.TTL, byResponse
	case explicit:
		return ns, byResponse
	case x.Rules.TTL > 0 && lasting:
		return x.Rules.TTL, byRule
	case x.Rules.NegativeTTL > 0 && negative(x.Response.Status):
		return x.Rules.NegativeTTL, byRule
	}
	if ns = x.guess(c, date); ns > 0 {
		return ns, byGuess
	}
	if x.Rules.DefaultTTL > 0 && lasting {
		return x.Rules.DefaultTTL, byRule
	}
	return 0, byNobody
}

// source says who decided how long a response is fresh.
type source uint8

const (
	byNobody source = iota
	byResponse
	byRule
	byGuess
)

// negative: statuses that say that there is nothing, or that something is wrong.
func negative(status int) bool { return status == 404 || status == 410 || status >= 500 }

// guess is the heuristic of §4.2.2: a tenth of the time since the last change. Nothing is guessed of a
// response that the origin has marked for HTTP/1.0 caches not to be kept.
func (x *Exchange) guess(c *Control, date int64) int64 {
	if !guessable(x.Response.Status) && !c.Public { // §4.2.2, §5.2.2.9
		return 0
	}
	modified, ok := x.lastModified()
	if !ok || x.Response.Has(header.Pragma) && x.pragmaNoCache() {
		return 0
	}
	return min(clampAge(date-modified)/10, x.Rules.HeuristicMax)
}

// guessable: the statuses that are heuristically cacheable (RFC 9110 §15.1), without 206.
func guessable(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

func (x *Exchange) pragmaNoCache() bool {
	for i := range x.Response.Fields {
		if f := &x.Response.Fields[i]; f.ID == header.Pragma && header.HasToken(f.Value.In(x.ResponseHead), "no-cache") {
			return true
		}
	}
	return false
}

// windows notes for how long the response may be served stale (RFC 5861). What must be validated
// once it is stale never is.
func (x *Exchange) windows(m *cache.Meta, c *Control) {
	if m.Flags&(cache.MustRevalidate|cache.NoCache) != 0 {
		return
	}
	m.StaleWhileRevalidate = seconds(max(0, c.StaleWhileRevalidate))
	if own := x.Rules.OwnStaleWhileRevalidate; own != 0 {
		m.StaleWhileRevalidate = max(0, own)
	}
	if c.StaleIfError != Absent {
		m.StaleIfError = seconds(c.StaleIfError)
		m.Flags |= cache.SaysStaleIfError
	}
	if own := x.Rules.OwnStaleIfError; own != 0 {
		m.StaleIfError = max(0, own)
		m.Flags |= cache.SaysStaleIfError
	}
}
