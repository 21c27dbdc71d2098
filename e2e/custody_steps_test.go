//go:build killpoints

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
	"trafficd/queue"
	"trafficd/roles/demo/witness"
	"trafficd/roles/server/custody"
)

// steps are the places where a server is made to die, by their number: those of package queue,
// which are its own affair and have no names elsewhere, and those of the server.
var steps = map[queue.Step]string{
	0: "claim", 1: "keeper marked", 2: "everything received", 3: "descriptor received", 4: "slot opening", 5: "slot open",
	6: "word set", 7: "slot closed",
	custody.StepHead: "head", custody.StepBody: "body", custody.StepInterim: "interim", custody.StepReply: "reply",
	custody.StepChunk: "chunk", custody.StepNext: "next", custody.StepLinger: "linger", custody.StepSent: "sent",
	custody.StepReceived: "received", custody.StepRequest: "request", custody.StepUpload: "upload",
	custody.StepResponse: "response", custody.StepOrigin: "origin's page", custody.StepTaken: "taken",
	custody.StepFetch: "fetch", custody.StepOpened: "fetch opened", custody.StepWindow: "window", custody.StepEnded: "fetch ended",
	custody.StepTunnel: "tunnel", custody.StepFlow: "flow", custody.StepMoved: "moved", custody.StepBlame: "blame", custody.StepAdopted: "adopted",
	custody.StepServing: "serving",
	custody.StepLine:    "line", custody.StepBatch: "batch", custody.StepAppended: "appended", custody.StepLogged: "logged",
}

// once are the steps that a server passes only once.
var once = []queue.Step{0, 1, 2, custody.StepServing}

// An executioner makes servers die at steps of their own.
type executioner struct {
	t    *testing.T
	p    *harness.Trafficd
	file string
	died map[queue.Step]int
	held int // servers that were still alive when their time was over
}

// stepPatience is how long a server may take to come to its step. Those that come by every
// few seconds only are tried more often.
const stepPatience = 3 * time.Second

// dieAt kills the server, and has the next one die by itself at the step. It reports whether that one came
// to it.
func (e *executioner) dieAt(spec string) bool {
	at := e.await()
	e.order(spec)
	e.p.Strike(at.server)
	at.server.WaitGone(e.t)
	e.obeyed()
	// The standby of that moment has read it: nobody else could take over.
	died := at.standby.GoneWithin(stepPatience)
	if !died {
		e.held++
	}
	e.t.Logf("%s server %d, to die at %s: %v", time.Now().Format("15:04:05.000"), at.standby.PID, spec, died)
	return died
}

// order says where the next server is to die that takes over.
func (e *executioner) order(spec string) {
	if err := os.WriteFile(e.file+".new", []byte(spec), 0o600); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Rename(e.file+".new", e.file); err != nil {
		e.t.Fatal(err)
	}
}

// obeyed waits until it has read that.
func (e *executioner) obeyed() {
	harness.WaitFor(e.t, "a server that has read where to die", func() bool {
		_, err := os.Stat(e.file)
		return os.IsNotExist(err)
	})
}

// await waits until there is a server with a keeper, and a standby.
func (e *executioner) await() scene {
	c := campaign{t: e.t, p: e.p}
	return c.await(killing(0, harness.Server))
}

func (e *executioner) step(s queue.Step, n int) {
	if e.dieAt(fmt.Sprintf("%d:%d", s, n)) {
		e.died[s]++
	}
}

// "A kill at every step of the journal protocol and of adoption, each with byte-exact clients of
// all kinds." The server that takes over dies by its own hand, between two stores, at the first
// pass of the step and at later ones; and once more at steps that nobody chose.
func TestKilledAtEveryStep(t *testing.T) {
	for s := range queue.Step(custody.Steps) {
		if (s < 8 || s >= queue.UserStep) && steps[s] == "" {
			t.Errorf("step %d has no name in this test", s)
		}
	}
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	file := filepath.Join(t.TempDir(), "kill")
	mix := crowd()
	mix[witness.Plain], mix[witness.Expect] = 3, 3 // interim responses are rare
	stage := harness.SetStage(t, mix, witness.Options{Seed: seed, TunnelTime: time.Second}, harness.Mortal(t, file), harness.Args("--threads", "2"),
		harness.Set("access_log.path", filepath.Join(t.TempDir(), "access.log")))
	e := &executioner{t: t, p: stage.Trafficd, file: file, died: map[queue.Step]int{}}
	stage.Play(func() {
		defer reluctant(t, stage.Addr)()
		for _, n := range []int{1, 2, 3, 7} {
			for _, s := range slices.Sorted(maps.Keys(steps)) {
				if n == 1 || !slices.Contains(once, s) {
					e.step(s, n)
				}
			}
			for range 8 {
				e.dieAt(fmt.Sprintf("*:%d", 1+rng.IntN(400)))
			}
		}
		for range 5 {
			for _, s := range e.missing() {
				if s == custody.StepLogged { // only of a request whose server died right behind its line
					e.dieTwice(custody.StepLine, s)
					continue
				}
				e.step(s, 1)
			}
		}
		// A connection that is accepted and has no slot yet: one in some of those that get one.
		for n := 0; n < 60 && len(stage.Adopted().Missing("accepted")) > 0; n++ {
			e.step(4, 1+n%5)
		}
	})
	stage.Terminate()
	for _, s := range slices.Sorted(maps.Keys(steps)) {
		t.Logf("died %2d times at step %2d, %s", e.died[s], s, steps[s])
	}
	t.Logf("%d servers did not come to their step in time", e.held)
	adopted := stage.Adopted()
	for _, state := range adopted.States() {
		t.Logf("adopted: %7d %s", adopted[state], state)
	}
	if missing := adopted.Missing("idle", "head", "waiting", "upload", "reply", "tunnel", "accepted"); len(missing) > 0 {
		t.Errorf("no connection was ever adopted in these states: %s", strings.Join(missing, ", "))
	}
	if missing := e.missing(); len(missing) > 0 {
		var names []string
		for _, s := range missing {
			names = append(names, steps[s])
		}
		t.Errorf("no server ever died at: %s", strings.Join(names, ", "))
	}
}

func (e *executioner) missing() []queue.Step {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(steps)), func(s queue.Step) bool { return e.died[s] > 0 })
}

// An origin breaks the connection off while its server is dead, and the next server dies as it drops that connection. The one
// after it knows still that the POST was sent, and does not send it again.
func TestKilledAtTheStepThatForgetsAPost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kill")
	dead, news := harness.NewGate(), make(chan string, 4)
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		news <- e.ReadBody()
		dead.Wait(e)
		e.Break()
		news <- "broken off"
	})
	p := harness.Start(t, harness.Map("/", o), harness.Mortal(t, file))
	e := &executioner{t: t, p: p, file: file}
	at := e.await()
	c := p.Client().Dial()
	c.Send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
	<-news // it has come
	at.standby.Signal(t, unix.SIGSTOP)
	e.order("7:1") // slot closed
	p.Strike(at.server)
	at.server.WaitGone(t)
	dead.Open()
	<-news // the connection is broken off
	at.standby.Signal(t, unix.SIGCONT)
	if !at.standby.GoneWithin(harness.Patience) {
		t.Fatal("the server that took over has not closed a slot")
	}
	c.Read("POST").ExpectStatus(502)
	o.ExpectCount("/once", 1)
}

// An origin answers a POST with what cannot be passed on, and the server dies as it closes that connection. The next one knows
// still that the POST was sent, and does not send it again.
func TestKilledAtTheStepThatEndsAPost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kill")
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: another\r\n\r\n")
		e.Await(nil)
	})
	p := harness.Start(t, harness.Map("/", o), harness.Mortal(t, file))
	e := &executioner{t: t, p: p, file: file}
	at := e.await()
	e.order("7:1") // slot closed
	p.Strike(at.server)
	e.obeyed()
	c := p.Client().Dial()
	c.Send("POST /once HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: one\r\n\r\n")
	c.Read("POST").ExpectStatus(502)
	if !at.standby.GoneWithin(harness.Patience) {
		t.Fatal("the server has not closed a slot")
	}
	o.ExpectCount("/once", 1)
}
