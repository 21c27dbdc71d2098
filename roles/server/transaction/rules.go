package transaction

import (
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
)

// rules are what decides about the response to this request where RFC 9111 leaves a choice: what the
// configuration says for all, and the remap rule otherwise.
func (t *Transaction) rules() freshness.Rules {
	r, p := t.settings.Freshness, t.match.Policy()
	r.StoreCookies = p.StoreCookies.Or(r.StoreCookies)
	switch p.Heuristic {
	case remap.Off:
		r.HeuristicMax = 0
	case remap.On:
		if r.HeuristicMax == 0 {
			r.HeuristicMax = guessMax
		}
	}
	r.TTL, r.DefaultTTL = int64(p.TTL), int64(p.DefaultTTL)
	r.OwnStaleIfError, r.OwnStaleWhileRevalidate = int64(p.StaleIfError), int64(p.StaleWhileRevalidate)
	return r
}

// guessMax bounds what is guessed for a rule that wants it, where for all nothing is.
const guessMax = int64(24 * 3600e9)

// mayStore reports whether a body of this length, -1 unknown, is stored under the rule.
func (t *Transaction) mayStore(length int64) bool {
	most := t.match.Policy().MaxObject
	return most == 0 || length <= most
}

// representative reports whether what a POST brings is the resource itself, and what a GET would
// bring from now on (RFC 9110 §9.3.3). The fetch then has a key.
func (f *fetch) representative(x *freshness.Exchange) bool {
	t := f.lead
	if t.req.Method != http1.POST || f.env.Store == nil || !t.match.Policy().Cache.Or(true) {
		return false
	}
	if t.req.HasAny(&header.OtherMethod) || t.req.Nominates() {
		return false // it was another method to the origin, or another request
	}
	if v := x.Response.Value(x.ResponseHead, header.ContentLocation); v != nil {
		x.Location = t.reverseURL(v)
	}
	if !x.Representative() {
		return false
	}
	f.key = t.keyOf(t.path, t.query())
	return true
}

// outdated reports whether a response that is not stored shows that what is stored no longer holds:
// it was not found good, and what there is in its place says something about the resource (RFC 9111 §4.3.3).
func outdated(status int) bool {
	return status < 300 || status == 404 || status == 410
}
