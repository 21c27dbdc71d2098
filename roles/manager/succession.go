package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trafficd/roles/internal/link"
	"trafficd/roles/internal/supervise"
)

// How one server follows another.
//
//	by death     the standby is told by the kernel, takes server.lock and what the dead one
//	             had, and says "ready" (took). That may come before we see the death.
//	by yielding  the same, but that the old one is asked to stop dead; for servers of one
//	             journal
//	by retiring  the old one lets go of listeners and lock, and finishes what it began; for
//	             servers that have no custody, or not the same

// yieldLimit is how long a server may take to yield, which takes it a turn of each loop. To
// kill it comes to the same.
const yieldLimit = 800 * time.Millisecond

// relieve has the active server make way for the next one, which stands by.
func (m *manager) relieve(now time.Time) {
	a, n := m.active, m.next
	switch {
	case a.retiring || a.yielding:
	case a.line == nil:
		// It dials in, or dies; but who waits for a restart is not kept for ever.
		if !m.planned.IsZero() && now.Sub(m.planned) > m.cfg.Supervision.StartDeadline {
			m.staysOn(a, fmt.Errorf("server %d cannot be asked to make way", a.p.PID()))
		}
	case a.journal != 0 && a.journal == n.journal:
		m.yield(a)
	case n.turn != nil || n.journal != 0:
		m.retire(a)
	}
}

// yield asks the active server to stop dead. Whether it answers does not matter: its end does.
func (m *manager) yield(a *unit) {
	a.asked, a.yielding, a.reason = true, true, m.purpose()
	m.relief = relief{old: a}
	m.about(m.log.Info(), a).Int("successor_pid", pidOf(m.next)).Msg("server is to yield")
	l, p := a.line, a.p
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.work, yieldLimit)
		defer cancel()
		reply, err := l.Call(ctx, opYield, nil)
		if err == nil {
			reply.Close()
		}
		var refusal *link.RemoteError
		if errors.As(err, &refusal) {
			m.post(func() { m.staysOn(a, fmt.Errorf("server %d does not yield: %w", p.PID(), err)) })
			return
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			m.post(func() {
				m.kill(a, supervise.Requested, "asked to yield, and has not", supervise.Escalation{}, nil)
			})
		}
	})
}

// purpose is for what the active server is asked to make way.
func (m *manager) purpose() string {
	if m.trial != nil {
		return "upgrade"
	}
	return "restart"
}

// staysOn takes in that the active server does not make way.
func (m *manager) staysOn(a *unit, err error) {
	a.yielding = false
	if m.active == a && a.state == supervise.Ready {
		a.asked, a.reason = false, ""
	}
	m.log.Error().Err(err).Msg("restart failed")
	if n := m.next; n != nil && n.turn != nil && n.journal == 0 {
		n.answer(err)
		n.asked = true
	}
	m.giveUpPlan(err)
}

// burialLimit is how long the next standby waits for the end of a server that was overtaken:
// a process that maps much memory takes a while to die.
const burialLimit = time.Second

// overtaken takes in that the next server has taken over from the active one, or from one that was about to be it: that is
// dead then, though we have not been told, or dies because it was asked to.
func (m *manager) overtaken(a *unit) {
	m.about(m.log.Info(), a).Int("successor_pid", pidOf(m.next)).Msg("standby has taken over")
	if a == m.active {
		m.active = nil
	}
	m.old[a] = true
	a.parked, a.retiring = false, false
	a.overtakenAt = m.env.now()
	m.endWithin(a, max(m.cfg.Supervision.StopGrace, time.Millisecond), "its standby has taken over")
	if a.asked {
		return
	}
	a.overtaken, m.burying = true, true
	m.after(burialLimit, func() {
		if m.old[a] {
			m.burying = false
		}
	})
}

// endWithin sees to it that a process that should be dead soon is.
func (m *manager) endWithin(u *unit, limit time.Duration, why string) {
	m.after(limit, func() {
		if m.has(u) {
			m.kill(u, supervise.Requested, why, supervise.Escalation{}, nil)
		}
	})
}

// after runs f on the loop in a while, if the loop lives.
func (m *manager) after(d time.Duration, f func()) {
	m.wg.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			m.post(f)
		case <-m.over:
		}
	})
}

// expected reports whether the next server has a deadline: it starts, or nobody serves and it
// stands by.
func (m *manager) expected(n *unit) bool {
	return !n.killing && !n.asked && (!n.stands() || m.active == nil && !m.burying)
}

// unfit says why the standby must not take over; "": it may.
func (m *manager) unfit(n *unit) string {
	switch x := m.nextProgram(); {
	case n.verdict == supervise.Dead:
		return "standby hangs"
	case m.planned.IsZero() && m.active != nil && m.active.journal != 0 && n.journal != 0 && n.journal != m.active.journal &&
		n.journal != m.estate.journal(): // another one would be no better
		return "standby is of another journal"
	case x.ID != "" && n.exe != "" && n.exe != x.ID:
		return "standby runs another executable"
	}
	return ""
}

// probeStandby asks the standby for a sign of life of each of its loops, as cop asks the
// server. That it cannot take over would be noticed too late otherwise.
func (m *manager) probeStandby(now time.Time) {
	n := m.next
	if n == nil || n.state != supervise.Standby || n.line == nil || n.probing || n.killing || now.Sub(n.probed) < m.cfg.Health.Interval {
		return
	}
	n.probing, n.probed = true, now
	n.strikes.Limit = m.cfg.Health.Strikes
	m.call(n.line, opPing, nil, m.cfg.Health.Timeout, func(err error) {
		n.probing = false
		if err == nil {
			n.verdict = n.strikes.Passed()
			return
		}
		if n != m.next || n.state != supervise.Standby || n.line == nil {
			return // it is not the standby any more
		}
		n.verdict = n.strikes.Failed(m.env.now(), m.estate.region.Bank(n.generation).Progress(nil))
		m.about(m.log.Warn(), n).Err(err).Int("strike", n.strikes.Count()).Stringer("verdict", n.verdict).Msg("standby heartbeat failed")
	})
}

// standbyPause is how soon the standby is to be probed.
func (m *manager) standbyPause(now time.Time) time.Duration {
	if n := m.next; n != nil && n.state == supervise.Standby && !n.probing {
		return n.probed.Add(m.cfg.Health.Interval).Sub(now)
	}
	return tick
}
