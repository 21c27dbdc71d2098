package manager

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// recorded is story with a run root, so that deaths are recorded.
func recorded(t *testing.T, file string, f func(w *world, s crash.Store)) {
	t.Helper()
	story(t, file, func(w *world) { f(w, w.recording()) })
}

// recording has the world's manager record deaths.
func (w *world) recording() crash.Store {
	w.t.Helper()
	dir := w.t.TempDir()
	w.on(func() {
		w.m.self.runRoot = dir
		w.m.crashes = newLedger(w.m.self)
	})
	return storeOf(dir)
}

// recordOf is what is on record of a process.
func recordOf(t *testing.T, s crash.Store, p *fakeProcess) crash.Record {
	t.Helper()
	written()
	r, err := s.Load(crash.Process{Role: roleServer, PID: p.pid}.ID())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// written lets the records be written.
func written() {
	time.Sleep(2 * crash.KeepAfter)
	synctest.Wait()
}

// On record: who died and how, and who came after it, how long after.
func TestDeathIsRecorded(t *testing.T) {
	recorded(t, "", func(w *world, s crash.Store) {
		first := w.server(1)
		first.serves()
		time.Sleep(90 * time.Second)
		first.die(killed)
		second := w.server(2)
		time.Sleep(30 * time.Millisecond)
		second.serves()
		written()
		r, err := s.Load("last")
		if err != nil {
			t.Fatal(err)
		}
		if r.Dead.PID != first.pid || r.Dead.Generation != 1 || r.Status.Signal != 9 || r.Cause != crash.Outside || r.UptimeSeconds != 90 {
			t.Errorf("record %+v", r.Summary)
		}
		if r.Successor == nil || r.Successor.PID != second.pid || r.TookMS != 30 {
			t.Errorf("successor %+v after %v ms", r.Successor, r.TookMS)
		}
	})
}

// The gate's word, the process's own word, and a stop, which is no crash.
func TestCausesAreRecorded(t *testing.T) {
	recorded(t, "supervision: {start_deadline: 3s}\nhealth: {kill_grace: 1s}\n", func(w *world, s crash.Store) {
		w.server(1).deaf.Store(true)
		time.Sleep(5 * time.Second)
		written()
		r, err := s.Load("last")
		if err != nil || r.Cause != crash.Gate || !strings.Contains(r.Reason, "not ready within its start deadline") {
			t.Errorf("record %+v, %v", r.Summary, err)
		}
		time.Sleep(time.Second) // of back-off
		second := w.server(2)
		second.serves()
		w.on(func() { w.m.stop(stopping) })
		second.die(supervise.Status{Known: true})
		written()
		list, err := s.List()
		if err != nil || len(list) != 1 {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

func TestCopsDeathIsRecorded(t *testing.T) {
	recorded(t, "", func(w *world, s crash.Store) {
		w.server(1).serves()
		w.on(func() {
			w.m.recordDeath(supervise.Death{Role: roleCop, PID: 50, StartTime: 5, Generation: 1, Time: time.Now(), Fault: supervise.FaultUnknown, Vacant: true})
		})
		time.Sleep(time.Second)
		w.on(func() { w.m.recordSuccessor(roleCop, 51, 2, time.Now()) })
		written()
		r, err := s.Load("cop")
		if err != nil || r.Cause != crash.Unknown || r.Successor == nil || r.Successor.PID != 51 || r.TookMS != 1000 {
			t.Errorf("record %+v, %v", r.Summary, err)
		}
	})
}

func TestCrashesAreServed(t *testing.T) {
	recorded(t, "", func(w *world, s crash.Store) {
		w.server(1).serves()
		ask := func(method, path string, answer any) int {
			t.Helper()
			rec := httptest.NewRecorder()
			(&controller{w.m}).ServeHTTP(rec, httptest.NewRequest(method, path, nil))
			if answer != nil {
				if err := json.Unmarshal(rec.Body.Bytes(), answer); err != nil {
					t.Fatalf("%s: %v in %s", path, err, rec.Body)
				}
			}
			return rec.Code
		}
		var list control.Crashes
		if code := ask(http.MethodGet, control.PathCrashes, &list); code != 200 || list.Crashes == nil || len(list.Crashes) != 0 {
			t.Errorf("status %d, %+v", code, list)
		}
		if code := ask(http.MethodGet, control.PathCrashes+"/last", nil); code != 404 {
			t.Errorf("last of none: status %d", code)
		}
		w.on(func() {
			w.m.recordDeath(supervise.Death{Role: roleServer, PID: 70, StartTime: 7, Generation: 1, Time: time.Now()})
		})
		written()
		if ask(http.MethodGet, control.PathCrashes, &list); len(list.Crashes) != 1 {
			t.Errorf("list %+v", list)
		}
		var r crash.Record
		if code := ask(http.MethodGet, control.PathCrashes+"/server-70", &r); code != 200 || r.ID != "server-70-7" {
			t.Errorf("status %d, %+v", code, r)
		}
		var refused struct{ Error control.Error }
		if code := ask(http.MethodGet, control.PathCrashes+"/server-71", &refused); code != 404 || !strings.Contains(refused.Error.Text, `did you mean "server-70-7"?`) {
			t.Errorf("status %d, %+v", code, refused)
		}
		if code := ask(http.MethodPost, control.PathCrashes+"/last", nil); code != 405 {
			t.Errorf("POST: status %d", code)
		}
	})
}

// A standby that dies leaves no place empty: it is on record as what it was, and nobody follows it. The place of the
// server, whose standby it was to be, waits for whoever takes it.
func TestStandbysDeathIsRecorded(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		second.die(killed)
		third := w.server(3)
		third.stands()
		first.die(killed)
		synctest.Wait()
		third.takesOver()
		if r := recordOf(t, s, second); !r.Standby || r.Successor != nil || r.Status.Signal != 9 {
			t.Errorf("record of the standby %+v", r.Summary)
		}
		if r := recordOf(t, s, first); r.Standby || r.Successor == nil || r.Successor.PID != third.pid {
			t.Errorf("record of the server %+v", r.Summary)
		}
	})
}

// A standby that is gone before anybody has heard that it had taken over was the server nevertheless: shared memory names
// it. Both it and the one before are followed by the next.
func TestServerThatWasTakenForAStandby(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		first.die(killed)
		synctest.Wait()
		w.on(func() { w.m.serverRecord().Enter(second.pid, 0, second.generation) })
		time.Sleep(3 * time.Second)
		second.die(killed)
		third := w.server(3)
		third.serves()
		for _, p := range []*fakeProcess{first, second} {
			r := recordOf(t, s, p)
			if r.Standby || r.Successor == nil || r.Successor.PID != third.pid {
				t.Errorf("record of %d: %+v", p.pid, r.Summary)
			}
		}
		if r := recordOf(t, s, second); r.UptimeSeconds != 3 {
			t.Errorf("it was in its role for %v s", r.UptimeSeconds)
		}
	})
}

// The successor may be heard of before the death, and serve before it.
func TestSuccessorIsFasterThanTheNews(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		second.takesOver()
		time.Sleep(90 * time.Millisecond)
		first.die(killed)
		if r := recordOf(t, s, first); r.Successor == nil || r.Successor.PID != second.pid || r.Cause != crash.Outside {
			t.Errorf("record %+v", r.Summary)
		}
	})
}

// A stop does not hide a death that was noticed before it, though its end is seen after it.
func TestDeathBeforeTheStopIsRecorded(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		first.deaf.Store(true)
		second.takesOver()
		time.Sleep(time.Millisecond)
		w.on(func() { w.m.stop(draining) })
		first.die(killed)
		second.die(supervise.Status{Known: true})
		<-w.over
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Dead.PID != first.pid || list[0].Cause != crash.Outside {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

// One that makes way is on record, as asked for and for what; and who followed it.
func TestYieldIsRecordedAsAskedFor(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		s := w.recording()
		w.on(func() { w.m.restart(false, make(chan restarts, 1)) })
		if first.wasAsked(opYield) != 1 {
			t.Fatal("it was not asked to yield")
		}
		first.die(supervise.Status{Known: true})
		synctest.Wait()
		second.takesOver()
		r := recordOf(t, s, first)
		if r.Cause != crash.Asked || r.Reason != "restart" || r.Standby || r.Successor == nil || r.Successor.PID != second.pid {
			t.Errorf("record %+v", r.Summary)
		}
	})
}

// The first thing that a status says.
func TestStatusLeadsWithSurvival(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).serves()
		w.m.estate.region.Bank(1).Row(0).Add(stats.RequestsResumed, 3)
		w.m.estate.region.Bank(2).Row(0).Inc(stats.CrashesMasked)
		var s control.Status
		w.on(func() { s = w.m.status() })
		b, err := json.Marshal(s)
		if want := `{"crashes_masked":1,"requests_resumed":3,"requests_lost":0,`; err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("status %.80s, want %s", b, want)
		}
	})
}
