// Package roles is the command line of trafficd: one executable that plays every
// part of an instance.
//
//	init / systemd / container runtime            trafficd ctl
//	       │ starts                                    │ control.sock
//	       ▼                                           ▼
//	┌─ cop ───────────┐   spawns, probes   ┌─ manager ─────────────┐  spawns,  ┌─ server ──────────┐
//	│ watchdog, PID 1 │ ─────────────────▶ │ listeners, config,    │ ────────▶ │ event loops: HTTP │
//	│                 │ ◀───────────────── │ statistics, queue     │ hands over│ cache, origins    │
//	└─────────────────┘  spawns if dead    └───────────────────────┘           └───────────────────┘
//
// Who is started by whom, what survives which death, and who may end whom is
// told by the packages of the roles: cop, manager, server. What they share lies
// in roles/internal. The libraries at the top of the tree know nothing of roles.
//
// A process finds its role in argv[0] (traffic_cop, trafficd-cop or cop, …; that
// is how packages install it as links) or in its first argument (trafficd cop).
package roles
