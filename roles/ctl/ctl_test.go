package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
)

// holdEnv has the test binary hold a lock file until its standard input ends: a process of an
// instance, for tests of what the locks tell.
const holdEnv = "CTL_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		if _, err := lockfile.Acquire(path); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	time.Local = time.UTC // records are shown in it; once, since a connection that a story no longer waits for may still read it
	os.Exit(m.Run())
}

// hold starts a process that holds the lock; it ends with the test, or by a signal.
func hold(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if b := make([]byte, 5); len(b) > 0 {
		if _, err := out.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

// instance is a run root with a manager that answers as the test wants.
type instance struct {
	t    *testing.T
	root runroot.Root
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	root, err := runroot.New(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	return &instance{t, root}
}

func (i *instance) answers(h http.HandlerFunc) {
	i.t.Helper()
	l, err := runroot.ListenUnix(i.root.ControlSocket(), runroot.Stream)
	if err != nil {
		i.t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	i.t.Cleanup(s.Close)
}

// run runs ctl with these arguments.
func (i *instance) run(args ...string) (out string, code exitcode.Code, err error) {
	return run(append(args, "--run-root", i.root.Dir())...)
}

func run(args ...string) (out string, code exitcode.Code, err error) {
	var b bytes.Buffer
	c := Command()
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(args)
	err = c.Execute()
	return b.String(), exitcode.Of(err), err
}

func TestNothingRuns(t *testing.T) {
	i := newInstance(t)
	for _, args := range []string{"status", "status --json", "stats", "stop", "restart", "restart manager", "drain", "config reload", "config check", "config show", "log reopen", "cache stat", "cache lookup h/a", "cache purge h/a"} {
		_, code, err := i.run(strings.Fields(args)...)
		if code != exitcode.NotRunning || !strings.Contains(err.Error(), "no instance runs in "+i.root.Dir()) {
			t.Errorf("%s: exit code %v, %v", args, code, err)
		}
	}
}

// A file where the run root should be: every command says so, also the one that may find nobody.
func TestRunRootIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "run")} {
		for _, args := range []string{"status", "stop", "restart", "crash list", "cache stat"} {
			_, code, err := run(append(strings.Fields(args), "--run-root", dir)...)
			if code != exitcode.Usage || !strings.Contains(err.Error(), dir+": not a directory") {
				t.Errorf("%s in %s: exit code %v, %v", args, dir, code, err)
			}
		}
	}
}

// Who could not ask has stopped nothing: what cannot be connected to is not what has broken off because it ended.
func TestStopThatReachesNobody(t *testing.T) {
	i := newInstance(t)
	if err := os.Symlink("control.sock", i.root.ControlSocket()); err != nil { // nobody can connect: ELOOP
		t.Fatal(err)
	}
	if _, code, err := i.run("stop"); code != exitcode.Failed || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("exit code %v, %v", code, err)
	}
}

func TestMisuse(t *testing.T) {
	i := newInstance(t)
	for _, args := range []string{"status more", "restart cop", "restart server manager", "drain --undo --wait", "drain --no", "config describe nothing", "stats a b", "config check a b", "", "config", "log", "nothing",
		"cache", "cache stat more", "cache lookup", "cache lookup a b", "cache purge", "cache purge a b", "cache purge a --tag b", "cache purge --prefix a --tag b",
		"status --timeout -1s", "stop --timeout -1ms", "config check --timeout -1s x"} {
		if _, code, err := i.run(strings.Fields(args)...); code != exitcode.Usage {
			t.Errorf("%s: exit code %v, %v", args, code, err)
		}
	}
}

// What the locks tell when no manager answers.
func TestStatusWithoutAManager(t *testing.T) {
	i := newInstance(t)
	server := hold(t, i.root.ServerLock())
	out, code, err := i.run("status")
	if code != exitcode.Failed || err == nil {
		t.Errorf("exit code %v, %v", code, err)
	}
	row := ""
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "server") {
			row = strings.Join(strings.Fields(line)[:3], " ")
		}
	}
	if want := "server unknown " + itoa(server.Process.Pid); row != want {
		t.Errorf("row %q, want %q in\n%s", row, want, out)
	}
	if _, code, err := i.run("drain"); code != exitcode.Failed || !strings.Contains(err.Error(), "alive: server (pid "+itoa(server.Process.Pid)) {
		t.Errorf("drain: exit code %v, %v", code, err)
	}
}

func itoa(n int) string { return number(n) }

// With no manager to pass it on, cop itself is asked to stop: whoever the kernel says holds
// cop.lock, whatever the file says.
func TestStopWithoutAManager(t *testing.T) {
	i := newInstance(t)
	cop := hold(t, i.root.CopLock())
	if err := os.WriteFile(i.root.CopLock(), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// ctl watches its end, and whoever watches a child of ours here reaps it.
	child, err := proc.Adopt(cop.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, code, err := i.run("stop"); code != exitcode.OK {
		t.Fatalf("exit code %v, %v", code, err)
	}
	<-child.Done()
	if e := child.Exit(); e.Signal != syscall.SIGTERM {
		t.Errorf("cop ended with %v", e)
	}
}

// "stop" returns when the instance is gone, not when it was asked.
func TestStopWaits(t *testing.T) {
	i := newInstance(t)
	lock, err := lockfile.Acquire(i.root.ServerLock())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		var s control.Stop
		if err := control.Read(w, r, &s); err != nil || !s.Now {
			t.Errorf("asked %+v, %v", s, err)
		}
		control.Write(w, struct{}{})
		asked <- r.URL.Path
	})
	ended := make(chan error, 1)
	go func() {
		_, _, err := i.run("stop", "--now")
		ended <- err
	}()
	if p := <-asked; p != control.PathStop {
		t.Errorf("asked at %s", p)
	}
	select {
	case err := <-ended:
		t.Fatalf("returned while the server lives: %v", err)
	default:
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	lock, err = lockfile.Acquire(i.root.ServerLock())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	go func() { <-asked }()
	if _, code, err := i.run("stop", "--now", "--timeout", "30ms"); code != exitcode.TryAgain || !strings.Contains(err.Error(), "not done after 30ms") {
		t.Errorf("exit code %v, %v", code, err)
	}
}

// The manager has agreed just when the time was up: that is not yet the end of the instance.
func TestTimeoutRightAfterTheAnswer(t *testing.T) {
	i := newInstance(t)
	lock, err := lockfile.Acquire(i.root.ServerLock())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	s := &session{root: i.root, ctx: over}
	if err := s.stopped(true, nil); exitcode.Of(s.explain(err)) != exitcode.TryAgain {
		t.Errorf("with a server alive: %v", err)
	}
}

// A manager that does not answer in time is one to ask again, whichever command asks.
func TestTimeoutWhileTheManagerIsAsked(t *testing.T) {
	i := newInstance(t)
	i.answers(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then does the context end with the connection
		<-r.Context().Done()
	})
	for _, args := range []string{"status", "stop", "restart server", "drain", "config reload"} {
		_, code, err := i.run(append(strings.Fields(args), "--timeout", "30ms")...)
		if code != exitcode.TryAgain || err.Error() != "not done after 30ms" {
			t.Errorf("%s: exit code %v, %v", args, code, err)
		}
	}
}

func TestRestart(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		var b control.Restart
		if err := control.Read(w, r, &b); err != nil || b.Role != "server" || !b.Now {
			t.Errorf("asked %+v, %v", b, err)
		}
		control.Write(w, control.Restarted{PID: 42, Generation: 3})
	})
	out, code, err := i.run("restart", "server", "--now")
	if code != exitcode.OK || out != "server 42 (generation 3) is ready\n" {
		t.Errorf("exit code %v, %v; %q", code, err, out)
	}
}

// "restart manager" returns when the next one answers.
func TestRestartManager(t *testing.T) {
	i := newInstance(t)
	var looks atomic.Int32
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == control.PathRestart {
			control.Write(w, control.Restarted{PID: 42, Generation: 3})
			return
		}
		s := control.Status{Manager: control.Process{State: "ready", PID: 42, Generation: 3}}
		if looks.Add(1) == 3 {
			s.Manager.PID, s.Manager.Generation = 43, 4
		}
		control.Write(w, s)
	})
	out, code, err := i.run("restart", "manager")
	if code != exitcode.OK || out != "manager 43 (generation 4) is ready\n" || looks.Load() != 3 {
		t.Errorf("exit code %v, %v; %q after %d looks", code, err, out, looks.Load())
	}
}

func TestDrainWaits(t *testing.T) {
	i := newInstance(t)
	var left atomic.Int32
	left.Store(3)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == control.PathDrain {
			control.Write(w, struct{}{})
			return
		}
		control.Write(w, control.Status{Traffic: control.Traffic{Connections: uint64(left.Add(-1))}})
	})
	if _, code, err := i.run("drain", "--wait"); code != exitcode.OK || left.Load() != 0 {
		t.Errorf("exit code %v, %v with %d connections", code, err, left.Load())
	}
}

// The verdict on a bad file: its problems, each in a line with its position, and exit code 78.
func TestReloadIsRefused(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, _ *http.Request) {
		control.Refuse(w, &control.Error{Text: "refused", Exit: exitcode.Config, Status: 422,
			Problems: []string{`trafficd.yaml:12:5: unknown key "orgin" (did you mean "origin"?)`, "trafficd.yaml:14:1: other"}})
	})
	_, code, err := i.run("config", "reload")
	want := "refused\n" + `trafficd.yaml:12:5: unknown key "orgin" (did you mean "origin"?)` + "\ntrafficd.yaml:14:1: other"
	if code != exitcode.Config || err.Error() != want {
		t.Errorf("exit code %v, %q", code, err)
	}
}

func TestReload(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, _ *http.Request) {
		control.Write(w, control.Verdict{Generation: 2, Changes: []control.Change{
			{Name: "threads", Old: "1", New: "2", NeedsRestart: true}, {Name: "autoconf.pac_file", New: "/x"},
			{Name: "map", Old: "9 entries", New: "10 entries (1 added)", Entries: []string{"added   /a=http://x"}},
		}})
	})
	out, _, err := i.run("config", "reload")
	want := "configuration 2 is in force\n  threads: 1 → 2   (needs a restart)\n  autoconf.pac_file: \"\" → /x\n" +
		"  map: 9 entries → 10 entries (1 added)\n    added   /a=http://x\n"
	if err != nil || out != want {
		t.Errorf("%v; got\n%s", err, out)
	}
}

func TestCheckAFile(t *testing.T) {
	i := newInstance(t)
	file := filepath.Join(t.TempDir(), "trafficd.yaml")
	for _, tt := range []struct {
		text string
		code exitcode.Code
	}{{"threads: 2\n", exitcode.OK}, {"thread: 2\n", exitcode.Config}, {"cache: {disk_path: /proc/foo}\n", exitcode.Config}} {
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code, err := i.run("config", "check", file); code != tt.code {
			t.Errorf("%q: exit code %v, %v; %s", tt.text, code, err, out)
		}
	}
	if _, code, _ := i.run("config", "check", file+".not"); code != exitcode.Config {
		t.Errorf("no file: exit code %v", code)
	}
}

// A variable whose name is nearly a setting's is told of: that of the instance, and that of the shell where a file is checked.
func TestCheckTellsOfMisnamedVariables(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, _ *http.Request) {
		control.Write(w, control.Verdict{Generation: 1, Warnings: []string{"TRAFFICD_THREAD: no setting"}})
	})
	want := "the configuration is good\nnothing has changed\nwarning: TRAFFICD_THREAD: no setting\n"
	if out, code, err := i.run("config", "check"); code != exitcode.OK || out != want {
		t.Errorf("exit code %v, %v; got\n%s", code, err, out)
	}
	file := filepath.Join(t.TempDir(), "trafficd.yaml")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TRAFFICD_CACHE_SIZ", "5")
	if out, code, err := i.run("config", "check", file); code != exitcode.OK || !strings.Contains(out, "did you mean TRAFFICD_CACHE_SIZE?") {
		t.Errorf("exit code %v, %v; got\n%s", code, err, out)
	}
}

func TestShow(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, _ *http.Request) {
		control.Write(w, control.Configuration{Generation: 1, Effective: "threads: 2 # default\n"})
	})
	if out, _, err := i.run("config", "show", "--effective"); err != nil || out != "threads: 2 # default\n" {
		t.Errorf("%v; %q", err, out)
	}
	if out, _, err := i.run("config", "show", "--json"); err != nil || out != "null\n" {
		t.Errorf("%v; %q", err, out)
	}
}

func TestDescribe(t *testing.T) {
	out, _, err := newInstance(t).run("config", "describe", "queue.limit")
	if err != nil || !strings.Contains(out, "queue.limit") {
		t.Errorf("%v; %q", err, out)
	}
}

func TestStats(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("match"); got != "cache_*" {
			t.Errorf("asked for %q", got)
		}
		control.Write(w, stats.Snapshot{Metrics: map[string]uint64{"cache_b": 20, "cache_long": 1}})
	})
	if out, _, err := i.run("stats", "cache_*"); err != nil || out != "cache_b     20\ncache_long  1\n" {
		t.Errorf("%v; %q", err, out)
	}
	out, _, err := i.run("stats", "cache_*", "--json")
	var s stats.Snapshot
	if jerr := json.Unmarshal([]byte(out), &s); err != nil || jerr != nil || s.Metrics["cache_b"] != 20 {
		t.Errorf("%v, %v; %q", err, jerr, out)
	}
}

// A name, or a part of one, will do for a pattern.
func TestStatsByName(t *testing.T) {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		all := map[string]uint64{"requests": 3, "requests_lost": 0}
		if got := r.URL.Query().Get("match"); !strings.HasPrefix(got, "*request") {
			all = nil
		}
		control.Write(w, stats.Snapshot{Metrics: all})
	})
	for arg, want := range map[string]string{"request": "requests       3\nrequests_lost  0\n", "requests": "requests  3\n"} {
		if out, _, err := i.run("stats", arg); err != nil || out != want {
			t.Errorf("%s: %v; %q", arg, err, out)
		}
	}
	if out, code, err := i.run("stats", "nonsense"); code != exitcode.Failed || err == nil || out != "" {
		t.Errorf("exit code %v, %v; %q", code, err, out)
	}
}

// The table as people read it.
func TestStatusTable(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &control.Status{
		Survival: &control.Survival{CrashesMasked: 12, RequestsResumed: 340},
		RunRoot:  "/run/trafficd", Phase: "running",
		Cop:       control.Process{State: "ready", PID: 10, Generation: 1, Started: start, UptimeSeconds: 90061},
		Manager:   control.Process{State: "ready", PID: 1234567, Generation: 12, Started: start, UptimeSeconds: 3720, Restarts: 11},
		Server:    control.Process{State: "stopped", Generation: 4, Restarts: 3, Reason: "signal 9 (killed)", Retry: &control.Retry{InSeconds: 1.46, DelaySeconds: 4.04, Attempt: 3}},
		Listeners: []control.Listener{{Address: "127.0.0.1:8080", Queued: 2, Backlog: 4096}},
		Autoconf:  "127.0.0.1:8083",
		Traffic:   control.Traffic{Connections: 1, ConnectionsTotal: 20, Requests: 30, Hits: 2, Misses: 1, HitRatio: 2.0 / 3},
		Queue:     control.Queue{Depth: 1, Limit: 1024, State: "waiting", Expired: 5},
		Config:    control.Config{Generation: 2, NeedsRestart: []string{"threads"}},
		Trouble:   []control.Trouble{{What: "cache on disk", State: "off", Since: start.Local(), Reason: "no space"}},
		Alarms:    []string{"trouble"},
	}
	var b strings.Builder
	if err := writeStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `crashes masked 12, requests resumed 340, requests lost 0

PROCESS  STATE    PID      GENERATION  UPTIME  RESTARTS
cop      ready    10       1           1d01h   0
manager  ready    1234567  12          1h02m   11
server   stopped  -        4           -       3

run root         /run/trafficd
listener         127.0.0.1:8080 (2 of 4096 waiting)
autoconf         127.0.0.1:8083
connections      1 (20 in all)
requests         30
cache hits       2, misses 1 (66.7% hits)
queue            1 of 1024, 5 answered 503 (waiting)
configuration    2, no file
needs a restart  threads
why no server    signal 9 (killed)
next try         in 1.5s (delay 4s, attempt 3)
cache on disk    off since ` + start.Local().Format(time.DateTime) + `: no space
ALARM            trouble
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}

	s.Server = control.Process{State: "ready", PID: 7, Generation: 5, Reason: "signal 9 (killed)"}
	b.Reset()
	if err := writeStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "why no standby   signal 9 (killed)\n") || strings.Contains(text, "why no server") {
		t.Errorf("a server is ready, and of its standby it says\n%s", text)
	}
}
