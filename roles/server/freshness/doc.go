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
//   - Only explicit freshness counts (s-maxage, max-age, Expires). A guess (§4.2.2) would
//     come in where explicitLifetime says that there is none.
//   - private="field" counts as private and no-cache="field" as no-cache: the whole
//     response is protected instead of one field.
//   - The cache is a shared one. A response with Set-Cookie is stored only if it is
//     marked public.
//   - A 206 is never stored, nor is the answer to anything but a GET.
//
// # The head block
//
// What is stored of a head is a block of end-to-end field lines, "Name: value\r\n", in the
// order and spelling of the origin. It has no hop-by-hop field, none nominated by
// Connection, no Age, no Content-Length: those belong to the message and are written
// by whoever delivers it. So a hit copies the block as it stands. A Date is added where there was none.
//
// # Storing a response
//
//	x := freshness.Exchange{Request: req, RequestHead: reqHead, Response: resp, ResponseHead: respHead, RequestTime: sent, ResponseTime: got}
//	meta, why := x.Judge()
//	if why == freshness.Storable {
//		head := x.AppendHead(buf, &meta)
//		vary, ok := x.AppendVary(buf2)
//		...
//	}
//
// # What it is not
//
// It is no cache and reads no bodies. It does not decide what to do about an origin
// that is down, nor how many requests go to it at a time.
package freshness
