package cop

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// The self-watchdog. A cop that hangs watches nobody, and nobody probes it; so a second
// goroutine looks whether the loop still comes round, and if it does not, ends the
// process with every goroutine's stack on standard error. The manager, or init, starts
// the next cop, and it adopts both children, which have noticed nothing.

// stallAfter is how long the loop may be away. Nothing on it waits for anything; it
// comes round at least once a second.
const stallAfter = 30 * time.Second

// stallLooks is how many looks in a row must find the loop where it was. Looks are
// counted, not time: after a SIGSTOP of cop, or a suspended machine, the clock has
// moved on for a loop that had no chance to.
const stallLooks = 15

// pulse is moved by the loop at every turn and watched by guard.
type pulse struct{ turns atomic.Uint64 }

func (p *pulse) beat() { p.turns.Add(1) }

// guard calls stalled once if the pulse stands still, and returns then or when over is
// closed.
func (p *pulse) guard(looks <-chan time.Time, over <-chan struct{}, stalled func()) {
	last, still := p.turns.Load(), 0
	for {
		select {
		case <-over:
			return
		case <-looks:
		}
		now := p.turns.Load()
		if now != last {
			last, still = now, 0
			continue
		}
		if still++; still >= stallLooks {
			stalled()
			return
		}
	}
}

// abort ends the process by SIGABRT, after the runtime has printed all stacks. As PID 1,
// which that signal cannot end, the runtime exits with status 2.
func abort() {
	debug.SetTraceback("crash")
	panic("cop: the loop has stalled")
}
