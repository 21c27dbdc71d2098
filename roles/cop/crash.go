package cop

import (
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/supervise"
)

// death is what cop knows of one.
type death struct {
	role       string
	pid        int
	generation uint64 // 0: not known
	startTime  uint64 // 0: not known
	status     supervise.Status
	asked      string        // for what its end was asked; "": it was not
	gate       string        // why the gate killed it, if this is not what was reported last; "": see crash.Ledger
	reason     string        // what it said before it went
	uptime     time.Duration // 0: not known
}

// newLedger makes cop's ledger of deaths.
func newLedger(root runroot.Root, b birth) crash.Ledger {
	return crash.NewLedger(crash.Store{Dir: root.Crashes(), Log: root.LogFile()}, crash.Process{
		Role: "cop", PID: b.self.PID, StartTime: b.self.StartTime, Generation: b.generation,
	})
}

// recordDeath has a death recorded. A server's is for the manager to tell, but that may be dead as well by now, or in a
// moment; and only cop knows that cop had it killed. The reader joins what both say. An instance that stops because it
// was told to is no crash.
func (c *cop) recordDeath(d death) {
	if c.phase != running {
		return
	}
	c.keep(c.crashes.Died(crash.Death{
		When:   c.env.now(),
		Dead:   crash.Process{Role: d.role, PID: d.pid, StartTime: d.startTime, Generation: d.generation},
		Status: crash.StatusOf(d.status), Asked: d.asked, Gate: d.gate, Reason: d.reason,
		UptimeSeconds: d.uptime.Seconds(),
	}, d.role == supervise.Manager.String()))
}

// recordSuccessor notes who came after the last manager that died, if one did.
func (c *cop) recordSuccessor(w *ward) {
	if w.role == supervise.Manager {
		c.keep(c.crashes.Succeeded(crash.Process{Role: w.role.String(), PID: pidOf(w.p), Generation: w.generation}, c.env.now()))
	}
}

// recordAfter is how long the records wait for whoever takes over to have done so: it should not have to share the
// machine with somebody who writes about it.
const recordAfter = 50 * time.Millisecond

// keep does the ledger's work on a goroutine.
func (c *cop) keep(work func() error) {
	if work == nil {
		return
	}
	c.wg.Go(func() {
		select {
		case <-time.After(recordAfter):
		case <-c.over:
		}
		if err := work(); err != nil {
			c.log.Error().Err(err).Msg("crash record incomplete")
		}
	})
}

// deathOf is the death of the ward's process, of which the books are still open.
func (c *cop) deathOf(w *ward, status supervise.Status, refusal error) death {
	d := death{
		role: w.role.String(), pid: w.p.PID(), generation: w.generation,
		startTime: w.p.Target().Known.StartTime, status: status,
	}
	if r := c.record(w); r != nil {
		d.generation = r.Generation.Load()
		d.uptime = c.env.now().Sub(time.Unix(0, int64(r.Started.Load())))
	}
	if refusal != nil {
		d.reason = refusal.Error()
	}
	if w.state == supervise.Draining || supervise.Classify(status) == supervise.Done {
		d.asked = "restart"
	}
	return d
}
