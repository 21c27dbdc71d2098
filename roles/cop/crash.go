package cop

import (
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

// keep does the ledger's work.
func (c *cop) keep(work func() error) { crash.Keep(work, &c.wg, c.over, c.log) }
