package manager

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// newLedger makes the manager's ledger of deaths; one that keeps nothing if there is no run root.
func newLedger(self birth) crash.Ledger {
	return crash.NewLedger(storeOf(self.runRoot), crash.Process{
		Role: roleManager, PID: self.id.PID, StartTime: self.id.StartTime, Generation: self.generation,
	})
}

const roleManager = "manager"

// storeOf is where the records of a run root are; nowhere if there is none.
func storeOf(runRoot string) crash.Store {
	root, err := runroot.Open(runRoot)
	if runRoot == "" || err != nil {
		return crash.Store{}
	}
	return crash.Store{Dir: root.Crashes(), Log: root.LogFile()}
}

// putOnRecord has a death recorded, and who came after the dead if somebody was faster than the news. While the instance
// stops, no end is a crash, unless it was noticed before.
func (m *manager) putOnRecord(d supervise.Death) {
	if m.phase > leaving && !d.Time.Before(m.stopped) {
		return
	}
	m.record(m.crashes.Died(crash.DeathOf(d), d.Vacant))
	if a := m.active; d.Role == roleServer && a != nil && a.state == supervise.Ready && a.generation > d.Generation {
		m.recordSuccessor(roleServer, a.p.PID(), a.generation, a.since)
	}
}

// recordSuccessor notes who came after those of a role that died, if any did, and since when.
func (m *manager) recordSuccessor(role string, pid int, generation uint64, since time.Time) {
	m.record(m.crashes.Succeeded(crash.Process{Role: role, PID: pid, Generation: generation}, since))
}

// record does the ledger's work.
func (m *manager) record(work func() error) { crash.Keep(work, &m.wg, m.over, m.log) }

// survival is the first line of the status.
func (m *manager) survival() *control.Survival {
	r := m.estate.region
	return &control.Survival{
		CrashesMasked: r.Sum(stats.CrashesMasked), RequestsResumed: r.Sum(stats.RequestsResumed), RequestsLost: r.Sum(stats.RequestsLost),
	}
}

// routeOf finds what is served at a path. The records have one each.
func routeOf(path string) (route, bool) {
	if id, below := strings.CutPrefix(path, control.PathCrashes+"/"); below {
		return route{http.MethodGet, func(c *controller, w http.ResponseWriter, _ *http.Request) error { return c.crash(w, id) }}, true
	}
	to, ok := routes[path]
	return to, ok
}

// The records are read beside the loop: they are files, and nothing of the manager's.

func (c *controller) crashList(w http.ResponseWriter, _ *http.Request) error {
	list, err := storeOf(c.m.self.runRoot).List()
	if err != nil {
		return err
	}
	control.Write(w, control.Crashes{Crashes: list})
	return nil
}

func (c *controller) crash(w http.ResponseWriter, id string) error {
	r, err := storeOf(c.m.self.runRoot).Load(id)
	var unknown *crash.UnknownError
	switch {
	case errors.As(err, &unknown):
		return control.Errorf(http.StatusNotFound, exitcode.Usage, "%v", err)
	case errors.Is(err, crash.ErrNone):
		return control.Errorf(http.StatusNotFound, exitcode.Failed, "%v", err)
	case err != nil:
		return err
	}
	control.Write(w, r)
	return nil
}
