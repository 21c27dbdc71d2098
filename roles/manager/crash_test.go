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
	dir := t.TempDir()
	story(t, file, func(w *world) {
		w.on(func() {
			w.m.self.runRoot = dir
			w.m.crashes = newLedger(w.m.self)
		})
		f(w, storeOf(dir))
	})
}

// written lets the records be written.
func written() {
	time.Sleep(2 * recordAfter)
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
		w.on(func() { w.m.recordDeath(death{role: roleCop, pid: 50, startTime: 5, generation: 1}) })
		time.Sleep(time.Second)
		w.on(func() { w.m.recordSuccessor(roleCop, 51, 2) })
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
		w.on(func() { w.m.recordDeath(death{role: roleServer, pid: 70, startTime: 7, generation: 1}) })
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
