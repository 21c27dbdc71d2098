package demo

import (
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/exitcode"
)

// Command is "trafficd demo" with everything below it. An error that a command
// returns has been written nowhere yet, and knows its exit code (exitcode.Of).
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "See for yourself what trafficd promises",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(c.ErrOrStderr())
			return errors.Join(exitcode.Errorf(exitcode.Usage, "%s: a command is missing", c.CommandPath()), c.Help())
		},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.Usage, err) })
	c.AddCommand(crashCommand())
	return c
}

// usage gives the error of an argument check its exit code.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		return exitcode.With(exitcode.Usage, check(c, args))
	}
}

func crashCommand() *cobra.Command {
	var o options
	var roles string
	c := &cobra.Command{
		Use:   "crash",
		Short: "Kill a private instance again and again, before the eyes of clients that check every byte",
		Long: `crash starts an instance of its own in a temporary directory, with an origin and
some fifty clients of all kinds: keep-alive and idle connections, downloads,
uploads, tunnels, pipelines, probes. Then it kills the instance's processes at
random with SIGKILL, and shows what the clients see of it.

Every byte is compared. Whatever is not as it must be is counted as a failure:
a connection that ends without need, a wrong byte, ten seconds without
progress, an upload that the origin gets twice, a cached object that is fetched
again. The exit code is 0 only if there was none.

ROLES are cop, manager, server, standby (the server that waits) and keeper (the
process that keeps a dead server's connections open), separated by commas;
those joined by + are killed at the same instant. A standby or keeper that does
not exist is not killed and not counted. "none" kills nobody.

What cannot be survived: a server and its keeper within the same few
milliseconds, and cop, manager, server and standby all at once. So a kill waits
until what the one before has taken is back; --wait-ready=false does not, and
loses connections whenever chance hits one of these.`,
		Args: usage(cobra.NoArgs),
	}
	f := c.Flags()
	f.DurationVar(&o.duration, "for", 30*time.Second, "kill for this long")
	f.DurationVar(&o.every, "every", 500*time.Millisecond, "kill this often, on the average; the times are random")
	f.StringVar(&roles, "roles", defaultRoles, "kill these `ROLES`")
	f.Uint64Var(&o.seed, "seed", 0, "choose whom and when by this number (default: a random one)")
	f.IntVar(&o.threads, "threads", 1, "run `N` event loops")
	f.BoolVar(&o.waitReady, "wait-ready", true, "before each kill wait until everybody is back, standby and keeper included; =false kills on regardless")
	f.BoolVar(&o.keepDir, "keep-dir", false, "keep the temporary directory, logs and all")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var err error
		if o.victims, err = parseVictims(roles); err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		if err := o.check(); err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		if !f.Changed("seed") {
			o.seed = rand.Uint64N(1_000_000)
		}
		return crash(c.Context(), o, os.Stdout)
	}
	return c
}

// options are the flags of "demo crash".
type options struct {
	duration  time.Duration
	every     time.Duration
	victims   []victim // empty: nobody is killed
	seed      uint64
	threads   int
	waitReady bool
	keepDir   bool
}

func (o options) check() error {
	switch {
	case o.duration <= 0:
		return errors.New("--for must be longer than nothing")
	case o.every < time.Millisecond:
		return errors.New("--every must be at least 1ms")
	case o.threads < 1 || o.threads > 64:
		return errors.New("--threads must be from 1 to 64")
	}
	return nil
}
