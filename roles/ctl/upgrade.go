package ctl

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/program"
)

func upgradeCommand(s *session) *cobra.Command {
	var binary string
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace server, manager and cop by the executable that is on disk now",
		Long: "Replace server, manager and cop, in this order, by the executable that is on disk now,\n" +
			"and return when it has happened. No connection is lost.\n\n" +
			"The executable is tried first; one that does not answer, or cannot work together with\n" +
			"what runs, changes nothing. Each new process is on probation for the time of\n" +
			"upgrade.probation: if it dies, the old executable takes its place, and the exit\n" +
			"code is 1. The same is done on USR2 to cop or manager; then the log says what came of it.",
		Args: usage(cobra.NoArgs),
	}
	c.Flags().StringVar(&binary, "binary", "", "take `FILE` instead of the path that the instance was started from")
	c.RunE = s.run(func([]string) error {
		if binary != "" {
			abs, err := filepath.Abs(binary)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			binary = abs
		}
		r, err := s.client.Upgrade(s.ctx, control.Upgrade{Binary: binary})
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "upgrade to %s, %s\n", r.Binary, r.Version)
		return s.followUpgrade(r)
	})
	return c
}

// followUpgrade tells each step as it ends. The manager that is asked is replaced meanwhile.
func (s *session) followUpgrade(r *control.UpgradeReport) error {
	told := 0
	var broken error
	err := s.poll(func() bool {
		st, err := s.client.Status(s.ctx)
		switch {
		case err != nil && len(s.alive()) == 0:
			broken = err
			return true
		case err != nil || st.Upgrade == nil || st.Upgrade.ID != r.ID:
			return false // it is being replaced, or is new and has not been told
		}
		r = st.Upgrade
		for ; told < len(r.Steps); told++ {
			fmt.Fprintln(s.out, stepText(r.Steps[told]))
		}
		return r.State != program.Running
	})
	if err = errors.Join(broken, err); err != nil {
		return fmt.Errorf("follow the upgrade: %w", err)
	}
	if r.State != program.Done {
		return exitcode.Errorf(exitcode.Failed, "the upgrade has failed")
	}
	return nil
}

func stepText(s program.Step) string {
	text := s.Role + ": " + s.Text
	if s.PID != 0 {
		text += fmt.Sprintf(" (pid %d, was %d)", s.PID, s.OldPID)
	}
	return text
}
