// Package parent decides which server of an origin gets a request, and whether one gets
// any: parent selection, as the original called it.
//
// A Group is what a rule sends requests to: one server, or several that hold the same. Pick
// chooses by the group's policy among the servers that are well; what became of the request is told
// to the server (Pass, Fail, Abandon), and out of that, and of the health checks where a group has some, comes
// its State:
//
//	      fails in a row            a request finds out
//	Up ───────────────────▶ Down ──────────────────────▶ Probing
//	▲ ▲                      ▲ │                            │ │
//	│ └──── an answer, or ───┼─┘◀───────── failed ──────────┘ │
//	│       checks are good  └─────────────────────────────── │
//	├──────────────────────────────────── an answer ──────────┘
//	└─── checks are good ─── Sick ◀── checks failed in a row, from anywhere
//
// A server that is Down gets no request for a while as long as another one is up, and after that one, which
// finds out. When no server of a group is up, one request at a time finds out and
// the others are told so at once: an origin that hangs costs one waiting request, and one that is
// back is noticed with the first request, not when a time has passed.
// A server that is Sick gets none: its checks are what finds out.
//
// An answer with a status for which another server is asked (Spec.RetryStatus) tells nothing yet: if another one then has an answer, the
// first has failed (Outdone); if all of them say so, it is the request.
//
// Of an origin that has one server only, no more is asked than that connections can be made: there is nobody else to
// ask, and an answer that never comes must cost its own request only.
//
// Beside that a Group has the budget of repeated requests (Again), and each address a Door, which bounds the
// connections to it over all loops.
//
// The state is shared by all loops of a server, and lost with it: the next one finds out again, at the price of
// some failures that are repeated elsewhere. Nothing here blocks, but for the goroutines of the checks.
//
// It knows neither sockets (but those of the checks) nor messages, and does not repeat requests: what is
// safe to be sent again is for the transaction to say.
//
// Example:
//
//	s, probe := g.Pick(hash, tried, now)
//	if s == nil {
//		... // none is up
//	}
//	... // the request is sent to s.Host and s.Port, and either
//	s.Pass()         // its response has begun, or
//	s.Fail(now, err) // there is none, or
//	s.Abandon(now)   // nobody wanted it any more
package parent
