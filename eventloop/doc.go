// Package eventloop runs state machines on a fixed number of threads.
//
// # The idea
//
// A [Loop] is one OS thread, one epoll instance, one timing wheel and one inbound
// queue. It turns for ever: fetch what is ready, run the handler of each event, run
// what was posted, run the timers that are due, sleep. A handler is a continuation:
// running it is the whole progress of its state machine, so a handler never blocks,
// never waits for another loop, and needs no lock for what its loop owns.
//
//	        Post, PostTask, Close (any goroutine)
//	                  │
//	                  ▼
//	┌─ Loop ──────────────────────────────────────────────────┐
//	│  poll ──▶ events ──▶ posts ──▶ timers ──▶ account ──┐   │
//	│   ▲       Handler    Task      TimerHandler  Cell   │   │
//	│   └─────────────────────────────────────────────────┘   │
//	└─────────────────────────────────────────────────────────┘
//
// Events come before timers on purpose: data that arrived before its time limit is
// served, even if the loop was held up (by a long handler, by SIGSTOP) and sees both at once,
// and its handler gets the chance to stop the timer. Only what does not fit into one batch
// ([Options.MaxEvents]) can come too late.
//
// # Invariants
//
//   - One owner per datum. [Loop.Post], [Loop.PostTask] and [Loop.Close] are the only
//     ways in from outside; every other method belongs to the loop's thread (or, before
//     Run, to the one goroutine that sets the loop up). Built with the tags race or
//     invariants, each of them compares thread ids and panics; otherwise the check
//     costs nothing.
//   - [Loop.Remove] means removed: the handler is not called again, not for an event of
//     the same batch that was already fetched, and not when the descriptor number has
//     been closed and reused meanwhile.
//   - Posts of one poster run in its order. What Post accepted runs, also over Close;
//     what it did not accept it says by returning false.
//   - A timer is never early by the loop's clock, and fires on the first millisecond
//     tick at or after its deadline. Arm and stop are O(1); idle timers cost memory only.
//   - Nothing allocates per event, per timer or (amortised) per post.
//   - A loop turns at least once a second, so that a [Cell] that stands still means a
//     handler that does not return.
//   - A panic of a handler is not recovered: a broken state machine must not go on
//     serving.
//
// # Life cycle
//
//	New ──▶ (Watch, Reset, Post …) ──▶ Run ──▶ Close ──▶ Run returns
//
// What was posted before Run is the first thing that runs on the loop's thread: the
// place for what must be done there (affinity, robust futex list, thread name).
// At the end timers that are armed never fire, watches are gone, and their descriptors
// are the caller's to close, as they always were.
//
// # Groups
//
// A [Group] is a fixed number of loops with a thread each, for sockets and timers. Work
// that can block (disk, name lookup) is for goroutines, whose owner knows how many there
// may be and what a second question for the same thing shares with the first; its results
// come back by Post.
//
// # What it is not
//
// There is no connection type, no buffer, no protocol, no logger. Linux only: the
// promises rest on epoll(7), eventfd(2) and CLOCK_MONOTONIC.
//
// # Why not the runtime's poller
//
// The runtime's network poller wakes a goroutine per ready descriptor: a scheduler pass, a
// stack and a park per connection, and no way to say which thread owns what. A loop
// that stays on its thread and calls handlers directly does an event in tens of nanoseconds
// above the system call, and a connection at rest costs one [Watch].
package eventloop
