package remap

import (
	"net/netip"
	"time"
)

// A Policy is what a rule wants otherwise than the configuration says for all.
// The zero value wants nothing. Immutable; safe for any goroutine.
type Policy struct {
	// Cache: Off keeps every response of the rule out of the cache and every
	// request past it.
	Cache Toggle
	// TTL is how long a response is fresh, whatever it says itself. 0: as it says.
	TTL time.Duration
	// DefaultTTL is how long a response is fresh that says nothing. 0: the heuristic decides.
	DefaultTTL time.Duration
	// Heuristic: Off leaves a response that does not say how long it is fresh
	// without a lifetime (RFC 9111 §4.2.2).
	Heuristic Toggle
	// IgnoreClientNoCache: a client's no-cache, max-age=0 and the like do not
	// make a fresh response be fetched again.
	IgnoreClientNoCache bool
	// IgnoreQuery: requests that differ in their query alone have one response.
	IgnoreQuery bool
	// MaxObject is the largest body that is stored, in bytes. 0: as configured for all.
	MaxObject int64
	// StoreCookies: whether a response with Set-Cookie may be stored.
	StoreCookies Toggle
	// StaleIfError and StaleWhileRevalidate are for how long a stale response
	// may serve where RFC 5861 lets it. 0: as the response says; Never: not at all.
	StaleIfError         time.Duration
	StaleWhileRevalidate time.Duration
	// ConnectTimeout and ResponseTimeout of the origin. 0: as configured for all.
	ConnectTimeout  time.Duration
	ResponseTimeout time.Duration
	// PreserveHost: whether the origin sees the client's Host, or its own name.
	PreserveHost Toggle
	// Allow are the clients that the rule is for; others are refused. Empty: all.
	Allow []netip.Prefix
}

// Never is a time of a Policy that says not at all, where 0 says nothing.
const Never time.Duration = -1

// A Toggle is a switch that need not be set.
type Toggle uint8

// The positions of a Toggle.
const (
	Unset Toggle = iota
	On
	Off
)

// Or is the switch's position, or that of all when it is not set.
func (t Toggle) Or(all bool) bool {
	if t == Unset {
		return all
	}
	return t == On
}

// noPolicy is that of a rule that has none. Never written.
var noPolicy Policy

// Allows reports whether a client may use the rule.
func (p *Policy) Allows(client netip.Addr) bool {
	if len(p.Allow) == 0 {
		return true
	}
	client = client.Unmap()
	for _, a := range p.Allow {
		if a.Contains(client) {
			return true
		}
	}
	return false
}
