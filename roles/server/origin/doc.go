// Package origin is the proxy's other side: connections to origins and the
// requests sent over them.
//
// An Exchange is one request to one server of an origin (package parent), and its response. It is started on a Pool, which
// finds an idle connection to the server or opens one (dial.go), and it reports to its
// Handler, always on the loop that owns both. Body bytes are received into
// memory that the handler's Sink gives out, so a body that is to be stored is
// received straight into the cache.
//
//	Start → resolving → waiting → connecting → sending → receiving → End
//	            └──────────┴──────────┴───────────┴──────────┴─────→ Fail
//
// Sending and receiving overlap: an origin may answer before it has the whole
// request. Back-pressure goes both ways: no byte is read from the origin while
// the sink has no space, and none is asked of the request body while the
// origin takes none.
//
// Invariants: a Conn carries one Exchange at a time; it goes back to the pool
// only when both the request was sent and the response was received to their
// very ends, the origin keeps the connection open, and no byte too many has
// come. A handler is called with End or Fail exactly once, and never after
// Cancel.
//
// The time limits of an exchange are the origin's: while it waits for the client
// (for bytes of the request's body, or for space in the sink) none is running.
// What became of it is told to the server, for its health.
// The trailer section of a response is checked and dropped, as RFC 9110 §6.5.1
// allows: nothing here knows what its fields mean, and a stored response has one
// head.
//
// It knows neither clients nor caches, and it never retries: whether a request
// may be sent again is for the transaction to say, which is told what is needed
// for that (see Failure).
package origin
