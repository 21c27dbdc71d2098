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

// death is what the manager knows of one.
type death struct {
	role       string
	pid        int
	generation uint64
	startTime  uint64 // 0: not known
	status     supervise.Status
	asked      string        // for what its end was asked; "": it was not
	gate       string        // why the gate killed it, if this is not what was reported last; "": see crash.Ledger
	reason     string        // what it said before it went
	uptime     time.Duration // 0: not known
}

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

// recordDeath has a death recorded. An instance that stops because it was told to is no crash.
func (m *manager) recordDeath(d death) {
	if m.phase != running && d.asked != "" {
		return
	}
	m.record(m.crashes.Died(crash.Death{
		When:   m.env.now(),
		Dead:   crash.Process{Role: d.role, PID: d.pid, StartTime: d.startTime, Generation: d.generation},
		Status: crash.StatusOf(d.status), Asked: d.asked, Gate: d.gate, Reason: d.reason,
		UptimeSeconds: d.uptime.Seconds(),
	}, m.vacated(d)))
}

// vacated reports whether the place of the dead is empty. One that was replaced before it died leaves none.
func (m *manager) vacated(d death) bool {
	return d.role != roleServer || m.active == nil || m.active.p.PID() == d.pid
}

// recordSuccessor notes who came after the last of a role that died, if one did.
func (m *manager) recordSuccessor(role string, pid int, generation uint64) {
	m.record(m.crashes.Succeeded(crash.Process{Role: role, PID: pid, Generation: generation}, m.env.now()))
}

// recordAfter is how long the records wait for whoever takes over to have done so: it should not have to share the
// machine with somebody who writes about it.
const recordAfter = 50 * time.Millisecond

// record does the ledger's work on a goroutine.
func (m *manager) record(work func() error) {
	if work == nil {
		return
	}
	m.wg.Go(func() {
		select {
		case <-time.After(recordAfter):
		case <-m.over:
		}
		if err := work(); err != nil {
			m.log.Error().Err(err).Msg("crash record incomplete")
		}
	})
}

// deathOf is the death of a server, of which the books are still open.
func (m *manager) deathOf(u *unit, status supervise.Status, asked bool) death {
	d := death{
		role: roleServer, pid: u.p.PID(), generation: u.generation,
		startTime: u.p.Target().Known.StartTime, status: status, uptime: m.env.now().Sub(u.started),
	}
	if r := m.serverRecord(); r.PID.Load() == uint64(d.pid) {
		d.uptime = m.env.now().Sub(time.Unix(0, int64(r.Started.Load())))
	}
	if refusal := u.p.Refusal(); refusal != nil {
		d.reason = refusal.Error()
	}
	if asked {
		d.asked = "restart"
	}
	return d
}

// deathOfCop is the death of the cop that is p.
func (m *manager) deathOfCop(p process) death {
	d := death{
		role: roleCop, pid: p.PID(), generation: m.cop.generation,
		startTime: p.Target().Known.StartTime, status: p.Status(),
	}
	if r := m.estate.region.Role(stats.RoleCop); r.PID.Load() == uint64(d.pid) {
		d.startTime = r.StartTime.Load()
		d.uptime = m.env.now().Sub(time.Unix(0, int64(r.Started.Load())))
	}
	return d
}

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
