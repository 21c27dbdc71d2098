// Package manager is command and control: the process that owns what all servers share,
// and that starts, replaces and reconfigures them.
//
//	         heritage (exec)              heritage (exec)
//	cop ───────────────────▶ manager ─────────────────────▶ server, next server
//	 ▲  deposit, config, stop │ ▲ ▲                             │
//	 └──────── manager.sock ──┘ │ └───────── manager.sock ──────┘ config, ready, state
//	               control.sock │ autoconfiguration port
//	                   ctl, cop's heartbeat, browsers
//
// # One owner
//
// One goroutine, run, owns the manager's state; whoever learns or wants something posts
// a function to it. Nothing on it waits: what blocks (a call over a link, a kill, the
// reading of a file) is done by a goroutine, which posts its result. Each of its turns is
//
//	look    which cop there is
//	decide  one cell of a table (decide.go): what there is of a serving server × what
//	        there is of the next one
//	act     spawn, or give up a start; hand over; say what cop is to hold
//
// and moves the progress counter that cop reads.
//
// # Life cycle
//
//	manager.lock ─ configuration ─ heritage ─ meet the server there is ─ sockets ─▶ ready
//
// The listening sockets are bound once in the life of the instance, before any server
// exists; a manager that finds them in its heritage binds nothing. What its heritage
// lacks it asks of a running server first.
//
// # Contract with cop (package cop has the other half)
//
//	cop → manager   reload, reopen, stop{now}; upgrade, leave, report, wanted
//	manager → cop   deposit (the whole heritage, again after every change), config, status, stop{now};
//	                refused{code, reason}: nothing serves, and starting a server again would not help;
//	                upgrade, upgraded
//
// The manager reports readiness (proc.NotifyReady) when its sockets are open; a server
// is then under way, not ready. It exits 0 when it was asked to stop (TERM, QUIT: after
// the server's drain; INT, stop{now}: at once), and also when it is to be replaced
// (restart manager): cop starts the next one, and the server does not notice. A cop that dies
// is replaced: at once when the manager saw it die, and when cop.lock was found free for
// 200 ms otherwise.
//
// # Contract with a server
//
//	server → manager   config → the configuration; ready{generation, took, journal} → its turn
//	                   (the reply is the "go" of package queue); state{state, journal};
//	                   cause{generation} → {fault}
//	manager → server   reload, drain{undo}, yield, retire, stop{fast, standby}, heritage, reopen, ping, cache{ask, …},
//	                   cause{generation, fault}, origins → what it knows of their servers,
//	                   trouble → what does not work though it serves
//
// A server is the active one from its first "ready" state, or because it holds
// server.lock when the manager meets it. Until a next one has said "ready", and the old one
// has let go of the lock in reply to "retire", the old one serves. The reply to "ready" is
// given when the queue's manager side is at rest. An error in reply to it (another server is in
// its place) is the end of the server; a manager that ends gives no reply, so that the server
// asks the next one.
//
// A server that dials in unknown belongs to an earlier manager and is adopted: by server.lock
// as the active one; as the next one if it starts or stands by and there is no other; otherwise
// it was replaced, and is let finish. What this manager has not inherited it is asked for
// (heritage), and it is given the published configuration (reload). Shared memory names the
// process of each server (stats.Bank.Process), so one that is slow to dial in is expected, and
// no third one is started beside server and standby.
//
// # Standby
//
// With custody (custody.go) there is always a next server, which stands by. How one follows
// another is told in succession.go. A standby that has taken over says so with "ready" (took), and
// that may come before its predecessor's death is seen here: it is let go at once, and the books
// are kept when the kernel has buried the dead one. The journal's shape, the cache and the
// listeners are those of the server that serves; another configuration of them comes into force
// with a planned restart only, and what it replaces is put back if that fails. A manager that died in the middle of one has
// left the next what was to be: it takes them from the server that serves.
//
// Deaths are known in one place each (recordDeath), with whose doing they were (supervise.Fault).
// What was killed from outside is replaced at once, up to 20 times the restart budget a minute; what
// dies by itself has the restart budget; what dies before it was ready, or stood by, waits 1, 2,
// 4 … 60 s.
//
// # Upgrade
//
// Cop conducts it. Here the executable is tried, and the server replaced by one that runs it
// (upgrade.go), with a standby from the old executable for the time of its probation.
//
// # Heritage
//
// Beside the names of package heritage: "autoconf:ADDR", the listening socket of the
// autoconfiguration port, which must not be called a listener, since servers accept on those.
//
// # Configuration
//
// The file is read at the first start, and at a reload; never because a manager died. A
// manager that is started again in a living instance takes what was published last
// (last-good.yaml, if it was written in the life of this instance), so that a half-edited
// file cannot come into force by accident, and a broken one does no harm.
//
// # What it is not
//
// Nothing here is on a request's path, and no request fails because it is away. It does
// not probe servers: cop does.
package manager
