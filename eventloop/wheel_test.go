package eventloop

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A model is the plainest thing that does what a wheel does: it looks at every timer.
type model struct {
	armed map[*Timer]mark
	count int
}

type mark struct {
	when  int64
	order int // of arming
}

func (m *model) arm(t *Timer)    { m.count++; m.armed[t] = mark{t.when, m.count} }
func (m *model) disarm(t *Timer) { delete(m.armed, t) }

// first returns the timer that is due first at tick to, nil if none is.
func (m *model) first(to int64) (best *Timer) {
	for t, k := range m.armed {
		if k.when > to {
			continue
		}
		if b := m.armed[best]; best == nil || k.when < b.when || k.when == b.when && k.order < b.order {
			best = t
		}
	}
	return best
}

// draw returns a number whose magnitude is as random as its digits.
func draw(r *rand.Rand, maxBits int) int64 { return r.Int64N(1 << r.IntN(maxBits)) }

// The wheel does what the model does: whatever is armed, stopped and armed again, from
// outside or from handlers, over any distance, in the same order.
func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		maxBits := 3 + r.IntN(41)
		w := wheel{now: draw(r, 44)}
		m := model{armed: map[*Timer]mark{}}
		timers := make([]Timer, 1+r.IntN(60))
		meddle := func() {
			x := &timers[r.IntN(len(timers))]
			if x.next != nil {
				w.disarm(x)
				m.disarm(x)
			}
			if r.IntN(4) != 0 {
				x.when = w.now + draw(r, maxBits)
				w.arm(x)
				m.arm(x)
			}
		}
		for range 400 {
			for range r.IntN(6) {
				meddle()
			}
			to := w.now + draw(r, maxBits)
			drain(t, &w, &m, to, 1+r.IntN(8), func() {
				for range r.IntN(3) {
					meddle()
				}
			})
			if w.now != to || w.armed != len(m.armed) {
				t.Fatalf("seed %d: at tick %d with %d armed, want %d with %d", seed, w.now, w.armed, to, len(m.armed))
			}
			if tick, _, ok := w.next(); ok && tick <= to {
				t.Fatalf("seed %d: next look at tick %d, not after %d", seed, tick, to)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// drain expires up to tick to, a few timers at a time, and compares with the model. Handlers
// meddle only if the budget is not exhausted in the middle of a cascade (see wheel).
func drain(t *testing.T, w *wheel, m *model, to int64, step int, handler func()) {
	t.Helper()
	for {
		budget := step
		for {
			x := w.expire(to, &budget)
			if x == nil {
				break
			}
			if want := m.first(to); x != want {
				t.Errorf("tick %d: expired timer of tick %d, want the one of %d", w.now, x.when, m.armed[want].when)
				return
			}
			if x.when != w.now {
				t.Errorf("timer of tick %d expired at %d", x.when, w.now)
			}
			m.disarm(x)
			handler()
		}
		if budget > 0 {
			break
		}
	}
	if x := m.first(to); x != nil {
		t.Errorf("timer of tick %d not expired at %d", x.when, to)
	}
}

// Every level, both ends of each slot.
func TestWheelBorders(t *testing.T) {
	for shift := range 44 {
		for _, off := range []int64{-1, 0, 1} {
			for _, from := range []int64{0, 1, 63, 64, 4095, 1<<30 - 1} {
				distance := int64(1)<<shift + off
				if distance < 1 {
					continue
				}
				w := wheel{now: from}
				x := &Timer{when: from + distance}
				w.arm(x)
				budget := 100
				if got := w.expire(from+distance-1, &budget); got != nil {
					t.Fatalf("from %d: timer in %d ticks expired a tick early", from, distance)
				}
				if got := w.expire(from+distance, &budget); got != x {
					t.Fatalf("from %d: timer in %d ticks not expired", from, distance)
				}
				if budget < 100-wheelLevels {
					t.Errorf("from %d: timer in %d ticks took %d moves, want at most %d", from, distance, 100-budget, wheelLevels)
				}
			}
		}
	}
}

// A million idle timers are no work: the next look at the wheel is as far off as the nearest slot, and a
// look that finds nothing due touches none of them.
func TestIdleTimersAreNoWork(t *testing.T) {
	w := wheel{}
	timers := make([]Timer, 1_000_000)
	for i := range timers {
		timers[i].when = int64(time.Hour/Tick) + int64(i)
		w.arm(&timers[i])
	}
	tick, _, ok := w.next()
	if !ok || tick < int64(time.Minute/Tick) {
		t.Errorf("next look at tick %d, %v; want it minutes away", tick, ok)
	}
	budget := 1
	for to := range int64(time.Minute / Tick) {
		if w.expire(to, &budget) != nil || budget != 1 {
			t.Fatalf("tick %d: a timer was touched", to)
		}
	}
}
