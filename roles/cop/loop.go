package cop

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
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
)

// env is cop's door to the world. Functions that the loop calls return at once; probe
// and the gate's run on goroutines of their own.
type env struct {
	now    func() time.Time
	holder func(supervise.Role) int              // pid of who holds the role's lock; 0: nobody, or not known
	meet   func(supervise.Role) (process, error) // adopts that process; nil: there is none
	start  func(x *program.Program, generation uint64, h *heritage.Set) (process, error)
	open   func(path, id string) (*program.Program, error)
	ask    func(op string, body any, then func(error))                                          // a call to the manager; then runs on the loop
	exec   func(x *program.Program, generation uint64, h *heritage.Set, r program.Report) error // returns if it failed
	probe  func(ctx context.Context, r supervise.Role) error                                    // one heartbeat
	gate   supervise.GateEnv                                                                    // newCop sets Now and Report
	load   func() (*config.Config, error)                                                       // the configuration as it is now
	tell   func(op string, body any) bool                                                       // an event to the manager; false: there is no link
	ready  func()                                                                               // tells who waits for this start that it succeeded
	alone  func() bool                                                                          // no child of ours is left
	say    func(state string)                                                                   // to systemd
	beat   func(now time.Time)                                                                  // systemd's watchdog
	tune   func(*config.Config)                                                                 // sets the log's level
	rotate func() error                                                                         // reopens the log
}

// phase says whether the instance is to run.
type phase uint8

const (
	running  phase = iota
	draining       // TERM, QUIT: what was begun is finished
	stopping       // INT: now
)

func (p phase) String() string { return name(p, "running", "draining", "stopping") }

// cop is the watchdog. One goroutine, run, owns every field that is not marked
// otherwise; whoever else learns something posts it as a function for run to call.
//
//	look    meet who holds the locks, read the states, start the probes that are due
//	decide  one cell of a table
//	act     through the gate, or by starting a manager
type cop struct {
	env   env            // immutable
	log   zerolog.Logger // immutable
	pulse pulse          // atomic

	events chan func()    // from any goroutine to run
	over   chan struct{}  // closed by run when it ends
	wg     sync.WaitGroup // every goroutine started by cop

	asked context.Context    // its end asks for a graceful stop
	work  context.Context    // of probes and kills; ended by run when it ends
	rest  context.CancelFunc // ends work

	cfg  *config.Config
	gate *supervise.Gate

	manager, server ward
	generation      uint64 // of the last manager

	backoff *supervise.Backoff
	flap    *supervise.Flap
	due     time.Time // the back-off's word on when the next manager may be started
	alarm   string    // why it must not be started at all; "": it may

	program *program.Program // what managers are started from
	upgrade upgrade

	heritage *heritage.Set
	region   *stats.Region // mapped from heritage's stats; nil: none yet

	self      proc.Identity // immutable: this cop
	ownGen    uint64        // immutable: its generation
	fresh     bool          // nothing was there when cop started: no heritage, no server, no manager that was ready
	first     bool          // fresh, and no manager has been ready since
	started   bool          // cop has started a manager
	announced bool          // that the instance is up

	replacing bool // making sure that the server is dead; a manager follows
	seen      sight
	unheard   map[string]bool // ops that the manager is to be told when its link is up

	crashes crash.Ledger

	phase   phase
	linger  time.Time // how long to wait for adopted children of children at the end
	done    bool
	code    exitcode.Code
	failure string // why code is not 0
}

// sight is one look, to tell a new one from the last.
type sight struct {
	m managerView
	s serverView
	a action
}

// birth is what cop is given at its start.
type birth struct {
	cfg        *config.Config
	log        zerolog.Logger
	heritage   *heritage.Set // from now on cop's
	fresh      bool          // no cop was here before, as far as can be told
	self       proc.Identity
	generation uint64
	program    *program.Program // what this process runs
	report     program.Report   // of the upgrade that made it do so; zero: none
}

func newCop(ctx context.Context, b birth, e env) *cop {
	c := &cop{
		env: e, log: b.log, asked: ctx, heritage: b.heritage,
		self: b.self, ownGen: b.generation,
		fresh: b.fresh, first: b.fresh, program: b.program, upgrade: upgrade{report: b.report},
		events:  make(chan func()),
		over:    make(chan struct{}),
		manager: ward{role: supervise.Manager},
		server:  ward{role: supervise.Server},
		backoff: supervise.NewBackoff(supervise.BackoffPolicy{}),
		flap:    supervise.NewFlap(supervise.FlapPolicy{}),
		unheard: map[string]bool{},
	}
	c.work, c.rest = context.WithCancel(context.WithoutCancel(ctx))
	c.env.gate.Now = e.now
	// It has run before anybody is signalled: the manager may see the death at once, and looks then what was noted of it.
	c.env.gate.Report = func(d supervise.Decision) { c.do(func() { c.report(d) }) }
	c.gate = supervise.NewGate(supervise.KillAll, c.env.gate)
	c.apply(b.cfg)
	c.attach()
	return c
}

// post hands f to the loop. It returns false, without having run f, if the loop has ended.
func (c *cop) post(f func()) bool {
	select {
	case c.events <- f:
		return true
	case <-c.over:
		return false
	}
}

// do is post for who must know that f has run. Not to be called from the loop.
func (c *cop) do(f func()) bool {
	ran := make(chan struct{})
	if !c.post(func() { f(); close(ran) }) {
		return false
	}
	<-ran
	return true
}

// run is the loop. It returns the exit code once the instance is stopped, or could not
// be started. It has waited for every goroutine by then.
func (c *cop) run(signals <-chan os.Signal) exitcode.Code {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := c.asked.Done()
	for !c.done {
		select {
		case f := <-c.events:
			f()
		case sig := <-signals:
			c.signal(sig)
		case <-timer.C:
		case <-ended:
			ended = nil
			c.stop(draining)
		}
		c.turn()
		timer.Reset(c.pause())
	}
	c.rest()
	close(c.over)
	c.wg.Wait()
	return c.code
}

// turn is one round: beat, look, decide, act. A cop that is done does nothing more: what it started now would outlive it.
func (c *cop) turn() {
	if c.done {
		return
	}
	now := c.env.now()
	c.pulse.beat()
	c.env.beat(now)
	if c.region != nil {
		c.region.Role(stats.RoleCop).Progress.Add(1)
	}
	c.look()
	if c.phase != running {
		c.proceed()
		return
	}
	at := sight{m: c.managerView(now), s: c.serverView()}
	c.announce(at)
	if c.replacing {
		return
	}
	at.a = decide(c.cfg.Supervision.OnManagerDeath, at.m, at.s)
	if c.underWay(at.a) {
		return
	}
	c.note(at)
	c.act(at)
}

// underWay reports whether a is being done already.
func (c *cop) underWay(a action) bool {
	switch a {
	case killManager, abortManager:
		return c.manager.killing
	case killServer:
		return c.server.killing
	}
	return false
}

// note logs a look: each that leads to an action, and of the others the changes.
func (c *cop) note(at sight) {
	level := zerolog.DebugLevel
	if at.a != wait {
		level = zerolog.InfoLevel
	} else if at == c.seen {
		return
	}
	c.seen = at
	c.log.WithLevel(level).Stringer("manager", at.m).Stringer("server", at.s).Stringer("action", at.a).
		Int("manager_pid", pidOf(c.manager.p)).Int("server_pid", pidOf(c.server.p)).
		Str("on_manager_death", c.cfg.Supervision.OnManagerDeath).Msg("check_programs")
}

func pidOf(p process) int {
	if p == nil {
		return 0
	}
	return p.PID()
}

const (
	tickIdle = time.Second            // looks at the locks when nothing is expected
	tickBusy = 100 * time.Millisecond // when a process is expected to appear or to become ready
)

// pause is how long the loop may sleep: until something is due, a second at most.
func (c *cop) pause() time.Duration {
	now := c.env.now()
	d := tickIdle
	if !c.announced || c.server.p == nil || c.server.state == supervise.Starting || c.phase != running {
		d = tickBusy
	}
	if c.phase != running {
		return d
	}
	for _, w := range []*ward{&c.manager, &c.server} {
		if !w.probing && c.probeable(w) {
			d = min(d, w.probed.Add(c.cfg.Health.Interval).Sub(now))
		}
	}
	if c.manager.p == nil && c.alarm == "" && !c.replacing {
		d = min(d, c.dueAt(now).Sub(now))
	}
	return max(d, time.Millisecond)
}

// apply takes over a configuration.
func (c *cop) apply(cfg *config.Config) {
	c.cfg = cfg
	s, h := cfg.Supervision, cfg.Health
	policy, err := supervise.ParsePolicy(h.Kill)
	if err != nil {
		panic("cop: configuration was not checked: " + err.Error())
	}
	c.gate = c.gate.WithPolicy(policy)
	c.manager.strikes.Limit, c.server.strikes.Limit = h.Strikes, h.Strikes
	c.backoff.SetPolicy(supervise.BackoffPolicy{
		Budget: s.RestartBudget, Max: s.BackoffMax, Sustained: s.SustainedReady, Jitter: rand.Float64,
	})
	c.flap.SetPolicy(supervise.FlapPolicy{Starts: s.FlapLimit, Window: s.FlapWindow, Hold: s.FlapHold})
	c.env.tune(cfg)
}
