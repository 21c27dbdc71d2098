package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"trafficd/roles/cop"
	"trafficd/roles/ctl"
	"trafficd/roles/demo"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/program"
	"trafficd/roles/manager"
	"trafficd/roles/server"
)

// Main runs the role that args, a process's arguments with argv[0], name. It
// returns the exit code.
func Main(args []string) int {
	root := command()
	root.SetArgs(roleArgs(args))
	err := root.ExecuteContext(context.Background())
	crash.ReleaseOutput() // a role ends in good order here, or has crashed
	if err == nil {
		return int(exitcode.OK)
	}
	var done exit
	if errors.As(err, &done) {
		return int(done)
	}
	fmt.Fprintln(os.Stderr, "trafficd:", err)
	var coded exitcode.Coder
	if !errors.As(err, &coded) {
		// Only cobra's own errors carry no code, and they are about usage.
		fmt.Fprintln(os.Stderr, "Run 'trafficd --help' for usage.")
		return int(exitcode.Usage)
	}
	return int(exitcode.Of(err))
}

// exit is the exit code of a role that has said all there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return exit(code)
}

// roleNames are what argv[0] and the first argument may call a role.
var roleNames = []string{"cop", "manager", "server", "ctl"}

// roleArgs turns argv[0], if it names a role, into the subcommand it stands for.
func roleArgs(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	name := filepath.Base(args[0])
	for _, prefix := range []string{"traffic_", "trafficd-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	for _, role := range roleNames {
		if name != role {
			continue
		}
		if len(args) > 1 && args[1] == role {
			return args[1:] // both agree: a child of another role
		}
		return append([]string{role}, args[1:]...)
	}
	return args[1:]
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "trafficd",
		Short: "An HTTP cache and proxy that survives its own crashes",
		Long: `trafficd is an HTTP cache and proxy that survives its own crashes.

Three processes serve together: cop watches, manager owns the listeners and
supervises, server speaks HTTP. Whichever dies is replaced by another.

Start here, and look at http://127.0.0.1:8080/:

  trafficd cop --foreground

In front of an origin of your own:

  trafficd cop --foreground --listen 127.0.0.1:8080 --map /=http://127.0.0.1:9000

Ask and command a running instance:

  trafficd ctl status`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(os.Stderr)
			if err := cmd.Help(); err != nil {
				return err
			}
			return exit(exitcode.Usage)
		},
	}
	root.SetVersionTemplate("trafficd {{.Version}}\n")
	root.AddCommand(copCommand(), roleCommand("manager", "manager", runManager), roleCommand("server", "server", runServer), ctl.Command(), demo.Command())
	root.AddCommand(versionCommand())
	root.AddCommand(topics()...)
	return root
}

// version is what the build knows of itself.
func version() string {
	v := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionCommand is what an upgrade asks of an executable before it uses it.
func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is, and which it can work with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), program.Text(version()))
			return err
		},
	}
}

func copCommand() *cobra.Command {
	var o cop.Options
	cmd := &cobra.Command{
		Use:   "cop",
		Short: "Start an instance: watch over manager and server",
		Long: `cop starts an instance and watches over it: it starts the manager, which starts
the server, and replaces what dies or hangs.

Without --foreground it becomes a daemon, and the command returns when the
instance is ready, or says why it is not. With --foreground it stays, logs to
standard error, and is fit to be PID 1 of a container.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return exitWith(cop.Run(cmd.Context(), o))
		},
	}
	cmd.Flags().BoolVar(&o.Foreground, "foreground", false, "stay in the foreground and log to standard error")
	addFlags(cmd, &o.Flags)
	return cmd
}

// roleCommand is a role that another role starts.
func roleCommand(name, what string, run func(context.Context, config.Overrides) int) *cobra.Command {
	var flags config.Overrides
	cmd := &cobra.Command{
		Use:   name,
		Short: "The " + what + "'s part of an instance; started by trafficd itself",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return exitWith(run(cmd.Context(), flags))
		},
	}
	addFlags(cmd, &flags)
	return cmd
}

func runManager(ctx context.Context, flags config.Overrides) int {
	return manager.Run(ctx, manager.Options{Flags: flags})
}

func runServer(ctx context.Context, flags config.Overrides) int {
	return server.Run(ctx, server.Options{Flags: flags})
}

// addFlags adds the flags that all roles of an instance share.
func addFlags(cmd *cobra.Command, o *config.Overrides) {
	f := cmd.Flags()
	f.StringVar(&o.Config, "config", "", "read the configuration from `FILE`")
	f.StringVar(&o.RunRoot, "run-root", "", "keep sockets, locks and logs in `DIR`, made if missing (default: by user)")
	f.StringArrayVar(&o.Listen, "listen", nil, "accept clients on `ADDR`; repeatable (default 127.0.0.1:8080)")
	f.StringArrayVar(&o.Map, "map", nil, "send requests below a prefix to an origin, as `PREFIX=ORIGIN`; repeatable")
	f.StringVar(&o.Autoconf, "autoconf", "", "serve proxy.pac and metrics on `ADDR`, or off (default 127.0.0.1:8083)")
	f.StringVar(&o.Threads, "threads", "", "run `N` event loops (default: one for each CPU)")
	f.StringVar(&o.Custody, "custody", "", "keep connections through the death of a server, `true` or false (default true)")
	f.Lookup("custody").NoOptDefVal = "true"
}
