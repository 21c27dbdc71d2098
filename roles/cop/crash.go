package cop

import (
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/supervise"
)

// newLedger makes cop's ledger of deaths.
func newLedger(root runroot.Root, b birth) crash.Ledger {
	return crash.NewLedger(crash.Store{Dir: root.Crashes(), Log: root.LogFile()}, crash.Process{
		Role: "cop", PID: b.self.PID, StartTime: b.self.StartTime, Generation: b.generation,
	})
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
