package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
)

func crashCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "crash", Short: "How processes died, and what became of their connections", Args: usage(cobra.NoArgs),
		RunE: missing,
	}
	c.AddCommand(crashListCommand(s), crashShowCommand(s))
	return c
}

func crashListCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the deaths on record, the newest first",
		Long: "List the deaths on record, the newest first.\n\n" +
			"The manager is asked; if none answers, the records are read from the run root.",
		Args: usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func([]string) error {
		list, err := s.crashes()
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(list)
		}
		return writeCrashes(s.out, list.Crashes)
	})
	return c
}

func crashShowCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show ID|last",
		Short: "Show one death: how, why, every connection, the last log lines, the stacks",
		Long: "Show one death: how, why, every connection, the last log lines, the stacks.\n\n" +
			"ID is one of the list, or the beginning of one, such as server-4711; last is the newest.\n" +
			"The manager is asked; if none answers, the record is read from the run root.",
		Args: usage(cobra.ExactArgs(1)),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func(args []string) error {
		r, err := s.crash(args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(r)
		}
		return writeCrash(s.out, r)
	})
	return c
}

// managerTime is how long the manager may take to answer before the records are read without it. It may hang: that is
// when they are wanted.
const managerTime = 2 * time.Second

// crashes gets the list from whoever has it.
func (s *session) crashes() (*control.Crashes, error) {
	ctx, cancel := context.WithTimeout(s.ctx, managerTime)
	defer cancel()
	if list, err := s.client.Crashes(ctx); err == nil {
		return list, nil
	}
	store, err := s.records()
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	return &control.Crashes{Crashes: list}, readable(err)
}

// crash gets one record from whoever has it.
func (s *session) crash(id string) (*crash.Record, error) {
	ctx, cancel := context.WithTimeout(s.ctx, managerTime)
	defer cancel()
	if r, err := s.client.Crash(ctx, id); err == nil {
		return r, nil
	}
	store, err := s.records()
	if err != nil {
		return nil, err
	}
	r, err := store.Load(id)
	var unknown *crash.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, exitcode.Errorf(exitcode.Usage, "%w; all of them: trafficd ctl crash list", err)
	case errors.Is(err, crash.ErrNone):
		return nil, exitcode.Errorf(exitcode.Failed, "%w in %s", err, s.root)
	}
	return &r, readable(err)
}

// records are the run root's own, for when no manager answers or knows better. A run root that is not there has none and
// never had: no instance runs there.
func (s *session) records() (crash.Store, error) {
	if _, err := os.Stat(s.root.Dir()); errors.Is(err, fs.ErrNotExist) {
		return crash.Store{}, control.ErrNotRunning
	}
	return crash.Store{Dir: s.root.Crashes()}, nil
}

func readable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return exitcode.With(exitcode.Permission, err)
	}
	return err
}

// writeCrashes is the list for people.
func writeCrashes(w io.Writer, list []crash.Summary) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no crash is recorded")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tWHEN\tROLE\tENDED\tCAUSE\tRESUMED\tLOST\tTOOK MS")
	for _, s := range list {
		cause := string(s.Cause)
		if len(s.Problems) > 0 {
			cause += " (incomplete)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", s.ID, s.When.Local().Format("2006-01-02 15:04:05.000"), plain(role(s)),
			s.Status, plain(cause), s.Resumed, s.Lost, milliseconds(s.TookMS))
	}
	return t.Flush()
}

// role is what the dead was, in one word.
func role(s crash.Summary) string {
	if s.Standby {
		return "standby"
	}
	return s.Dead.Role
}

// milliseconds is a time to the microsecond, or a hyphen if it is not known.
func milliseconds(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return strconv.FormatFloat(ms, 'f', 3, 64)
}

// writeCrash is a record for people.
func writeCrash(w io.Writer, r *crash.Record) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writeDeath(t, r)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, a := range r.Adoptions {
		fmt.Fprintln(w)
		t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		writeAdoption(t, a)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Log) > 0 {
		fmt.Fprintf(w, "\nLAST LOG LINES\n")
		for _, line := range r.Log {
			fmt.Fprintln(w, plain(line))
		}
	}
	if r.Stacks != "" {
		fmt.Fprintf(w, "\nSTACKS\n")
		for line := range strings.Lines(r.Stacks) {
			fmt.Fprintln(w, plain(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    ")))
		}
		if r.StacksCut {
			fmt.Fprintln(w, "(the rest was cut)")
		}
	}
	return nil
}

func writeDeath(w io.Writer, r *crash.Record) {
	fmt.Fprintf(w, "crash\t%s\n", r.ID)
	fmt.Fprintf(w, "when\t%s\n", r.When.Local().Format(time.RFC3339Nano))
	fmt.Fprintf(w, "who\t%s\n", who(r.Dead))
	fmt.Fprintf(w, "ended\t%s\n", r.Status)
	cause := plain(string(r.Cause))
	if r.Reason != "" {
		cause += ": " + plain(r.Reason)
	}
	fmt.Fprintf(w, "cause\t%s\n", cause)
	if r.UptimeSeconds > 0 {
		fmt.Fprintf(w, "had run\t%s\n", seconds(r.UptimeSeconds))
	}
	switch {
	case r.Standby && r.Successor == nil:
		fmt.Fprintf(w, "taken over by\tnobody, it was a standby\n")
	case r.Successor == nil:
		fmt.Fprintf(w, "taken over by\tnobody yet\n")
	default:
		fmt.Fprintf(w, "taken over by\t%s\n", who(*r.Successor))
		fmt.Fprintf(w, "that took\t%s ms\n", milliseconds(r.TookMS))
	}
	if len(r.Adoptions) > 0 {
		fmt.Fprintf(w, "connections\t%d (%d resumed, %d lost)\n", r.Connections, r.Resumed, r.Lost)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "UNREADABLE\t%s\n", plain(p))
	}
}

func who(p crash.Process) string {
	text := fmt.Sprintf("%s %d", plain(p.Role), p.PID)
	if p.Generation > 0 {
		text += fmt.Sprintf(" (generation %d)", p.Generation)
	}
	return text
}

func writeAdoption(w io.Writer, a crash.Adoption) {
	fmt.Fprintln(w, "KIND\tPEER\tLOCAL\tSTATE\tOUTCOME\tREQUEST")
	for _, c := range a.Connections {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", plain(string(c.Kind)), plain(c.Peer), plain(c.Local), plain(string(c.State)), outcome(c), orHyphen(plain(c.Request)))
	}
	for _, n := range a.Rest {
		fmt.Fprintf(w, "and %d more\t-\t-\t%s\t%s\t-\n", n.N, plain(string(n.State)), plain(string(n.Outcome)))
	}
}

func orHyphen(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// outcome says where a connection went on, or why not.
func outcome(c crash.Connection) string {
	text := plain(string(c.Outcome))
	if c.Outcome == crash.Resumed {
		if c.ResponseByte > 0 || c.State == crash.PartlyAnswered || c.State == crash.Answered {
			text += fmt.Sprintf(", response at byte %d", c.ResponseByte)
		}
		if c.RequestByte > 0 || c.State == crash.Upload {
			text += fmt.Sprintf(", request at byte %d", c.RequestByte)
		}
	}
	if c.Why != "" {
		text += ": " + plain(c.Why)
	}
	return text
}

// plain makes a text that strangers have a hand in safe for a terminal, and for one cell of a table.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '\uFFFD'
	}, s)
}
