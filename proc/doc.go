// Package proc starts, adopts, watches and ends processes, by pidfd: so a signal reaches the process that was meant or
// nobody, never a stranger who got its PID.
//
// # Identity
//
// A PID is a place, not a process: when the process is gone, another gets it. What stays true is
//
//   - a pidfd: it refers to one process for ever, also when that is dead and its PID is somebody else's;
//   - an [Identity]: PID and start time together.
//
// So everything here goes through a pidfd. What must be asked by PID (in /proc) is asked while the pidfd is open, and followed by the
// question whether the pidfd's process still has its PID; if it does, the answer was about it. This is how [Adopt]
// makes sure it has the right one.
//
// # Life cycle
//
//	Start ──▶ running ──NotifyReady──▶ Ready closed ──┐
//	            │ └─────NotifyError──▶ Refusal ───────┤
//	Adopt ──▶   └─────────────── death ───────────────┴──▶ reaped if ours ──▶ Done closed, Exit and Refusal final
//
// One goroutine watches each Process, parked in the runtime's poller until the pidfd becomes readable; Release
// ends it early. Ready means what the child said; started and ready are different things, and only Ready says that it
// serves. Done comes after everything the child wrote on its notify pipe has been read.
//
// Restarting is no part of this package: that is policy.
//
// # Who reaps
//
// An exit status can be collected once. Two waiters for one child race, and a PID 1 that waits for any child takes the status
// of the others' children. Here there is one place that reaps, under one lock which is also held from fork to
// registration: the watchers and the [Reaper] meet there, and whichever comes first gives the status to every Process
// concerned. In a program with a Reaper, start processes with Start and nothing else (not os/exec).
//
// # What a child inherits
//
// Descriptors 0, 1, 2, Spec.Files, and the notify pipe; nothing else: Start makes all others close-on-exec. The executable is one opened descriptor ([Executable]), so that parent and children are always the same
// version. Signals that Go handles are at their default in the child; ignored ones stay ignored.
//
// Parent-death signals are off by default. PR_SET_PDEATHSIG follows the parent THREAD, which Go may end long
// before the process; and the processes this package is made for are to survive their parent, and to be adopted by the next. With
// Spec.DeathSig, the fork is made by a thread that is kept for it.
//
// # Without /proc
//
// Starting, watching, signalling, reaping and notifying need no /proc. Start times are then unknown (0), children are executed by path,
// SetName works on the main thread only, and FindStrays cannot work.
//
// # Requirements
//
// Linux 5.4 (pidfd_open, waitid(P_PIDFD)); 5.10 to watch without a thread for each process; 5.11 to keep inherited descriptors from children; 6.9 for SignalGroup; 6.15 to know
// how a process ended that is not our child. No capability is needed; Docker's default seccomp rules allow it all.
package proc
