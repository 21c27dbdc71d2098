package cop

import (
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/supervise"
)

// recordDeath is the one place in which the end of a process is known with all there is to know
// of it. A server's is for the manager to tell, but that may be dead as well by now, or in a
// moment; and only cop knows that cop had it killed. The reader joins what both say. While the
// instance stops, no end is a crash.
func (c *cop) recordDeath(d supervise.Death) {
	if c.phase == running {
		c.keep(c.crashes.Died(crash.DeathOf(d), d.Vacant))
	}
}

// deathOf describes the end of the ward's process, of which the books are still open. Of a server
// it is what cop knows; the manager knows more.
func (c *cop) deathOf(w *ward) supervise.Death {
	now := c.env.now()
	d := supervise.Death{
		Role: w.role.String(), PID: w.p.PID(), StartTime: w.p.Target().Known.StartTime, Generation: w.generation,
		Time: now, Ready: w.readyFor(now), Uptime: w.readyFor(now), Vacant: w.role == supervise.Manager, Status: w.p.Status(),
	}
	if r := c.record(w); r != nil {
		d.Generation = r.Generation.Load()
		d.Uptime = max(0, now.Sub(time.Unix(0, int64(r.Started.Load()))))
	}
	if refusal := w.p.Refusal(); refusal != nil {
		d.Refusal = refusal.Error()
	}
	d.Fault = c.fault(w, d.Status)
	switch u := c.upgrade; {
	case d.Fault != supervise.FaultAsked:
	case c.phase != running:
		d.Reason = "stop of the instance"
	case u.step == upManager && u.oldPID == d.PID:
		d.Reason = "upgrade"
	}
	return d
}

// asked reports whether the end of the ward's process was asked for.
func (w *ward) asked(c *cop) bool { return w.state == supervise.Draining || c.phase != running }

// fault judges the end of the ward's process.
func (c *cop) fault(w *ward, status supervise.Status) supervise.Fault {
	killed := c.region != nil && c.region.Role(roleID(w.role)).Condemned.Load() == uint64(pidOf(w.p))
	asked := w.asked(c) || supervise.Classify(status) == supervise.Done
	return supervise.FaultOf(status, asked, killed)
}
