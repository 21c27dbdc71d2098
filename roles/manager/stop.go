package manager

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"trafficd/roles/internal/link"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// signal acts on a signal to the manager itself.
func (m *manager) signal(sig os.Signal) {
	m.log.Info().Str("signal", sig.String()).Msg("signal")
	switch sig {
	case syscall.SIGTERM, syscall.SIGQUIT:
		m.stop(draining)
	case syscall.SIGINT:
		m.stop(stopping)
	case syscall.SIGHUP:
		m.reload(func(reloaded) {})
	case syscall.SIGUSR1:
		m.reopen(func(error) {})
	case syscall.SIGUSR2:
		m.upgradeByItself()
	}
}

// reopen reopens the log, here and in every server. then is called once, on the loop, when all have done so or said why
// not: whoever moved the old files away may take them then. A server that ends meanwhile has nothing open.
func (m *manager) reopen(then func(error)) {
	failed := m.env.rotate()
	if failed != nil {
		m.log.Error().Err(failed).Msg("log not reopened")
	}
	asked := 1
	answered := func() {
		if asked--; asked == 0 {
			then(failed)
		}
	}
	for _, u := range m.units() {
		if u.line == nil {
			continue
		}
		asked++
		m.call(u.line, opReopen, nil, reloadLimit, func(err error) {
			if err != nil {
				m.about(m.log.Warn(), u).Err(err).Msg("server has not reopened its log")
			}
			if refused := (*link.RemoteError)(nil); errors.As(err, &refused) || errors.Is(err, context.DeadlineExceeded) {
				failed = errors.Join(failed, err)
			}
			answered()
		})
	}
	answered()
}

// stop begins to end the manager, or hurries an end that has begun.
func (m *manager) stop(p phase) {
	if p <= m.phase {
		return
	}
	m.phase = p
	m.log.Info().Stringer("phase", p).Msg("stopping")
	m.estate.region.Role(stats.RoleManager).State.Store(uint64(stats.Draining))
	if p == leaving {
		return
	}
	if m.stopped.IsZero() {
		m.stopped = m.env.now()
	}
	// The drain of an old phase may be longer than the new one's patience.
	for _, u := range m.units() {
		if u.killing {
			u.stopKill()
			u.killing = false
		}
	}
	if m.next != nil && !m.next.told {
		m.next.asked = true
		m.next.answer(errNotWanted)
	}
}

// proceed takes an end one step further. It is called at every turn.
func (m *manager) proceed() {
	if m.phase == leaving {
		m.done = true
		return
	}
	// A standby would take the end of the server for a death.
	if n := m.next; n != nil && !n.stood.IsZero() && !n.told {
		m.dismiss(n)
		return
	}
	for _, u := range m.units() {
		m.dismiss(u)
	}
	if len(m.units()) == 0 && !m.burying {
		m.done = true
		m.log.Info().Msg("stopped")
	}
}

// dismiss asks a server to go, and sees to it that it does. The request goes over the link,
// and by signal in case that nobody listens there.
func (m *manager) dismiss(u *unit) {
	if u.killing {
		return
	}
	now := m.env.now()
	u.asked, u.reason = true, "stop"
	u.enter(supervise.Stop, now)
	grace := max(m.cfg.Supervision.StopGrace, time.Millisecond)
	fast := m.phase == stopping || u == m.next && !u.told
	if !fast {
		grace += m.cfg.Timeouts.Drain
	}
	if u.line != nil {
		m.call(u.line, opStop, serverStop{Fast: fast}, reloadLimit, func(err error) {
			if err != nil {
				m.about(m.log.Debug(), u).Err(err).Msg("server not asked to stop")
			}
		})
	}
	m.kill(u, supervise.Requested, "stop: "+m.phase.String(), supervise.Escalation{Grace: grace}, func(o supervise.Outcome) {
		if o == supervise.Stranger || o == supervise.Gone && !u.child {
			// It let go of server.lock, so the gate does not know it; it was asked over the link. Its
			// pidfd tells of its end, and is waited for no longer than for anybody.
			u.killing = true
			m.forgetAfter(u, grace)
		}
	})
}

// forgetAfter stops to wait for a server that may not be signalled.
func (m *manager) forgetAfter(u *unit, limit time.Duration) {
	p := u.p
	m.wg.Go(func() {
		t := time.NewTimer(limit)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.Done():
		case <-m.over:
			return
		}
		m.post(func() {
			if m.has(u) {
				m.died(u)
			}
		})
	})
}
