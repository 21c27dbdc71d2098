// Package deadline is a time limit that is moved far more often than it
// expires.
//
// A busy connection moves its limit at every request. Moving a timer costs more
// than the rest of the bookkeeping of a request, so a Deadline only writes down
// the new limit and leaves its timer where it is; a timer that fires too early
// is set again for the remainder. The timer is touched when the limit moves
// closer, which is rare: limits of one connection are of like length.
//
// It is not a general timer: it belongs to one event loop, and it fires once
// for each Set at most.
package deadline

import (
	"time"

	"trafficd/eventloop"
)

// A Deadline is embedded in what it limits. Owned by its loop. The zero value
// is not armed and must be initialised before use.
type Deadline struct {
	timer   eventloop.Timer
	loop    *eventloop.Loop
	expired func()
	at      int64 // monotonic ns; 0 when not set
	armed   int64 // when the timer fires; 0 when it is not armed
}

// Init binds the deadline to a loop and to what is called when it passes.
func (d *Deadline) Init(l *eventloop.Loop, expired func()) {
	d.loop, d.expired = l, expired
	d.timer.Init(l, d)
}

// Set moves the limit to after from now; 0 or less means no limit.
func (d *Deadline) Set(after time.Duration) {
	if after <= 0 {
		d.at = 0
		return
	}
	d.at = d.loop.Now() + int64(after)
	if d.armed == 0 || d.at < d.armed {
		d.arm(after)
	}
}

func (d *Deadline) arm(after time.Duration) {
	d.armed = d.loop.Now() + int64(after)
	d.timer.Reset(after)
}

// Clear removes the limit. The timer may still fire, for nothing.
func (d *Deadline) Clear() { d.at = 0 }

// At is when the limit passes, monotonic ns; 0: there is none.
func (d *Deadline) At() int64 { return d.at }

// Stop removes the limit and disarms the timer: nothing refers to the deadline
// afterwards.
func (d *Deadline) Stop() {
	d.at, d.armed = 0, 0
	d.timer.Stop()
}

// HandleTimer implements eventloop.TimerHandler.
func (d *Deadline) HandleTimer(*eventloop.Timer) {
	d.armed = 0
	if d.at == 0 {
		return
	}
	if left := d.at - d.loop.Now(); left > 0 {
		d.arm(time.Duration(left))
		return
	}
	d.at = 0
	d.expired()
}
