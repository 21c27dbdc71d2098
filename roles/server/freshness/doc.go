// Package freshness holds the decisions of RFC 9111: what may be stored, how long
// it is fresh, how old it is, which request it answers, how it is validated, updated
// and invalidated. One file is one subject, and the section stands beside each decision.
//
// Everything here is a function of parsed heads and of times that the caller
// passes in (wall clock, nanoseconds since 1970): no clock, no I/O, nothing kept.
// Functions that produce bytes append to the caller's buffer and allocate only if that
// must grow; the functions of a cache hit (ParseRequest, Decide, NotModified, MatchVary)
// allocate nothing.
//
// # Rules
//
//   - When in doubt, do not store; when in doubt, it is stale. A response whose
//     Cache-Control has anything in it that is no directive is not stored; a duration
//     that cannot be read, or contradicts another, is zero.
//   - A CDN-Cache-Control that can be read takes the place of Cache-Control and Expires
//     (RFC 9213); one that cannot does not exist.
//   - What says how long it is fresh is stored whatever its status, but for those that §3 or
//     their own specification exclude. Of the rest a lifetime is guessed if there is a Last-Modified and the status allows it
//     (§4.2.2); what the operator decides where the RFC leaves a choice are the Rules.
//   - private="field" and no-cache="field" keep the field out of what is stored, and nothing else.
//   - The cache is a shared one. A response with Set-Cookie is stored only if it says itself how long others may have it (§7.3).
//   - Stale is served to who asked for it, within the windows of RFC 5861, and in place of an answer that cannot
//     be had. Never what must be validated: must-revalidate, proxy-revalidate, s-maxage, no-cache.
//   - A 206 is stored as a part of a response, by the rules for the whole (WholeOf). Of
//     anything but a GET nothing is stored, unless it is a POST that
//     says that it is what a GET would bring (RFC 9110 §9.3.3).
//
// # The head block
//
// What is stored of a head is a block of end-to-end field lines, "Name: value\r\n", in the
// order and spelling of the origin. It has no hop-by-hop field, none nominated by
// Connection, no Age, no Content-Length: those belong to the message and are written
// by whoever delivers it. So a hit copies the block as it stands. A Date is added where there was none.
// What private or no-cache name is left out: whoever delivers the response to the one client that asked for it takes the
// lines from the origin (Exchange.LeavesOut).
//
// # Storing a response
//
//	x := freshness.Exchange{Request: req, RequestHead: reqHead, Response: resp, ResponseHead: respHead, RequestTime: sent, ResponseTime: got, Rules: rules}
//	meta, why := x.Judge()
//	if why == freshness.Storable {
//		head := x.AppendHead(buf, &meta)
//		vary, ok := x.AppendVary(buf2)
//		...
//	}
//
// # What it is not
//
// It is no cache and reads no bodies. It says what may stand in for an origin that is
// down (OnError), not when one is down, nor how many requests go to it at a time.
package freshness
