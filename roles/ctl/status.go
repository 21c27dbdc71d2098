package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"trafficd/lockfile"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/supervise"
)

func statusCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the three processes, the traffic and what is wrong",
		Args:  usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func([]string) error {
		st, err := s.client.Status(s.ctx)
		if errors.Is(err, control.ErrNotRunning) {
			return s.withoutManager(asJSON)
		}
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(st)
		}
		return writeStatus(s.out, st)
	})
	return c
}

// withoutManager says what the lock files tell. It always fails: an instance without a
// manager is not well.
func (s *session) withoutManager(asJSON bool) error {
	alive := s.alive()
	if len(alive) == 0 {
		return control.ErrNotRunning
	}
	st := &control.Status{RunRoot: s.root.Dir(), Phase: "unknown", Alarms: []string{"no manager answers"}}
	for role, p := range map[string]*control.Process{"cop": &st.Cop, "manager": &st.Manager, "server": &st.Server} {
		p.State = "stopped"
		if pid, ok := alive[role]; ok {
			p.State, p.PID = "unknown", pid
		}
	}
	if asJSON {
		return errors.Join(s.json(st), errNoManager)
	}
	return errors.Join(writeStatus(s.out, st), errNoManager)
}

var errNoManager = exitcode.Errorf(exitcode.Failed, "no manager answers")

// alive are the roles whose locks are held, with the PID of the holder, 0 if it is not known.
func (s *session) alive() map[string]int {
	found := map[string]int{}
	for role, path := range s.locks() {
		if owner, held, err := lockfile.Holder(path); err == nil && held {
			found[role] = owner.PID
		}
	}
	return found
}

func (s *session) locks() map[string]string {
	return map[string]string{"cop": s.root.CopLock(), "manager": s.root.ManagerLock(), "server": s.root.ServerLock()}
}

func list(alive map[string]int) string {
	var all []string
	for _, role := range slices.Sorted(maps.Keys(alive)) {
		all = append(all, fmt.Sprintf("%s (pid %d)", role, alive[role]))
	}
	return strings.Join(all, ", ")
}

func (s *session) json(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeStatus is the status for people.
func writeStatus(w io.Writer, s *control.Status) error {
	if v := s.Survival; v != nil {
		fmt.Fprintf(w, "crashes masked %d, requests resumed %d, requests lost %d\n\n", v.CrashesMasked, v.RequestsResumed, v.RequestsLost)
	} else {
		fmt.Fprint(w, "crashes masked, requests resumed, requests lost: not known\n\n")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROCESS\tSTATE\tPID\tGENERATION\tUPTIME\tRESTARTS")
	row := func(name string, p control.Process) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", name, p.State, number(p.PID), number(p.Generation), uptime(p), p.Restarts)
	}
	row("cop", s.Cop)
	row("manager", s.Manager)
	row("server", s.Server)
	if s.NextServer != nil {
		row("  next", *s.NextServer)
	}
	for _, p := range s.OldServers {
		row("  old", p)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writeFacts(t, s)
	return t.Flush()
}

func writeFacts(w io.Writer, s *control.Status) {
	fmt.Fprintf(w, "run root\t%s\n", s.RunRoot)
	for _, l := range s.Listeners {
		note := ""
		if l.Queued > 0 {
			note = fmt.Sprintf(" (%d of %d waiting)", l.Queued, l.Backlog)
		}
		fmt.Fprintf(w, "listener\t%s%s\n", l.Address, note)
	}
	if s.Autoconf != "" {
		fmt.Fprintf(w, "autoconf\t%s\n", s.Autoconf)
	}
	tr := s.Traffic
	if s.Custody != "" {
		fmt.Fprintf(w, "custody\t%s\n", s.Custody)
	}
	if u := s.Upgrade; u != nil && u.State != program.Done {
		fmt.Fprintf(w, "upgrade\t%s to %s\n", u.State, u.Binary)
		for _, step := range u.Steps {
			fmt.Fprintf(w, "\t%s\n", stepText(step))
		}
	}
	fmt.Fprintf(w, "connections\t%d (%d in all)\n", tr.Connections, tr.ConnectionsTotal)
	fmt.Fprintf(w, "requests\t%d\n", tr.Requests)
	fmt.Fprintf(w, "cache hits\t%d, misses %d (%.1f%% hits)\n", tr.Hits, tr.Misses, 100*tr.HitRatio)
	if tr.OriginsDown > 0 {
		fmt.Fprintf(w, "origins\t%d servers are down (trafficd ctl origins)\n", tr.OriginsDown)
	}
	if s.Queue.State != "" {
		fmt.Fprintf(w, "queue\t%d of %d, %d answered 503 (%s)\n", s.Queue.Depth, s.Queue.Limit, s.Queue.Expired, s.Queue.State)
	}
	file := s.Config.File
	if file == "" {
		file = "no file"
	}
	if s.Config.Generation > 0 {
		fmt.Fprintf(w, "configuration\t%d, %s\n", s.Config.Generation, file)
	}
	if len(s.Config.NeedsRestart) > 0 {
		fmt.Fprintf(w, "needs a restart\t%s\n", strings.Join(s.Config.NeedsRestart, ", "))
	}
	writeTrouble(w, s)
}

// writeTrouble says why something is not as it should be.
func writeTrouble(w io.Writer, s *control.Status) {
	if s.Server.Reason != "" {
		missing := "server"
		if st := s.Server.State; st == supervise.Ready.String() || st == supervise.Draining.String() {
			missing = "standby"
		}
		fmt.Fprintf(w, "why no %s\t%s\n", missing, s.Server.Reason)
	}
	if r := s.Server.Retry; r != nil {
		fmt.Fprintf(w, "next try\tin %s (delay %s, attempt %d)\n", seconds(r.InSeconds), seconds(r.DelaySeconds), r.Attempt)
	}
	for _, t := range s.Trouble {
		fmt.Fprintf(w, "%s\t%s since %s: %s\n", plain(t.What), plain(t.State), t.Since.Local().Format(time.DateTime), plain(t.Reason))
	}
	for _, a := range s.Alarms {
		fmt.Fprintf(w, "ALARM\t%s\n", strings.ReplaceAll(a, "\n", "\n\t"))
	}
}

// number is n, or a hyphen for none.
func number[N int | uint64](n N) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// uptime is short: the two largest units.
func uptime(p control.Process) string {
	if p.PID == 0 || p.Started.IsZero() {
		return "-"
	}
	d := time.Duration(p.UptimeSeconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func statsCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "stats [PATTERN]",
		Short: "Show the counters whose names match PATTERN, such as 'cache_*', or have it in them",
		Args:  usage(cobra.MaximumNArgs(1)),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON, with the processes and loops")
	c.RunE = s.run(func(args []string) error {
		wanted := strings.Join(args, "")
		pattern := wanted
		if wanted != "" && !strings.ContainsAny(wanted, `*?[\`) {
			pattern = "*" + wanted + "*"
		}
		snap, err := s.client.Stats(s.ctx, pattern)
		if err != nil {
			return err
		}
		if n, whole := snap.Metrics[wanted]; whole {
			snap.Metrics = map[string]uint64{wanted: n}
		}
		if asJSON {
			return s.json(snap)
		}
		if len(snap.Metrics) == 0 && wanted != "" {
			return exitcode.Errorf(exitcode.Failed, "no counter is called %s; all of them: trafficd ctl stats", wanted)
		}
		t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		for _, name := range slices.Sorted(maps.Keys(snap.Metrics)) {
			fmt.Fprintf(t, "%s\t%d\n", name, snap.Metrics[name])
		}
		return t.Flush()
	})
	return c
}
