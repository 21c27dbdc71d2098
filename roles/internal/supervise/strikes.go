package supervise

import (
	"strconv"
	"time"
)

// Verdict is what a probe's result means in the light of the ones before it.
type Verdict uint8

// The verdicts.
const (
	Healthy Verdict = iota // the probe passed
	Struck                 // failed, but not often enough in a row: log it, no more
	Busy                   // failed again, but every loop has moved on: busy is not wedged
	Dead                   // failed again and some loop stands still: kill
)

func (v Verdict) String() string {
	switch v {
	case Healthy:
		return "healthy"
	case Struck:
		return "struck"
	case Busy:
		return "busy"
	case Dead:
		return "wedged"
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// StandStill is how long a loop must stand still before it counts as wedged. A loop
// moves its counter at least once a second even when nothing happens, so anything
// much shorter would convict the idle.
const StandStill = 2 * time.Second

// Strikes tells a busy process from a wedged one.
//
// Two strikes, not one: the process may be going down on purpose just as we ask.
// Any success resets the count; the original forgot to for the manager, so that two
// isolated failures days apart killed it.
//
// And a probe alone convicts nobody: a process at full load misses deadlines while it
// works. So the counters of its loops are read at each failure, and from the second
// strike on the verdict is Dead only if some loop has not moved for [StandStill].
// However short the probe interval is, a loop gets the time of one idle tick.
//
// The zero value is ready. Owned by one goroutine.
type Strikes struct {
	// Limit is the setting health.strikes: so many failures in a row let a process be
	// killed. Zero: 2.
	Limit int

	failures int
	loops    []reading // one for each loop, since the first failure in a row
}

type reading struct {
	value uint64
	since time.Time // when value was first read
}

// Passed records a probe that succeeded.
func (s *Strikes) Passed() Verdict {
	s.failures, s.loops = 0, s.loops[:0]
	return Healthy
}

// Failed records a probe that failed. progress holds one counter for each loop of the
// process, read at now, in a fixed order; it is copied. Without counters nothing
// speaks for the process, and the second strike kills: a manager adopted by a cop that
// holds no statistics yet must still be replaceable.
func (s *Strikes) Failed(now time.Time, progress []uint64) Verdict {
	s.failures++
	standing := s.read(now, progress)
	switch {
	case s.failures < s.limit():
		return Struck
	case standing:
		return Dead
	}
	return Busy
}

func (s *Strikes) limit() int {
	if s.Limit == 0 {
		return 2
	}
	return s.Limit
}

// Count returns the failures in a row.
func (s *Strikes) Count() int { return s.failures }

// read takes a reading of every loop and reports whether one of them stands still.
func (s *Strikes) read(now time.Time, progress []uint64) (standing bool) {
	if len(progress) != len(s.loops) {
		// First failure, or other loops than before: no history to judge by.
		s.loops = s.loops[:0]
		for _, v := range progress {
			s.loops = append(s.loops, reading{v, now})
		}
		return len(progress) == 0
	}
	for i, v := range progress {
		r := &s.loops[i]
		if r.value != v {
			*r = reading{v, now}
		}
		if now.Sub(r.since) >= StandStill {
			standing = true
		}
	}
	return standing || len(progress) == 0
}
