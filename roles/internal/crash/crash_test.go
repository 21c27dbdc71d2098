package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/supervise"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 123456789, time.UTC)

var (
	cop     = Process{Role: "cop", PID: 10, StartTime: 100, Generation: 1}
	manager = Process{Role: "manager", PID: 11, StartTime: 110, Generation: 1}
	dead    = Process{Role: "server", PID: 12, StartTime: 120, Generation: 3}
	next    = Process{Role: "server", PID: 13, StartTime: 130, Generation: 4}
)

func newStore(t testing.TB) Store {
	return Store{Dir: filepath.Join(t.TempDir(), "crashes")}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// killed is the death of the server by a signal.
func killed(by Process) Death {
	return Death{When: noon, Dead: dead, Witness: by, Status: Status{Known: true, Signal: 9}, UptimeSeconds: 60}
}

func adopted() Adoption {
	return Adoption{When: noon.Add(-time.Millisecond), Dead: dead, Successor: next, TookMS: 2.5, Connections: []Connection{
		{Kind: Client, Peer: "127.0.0.1:1", Local: "127.0.0.1:80", Request: "GET /a", State: PartlyAnswered, Outcome: Resumed, ResponseByte: 7},
		{Kind: Tunnel, Peer: "127.0.0.1:2", State: Tunnelling, Outcome: Lost, Why: "no descriptor"},
	}}
}

// A kill from outside, with all its witnesses: the manager saw how it ended, the next server what there was to go on with.
func TestPartsBecomeARecord(t *testing.T) {
	s := newStore(t)
	must(t, s.WriteAdoption(adopted()))
	must(t, s.WriteSuccession(Adoption{When: noon, Dead: dead, Successor: cop, TookMS: 99}))
	must(t, s.Bury(killed(manager)))
	r, err := s.Load("last")
	must(t, err)
	if r.ID != "server-12-120" || !r.When.Equal(noon.Add(-time.Millisecond)) || r.Dead != dead || r.Status.Signal != 9 ||
		r.Cause != Outside || *r.Successor != next || r.TookMS != 2.5 || r.UptimeSeconds != 60 || len(r.Problems) != 0 {
		t.Errorf("record %+v", r.Summary)
	}
	if r.Connections != 2 || r.Resumed != 1 || r.Lost != 1 {
		t.Errorf("%d connections, %d resumed, %d lost", r.Connections, r.Resumed, r.Lost)
	}
	if got := r.Adoptions[0].Connections; got[0].Outcome != Lost || got[1].ResponseByte != 7 {
		t.Errorf("connections %+v, want the lost one first", got)
	}
	for _, e := range names(t, s) {
		st, err := os.Stat(filepath.Join(s.Dir, e))
		if err != nil || st.Mode().Perm() != fileMode {
			t.Errorf("%s: mode %v, %v", e, st.Mode(), err)
		}
	}
}

func names(t testing.TB, s Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Who had it killed knows better than who saw the signal, whoever wrote first.
func TestTwoWitnesses(t *testing.T) {
	byCop := killed(cop)
	byCop.Gate, byCop.Status, byCop.When = "unhealthy: no progress", Status{}, noon.Add(time.Second)
	for _, order := range [][]Death{{byCop, killed(manager)}, {killed(manager), byCop}} {
		s := newStore(t)
		for _, d := range order {
			must(t, s.Bury(d))
		}
		r, err := s.Load("server-12")
		must(t, err)
		if r.Cause != Gate || r.Reason != "unhealthy: no progress" || r.Status.Signal != 9 || !r.When.Equal(noon) {
			t.Errorf("record %+v", r.Summary)
		}
	}
}

// A successor that died at it, and the one after that: both parts stay.
func TestTwoAdoptions(t *testing.T) {
	s := newStore(t)
	second := adopted()
	second.Successor.PID, second.Successor.Generation, second.When = 14, 5, noon.Add(time.Second)
	must(t, s.WriteAdoption(second))
	must(t, s.WriteAdoption(adopted()))
	r, err := s.Load("last")
	must(t, err)
	if len(r.Adoptions) != 2 || r.Successor.PID != 14 || r.Connections != 4 || r.Cause != Unknown {
		t.Errorf("record %+v", r)
	}
}

// The first word on the successor stays, and is good for what no server could adopt.
func TestSuccession(t *testing.T) {
	s := newStore(t)
	must(t, s.WriteSuccession(Adoption{When: noon, Dead: manager, Successor: cop, TookMS: 3}))
	must(t, s.WriteSuccession(Adoption{When: noon, Dead: manager, Successor: next, TookMS: 4}))
	r, err := s.Load("manager-11-110")
	must(t, err)
	if *r.Successor != cop || r.TookMS != 3 || len(names(t, s)) != 1 {
		t.Errorf("record %+v of %v", r, names(t, s))
	}
}

// Any number of connections makes a record of bounded size that counts them all and lists what matters.
func TestManyConnections(t *testing.T) {
	s := newStore(t)
	a := Adoption{When: noon, Dead: dead, Successor: next}
	long := strings.Repeat("\x01é", 1000)
	for range 10_000 {
		a.Connections = append(a.Connections, Connection{Kind: Client, Peer: long, Local: long, Request: long, State: Idle, Outcome: Resumed})
	}
	for range 300 {
		a.Connections = append(a.Connections, Connection{Kind: Client, State: Upload, Outcome: Resumed, RequestByte: 1, Why: long})
	}
	a.Connections = append(a.Connections, Connection{Kind: Client, State: Nowhere, Outcome: Lost, Why: long})
	must(t, s.WriteAdoption(a))
	r, err := s.Load("last")
	must(t, err)
	if r.Connections != 10_301 || r.Resumed != 10_300 || r.Lost != 1 {
		t.Errorf("%d connections, %d resumed, %d lost", r.Connections, r.Resumed, r.Lost)
	}
	listed := r.Adoptions[0].Connections
	if len(listed) != MaxConnections || listed[0].Outcome != Lost || listed[300].State != Upload || listed[301].State != Idle {
		t.Errorf("%d listed, first %+v", len(listed), listed[0])
	}
	if want := []Count{{Idle, Resumed, 10_301 - MaxConnections}}; !slices.Equal(r.Adoptions[0].Rest, want) {
		t.Errorf("rest %+v, want %+v", r.Adoptions[0].Rest, want)
	}
	if n := len(listed[400].Request); n > maxText {
		t.Errorf("request of %d bytes", n)
	}
}

// The longest part that can be written can be read.
func TestLongestDeath(t *testing.T) {
	s := newStore(t)
	d := killed(manager)
	d.Stacks, d.Reason = strings.Repeat("\x01", MaxStacks+1), strings.Repeat("\x01", 1000)
	for range MaxLines {
		d.Log = append(d.Log, strings.Repeat("\x01", MaxLine))
	}
	must(t, s.Bury(d))
	r, err := s.Load("last")
	must(t, err)
	if len(r.Problems) > 0 || len(r.Stacks) != MaxStacks || !r.StacksCut || len(r.Log) != MaxLines {
		t.Errorf("%v; %d bytes of stacks, %d lines", r.Problems, len(r.Stacks), len(r.Log))
	}
}

// What cannot be a part is refused with the reason, is in the list, and hides nothing.
func TestRefusals(t *testing.T) {
	good, err := json.Marshal(part{Version: Version, Kind: kindDeath, Death: &Death{When: noon, Dead: dead}})
	must(t, err)
	const name = "server-12-120.death.manager.json"
	for _, tt := range []struct {
		name, text, want string
	}{
		{name, "", "half of one"},
		{name, string(good[:len(good)/2]), "half of one"},
		{name, string(good) + "{}", "half of one"},
		{name, "\x00\x00\x00\x00", "half of one"},
		{name, "[]", "half of one"},
		{name, "{}", "of another version"},
		{name, "null", "of another version"},
		{name, strings.Replace(string(good), `"version":1`, `"version":2`, 1), "of another version"},
		{name, strings.Replace(string(good), `"pid":12`, `"pid":"12"`, 1), "not a crash record"},
		{name, strings.Replace(string(good), `"pid":12`, `"pid":21`, 1), "about another process"},
		{name, strings.Replace(string(good), noon.Format(time.RFC3339Nano), "0001-01-01T00:00:00Z", 1), "without a time"},
		{name, strings.Replace(string(good), `"kind":"death"`, `"kind":"adoption"`, 1), "its name does not say"},
		{name, `{"version":1,"kind":"death"}`, "of no known kind"},
		{"server-12-120.birth.x.json", `{"version":1,"kind":"birth"}`, "of no known kind"},
		{"server-12-120.adoption.4.json", `{"version":1,"kind":"adoption","adoption":{"when":"2026-01-02T12:00:00Z","dead":{"role":"server","pid":12,"start_time":120},"rest":[{"n":-1}]}}`, "negative"},
		{"server-12-120.adoption.4.json", `{"version":1,"kind":"adoption","adoption":{"connections":[` + strings.Repeat("{},", MaxConnections) + `{}]}}`, "more than 500"},
		{name, strings.Repeat(" ", maxPart+1), "longer than"},
	} {
		s := newStore(t)
		must(t, s.WriteSuccession(Adoption{When: noon.Add(time.Hour), Dead: manager, Successor: cop}))
		must(t, os.WriteFile(filepath.Join(s.Dir, tt.name), []byte(tt.text), 0o600))
		list, err := s.List()
		must(t, err)
		i := slices.IndexFunc(list, func(x Summary) bool { return x.ID == dead.ID() })
		if len(list) != 2 || i < 0 || len(list[i].Problems) != 1 || !strings.Contains(list[i].Problems[0], tt.name+": ") || !strings.Contains(list[i].Problems[0], tt.want) {
			t.Errorf("%.60q: list %+v, want %q", tt.text, list, tt.want)
		}
	}
}

// Names that are none of ours are left alone, and what is no file is neither waited for nor followed.
func TestStrangeFiles(t *testing.T) {
	s := newStore(t)
	must(t, os.Mkdir(s.Dir, 0o700))
	must(t, unix.Mkfifo(filepath.Join(s.Dir, "server-1-1.death.cop.json"), 0o600))
	must(t, os.Symlink("/etc/passwd", filepath.Join(s.Dir, "server-2-2.death.cop.json")))
	must(t, os.Mkdir(filepath.Join(s.Dir, "server-3-3.death.cop.json"), 0o700))
	for _, name := range []string{"server-01-1.death.cop.json", "x-1-1.death.cop.json", "server-1.death.cop.json", "README", "server-9-9", ".json"} {
		must(t, os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600))
	}
	list, err := s.List()
	must(t, err)
	if len(list) != 3 {
		t.Errorf("list %+v", list)
	}
	for _, x := range list {
		if len(x.Problems) != 1 {
			t.Errorf("%+v", x)
		}
	}
}

func TestLoad(t *testing.T) {
	s := newStore(t)
	if _, err := s.Load("last"); !errors.Is(err, ErrNone) {
		t.Errorf("last of none: %v", err)
	}
	list, err := s.List()
	if err != nil || list == nil || len(list) != 0 {
		t.Errorf("list of none: %v, %v", list, err)
	}
	for i, p := range []Process{{Role: "manager", PID: 7, StartTime: 1}, {Role: "server", PID: 12, StartTime: 1}, {Role: "server", PID: 12, StartTime: 20}} {
		must(t, s.WriteDeath(Death{When: noon.Add(time.Duration(i) * time.Second), Dead: p, Witness: cop}))
	}
	for _, tt := range []struct {
		id, want string // the record, or else the error
	}{
		{"last", "server-12-20"},
		{"server-12-1", "server-12-1"},
		{"manager", "manager-7-1"},
		{"server-12", `no crash record "server-12" (did you mean one of server-12-`},
		{"12", `no crash record "12" (did you mean one of server-12-`},
		{"7", `no crash record "7" (did you mean "manager-7-1"?)`},
		{"manager-8", `no crash record "manager-8" (did you mean "manager-7-1"?)`},
		{"", `no crash record "" (did you mean "`},
		{"../../etc/passwd", `no crash record "../../etc/passwd" (did you mean "`},
	} {
		r, err := s.Load(tt.id)
		if err != nil && !strings.HasPrefix(err.Error(), tt.want) || err == nil && r.ID != tt.want {
			t.Errorf("Load(%q): %s, %v; want %s", tt.id, r.ID, err, tt.want)
		}
	}
	if _, err := newStore(t).Load("x"); err == nil || err.Error() != `no crash record "x"` {
		t.Errorf("Load of none: %v", err)
	}
}

// The newest MaxRecords and MaxTotal bytes stay, and the last record whatever its size.
func TestPrune(t *testing.T) {
	s := newStore(t)
	write := func(pid int, age time.Duration, size int) {
		p := Process{Role: "server", PID: pid, StartTime: 1}
		must(t, s.WriteDeath(Death{When: noon, Dead: p, Witness: manager}))
		path := filepath.Join(s.Dir, p.ID()+".death.manager.json")
		must(t, os.Truncate(path, int64(size)))
		must(t, os.Chtimes(path, time.Time{}, noon.Add(-age)))
	}
	count := func() int {
		t.Helper()
		must(t, s.Prune())
		list, err := s.List()
		must(t, err)
		return len(list)
	}
	for i := range MaxRecords + 3 {
		write(i+1, time.Duration(i)*time.Second, 1)
	}
	half := filepath.Join(s.Dir, newPrefix+"1")
	must(t, os.WriteFile(half, nil, 0o600))
	must(t, os.Chtimes(half, time.Time{}, time.Now().Add(-time.Hour)))
	if n := count(); n != MaxRecords {
		t.Errorf("%d records stay", n)
	}
	if _, err := s.Load(fmt.Sprintf("server-%d-1", MaxRecords+1)); err == nil {
		t.Error("the oldest stays")
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("what a killed writer left stays")
	}
	write(1, 0, MaxTotal/2)
	write(2, time.Second, MaxTotal/2)
	if n := count(); n != 2 {
		t.Errorf("%d records within MaxTotal, want 2", n)
	}
	write(3, -time.Second, MaxTotal+1)
	if n := count(); n != 1 {
		t.Errorf("%d records with one larger than MaxTotal", n)
	}
}

// Readers among writers see whole parts only.
func TestConcurrent(t *testing.T) {
	s := newStore(t)
	must(t, s.Bury(killed(manager)))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 2 {
		wg.Go(func() {
			for n := range 30 {
				a := adopted()
				a.Successor.Generation = uint64(n)
				if err := errors.Join(s.WriteAdoption(a), s.Bury(killed([]Process{manager, cop}[i])), s.WriteSuccession(a)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reader := make(chan struct{})
	go func() {
		defer close(reader)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := s.Load("last"); err != nil || len(r.Problems) > 0 {
				t.Errorf("%v, %v", r.Problems, err)
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-reader
}

func TestCause(t *testing.T) {
	signal := func(sig syscall.Signal) Status { return Status{Known: true, Signal: int(sig)} }
	exit := func(code int) Status { return Status{Known: true, Code: code} }
	for _, tt := range []struct {
		d    Death
		want Cause
	}{
		{Death{}, Unknown},
		{Death{Status: signal(syscall.SIGKILL)}, Outside},
		{Death{Status: signal(syscall.SIGKILL), Gate: "hang"}, Gate},
		{Death{Status: exit(0), Asked: "restart"}, Asked},
		{Death{Status: signal(syscall.SIGSEGV)}, Fault},
		{Death{Status: signal(syscall.SIGSYS)}, Fault},
		{Death{Status: exit(78)}, Exit},
		{Death{Status: exit(2), Stacks: "panic: oh\n\ngoroutine 1 [running]:\n"}, Fault},
		{Death{Stacks: "fatal error: all goroutines are asleep - deadlock!\n"}, Fault},
		{Death{Stacks: "runtime: out of memory: cannot allocate\nfatal error: runtime: out of memory\n"}, Fault},
		{Death{Status: exit(2), Stacks: "\ngoroutine 23 [running]:\nruntime.throw({0x1, 0x2})\n"}, Fault},
		{Death{Status: exit(2), Stacks: "unexpected fault address 0x0\n"}, Fault},
		{Death{Status: exit(2), Stacks: "SIGABRT: abort\nPC=0x1 m=0 sigcode=0\n"}, Outside},
		{Death{Status: exit(2), Stacks: "SIGSEGV: segmentation violation\nPC=0x1 m=0 sigcode=0 addr=0x0\n"}, Outside},
		{Death{Status: exit(2), Stacks: "SIGSEGV: segmentation violation\nPC=0x1 m=0 sigcode=1 addr=0x0\n"}, Fault},
		{Death{Status: exit(2), Stacks: "SIGBUS: bus error\nPC=0x1 m=0 sigcode=-6\n"}, Outside},
	} {
		if got := tt.d.cause(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.d, got, tt.want)
		}
	}
	for _, tt := range []struct {
		stacks string
		log    []string
		want   string
	}{
		{"panic: oh\n\ngoroutine 1 [running]:\n", []string{"fatal error: older"}, "panic: oh"},
		{"SIGABRT: abort\nPC=0x1", nil, "SIGABRT: abort"},
		{"\ngoroutine 1 [running]:\n", []string{"a", "fatal error: older", "fatal error: x", "b"}, "fatal error: x"},
		{"goroutine 1 [running]:\n", nil, ""},
	} {
		if got := lastWord(tt.stacks, tt.log); got != tt.want {
			t.Errorf("last word %q, want %q", got, tt.want)
		}
	}
	if !better(Unknown, "of a later version") || better(Outside, Fault) {
		t.Error("authority")
	}
}

func TestLinesOfTheLog(t *testing.T) {
	log := `fatal error: of somebody before
{"level":"info","role":"server","pid":12,"time":"2026-01-02T11:00:00.000Z","message":"of an earlier process"}
{"level":"info","role":"server","pid":12,"time":"2026-01-02T11:59:59.000Z","message":"first"}
{"level":"info","role":"manager","pid":11,"process_pid":12,"time":"2026-01-02T12:00:00.000Z","message":"of another"}
{"level":"info","role":"server","pid":120,"time":"2026-01-02T12:00:00.000Z","message":"of another"}
12:00:00.000 INF server  human form pid=12
12:00:00.000 INF manager human form pid=11 process_pid=12
{"level":"info","role":"server","time":"2026-01-02T12:00:00.000Z","message":"x","pid":12}
fatal error: concurrent map writes
{"role":"server","pid":12,"time":"2026-01-`
	got := strings.Join(linesOf([]byte(log), 12, noon.Add(-time.Minute)), "\n")
	for _, want := range []string{`"first"`, "human form pid=12", `"message":"x","pid":12}`, "fatal error: concurrent"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Count(got, "\n") != 3 {
		t.Errorf("got\n%s", got)
	}
	many := strings.Repeat("x pid=12 "+strings.Repeat("é", MaxLine)+"\n", 2*MaxLines)
	lines := linesOf([]byte(many), 12, time.Time{})
	if len(lines) != MaxLines || len(lines[0]) > MaxLine+3 {
		t.Errorf("%d lines of %d bytes", len(lines), len(lines[0]))
	}
	path := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(path, []byte(strings.Repeat("x pid=12 old\n", tailBytes/13)+"x pid=12 new\n"), 0o600))
	if lines := lastLines(path, 12, time.Time{}); len(lines) != MaxLines || lines[MaxLines-1] != "x pid=12 new" {
		t.Errorf("tail %q", lines)
	}
}

// The ledger remembers until the death why the gate killed, and until the successor whose place was empty.
func TestLedger(t *testing.T) {
	s := newStore(t)
	l := NewLedger(s, manager)
	l.Judged(supervise.Decision{PID: dead.PID, Cause: supervise.Unhealthy, Reason: "no progress"})
	l.Judged(supervise.Decision{PID: next.PID, Cause: supervise.Requested, Reason: "operator"})
	l.Judged(supervise.Decision{PID: next.PID, Cause: supervise.Unhealthy, Final: true, Outcome: supervise.Forbidden})
	if want := map[int]string{dead.PID: "unhealthy: no progress"}; !maps.Equal(l.reasons, want) {
		t.Errorf("reasons %v, want %v", l.reasons, want)
	}
	d := killed(Process{})
	must(t, l.Died(d, true)())
	if l.Succeeded(manager, noon) != nil || l.Succeeded(dead, noon) != nil {
		t.Error("succeeded by another role, or by itself")
	}
	l.Judged(supervise.Decision{PID: dead.PID, Cause: supervise.Unhealthy, Reason: "no progress"})
	must(t, l.Died(d, true)())
	must(t, l.Succeeded(next, noon.Add(time.Second))())
	if l.Succeeded(next, noon) != nil {
		t.Error("succeeded twice")
	}
	r, err := s.Load("last")
	must(t, err)
	if r.Cause != Gate || *r.Successor != next || r.TookMS != 1000 {
		t.Errorf("record %+v", r.Summary)
	}
	// One who follows follows all whose place was empty.
	second := Process{Role: dead.Role, PID: 90, StartTime: 900}
	must(t, l.Died(d, true)())
	must(t, l.Died(Death{When: noon.Add(time.Second), Dead: second}, true)())
	must(t, l.Succeeded(Process{Role: dead.Role, PID: 91}, noon.Add(2*time.Second))())
	if r, err = s.Load(second.ID()); err != nil || r.Successor == nil || r.Successor.PID != 91 || r.TookMS != 1000 {
		t.Errorf("record %+v, %v", r.Summary, err)
	}
	for n := range 2 * maxVacant {
		l.Died(Death{When: noon, Dead: Process{Role: dead.Role, PID: 100 + n}}, true)
	}
	if n := len(l.vacant[dead.Role]); n != maxVacant {
		t.Errorf("%d vacancies are remembered", n)
	}
	must(t, l.Succeeded(second, noon)())
	must(t, l.Died(Death{When: noon, Dead: next}, false)())
	if l.Succeeded(dead, noon) != nil {
		t.Error("the place of one that was replaced before counts as empty")
	}
	var none Ledger
	none.Judged(supervise.Decision{})
	if none.Died(d, true) != nil || none.Succeeded(next, noon) != nil {
		t.Error("a ledger without a store has work to do")
	}
}

// What a supervisor knows for certain is on record; the rest is found out from what the dead has left.
func TestDeathOf(t *testing.T) {
	known := supervise.Status{Known: true, Signal: 9}
	for _, tt := range []struct {
		d      supervise.Death
		cause  Cause
		reason string
	}{
		{supervise.Death{Status: known, Fault: supervise.FaultOutside}, Outside, ""},
		{supervise.Death{Status: known, Fault: supervise.FaultHang}, Gate, ""},
		{supervise.Death{Status: supervise.Status{Known: true}, Fault: supervise.FaultAsked, Reason: "upgrade"}, Asked, "upgrade"},
		{supervise.Death{Status: supervise.Status{Known: true}, Fault: supervise.FaultAsked}, Asked, "restart"},
		{supervise.Death{Status: supervise.Status{Known: true, Code: 1}, Fault: supervise.FaultOwn, Refusal: "no memory"}, Exit, "no memory"},
		{supervise.Death{Status: supervise.Status{Known: true, Signal: 11}, Fault: supervise.FaultOwn}, Fault, ""},
		{supervise.Death{Fault: supervise.FaultUnknown}, Unknown, ""},
	} {
		tt.d.Role, tt.d.PID, tt.d.StartTime, tt.d.Generation = dead.Role, dead.PID, dead.StartTime, dead.Generation
		tt.d.Time, tt.d.Uptime, tt.d.Standby = noon, time.Minute, true
		s := newStore(t)
		must(t, s.Bury(DeathOf(tt.d)))
		r, err := s.Load("last")
		must(t, err)
		if r.Dead != dead || !r.When.Equal(noon) || r.UptimeSeconds != 60 || r.Cause != tt.cause || r.Reason != tt.reason || !r.Standby {
			t.Errorf("%+v is on record as %+v", tt.d, r.Summary)
		}
	}
}

// A "standby" whose connections somebody has adopted was the server, whatever its supervisor knew.
func TestAdoptedStandbyWasTheServer(t *testing.T) {
	s := newStore(t)
	d := killed(manager)
	d.Standby = true
	must(t, s.WriteDeath(d))
	must(t, s.WriteAdoption(adopted()))
	if r, err := s.Load("last"); err != nil || r.Standby {
		t.Errorf("record %+v, %v", r.Summary, err)
	}
}

// Whose gate it was knows why, in whatever order the parts are read.
func TestGatesReasonIsBelieved(t *testing.T) {
	knows, sees := killed(Process{Role: "cop"}), killed(manager)
	knows.Cause, knows.Gate = Gate, "no progress"
	sees.Cause, sees.Reason = Gate, "SIGABRT: abort"
	for _, parts := range [][2]*Death{{&knows, &sees}, {&sees, &knows}} {
		var r Record
		r.Cause = Unknown
		for _, d := range parts {
			r.addDeath(d)
		}
		if r.Reason != "no progress" {
			t.Errorf("reason %q", r.Reason)
		}
	}
}

// Whatever stands in a file: it is refused, or it means the same when it is written down again.
func FuzzPart(f *testing.F) {
	const death, adoption = "server-12-120.death.manager.json", "server-12-120.adoption.4.json"
	d, a := killed(manager), adopted()
	for _, p := range []part{{Version, kindDeath, &d, nil}, {Version, kindAdoption, nil, &a}} {
		b, err := json.Marshal(p)
		must(f, err)
		f.Add(death, b)
		f.Add(adoption, b)
		f.Add(adoption, b[:len(b)/2])
	}
	f.Add(death, []byte(`{"version":1,"kind":"death","death":null}`))
	f.Add("server-12-120.succession.json", []byte(`{"version":1,"kind":"succession","adoption":{"took_ms":1e400}}`))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		p, err := decode(name, b)
		if err != nil {
			return
		}
		var r Record
		r.add(p)
		if r.Connections < r.Resumed+r.Lost {
			t.Fatalf("%+v", r.Summary)
		}
		again, err := json.Marshal(p)
		must(t, err)
		second, err := decode(name, again)
		must(t, err)
		if third, err := json.Marshal(second); err != nil || string(third) != string(again) {
			t.Fatalf("%q became %q: %v", again, third, err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}

// Of any log the lines come out bounded.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a pid=12\n{\"pid\":12,\"time\":\"2026-01-02T12:00:00.000Z\"}\n"), 12)
	f.Add([]byte("\xff pid=1 \x00"), 1)
	f.Fuzz(func(t *testing.T, b []byte, pid int) {
		lines := linesOf(b, pid, noon)
		if len(lines) > MaxLines {
			t.Fatalf("%d lines", len(lines))
		}
		for _, l := range lines {
			if len(l) > MaxLine+len("…") || strings.ContainsAny(l, "\n") {
				t.Fatalf("line %q", l)
			}
		}
		_ = causeOfStacks(string(b))
	})
}
