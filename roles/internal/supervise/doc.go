// Package supervise holds the rules by which one process looks after another:
// when it counts as up, when it is given up, how soon it is started again, and
// who may be signalled.
//
// cop applies the rules to the manager, the manager applies them to the server.
// They are kept in one place, and free of processes, sockets and clocks, so that
// every cell can be tested and both supervisors behave alike.
//
//	            Ready                 Stop
//	   ┌──────────────────▶ ready ─────────────▶ draining
//	   │                      │                      │
//	starting ─────────────────┼──────────────────────┤ Exit
//	   ▲        Exit          │ Exit                 ▼
//	   └───────────────────── stopped ◀──────────────┘
//	            Start
//
// A process that has done everything but begin is a standby, between starting and ready; it waits
// there without a limit, and counts as one that had been ready when it dies.
//
// # The parts
//
//   - [Next] is the state × event table of a supervised process.
//   - [Backoff] says how long to wait before the next start.
//   - [Flap] holds a manager that keeps failing to start, and never for so long
//     that clients are left without any server because of it.
//   - [Strikes] tells a busy process from a wedged one.
//   - [Classify] reads a supervisor's orders out of an exit status.
//   - [Fault] is whose doing a death was, and [Death] all that its supervisor knows of it.
//   - [Gate] is the only place in trafficd from which a signal is sent.
//   - [Meet] turns the holder of a lock into a [Peer] that may be signalled; [Command] and
//     [Environ] are how a role of the same instance is started.
//
// # Invariants
//
//   - A process is killed for not answering only after it was ready, only at the
//     second failure in a row, and only if its progress counter stands still.
//   - Nobody is signalled whose identity was not established an instant before:
//     our own child not yet reaped, or the holder of the role's lock as the kernel
//     names it, or (a standby) the process at the other end of a link as the kernel names that, with
//     the start time and the executable it had when we met it.
//   - The restart delay falls back to nothing only after a process has stayed
//     ready, never because a fork succeeded.
//
// # What it is not
//
// It starts no process and writes no log: the caller does. The rules know processes
// only through [GateEnv] and [Target], and time is always an argument; live.go, apart
// from them, fills these with real processes and locks, once for both supervisors.
package supervise
