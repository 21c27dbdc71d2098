// Package server is the transaction engine: the process that takes connections,
// speaks HTTP and answers from the cache or an origin.
//
//	           ┌──────────── one of these for each event loop ─────────────┐
//	listener ──┼─▶ acceptor ─▶ session ─▶ transaction ─▶ cache             │
//	           │              (package    (package        └─▶ fetch ─▶ origin pool ──▶ origin
//	heartbeat ─┼─▶ every loop  session)    transaction)                    │
//	           └───────────────────────────────────────────────────────────┘
//	manager ◀── link: ready, go, reload, drain, retire, heritage
//
// Each event loop is one locked OS thread, owns what it accepts until it is
// closed, and shares with the others only what is immutable, atomic or in the
// cache's mapping. Nothing that can block runs on a loop.
//
// Life cycle:
//
//	starting   configuration asked of the manager, cache mapped, loops running
//	           "ready" to the manager, which answers when it is our turn
//	ready      server.lock taken, the manager's queue emptied, then accepting
//	draining   no longer accepting; what is under way is finished
//	stopped    exit code 0
//
// What it is not: it binds no listener and watches no process; it holds what it
// was given. Without a manager it goes on serving, and attaches itself to the
// next one.
package server
