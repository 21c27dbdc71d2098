package manager

import (
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// copWard is the cop as the manager sees it. Owned by the loop.
type copWard struct {
	p    process // nil: none is known
	line line    // nil: it has not dialled in, or its link is down

	generation uint64
	met        time.Time // when p dialled in first; zero: it has not
	freeSince  time.Time // cop.lock is free since then; zero: it is held, or was not looked at
	sawDeath   bool      // of p, by pidfd
	due        time.Time // not started before
	backoff    *supervise.Backoff

	depositing bool
	retryAt    time.Time // of a deposit
}

const (
	// copAbsent is how long cop.lock must be free before a cop is started that nobody saw
	// die: init may be starting one at this moment.
	copAbsent = 200 * time.Millisecond
	// copBudget bounds the cops started at once in a minute.
	copBudget = 30
)

// pause is how soon cop is to be looked at again.
func (c *copWard) pause(now time.Time) time.Duration {
	if c.p != nil {
		return tick
	}
	return max(copAbsent/4, c.due.Sub(now))
}

// copConnected takes in that a cop has dialled in.
func (m *manager) copConnected(l line) {
	h := l.Hello()
	c := &m.cop
	c.line = l
	c.generation = max(c.generation, h.Generation)
	if c.p == nil || c.p.PID() != h.PID {
		m.meetCop(h.PID, h.StartTime)
	}
	if c.met.IsZero() {
		c.met = m.env.now()
	}
	m.log.Info().Int("process_pid", h.PID).Uint64("generation", h.Generation).Msg("link to cop is up")
	m.recordSuccessor(roleCop, h.PID, h.Generation, m.env.now())
	m.estate.changed = true // it holds what it inherited, if that
	c.retryAt = time.Time{}
	m.tellCop()
	m.tellRefusal()
}

// tellCop gives cop the configuration.
func (m *manager) tellCop() {
	if m.cop.line == nil {
		return
	}
	m.call(m.cop.line, opConfig, m.cfg, depositLimit, func(err error) {
		if err != nil {
			m.log.Warn().Err(err).Msg("cop not told of the configuration")
		}
	})
}

// tellRefusal tells cop why nothing serves and nothing will. If that is how a first start ends, cop has
// somebody who waits for it.
func (m *manager) tellRefusal() {
	if m.cop.line == nil || m.refusal == nil || m.active.serves() {
		return
	}
	m.call(m.cop.line, opRefused, *m.refusal, depositLimit, func(err error) {
		if err != nil {
			m.log.Warn().Err(err).Msg("cop not told that the server was refused")
		}
	})
}

func (m *manager) copDisconnected(err error) {
	m.cop.line = nil
	m.log.Info().AnErr("reason", err).Msg("link to cop is down")
}

// meetCop begins to watch a cop that somebody else started.
func (m *manager) meetCop(pid int, startTime uint64) {
	p, err := m.env.copAdopt(pid, startTime)
	if err != nil {
		m.log.Debug().Err(err).Int("process_pid", pid).Msg("cop not met")
		return
	}
	m.takeCop(p)
}

func (m *manager) takeCop(p process) {
	c := &m.cop
	if c.p != nil {
		c.p.Release()
	}
	c.p, c.met, c.freeSince, c.sawDeath = p, time.Time{}, time.Time{}, false
	m.wg.Go(func() {
		select {
		case <-p.Done():
			m.post(func() { m.copDied(p) })
		case <-m.over:
		}
	})
}

// copDied takes in that a cop is gone.
func (m *manager) copDied(p process) {
	c := &m.cop
	if c.p != p {
		return
	}
	now := m.env.now()
	var ready time.Duration // 0: it never was
	if !c.met.IsZero() {
		ready = max(now.Sub(c.met), 1)
	}
	m.log.Warn().Int("process_pid", p.PID()).Stringer("status", p.Status()).Uint64("generation", c.generation).Msg("cop died")
	m.recordDeath(m.deathOfCop(p, ready))
	r := m.estate.region.Role(stats.RoleCop)
	r.Deaths.Add(1)
	r.Leave(p.PID())
	p.Release()
	c.p, c.sawDeath = nil, true
	c.due = now.Add(c.backoff.Died(now, ready))
}

// watchCop looks whether there is a cop, and starts one if not. cop.lock decides: whoever
// holds it is the cop, and two of them cannot be.
func (m *manager) watchCop(now time.Time) {
	c := &m.cop
	if c.p != nil {
		return
	}
	if pid, held := m.env.copHolder(); held {
		c.freeSince = time.Time{}
		if pid != 0 {
			m.meetCop(pid, 0)
		}
		return
	}
	if c.freeSince.IsZero() {
		c.freeSince = now
	}
	if now.Before(c.due) || !c.sawDeath && now.Sub(c.freeSince) < copAbsent {
		return
	}
	m.spawnCop(now)
}

func (m *manager) spawnCop(now time.Time) {
	c := &m.cop
	r := m.estate.region.Role(stats.RoleCop)
	c.generation = max(c.generation, r.Generation.Load()) + 1
	p, err := m.env.copStart(c.generation, m.estate.set)
	if err != nil {
		m.log.Error().Err(err).Msg("cop could not be started")
		c.due = now.Add(c.backoff.Died(now, 0))
		return
	}
	r.Restarts.Add(1)
	m.log.Info().Int("process_pid", p.PID()).Uint64("generation", c.generation).Msg("spawn_cop")
	m.takeCop(p)
}
