package manager

import (
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// pair takes a world to where one server serves and the next stands by.
func (w *world) pair() (serves, stands *fakeProcess) {
	w.t.Helper()
	serves = w.server(1)
	serves.stands()
	serves.takesOver()
	stands = w.server(2)
	stands.stands()
	return serves, stands
}

// The very first server goes the way of a standby, and meets nobody. The next one is started
// as soon as it serves, and inherits the same journal.
func TestStandbyIsKept(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		want := []string{heritage.CustodyIn, heritage.CustodyOut, heritage.Journal}
		for _, p := range []*fakeProcess{first, second} {
			for _, name := range want {
				if !slices.Contains(p.inherited, name) {
					t.Errorf("server %d does not inherit %s: %v", p.pid, name, p.inherited)
				}
			}
		}
		w.expect("ready", first)
		w.on(func() {
			if n := w.m.status().NextServer; n == nil || n.State != "standby" || n.PID != second.pid {
				t.Errorf("status shows the next server as %+v", n)
			}
		})
		time.Sleep(time.Hour)
		w.server(2) // and no third
		if n := w.m.serverRecord().Restarts.Load(); n != 0 {
			t.Errorf("%d restarts, the standby has not served yet", n)
		}
	})
}

func TestStandbyTakesOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		tell func(first, second *fakeProcess) // the order in which the manager learns of it
	}{
		{"the manager sees the death first", func(first, second *fakeProcess) {
			first.die(killed)
			synctest.Wait()
			second.takesOver()
		}},
		{"the standby is faster than the kernel", func(first, second *fakeProcess) {
			second.takesOver()
			second.w.server(2) // the machine is left alone until the dead one is gone
			time.Sleep(90 * time.Millisecond)
			first.die(killed)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			custodyStory(t, "", func(w *world) {
				first, second := w.pair()
				s := w.recording()
				tt.tell(first, second)
				third := w.server(3)
				w.expect("ready", second)
				third.stands()
				inOrder(t, w.log.String(), `"server died"`, `"making sure server is dead"`, `"safe_kill"`, `"spawn_server"`)
				if r := w.m.serverRecord(); r.Restarts.Load() != 1 || r.Deaths.Load() != 1 {
					t.Errorf("%d restarts, %d deaths, want one of each", r.Restarts.Load(), r.Deaths.Load())
				}
				written()
				if list, err := s.List(); err != nil || len(list) != 1 || list[0].Dead.PID != first.pid || list[0].Cause != crash.Outside || list[0].Standby {
					t.Errorf("deaths recorded: %+v, %v", list, err)
				}
				w.on(func() {
					if f := w.m.causeOf(1); f != supervise.FaultOutside {
						t.Errorf("cause of the first death: %q", f)
					}
					if f := w.m.causeOf(2); f != "" {
						t.Errorf("cause of a death that has not been: %q", f)
					}
					if f := w.m.causeOf(99); f != supervise.FaultUnknown {
						t.Errorf("cause of a stranger's death: %q", f)
					}
				})
			})
		})
	}
}

// A process that is dead and cannot be buried does not keep the instance without a standby.
func TestOvertakenServerThatStays(t *testing.T) {
	custodyStory(t, "supervision: {stop_grace: 5s}\n", func(w *world) {
		first, second := w.pair()
		second.takesOver()
		time.Sleep(burialLimit)
		w.server(3).stands()
		time.Sleep(5 * time.Second)
		if synctest.Wait(); !first.dead() {
			t.Error("the overtaken server lives on")
		}
		w.server(3)
		w.expect("ready", second)
	})
}

// A storm of kills from outside, a hundred a minute for ten minutes: each is followed at once.
func TestStormOfKills(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		serves, stands := w.pair()
		for n := 3; n < 1003; n++ {
			time.Sleep(600 * time.Millisecond)
			serves.die(killed)
			synctest.Wait()
			stands.takesOver()
			serves, stands = stands, w.server(n)
			stands.stands()
		}
		if strings.Contains(w.log.String(), "started again later") {
			t.Error("the back-off has struck")
		}
	})
}

// One that crashes by itself, however well its standby covers that up, is slowed down.
func TestCrashLoopIsSlowedDown(t *testing.T) {
	custodyStory(t, "supervision: {restart_budget: 3}\n", func(w *world) {
		serves, stands := w.pair()
		for n := 3; n < 6; n++ {
			serves.die(supervise.Status{Known: true, Signal: syscall.SIGSEGV})
			synctest.Wait()
			stands.takesOver()
			serves, stands = stands, w.server(n)
			stands.stands()
		}
		serves.die(supervise.Status{Known: true, Code: 2})
		synctest.Wait()
		stands.takesOver()
		w.server(5)
		time.Sleep(2 * time.Second)
		w.server(6)
	})
}

func TestStandbyDies(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		reason := func() (why string) {
			w.on(func() { why = w.m.status().Server.Reason })
			return why
		}
		second.die(killed)
		third := w.server(3)
		if why := reason(); why != "signal 9 (killed)" {
			t.Errorf("there is no standby because of %q", why)
		}
		third.stands()
		w.expect("ready", first)
		if why := reason(); why != "" {
			t.Errorf("there is a standby, and yet none because of %q", why)
		}
		written()
		if list, err := s.List(); err != nil || len(list) != 1 || !list[0].Standby {
			t.Errorf("deaths recorded: %+v, %v", list, err)
		}
	})
}

// However often the standby is replaced, the memory by which the server is judged stays its own.
func TestStandbysLeaveTheServerItsBank(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		for n := range 2 * stats.Banks {
			second.die(killed)
			second = w.server(3 + n)
			second.stands()
			if first.generation%stats.Banks == second.generation%stats.Banks {
				t.Fatalf("standby %d has the bank of server %d", second.generation, first.generation)
			}
		}
		w.on(func() {
			if g := w.m.estate.region.Bank(first.generation).Generation(); g != first.generation {
				t.Errorf("the server's bank is that of %d", g)
			}
		})
		w.expect("ready", first)
	})
}

// A standby that hangs would be noticed when it is too late; so it is asked as cop asks the
// server, and replaced.
func TestStandbyHangs(t *testing.T) {
	custodyStory(t, "health: {interval: 2s, timeout: 1s, kill_grace: 1s}\n", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		second.refuses(opPing, errNo)
		time.Sleep(10 * time.Second)
		if synctest.Wait(); !second.dead() {
			t.Fatalf("it lives\n%s", w.log.String())
		}
		if second.status != killed {
			t.Error("it was asked by signal, which it may read when it serves")
		}
		w.server(3).stands()
		w.expect("ready", first)
		written()
		if list, err := s.List(); err != nil || len(list) != 1 || list[0].Cause != crash.Gate || !list[0].Standby {
			t.Errorf("deaths recorded: %+v, %v", list, err)
		}
	})
}

// One that must not be killed is counted anew, and not tried to be killed at every turn.
func TestStandbyHangsAndKillIsForbidden(t *testing.T) {
	custodyStory(t, "health: {interval: 2s, timeout: 1s, kill: none}\n", func(w *world) {
		_, second := w.pair()
		second.refuses(opPing, errNo)
		time.Sleep(20 * time.Second)
		if synctest.Wait(); second.dead() {
			t.Fatal("killed although the policy forbids it")
		}
		if n := w.m.serverRecord().KillsForbidden.Load(); n < 2 || n > 5 {
			t.Errorf("%d kills forbidden in ten heartbeats, of which two convict", n)
		}
	})
}

// The server dies and the standby, for whatever reason, does not act.
func TestStandbyThatDoesNotTakeOver(t *testing.T) {
	custodyStory(t, "supervision: {start_deadline: 3s}\nhealth: {kill_grace: 1s}\n", func(w *world) {
		first, second := w.pair()
		time.Sleep(time.Minute) // it may stand by for ever
		first.die(killed)
		time.Sleep(2 * time.Second)
		if synctest.Wait(); second.dead() {
			t.Fatal("given up within its deadline")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); !second.dead() {
			t.Fatal("not given up")
		}
		if second.status != killed {
			t.Error("it was asked by signal, which it may read when it serves")
		}
		third := w.server(3)
		third.stands()
		third.takesOver()
	})
}

// Both die at once: a cold start, which takes over like any standby.
func TestServerAndStandbyDie(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		var journal uint64
		w.on(func() { journal = w.m.estate.journal() })
		second.die(killed)
		first.die(killed)
		third := w.server(3)
		third.stands()
		third.takesOver()
		w.server(4)
		w.on(func() {
			if w.m.estate.journal() != journal {
				t.Error("the journal begins anew, with connections in it")
			}
		})
	})
}

func TestRestartYields(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		verdict := w.restarting(false)
		if first.wasAsked(opYield) != 1 || first.wasAsked(opRetire) != 0 {
			t.Fatalf("asked %q", first.asked)
		}
		second.takesOver()
		pending(t, verdict, "the restart, while the old server lives,")
		first.die(supervise.Status{Known: true})
		r := <-verdict
		if r.err != nil || r.pid != second.pid || r.generation != 2 || r.oldPID != first.pid || r.oldGeneration != 1 {
			t.Errorf("verdict %+v", r)
		}
		w.server(3).stands()
		if n := w.m.serverRecord().Deaths.Load(); n != 0 {
			t.Errorf("%d deaths counted", n)
		}
	})
}

// A restart that comes while the standby is on its way waits for it.
func TestRestartWaitsForTheStandby(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first := w.server(1)
		first.stands()
		first.takesOver()
		second := w.server(2)
		verdict := w.restarting(false)
		pending(t, verdict, "the restart")
		if first.wasAsked(opYield) != 0 {
			t.Fatal("asked to yield to nobody")
		}
		second.stands()
		if first.wasAsked(opYield) != 1 {
			t.Fatalf("asked %q", first.asked)
		}
		first.makesWayFor(second)
		if r := <-verdict; r.err != nil {
			t.Error(r.err)
		}
	})
}

// The standby is being exchanged when a restart comes: the next one is it.
func TestRestartWhileTheStandbyIsExchanged(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		second.deaf.Store(true)
		w.on(func() { w.m.program = &program.Program{Path: "/new", ID: "new"} })
		if second.wasAsked(opStop) != 1 || second.dead() {
			t.Fatalf("asked %q", second.asked)
		}
		verdict := w.restarting(false)
		second.die(supervise.Status{Known: true})
		third := w.server(3)
		pending(t, verdict, "the restart")
		third.stands()
		if first.wasAsked(opYield) != 1 {
			t.Fatalf("asked %q", first.asked)
		}
		first.makesWayFor(third)
		if r := <-verdict; r.err != nil || r.pid != third.pid {
			t.Errorf("verdict %+v", r)
		}
	})
}

// The standby dies when the server has been asked to yield to it.
func TestStandbyDiesInARestart(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		verdict := w.restarting(false)
		second.die(killed)
		third := w.server(3)
		pending(t, verdict, "the restart")
		first.die(supervise.Status{Known: true})
		synctest.Wait()
		third.stands()
		third.takesOver()
		if r := <-verdict; r.err != nil || r.pid != third.pid || r.oldPID != first.pid {
			t.Errorf("verdict %+v", r)
		}
	})
}

// A server that does not yield is killed, which comes to the same.
func TestServerThatDoesNotYield(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		first.deaf.Store(true)
		verdict := w.restarting(false)
		time.Sleep(yieldLimit + time.Millisecond)
		if synctest.Wait(); !first.dead() {
			t.Fatal("it lives")
		}
		second.takesOver()
		if r := <-verdict; r.err != nil {
			t.Error(r.err)
		}
	})
}

// One that cannot yield says so, and goes on.
func TestServerThatCannotYield(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, _ := w.pair()
		first.refuses(opYield, &link.RemoteError{Code: link.CodeFailed, Text: "no"})
		verdict := w.restarting(false)
		if r := <-verdict; r.err == nil || !strings.Contains(r.err.Error(), "does not yield") {
			t.Errorf("verdict %+v", r)
		}
		w.expect("ready", first)
		time.Sleep(time.Minute)
		if first.wasAsked(opYield) != 1 {
			t.Error("asked again")
		}
	})
}

// The shape of a server changes with a planned restart, and with nothing else.
func TestAnotherShape(t *testing.T) {
	custodyStory(t, "threads: 2\n", func(w *world) {
		first, second := w.pair()
		var journal uint64
		w.on(func() { journal = w.m.estate.journal() })
		w.write("threads: 3\n")
		<-w.reloading()
		second.die(killed)
		third := w.server(3)
		third.stands()
		w.on(func() {
			if w.m.estate.journal() != journal || w.m.estate.standing(w.m.cfg).Threads != 2 {
				t.Error("a standby of another shape")
			}
		})
		verdict := w.restarting(false)
		fourth := w.server(4) // the standby cannot be it
		if !third.dead() {
			t.Error("the old standby lives")
		}
		fourth.stands()
		if first.wasAsked(opRetire) != 1 || first.wasAsked(opYield) != 0 {
			t.Fatalf("asked %q", first.asked)
		}
		fourth.takesOver()
		if r := <-verdict; r.err != nil || r.oldPID != 0 {
			t.Errorf("verdict %+v", r)
		}
		w.on(func() {
			if w.m.estate.journal() == journal {
				t.Error("the journal is still the old one")
			}
		})
	})
}

// The server dies while one of another shape is on its way: the next one goes on with what it had.
func TestServerDiesBeforeAnotherShape(t *testing.T) {
	custodyStory(t, "threads: 2\n", func(w *world) {
		first, second := w.pair()
		journal := w.journal()
		w.write("threads: 3\n")
		<-w.reloading()
		verdict := w.restarting(false)
		third := w.server(3)
		third.dials("starting")
		if !second.dead() || w.journal() == journal {
			t.Fatal("no other shape")
		}
		first.die(killed)
		if r := <-verdict; r.err == nil || !strings.Contains(r.err.Error(), "has died before another could follow") {
			t.Errorf("verdict %+v", r)
		}
		fourth := w.server(4)
		if !third.dead() || w.journal() != journal {
			t.Error("the journal begins anew, with connections in it")
		}
		fourth.stands()
		fourth.takesOver()
		w.server(5)
	})
}

// And if that fails, the present server goes on with what it had.
func TestAnotherShapeFails(t *testing.T) {
	custodyStory(t, "threads: 2\n", func(w *world) {
		first, _ := w.pair()
		var journal uint64
		w.on(func() { journal = w.m.estate.journal() })
		w.write("threads: 3\n")
		<-w.reloading()
		verdict := w.restarting(false)
		w.server(3).die(supervise.Status{Known: true, Code: 70})
		if r := <-verdict; r.err == nil || !strings.Contains(r.err.Error(), "exit 70; the old server serves on") {
			t.Errorf("verdict %+v", r)
		}
		time.Sleep(2 * time.Second)
		w.server(4).stands()
		w.expect("ready", first)
		w.on(func() {
			if w.m.estate.journal() != journal {
				t.Error("the journal of the server that serves is gone")
			}
		})
	})
}

// The manager dies with the server, while another shape waits for a planned restart. What the dead server had is in the journal
// that there is.
func TestAnotherShapeAndEverybodyDies(t *testing.T) {
	custodyStory(t, "threads: 2\n", func(w *world) {
		first, second := w.pair()
		journal := w.journal()
		w.write("threads: 3\n")
		<-w.reloading()
		first.die(killed)
		w.reborn(nil)
		if w.journal() != journal {
			t.Fatal("the journal begins anew, with connections in it")
		}
		second.stands()
		second.takesOver()
		w.server(3).stands()
		time.Sleep(time.Minute)
		w.server(3)
	})
}

// The manager dies in the middle of a planned restart, and cop holds what the next server was to have. One standby after the
// other would be of that journal.
func TestAnotherShapeAndTheManagerDies(t *testing.T) {
	custodyStory(t, "threads: 2\n", func(w *world) {
		first, second := w.pair()
		w.write("threads: 3\n")
		<-w.reloading()
		w.restarting(false)
		third := w.server(3)
		if !second.dead() {
			t.Error("the old standby lives")
		}
		w.reborn(first)
		first.dials("ready")
		if first.wasAsked(opHeritage) != 1 {
			t.Errorf("asked %q", first.asked)
		}
		third.stands()
		time.Sleep(time.Minute)
		w.server(3) // nobody is better than nobody
		if third.wasAsked(opStop) != 0 {
			t.Error("the standby is told to go")
		}
		w.expect("ready", first)
	})
}

// Somebody sent TERM to the server: its standby finishes in its place.
func TestServerLeavesUnaskedWithCustody(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		first.says("draining")
		if first.wasAsked(opYield) != 1 {
			t.Fatalf("asked %q", first.asked)
		}
		first.makesWayFor(second)
		w.server(3)
	})
}

// And the manager dies before it has asked the server to yield. That would accept nothing as long as somebody takes his time.
func TestServerLeavesUnaskedAndTheManagerDies(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		w.reborn(first)
		first.leaves = true
		first.dials("draining")
		second.stands()
		if first.wasAsked(opYield) != 1 {
			t.Fatalf("asked %q", first.asked)
		}
		first.makesWayFor(second)
		w.server(3)
	})
}

// At a stop the standby goes first: it would take the server's end for a death.
func TestStopWithStandby(t *testing.T) {
	custodyStory(t, "supervision: {stop_grace: 2s}\ntimeouts: {drain: 5s}\n", func(w *world) {
		first, second := w.pair()
		second.deaf.Store(true)
		w.on(func() { w.m.stop(draining) })
		time.Sleep(time.Second)
		synctest.Wait()
		if first.wasAsked(opStop) != 0 || second.wasAsked(opStop) != 1 {
			t.Errorf("server asked %q, standby %q", first.asked, second.asked)
		}
		<-w.over
		if !first.dead() || !second.dead() {
			t.Error("not everybody is gone")
		}
	})
}

// It has taken over, which it says when it gets to it. Until then it is not asked again and again.
func TestStandbyRefusesToGo(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		second.refuses(opStop, &link.RemoteError{Code: link.CodeFailed, Text: "this server has taken over"})
		w.on(func() { w.m.program = &program.Program{Path: "/new", ID: "new"} })
		time.Sleep(time.Second)
		if n := second.wasAsked(opStop); n != 1 {
			t.Fatalf("asked to go %d times", n)
		}
		second.takesOver()
		first.die(killed)
		w.server(3).stands()
		w.expect("ready", second)
	})
}

// Standbys that dial in and belong to an earlier manager.
func TestAdoptStandby(t *testing.T) {
	stranger := func(w *world, pid int, state string) *fakeProcess {
		w.mu.Lock()
		p := w.process()
		p.pid, p.generation = pid, 7
		w.mu.Unlock()
		p.dials(state)
		return p
	}
	t.Run("one too many", func(t *testing.T) {
		custodyStory(t, "", func(w *world) {
			first, _ := w.pair()
			p := stranger(w, 900, "standby")
			if p.wasAsked(opStop) != 1 {
				t.Errorf("asked %q", p.asked)
			}
			w.expect("ready", first)
		})
	})
	t.Run("one too many that takes over", func(t *testing.T) {
		custodyStory(t, "", func(w *world) {
			first, second := w.pair()
			p := stranger(w, 900, "starting")
			first.die(killed)
			p.locks()
			p.took = true
			if err := <-p.asksTurn(); err != nil {
				t.Fatal(err)
			}
			p.says("ready")
			w.on(func() {
				if pidOf(w.m.active) != 900 {
					t.Errorf("active %d", pidOf(w.m.active))
				}
			})
			if second.wasAsked(opStop) != 1 {
				t.Errorf("the standby was asked %q", second.asked)
			}
		})
	})
	// It is told to go while it takes over: it says no, and nothing may end it after that.
	t.Run("one too many that has taken over", func(t *testing.T) {
		custodyStory(t, "supervision: {stop_grace: 2s}\n", func(w *world) {
			first, second := w.pair()
			p := stranger(w, 900, "starting")
			p.refuses(opStop, &link.RemoteError{Text: "this server has taken over"})
			p.says("standby")
			if p.wasAsked(opStop) != 1 {
				t.Fatalf("asked %q", p.asked)
			}
			adopted := w.server(3)
			first.die(killed)
			p.takesOver()
			w.server(4).stands()
			time.Sleep(time.Minute)
			w.expect("ready", p)
			if adopted.dead() || !second.dead() {
				t.Errorf("the server is dead: %v, the standby that was slower is: %v", adopted.dead(), second.dead())
			}
		})
	})
	t.Run("one too many that does not answer", func(t *testing.T) {
		custodyStory(t, "supervision: {stop_grace: 2s}\n", func(w *world) {
			first, _ := w.pair()
			p := stranger(w, 900, "starting")
			p.refuses(opStop, io.EOF)
			adopted := w.server(3)
			p.says("standby")
			time.Sleep(time.Millisecond)
			if synctest.Wait(); !adopted.dead() || adopted.status != killed {
				t.Error("it lives, or was asked by signal")
			}
			w.expect("ready", first)
			if s := w.log.String(); strings.Contains(s, `"ready_for_ms":9223372036854`) {
				t.Error(s)
			}
		})
	})
	t.Run("one that is slow to dial in", func(t *testing.T) {
		custodyStory(t, "", func(w *world) {
			first := w.server(1)
			var late *fakeProcess
			w.on(func() { // as a manager that is started anew reads it in shared memory
				w.m.estate.region.Bank(2).Begin(2, 1)
				w.m.estate.region.Bank(2).Enter(901, 5)
				w.m.meetStandbys()
				w.mu.Lock()
				late = w.servers[len(w.servers)-1]
				w.mu.Unlock()
				late.generation = 2
			})
			_ = first
			if late.pid != 901 || !late.adopted {
				t.Fatalf("met %+v", late)
			}
			time.Sleep(time.Second)
			late.stands()
			late.takesOver()
		})
	})
}

// The standby takes over and is killed before it serves, and one that the manager has told to go was faster than its "go":
// it has the lock, and clients are in its hands.
func TestDiscardedStandbyTakesOver(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		w.mu.Lock()
		third := w.process()
		third.pid, third.generation = 900, 7
		w.mu.Unlock()
		third.dials("starting")

		first.die(killed)
		second.locks()
		second.took = true
		if err := <-second.asksTurn(); err != nil {
			t.Fatal(err)
		}
		third.refuses(opStop, &link.RemoteError{Text: "this server has taken over"})
		third.says("standby")
		third.takesOver()
		second.die(killed)
		synctest.Wait()
		w.expect("ready", third)
		w.server(4).stands()
	})
}

// An earlier manager has left more servers than one that do not hold the lock, and none has dialled in. Only they know what they are.
func TestServersThatAreExpected(t *testing.T) {
	three := func(t *testing.T, f func(w *world, first, second, third *fakeProcess)) {
		custodyStory(t, "supervision: {stop_grace: 2s}\ntimeouts: {drain: 20s}\n", func(w *world) {
			first, second := w.pair()
			w.mu.Lock()
			third := w.process()
			third.generation = 3
			w.servers = append(w.servers, third)
			w.mu.Unlock()
			w.on(func() { w.m.estate.region.Bank(3).Begin(3, 1) })
			f(w, first, second, third)
		})
	}
	t.Run("two stand by", func(t *testing.T) {
		three(t, func(w *world, first, second, third *fakeProcess) {
			w.reborn(first)
			first.dials("ready")
			second.stands()
			third.stands()
			if second.wasAsked(opStop) != 1 || third.wasAsked(opStop) != 0 {
				t.Errorf("asked %q, %q", second.asked, third.asked)
			}
			time.Sleep(time.Minute)
			w.expect("ready", first)
			w.server(3)
		})
	})
	t.Run("the elder takes over", func(t *testing.T) {
		three(t, func(w *world, first, second, third *fakeProcess) {
			w.reborn(first)
			first.die(killed)
			second.dials("starting")
			second.takesOver()
			time.Sleep(time.Minute)
			w.expect("ready", second)
			if second.dead() || third.wasAsked(opStop) != 0 && !third.dead() {
				t.Error("the server was ended as one that was replaced")
			}
		})
	})
	t.Run("one does not say what it is", func(t *testing.T) {
		three(t, func(w *world, first, second, third *fakeProcess) {
			w.reborn(first)
			first.dials("ready")
			third.stands()
			time.Sleep(22*time.Second + time.Millisecond)
			if synctest.Wait(); !second.dead() || second.status != killed {
				t.Error("it lives, or was asked by signal")
			}
			w.expect("ready", first)
		})
	})
	t.Run("one finishes what it began", func(t *testing.T) {
		three(t, func(w *world, first, second, third *fakeProcess) {
			first.deaf.Store(true)
			second.locks()
			w.reborn(nil)
			first.dials("ready") // it let go of the lock, and says nothing of that
			third.stands()
			if first.wasAsked(opStop) != 0 || third.wasAsked(opStop) != 0 {
				t.Errorf("asked %q, %q", first.asked, third.asked)
			}
			second.die(killed)
			third.takesOver()
			time.Sleep(25 * time.Second)
			if synctest.Wait(); !first.dead() {
				t.Error("it finishes for ever")
			}
			w.expect("ready", third)
		})
	})
}

// The manager has died with the server, and the next one finds the standby at work: server.lock still names the dead one, which
// the kernel takes its time to do away with, and the record of the role the other already.
func TestManagerIsBornDuringATakeOver(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		dying := w.server(1)
		var heir *fakeProcess
		w.on(func() {
			for g, pid := range map[uint64]int{5: dying.pid, 6: 901} {
				b := w.m.estate.region.Bank(g)
				b.Begin(g, 1)
				b.Enter(pid, 5)
			}
			w.m.serverRecord().Enter(901, 5, 6)
			p := w.m.next.p
			w.m.next = nil
			w.m.takeServer(p)
			w.m.meetStandbys()
			w.mu.Lock()
			heir = w.servers[len(w.servers)-1]
			w.mu.Unlock()
			heir.generation = 6
		})
		heir.dials("starting")
		heir.takesOver()
		dying.die(killed)
		w.expect("ready", heir)
	})
}

// A reload reaches the standby too, so that it takes over with the configuration in force.
func TestStandbyIsReloaded(t *testing.T) {
	custodyStory(t, "queue: {limit: 10}\n", func(w *world) {
		_, second := w.pair()
		before := second.wasAsked(opReload)
		w.write("queue: {limit: 20}\n")
		<-w.reloading()
		if second.wasAsked(opReload) != before+1 {
			t.Errorf("the standby was asked %q", second.asked)
		}
	})
}

// A server that cannot have custody, for want of something in the kernel, still stands by: it
// is started, and gets the word to go when the other is dead.
func TestStandbyWithoutCustody(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		second := w.server(2)
		second.dials("starting")
		turn := second.asksTurn()
		pending(t, turn, "the turn")
		time.Sleep(time.Hour)
		pending(t, turn, "the turn")
		first.die(killed)
		if err := <-turn; err != nil {
			t.Fatal(err)
		}
		second.locks()
		second.says("ready")
		w.expect("ready", second)
		w.server(3)
	})
}
