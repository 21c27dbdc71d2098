package ctl

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
)

func stopCommand(s *session) *cobra.Command {
	var now bool
	c := &cobra.Command{
		Use:   "stop",
		Short: "Stop the instance, and return when it is gone",
		Args:  usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&now, "now", false, "without finishing what was begun")
	c.RunE = s.run(func([]string) error {
		return s.stopped(now, s.client.Stop(s.ctx, control.Stop{Now: now}))
	})
	return c
}

// stopped returns when the instance is gone. asked is what came of asking its manager.
func (s *session) stopped(now bool, asked error) error {
	var refused *control.Error
	var nobody *control.DialError
	switch {
	case asked == nil: // the time may be up by now, and the instance alive
	case errors.Is(asked, control.ErrNotRunning):
		if err := s.signalCop(now); err != nil {
			return err
		}
	case errors.As(asked, &refused) || errors.As(asked, &nobody) || s.ctx.Err() != nil:
		return asked
	}
	// A connection that broke instead of bringing an answer is how the end of the
	// manager may look.
	return s.poll(func() bool { return len(s.alive()) == 0 })
}

// signalCop asks cop itself to stop, when there is no manager to pass it on.
func (s *session) signalCop(now bool) error {
	owner, held, err := lockfile.Holder(s.root.CopLock())
	if err != nil {
		return err
	}
	if !held || !owner.FromKernel || owner.PID == 0 {
		return control.ErrNotRunning
	}
	p, err := proc.Adopt(owner.PID, owner.StartTime)
	if errors.Is(err, proc.ErrNoProcess) || errors.Is(err, proc.ErrStranger) {
		return control.ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("find cop: %w", err)
	}
	defer p.Release()
	// The pidfd is open; if the lock is still held by this PID, it is the one.
	again, held, err := lockfile.Holder(s.root.CopLock())
	if err != nil {
		return err
	}
	if !held || again.PID != owner.PID {
		return control.ErrNotRunning
	}
	sig := syscall.SIGTERM
	if now {
		sig = syscall.SIGINT
	}
	if err := p.Signal(sig); err != nil {
		return exitcode.Errorf(exitcode.Failed, "ask cop (pid %d) to stop: %w", owner.PID, err)
	}
	return nil
}
