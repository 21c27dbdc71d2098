package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"trafficd/proc"
	"trafficd/roles/internal/supervise"
)

// childEnv has the test binary be a role that ends in some way: DIR=HOW.
const childEnv = "CRASH_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir, how, ok := strings.Cut(os.Getenv(childEnv), "="); ok {
		os.Exit(child(dir, how))
	}
	os.Exit(m.Run())
}

// child says who it is, waits for its standard input, and ends.
func child(dir, how string) int {
	if err := CatchOutput(dir, "server"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(proc.Self().StartTime)
	os.Stdin.Read(make([]byte, 1))
	switch how {
	case "panic":
		panic("the test wants it")
	case "goroutine":
		go panic("the test wants it")
		select {}
	case "map":
		m := map[int]int{}
		for range 4 {
			go func() {
				for {
					m[1]++
				}
			}()
		}
		select {}
	case "nil":
		var p *int
		*p = 1
	}
	ReleaseOutput()
	ReleaseOutput() // once is enough, twice is no harm
	return 0
}

// role is a child under way.
type role struct {
	t   *testing.T
	cmd *exec.Cmd
	in  interface{ Close() error }
	id  Process
}

func startRole(t *testing.T, s Store, how string) *role {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+s.Dir+"="+how)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	b := make([]byte, 32)
	n, err := out.Read(b)
	must(t, err)
	start, err := strconv.ParseUint(strings.TrimSpace(string(b[:n])), 10, 64)
	must(t, err)
	return &role{t, cmd, in, Process{Role: "server", PID: cmd.Process.Pid, StartTime: start}}
}

// end lets the child go, or kills it, and is its supervisor.
func (r *role) end(sig syscall.Signal) Death {
	r.t.Helper()
	if sig != 0 {
		must(r.t, r.cmd.Process.Signal(sig))
	} else {
		must(r.t, r.in.Close())
	}
	_ = r.cmd.Wait() // how it ended is what is recorded
	ws := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	st := supervise.Status{Known: true, Code: ws.ExitStatus()}
	if ws.Signaled() {
		st = supervise.Status{Known: true, Signal: ws.Signal()}
	}
	return Death{When: time.Now(), Dead: r.id, Witness: manager, Status: StatusOf(st)}
}

// What the runtime writes when it crashes, in every way that it can, comes into the record.
func TestStacks(t *testing.T) {
	for _, tt := range []struct {
		how   string
		sig   syscall.Signal
		cause Cause
		want  string // in the stacks
	}{
		{"panic", 0, Fault, "panic: the test wants it"},
		{"goroutine", 0, Fault, "panic: the test wants it"},
		{"map", 0, Fault, "maps.fatal"},
		{"nil", 0, Fault, "invalid memory address"},
		{"", syscall.SIGABRT, Outside, "SIGABRT: abort"},
		{"", syscall.SIGKILL, Outside, ""},
	} {
		t.Run(tt.how+tt.sig.String(), func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			d := startRole(t, s, tt.how).end(tt.sig)
			must(t, s.Bury(d))
			r, err := s.Load("last")
			must(t, err)
			if r.Cause != tt.cause || !strings.Contains(r.Stacks, tt.want) || (tt.want == "") != (r.Stacks == "") {
				t.Errorf("%s, stacks\n%s", r.Summary, r.Stacks)
			}
			if word, _, _ := strings.Cut(r.Stacks, "\n"); r.Reason != word {
				t.Errorf("reason %q, want %q", r.Reason, word)
			}
			if got := names(t, s); len(got) != 1 {
				t.Errorf("files %v, want the record alone", got)
			}
		})
	}
}

// A process that ends in good order leaves nothing; one that is killed leaves an empty file, which goes with its burial.
func TestOrderlyEnd(t *testing.T) {
	s := newStore(t)
	r := startRole(t, s, "")
	if got := names(t, s); len(got) != 1 || got[0] != stacksPrefix+r.id.ID() {
		t.Errorf("files %v while it lives", got)
	}
	if d := r.end(0); d.Status != (Status{Known: true}) {
		t.Errorf("ended with %v", d.Status)
	}
	if got := names(t, s); len(got) != 0 {
		t.Errorf("files %v", got)
	}
}

// Whoever should have recorded a death died as well: the next death that is recorded brings the stacks to light.
func TestUnclaimedStacks(t *testing.T) {
	s := newStore(t)
	panicked, killed, fresh := startRole(t, s, "panic"), startRole(t, s, ""), startRole(t, s, "panic")
	living := startRole(t, s, "")
	for r, sig := range map[*role]syscall.Signal{panicked: 0, killed: syscall.SIGKILL, fresh: 0} {
		r.end(sig)
	}
	old := time.Now().Add(-time.Hour)
	for _, r := range []*role{panicked, killed, living} {
		must(t, os.Chtimes(filepath.Join(s.Dir, stacksPrefix+r.id.ID()), time.Time{}, old))
	}
	must(t, s.Bury(Death{When: time.Now(), Dead: manager, Witness: cop}))
	r, err := s.Load(panicked.id.ID())
	must(t, err)
	if r.Cause != Fault || !strings.Contains(r.Stacks, "the test wants it") || r.Status.Known || r.When.After(old.Add(time.Minute)) {
		t.Errorf("record %+v", r)
	}
	want := []string{manager.ID() + ".death.cop.json", panicked.id.ID() + ".death.cop.json", stacksPrefix + fresh.id.ID(), stacksPrefix + living.id.ID()}
	got := names(t, s)
	for _, name := range want {
		if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+name+" ") {
			t.Errorf("no %s in %v", name, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("files %v, want %v", got, want)
	}
	living.end(0)
}

// Without a place for the file the process goes on.
func TestCatchOutputRefused(t *testing.T) {
	if err := CatchOutput(filepath.Join(t.TempDir(), "none", "crashes"), "server"); err == nil || !strings.HasPrefix(err.Error(), "catch stacks: ") {
		t.Errorf("%v", err)
	}
	ReleaseOutput()
}

// What a start pays: one file.
func BenchmarkCatchOutput(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "crashes")
	for b.Loop() {
		if err := CatchOutput(dir, "server"); err != nil {
			b.Fatal(err)
		}
		ReleaseOutput()
	}
}

// What a death costs its supervisor, beside the take-over: a full directory and a long log.
func BenchmarkBury(b *testing.B) {
	s := newStore(b)
	s.Log = filepath.Join(b.TempDir(), "log")
	line := `{"level":"info","role":"server","pid":4711,"time":"2026-01-02T11:59:59.000Z","message":"something of another process"}` + "\n"
	must(b, os.WriteFile(s.Log, []byte(strings.Repeat(line, 2*tailBytes/len(line))), 0o600))
	d := killed(manager)
	for i := range MaxRecords {
		d.Dead.StartTime = uint64(i)
		must(b, s.WriteDeath(d))
		must(b, s.WriteAdoption(Adoption{When: noon, Dead: d.Dead, Successor: next}))
	}
	for b.Loop() {
		d.Dead.StartTime++
		must(b, s.Bury(d))
	}
}
