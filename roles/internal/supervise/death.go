package supervise

import "time"

// Death is what a supervisor knows of the end of a process, once it knows it. It is made in
// one place of each supervisor (deathOf), while the books of the process are still open, goes
// through one (recordDeath), and never changes.
type Death struct {
	Role       string // cop, manager, server
	PID        int
	StartTime  uint64 // clock ticks after boot, proc(5); 0: not known
	Generation uint64
	Time       time.Time     // when it was noticed
	Ready      time.Duration // how long it had been ready, or had stood by; 0: never
	Uptime     time.Duration // how long it had been in its role, or had lived; 0: not known
	Standby    bool          // it stood by, or was to: another one served
	Vacant     bool          // it leaves its place empty: somebody is to follow, or has followed at once
	Status     Status        // not known for a process that another one had started
	Refusal    string        // the reason it gave itself, if it did
	Fault      Fault         // whose doing it was
	Reason     string        // why its end was asked for, in the supervisor's words
}

// Why is the death in a few words.
func (d Death) Why() string {
	if d.Refusal != "" {
		return d.Refusal
	}
	return d.Status.String()
}
