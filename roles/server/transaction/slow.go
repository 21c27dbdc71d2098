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
// So it is watched, from the first time that the window is full, whom somebody waits for who has had everything. Who is
// behind for most of some time takes less than half of what the others could have, and is given up. What it
// was sent ends there, and its connection with it, so that it is not taken for the whole. It is judged by its own record:
// that others hang back now and then, by turns, is how a window is shared.
//
// Nobody is given up who follows alone, or whom nobody waits for. A body whose length was known is either stored
// as a whole or not shared.

const (
	slowLook  = 100 * time.Millisecond // between two looks
	slowLooks = 20                     // looks at which a follower is waited for, beyond those at which it is not, after which it is given up
)

// slow watches the followers of a window. Owned by the fetch's loop.
type slow struct {
	limit deadline.Deadline
	on    bool
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
	floor, again := f.judgeLocked()
	f.mu.Unlock()
	if floor > 0 {
		f.giveUpSlow(floor)
	}
	if again {
		f.watchSlow()
	}
}

// judgeLocked notes who is waited for now, and who is not. floor is how far those have come whose time is not over, if
// that is farther than somebody whose time is; 0: nobody is to be given up. again: there is reason for another look.
func (f *fetch) judgeLocked() (floor int64, again bool) {
	pace := int64(0)
	if f.paused {
		pace = f.paceLocked()
	}
	again = f.paused
	innocent, last := f.end, f.end
	for _, p := range f.followers {
		switch {
		case p.released < f.low: // given up
			continue
		case p.released < pace:
			p.late++
		case p.late > 0:
			p.late--
		}
		again = again || p.late > 0
		if p.late >= slowLooks {
			last = min(last, p.released)
		} else {
			innocent = min(innocent, p.released)
		}
	}
	if last >= innocent {
		return 0, again
	}
	return innocent, again
}

// paceLocked is how far those have come whom the others hold up; 0: nobody is held up. Only if they
// are alone among themselves does the window move on.
func (f *fetch) paceLocked() int64 {
	keen, n := false, 0
	enough := f.end - int64(len(f.ring))/2 // with this much released the exchange goes on
	floor := f.end
	for _, p := range f.followers {
		if p.released < f.low {
			continue // given up
		}
		n++
		keen = keen || p.waiting
		if p.released >= enough {
			floor = min(floor, p.released)
		}
	}
	if !keen || n < 2 {
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
		if p.released >= f.low && p.released < floor {
			f.env.Stats.Inc(stats.SlowGivenUp)
		}
	}
	f.low = floor
	f.advanceLocked()
	f.mu.Unlock()
}
