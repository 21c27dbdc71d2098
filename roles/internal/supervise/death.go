package supervise

import "time"

// Death is what a supervisor knows of the end of a process, once it knows it. It is made in
// one place of each supervisor (recordDeath) and never changes.
type Death struct {
	Role       string // cop, manager, server
	PID        int
	Generation uint64
	Time       time.Time     // when it was seen
	Ready      time.Duration // how long it had been ready, or had stood by; 0: never
	Standby    bool          // it was not the one that served
	Status     Status        // not known for a process that another one had started
	Refusal    string        // the reason it gave itself, if it did
	Fault      Fault         // whose doing it was
	Reason     string        // why its end was asked for or decided, in the supervisor's words
}
