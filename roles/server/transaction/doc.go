// Package transaction is one request and its answer: the state machine between
// a client, the cache and an origin.
//
//	                 ┌──────────────── again ───────────────┐
//	idle → looking ──┼─ answer (hit, error) → answering → idle
//	                 └─ fetch → waiting ──── head ──┘
//	                               └── switched → tunnelling → idle
//
// A session begins a transaction and is woken when there is a Reply; the session
// frames and sends it, pulling the body by offset, and ends the transaction.
// The transaction knows its client only through the interface Client and an
// origin only through package origin, so other protocols on either side change
// nothing here.
//
// What comes from an origin comes through a fetch. A fetch belongs to the loop
// of the transaction that began it and may be followed by transactions on any
// loop: those whose request the same response answers (collapsed forwarding,
// RFC 9111 §4). They read along while it is written into the cache. A response
// that cannot be shared, or is to be validated for each who asks (no-cache), releases its followers to fetch for themselves.
//
// What memory does not have may be on disk: then the transaction waits until a disk thread has brought it into
// memory, and looks there again (disk.go). Nothing is ever sent from the disk itself.
//
// Of large responses parts are kept, and asked for: a fetch may bring what lies between two stored parts, and what breaks off
// is gone on with by asking for the rest (partial.go, resume.go).
//
// What is stale may be served while a fetch that nobody waits for validates it, or in place
// of an error (stale.go). Every reply that the cache had a part in says so in Cache-Status (status.go).
//
// # What an origin is sent
//
// No byte of a client's framing goes on. A request is written anew in one form (appendRequest): method as it
// came; target in origin-form, without dot segments; HTTP/1.1; one Host, in small letters and
// without the default port; then the client's end-to-end fields, each as "name: value"; one X-Forwarded-For, with
// the client's address at its end; our Via at the end of those received; Content-Length in decimal, or
// "chunked" with chunks of our own, or neither. Values may hold obs-text, nothing else that is
// not printable. Trailer sections are checked and dropped, both ways. Which of the client's fields are not passed on,
// or are part of the cache's key, is in trust.go. A response is written anew likewise, by the session.
//
// Invariants: a transaction belongs to one loop; a Reply, once given, does not
// change; a body that was begun is either ended or seen to fail, never cut
// short in silence; nothing is stored of which it is not certain that it may be.
package transaction
