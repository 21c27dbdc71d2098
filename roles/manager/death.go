package manager

import (
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// maxFaults bounds how many deaths are remembered for those who ask.
const maxFaults = 64

// recordDeath is the one place in which the end of a process is known with all there is to
// know of it: of a server or standby, and of cop. The others find out there what it was.
func (m *manager) recordDeath(d supervise.Death) {
	if d.Role == roleServer { // a standby too: it may have taken over without our knowing yet
		if len(m.faults) >= maxFaults {
			clear(m.faults)
		}
		m.faults[d.Generation] = d.Fault
		m.tellCause(d.Generation, d.Fault)
	}
	m.putOnRecord(d)
}

// deathOf describes the end of a unit, of which the books are still open.
func (m *manager) deathOf(u *unit) supervise.Death {
	now := m.env.now()
	_, do := supervise.Next(u.state, supervise.Exit)
	inRole := m.inRole(u)
	d := supervise.Death{
		Role: roleServer, PID: u.p.PID(), StartTime: u.p.Target().Known.StartTime, Generation: u.generation,
		Time: now, Ready: u.readyFor(now), Uptime: max(0, now.Sub(u.started)),
		Standby: !inRole && !u.placed(), Status: u.p.Status(), Reason: u.reason,
	}
	if inRole {
		d.Uptime = sinceEntry(m.serverRecord(), now)
	}
	if !u.overtakenAt.IsZero() {
		d.Time = u.overtakenAt
	}
	d.Vacant = !d.Standby && (inRole || u == m.active || u == m.next || !u.overtakenAt.IsZero())
	if err := u.p.Refusal(); err != nil {
		d.Refusal = err.Error()
	}
	asked := u.asked || do == supervise.Finish
	d.Fault = supervise.FaultOf(d.Status, asked && !u.overtaken, m.wasKilled(u)) // it was dead before it was asked
	return d
}

// inRole reports whether shared memory names the unit as the server. It enters itself there when
// it takes over, which may be before it has told us so.
func (m *manager) inRole(u *unit) bool { return m.serverRecord().PID.Load() == uint64(u.p.PID()) }

// sinceEntry is how long the process that a record describes has had its role.
func sinceEntry(r *stats.Role, now time.Time) time.Duration {
	return max(0, now.Sub(time.Unix(0, int64(r.Started.Load()))))
}

// deathOfCop describes the end of the cop that is p, which has been ready for so long.
func (m *manager) deathOfCop(p process, ready time.Duration) supervise.Death {
	now := m.env.now()
	d := supervise.Death{
		Role: roleCop, PID: p.PID(), StartTime: p.Target().Known.StartTime, Generation: m.cop.generation,
		Time: now, Ready: ready, Uptime: ready, Vacant: true, Status: p.Status(),
	}
	if r := m.estate.region.Role(stats.RoleCop); r.PID.Load() == uint64(d.PID) {
		d.StartTime, d.Uptime = r.StartTime.Load(), sinceEntry(r, now)
	}
	d.Fault = supervise.FaultOf(d.Status, m.phase > leaving, false)
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
