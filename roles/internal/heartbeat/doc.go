// Package heartbeat is the question "are you still answering?" and its answer: both
// ends of the protocol, in one place, so that they cannot drift apart.
//
// As in the original, a heartbeat fetches a synthetic page: it has to cross everything
// a client's request crosses, so a process that merely exists does not pass. Unlike in
// the original, the asked process answers by itself; there, the server fetched the page
// from the manager, and a sick manager got healthy servers killed.
//
//	cop ──GET /synthetic.txt──▶ control.sock (manager)
//	cop ──GET /synthetic.txt──▶ server.sock  (server; through each of its loops in turn)
//
// A probe passes if the answer is status 200 with exactly [Page], complete within the
// probe's deadline. Everything else is a failure with a name, see [Kind]: the original
// let an empty body pass.
//
// One connection for each probe: a reply left over on a reused connection crashed the
// original's watchdog (apache/trafficserver#3360).
//
// # What it is not
//
// It is no HTTP client: it understands the few answers a heartbeat can have, reads a
// bounded number of bytes, and takes whatever it does not understand for a failure. It
// decides nothing; what a failure means is roles/internal/supervise's business.
//
// # Example
//
//	ctx, cancel := context.WithTimeout(ctx, settings.Timeout)
//	defer cancel()
//	err := heartbeat.Probe(ctx, heartbeat.Unix(paths.ControlSock), heartbeat.Path)
//	// nil, or a *heartbeat.Failure that says in which way the probe failed
package heartbeat
