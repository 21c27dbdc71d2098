package manager

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

func TestFirstServer(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		w.expect("starting", s)
		want := []string{heritage.Cache, heritage.ListenerPrefix + "127.0.0.1:0", heritage.QueueIn, heritage.QueueOut, heritage.Stats}
		if !slices.Equal(s.inherited, want) {
			t.Errorf("server inherits %v, want %v", s.inherited, want)
		}
		s.serves()
		if r := w.m.serverRecord(); r.Restarts.Load() != 0 || r.Deaths.Load() != 0 {
			t.Errorf("%d restarts, %d deaths of a first server", r.Restarts.Load(), r.Deaths.Load())
		}
	})
}

// The seed's second scene: the server dies, the manager notices, makes sure of it, and
// starts the next at once.
func TestServerDies(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		began := time.Now()
		first.die(killed)
		second := w.server(2)
		if time.Since(began) != 0 {
			t.Errorf("replaced after %v", time.Since(began))
		}
		if second.generation != 2 {
			t.Errorf("generation %d, want 2", second.generation)
		}
		inOrder(t, w.log.String(), `"server died"`, `"making sure server is dead"`, `"safe_kill"`, `"spawn_server"`)
		second.serves()
		if r := w.m.serverRecord(); r.Restarts.Load() != 1 || r.Deaths.Load() != 1 {
			t.Errorf("%d restarts, %d deaths, want one of each", r.Restarts.Load(), r.Deaths.Load())
		}
	})
}

func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, p := range parts {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			t.Fatalf("no %s, or not in its place, in\n%s", p, text)
		}
		rest = after
	}
}

// 1, 2, 4, 8 s and half as much again of jitter at most; status says why and when.
func TestServerDiesAtStart(t *testing.T) {
	story(t, "", func(w *world) {
		for n, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
			w.server(n + 1).die(killed)
			w.expect("stopped", nil)
			var s control.Status
			w.on(func() { s = w.m.status() })
			if r := s.Server.Retry; r == nil || r.Attempt != n+1 || !strings.Contains(r.LastExit, "signal 9") {
				t.Fatalf("status says %+v", r)
			}
			if got := time.Duration(s.Server.Retry.DelaySeconds * float64(time.Second)); got < delay || got > delay*3/2+time.Millisecond {
				t.Errorf("delay %d is %v, want %v to %v", n+1, got, delay, delay*3/2)
			}
			time.Sleep(delay - time.Millisecond)
			w.server(n + 1) // not yet
			time.Sleep(delay)
		}
	})
}

// The exit code says: do not try again.
func TestServerThatMustNotBeStartedAgain(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).die(supervise.Status{Known: true, Code: int(exitcode.Config)})
		time.Sleep(time.Hour)
		w.server(1)
		var s control.Status
		w.on(func() { s = w.m.status() })
		if len(s.Alarms) != 1 || !strings.Contains(s.Alarms[0], "exit 78") {
			t.Errorf("alarms %q", s.Alarms)
		}
		w.on(func() { w.m.reload(func(reloaded) {}) })
		w.server(2).serves()
		w.on(func() { s = w.m.status() })
		if len(s.Alarms) != 0 {
			t.Errorf("alarms after a reload: %q", s.Alarms)
		}
	})
}

// Cop may have somebody who waits for the instance. It is told as soon as it can be, and only while nothing serves.
func TestCopIsToldOfARefusedServer(t *testing.T) {
	refused := supervise.Status{Known: true, Code: int(exitcode.Config)}
	for name, dead := range map[string]func(w *world) *fakeProcess{
		"cop is there": func(w *world) *fakeProcess {
			c := w.copDials(51)
			w.server(1).die(refused)
			return c
		},
		"cop dials in later": func(w *world) *fakeProcess {
			w.server(1).die(refused)
			synctest.Wait()
			return w.copDials(51)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, "", func(w *world) {
				c := dead(w)
				if n := c.wasAsked(opRefused); n != 1 {
					t.Fatalf("told %d times, want once", n)
				}
				w.on(func() {
					if r := w.m.refusal; r.Code != 78 || r.Reason != "trafficd server: exit 78" {
						t.Errorf("told %+v", *r)
					}
					w.m.reload(func(reloaded) {})
				})
				w.server(2).serves()
				if n := w.copDials(52).wasAsked(opRefused); n != 0 {
					t.Errorf("the next cop was told %d times of what is no more", n)
				}
			})
		})
	}
	t.Run("a server serves", func(t *testing.T) {
		custodyStory(t, "", func(w *world) {
			c := w.copDials(51)
			w.pair()
			w.server(2).die(refused)
			if n := c.wasAsked(opRefused); n != 0 {
				t.Errorf("told %d times although a server serves", n)
			}
		})
	})
}

func TestStartDeadline(t *testing.T) {
	story(t, "supervision: {start_deadline: 3s}\nhealth: {kill_grace: 1s}\n", func(w *world) {
		s := w.server(1)
		s.deaf.Store(true)
		time.Sleep(3 * time.Second)
		if synctest.Wait(); s.dead() {
			t.Fatal("killed within its start deadline")
		}
		time.Sleep(1100 * time.Millisecond)
		if synctest.Wait(); !s.dead() {
			t.Fatalf("not killed after its start deadline\n%s", w.log.String())
		}
		time.Sleep(2 * time.Second)
		w.server(2).serves()
	})
}

func TestPolicyForbidsAKill(t *testing.T) {
	story(t, "supervision: {start_deadline: 3s}\nhealth: {kill: none}\n", func(w *world) {
		s := w.server(1)
		time.Sleep(10 * time.Second)
		if synctest.Wait(); s.dead() {
			t.Fatal("killed although the policy forbids it")
		}
		if n := w.m.serverRecord().KillsForbidden.Load(); n != 3 {
			t.Errorf("%d kills forbidden in three deadlines", n)
		}
		s.serves()
	})
}

// restarting asks for a restart; what comes of it is on the channel.
func (w *world) restarting(now bool) <-chan restarts {
	answer := make(chan restarts, 1)
	w.on(func() { w.m.restart(now, answer) })
	synctest.Wait()
	return answer
}

func pending[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	synctest.Wait()
	select {
	case v := <-c:
		t.Fatalf("%s is answered too early: %v", what, v)
	default:
	}
}

func TestPlannedRestart(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		verdict := w.restarting(false)
		second := w.server(2)
		w.expect("ready", first) // until the second has said that it is ready
		second.dials("starting")
		if n := first.wasAsked(opRetire); n != 0 {
			t.Fatal("the old server was retired before the new one was ready")
		}
		turn := second.asksTurn()
		if n := first.wasAsked(opRetire); n != 1 {
			t.Fatalf("the old server was asked %d times to retire", n)
		}
		if err := <-turn; err != nil {
			t.Fatal(err)
		}
		pending(t, verdict, "the restart")
		second.says("ready")
		w.expect("ready", second)
		if r := <-verdict; r.err != nil || r.pid != second.pid || r.generation != 2 {
			t.Errorf("verdict %+v", r)
		}
		first.die(supervise.Status{Known: true})
		w.server(2) // nobody is started for one that was asked to go
		if n := w.m.serverRecord().Deaths.Load(); n != 0 {
			t.Errorf("%d deaths counted", n)
		}
	})
}

func TestPlannedRestartFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(first, second *fakeProcess)
		want string
	}{
		{"the new server dies", func(_, second *fakeProcess) {
			second.die(supervise.Status{Known: true, Code: 70})
		}, "exit 70; the old server serves on"},
		{"the old one does not let go", func(first, second *fakeProcess) {
			first.refuses(opRetire, errNo)
			second.dials("starting")
			if err := <-second.asksTurn(); err == nil {
				panic("the new server has the word to go")
			}
			second.die(supervise.Status{Known: true, Code: 1})
		}, "does not let go: no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			story(t, "", func(w *world) {
				first := w.server(1)
				first.serves()
				verdict := w.restarting(false)
				second := w.server(2)
				tt.fail(first, second)
				if r := <-verdict; r.err == nil || !strings.Contains(r.err.Error(), tt.want) {
					t.Errorf("verdict %v, want %q in it", r.err, tt.want)
				}
				w.expect("ready", first)
				time.Sleep(time.Minute)
				w.server(2) // what was planned is not tried again
			})
		})
	}
}

// Between a new server's "ready" and its turn the old one dies: the new one need not wait.
func TestOldServerDiesInTheHandOver(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		w.on(func() { w.m.disconnected(first, link.ErrClosed) })
		verdict := w.restarting(false)
		second := w.server(2)
		second.dials("starting")
		turn := second.asksTurn()
		pending(t, turn, "the turn")
		first.die(killed)
		if err := <-turn; err != nil {
			t.Fatal(err)
		}
		second.says("ready")
		if r := <-verdict; r.err != nil || r.pid != second.pid {
			t.Errorf("verdict %+v", r)
		}
		w.server(2)
	})
}

func TestRestartNow(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		verdict := w.restarting(true)
		if synctest.Wait(); !first.dead() {
			t.Fatal("the old server lives")
		}
		w.server(2).serves()
		if r := <-verdict; r.err != nil {
			t.Error(r.err)
		}
	})
}

// Somebody sent TERM to the server: the next one is started while it finishes.
func TestServerLeavesUnasked(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		first.says("draining")
		second := w.server(2)
		second.dials("starting")
		if err := <-second.asksTurn(); err != nil {
			t.Fatal(err)
		}
		second.says("ready")
		w.expect("ready", second)
		first.die(supervise.Status{Known: true})
		w.server(2)
	})
}

// The operator drains: that is no reason to start another server.
func TestDrain(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		s.serves()
		answer := make(chan error, 1)
		w.on(func() { w.m.drain(false, answer) })
		s.says("draining")
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		w.expect("draining", s)
		time.Sleep(time.Minute)
		w.server(1)
		w.on(func() { w.m.drain(true, answer) })
		s.says("ready")
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		w.expect("ready", s)
	})
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name  string
		phase phase
		after time.Duration // until a deaf server is gone
	}{
		{"with drain", draining, 7 * time.Second},
		{"now", stopping, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			story(t, "supervision: {stop_grace: 2s}\ntimeouts: {drain: 5s}\n", func(w *world) {
				s := w.server(1)
				s.deaf.Store(true)
				s.serves()
				began := time.Now()
				w.on(func() { w.m.stop(tt.phase) })
				<-w.over
				if got := time.Since(began); got != tt.after || !s.dead() {
					t.Errorf("ended after %v with a server that is dead: %v; want %v", got, s.dead(), tt.after)
				}
				if s.wasAsked(opStop) != 1 {
					t.Error("the server was not asked over the link")
				}
			})
		})
	}
}

func TestStopIsHurried(t *testing.T) {
	story(t, "supervision: {stop_grace: 2s}\ntimeouts: {drain: 1h}\n", func(w *world) {
		s := w.server(1)
		s.deaf.Store(true)
		s.serves()
		began := time.Now()
		w.on(func() { w.m.stop(draining) })
		time.Sleep(3 * time.Second)
		w.on(func() { w.m.stop(stopping) })
		<-w.over
		if got := time.Since(began); got != 5*time.Second {
			t.Errorf("ended after %v, want 5s", got)
		}
	})
}

// A manager is replaced: the server does not notice.
func TestLeave(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		s.serves()
		w.on(func() {
			if err := w.m.leave(); err == nil {
				t.Error("left without a cop to start the next manager")
			}
		})
		c := w.copDials(50)
		if c.wasAsked(opDeposit) != 1 || c.wasAsked(opConfig) != 1 {
			t.Errorf("cop was asked %q", c.asked)
		}
		w.on(func() {
			if err := w.m.leave(); err != nil {
				t.Error(err)
			}
		})
		<-w.over
		if s.dead() || s.wasAsked(opStop) != 0 {
			t.Error("the server was stopped")
		}
	})
}

// Servers that dial in and belong to an earlier manager.
func TestAdopt(t *testing.T) {
	stranger := func(w *world, pid int, state string) *fakeProcess {
		w.mu.Lock()
		p := w.process()
		p.pid, p.generation = pid, 7
		w.mu.Unlock()
		p.dials(state)
		return p
	}
	t.Run("one too many that starts", func(t *testing.T) {
		story(t, "", func(w *world) {
			w.server(1).serves()
			p := stranger(w, 900, "starting")
			if err := <-p.asksTurn(); !errors.Is(err, errNotWanted) {
				t.Errorf("turn: %v", err)
			}
		})
	})
	t.Run("one that was replaced", func(t *testing.T) {
		story(t, "", func(w *world) {
			s := w.server(1)
			stranger(w, 900, "ready") // it says so, but it has not the lock
			w.on(func() {
				if w.m.active != nil || len(w.m.old) != 1 {
					t.Errorf("active %d, %d old", pidOf(w.m.active), len(w.m.old))
				}
			})
			s.serves()
		})
	})
	t.Run("one that overtakes ours", func(t *testing.T) {
		story(t, "", func(w *world) {
			ours := w.server(1)
			ours.dials("starting")
			p := stranger(w, 900, "starting")
			p.locks() // its manager had given it the word to go
			p.says("ready")
			w.on(func() {
				if pidOf(w.m.active) != 900 || w.m.last < 7 {
					t.Errorf("active %d, last generation %d", pidOf(w.m.active), w.m.last)
				}
			})
			if err := <-ours.asksTurn(); !errors.Is(err, errNotWanted) {
				t.Errorf("turn of ours: %v", err)
			}
		})
	})
}

func TestCopIsReplaced(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).serves()
		w.copDials(50)
		first := w.cops[0]
		w.mu.Lock()
		w.cop = 0
		w.mu.Unlock()
		began := time.Now()
		first.die(killed)
		synctest.Wait()
		if len(w.cops) != 2 || time.Since(began) != 0 {
			t.Fatalf("%d cops after %v\n%s", len(w.cops), time.Since(began), w.log.String())
		}
		inOrder(t, w.log.String(), `"cop died"`, `"spawn_cop"`)
		if r := w.m.estate.region.Role(stats.RoleCop); r.Deaths.Load() != 1 || r.Restarts.Load() != 1 {
			t.Errorf("%d deaths, %d restarts", r.Deaths.Load(), r.Restarts.Load())
		}
	})
}

// Two cops are worse than none for a moment: whoever holds the lock is waited for.
func TestNoSecondCop(t *testing.T) {
	story(t, "", func(w *world) {
		w.copDials(50)
		w.cops[0].die(killed)
		time.Sleep(10 * time.Second) // somebody else holds the lock already
		synctest.Wait()
		w.on(func() {
			if strings.Contains(w.log.String(), "spawn_cop") {
				t.Error("a second cop was started")
			}
		})
	})
}

// A cop that fails at its start is not started again and again at full speed.
func TestCopThatDoesNotStay(t *testing.T) {
	story(t, "", func(w *world) {
		w.copDials(50)
		for range 20 {
			w.mu.Lock()
			w.cop = 0
			last := w.cops[len(w.cops)-1]
			w.mu.Unlock()
			last.die(supervise.Status{Known: true, Code: 1})
			time.Sleep(time.Second)
		}
		if n := strings.Count(w.log.String(), "spawn_cop"); n < 2 || n > 6 {
			t.Errorf("%d cops in 20 s, want a handful", n)
		}
	})
}

// reloading asks for a reload.
func (w *world) reloading() <-chan reloaded {
	answer := make(chan reloaded, 1)
	w.on(func() { w.m.reload(func(r reloaded) { answer <- r }) })
	synctest.Wait()
	return answer
}

func TestReload(t *testing.T) {
	story(t, "queue: {limit: 10}\n", func(w *world) {
		s := w.server(1)
		s.serves()
		w.write("queue: {limit: 20}\nthreads: 3\n")
		r := <-w.reloading()
		if r.err != nil || r.verdict.Generation != 2 || len(r.verdict.Changes) != 2 {
			t.Fatalf("verdict %+v, %v", r.verdict, r.err)
		}
		if s.wasAsked(opReload) == 0 {
			t.Error("the server was not told")
		}
		w.on(func() {
			if w.m.cfg.Queue.Limit != 20 || w.m.pump.status().limit != 20 {
				t.Errorf("limit %d, in the queue %d", w.m.cfg.Queue.Limit, w.m.pump.status().limit)
			}
			if len(w.saved) != 1 || w.saved[0].Generation != 2 {
				t.Errorf("saved %v", w.saved)
			}
		})
	})
}

func TestReloadIsRefused(t *testing.T) {
	story(t, "queue: {limit: 10}\n", func(w *world) {
		s := w.server(1)
		s.serves()
		before := s.wasAsked(opReload)
		w.write("queu: {limit: 20}\n")
		r := <-w.reloading()
		var e *control.Error
		if !errors.As(r.err, &e) || e.Exit != exitcode.Config || len(e.Problems) != 1 || !strings.Contains(e.Problems[0], "trafficd.yaml:3:1: unknown key") {
			t.Fatalf("verdict %v", r.err)
		}
		w.on(func() {
			if w.m.cfg.Queue.Limit != 10 || w.m.cfg.Generation != 1 || len(w.saved) != 0 {
				t.Errorf("limit %d, generation %d, saved %v", w.m.cfg.Queue.Limit, w.m.cfg.Generation, w.saved)
			}
			if len(w.m.alarms()) != 1 {
				t.Errorf("alarms %q", w.m.alarms())
			}
		})
		if s.wasAsked(opReload) != before {
			t.Error("the server was bothered")
		}
		// The server can refuse what the manager finds good.
		w.write("queue: {limit: 20}\n")
		s.refuses(opReload, errNo)
		if r := <-w.reloading(); r.err == nil {
			t.Error("published what the server refuses")
		}
		w.on(func() {
			if w.m.cfg.Queue.Limit != 10 {
				t.Error("the manager has what the server refuses")
			}
		})
	})
}

// TestReloadAndTheDisk: another path for the cache on disk must be one that can be made; a disk that has gone keeps nobody from changing
// the rest.
func TestReloadAndTheDisk(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string {
		return "queue: {limit: 20}\ncache: {disk_path: " + filepath.Join(dir, name, "store") + "}\n"
	}
	story(t, path("disk"), func(w *world) {
		w.server(1).serves()
		if err := os.WriteFile(filepath.Join(dir, "disk"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.write(path("disk") + "threads: 3\n")
		if r := <-w.reloading(); r.err != nil {
			t.Errorf("with its disk gone: %v", r.err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.write(path("file"))
		r := <-w.reloading()
		var e *control.Error
		if !errors.As(r.err, &e) || e.Exit != exitcode.Config || len(e.Problems) != 1 || !strings.Contains(e.Problems[0], "trafficd.yaml:4:20: cache.disk_path: cannot make") {
			t.Errorf("verdict %v", r.err)
		}
		w.write(path("other"))
		if r := <-w.reloading(); r.err != nil {
			t.Errorf("a path that can be made: %v", r.err)
		}
	})
}

func TestNeedsRestart(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		s.dials("starting")
		w.on(func() { // as by its "config"
			u := w.m.byLine(s)
			u.born, u.cfg = w.m.cfg, w.m.cfg
		})
		s.serves()
		w.write("threads: 2\nautoconf: {pac_file: /tmp/x}\n")
		w.mu.Lock()
		w.config = strings.Replace(w.config, "autoconf: {pac_file: /tmp/x}\n", "log: {format: json}\n", 1)
		w.mu.Unlock()
		<-w.reloading()
		var needs []string
		w.on(func() { needs = w.m.status().Config.NeedsRestart })
		slices.Sort(needs)
		if !slices.Equal(needs, []string{"log.format", "threads"}) {
			t.Errorf("needs restart: %q", needs)
		}
	})
}

// A deposit that fails is made again.
func TestDepositIsRepeated(t *testing.T) {
	story(t, "", func(w *world) {
		w.mu.Lock()
		c := w.process()
		c.pid = 50
		w.mu.Unlock()
		c.hello = link.Hello{Role: roleCop, PID: 50}
		c.refuses(opDeposit, errNo)
		w.on(func() { w.m.connected(c) })
		if c.wasAsked(opDeposit) != 1 {
			t.Fatalf("asked %q", c.asked)
		}
		c.refuses(opDeposit, nil)
		time.Sleep(depositRetry + tick)
		if c.wasAsked(opDeposit) != 2 {
			t.Fatalf("asked %q", c.asked)
		}
		time.Sleep(time.Minute)
		if c.wasAsked(opDeposit) != 2 {
			t.Error("deposited although nothing has changed")
		}
	})
}

// The progress counter moves without anything happening: cop reads it.
func TestProgress(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).serves()
		r := w.m.estate.region.Role(stats.RoleManager)
		for range 10 {
			before := r.Progress.Load()
			time.Sleep(time.Second)
			if synctest.Wait(); r.Progress.Load() == before {
				t.Fatal("the loop has not turned for a second")
			}
		}
	})
}

func TestConfigurationIsDecodedByTheServer(t *testing.T) {
	story(t, "threads: 2\n", func(w *world) {
		reply, err := w.m.onConfig(context.Background(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c := reply.Body.(*config.Config); c.Threads != 2 || c.Generation != 1 {
			t.Errorf("got %d threads, generation %d", c.Threads, c.Generation)
		}
	})
}
