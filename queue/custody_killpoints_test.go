//go:build killpoints

package queue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// certain is where to die for a connection to be adopted in a condition: right
// there, that of this connection is no other.
var certain = [conditions]string{
	inGap:      killSpec(stepOpenBegun, 1),
	closing:    killSpec(stepClose, 1),
	begun:      killSpec(stepBegun, 1),
	half:       killSpec(stepTaken, 1),
	unanswered: killSpec(stepTold, 2), // behind the commit
	partly:     killSpec(stepSentSome, 1),
	answered:   killSpec(stepSentAll, 1),
}

// steps are all places to die, and the times to do so in a life.
func steps(visit func(s Step, n int)) {
	for s := stepClaim; s <= stepNext; s++ {
		switch {
		case s == stepClaim, s == stepKept, s == stepMarkReceived:
			visit(s, 1) // is passed once
		case s <= stepClose, s >= UserStep:
			for _, n := range []int{1, 2, 3, 7} {
				visit(s, n)
			}
		}
	}
}

// TestKilledAtEveryStep has servers kill themselves at each step of the journal,
// of adoption and of their own protocol: at the first time they pass it and at
// later ones; then in pairs, while they adopt what was left by one that died while
// it adopted; then at steps counted whichever they are.
func TestKilledAtEveryStep(t *testing.T) {
	r := newRelay(t)
	rng := rand.New(rand.NewPCG(1, 2))
	asked := crowd(t, r, func() {
		r.start()
		r.untilSettled() // for the idle ones, and for something to receive
		r.untilDeath(0)
		steps(r.dieAt)
		for n := 1; n <= 5; n++ {
			for _, s := range []Step{stepReceived, stepKept, stepMarkReceived, stepClaim, stepReceived} {
				times := 1
				if s == stepReceived {
					times = n
				}
				r.dieAt(s, times)
			}
		}
		for range 600 {
			r.start(env("TRAFFICD_QUEUE_KILL", killSpec(-1, 1+rng.IntN(1500))))
			r.untilDeath(patience)
		}
		for c, spec := range certain {
			for i := 0; i < 20 && spec != "" && r.tally.adopted[c].Load() == 0; i++ {
				r.start(env("TRAFFICD_QUEUE_KILL", spec))
				r.untilDeath(patience)
			}
		}
	})
	r.report(asked)
	r.mustHaveMet(idle)
	for c, spec := range certain {
		if spec != "" {
			r.mustHaveMet(condition(c))
		}
	}
}

// dieAt has one server die the n-th time it passes the step. There is always a
// client whose server gets there.
func (r *relay) dieAt(s Step, n int) {
	r.t.Helper()
	r.start(env("TRAFFICD_QUEUE_KILL", killSpec(s, n)))
	r.untilDeath(patience)
	if !r.suicide {
		r.t.Errorf("nobody died at step %d, time %d", s, n)
	}
}

// TestAStormOfDeathsInAdoption: more generations die while they adopt than the
// journal has places for keepers, each with a part of the connections, which come
// in several messages; and nothing is lost.
func TestAStormOfDeathsInAdoption(t *testing.T) {
	r := newRelay(t)
	// One message at a time, so that the keepers live through many deaths.
	if err := unix.SetsockoptInt(int(r.files[0].Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	const idlers = 600
	var asked atomic.Int64
	all := make([]*client, idlers)
	served := crowd(t, r, func() {
		r.start()
		for i := range all {
			all[i] = &client{relay: r, rng: rand.New(rand.NewPCG(uint64(i), 1)), asked: &asked, n: uint32(i+100) << 16}
			if err := all[i].dial(); err != nil {
				t.Fatal(err)
			}
			defer all[i].conn.Close()
			askOnce(t, all[i])
		}
		r.untilSettled()
		r.untilDeath(0)
		for i := range keptPlaces + 20 {
			r.dieAt(stepReceived, []int{1, 100, MaxFDs + 1, 2*MaxFDs + 1, idlers}[i%5])
			if i%10 == 9 {
				r.dieAt(stepKept, 1)
			}
		}
		r.start()
		for _, c := range all {
			askOnce(t, c)
			if err := c.hangUp(); err != nil {
				t.Error(err)
			}
		}
		r.untilDeath(0)
	})
	r.report(served + asked.Load())
	r.mustHaveMet(settled[:]...)
}

// askOnce has one request served on a connection that is idle before and after.
func askOnce(t *testing.T, c *client) {
	t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if err := c.send(c.ask(10, 1000, 0)); err != nil {
		t.Fatal(err)
	}
	if err := c.readAll(nil); err != nil {
		t.Fatal(err)
	}
}

// killSpec is the N-th time that step is passed, -1 for any.
func killSpec(step Step, n int) string {
	if step < 0 {
		return fmt.Sprintf("*:%d", n)
	}
	return fmt.Sprintf("%d:%d", step, n)
}

// TestARecordHasTheOldValueOrTheNew: for a death on either side of its store.
func TestARecordHasTheOldValueOrTheNew(t *testing.T) {
	for n := 1; n <= 20; n++ {
		file, mem := memory(t, pageSize)
		c := startRole(t, "dier", nil, []*os.File{file}, env("TRAFFICD_QUEUE_KILL", killSpec(UserStep, n)))
		if err := c.wait(); err == nil || c.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("did not die at time %d: %v", n, err)
		}
		if got, ok := RecordAt[whole](mem).Load().is(); !ok || got != uint64(n/2) {
			t.Errorf("death %d: value %d, whole: %v, want %d", n, got, ok, n/2)
		}
	}
}
