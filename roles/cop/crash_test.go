package cop

import (
	"errors"
	"strings"
	"testing"
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// recording has the world's cop record deaths.
func (w *world) recording() crash.Store {
	w.t.Helper()
	root, err := runroot.New(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.c.crashes = newLedger(root, birth{self: w.c.self, generation: w.c.ownGen})
	return crash.Store{Dir: root.Crashes()}
}

// onRecord waits for a record to be as cond wants it.
func (w *world) onRecord(s crash.Store, pid int, cond func(crash.Summary) bool) crash.Summary {
	w.t.Helper()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	deadline := time.After(time.Minute)
	for {
		list, err := s.List()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range list {
			if r.Dead.PID == pid && cond(r) {
				return r
			}
		}
		select {
		case <-t.C:
		case <-deadline:
			w.t.Fatalf("no such record of %d in %+v", pid, list)
		}
	}
}

func TestManagersDeathIsRecorded(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	s := w.recording()
	w.pass(time.Second)
	m.die(killed9)
	w.until("next manager", func() bool { return len(w.started) == 2 })
	w.pass(time.Second)
	next := w.started[1]
	close(next.ready)
	w.until("it is ready", func() bool { return w.c.manager.state == supervise.Ready })
	r := w.onRecord(s, m.pid, func(r crash.Summary) bool { return r.Successor != nil && r.Status.Known })
	if r.Dead.Role != "manager" || r.Status.Signal != 9 || r.Cause != crash.Outside || r.Successor.PID != next.pid || r.TookMS != 1000 {
		t.Errorf("record %+v", r)
	}
}

func TestPlannedEndOfTheManagerIsRecordedAsSuch(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	s := w.recording()
	m.die(exited(0))
	w.until("next manager", func() bool { return len(w.started) == 2 })
	if r := w.onRecord(s, m.pid, func(r crash.Summary) bool { return r.Status.Known }); r.Cause != crash.Asked {
		t.Errorf("record %+v", r)
	}
}

// A server's death is the manager's to tell, but cop knows what the manager does not, and may be the only one left.
func TestServersDeathIsRecordedByCop(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(w *world, m, s *fake)
		cause crash.Cause
	}{
		{"wedged", func(w *world, _, s *fake) {
			w.answers(supervise.Server, deaf)
			w.pass(5 * time.Second)
			w.pass(5 * time.Second)
		}, crash.Gate},
		{"with its manager", func(w *world, m, s *fake) {
			w.startErr = errors.New("no more processes")
			m.die(killed9)
			w.until("the manager is gone", func() bool { return w.c.manager.p == nil })
			s.die(supervise.Status{})
		}, crash.Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, withStats)
			m, server := w.up()
			s := w.recording()
			tt.end(w, m, server)
			w.until("it is gone", func() bool { return w.c.server.p != process(server) })
			r := w.onRecord(s, server.pid, func(crash.Summary) bool { return true })
			if r.Cause != tt.cause || tt.cause == crash.Gate && !strings.Contains(r.Reason, "no progress") {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// A stop that was asked for is no crash.
func TestStopIsNotRecorded(t *testing.T) {
	w := newWorld(t, withStats)
	m, _ := w.up()
	s := w.recording()
	w.c.stop(draining)
	m.die(exited(0))
	w.until("it is gone", func() bool { return w.c.manager.p == nil })
	if w.region.Role(stats.RoleManager).PID.Load() == uint64(m.pid) {
		t.Error("the books are open")
	}
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("list %+v, %v", list, err)
	}
}
