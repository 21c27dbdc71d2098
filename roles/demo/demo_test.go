package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/demo/witness"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
)

// playEnv has the test binary be a process of an instance: it takes the lock at
// this path, if it is one, and waits to be killed.
const playEnv = "DEMO_TEST_PLAY"

func TestMain(m *testing.M) {
	lock, ok := os.LookupEnv(playEnv)
	if !ok {
		os.Exit(m.Run())
	}
	if lock != "" {
		if _, err := lockfile.Acquire(lock); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Stdout.WriteString("playing\n")
	io.Copy(io.Discard, os.Stdin) // to the end of the test at the latest
}

// play starts such a process with these arguments and returns when it plays. It
// ends with the test.
//
// It is watched, since whoever else in this process watches a child of it reaps
// it, too (package proc), and takes its status from os/exec.
func play(t *testing.T, lock string, args ...string) *proc.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), playEnv+"="+lock)
	cmd.Stderr = os.Stderr
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
	p, err := proc.Adopt(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		<-p.Done()
		p.Release()
	})
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	return p
}

// stage is an instance of which the test plays the processes.
func stage(t *testing.T) *instance {
	t.Helper()
	dir := t.TempDir()
	root, err := runroot.New(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	exe, err := proc.OpenSelf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exe.Close() })
	return &instance{dir: dir, root: root, exe: exe}
}

func TestMisuse(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", "a command is missing"},
		{"nothing", "unknown command"},
		{"crash more", "unknown command"},
		{"crash --nothing", "unknown flag"},
		{"crash --for x", "invalid argument"},
		{"crash --for 0s", "--for"},
		{"crash --for -1s", "--for"},
		{"crash --every 0s", "--every"},
		{"crash --threads 0", "--threads"},
		{"crash --threads 65", "--threads"},
		{"crash --roles nobody", `no "nobody"; there are cop, manager, server, standby, keeper, and none`},
		{"crash --roles server,", `no ""`},
		{"crash --roles cop+cop", "twice"},
		{"crash --roles none,cop", `no "none"`},
		{"crash --seed -1", "invalid argument"},
	} {
		cmd := Command()
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(strings.Fields(c.args))
		err := cmd.Execute()
		if code := exitcode.Of(err); code != exitcode.Usage || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: exit code %v, %v", c.args, code, err)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		text string
		want []victim
	}{
		{"none", nil},
		{"server", []victim{{server}}},
		{"server, cop+manager", []victim{{server}, {cop, manager}}},
		{defaultRoles, []victim{{server}, {manager}, {cop}, {standby}, {keeper}, {manager, server}, {cop, manager}}},
	} {
		got, err := parseVictims(c.text)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %v, %v, want %v", c.text, got, err, c.want)
		}
	}
}

// Both of a pair are killed, and none if one of them is not there.
func TestAPairDiesTogetherOrNotAtAll(t *testing.T) {
	i := stage(t)
	k := newKiller(i, options{})
	m := play(t, i.root.ManagerLock())
	pair := victim{manager, server}
	if k.strike(pair) || k.total != 0 {
		t.Fatalf("killed %d with no server there", k.total)
	}
	s := play(t, i.root.ServerLock())
	if !k.strike(pair) {
		t.Fatal("killed nobody")
	}
	for _, p := range []*proc.Process{m, s} {
		<-p.Done()
		if got := p.Exit().Signal; got != syscall.SIGKILL {
			t.Errorf("process %d: %v", p.PID(), got)
		}
	}
	if k.kills["manager+server"] != 1 || k.total != 2 || len(k.last) != 1 || k.err != nil {
		t.Errorf("counted %v, %d, %v, %v", k.kills, k.total, k.last, k.err)
	}
}

// When everybody is to be back before the next strike, those who were struck must not be taken for those who are back: a
// process can live on for long after its SIGKILL on a busy machine.
func TestWhoWasStruckIsNotThere(t *testing.T) {
	i := stage(t)
	k := newKiller(i, options{waitReady: true})
	for range 5 {
		s := play(t, i.root.ServerLock())
		if !k.strike(victim{server}) {
			t.Fatal("killed nobody")
		}
		if p, err := i.find(server); err == nil {
			t.Errorf("process %d is the server; killed was %d", p.PID(), s.PID())
			p.Release()
		}
	}
}

// Who holds a lock of the run root but runs another program, who has our
// program but another run root, and who is named by a lock file that it does not
// hold: none of them is ours.
func TestStrangersAreLeftAlone(t *testing.T) {
	i := stage(t)
	play(t, "", "server", "--run-root="+i.root.Dir()+"2")
	if n := i.count(); n != 0 {
		t.Errorf("%d processes of another run root are ours", n)
	}
	named := play(t, "")
	if err := os.WriteFile(i.root.ServerLock(), fmt.Appendf(nil, "%d\n", named.PID()), 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := i.find(server); !errors.Is(err, errNobody) {
		t.Errorf("found %v, %v by the text of a file", p, err)
	}
	play(t, i.root.CopLock())
	sh, err := proc.OpenExecutable("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	other := *i
	other.exe = sh
	if p, err := other.find(cop); !errors.Is(err, errNobody) {
		t.Errorf("found %v, %v that runs another program", p, err)
	}
}

// Whatever is left of an instance is found by the run root in its command line,
// and killed.
func TestLeftoversAreKilled(t *testing.T) {
	i := stage(t)
	var all []*proc.Process
	for range 3 {
		all = append(all, play(t, "", "server", i.mark()))
	}
	if n := i.killAll(); n != 3 || i.count() != 0 {
		t.Errorf("killed %d, %d are left", n, i.count())
	}
	for _, p := range all {
		<-p.Done()
	}
}

// With nobody left the killing ends, and that is a fault.
func TestTheInstanceIsGone(t *testing.T) {
	i := stage(t)
	k := newKiller(i, options{every: time.Millisecond, victims: []victim{{server}}})
	k.run(t.Context())
	if !errors.Is(k.err, errGone) {
		t.Errorf("error %v", k.err)
	}
}

// The verdict is success only if nothing at all is wrong; then nothing is left on
// disk.
func TestVerdict(t *testing.T) {
	good := witness.Report{Total: witness.Row{Requests: 1}}
	bad := good
	bad.Total.Failed = 1
	trouble := errors.New("trouble")
	for _, c := range []struct {
		name    string
		report  witness.Report
		unclean error
		killing error
		keep    bool
		says    string
	}{
		{"good", good, nil, nil, false, ""},
		{"good and kept", good, nil, nil, true, ""},
		{"a failure", bad, nil, nil, false, "1 failures"},
		{"nothing shown", witness.Report{}, nil, nil, false, "nothing was shown"},
		{"leftovers", good, trouble, nil, false, "trouble"},
		{"a kill failed", good, nil, trouble, false, "trouble"},
	} {
		i := stage(t)
		r := &run{opts: options{keepDir: c.keep}, out: io.Discard, i: i, killer: &killer{err: c.killing}}
		err := r.verdict(c.report, c.unclean)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || exitcode.Of(err) != exitcode.Failed) {
			t.Errorf("%s: %v", c.name, err)
		}
		_, gone := os.Stat(i.dir)
		if kept := gone == nil; kept != (c.keep || c.says != "") {
			t.Errorf("%s: the directory is kept: %t", c.name, kept)
		}
	}
}

// The first signal ends the killing, the second everything.
func TestSignals(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	again, unlisten := listen(stop)
	defer unlisten()
	me, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	me.Signal(syscall.SIGPIPE)
	me.Signal(syscall.SIGINT)
	<-ctx.Done()
	select {
	case <-again:
		t.Fatal("one signal counts as two")
	default:
	}
	me.Signal(syscall.SIGTERM)
	<-again
}

func sampleScene() scene {
	return scene{
		at: 4800 * time.Millisecond, of: 30 * time.Second, seed: 7, kills: map[string]int{"server": 2, "cop+manager": 1}, total: 4,
		last:  []kill{{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "server", []int{42}}},
		probe: 3 * time.Millisecond, masked: "3", resumed: "61", lost: "0",
		report: witness.Report{Total: witness.Row{Clients: 46, Requests: 8559, Bytes: 115_800_000, Conns: 50}},
	}
}

func TestALineWithoutATerminal(t *testing.T) {
	want := "  4.8s  kills 4 (cop+manager 1, server 2)  requests 8559  115.8 MB  resumed 61  failures 0  worst probe 3ms"
	if got := sampleScene().line(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A scene has always as many lines, or it would be drawn over the wrong ones.
func TestAScene(t *testing.T) {
	s := sampleScene()
	lines := s.lines("▁█")
	if n := len((scene{}).lines("")); n != len(lines) {
		t.Errorf("%d lines, and %d with nothing in it", len(lines), n)
	}
	text := strings.Join(lines, "\n")
	for _, part := range []string{"4.8 s of 30 s", "seed 7", "cop+manager 1, server 2", "3 crashes masked, 61 requests resumed, 0 lost",
		"8559", "failures          0", "03:04:05.000  server [42]", "▁█"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in\n%s", part, text)
		}
	}
}

func TestSparkline(t *testing.T) {
	for _, c := range []struct {
		values []int64
		want   string
	}{
		{nil, ""}, {[]int64{0, 0}, "  "}, {[]int64{8, 4, 0, -3}, "█▄  "}, {[]int64{1, 1000}, " █"},
	} {
		if got := sparkline(c.values); got != c.want {
			t.Errorf("%v: got %q, want %q", c.values, got, c.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{{"▁▂▃", 2, "▁▂"}, {"ab", 5, "ab"}, {"ab", -1, ""}} {
		if got := clip(c.text, c.width); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
