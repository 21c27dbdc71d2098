package manager

import (
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// status is the instance as it is now.
func (m *manager) status() control.Status {
	now := m.env.now()
	s := control.Status{
		Survival: m.survival(),
		RunRoot:  m.self.runRoot, Phase: m.phase.String(),
		Cop:        m.recorded(stats.RoleCop, now),
		Manager:    m.recorded(stats.RoleManager, now),
		Server:     m.serverStatus(now),
		OldServers: []control.Process{}, Listeners: []control.Listener{}, Alarms: m.alarms(),
		Traffic:  m.traffic(),
		Autoconf: m.autoconfAddr,
		Config: control.Config{
			Generation: m.cfg.Generation, File: m.cfg.File, Published: m.published, NeedsRestart: m.needsRestart(),
		},
	}
	s.Custody, s.Upgrade = m.custodyStatus(), m.lastUpgrade
	if m.cop.p == nil {
		s.Cop.State, s.Cop.PID = supervise.Stopped.String(), 0
	}
	if m.next != nil && m.active != nil {
		p := m.unitStatus(m.next, now)
		s.NextServer = &p
	}
	for u := range m.old {
		s.OldServers = append(s.OldServers, m.unitStatus(u, now))
	}
	q := m.pump.status()
	s.Queue = control.Queue{Depth: q.depth, Limit: q.limit, State: string(q.reason), Expired: q.expired}
	for _, l := range m.estate.listeners {
		b, err := l.Backlog()
		if err != nil {
			continue
		}
		s.Listeners = append(s.Listeners, control.Listener{Name: l.Name(), Address: l.Addr().String(), Queued: b.Queued, Backlog: b.Max})
	}
	return s
}

// recorded is a process as it described itself in shared memory.
func (m *manager) recorded(id stats.RoleID, now time.Time) control.Process {
	r := m.estate.region.Role(id)
	p := control.Process{
		State: stats.State(r.State.Load()).String(), PID: int(r.PID.Load()), Generation: r.Generation.Load(),
		Restarts: r.Restarts.Load(), Deaths: r.Deaths.Load(),
	}
	if ns := r.Started.Load(); ns != 0 && p.PID != 0 {
		p.Started = time.Unix(0, int64(ns))
		p.UptimeSeconds = max(0, now.Sub(p.Started)).Seconds()
	}
	return p
}

// serverStatus is the server that serves, or the one that is on its way, or why there is none.
func (m *manager) serverStatus(now time.Time) control.Process {
	u := m.active
	if u == nil {
		u = m.next
	}
	r := m.serverRecord()
	p := control.Process{State: supervise.Stopped.String(), Generation: m.last}
	if u != nil {
		p = m.unitStatus(u, now)
	}
	p.Restarts, p.Deaths = r.Restarts.Load(), r.Deaths.Load()
	p.Reason = m.lastExit
	if u == nil && m.alarm == "" && m.delay > 0 {
		p.Retry = &control.Retry{
			InSeconds: max(0, m.due.Sub(now)).Seconds(), DelaySeconds: m.delay.Seconds(),
			Attempt: m.backoff.Step(), LastExit: m.lastExit,
		}
	}
	return p
}

func (m *manager) unitStatus(u *unit, now time.Time) control.Process {
	p := control.Process{State: u.state.String(), PID: u.p.PID(), Generation: u.generation}
	if u.parked {
		p.State = supervise.Draining.String()
	}
	if u == m.next && u.stands() {
		p.State = supervise.Standby.String()
	}
	started := u.started
	if r := m.serverRecord(); r.PID.Load() == uint64(p.PID) {
		started = time.Unix(0, int64(r.Started.Load()))
	}
	p.Started, p.UptimeSeconds = started, max(0, now.Sub(started)).Seconds()
	return p
}

func (m *manager) traffic() control.Traffic {
	r := m.estate.region
	t := control.Traffic{
		Connections:      r.Sum(stats.ClientConnectionsCurrent),
		ConnectionsTotal: r.Sum(stats.ClientConnections),
		Requests:         r.Sum(stats.Requests),
		Hits:             r.Sum(stats.CacheHits),
		Misses:           r.Sum(stats.CacheMisses),
		OriginsDown:      r.Sum(stats.OriginServersDown),
	}
	if n := t.Hits + t.Misses; n > 0 {
		t.HitRatio = float64(t.Hits) / float64(n)
	}
	return t
}

// custodyStatus says what would become of the connections if the server died now.
func (m *manager) custodyStatus() string {
	switch a, n := m.active, m.next; {
	case !m.estate.custody():
		return "off"
	case a == nil:
		return "on, no server"
	case a.line != nil && a.journal == 0:
		return "lost: the server has none, its log says why"
	case n == nil || !n.stands():
		return "on, no standby yet"
	case n.journal != a.journal:
		return "lost: the standby has another journal"
	}
	return "on"
}

// alarms are what an operator must see to.
func (m *manager) alarms() []string {
	all := []string{}
	if m.alarm != "" {
		all = append(all, m.alarm)
	}
	if m.badFile != "" {
		all = append(all, "configuration file is refused: "+m.badFile)
	}
	return all
}
