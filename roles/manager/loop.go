package manager

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
	"trafficd/roles/manager/autoconf"
)

// env is the manager's door to the world. Functions without a remark return at once.
type env struct {
	now    func() time.Time
	start  func(x *program.Program, generation uint64, h *heritage.Set) (process, error) // a server
	adopt  func(pid int, startTime uint64, known bool) (process, error)                  // a server that dialled in, or that shared memory names (known)
	holder func() (pid int)                                                              // of server.lock; 0: nobody, or not known
	gate   supervise.GateEnv                                                             // newManager sets Now and Report
	load   func() (*config.Config, error)                                                // may block
	save   func(*config.Config) error                                                    // last-good; may block
	tune   func(*config.Config)                                                          // the log's level
	rotate func() error                                                                  // the log's file

	try  func(ctx context.Context, path string) (*program.Program, error) // may block
	open func(path, id string) (*program.Program, error)                  // may block

	copHolder func() (pid int, held bool) // of cop.lock; pid 0: not known
	copStart  func(generation uint64, h *heritage.Set) (process, error)
	copAdopt  func(pid int, startTime uint64) (process, error)
}

// phase says what the manager is doing with its life.
type phase uint8

const (
	running  phase = iota
	leaving        // to be replaced: the server stays
	draining       // the server is asked to finish and go
	stopping       // the server is asked to go
)

func (p phase) String() string { return name(p, "running", "leaving", "draining", "stopping") }

// manager is the process's state. One goroutine, run, owns every field that is not marked
// otherwise.
type manager struct {
	env  env            // immutable
	log  zerolog.Logger // immutable
	gate *supervise.Gate
	self birth // immutable

	events chan func()        // unbuffered; to run
	over   chan struct{}      // closed when run has ended
	work   context.Context    // of everything that goroutines do; ends with run
	rest   context.CancelFunc //
	wg     sync.WaitGroup     // the goroutines

	cfg       *config.Config // what is published
	published time.Time
	first     *config.Config // what this manager was started with
	badFile   string         // why the file is not what is published; "": it is, or was not looked at
	reloading bool

	estate   *estate
	pump     *pump
	region   atomic.Pointer[stats.Region] // the estate's, for who is not on the loop
	autoconf *autoconf.Handler            // nil: there is no port

	autoconfAddr string // where that port is, or config.Off

	active   *unit
	burying  bool // a server has died, and is being made sure of
	next     *unit
	old      map[*unit]bool // replaced, finishing what they began
	last     uint64         // generation of the last server that was started
	backoff  *supervise.Backoff
	due      time.Time     // when the next server may be started, in the absence of one
	delay    time.Duration // that led to due
	lastExit string        // how the last server ended that was not asked to; "" since another is in its place
	alarm    string        // why no server is started
	refusal  *refusedBody  // of the server that led to alarm; nil: there is no alarm

	wanted  bool              // the operator wants another server started
	planned time.Time         // next is to replace active, since then; zero: it is to stand by
	waiters []chan<- restarts // wait for that one
	relief  relief            // what they are to be told

	program     *program.Program           // what servers are started from
	faults      map[uint64]supervise.Fault // of servers that died, by generation
	trial       *trial                     // of another executable; nil: there is none
	lastUpgrade *program.Report            // as cop said it; nil: there was none

	cop     copWard
	crashes crash.Ledger

	phase   phase
	stopped time.Time // when the instance was told to stop; zero: it was not
	done    bool
}

// restarts is what came of a restart.
type restarts struct {
	pid           int
	generation    uint64
	oldPID        int // 0: there was none
	oldGeneration uint64
	err           error
}

// relief is a planned replacement that has been done but for the end of the old server.
type relief struct {
	old  *unit // made way; nil: it is gone, or was let finish
	done restarts
	won  bool // done is to be told
}

// birth is what a manager is given at its start. Immutable.
type birth struct {
	id         proc.Identity
	generation uint64
	runRoot    string
}

func newManager(e env, log zerolog.Logger, self birth, cfg *config.Config, es *estate) *manager {
	m := &manager{
		env: e, log: log, self: self,
		events: make(chan func()), over: make(chan struct{}),
		estate: es, pump: newPump(),
		old:     map[*unit]bool{},
		faults:  map[uint64]supervise.Fault{},
		program: &program.Program{},
		backoff: supervise.NewBackoff(supervise.BackoffPolicy{}),
		first:   cfg, autoconfAddr: config.Off,
		cop: copWard{backoff: supervise.NewBackoff(supervise.BackoffPolicy{Budget: copBudget, Jitter: rand.Float64})},
	}
	m.work, m.rest = context.WithCancel(context.Background())
	m.env.gate.Now = e.now
	// It has run before anybody is signalled: cop may see the death at once, and looks then what was noted of it.
	m.env.gate.Report = func(d supervise.Decision) { m.do(context.Background(), func() { m.report(d) }) }
	m.crashes = newLedger(self)
	m.gate = supervise.NewGate(supervise.KillAll, m.env.gate)
	m.apply(cfg)
	return m
}

// post hands f to the loop. It returns false, without having run f, if the loop has ended.
func (m *manager) post(f func()) bool {
	select {
	case m.events <- f:
		return true
	case <-m.over:
		return false
	}
}

// do is post for who must know that f has run. It returns false if f will not be run, or if ctx
// ended first. Not to be called from the loop.
func (m *manager) do(ctx context.Context, f func()) bool {
	ran := make(chan struct{})
	select {
	case m.events <- func() { f(); close(ran) }:
	case <-m.over:
		return false
	case <-ctx.Done():
		return false
	}
	<-ran // what the loop has accepted it runs, and does not wait in
	return true
}

// run is the loop. It returns once the manager is to end, and has waited for every
// goroutine by then.
func (m *manager) run(asked context.Context, signals <-chan os.Signal) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := asked.Done()
	for !m.done {
		select {
		case f := <-m.events:
			f()
		case sig := <-signals:
			m.signal(sig)
		case <-timer.C:
		case <-ended:
			ended = nil
			m.stop(draining)
		}
		m.turn()
		timer.Reset(m.pause())
	}
	m.settle(restarts{err: errEnding})
	m.rest()
	close(m.over)
	m.pump.close()
	m.wg.Wait()
}

// turn is one round: look, decide, act.
func (m *manager) turn() {
	m.estate.region.Role(stats.RoleManager).Progress.Add(1)
	now := m.env.now()
	if m.phase != running {
		m.proceed()
		return
	}
	m.watchCop(now)
	m.giveTurn()
	m.probeStandby(now)
	switch a, n := m.activeView(), m.nextView(now); decide(m.estate.custody(), a, n) {
	case spawn:
		m.spawn(now)
	case abort:
		m.abandon(now)
	case relieve:
		m.relieve(now)
	}
	m.pump.serving(m.active.serves() || m.next.serves(), now)
	m.deposit(now)
}

func (m *manager) activeView() activeView {
	switch {
	case m.burying:
		return activeBurying
	case m.active == nil:
		return activeNone
	case m.active.serves():
		return activeServing
	}
	return activeLeaving
}

func (m *manager) nextView(now time.Time) nextView {
	switch {
	case m.next != nil && m.expected(m.next) && now.Sub(m.next.since) > m.cfg.Supervision.StartDeadline:
		return nextOverdue
	case m.next != nil && (!m.next.stands() || m.next.asked || m.next.killing):
		return nextStarting
	case m.next != nil && m.unfit(m.next) != "":
		return nextUnfit
	case m.next != nil && !m.planned.IsZero():
		return nextCalled
	case m.next != nil:
		return nextStanding
	case m.wanted:
		return nextWanted
	case m.alarm != "" || m.due.After(now):
		return nextHeld
	}
	return nextDue
}

// tick is the longest time between two turns: the progress counter must move, and
// cop.lock is looked at.
const tick = 500 * time.Millisecond

// pause is how long the loop may sleep.
func (m *manager) pause() time.Duration {
	d := tick
	now := m.env.now()
	if m.phase == running {
		if m.active == nil && m.next == nil && m.alarm == "" {
			d = min(d, m.due.Sub(now))
		}
		if m.next != nil && m.expected(m.next) {
			d = min(d, m.next.since.Add(m.cfg.Supervision.StartDeadline).Sub(now)+time.Millisecond)
		}
		d = min(d, m.cop.pause(now), m.standbyPause(now))
	}
	return max(d, time.Millisecond)
}

// apply takes over a configuration.
func (m *manager) apply(cfg *config.Config) {
	m.cfg = cfg
	policy, err := supervise.ParsePolicy(cfg.Health.Kill)
	if err != nil {
		panic("manager: configuration was not checked: " + err.Error())
	}
	m.gate = m.gate.WithPolicy(policy)
	m.backoff.SetPolicy(supervise.BackoffPolicy{
		Budget: cfg.Supervision.RestartBudget, Max: cfg.Supervision.BackoffMax,
		Sustained: cfg.Supervision.SustainedReady, Jitter: rand.Float64,
	})
	m.env.tune(cfg)
	if err := m.pump.configure(cfg.Queue, m.estate); err != nil {
		m.log.Error().Err(err).Msg("connection queue not reconfigured")
	}
	m.showAutoconf()
}

// serverRecord is the record of the server's role in shared memory.
func (m *manager) serverRecord() *stats.Role { return m.estate.region.Role(stats.RoleServer) }

var errEnding = exitcode.Errorf(exitcode.Failed, "the manager is ending")
