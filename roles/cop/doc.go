// Package cop is the watchdog: the process that sees to it that there is a manager, and
// through it a server, and that either is replaced when it dies or hangs.
//
// It does as little as possible, because it is the one that nobody can replace without
// a loss of watchfulness: it reads no request, binds no socket, serves nothing. It knows
// three things (who is alive, who answers, whom to restart) and holds copies of the
// descriptors that must outlive the others.
//
//	           control.sock, server.sock            manager.sock
//	cop ──── GET /synthetic.txt ────────▶   cop ◀──── link ────▶ manager
//	cop ──── manager.lock, server.lock: who is alive (the kernel says)
//	cop ──── pidfd: death; shared statistics: state, progress
//	cop ──── exec: a manager, with the heritage that the last one deposited
//
// # Invariants
//
//   - One goroutine owns all state and goes round: look → decide → act. Nothing on it
//     waits; a stalled loop aborts the process (stall.go). Probes, kills and waits for
//     deaths have goroutines that post to it.
//   - Every decision is one cell of a table (decide.go) and is logged as check_programs.
//   - Every signal goes through the gate (supervise.Gate): health.kill is asked, the
//     target identified, the outcome logged as safe_kill and counted. A kill that was
//     forbidden is logged as "would have killed".
//   - Cop never waits for a manager to do its own work, and a manager's death takes no
//     healthy server along (supervision.on_manager_death: adopt).
//   - What cop holds is replaced only by a complete new deposit, never by nothing.
//
// # What cop asks of a manager
//
// In this order, at start:
//
//  1. Take up the heritage (heritage.FromEnv) and the generation
//     (supervise.TakeGeneration) from the environment, and take manager.lock. If it is
//     held: exit 75.
//  2. Make or attach the statistics; enter itself: Role(RoleManager).Enter(pid, start
//     time, generation), state Starting. From then on its main loop moves
//     Role(RoleManager).Progress at least once a second, also when idle.
//  3. Bind what is missing. A reason not to go on is told with proc.NotifyError and by the
//     exit status: 64, 77, 78 mean "do not try again", anything else is retried.
//  4. Listen on control.sock, and answer GET /synthetic.txt there with
//     heartbeat.AppendResponse, closing the connection.
//  5. Serve the link on manager.sock. Cop dials it, says hello with role "cop", and wants
//     "deposit" and "config".
//  6. State Ready, proc.NotifyReady. It does not wait for a server: cop looks for that one
//     itself.
//
// A manager that finds server.lock held by a live server adopts it; cop has seen to it
// that a server which was to die is dead before the manager is started.
//
// The operations on the link:
//
//	deposit  call, manager → cop   heritage.Marshal's body and descriptors: everything that
//	                               cop is to hold. Replaces what it held. Reply {"held":[names]}.
//	                               At each hello, and whenever the set changes.
//	config   call, manager → cop   config.Config as JSON, after each publication: cop follows
//	                               its supervision, health, timeouts and log settings.
//	status   call, manager → cop   reply: Status.
//	stop     call, manager → cop   {"now":bool}: stop the instance, as on TERM (INT). Answered at
//	                               once; cop then sends TERM to the manager.
//	refused  call, manager → cop   {"code":n,"reason":text}: the server exited with 64, 77 or 78, and none
//	                               serves. When its alarm is raised, and at each hello while it stands. If the
//	                               instance has never been up, cop stops it and exits with that code.
//	reload   event, cop → manager  HUP: read the configuration again, publish, send config.
//	reopen   event, cop → manager  USR1: reopen the log, and have the server do so.
//	stop     event, cop → manager  {"now":true}: stop without drain; TERM follows.
//
//	wanted    event, cop → manager  USR2: try the executable that is on disk, and order an upgrade.
//	upgrade   call, manager → cop   program.Order: it was tried. Reply program.Report; cop begins.
//	upgrade   call, cop → manager   program.Order: replace the server. Agreed to at once.
//	upgraded  call, manager → cop   program.Step: what became of the server, after its probation.
//	leave     call, cop → manager   exit 0 when agreed to: the next one is of the new executable.
//	report    event, cop → manager  program.Report, after each step and at each hello.
//
// To be started anew without stopping the instance, a manager exits with status 0; to
// stop the instance it calls stop and goes on until TERM comes.
//
// # What cop asks of a server
//
// It takes server.lock, enters itself in Role(RoleServer), keeps its state there up to
// date (it is probed while Ready, and not judged while Starting or Draining), moves the
// Iterations of every loop's cell at least once a second, and answers GET /synthetic.txt on
// server.sock, each answer passing through all of its loops in turn, so that one wedged loop
// fails every probe. Starting the next server is the manager's work.
//
// # Order at start and at stop
//
// Start: configuration, run root, cop.lock, then the loop. A manager that lives is
// adopted. Otherwise "manager not running": the server that lives and is not wedged is
// left for the next manager to adopt, or is made dead first; then spawn_manager. Ready
// is told (parent, systemd) when the server of a first start serves; a cop that succeeds
// another is ready with its manager, or with a server that serves. A manager that was found
// starting is no proof that there ever was an instance.
//
// Stop: TERM to the manager, which drains the server and takes it along; when the
// manager is gone, TERM to a server that is left; then wait for adopted orphans; exit 0.
// Whoever outlives its grace is killed. INT does the same in a hurry, also in the middle of
// a drain.
//
// # Signals
//
//	TERM, QUIT  drain and stop       HUP   reload; a manager that was given up is tried again
//	INT         stop now             USR1  reopen the logs
//	                                 USR2  upgrade to the executable on disk
//
// # Exit status
//
// 0 stopped because asked to; 75 another cop holds cop.lock; 64, 77, 78 as the
// configuration, the first manager or the first server said; 1 otherwise. Once both have been ready,
// cop ends only when asked to: a failure that no restart can cure raises an alarm (log, status),
// and the listeners stay held.
//
// # Upgrade
//
// Server, manager, cop, in this order (upgrade.go). Cop replaces its own program by execve(2), as
// PID 1 or not: its PID, its children, cop.lock (whose OFD lock is never free in it) and the heritage
// stay. That leaves out what could go wrong between two cops, and init never sees its
// service end. If exec fails the old program goes on. A new cop that dies later is an ordinary
// death of a cop: the manager, which runs the new executable by then, starts another.
//
// # What it is not
//
// It is not a process supervisor for anything else, and it makes no policy: the numbers
// are the configuration's, the rules those of roles/internal/supervise.
//
// # Example
//
//	os.Exit(cop.Run(context.Background(), cop.Options{Flags: flags, Foreground: true}))
package cop
