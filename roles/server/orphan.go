package server

import (
	"context"
	"errors"
	"time"

	"trafficd/lockfile"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// A server whose cop and manager are both gone goes on serving, and rebuilds the
// tree: it starts a cop, with all that it inherited, and the cop starts a
// manager, which adopts the server. One parent that is left does that alone, so
// the server only looks when it has no manager, and acts when both locks have
// been free for a while.

const (
	orphanLook  = 20 * time.Millisecond
	orphanLooks = 5 // in a row, before it acts
	orphanPause = 5 * time.Second
)

// errStopping ends a server that does not serve yet and that nobody is left to ask to stop.
var errStopping = errors.New("the instance is being stopped")

// watchStop ends a server that does not serve yet when cop stops the instance and there is no manager to say so: one that
// was killed just then has told nobody, and to take over would be to rise from the dead. It ends with ctx, or when this
// server serves.
func (s *Server) watchStop(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(orphanLook)
	defer tick.Stop()
	for {
		s.link.untilDown(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			serves := s.lock != nil
			s.mu.Unlock()
			if serves {
				return
			}
			stopping := stats.State(s.region.Role(stats.RoleCop).State.Load()) == stats.Draining
			if stopping && free(s.root.ManagerLock()) {
				end(errStopping)
				return
			}
		}
	}
}

// watchParents starts a cop whenever nobody is left who could. It ends with ctx.
func (s *Server) watchParents(ctx context.Context) {
	tick := time.NewTicker(orphanLook)
	defer tick.Stop()
	alone := 0
	var next time.Time // not before
	for {
		s.link.untilDown(ctx)
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if !s.orphaned() {
				alone = 0
				continue
			}
			if alone++; alone >= orphanLooks && !now.Before(next) {
				s.startCop()
				next = now.Add(orphanPause)
			}
		}
	}
}

// untilDown returns as soon as there is no link to a manager, or ctx ends. While there is one, nobody needs to
// look for anything.
func (m *manager) untilDown(ctx context.Context) {
	if c := m.tether.Conn(); c != nil {
		select {
		case <-c.Done():
		case <-ctx.Done():
		}
	}
}

// orphaned reports whether there is neither a manager nor a cop. The link is
// looked at first: while it is up there is nothing else to do.
func (s *Server) orphaned() bool {
	return s.link.tether.Conn() == nil && free(s.root.ManagerLock()) && free(s.root.CopLock())
}

func free(lock string) bool {
	_, held, err := lockfile.Holder(lock)
	return err == nil && !held
}

func (s *Server) startCop() {
	r := s.region.Role(stats.RoleCop)
	generation := r.Generation.Load() + 1
	p, err := supervise.Start("cop", s.flags, s.exe, generation, s.heritage, false)
	if err != nil {
		s.log.Error().Err(err).Msg("cop could not be started")
		return
	}
	r.Restarts.Add(1)
	s.log.Warn().Int("process_pid", p.PID()).Uint64("generation", generation).
		Str("reason", "neither cop nor manager is left").Msg("spawn_cop")
}
