package ctl

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
)

var crashed = time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)

// died puts a death with everything on record, and one before it with nothing.
func (i *instance) died() crash.Store {
	i.t.Helper()
	s := crash.Store{Dir: i.root.Crashes()}
	server := crash.Process{Role: "server", PID: 4711, StartTime: 99, Generation: 3}
	manager := crash.Process{Role: "manager", PID: 11, StartTime: 9, Generation: 1}
	a := crash.Adoption{When: crashed, Dead: server, Successor: crash.Process{Role: "server", PID: 4712, Generation: 4}, TookMS: 2.3456}
	a.Connections = []crash.Connection{
		{Kind: crash.Client, Peer: "127.0.0.1:1", Local: "127.0.0.1:80", Request: "GET /a\x1b[2Jb", State: crash.PartlyAnswered, Outcome: crash.Resumed, ResponseByte: 70000},
		{Kind: crash.Client, Peer: "127.0.0.1:2", Local: "127.0.0.1:80", Request: "POST /up", State: crash.Upload, Outcome: crash.Resumed, RequestByte: 12},
		{Kind: crash.Tunnel, Peer: "127.0.0.1:3", Local: "127.0.0.1:80", State: crash.Nowhere, Outcome: crash.Lost, Why: "its descriptor did not come"},
	}
	a.Rest = []crash.Count{{State: crash.Idle, Outcome: crash.Resumed, N: 9500}}
	for _, err := range []error{
		s.WriteDeath(crash.Death{When: crashed.Add(-time.Hour), Dead: manager, Witness: crash.Process{Role: "cop"}, Cause: crash.Unknown}),
		s.WriteDeath(crash.Death{
			When: crashed, Dead: server, Witness: manager, Status: crash.Status{Known: true, Code: 2}, Cause: crash.Fault, UptimeSeconds: 61,
			Stacks: "panic: oh\n\ngoroutine 1 [running]:\nmain.f()\n\tmain.go:1\n", StacksCut: true, Log: []string{`{"message":"the last"}`},
		}),
		s.WriteAdoption(a),
	} {
		if err != nil {
			i.t.Fatal(err)
		}
	}
	return s
}

const crashTable = `ID              WHEN                     ROLE     ENDED    CAUSE      RESUMED  LOST  TOOK MS
server-4711-99  2026-01-02 03:04:05.678  server   exit 2   own fault  9502     1     2.346
manager-11-9    2026-01-02 02:04:05.678  manager  unknown  unknown    0        0     -
`

const crashText = `crash          server-4711-99
when           2026-01-02T03:04:05.6789Z
who            server 4711 (generation 3)
ended          exit 2
cause          own fault
had run        1m1s
taken over by  server 4712 (generation 4)
that took      2.346 ms
connections    9503 (9502 resumed, 1 lost)

KIND           PEER         LOCAL         STATE            OUTCOME                            REQUEST
tunnel         127.0.0.1:3  127.0.0.1:80  lost             lost: its descriptor did not come  -
client         127.0.0.1:1  127.0.0.1:80  partly answered  resumed, response at byte 70000    GET /a�[2Jb
client         127.0.0.1:2  127.0.0.1:80  upload           resumed, request at byte 12        POST /up
and 9500 more  -            -             idle             resumed                            -

LAST LOG LINES
{"message":"the last"}

STACKS
panic: oh

goroutine 1 [running]:
main.f()
    main.go:1
(the rest was cut)
`

// A standby is called one.
func TestCrashOfAStandby(t *testing.T) {
	i := newInstance(t)
	dead := crash.Process{Role: "server", PID: 4713, StartTime: 100}
	if err := (crash.Store{Dir: i.root.Crashes()}).WriteDeath(crash.Death{When: crashed, Dead: dead, Standby: true, Cause: crash.Outside}); err != nil {
		t.Fatal(err)
	}
	if out, _, err := i.run("crash", "list"); err != nil || !strings.Contains(out, "  standby  ") {
		t.Errorf("%v; %s", err, out)
	}
	if out, _, err := i.run("crash", "show", "last"); err != nil || !strings.Contains(out, "nobody, it was a standby") {
		t.Errorf("%v; %s", err, out)
	}
}

// "An operator wants this most when everything is down."
func TestCrashesWithoutAnInstance(t *testing.T) {
	i := newInstance(t)
	if out, _, err := i.run("crash", "list"); err != nil || out != "no crash is recorded\n" {
		t.Errorf("%v; %q", err, out)
	}
	if _, code, err := i.run("crash", "show", "last"); code != exitcode.Failed || err.Error() != "no crash is recorded in "+i.root.Dir() {
		t.Errorf("exit code %v, %v", code, err)
	}
	i.died()
	if out, _, err := i.run("crash", "list"); err != nil || out != crashTable {
		t.Errorf("%v; got\n%s\nwant\n%s", err, out, crashTable)
	}
	for _, id := range []string{"last", "server-4711-99", "server"} {
		if out, _, err := i.run("crash", "show", id); err != nil || out != crashText {
			t.Errorf("%v; got\n%s\nwant\n%s", err, out, crashText)
		}
	}
	out, _, err := i.run("crash", "list", "--json")
	var list control.Crashes
	if jerr := json.Unmarshal([]byte(out), &list); err != nil || jerr != nil || len(list.Crashes) != 2 || list.Crashes[0].Lost != 1 {
		t.Errorf("%v, %v; %s", err, jerr, out)
	}
	out, _, err = i.run("crash", "show", "last", "--json")
	var r crash.Record
	if jerr := json.Unmarshal([]byte(out), &r); err != nil || jerr != nil || r.Adoptions[0].Connections[0].Outcome != crash.Lost {
		t.Errorf("%v, %v; %s", err, jerr, out)
	}
	for _, key := range []string{`"when": "2026-01-02T03:04:05.6789Z"`, `"took_ms": 2.3456`, `"response_byte": 70000`, `"stacks": "panic`} {
		if !strings.Contains(out, key) {
			t.Errorf("no %s in %s", key, out)
		}
	}
}

func TestUnknownCrash(t *testing.T) {
	i := newInstance(t)
	i.died()
	want := `no crash record "server-4712" (did you mean "server-4711-99"?); all of them: trafficd ctl crash list`
	if _, code, err := i.run("crash", "show", "server-4712"); code != exitcode.Usage || err.Error() != want {
		t.Errorf("exit code %v, %v", code, err)
	}
	for _, args := range []string{"crash", "crash show", "crash show a b", "crash list a", "crash list --no"} {
		if _, code, err := i.run(strings.Fields(args)...); code != exitcode.Usage {
			t.Errorf("%s: exit code %v, %v", args, code, err)
		}
	}
}

// Half a record hides nothing else, and says what is wrong with it.
func TestBrokenCrashRecord(t *testing.T) {
	i := newInstance(t)
	s := i.died()
	if err := os.WriteFile(filepath.Join(s.Dir, "manager-11-9.death.cop.json"), []byte(`{"version":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := i.run("crash", "list"); err != nil || !strings.Contains(out, "unknown (incomplete)") || !strings.Contains(out, "own fault") {
		t.Errorf("%v; %s", err, out)
	}
	if out, _, err := i.run("crash", "show", "manager"); err != nil || !strings.Contains(out, "UNREADABLE") || !strings.Contains(out, "half of one") {
		t.Errorf("%v; %s", err, out)
	}
}

func TestNoRunRoot(t *testing.T) {
	i := newInstance(t)
	if err := os.Remove(i.root.Dir()); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"crash list", "crash show last"} {
		if _, code, err := i.run(strings.Fields(args)...); code != exitcode.NotRunning {
			t.Errorf("%s: exit code %v, %v", args, code, err)
		}
	}
}

// The manager is asked first: ctl may be a user that cannot read the run root.
func TestCrashesFromTheManager(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case control.PathCrashes:
			control.Write(w, control.Crashes{Crashes: []crash.Summary{{ID: "cop-1-2", When: crashed, Dead: crash.Process{Role: "cop"}}}})
		case control.PathCrashes + "/cop":
			control.Write(w, crash.Record{Summary: crash.Summary{ID: "cop-1-2"}})
		default:
			t.Errorf("asked at %s", r.URL.Path)
		}
	})
	if out, _, err := i.run("crash", "list"); err != nil || !strings.Contains(out, "cop-1-2") {
		t.Errorf("%v; %s", err, out)
	}
	if out, _, err := i.run("crash", "show", "cop"); err != nil || !strings.Contains(out, "taken over by  nobody yet") {
		t.Errorf("%v; %s", err, out)
	}
}

// A manager that hangs is no obstacle.
func TestCrashesBesideAHungManager(t *testing.T) {
	i := newInstance(t)
	i.died()
	i.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if out, _, err := i.run("crash", "list", "--timeout", "30ms"); err != nil || out != crashTable {
		t.Errorf("%v; %s", err, out)
	}
	if out, _, err := i.run("crash", "show", "last", "--timeout", "30ms"); err != nil || out != crashText {
		t.Errorf("%v; %s", err, out)
	}
}
