package cop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// fake is a process that does what the story says.
type fake struct {
	pid         int
	child       bool
	ready, done chan struct{}
	status      supervise.Status
	refusal     error
	stubborn    bool // withstands every signal

	mu    sync.Mutex
	terms []supervise.Escalation
	dead  bool
	w     *world
	role  supervise.Role
}

func (f *fake) PID() int                 { return f.pid }
func (f *fake) Ready() <-chan struct{}   { return f.ready }
func (f *fake) Done() <-chan struct{}    { return f.done }
func (f *fake) Refusal() error           { return f.refusal }
func (f *fake) Status() supervise.Status { return f.status }
func (f *fake) Release()                 {}
func (f *fake) Target() supervise.Target {
	return supervise.Target{Role: f.role, Known: supervise.Identity{PID: f.pid}, Child: f.child, Terminate: f.terminate}
}

func (f *fake) terminate(ctx context.Context, e supervise.Escalation) error {
	f.mu.Lock()
	f.terms = append(f.terms, e)
	f.mu.Unlock()
	if f.stubborn {
		select {
		case <-f.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.die(supervise.Status{Known: true, Signal: syscall.SIGKILL})
	return nil
}

func (f *fake) signals() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.terms)
}

// die ends the process and frees its lock, as the kernel does.
func (f *fake) die(s supervise.Status) {
	f.w.mu.Lock()
	if f.w.holders[f.role] == f {
		delete(f.w.holders, f.role)
	}
	f.w.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dead {
		f.dead, f.status = true, s
		close(f.done)
	}
}

// world is everything around one cop. The test goroutine is the loop: it calls turn,
// and runs what the goroutines post.
type world struct {
	t   *testing.T
	c   *cop
	dir string

	mu      sync.Mutex
	now     time.Time
	holders map[supervise.Role]*fake
	probes  map[supervise.Role]error
	log     bytes.Buffer

	// Used by the loop only.
	pids     int
	started  []*fake
	startErr error
	given    []string // heritage of the last manager
	meetErr  error
	told     []string
	said     []string
	readies  int
	loadErr  error
	next     *config.Config
	region   *stats.Region
	ran      bool // the test let the loop itself run
	asked    []string
	then     func(error) // answers the last question
	became   *program.Program
	report   program.Report
	execErr  error
	programs []*program.Program // of the managers that were started
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

type option func(*world, *birth)

func withConfig(f func(*config.Config)) option { return func(_ *world, b *birth) { f(b.cfg) } }
func succeeding(_ *world, b *birth)            { b.fresh = false }

// withStats makes the shared memory that a manager would have deposited.
func withStats(w *world, b *birth) {
	r, err := stats.Create()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Close() })
	if err := b.heritage.PutDup(heritage.Stats, int(r.File().Fd())); err != nil {
		w.t.Fatal(err)
	}
	w.region = r
}

func newWorld(t *testing.T, options ...option) *world {
	w := &world{
		t: t, now: time.Unix(1e9, 0), pids: 100,
		dir:     t.TempDir(), // goes after cop's goroutines, which write to it
		holders: map[supervise.Role]*fake{}, probes: map[supervise.Role]error{},
	}
	b := birth{
		cfg: config.Default(), log: zerolog.New(w), heritage: heritage.New(), fresh: true,
		self: proc.Identity{PID: 1}, generation: 1, program: &program.Program{ID: "old"},
	}
	for _, o := range options {
		o(w, &b)
	}
	w.c = newCop(t.Context(), b, env{
		now: w.clock,
		holder: func(r supervise.Role) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			if p := w.holders[r]; p != nil {
				return p.pid
			}
			return 0
		},
		meet: func(r supervise.Role) (process, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.meetErr != nil {
				return nil, w.meetErr
			}
			if p := w.holders[r]; p != nil {
				return p, nil
			}
			return nil, nil
		},
		open: func(path, id string) (*program.Program, error) { return &program.Program{Path: path, ID: id}, nil },
		ask:  func(op string, _ any, then func(error)) { w.asked = append(w.asked, op); w.then = then },
		exec: func(x *program.Program, g uint64, _ *heritage.Set, r program.Report) error {
			w.became, w.report = x, r
			return errors.Join(errors.New("this process goes on"), w.execErr)
		},
		start: func(x *program.Program, g uint64, h *heritage.Set) (process, error) {
			w.programs = append(w.programs, x)
			w.given = h.Names()
			if w.startErr != nil {
				return nil, w.startErr
			}
			p := w.process(supervise.Manager)
			p.child = true
			w.started = append(w.started, p)
			return p, nil
		},
		probe: func(_ context.Context, r supervise.Role) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.probes[r]
		},
		gate: supervise.GateEnv{
			Holder: func(r supervise.Role) (int, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if p := w.holders[r]; p != nil {
					return p.pid, nil
				}
				return 0, nil
			},
			Inspect: func(pid int) (supervise.Identity, error) { return supervise.Identity{PID: pid}, nil },
		},
		load:   func() (*config.Config, error) { return w.next, w.loadErr },
		tell:   func(op string, _ any) bool { w.told = append(w.told, op); return true },
		ready:  func() { w.readies++ },
		alone:  func() bool { return true },
		say:    func(s string) { w.said = append(w.said, s) },
		beat:   func(time.Time) {},
		tune:   func(*config.Config) {},
		rotate: func() error { return nil },
	})
	t.Cleanup(func() {
		w.c.rest()
		if !w.ran {
			close(w.c.over)
		}
		w.c.wg.Wait()
		w.c.heritage.Close()
	})
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// process makes a process that holds nothing yet.
func (w *world) process(r supervise.Role) *fake {
	w.pids++
	return &fake{pid: w.pids, role: r, w: w, ready: make(chan struct{}), done: make(chan struct{})}
}

// holds makes a process that holds its role's lock, and if there are statistics, says
// there that it is in state s.
func (w *world) holds(r supervise.Role, s stats.State) *fake {
	p := w.process(r)
	w.hold(p, s)
	return p
}

func (w *world) hold(p *fake, s stats.State) {
	w.mu.Lock()
	w.holders[p.role] = p
	w.mu.Unlock()
	if w.region != nil {
		o := w.region.Role(roleID(p.role))
		g := o.Generation.Load() + 1
		o.Enter(p.pid, 0, g)
		o.State.Store(uint64(s))
		if p.role == supervise.Server {
			w.region.Bank(g).Begin(g, 2)
		}
	}
}

// until lets cop work until ok. Time stands still.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	w.c.turn()
	deadline := time.After(10 * time.Second)
	look := time.NewTicker(time.Millisecond) // what a goroutine of cop does to a fake is no event
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
			continue
		case f := <-w.c.events:
			f()
		case <-deadline:
			w.t.Fatalf("%s: did not happen; log:\n%s", what, w.log.String())
		}
		w.c.turn()
	}
}

// settle lets cop look again now, and finish the probes it has started.
func (w *world) settle() {
	w.t.Helper()
	w.until("probes end", func() bool { return !w.c.manager.probing && !w.c.server.probing })
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
	w.settle()
}

func (w *world) answers(r supervise.Role, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes[r] = err
}

var deaf = &heartbeat.Failure{Kind: heartbeat.Timeout, Err: errors.New("nothing came")}

// up is an instance that runs: a manager started by this cop, and a server.
func (w *world) up() (manager, server *fake) {
	w.t.Helper()
	w.c.turn()
	if len(w.started) == 0 {
		w.t.Fatal("no manager was started")
	}
	manager = w.started[len(w.started)-1]
	w.hold(manager, stats.Ready)
	close(manager.ready)
	server = w.holds(supervise.Server, stats.Ready)
	w.until("instance up", func() bool { return w.c.manager.state == supervise.Ready && w.c.server.p != nil })
	w.settle()
	return manager, server
}

// events returns the messages of the log since the last call, without those named.
func (w *world) events() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, line := range strings.Split(strings.TrimSpace(w.log.String()), "\n") {
		var e struct{ Message, Level string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Message != "" && e.Level != "debug" {
			list = append(list, e.Message)
		}
	}
	w.log.Reset()
	return list
}

// text is the log as it is, since the last events.
func (w *world) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	if got := w.events(); !slices.Equal(got, want) {
		w.t.Errorf("log:\n got %q\nwant %q", got, want)
	}
}

var killed9 = supervise.Status{Known: true, Signal: syscall.SIGKILL}

func exited(code int) supervise.Status { return supervise.Status{Known: true, Code: code} }

func TestFirstStart(t *testing.T) {
	w := newWorld(t, withStats, func(_ *world, b *birth) { b.fresh = true })
	w.c.turn()
	if log := w.text(); strings.Contains(log, `"level":"warn"`) {
		t.Errorf("a first start warns:\n%s", log)
	}
	w.expect("check_programs", "manager not running", "making sure server is dead", "safe_kill", "spawn_manager")
	if w.readies != 0 {
		t.Error("ready without a manager")
	}
	m := w.started[0]
	w.hold(m, stats.Starting)
	close(m.ready)
	w.until("manager ready", func() bool { return w.c.manager.state == supervise.Ready })
	if w.readies != 0 {
		t.Error("ready without a server")
	}
	w.holds(supervise.Server, stats.Starting)
	w.settle()
	if w.readies != 0 {
		t.Error("ready with a server that starts")
	}
	w.region.Role(stats.RoleServer).State.Store(uint64(stats.Ready))
	w.settle()
	w.settle()
	if w.readies != 1 || !slices.Contains(w.said, "READY=1") {
		t.Errorf("told %d times that it is ready, systemd %q; want once", w.readies, w.said)
	}
}

// The original's scene: the manager dies, the server is made dead, a manager is spawned.
func TestManagerDiesRestart(t *testing.T) {
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Supervision.OnManagerDeath = config.Restart }))
	m, s := w.up()
	w.events()
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if log := w.text(); !strings.Contains(log, `"level":"warn","server":"up","message":"manager not running"`) {
		t.Errorf("no warning that there is no manager:\n%s", log)
	}
	w.expect("manager died", "check_programs", "manager not running", "making sure server is dead",
		"safe_kill", "safe_kill", "server died", "spawn_manager")
	if s.signals() != 1 {
		t.Errorf("server was signalled %d times, want once", s.signals())
	}
}

func TestManagerDiesAdopt(t *testing.T) {
	w := newWorld(t, withStats)
	m, s := w.up()
	w.events()
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	w.expect("manager died", "check_programs", "manager not running", "spawn_manager")
	if s.signals() != 0 || w.c.server.p != process(s) {
		t.Error("a healthy server was touched")
	}
	if w.c.manager.generation != 2 || !slices.Equal(w.given, []string{heritage.Stats}) {
		t.Errorf("generation %d with heritage %q", w.c.manager.generation, w.given)
	}
	if got := w.region.Role(stats.RoleManager).Deaths.Load(); got != 1 {
		t.Errorf("%d deaths counted, want 1", got)
	}
}

func TestManagerDiesWhileTheServerIsWedged(t *testing.T) {
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Health.Kill = config.KillManager }))
	m, s := w.up()
	w.answers(supervise.Server, deaf)
	w.pass(5 * time.Second)
	w.pass(5 * time.Second)
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if s.signals() != 0 {
		t.Error("server was signalled against health.kill")
	}
}

func TestWedgedManagerIsReplacedAndTheServerStays(t *testing.T) {
	w := newWorld(t, withStats)
	m, s := w.up()
	w.events()
	w.answers(supervise.Manager, deaf)
	w.pass(5 * time.Second)
	w.expect("manager heartbeat failed")
	if m.signals() != 0 {
		t.Fatal("one strike killed")
	}
	w.pass(5 * time.Second)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if m.signals() != 1 || s.signals() != 0 {
		t.Errorf("manager signalled %d times, server %d; want 1, 0", m.signals(), s.signals())
	}
	o := w.region.Role(stats.RoleManager)
	if o.KillsDecided.Load() != 1 || o.ProbeFailures.Load() != 2 || o.Probes.Load() < 3 {
		t.Errorf("kills %d, failures %d, probes %d", o.KillsDecided.Load(), o.ProbeFailures.Load(), o.Probes.Load())
	}
}

func TestSuccessBetweenTwoFailuresForgives(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	for range 3 {
		w.answers(supervise.Manager, deaf)
		w.pass(5 * time.Second)
		w.answers(supervise.Manager, nil)
		w.pass(5 * time.Second)
	}
	if m.signals() != 0 {
		t.Error("killed although no two failures came in a row")
	}
}

// A manager that comes round and reads a TERM would end the instance; a kill loses nothing.
func TestWedgedManagerIsNotAsked(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	w.answers(supervise.Manager, deaf)
	w.until("kill", func() bool { w.pass(5 * time.Second); return m.signals() == 1 })
	if e := m.terms[0]; e.Grace != 0 || e.Core == int(syscall.SIGQUIT) {
		t.Errorf("%v until TERM is over, then signal %d", e.Grace, e.Core)
	}
}

// A server that is stuck may come round at any time. With custody it loses nothing by a kill, and everything by a stop.
func TestWedgedServerIsNotAsked(t *testing.T) {
	for _, custody := range []bool{false, true} {
		w := newWorld(t, withStats)
		_, s := w.up()
		if custody {
			fd, _ := w.c.heritage.Get(heritage.Stats) // any will do
			if err := w.c.heritage.PutDup(heritage.Journal, fd); err != nil {
				t.Fatal(err)
			}
		}
		w.answers(supervise.Server, deaf)
		w.until("kill", func() bool { w.pass(5 * time.Second); return s.signals() == 1 })
		e := s.terms[0]
		if asked := e.Grace != 0; asked == custody || e.Core == int(syscall.SIGQUIT) {
			t.Errorf("custody %v: %v until TERM is over, then signal %d", custody, e.Grace, e.Core)
		}
	}
}

// Nor is one that works, when the manager has died and the next one is to start with another server.
func TestServerWithoutAManagerIsNotAsked(t *testing.T) {
	for _, custody := range []bool{false, true} {
		w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Supervision.OnManagerDeath = config.Restart }))
		m, s := w.up()
		if custody {
			fd, _ := w.c.heritage.Get(heritage.Stats)
			if err := w.c.heritage.PutDup(heritage.Journal, fd); err != nil {
				t.Fatal(err)
			}
		}
		m.die(killed9)
		w.until("kill", func() bool { return s.signals() == 1 })
		if asked := s.terms[0].Grace != 0; asked == custody {
			t.Errorf("custody %v: %v until TERM is over", custody, s.terms[0].Grace)
		}
	}
}

func TestBusyServerIsNotWedged(t *testing.T) {
	w := newWorld(t, withStats)
	_, s := w.up()
	w.answers(supervise.Server, deaf)
	b := w.region.Bank(1)
	for range 5 {
		b.Cell(0).Iterations.Add(1)
		b.Cell(1).Iterations.Add(1)
		w.pass(5 * time.Second)
	}
	if s.signals() != 0 {
		t.Fatal("a busy server was killed")
	}
	b.Cell(0).Iterations.Add(1) // the other loop stands still
	w.pass(5 * time.Second)
	w.until("kill", func() bool { return s.signals() == 1 })
	w.until("death", func() bool { return w.c.server.p == nil })
	if len(w.started) != 1 {
		t.Error("the manager was replaced with the server")
	}
}

func TestStartingServerIsNotProbed(t *testing.T) {
	w := newWorld(t, withStats)
	_, s := w.up()
	w.answers(supervise.Server, deaf)
	for _, state := range []stats.State{stats.Starting, stats.Draining} {
		w.region.Role(stats.RoleServer).State.Store(uint64(state))
		for range 4 {
			w.pass(time.Minute)
		}
	}
	if s.signals() != 0 || w.region.Role(stats.RoleServer).ProbeFailures.Load() != 0 {
		t.Error("a server that starts or drains was judged by its answers")
	}
}

func TestForbiddenKillIsReportedAndNobodySignalled(t *testing.T) {
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Health.Kill = config.KillNone }))
	m, s := w.up()
	w.answers(supervise.Manager, deaf)
	w.answers(supervise.Server, deaf)
	w.events()
	for range 4 {
		w.pass(5 * time.Second)
		w.until("gate is idle", func() bool { return !w.c.manager.killing && !w.c.server.killing })
	}
	if m.signals()+s.signals() != 0 {
		t.Error("somebody was signalled")
	}
	if n := strings.Count(strings.Join(w.events(), "\n"), "would have killed"); n < 2 {
		t.Errorf("%d times 'would have killed', want each of the two at least once", n)
	}
	if w.region.Role(stats.RoleManager).KillsForbidden.Load() == 0 {
		t.Error("not counted")
	}
}

func TestBadConfigurationAtFirstStartEndsCop(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	m := w.started[0]
	m.refusal = errors.New("trafficd.yaml:1:1: no")
	m.die(exited(78))
	w.until("end", func() bool { return w.c.done })
	if err := w.c.failureError(); exitcode.Of(err) != exitcode.Config || err.Error() != "trafficd.yaml:1:1: no" {
		t.Errorf("got %v with code %v", err, exitcode.Of(err))
	}
}

func TestRefusedFirstStartEndsCop(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	m := w.started[0]
	m.refusal = errors.New("listen on 127.0.0.1:8080: address already in use")
	m.die(exited(1))
	w.until("end", func() bool { return w.c.done })
	if err := w.c.failureError(); exitcode.Of(err) != exitcode.Failed {
		t.Errorf("got %v", err)
	}
	// The loop turns once more before it ends.
	if w.c.turn(); len(w.started) != 1 {
		t.Errorf("%d managers were started, want 1: nobody would look after another", len(w.started))
	}
}

var noDisk = refusedBody{Code: exitcode.Config, Reason: "trafficd server: cache.disk_path: no"}

func TestRefusedServerAtFirstStartEndsCop(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	m := w.started[0]
	w.hold(m, stats.Ready)
	close(m.ready)
	w.until("manager ready", func() bool { return w.c.manager.state == supervise.Ready })
	w.c.refused(noDisk)
	w.until("end", func() bool { return w.c.done })
	if err := w.c.failureError(); exitcode.Of(err) != exitcode.Config || err.Error() != noDisk.Reason {
		t.Errorf("got %v with code %v", err, exitcode.Of(err))
	}
	if m.signals() != 1 || len(w.started) != 1 || w.readies != 0 {
		t.Errorf("%d signals to the manager, %d starts, said to be up %d times; want 1, 1, 0", m.signals(), len(w.started), w.readies)
	}
}

// Its clients are waiting for what an operator does about the alarm.
func TestRefusedServerLaterEndsNothing(t *testing.T) {
	for name, begin := range map[string]func(w *world) *fake{
		"of an instance that was up": func(w *world) *fake {
			m, s := w.up()
			s.die(exited(78))
			return m
		},
		"told by an adopted manager": func(w *world) *fake { return w.holds(supervise.Manager, stats.Starting) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withStats)
			m := begin(w)
			w.settle()
			w.c.refused(noDisk)
			w.settle()
			if w.c.done || w.c.phase != running || m.signals() != 0 {
				t.Errorf("done %v, %v, %d signals to the manager", w.c.done, w.c.phase, m.signals())
			}
		})
	}
}

func TestFirstStartThatDiesWithoutAWordIsRetried(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	w.started[0].die(exited(1))
	w.until("death", func() bool { return w.c.manager.p == nil })
	w.pass(2 * time.Second)
	if w.c.done || len(w.started) != 2 {
		t.Errorf("done %v, %d starts; want a second start", w.c.done, len(w.started))
	}
}

func TestPermanentFailureLaterRaisesAnAlarmUntilHUP(t *testing.T) {
	w := newWorld(t, withStats)
	m, s := w.up()
	m.die(exited(78))
	w.until("alarm", func() bool { return w.c.alarm != "" })
	w.pass(time.Hour)
	if len(w.started) != 1 || w.c.done || s.signals() != 0 {
		t.Fatalf("%d starts, done %v", len(w.started), w.c.done)
	}
	if st := w.c.status(); st.Alarm != "manager died: exit 78" || st.Manager != "held" {
		t.Errorf("status %+v", st)
	}
	w.loadErr = errors.New("still wrong")
	w.c.signal(syscall.SIGHUP)
	w.c.turn()
	if len(w.started) != 2 {
		t.Errorf("%d starts after HUP, want 2", len(w.started))
	}
}

func TestManagerThatExitsZeroIsReplacedAtOnce(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	m.die(exited(0))
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if w.c.phase != running {
		t.Error("the instance stops although nobody asked")
	}
}

func TestFailedStartsBackOff(t *testing.T) {
	w := newWorld(t)
	w.startErr = errors.New("no")
	w.c.turn()
	starts := func() int { return strings.Count(strings.Join(w.events(), "\n"), "manager could not be started") }
	if n := starts(); n != 1 {
		t.Fatalf("%d tries, want 1", n)
	}
	var total int
	for range 60 {
		w.pass(time.Second)
		total += starts()
	}
	// 1, 2, 4, 8, 16 s and up to half as much jitter: 4 to 5 more tries in a minute, as
	// there is no server that a hold would wait for.
	if total < 4 || total > 5 {
		t.Errorf("%d tries in the first minute, want 4 or 5", total)
	}
}

func TestFlapHoldsWhileAServerServesAndNoLonger(t *testing.T) {
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Supervision.FlapLimit = 1 }))
	m, s := w.up()
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	w.started[1].die(killed9) // before it was ready: flapping
	w.until("death", func() bool { return w.c.manager.p == nil })
	w.pass(20 * time.Second)
	if len(w.started) != 2 {
		t.Fatal("not held although a server serves")
	}
	s.die(killed9)
	w.until("server gone", func() bool { return w.c.server.p == nil })
	w.until("next manager", func() bool { return len(w.started) == 3 })
}

func TestUnidentifiedHolderIsLeftAloneAndLoggedOnce(t *testing.T) {
	w := newWorld(t, withStats)
	w.meetErr = supervise.ErrUnidentified
	for range 5 {
		w.pass(10 * time.Millisecond)
	}
	n := strings.Count(strings.Join(w.events(), "\n"), "lock holder not met")
	if n != 2 { // one for each lock
		t.Errorf("logged %d times, want once for each lock", n)
	}
}

func TestSuccessorAdoptsBothAndIsReadyAtOnce(t *testing.T) {
	w := newWorld(t, withStats, succeeding)
	m := w.holds(supervise.Manager, stats.Ready)
	s := w.holds(supervise.Server, stats.Ready)
	w.settle()
	if len(w.started) != 0 || m.signals()+s.signals() != 0 {
		t.Error("a running instance was disturbed")
	}
	if w.readies != 1 || w.c.manager.state != supervise.Ready {
		t.Errorf("ready %d times, manager %v", w.readies, w.c.manager.state)
	}
	// And it looks after the adopted manager as after its own.
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 1 })
	if w.c.generation != 2 {
		t.Errorf("generation %d, want 2: one more than the adopted", w.c.generation)
	}
}

func TestManagerAdoptedWhileStartingIsReadyWhenItAnswers(t *testing.T) {
	w := newWorld(t, succeeding)
	m := w.holds(supervise.Manager, stats.Starting)
	w.answers(supervise.Manager, deaf)
	for range 5 {
		w.pass(5 * time.Second)
	}
	if m.signals() != 0 || w.c.manager.state != supervise.Starting {
		t.Fatal("judged by its answers while it starts")
	}
	w.answers(supervise.Manager, nil)
	w.pass(2 * time.Second)
	if w.c.manager.state != supervise.Ready {
		t.Error("answers, and is not ready")
	}
}

// A cop that was killed in the middle of a first start leaves a manager behind that may yet be refused its address.
func TestManagerAdoptedWhileStartingIsNoInstance(t *testing.T) {
	w := newWorld(t)
	m := w.holds(supervise.Manager, stats.Starting)
	w.answers(supervise.Manager, deaf)
	if w.settle(); w.readies != 0 {
		t.Fatal("said to be up while its manager starts")
	}
	m.die(supervise.Status{})
	w.until("death", func() bool { return w.c.manager.p == nil })
	if w.pass(2 * time.Second); len(w.started) != 1 {
		t.Fatalf("%d managers were started, want one", len(w.started))
	}
	w.started[0].refusal = errors.New("listen on 203.0.113.9:80: cannot assign requested address")
	w.started[0].die(exited(1))
	w.until("end", func() bool { return w.c.done })
	if err := w.c.failureError(); exitcode.Of(err) != exitcode.Failed || w.readies != 0 {
		t.Errorf("got %v, said to be up %d times", err, w.readies)
	}
}

func TestManagerAdoptedWhileStartingIsUpWhenItIsReady(t *testing.T) {
	w := newWorld(t)
	w.holds(supervise.Manager, stats.Starting)
	w.answers(supervise.Manager, deaf)
	if w.settle(); w.readies != 0 {
		t.Fatal("said to be up while its manager starts")
	}
	w.answers(supervise.Manager, nil)
	if w.pass(2 * time.Second); w.readies != 1 {
		t.Errorf("said to be up %d times, want once", w.readies)
	}
}

func TestManagerThatNeverBecomesReadyIsAborted(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	m := w.started[0]
	w.pass(29 * time.Second)
	if m.signals() != 0 {
		t.Fatal("killed within its start deadline")
	}
	w.pass(2 * time.Second)
	w.until("kill", func() bool { return m.signals() == 1 })
}

func TestReplacedServerIsLetGo(t *testing.T) {
	w := newWorld(t, withStats)
	_, old := w.up()
	w.region.Role(stats.RoleServer).State.Store(uint64(stats.Draining))
	next := w.holds(supervise.Server, stats.Ready)
	w.settle()
	if w.c.server.p != process(next) {
		t.Error("still looks after the server that was replaced")
	}
	old.die(exited(0))
	if w.settle(); w.c.server.p != process(next) {
		t.Error("the death of the old one was taken for the new one's")
	}
}

// When cop learns of a server's death, the next one may have its record. What was asked for is no warning, and
// only the manager knows that.
func TestServersDeathIsToldAsItWas(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  supervise.Status
		orphan  bool // its manager is dead
		level   string
		message string
	}{
		{"planned", exited(0), false, "info", "exit 0"},
		{"planned, and unknown", supervise.Status{}, false, "info", "unknown"},
		{"killed", killed9, true, "warn", "signal 9 (killed)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, withStats)
			m, s := w.up()
			w.pass(5 * time.Second)
			if tt.orphan {
				w.startErr = errors.New("no more processes")
				m.die(killed9)
				w.until("the manager is gone", func() bool { return w.c.manager.p == nil })
			}
			w.region.Role(stats.RoleServer).Enter(999, 0, 2)
			s.die(tt.status)
			w.until("it is gone", func() bool { return w.c.server.p == nil })
			want := fmt.Sprintf(`"level":%q,"process":"server","process_pid":%d,"generation":1,"state":"ready","status":%q,"ready_for_ms":5000,"message":"server died"`,
				tt.level, s.pid, tt.message)
			if log := w.text(); !strings.Contains(log, want) {
				t.Errorf("log has no %s:\n%s", want, log)
			}
		})
	}
}

func TestStopManagerThenServer(t *testing.T) {
	w := newWorld(t, withStats)
	m, s := w.up()
	w.c.signal(syscall.SIGTERM)
	w.until("manager gone", func() bool { return w.c.manager.p == nil })
	w.until("end", func() bool { return w.c.done })
	if m.signals() != 1 || s.signals() != 1 || w.c.code != exitcode.OK || len(w.started) != 1 {
		t.Errorf("manager %d, server %d signals, code %v, %d starts", m.signals(), s.signals(), w.c.code, len(w.started))
	}
	if want := 30*time.Second + 2*5*time.Second; m.terms[0].Grace != want {
		t.Errorf("the manager had %v to drain the server, want %v", m.terms[0].Grace, want)
	}
	if !slices.Contains(w.said, "STOPPING=1") {
		t.Error("systemd was not told")
	}
}

func TestStopIsNotAskedOfThePolicy(t *testing.T) {
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Health.Kill = config.KillNone }))
	w.up()
	w.c.signal(syscall.SIGTERM)
	w.until("end", func() bool { return w.c.done })
}

func TestInterruptHurriesAStop(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	m.stubborn = true
	w.c.signal(syscall.SIGTERM)
	w.until("TERM", func() bool { return m.signals() == 1 })
	w.c.signal(syscall.SIGINT)
	w.until("less patience", func() bool { return m.signals() == 2 })
	if m.terms[1].Grace >= m.terms[0].Grace {
		t.Errorf("patience %v, then %v", m.terms[0].Grace, m.terms[1].Grace)
	}
	if !slices.Contains(w.told, opStop) {
		t.Error("the manager was not told to hurry")
	}
	m.die(exited(0))
	w.until("end", func() bool { return w.c.done })
}

func TestStopOfAnInstanceWithoutManager(t *testing.T) {
	w := newWorld(t, withStats)
	m, s := w.up()
	m.die(exited(78)) // given up
	w.until("alarm", func() bool { return w.c.alarm != "" })
	w.c.signal(syscall.SIGTERM)
	w.until("end", func() bool { return w.c.done })
	if s.signals() != 1 {
		t.Error("server left behind")
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	w := newWorld(t, withStats)
	w.up()
	w.next = config.Default()
	w.next.Health.Kill = config.KillServer
	w.c.signal(syscall.SIGHUP)
	w.c.signal(syscall.SIGUSR1)
	w.c.signal(syscall.SIGUSR2)
	if want := []string{"reload", "reopen", opWanted}; !slices.Equal(w.told, want) {
		t.Errorf("told the manager %q, want %q", w.told, want)
	}
	if w.c.cfg != w.next {
		t.Error("the new configuration is not in force")
	}
	if w.c.phase != running {
		t.Error("USR2 stopped cop")
	}
}

func TestBadReloadChangesNothing(t *testing.T) {
	w := newWorld(t)
	old := w.c.cfg
	w.loadErr = errors.New("trafficd.yaml:2:3: no")
	w.c.signal(syscall.SIGHUP)
	if w.c.cfg != old || w.c.done {
		t.Error("a bad file had an effect")
	}
}

func TestReloadWaitsForTheLink(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	link := false
	w.c.env.tell = func(op string, _ any) bool {
		if link {
			w.told = append(w.told, op)
		}
		return link
	}
	w.next = config.Default()
	w.c.signal(syscall.SIGHUP)
	link = true
	w.c.linked(m.pid, 1)
	w.c.linked(m.pid, 1)
	if !slices.Equal(w.told, []string{"reload"}) {
		t.Errorf("told %q, want reload once", w.told)
	}
}

func TestDepositReplacesTheHeritage(t *testing.T) {
	w := newWorld(t)
	w.c.turn()
	m := w.started[0]
	if len(w.given) != 0 {
		t.Fatalf("first manager was given %q", w.given)
	}
	set := heritage.New()
	b := birth{heritage: set}
	withStats(w, &b)
	if got := w.c.deposit(set); !slices.Equal(got, []string{heritage.Stats}) || w.c.region == nil {
		t.Fatalf("holds %q", got)
	}
	if pid := w.region.Role(stats.RoleCop).PID.Load(); pid != 1 {
		t.Errorf("cop entered itself with pid %d, want 1", pid)
	}
	close(m.ready)
	w.until("manager ready", func() bool { return w.c.manager.state == supervise.Ready })
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if !slices.Equal(w.given, []string{heritage.Stats}) {
		t.Errorf("next manager was given %q", w.given)
	}
}

func TestLoopRunsUntilAsked(t *testing.T) {
	w := newWorld(t, withStats)
	ctx, cancel := context.WithCancel(t.Context())
	w.c.asked = ctx
	code := make(chan exitcode.Code)
	signals := make(chan os.Signal, 1)
	c := w.c
	go func() { code <- c.run(signals) }()
	w.ran = true
	cancel()
	// A manager was started by the first turn; it dies of the stop.
	if got := <-code; got != exitcode.OK {
		t.Errorf("code %v", got)
	}
	if c.post(func() {}) || c.do(func() {}) {
		t.Error("a loop that has ended takes work")
	}
}

func TestGuard(t *testing.T) {
	var p pulse
	looks, over := make(chan time.Time), make(chan struct{})
	stalled := make(chan struct{})
	go p.guard(looks, over, func() { close(stalled) })
	for range 5 * stallLooks { // a loop that comes round now and then
		p.beat()
		looks <- time.Time{}
	}
	// The last beat may have been seen with the look before it, hence one less.
	for i := range stallLooks - 1 {
		select {
		case <-stalled:
			t.Fatalf("stalled after %d looks", i)
		case looks <- time.Time{}:
		}
	}
	select {
	case <-stalled:
	case looks <- time.Time{}:
		<-stalled
	}
}

func TestGuardEndsWithTheLoop(t *testing.T) {
	var p pulse
	over := make(chan struct{})
	close(over)
	p.guard(nil, over, func() { t.Error("stalled") })
}

// That a process is killed for its health stands in shared memory before it is signalled: its other supervisor may see it dead
// while this loop has not gone on.
func TestKillIsNotedBeforeTheSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, withStats)
		_, server := w.up()
		w.answers(supervise.Server, deaf)
		w.pass(w.c.cfg.Health.Interval) // the first strike
		w.mu.Lock()
		w.now = w.now.Add(w.c.cfg.Health.Interval)
		w.mu.Unlock()
		w.c.manager.probed = w.clock() // the server alone is asked, so that what comes next is about it
		w.c.turn()
		(<-w.c.events)() // the second
		w.c.turn()
		note := <-w.c.events // what the gate has decided
		synctest.Wait()
		if n := server.signals(); n != 0 {
			t.Errorf("%d signals before the kill is noted", n)
		}
		note()
		if got := w.region.Role(stats.RoleServer).Condemned.Load(); got != uint64(server.PID()) {
			t.Errorf("process %d is noted as killed, want %d", got, server.PID())
		}
		synctest.Wait()
		if n := server.signals(); n != 1 {
			t.Errorf("%d kills of a server that hangs", n)
		}
	})
}
