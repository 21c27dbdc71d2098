package cache

// Meta is what the freshness rules need of a stored response, computed once when it
// is stored. Times are wall-clock nanoseconds since 1970, durations nanoseconds. It is
// kept in the mapping as it stands: no pointers, fixed size, zero means absent.
type Meta struct {
	RequestTime  int64 // when the request that brought it was sent (RFC 9111 §4.2.3 request_time)
	ResponseTime int64 // when its head arrived (response_time)
	Date         int64 // its Date, or ResponseTime when it had none (RFC 9110 §6.6.1)
	InitialAge   int64 // corrected_initial_age
	Lifetime     int64 // freshness_lifetime; 0: stale from the start
	LastModified int64 // value of Last-Modified, 0 none

	StaleWhileRevalidate int64 // RFC 5861 §3; 0 not allowed
	StaleIfError         int64 // RFC 5861 §4; 0 not allowed

	// The ETag value, as a span of the head block, so that a conditional request is
	// answered without a scan. ETagLen 0: none.
	ETagOff, ETagLen uint32

	Flags  Flags
	Status uint16
	_      uint16

	// Of a part of a representation (see Key.Parts): number of its first byte in the
	// representation, and how many that has. RangeTotal 0: the body is the whole.
	RangeFrom, RangeTotal int64

	// Store.Sequence when the request that brought it was sent. What is 0 by mistake may not get stored.
	Born uint64

	_ uint64 // zero; room for what later rules compute
}

// Flags are yes-or-no facts about a stored response.
type Flags uint32

// The flags. They say what the response allows, not what a request asked.
const (
	MustRevalidate   Flags = 1 << iota // never serve it stale (must-revalidate, proxy-revalidate, s-maxage)
	NoCache                            // never serve it without validation (no-cache)
	Heuristic                          // its lifetime was guessed (RFC 9111 §4.2.2)
	HasValidator                       // it has an ETag or a Last-Modified
	HeadOnly                           // it has no body of its own by rule (204, 304 …), not a Content-Length: 0
	WeakETag                           // its ETag is weak
	SaysStaleIfError                   // StaleIfError is what was decided for it, also if that is not at all
)
