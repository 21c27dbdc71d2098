package cop

import (
	"context"
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// process is what cop needs of a process: *supervise.Peer, or a test's own.
type process interface {
	PID() int
	Ready() <-chan struct{}
	Done() <-chan struct{}
	Refusal() error
	Status() supervise.Status
	Target() supervise.Target
	Release()
}

// ward is a process that cop looks after. Owned by the loop; the goroutines that wait
// for it or ask it get the process they are about, and report to the loop with it, so
// that news of a predecessor is told from news of the present one.
type ward struct {
	role supervise.Role // immutable

	p          process // nil: none
	child      bool    // we started it: it will say when it is ready, and how it ended
	generation uint64
	state      supervise.State
	since      time.Time   // when state began
	said       stats.State // of itself, a server, as it was last read: its record is the next one's soon after its death. Stopped: nothing yet

	// The heartbeat.
	strikes supervise.Strikes
	verdict supervise.Verdict
	probing bool      // one at a time
	probed  time.Time // when the last one began

	// The gate. While killing, nobody else decides about it.
	killing  bool
	inGate   bool // a goroutine is in the gate with it
	dead     bool // it died meanwhile; to be acted on when the gate has reported
	stopKill context.CancelFunc
	after    []func() // run when the kill is over

	unmet string // why the holder of its lock could not be met, as it was last logged
}

// enter takes the ward to the state that follows e and says what cop owes it.
func (w *ward) enter(e supervise.Event, now time.Time) supervise.Action {
	next, do := supervise.Next(w.state, e)
	if next != w.state {
		w.state, w.since = next, now
	}
	return do
}

// take makes p the ward's process.
func (w *ward) take(p process, e supervise.Event, now time.Time) {
	w.p, w.state, w.child = p, supervise.Stopped, false
	w.enter(e, now)
	w.clear()
	w.generation, w.said = 0, stats.Stopped
	w.probing, w.probed, w.unmet = false, time.Time{}, ""
}

// drop forgets the process, dead or a stranger.
func (w *ward) drop() {
	w.p.Release()
	w.p, w.state, w.killing, w.dead = nil, supervise.Stopped, false, false
	w.clear()
	w.settle()
}

// settle runs what waited for the end of a kill.
func (w *ward) settle() {
	after := w.after
	w.after = nil
	for _, f := range after {
		f()
	}
}

// clear takes back every strike.
func (w *ward) clear() { w.verdict = w.strikes.Passed() }

// readyFor returns how long the process has been, or was, ready at now.
func (w *ward) readyFor(now time.Time) time.Duration {
	if w.state != supervise.Ready {
		return 0
	}
	return max(now.Sub(w.since), 1)
}

// judged maps what the probes said to the three views of a ready process.
func judged[V any](v supervise.Verdict, up, struck, wedged V) V {
	switch v {
	case supervise.Struck, supervise.Busy:
		return struck
	case supervise.Dead:
		return wedged
	}
	return up
}
