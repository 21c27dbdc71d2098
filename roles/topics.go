package roles

import (
	"strings"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/config"
)

// topics are the pages of "trafficd help TOPIC": commands without an action.
func topics() []*cobra.Command {
	page := func(name, short, long string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: strings.TrimSpace(long)}
	}
	var settings strings.Builder
	config.Describe(&settings)
	return []*cobra.Command{
		page("config", "Every setting of trafficd.yaml", settings.String()),
		page("signals", "What signals do", `
Signals to cop (the process that "trafficd cop" starts):

  TERM, QUIT   finish what is under way, then stop; exit code 0
  INT          stop now; exit code 0
  HUP          read the configuration again; a bad one is refused and logged
  USR1         reopen the log file
  USR2         upgrade to the executable that is on disk now

Manager and server obey the same signals, but are better left to cop.`),
		page("files", "What lies in the run root", `
Everything an instance owns lies below its run root (--run-root; by default
/run/trafficd for root, $XDG_RUNTIME_DIR/trafficd or /tmp/trafficd-UID else):

  cop.lock manager.lock server.lock   held by the process whose PID they name
  control.sock                        commands of trafficd ctl
  manager.sock                        where cop and server report to the manager
  server.sock                         heartbeats of the server
  trafficd.log                        the log of a daemon
  last-good.yaml                      the configuration in force
  crashes/                            how processes died: trafficd ctl crash list`),
		page("exit-codes", "What exit codes mean", `
  0    done
  1    failed
  64   usage: the command line is wrong
  69   no instance is running
  70   a bug
  75   try again: another process holds the lock or the address
  77   permission denied
  78   the configuration is wrong`),
	}
}
