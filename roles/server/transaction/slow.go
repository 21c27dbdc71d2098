package transaction

import (
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/deadline"
)

// Those who follow a body that is not stored share one window of it, and the window can move on only when the
// slowest has had what leaves it. Several come to follow such a body only when it began to be stored and turned out
// to be too large; then a client that takes a byte now and then would hold up all the others.
//
// So it is watched, from the first time that the window is full, whether somebody waits who has had everything. When
// that is so for most of some time, those who are behind take less than half of what the others could have: they are given up. What they
// were sent ends there, and their connections with it, so that it is not taken for the whole.
//
// Nobody is given up who follows alone, or whom nobody waits for. A body whose length was known is either stored
// as a whole or not shared.

const (
	slowLook  = 100 * time.Millisecond // between two looks
	slowLooks = 20                     // looks with somebody waiting, beyond those without, after which the slow are given up
)

// slow watches the followers of a window. Owned by the fetch's loop.
type slow struct {
	limit deadline.Deadline
	on    bool
	score int
}

// watchSlow begins to watch. The window is full.
func (f *fetch) watchSlow() {
	if f.slow == nil {
		f.slow = &slow{}
		f.slow.limit.Init(f.loop, f.lookForSlow)
	}
	if !f.slow.on {
		f.slow.on = true
		f.slow.limit.Set(slowLook)
	}
}

// lookForSlow takes a look.
func (f *fetch) lookForSlow() {
	s := f.slow
	s.on = false
	if f.progress != open { // only the owner changes it
		return
	}
	f.mu.Lock()
	paused, floor := f.paused, f.paceLocked()
	f.mu.Unlock()
	switch {
	case paused && floor > 0:
		s.score++
	case s.score > 0:
		s.score--
	}
	if s.score >= slowLooks {
		s.score = 0
		f.giveUpSlow(floor)
		return
	}
	if s.score > 0 || paused {
		f.watchSlow()
	}
}

// paceLocked is how far those have come whom the others hold up; 0: nobody is held up. Only if they
// are alone among themselves does the window move on.
func (f *fetch) paceLocked() int64 {
	keen := false
	enough := f.end - int64(len(f.ring))/2 // with this much released the exchange goes on
	floor := f.end
	for _, p := range f.followers {
		keen = keen || p.waiting
		if p.released >= enough {
			floor = min(floor, p.released)
		}
	}
	if !keen || len(f.followers) < 2 {
		return 0
	}
	return floor
}

// giveUpSlow gives those up who have had less than floor of the body. That is noted before their part of the window
// is written over: a successor must not send what is there then.
func (f *fetch) giveUpSlow(floor int64) {
	f.floor = floor
	f.note(custody.StepWindow)
	f.mu.Lock()
	for _, p := range f.followers {
		if p.released < floor {
			f.env.Stats.Inc(stats.SlowGivenUp)
		}
	}
	f.low = floor
	f.advanceLocked()
	f.mu.Unlock()
}
