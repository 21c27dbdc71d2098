package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
	"trafficd/roles/manager/autoconf"
)

// Options is what the command line says.
type Options struct {
	Flags  config.Overrides
	Stderr io.Writer // where the reason of a failure is written; nil: os.Stderr
}

// Run is the command "trafficd manager", which a cop starts. It returns the exit status of
// the process. The end of ctx is a request to stop, like TERM. The reason of every failure is
// told to whoever started it (proc.NotifyError) and written to Stderr.
//
// Call it from main's goroutine.
func Run(ctx context.Context, o Options) int {
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	err := live(ctx, o)
	if err == nil {
		return int(exitcode.OK)
	}
	_ = proc.NotifyError(errors.New(explain(err)))
	fmt.Fprintln(o.Stderr, explain(err))
	return int(exitcode.Of(err))
}

// explain leaves a configuration's errors as they are, so that an editor can jump to them.
func explain(err error) string {
	var ce *config.Error
	if errors.As(err, &ce) {
		return err.Error()
	}
	return "trafficd manager: " + err.Error()
}

// live is a manager's life.
func live(ctx context.Context, o Options) error {
	self := birth{id: proc.Self(), generation: supervise.TakeGeneration()}
	// First of all: descriptors are told by number, and every open could take one.
	inherited, inheritErr := heritage.FromEnv()
	es, statsErr := newEstate(inherited)
	defer es.close()

	root, err := runroot.New(o.Flags.RunRoot)
	if err != nil {
		return err
	}
	o.Flags.RunRoot, self.runRoot = root.Dir(), root.Dir()
	exe, err := proc.OpenSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	lock, err := onDuty(root)
	if err != nil {
		return err
	}
	defer lock.Release()
	log, err := logging.ForRole("manager", root.LogFile(), "", "")
	if err != nil {
		return err
	}
	defer log.Close()
	stacksErr := crash.CatchOutput(root.Crashes(), "manager")
	nameErr := proc.SetName("traffic_manager")
	_, limitErr := proc.RaiseNoFile()
	for what, err := range map[string]error{
		"heritage": inheritErr, "statistics": statsErr, "lock text": lock.TextError(), "process name": nameErr, "descriptor limit": limitErr,
		"stacks": stacksErr,
	} {
		if err != nil {
			log.Warn().Err(err).Str("what", what).Msg("manager starts nevertheless")
		}
	}
	server, err := supervise.Meet(supervise.Server, root.ServerLock(), exe)
	if err != nil {
		// Somebody holds server.lock whom we do not know. A server that is started will say so.
		log.Error().Err(err).Msg("server not met")
	}
	cfg, published, cfgErr := configure(o.Flags, root, es.born(), server != nil)
	if cfg == nil {
		return cfgErr
	}
	if log, err = relog(log, root, cfg); err != nil {
		return err
	}
	defer log.Close()
	log.Info().Str("run_root", root.Dir()).Uint64("generation", self.generation).Strs("heritage", inherited.Names()).
		Uint64("config", cfg.Generation).Msg("manager starts")

	m := newManager(liveEnv(o.Flags, root, exe, log), log.Logger, self, cfg, es)
	m.published = published
	m.program = program.Of(exe)
	if cfgErr != nil {
		m.badFile = cfgErr.Error()
		log.Error().Err(cfgErr).Msg("configuration file refused, the last good one is used")
	}
	return serve(ctx, m, root, server)
}

// relog is the log as the configuration wants it.
func relog(old *logging.Log, root runroot.Root, cfg *config.Config) (*logging.Log, error) {
	log, err := logging.ForRole("manager", root.LogFile(), cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return nil, err
	}
	old.Close()
	return log, nil
}

// onDuty takes manager.lock.
func onDuty(root runroot.Root) (*lockfile.Lock, error) {
	lock, err := lockfile.Acquire(root.ManagerLock())
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, exitcode.Errorf(exitcode.TryAgain, "another manager is on duty: %w", err)
	}
	return lock, err
}

// configure finds the configuration: in a living instance (one that was born, or whose server
// lives) what was published last, and when that was; else the file, with a zero time. With the former it returns also why the file is
// refused, if it is; without a configuration, the error alone.
func configure(flags config.Overrides, root runroot.Root, born time.Time, served bool) (*config.Config, time.Time, error) {
	fresh, freshErr := config.Load(config.Sources{Flags: flags, Env: os.Environ()})
	last, err := config.LoadLastGood(root.LastGood())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && fresh == nil {
		freshErr = errors.Join(freshErr, err)
	}
	if err == nil && (served || !born.IsZero() && last.Saved.After(born)) {
		if fresh != nil && len(config.Diff(last.Config, fresh)) == 0 {
			return fresh.WithGeneration(last.Config.Generation), last.Saved, nil
		}
		return last.Config, last.Saved, freshErr
	}
	if fresh == nil {
		return nil, time.Time{}, freshErr
	}
	return fresh.WithGeneration(1), time.Time{}, nil
}

// version of the program, as it stands in last-good.yaml.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// settleTime is how long a manager waits for what only a living server holds.
const settleTime = 5 * time.Second

// serve opens the sockets and runs the loop.
func serve(ctx context.Context, m *manager, root runroot.Root, server *supervise.Peer) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE)

	if server != nil {
		m.takeServer(server)
	}
	m.meetStandbys()
	hubListener, err := runroot.ListenUnix(root.ManagerSocket(), runroot.Packet)
	if err != nil {
		return m.never(fmt.Errorf("open manager socket: %w", err))
	}
	hub := link.Serve(hubListener, m.linkOptions())
	defer hub.Close()
	if server != nil && m.estate.lacks(m.cfg) {
		if !m.await(settleTime, func() bool { return m.active == nil || !m.estate.lacks(m.cfg) }) {
			m.log.Warn().Msg("server has not handed its heritage back")
		}
	}
	if err := m.untilReleased(m.provide); err != nil {
		return m.never(bindError(err))
	}
	stopControl, err := m.openControl(root)
	if err != nil {
		return m.never(err)
	}
	defer stopControl()
	var stopAutoconf func()
	err = m.untilReleased(func() (err error) {
		stopAutoconf, err = m.openAutoconf()
		return err
	})
	if err != nil {
		return m.never(bindError(err))
	}
	defer stopAutoconf()
	m.enterReady()
	m.run(ctx, signals)
	return nil
}

// never ends the goroutines of a manager whose loop has not run.
func (m *manager) never(err error) error {
	m.rest()
	close(m.over)
	if perr := m.pump.close(); perr != nil {
		m.log.Debug().Err(perr).Msg("pump")
	}
	m.wg.Wait()
	return err
}

// bindError gives an address in use its exit code: whoever has it may go.
func bindError(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return exitcode.With(exitcode.TryAgain, err)
	}
	return err
}

// releaseTime is how long a manager waits for an address that nobody alive is seen to have: an instance that was killed has its
// listeners until the kernel has torn down its memory.
const releaseTime = 10 * time.Second

// untilReleased has f bind what it binds, again while an address is in use by somebody who may be about to close it.
func (m *manager) untilReleased(f func() error) error {
	limit := m.env.now().Add(releaseTime)
	for waited := false; ; waited = true {
		err := f()
		var used *queue.InUseError
		if !errors.As(err, &used) || used.Alive || m.env.now().After(limit) {
			return err
		}
		if !waited {
			m.log.Info().Str("address", used.Addr).Str("holder", used.Holder).Msg("waiting for an address that nobody alive is seen to have")
		}
		m.await(20*time.Millisecond, func() bool { return false })
	}
}

// await runs what is posted until cond is true, for a limited time. False: it is not.
func (m *manager) await(limit time.Duration, cond func() bool) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	for !cond() {
		select {
		case f := <-m.events:
			f()
		case <-t.C:
			return false
		}
	}
	return true
}

// takeServer adopts the server that holds server.lock.
func (m *manager) takeServer(p process) {
	now := m.env.now()
	u := &unit{p: p, started: now, generation: m.generationOf(p.PID()), served: true, exe: p.Target().Known.Exe}
	u.enter(supervise.Adopted, now)
	m.active = u
	m.pump.serving(true, now)
	m.about(m.log.Info(), u).Msg("adopt_server")
	m.watch(u)
}

// generationOf is the number of a server that an earlier manager has started; 0: not known. The record of the role may be
// another's: of one that has taken over from it, while the kernel still takes it to pieces.
func (m *manager) generationOf(pid int) uint64 {
	if g := m.estate.region.GenerationOf(pid); g != 0 {
		return g
	}
	if r := m.serverRecord(); r.PID.Load() == uint64(pid) {
		return r.Generation.Load()
	}
	return 0
}

// meetStandbys takes in the servers that an earlier manager has started and that do not hold
// server.lock: shared memory names them. So a standby that has not dialled in yet is known,
// and no other is started beside it.
func (m *manager) meetStandbys() {
	for i := range uint64(stats.Banks) {
		b := m.estate.region.Bank(i)
		pid, start := b.Process()
		if pid == 0 || start == 0 || m.byPID(pid) != nil {
			continue
		}
		p, err := m.env.adopt(pid, start, true)
		if err != nil {
			m.log.Debug().Err(err).Int("process_pid", pid).Msg("server of an earlier manager is gone")
			continue
		}
		m.expect(p, b.Generation())
	}
}

// expect takes in a server that has not dialled in. The youngest is the one that follows.
func (m *manager) expect(p process, generation uint64) {
	now := m.env.now()
	u := &unit{p: p, generation: generation, started: now, exe: p.Target().Known.Exe}
	u.enter(supervise.Started, now)
	late := u
	if (m.active == nil || generation > m.active.generation) && (m.next == nil || generation > m.next.generation) {
		late, m.next = m.next, u
	}
	if late != nil {
		// It finishes what it began, or is dying, or was one too many, which may take over as well as the other: it says so
		// when it dials in.
		late.asked = true
		m.old[late] = true
		m.escort(late)
	}
	m.about(m.log.Info(), u).Msg("server of an earlier manager expected")
	m.watch(u)
}

// provide makes the estate complete. With a server to adopt, its listeners are left as they
// are: a new one, or one less, is the affair of the next server.
func (m *manager) provide() error {
	var err error
	if m.active != nil {
		// Custody begins and ends with a server.
		_, err = m.estate.provideMemory(m.estate.standing(m.cfg), m.log)
		err = errors.Join(err, m.estate.view(m.cfg))
	} else {
		// Servers may have died with the last manager, and what they had waits in the journal for the next one.
		err = m.estate.provide(m.estate.standing(m.cfg), m.log)
	}
	if err != nil {
		return err
	}
	for g := range uint64(stats.Banks) {
		m.last = max(m.last, m.estate.region.Bank(g).Generation())
	}
	if u := m.active; u != nil {
		u.generation = max(u.generation, m.generationOf(u.p.PID()))
	}
	return m.pump.configure(m.cfg.Queue, m.estate)
}

// enterReady says that there is a manager.
func (m *manager) enterReady() {
	r := m.estate.region.Role(stats.RoleManager)
	r.Enter(m.self.id.PID, m.self.id.StartTime, m.self.generation)
	r.State.Store(uint64(stats.Ready))
	if err := proc.NotifyReady(); err != nil {
		m.log.Warn().Err(err).Msg("nobody waits for this start any more")
	}
	m.log.Info().Uint64("generation", m.self.generation).Int("server_pid", pidOf(m.active)).Msg("manager ready")
	if m.published.IsZero() {
		m.saveFirst()
	}
}

// saveFirst stores the configuration of the first start, once there is the shared memory by
// whose age the next manager tells that it is of this life of the instance.
func (m *manager) saveFirst() {
	m.published = m.env.now()
	cfg := m.cfg
	m.wg.Go(func() {
		if err := m.env.save(cfg); err != nil {
			// A full disk must not keep a service from being started.
			m.log.Error().Err(err).Msg("last good configuration not saved")
		}
	})
}

// lastWords is how long answers under way may take when the manager ends. Whoever has
// connected and asked nothing is waited for as well, so it is short.
const lastWords = 500 * time.Millisecond

// openControl serves control.sock. The result ends it.
func (m *manager) openControl(root runroot.Root) (func(), error) {
	l, err := runroot.ListenUnix(root.ControlSocket(), runroot.Stream)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return m.serveHTTP(newControlServer(&controller{m}), autoconf.Limit(trusting{l}, controlConns)), nil
}

// autoconfConns bounds the connections to the autoconfiguration port.
const autoconfConns = 256

// openAutoconf serves the autoconfiguration port. The result ends it.
func (m *manager) openAutoconf() (func(), error) {
	f, err := m.estate.provideAutoconf(m.cfg)
	if err != nil || f == nil {
		return func() {}, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("autoconfiguration port: %w", err)
	}
	m.autoconf = autoconf.New(autoconf.Options{
		Pulse: m.pulse,
		Metrics: func(w io.Writer) error {
			r := m.region.Load()
			if err := r.WritePrometheus(w); err != nil {
				return err
			}
			return m.writeOrigins(w)
		},
		Failed: func(path string, err error) { m.log.Error().Err(err).Str("path", path).Msg("autoconfiguration") },
	})
	m.autoconfAddr = l.Addr().String()
	m.showAutoconf()
	return m.serveHTTP(autoconf.NewServer(m.autoconf), autoconf.Limit(l, autoconfConns)), nil
}

// showAutoconf has the autoconfiguration port say what is in force.
func (m *manager) showAutoconf() {
	m.region.Store(m.estate.region)
	if m.autoconf == nil {
		return
	}
	s := autoconf.Settings{PACFile: m.cfg.Autoconf.PACFile, Forward: m.cfg.Forward.Enabled()}
	for _, l := range m.estate.listeners {
		s.Proxies = append(s.Proxies, l.Addr())
	}
	m.autoconf.Set(s)
}

func (m *manager) serveHTTP(s *http.Server, l net.Listener) func() {
	s.ErrorLog = stdLogger(m.log)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error().Err(err).Msg("http server ended")
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
		<-served
	}
}

// liveEnv is the real world.
func liveEnv(flags config.Overrides, root runroot.Root, exe *proc.Executable, log *logging.Log) env {
	serverLock := func(supervise.Role) string { return root.ServerLock() }
	return env{
		now: time.Now,
		start: func(x *program.Program, generation uint64, h *heritage.Set) (process, error) {
			p, err := supervise.Start(roleServer, flags, x.Exe, generation, h, true)
			if err != nil {
				return nil, err
			}
			return supervise.Child(supervise.Server, p, x.Exe), nil
		},
		adopt: func(pid int, startTime uint64, known bool) (process, error) {
			return adoptServer(root, exe, pid, startTime, known)
		},
		holder: func() int {
			owner, held, err := lockfile.Holder(root.ServerLock())
			if err != nil || !held || !owner.FromKernel {
				return 0
			}
			return owner.PID
		},
		gate: supervise.LiveEnv(serverLock, nil),
		load: func() (*config.Config, error) {
			return config.Load(config.Sources{Flags: flags, Env: os.Environ()})
		},
		save: func(c *config.Config) error { return config.SaveLastGood(root.LastGood(), c, version()) },
		tune: func(c *config.Config) {
			if err := log.SetLevel(c.Log.Level); err != nil {
				log.Warn().Err(err).Msg("log level unchanged")
			}
		},
		rotate: log.Rotate,
		try:    program.Try,
		open:   program.Open,
		copHolder: func() (int, bool) {
			owner, held, err := lockfile.Holder(root.CopLock())
			if err != nil {
				return 0, true // not known: better none too many
			}
			if !owner.FromKernel {
				return 0, held
			}
			return owner.PID, held
		},
		copStart: func(generation uint64, h *heritage.Set) (process, error) {
			p, err := supervise.Start(roleCop, flags, exe, generation, h, false)
			if err != nil {
				return nil, err
			}
			return &supervise.Peer{Process: p}, nil
		},
		copAdopt: func(pid int, startTime uint64) (process, error) {
			p, err := proc.Adopt(pid, startTime)
			if err != nil {
				return nil, err
			}
			return &supervise.Peer{Process: p}, nil
		},
	}
}

// adoptServer makes sure that whoever dialled in as a server is one of ours: the holder of
// server.lock, a process that runs the executable we run, or (known) one that is named in shared
// memory.
func adoptServer(root runroot.Root, exe *proc.Executable, pid int, startTime uint64, known bool) (process, error) {
	p, err := proc.Adopt(pid, startTime)
	if err != nil {
		return nil, err
	}
	file, err := p.Exe()
	id := supervise.Identity{PID: pid, StartTime: p.Identity().StartTime}
	if err == nil {
		id.Exe = supervise.ExeText(file)
	}
	owner, held, _ := lockfile.Holder(root.ServerLock())
	holder := held && owner.FromKernel && owner.PID == pid
	if !known && !holder && err == nil && file != exe.ID() {
		p.Release()
		return nil, fmt.Errorf("pid %d neither holds %s nor runs trafficd", pid, root.ServerLock())
	}
	return &supervise.Peer{
		Process: p, Role: supervise.Server, Known: id, Vouched: true,
	}, nil
}
