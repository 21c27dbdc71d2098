package crash

import (
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"trafficd/roles/internal/supervise"
)

// Ledger is what a supervisor remembers between a death and its record: why the gate killed somebody, and whose place is
// empty. It is owned by the supervisor's loop. What it returns is file I/O, to be done by [Keep]; nil: nothing
// is to be done. The zero Ledger, and one whose store has no Dir, keeps no records.
type Ledger struct {
	store   Store
	self    Process
	reasons map[int]string       // of kills by the gate, by PID
	vacant  map[string][]vacancy // by role, the oldest first; one who follows follows all of them
}

// maxVacant bounds the deaths of one role that wait for a successor.
const maxVacant = 16

type vacancy struct {
	dead Process
	when time.Time
}

// NewLedger makes the ledger of a supervisor.
func NewLedger(store Store, self Process) Ledger {
	return Ledger{store: store, self: self, reasons: map[int]string{}, vacant: map[string][]vacancy{}}
}

// Judged takes in a decision of the gate.
func (l *Ledger) Judged(d supervise.Decision) {
	if l.store.Dir != "" && !d.Final && d.Err == nil && d.Cause != supervise.Requested {
		l.reasons[d.PID] = d.Cause.String() + ": " + d.Reason
	}
}

// Died takes in a death. vacant says that the place of the dead is empty now, so that its successor is to be noted.
func (l *Ledger) Died(d Death, vacant bool) func() error {
	if l.store.Dir == "" {
		return nil
	}
	d.Witness = l.self
	if d.Gate == "" {
		d.Gate = l.reasons[d.Dead.PID]
	}
	delete(l.reasons, d.Dead.PID)
	if vacant {
		all := append(l.vacant[d.Dead.Role], vacancy{d.Dead, d.When})
		l.vacant[d.Dead.Role] = all[max(0, len(all)-maxVacant):]
	}
	store := l.store
	return func() error { return store.Bury(d) }
}

// Succeeded takes in that a process has been ready in its role since then.
func (l *Ledger) Succeeded(p Process, since time.Time) func() error {
	var all []Adoption
	for _, v := range l.vacant[p.Role] {
		if v.dead.PID != p.PID {
			all = append(all, Adoption{When: v.when, Dead: v.dead, Successor: p, TookMS: Milliseconds(max(0, since.Sub(v.when)))})
		}
	}
	delete(l.vacant, p.Role)
	if all == nil {
		return nil
	}
	store := l.store
	return func() error {
		var errs []error
		for _, a := range all {
			errs = append(errs, store.WriteSuccession(a))
		}
		return errors.Join(errs...)
	}
}

// KeepAfter is how long a record waits for whoever takes over to have done so: it should not have to share the machine
// with somebody who writes about it.
const KeepAfter = 50 * time.Millisecond

// Keep does a ledger's work on a goroutine of wg, [KeepAfter] from now, or when over is closed.
func Keep(work func() error, wg *sync.WaitGroup, over <-chan struct{}, log zerolog.Logger) {
	if work == nil {
		return
	}
	wg.Go(func() {
		select {
		case <-time.After(KeepAfter):
		case <-over:
		}
		if err := work(); err != nil {
			log.Error().Err(err).Msg("crash record incomplete")
		}
	})
}
