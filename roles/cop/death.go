package cop

import (
	"time"

	"trafficd/roles/internal/supervise"
)

// recordDeath is the one place in which the end of a manager is known with all there is to know
// of it. A server's end is the manager's to record.
func (c *cop) recordDeath(w *ward, status supervise.Status, refusal error, ready time.Duration) {
	if w.role != supervise.Manager || c.env.record == nil {
		return
	}
	d := supervise.Death{
		Role: w.role.String(), PID: w.p.PID(), Generation: w.generation, Time: c.env.now(), Ready: ready,
		Status: status, Fault: c.fault(w, status),
	}
	if refusal != nil {
		d.Refusal = refusal.Error()
	}
	if w.asked(c) {
		d.Reason = "stop of the instance"
	}
	c.env.record(d)
}

// asked reports whether the end of the ward's process was asked for.
func (w *ward) asked(c *cop) bool { return w.state == supervise.Draining || c.phase != running }

// fault judges the end of the ward's process.
func (c *cop) fault(w *ward, status supervise.Status) supervise.Fault {
	killed := c.region != nil && c.region.Role(roleID(w.role)).Condemned.Load() == uint64(pidOf(w.p))
	asked := w.asked(c) || supervise.Classify(status) == supervise.Done
	return supervise.FaultOf(status, asked, killed)
}
