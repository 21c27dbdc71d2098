// Package session is a client's HTTP/1.1 connection.
//
// A session receives requests, lets a transaction answer each, frames the
// answers and sends them in order. It is an edge of the transaction: the
// transaction knows a session only as transaction.Client, so another protocol
// stands beside this package, not in it.
//
//	      ┌────────── next request ───────────┐
//	idle → head → answering ─────────────────→┤
//	  │      │        └→ tunnel               │
//	  └──────┴────────→ lingering → closed ←──┘
//
// Requests are received into pages of an arena and answered from there; a
// session that waits for its next request holds none. What a session has
// achieved is two counters, bytes consumed and bytes written (Session.rx and tx):
// the rest follows from the bytes. So a session outlives its process: what those
// numbers mean is its record (record.go, noted by Session.note before anything is received or
// sent), and resume.go makes the session again from the record and the kernel's counters (package custody).
//
// # Who is slow
//
// A head has a time limit as a whole. A body, and the taking of a reply, must keep up a least rate while they
// are waited for (pace.go): one account each, looked at only where a wait begins or ends, so that what
// never waits pays nothing. When there is no place left for another connection, sessions that do not use theirs are
// closed (room.go). A successor begins all of this anew: a death is worth one time limit to a slow
// client, and no more. A turn of the loop is bounded however much has come (maxSteps, maxTurn).
//
// Trailer sections of requests are checked and dropped (RFC 9110 §6.5.1).
//
// Invariants: one transaction at a time, so pipelined requests are answered in
// order; a session belongs to one loop; no byte of a request is looked at twice
// except to finish a head that came in pieces; after an error in a request's
// framing nothing more is read from the connection (RFC 9112 §9.2 leaves no
// way to find the next request).
package session
