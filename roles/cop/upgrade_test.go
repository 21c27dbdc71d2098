package cop

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// Every cell of the table, in the words of the rules.
func TestEveryCellOfAnUpgrade(t *testing.T) {
	for s := range numUpSteps {
		for e := range numUpEvents {
			want := upCell{s, upNothing}
			switch {
			case s == upServer && e == upGood:
				want = upCell{upManager, upAskLeave}
			case s == upManager && e == upGood:
				want = upCell{upProbation, upArm}
			case s == upProbation && e == upOver:
				want = upCell{upSelf, upExec}
			case e == upDied && (s == upManager || s == upProbation):
				want = upCell{upIdle, upBack} // the new one is not fit
			case e == upBad && (s == upServer || s == upManager || s == upSelf), e == upDied && s == upServer:
				want = upCell{upIdle, upEnd} // what is there stays
			}
			if got := upTable[s][e]; got != want {
				t.Errorf("%v × %v: %v, %v; want %v, %v", s, e, got.next, got.do, want.next, want.do)
			}
		}
	}
	if numUpSteps.String() != "5" || numUpEvents.String() != "4" || numUpDeeds.String() != "6" {
		t.Error("a value without a name")
	}
}

// upgrading takes a world to where the manager is to leave.
func upgrading(t *testing.T) (*world, *fake) {
	t.Helper()
	w := newWorld(t, withStats, withConfig(func(c *config.Config) { c.Upgrade.Probation = 1 }))
	m, _ := w.up()
	r, err := w.c.beginUpgrade(program.Order{Path: "/new", ID: "new", Version: "v2"})
	if err != nil || r.State != program.Running || r.ID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := w.c.beginUpgrade(program.Order{}); err == nil {
		t.Error("a second upgrade beside the first")
	}
	w.c.stepped(program.Step{Role: "server", OK: true, Text: "upgraded"})
	if !slices.Equal(w.asked, []string{opUpgrade, opLeave}) {
		t.Fatalf("asked the manager %q", w.asked)
	}
	return w, m
}

// next waits for the manager that follows m, which has left, and returns it.
func (w *world) nextManager(m *fake, s supervise.Status) *fake {
	w.t.Helper()
	n := len(w.started)
	m.die(s)
	w.until("the next manager", func() bool { return len(w.started) == n+1 })
	return w.started[n]
}

func TestUpgrade(t *testing.T) {
	w, m := upgrading(t)
	s := w.recording()
	next := w.nextManager(m, exited(0))
	w.hold(next, stats.Starting)
	close(next.ready)
	w.until("exec", func() bool { return w.became != nil })
	if w.became.ID != "new" || w.programs[len(w.programs)-1].ID != "new" {
		t.Errorf("became %+v, manager is %+v", w.became, w.programs)
	}
	if w.report.State != program.Done || len(w.report.Steps) != 3 {
		t.Errorf("report %+v", w.report)
	}
	r := w.onRecord(s, m.pid, func(r crash.Summary) bool { return r.Successor != nil && r.Status.Known })
	if r.Cause != crash.Asked || r.Reason != "upgrade" || r.Successor.PID != next.pid {
		t.Errorf("record %+v", r)
	}
}

// The manager agrees and is gone before cop has read so: it has made way all the same.
func TestManagerMakesWayThoughTheLinkIsLost(t *testing.T) {
	w, m := upgrading(t)
	w.then(link.ErrClosed)
	next := w.nextManager(m, exited(0))
	w.hold(next, stats.Starting)
	close(next.ready)
	w.until("exec", func() bool { return w.became != nil })
	if r := w.report; r.State != program.Done || w.programs[len(w.programs)-1].ID != "new" {
		t.Errorf("report %+v, managers are %+v", r, w.programs)
	}
}

// The link is lost before the manager has heard of it: it is asked again.
func TestManagerIsAskedAgainToMakeWay(t *testing.T) {
	w, m := upgrading(t)
	w.then(link.ErrClosed)
	w.c.linked(m.pid, 1)
	if want := []string{opUpgrade, opLeave, opLeave}; !slices.Equal(w.asked, want) {
		t.Errorf("asked the manager %q, want %q", w.asked, want)
	}
	w.then(&link.RemoteError{Text: "no"})
	if r := w.c.upgrade.report; r.State != program.Failed || w.c.program.ID != "old" {
		t.Errorf("report %+v, the next manager would be %+v", r, w.c.program)
	}
}

func TestUpgradeOfTheManagerIsRolledBack(t *testing.T) {
	for _, ready := range []bool{false, true} {
		w, m := upgrading(t)
		w.c.cfg.Upgrade.Probation = 1 << 40
		next := w.nextManager(m, exited(0))
		if ready {
			w.hold(next, stats.Starting)
			close(next.ready)
			w.until("probation", func() bool { return w.c.upgrade.step == upProbation })
		}
		w.nextManager(next, supervise.Status{Known: true, Signal: syscall.SIGSEGV})
		if got := w.programs[len(w.programs)-1].ID; got != "old" {
			t.Errorf("ready %v: the next manager is %s", ready, got)
		}
		r := w.c.upgrade.report
		if r.State != program.Failed || !strings.Contains(r.Steps[1].Text, "rolled back") || w.became != nil {
			t.Errorf("ready %v: report %+v", ready, r)
		}
	}
}

func TestUpgradeThatFailsEarlier(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(w *world, m *fake)
		want string
	}{
		{"the manager refuses", func(w *world, _ *fake) { w.then(&link.RemoteError{Text: "no"}) }, "no"},
		{"the server is rolled back", func(w *world, _ *fake) { w.c.stepped(program.Step{Role: "server", Text: "rolled back"}) }, "rolled back"},
		{"the manager dies meanwhile", func(w *world, m *fake) { w.nextManager(m, supervise.Status{}) }, "not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, withStats)
			m, _ := w.up()
			if _, err := w.c.beginUpgrade(program.Order{Path: "/new", ID: "new"}); err != nil {
				t.Fatal(err)
			}
			tt.fail(w, m)
			r := w.c.upgrade.report
			if r.State != program.Failed || len(r.Steps) != 1 || !strings.Contains(r.Steps[0].Text, tt.want) {
				t.Errorf("report %+v", r)
			}
			for _, x := range w.programs {
				if x.ID != "old" {
					t.Error("a manager from the new executable")
				}
			}
		})
	}
}

// Cop stays what it is if exec fails.
func TestUpgradeOfCopFails(t *testing.T) {
	w, m := upgrading(t)
	w.execErr = errors.New("no exec")
	next := w.nextManager(m, exited(0))
	w.hold(next, stats.Starting)
	close(next.ready)
	w.until("end", func() bool { return w.c.upgrade.report.State == program.Failed })
	if s := w.c.upgrade.report.Steps[2]; s.Role != "cop" || s.OK || !strings.Contains(s.Text, "no exec") {
		t.Errorf("step %+v", s)
	}
}
