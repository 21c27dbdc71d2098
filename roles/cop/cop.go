package cop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/supervise"
)

// Options is what the command line says.
type Options struct {
	Flags      config.Overrides
	Foreground bool      // false: become a daemon, and return when the instance is up
	Stderr     io.Writer // where the reason of a failure is written; nil: os.Stderr
}

// Run is the command "trafficd cop". It returns the exit status of the process: in the
// foreground when the instance has stopped or could not be started, otherwise when the
// daemon's instance is up or could not be started. The end of ctx is a request to stop,
// like TERM. The reason of every failure is on Stderr.
//
// Call it from main's goroutine, and proc.DaemonStage before anything else in main.
func Run(ctx context.Context, o Options) int {
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	run := foreground
	if !o.Foreground {
		run = daemonize
	}
	err := run(ctx, o)
	if err == nil {
		return int(exitcode.OK)
	}
	// The daemon's reason goes to whoever waits for it; in the foreground nobody does.
	code := exitcode.Of(err)
	_ = proc.NotifyError(errors.New(strconv.Itoa(int(code)) + " " + err.Error()))
	fmt.Fprintln(o.Stderr, explain(err))
	return int(code)
}

// explain leaves a configuration's errors as they are, "trafficd.yaml:12:5: …", so that
// an editor can jump to them.
func explain(err error) string {
	var ce *config.Error
	if errors.As(err, &ce) {
		return err.Error()
	}
	return "trafficd cop: " + err.Error()
}

// foreground is a cop's life.
func foreground(ctx context.Context, o Options) error {
	// A stop that comes from now on is read when the loop runs. It must not kill a cop that starts where another one was: the manager would
	// start the next, and nobody would know of the stop.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	generation := supervise.TakeGeneration()
	// First of all: descriptors are told by number, and every open could take one.
	former, resumeErr := resume()
	inherited, fresh, inheritErr := inherit()
	defer func() { inherited.Close() }()

	root, err := runroot.New(o.Flags.RunRoot)
	if err != nil {
		return err
	}
	o.Flags.RunRoot = root.Dir()
	exe, err := proc.OpenSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	cfg, loadErr := configure(o.Flags, root, fresh)
	if cfg == nil {
		return loadErr
	}
	lock, err := onDuty(root, former)
	if err != nil {
		return err
	}
	defer lock.Release()
	log, err := logging.ForRole("cop", root.LogFile(), cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	defer log.Close()

	stacksErr := crash.CatchOutput(root.Crashes(), "cop")
	nameErr := proc.SetName("traffic_cop")
	limit, limitErr := proc.RaiseNoFile()
	// A server whose manager has died becomes our child, not init's, so that its death
	// is reaped here, and nothing is left behind at a stop. PID 1 is that anyhow.
	reaperErr := proc.SetSubreaper(true)
	for what, err := range map[string]error{
		"heritage": inheritErr, "configuration": loadErr, "lock text": lock.TextError(),
		"process name": nameErr, "descriptor limit": limitErr, "subreaper": reaperErr, "upgrade": resumeErr, "stacks": stacksErr,
	} {
		if err != nil {
			log.Warn().Err(err).Str("what", what).Msg("cop starts nevertheless")
		}
	}
	for _, what := range config.Misnamed(os.Environ()) {
		log.Warn().Str("what", what).Msg("environment variable ignored")
	}
	log.Info().Str("run_root", root.Dir()).Uint64("generation", generation).Strs("heritage", inherited.Names()).
		Uint64("descriptor_limit", limit).Msg("cop starts")

	b := birth{
		cfg: cfg, log: log.Logger, heritage: inherited, fresh: fresh,
		self: proc.Self(), generation: generation, program: program.Of(exe), report: former.report,
	}
	inherited = heritage.New() // it is the loop's now
	e := liveEnv(o.Flags, root, exe, log)
	e.exec = func(x *program.Program, generation uint64, h *heritage.Set, r program.Report) error {
		return replaceSelf(o.Flags, lock, x, generation, h, r)
	}
	return watchOver(ctx, b, e, root, signals)
}

// watchOver runs the loop and what works beside it.
func watchOver(ctx context.Context, b birth, e env, root runroot.Root, signals <-chan os.Signal) error {
	sd, err := newSystemd()
	if err != nil {
		b.log.Warn().Err(err).Msg("systemd is not told")
	}
	e.say, e.beat = sd.say, sd.beat
	c := newCop(ctx, b, e)
	c.crashes = newLedger(root, b)
	reaper := proc.StartReaper(func(pid int, exit proc.Exit) {
		c.post(func() { c.log.Debug().Int("process_pid", pid).Stringer("status", exit).Msg("reaped") })
	})
	defer reaper.Close()
	tether := c.tether(context.WithoutCancel(ctx), root)
	defer tether.Close()
	c.env.tell, c.env.ask = c.teller(tether), c.asker(tether)
	looks := time.NewTicker(stallAfter / stallLooks)
	defer looks.Stop()
	c.wg.Go(func() { c.pulse.guard(looks.C, c.over, abort) })

	c.run(signals)
	c.heritage.Close()
	return c.failureError()
}

// inherit takes up what a manager, or systemd, passed to this cop. The set is never nil.
// fresh: no manager passed anything, so most likely there is none.
func inherit() (h *heritage.Set, fresh bool, err error) {
	h, err = heritage.FromEnv()
	fresh = h.Len() == 0
	s, serr := heritage.FromSystemd()
	_, merr := h.Merge(s)
	return h, fresh, errors.Join(err, serr, merr)
}

// configure loads the configuration. When an instance is up already, a file that has
// been broken meanwhile does not keep its cop from coming back: the last good
// configuration is returned together with the error.
func configure(flags config.Overrides, root runroot.Root, fresh bool) (*config.Config, error) {
	cfg, err := load(flags)
	first := fresh && !served(root)
	if err == nil && first {
		err = cfg.CheckPaths(nil)
	}
	if err == nil {
		return cfg, nil
	}
	if first {
		return nil, err
	}
	last, lastErr := config.LoadLastGood(root.LastGood())
	if lastErr != nil {
		return nil, errors.Join(err, lastErr)
	}
	return last.Config, fmt.Errorf("last good configuration is used: %w", err)
}

func load(flags config.Overrides) (*config.Config, error) {
	return config.Load(config.Sources{Flags: flags, Env: os.Environ()})
}

// served reports whether there is an instance, though it may lack a cop.
func served(root runroot.Root) bool { return held(root.ManagerLock()) || held(root.ServerLock()) }

func held(lock string) bool {
	_, held, err := lockfile.Holder(lock)
	return err == nil && held
}

// onDuty takes cop.lock, or takes it up from this process's former program. Another cop on duty is
// no fault: try again when it is gone.
func onDuty(root runroot.Root, former resumed) (*lockfile.Lock, error) {
	if former.lock != 0 {
		return lockfile.Resume(root.CopLock(), former.lock)
	}
	lock, err := lockfile.Acquire(root.CopLock())
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, exitcode.Errorf(exitcode.TryAgain, "another cop is on duty: %w", err)
	}
	return lock, err
}

// liveEnv is the real world, but for what watchOver adds.
func liveEnv(flags config.Overrides, root runroot.Root, exe *proc.Executable, log *logging.Log) env {
	lockPath := func(r supervise.Role) string {
		if r == supervise.Manager {
			return root.ManagerLock()
		}
		return root.ServerLock()
	}
	socket := func(r supervise.Role) string {
		if r == supervise.Manager {
			return root.ControlSocket()
		}
		return root.ServerSocket()
	}
	return env{
		now: time.Now,
		holder: func(r supervise.Role) int {
			owner, held, err := lockfile.Holder(lockPath(r))
			if err != nil || !held || !owner.FromKernel {
				return 0
			}
			return owner.PID
		},
		meet: func(r supervise.Role) (process, error) {
			p, err := supervise.Meet(r, lockPath(r), exe)
			if p == nil {
				return nil, err // not a process that is nil
			}
			return p, err
		},
		start: func(x *program.Program, generation uint64, h *heritage.Set) (process, error) {
			return startManager(flags, x.Exe, generation, h)
		},
		probe: func(ctx context.Context, r supervise.Role) error {
			return heartbeat.Probe(ctx, heartbeat.Unix(socket(r)), heartbeat.Path)
		},
		open: program.Open,
		gate: supervise.LiveEnv(lockPath, nil),
		load: func() (*config.Config, error) { return load(flags) },
		ready: func() {
			if err := proc.NotifyReady(); err != nil {
				log.Warn().Err(err).Msg("nobody waits for this start any more")
			}
		},
		alone: func() bool { return !proc.HasChildren() },
		tune: func(c *config.Config) {
			if err := log.SetLevel(c.Log.Level); err != nil {
				log.Warn().Err(err).Msg("log level unchanged")
			}
		},
		rotate: log.Rotate,
	}
}

// startManager starts a manager from exe.
func startManager(flags config.Overrides, exe *proc.Executable, generation uint64, h *heritage.Set) (process, error) {
	p, err := supervise.Start("manager", flags, exe, generation, h, true)
	if err != nil {
		return nil, err
	}
	return supervise.Child(supervise.Manager, p, exe), nil
}

// daemonize starts a cop in the background and waits until its instance is up.
func daemonize(ctx context.Context, o Options) error {
	cfg, err := load(o.Flags) // so that the position is told by the name the operator gave
	if err != nil {
		return err
	}
	for _, what := range config.Misnamed(os.Environ()) {
		fmt.Fprintln(o.Stderr, "trafficd cop: warning:", what)
	}
	root, err := runroot.New(o.Flags.RunRoot)
	if err != nil {
		return err
	}
	o.Flags.RunRoot = root.Dir()
	if owner, held, err := lockfile.Holder(root.CopLock()); err == nil && held {
		return exitcode.Errorf(exitcode.TryAgain, "another cop is on duty: %w", &lockfile.HeldError{Path: root.CopLock(), PID: owner.PID})
	}
	if !served(root) {
		if err := cfg.CheckPaths(nil); err != nil {
			return err
		}
	}
	exe, err := proc.OpenSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	out, err := os.OpenFile(root.LogFile(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer out.Close()

	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	limit := startLimit(cfg)
	ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("not ready within %v, see %s", limit, root.LogFile()))
	defer cancel()
	argv0, args := supervise.Command("cop", o.Flags)
	_, err = proc.Daemonize(ctx, proc.DaemonSpec{Exe: exe, Argv0: argv0, Args: args, Output: out})
	return refusal(err)
}

// startLimit is how long the whole instance may take to come up: each of its processes
// has its start deadline.
func startLimit(cfg *config.Config) time.Duration {
	return 2*cfg.Supervision.StartDeadline + 5*time.Second
}

// refusal gives a daemon's reason back its exit code, which Run wrote before it.
func refusal(err error) error {
	var r *proc.RefusedError
	if !errors.As(err, &r) {
		return err
	}
	number, reason, ok := strings.Cut(r.Reason, " ")
	code, convErr := strconv.Atoi(number)
	if !ok || convErr != nil {
		return err
	}
	return exitcode.Errorf(exitcode.Code(code), "%s", reason)
}
