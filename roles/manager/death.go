package manager

import (
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// maxFaults bounds how many deaths are remembered for those who ask.
const maxFaults = 64

// recordDeath is the one place in which the end of a process is known with all there is to
// know of it: of a server or standby, and of cop.
func (m *manager) recordDeath(d supervise.Death) {
	if d.Role == roleServer { // a standby too: it may have taken over without our knowing yet
		if len(m.faults) >= maxFaults {
			clear(m.faults)
		}
		m.faults[d.Generation] = d.Fault
		m.tellCause(d.Generation, d.Fault)
	}
	if m.env.record != nil {
		m.env.record(d)
	}
}

// deathOf describes the end of a unit.
func (m *manager) deathOf(u *unit, asked bool) supervise.Death {
	now := m.env.now()
	d := supervise.Death{
		Role: roleServer, PID: u.p.PID(), Generation: u.generation, Time: now, Ready: u.readyFor(now),
		Standby: !u.served, Status: u.p.Status(), Reason: u.reason,
	}
	if err := u.p.Refusal(); err != nil {
		d.Refusal = err.Error()
	}
	d.Fault = supervise.FaultOf(d.Status, asked, m.wasKilled(u))
	if d.Fault == supervise.FaultHang && d.Reason == "" {
		d.Reason = "killed for its health"
	}
	return d
}

// wasKilled reports whether a gate, ours or cop's, has killed the unit for its health.
func (m *manager) wasKilled(u *unit) bool {
	return m.serverRecord().Condemned.Load() == uint64(u.p.PID())
}

// tellCause tells servers why another died: one of them may have asked before it was known.
func (m *manager) tellCause(generation uint64, f supervise.Fault) {
	for _, u := range []*unit{m.active, m.next} {
		if u != nil && u.line != nil {
			m.call(u.line, opCause, causeBody{Generation: generation, Fault: f}, reloadLimit, func(err error) {
				if err != nil {
					m.about(m.log.Debug(), u).Err(err).Msg("server not told of a death")
				}
			})
		}
	}
}

// causeOf is why the server of a generation died; "" if that is not known yet.
func (m *manager) causeOf(generation uint64) supervise.Fault {
	if f, ok := m.faults[generation]; ok {
		return f
	}
	for _, u := range m.units() {
		if u.generation == generation {
			return ""
		}
	}
	return supervise.FaultUnknown
}

// condemned notes in shared memory that a gate kills a process for its health, so that every
// watcher knows it for what it is when it is dead.
func condemned(r *stats.Role, d supervise.Decision) {
	if !d.Final && d.Err == nil && d.Cause != supervise.Requested {
		r.Condemned.Store(uint64(d.PID))
	}
}
