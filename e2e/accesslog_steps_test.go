//go:build killpoints

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"trafficd/e2e/harness"
	"trafficd/queue"
	"trafficd/roles/server/custody"
)

// A server dies around the line of a request: before and after it is published, before and after the end of the request is
// noted, between the two stores of a batch, and between a write and the note of it. No line is lost, and none is there twice.
func TestAccessLogKilledAtItsSteps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kill")
	p, path := logged(t, "%{X-Id}i %s %B", visited, harness.Bearing(), harness.Args("--threads", "2"), harness.Mortal(t, file))
	v := visit(t, p.Addr, 6)
	e := &executioner{t: t, p: p, file: file, died: map[queue.Step]int{}}
	around := []queue.Step{
		custody.StepLine, custody.StepBatch, custody.StepAppended, custody.StepLogged,
		custody.StepSent, custody.StepNext, custody.StepLinger, custody.StepReply, 6, 7, // word set, slot closed
	}
	for _, n := range []int{1, 2, 3, 4, 50} {
		for _, s := range around[:3] {
			e.step(s, n)
		}
	}
	for n := 0; n < 8 && e.died[custody.StepLogged] == 0; n++ {
		e.dieTwice(custody.StepLine, custody.StepLogged)
	}
	for _, s := range around[4:] {
		e.step(s, 1+rand.IntN(20))
	}
	for range 10 {
		e.dieAt(fmt.Sprintf("*:%d", 1+rand.IntN(400)))
	}
	ids := v.leave()
	p.Terminate()
	for _, s := range around[:4] {
		t.Logf("died %d times at %s", e.died[s], steps[s])
		if e.died[s] == 0 {
			t.Errorf("no server died at %s", steps[s])
		}
	}
	compare(t, filepath.Dir(path), ids)
}

// dieTwice has a server die at the first step once it has served for a while, and its successor at the second.
func (e *executioner) dieTwice(first, second queue.Step) {
	at := e.await()
	e.order(fmt.Sprintf("%d:%d", first, 6000)) // an even number: the line is published
	e.p.Strike(at.server)
	at.server.WaitGone(e.t)
	e.obeyed()
	e.order(fmt.Sprintf("%d:1", second))
	next := e.await()
	if next.server.PID != at.standby.PID {
		e.t.Log("the first server has died before there was another")
		os.Remove(e.file)
		return
	}
	next.server.WaitGone(e.t)
	e.obeyed()
	if next.standby.GoneWithin(stepPatience) {
		e.died[second]++
	}
}
