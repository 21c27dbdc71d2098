// Package resolve turns host names into addresses without blocking an event
// loop.
//
// An address literal is answered at once, and so is a name whose answer is known and whose time to live (as its name
// server said, within Limits) has not passed. Any other name is looked up on a goroutine of its own,
// once for all who ask meanwhile, and the answer is delivered by the asker's
// own post function.
//
//	Cached ──▶ known ──▶ (soon to expire: looked up again, nobody waits)
//	   │
//	   └─▶ not known: Resolve ──▶ Lookup ──▶ answer: remembered for its TTL
//	                                 ├─────▶ there is no such name: remembered, too (RFC 2308)
//	                                 └─────▶ nothing, or not in time: the older answer, if there is one (RFC 8767)
//
// An origin does not vanish because its name server did. Who keeps connections learns by Follow when a name has moved
// away from under them.
//
// System is the Lookup that asks as the machine is configured to: /etc/hosts, and the name servers of
// /etc/resolv.conf (client.go, and message.go, which has no I/O). The standard library can do that, but does not tell
// for how long an answer holds; it is asked where /etc/nsswitch.conf wants what is not done here.
//
// It is no recursive resolver: what it is told by a name server it asked, in an answer to its question, it believes.
// It does not validate signatures (DNSSEC).
//
// Example:
//
//	r := resolve.New(resolve.Limits{Min: time.Second, Max: time.Hour}, resolve.NewSystem().Lookup)
//	if addrs, ok := r.Cached(host); ok {
//		connect(addrs)
//	} else {
//		r.Resolve(host, loop.Post, func(addrs []netip.Addr, err error) { ... }) // on the loop
//	}
package resolve
