package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
)

// session is one run of a command.
type session struct {
	runRoot string // as on the command line
	timeout time.Duration

	ctx      context.Context
	root     runroot.Root
	client   *control.Client
	out, err io.Writer
}

// Command is "trafficd ctl" with everything below it. An error that a command returns has
// been written nowhere yet, and knows its exit code (exitcode.Of).
func Command() *cobra.Command {
	s := &session{}
	c := &cobra.Command{
		Use:   "ctl",
		Short: "Ask and control a running instance",
		Long: "Ask and control the instance of a run root, through its control socket.\n\n" +
			"Exit codes: 0 it has happened, 1 it failed, 64 wrong usage, 69 no instance runs,\n" +
			"75 not now, 77 no permission, 78 the configuration is refused.",
		Args:          usage(cobra.NoArgs),
		RunE:          missing,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.PersistentFlags().StringVar(&s.runRoot, "run-root", "", "directory of the instance (default "+runroot.Default()+")")
	c.PersistentFlags().DurationVar(&s.timeout, "timeout", 0, "give up after this time; 0: the instance's own time limits")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.Usage, err) })
	c.AddCommand(statusCommand(s), statsCommand(s), originsCommand(s), restartCommand(s), upgradeCommand(s), drainCommand(s), stopCommand(s), configCommand(s), logCommand(s), crashCommand(s), cacheCommand(s))
	return c
}

// missing is what a command does that is only a group of others.
func missing(c *cobra.Command, _ []string) error {
	c.SetOut(c.ErrOrStderr())
	if err := c.Help(); err != nil {
		return err
	}
	return exitcode.Errorf(exitcode.Usage, "%s: a command is missing", c.CommandPath())
}

// usage gives the error of an argument check its exit code.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		return exitcode.With(exitcode.Usage, check(c, args))
	}
}

// run makes a command's body of f.
func (s *session) run(f func(args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		root, err := openRoot(s.runRoot)
		if err != nil {
			return err
		}
		if s.timeout < 0 {
			return exitcode.Errorf(exitcode.Usage, "--timeout is %v, must not be negative", s.timeout)
		}
		s.root, s.client = root, control.Dial(root.ControlSocket())
		s.out, s.err = c.OutOrStdout(), c.ErrOrStderr()
		s.ctx = c.Context()
		if s.ctx == nil {
			s.ctx = context.Background()
		}
		if s.timeout > 0 {
			var cancel context.CancelFunc
			s.ctx, cancel = context.WithTimeoutCause(s.ctx, s.timeout, fmt.Errorf("not done after %v", s.timeout))
			defer cancel()
		}
		err = s.explain(f(args))
		return exitcode.With(exitcode.Of(err), err) // what has no code yet is not taken for wrong usage
	}
}

// openRoot names the run root. One that is not there is an instance that does not run; a file in its place is a slip of
// the operator's.
func openRoot(dir string) (runroot.Root, error) {
	root, err := runroot.Open(dir)
	if err != nil {
		return root, err
	}
	st, err := os.Stat(root.Dir())
	if errors.Is(err, syscall.ENOTDIR) || err == nil && !st.IsDir() {
		return root, exitcode.Errorf(exitcode.Usage, "run root %s: not a directory", root)
	}
	return root, nil
}

// explain says in the operator's words why nobody answered.
func (s *session) explain(err error) error {
	if err == nil {
		return nil
	}
	// Who waits himself says that the context is over; net/http gives its cause in place of that.
	if cause := context.Cause(s.ctx); cause != nil && (errors.Is(err, s.ctx.Err()) || errors.Is(err, cause)) {
		return exitcode.With(exitcode.TryAgain, cause)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	alive := s.alive()
	if len(alive) == 0 {
		return exitcode.Errorf(exitcode.NotRunning, "no instance runs in %s", s.root)
	}
	return exitcode.Errorf(exitcode.Failed, "no manager answers in %s; alive: %s", s.root, list(alive))
}

// poll asks cond again and again until it is true.
func (s *session) poll(cond func() bool) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for !cond() {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

func restartCommand(s *session) *cobra.Command {
	var now bool
	c := &cobra.Command{
		Use:   "restart [server|manager]",
		Short: "Replace the server (or the manager) by a new process",
		Long: "Replace a process by a new one, and return when the new one is ready.\n\n" +
			"The old server goes on until the new one is ready, which then takes its connections\n" +
			"over; without custody the old one finishes what it began. If the new one does not\n" +
			"become ready, the old one goes on.\n\n" +
			"A new manager adopts the running server, unless supervision.on_manager_death is\n" +
			"restart: then the server is replaced as well.",
		Args:      usage(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{"server", "manager"},
	}
	c.Flags().BoolVar(&now, "now", false, "end the old server first, without letting it finish")
	c.RunE = s.run(func(args []string) error {
		role := "server"
		if len(args) == 1 {
			role = args[0]
		}
		if role == "manager" {
			return s.restartManager(now)
		}
		a, err := s.client.Restart(s.ctx, control.Restart{Role: role, Now: now})
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "server %d (generation %d) is ready\n", a.PID, a.Generation)
		if a.OldPID != 0 {
			fmt.Fprintf(s.out, "server %d (generation %d) is gone\n", a.OldPID, a.OldGeneration)
		}
		return nil
	})
	return c
}

// restartManager waits for the answer of the next manager.
func (s *session) restartManager(now bool) error {
	old, err := s.client.Restart(s.ctx, control.Restart{Role: "manager", Now: now})
	if err != nil {
		return err
	}
	var status *control.Status
	err = s.poll(func() bool {
		next, err := s.client.Status(s.ctx)
		status = next
		return err == nil && next.Manager.PID != old.PID && next.Manager.State == "ready"
	})
	if err != nil {
		return fmt.Errorf("the old manager is gone and no new one answers: %w", err)
	}
	fmt.Fprintf(s.out, "manager %d (generation %d) is ready\n", status.Manager.PID, status.Manager.Generation)
	return nil
}

func drainCommand(s *session) *cobra.Command {
	var undo, wait bool
	c := &cobra.Command{
		Use:   "drain",
		Short: "Have the server end its connections, each with its next answer",
		Long: "Have the server end each connection with the answer under way, or at once if it is\n" +
			"idle. New connections are still served, one request each: take the address out of\n" +
			"the load balancer as well. A new server does not drain.",
		Args: usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&undo, "undo", false, "take it back")
	c.Flags().BoolVar(&wait, "wait", false, "return when no connection is left")
	c.RunE = s.run(func([]string) error {
		if undo && wait {
			return exitcode.Errorf(exitcode.Usage, "--undo and --wait exclude each other")
		}
		if err := s.client.Drain(s.ctx, control.Drain{Undo: undo}); err != nil {
			return err
		}
		if !wait {
			return nil
		}
		var failed error
		err := s.poll(func() bool {
			status, err := s.client.Status(s.ctx)
			failed = err
			return err != nil || status.Traffic.Connections == 0
		})
		return errors.Join(err, failed)
	})
	return c
}

func logCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "log", Short: "Logs", Args: usage(cobra.NoArgs),
		RunE: missing,
	}
	c.AddCommand(&cobra.Command{
		Use:   "reopen",
		Short: "Have manager and server open their log again, after a rotation",
		Args:  usage(cobra.NoArgs),
		RunE:  s.run(func([]string) error { return s.client.ReopenLog(s.ctx) }),
	})
	return c
}

func configCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Configuration", Args: usage(cobra.NoArgs),
		RunE: missing,
	}
	c.AddCommand(reloadCommand(s), checkCommand(s), showCommand(s), describeCommand())
	return c
}

func reloadCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again; the exit code is the verdict",
		Args:  usage(cobra.NoArgs),
		RunE: s.run(func([]string) error {
			v, err := s.client.Reload(s.ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(s.out, "configuration %d is in force\n", v.Generation)
			s.changes(v.Changes)
			return nil
		}),
	}
}

func checkCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check FILE, or without one what a reload of the instance would do",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: s.run(func(args []string) error {
			if len(args) == 1 {
				c, err := config.Load(config.Sources{Flags: config.Overrides{Config: args[0]}})
				if err == nil {
					err = c.CheckPaths(nil)
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(s.out, "%s is good\n", args[0])
				s.warn(config.Misnamed(os.Environ()))
				return nil
			}
			v, err := s.client.Check(s.ctx)
			if err != nil {
				return err
			}
			fmt.Fprintln(s.out, "the configuration is good")
			s.changes(v.Changes)
			s.warn(v.Warnings)
			return nil
		}),
	}
}

// warn writes what is no error, and hardly meant.
func (s *session) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(s.err, "warning:", w)
	}
}

// changes lists what is different, and what must be restarted for it.
func (s *session) changes(changes []control.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(s.out, "nothing has changed")
		return
	}
	for _, c := range changes {
		note := ""
		if c.NeedsRestart {
			note = "   (needs a restart)"
		}
		fmt.Fprintf(s.out, "  %s: %s → %s%s\n", c.Name, quote(c.Old), quote(c.New), note)
		for _, e := range c.Entries {
			fmt.Fprintf(s.out, "    %s\n", e)
		}
	}
}

func quote(value string) string {
	if value == "" {
		return `""`
	}
	return value
}

func showCommand(s *session) *cobra.Command {
	var effective, asJSON bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration in force",
		Args:  usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&effective, "effective", false, "every setting with where its value came from (the default form)")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.MarkFlagsMutuallyExclusive("effective", "json")
	c.RunE = s.run(func([]string) error {
		a, err := s.client.Configuration(s.ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(a.Config)
		}
		_, err = io.WriteString(s.out, a.Effective)
		return err
	})
	return c
}

func describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe [SETTING|SECTION]...",
		Short: "Describe the settings",
		RunE: func(c *cobra.Command, args []string) error {
			return exitcode.With(exitcode.Usage, config.Describe(c.OutOrStdout(), args...))
		},
	}
}
