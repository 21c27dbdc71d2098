//go:build killpoints

package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestKilledAtEveryStep has servers kill themselves at each step of the
// protocol in turn, at the first time they pass it and at later ones, and then
// at steps counted whichever they are.
func TestKilledAtEveryStep(t *testing.T) {
	r := newRelay(t)
	passed := make([]int, stepClose+1)
	rng := rand.New(rand.NewPCG(1, 2))
	try := func(step, n int) {
		r.start(env("TRAFFICD_QUEUE_KILL", killSpec(step, n)))
		r.untilDeath(700 * time.Millisecond)
		if r.suicide {
			passed[step]++
		}
	}
	asked := crowd(t, r, func() {
		for _, n := range []int{1, 2, 3, 7} {
			for step := range passed {
				try(step, n)
			}
		}
		// On a busy machine a server may not get as far in its time.
		for step := range passed {
			for range 20 {
				if passed[step] == 0 {
					try(step, 1)
				}
			}
		}
		for range 80 {
			r.start(env("TRAFFICD_QUEUE_KILL", killSpec(-1, 1+rng.IntN(400))))
			r.untilDeath(2 * time.Second)
		}
	})
	r.report(asked)
	for step, n := range passed {
		if n == 0 {
			t.Errorf("nobody died at step %d", step)
		}
	}
	for c := range Lost {
		if r.tally.conditions[c].Load() == 0 {
			t.Errorf("no connection was adopted as %v", c)
		}
	}
}

// killSpec is the N-th time that step is passed, -1 for any.
func killSpec(step, n int) string {
	if step < 0 {
		return fmt.Sprintf("*:%d", n)
	}
	return fmt.Sprintf("%d:%d", step, n)
}
