// Package server is the transaction engine: the process that takes connections,
// speaks HTTP and answers from the cache or an origin.
//
//	           ┌──────────── one of these for each event loop ─────────────┐
//	listener ──┼─▶ acceptor ─▶ session ─▶ transaction ─▶ cache             │
//	           │              (package    (package        └─▶ fetch ─▶ origin pool ──▶ origin
//	heartbeat ─┼─▶ every loop  session)    transaction)                    │
//	           └───────────────────────────────────────────────────────────┘
//	manager ◀── link: ready, go, reload, drain, yield, retire, heritage, ping, cause
//
// Each event loop is one locked OS thread, owns what it accepts until it is
// closed, and shares with the others only what is immutable, atomic or in the
// cache's mapping. Nothing that can block runs on a loop.
//
// Life cycle:
//
//	starting   configuration asked of the manager, cache mapped, loops running
//	standby    waits until the loop threads of the server that serves are dead
//	starting   server.lock taken, the role entered, what the dead server held taken over
//	           and gone on with; server.sock bound; "ready" to the manager, which answers
//	           when its side of the queue is at rest ("go")
//	ready      the queue emptied, then accepting
//	draining   no longer accepting; what is under way is finished
//	stopped    exit code 0
//
// disk.go is where the cache on disk is, how large, and when it is opened (with server.lock, before anything is
// looked up) and closed. Nothing depends on its being there.
//
// # Standby
//
// A standby acts by itself (standby.go): the kernel tells it of the death, and server.lock
// decides, so it works with every other process of the instance dead. Until then it is in nobody's
// way: it answers no heartbeat of cop's, writes neither the role's record nor the cache, and
// accepts nothing; the manager probes it over the link (ping, which passes through every loop), and
// gives it each configuration. Having taken over without a manager, it goes on without "go" as
// soon as manager.lock is free, and rebuilds the tree if cop is gone too.
//
// yield is the planned form of a death: the loops stop at the end of their turn and the process
// exits without touching a connection. What retires instead (without custody, or for a server of
// another shape) lets go of lock and listeners, and finishes what it began.
//
// Without custody there is no standby state: "ready" comes before the lock, and the manager says
// when it is our turn. Such a server may still be kept in reserve by the manager.
//
// # Custody
//
// custody.go is the life of the journal and of the keeper in this process; adoption.go goes on
// with what a dead server has left, adoption_report.go tells what became of it, and poison.go judges requests of which servers may
// have died. What each package notes of its connections, and how it goes on from that, is
// its own affair: session, origin, transaction and tunnel have a record.go and what resumes it;
// package custody has what they share.
//
// What it is not: it binds no listener and watches no process; it holds what it
// was given. Without a manager it goes on serving, and attaches itself to the
// next one.
package server
