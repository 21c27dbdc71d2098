package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		role, arg string
		want      Exit
		text      string
	}{
		{"exit", "0", Exit{Known: true}, "exit status 0"},
		{"exit", "78", Exit{Code: 78, Known: true}, "exit status 78"},
		{"exit", "255", Exit{Code: 255, Known: true}, "exit status 255"},
		{"die", "9", Exit{Signal: syscall.SIGKILL, Known: true}, "signal: killed"},
		{"die", "15", Exit{Signal: syscall.SIGTERM, Known: true}, "signal: terminated"},
	} {
		p := start(t, tt.role, Spec{Args: []string{tt.arg}})
		if got := p.Exit(); got.Known && !p.over() {
			t.Errorf("%s %s: Exit of a living process is %v", tt.role, tt.arg, got)
		}
		if got := ends(t, p); got != tt.want || got.String() != tt.text {
			t.Errorf("%s %s: got %+v (%v), want %+v", tt.role, tt.arg, got, got, tt.want)
		}
		if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrNoProcess) {
			t.Errorf("Signal after the end: %v, want ErrNoProcess", err)
		}
	}
}

func TestExitString(t *testing.T) {
	for want, e := range map[string]Exit{
		"exit status unknown":           {},
		"signal: aborted (core dumped)": {Signal: syscall.SIGABRT, CoreDumped: true, Known: true},
	} {
		if got := e.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := exitOf(syscall.WaitStatus(0x86)), (Exit{Signal: syscall.SIGABRT, CoreDumped: true, Known: true}); got != want {
		t.Errorf("exitOf(0x86) = %+v, want %+v", got, want)
	}
}

func TestReady(t *testing.T) {
	p := start(t, "serve", Spec{Notify: true})
	select {
	case <-p.Ready():
	case <-p.Done():
		t.Fatal("died: ", p.Exit())
	}
	if err := p.Refusal(); err != nil {
		t.Error(err)
	}
	end(p)
	if err := p.WaitReady(patience(t)); err != nil {
		t.Errorf("WaitReady of one that was ready and died: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	p := start(t, "refuse", Spec{Notify: true})
	err := p.WaitReady(patience(t))
	var r *RefusedError
	if !errors.As(err, &r) || r.Reason != refusal || r.PID != p.PID() {
		t.Errorf("WaitReady = %v, want the child's reason", err)
	}
	if e := ends(t, p); e.Code != 78 {
		t.Errorf("got %v, want exit status 78", e)
	}
	select {
	case <-p.Ready():
		t.Error("it is ready")
	default:
	}
}

// What a child says just before it dies is known when Done is closed.
func TestLastWordsComeBeforeDone(t *testing.T) {
	for range 20 {
		p := start(t, "refuse", Spec{Notify: true})
		<-p.Done()
		if err := p.Refusal(); err == nil {
			t.Fatal("no reason")
		}
	}
}

func TestDiesBeforeReady(t *testing.T) {
	for _, notify := range []bool{true, false} {
		p := start(t, "exit", Spec{Args: []string{"3"}, Notify: notify})
		err := p.WaitReady(patience(t))
		var d *DiedError
		if !errors.As(err, &d) || d.Exit.Code != 3 || d.PID != p.PID() {
			t.Errorf("notify %v: WaitReady = %v, want DiedError with exit status 3", notify, err)
		}
	}
}

func TestWaitReadyEndsWithContext(t *testing.T) {
	p := start(t, "mute", Spec{Notify: true})
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("deadline of the test")
	cancel(why)
	if err := p.WaitReady(ctx); !errors.Is(err, why) {
		t.Errorf("WaitReady = %v, want %v", err, why)
	}
}

func TestHowItIsStarted(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		spec Spec
		want string
	}{
		{Spec{Argv0: "traffic_test", Args: []string{"a", "b c"}, Dir: dir}, "traffic_test [a b c] " + dir + " leader=false group=false notify=false"},
		{Spec{Argv0: "x", Dir: "/", Setsid: true}, "x [] / leader=true group=true notify=false"},
		{Spec{Argv0: "x", Dir: "/", Setpgid: true, Notify: true}, "x [] / leader=false group=true notify=true"},
		{Spec{Argv0: "x", Dir: "/", Env: []string{NotifyEnv + "=7"}}, "x [] / leader=false group=false notify=false"},
		{Spec{Argv0: "x", Dir: "/", Sys: &syscall.SysProcAttr{Setsid: true}}, "x [] / leader=true group=true notify=false"},
	} {
		if got := strings.TrimSpace(output(t, "describe", tt.spec)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// The child has the descriptors it was given, at the numbers promised, and no other: however the parent's numbers
// lie, also with respect to that of the executable.
func TestDescriptors(t *testing.T) {
	exe := self(t)
	open := func(i int) *os.File {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fmt.Fprintf(f, "f%d", i)
		return f
	}
	var files []*os.File
	for i := range 40 {
		files = append(files, open(i))
	}
	backwards := slices.Clone(files)
	slices.Reverse(backwards)
	// One that is not close-on-exec, as a careless parent of this process may have left it.
	careless, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(careless)
	for _, tt := range []struct{ files []*os.File }{
		{nil},
		{backwards},
		{files[:1]},
		{files},
		{[]*os.File{files[3], nil, files[3], files[0]}},
	} {
		want := []string{"0=", "1=*", "2="}
		for i, f := range tt.files {
			if f != nil {
				want = append(want, fmt.Sprintf("%d=f%d", 3+i, slices.Index(files, f)))
			}
		}
		got := strings.Fields(output(t, "fds", Spec{Exe: exe, Files: tt.files}))
		if len(got) > 1 {
			got[1] = "1=*" // its own output
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

// A file that others share keeps its blocking mode.
func TestStartLeavesBlockingModeAlone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ends(t, start(t, "exit", Spec{Args: []string{"0"}, Files: []*os.File{r}}))
	fd, err := rawFD(r)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v; want O_NONBLOCK as before", flags, err)
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(Spec{Path: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start = %v, want ErrNotExist", err)
	}
	if _, err := Start(Spec{Path: "/nonexistent", Notify: true, DeathSig: syscall.SIGTERM}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start = %v, want ErrNotExist", err)
	}
	if _, err := OpenExecutable(t.TempDir()); err == nil {
		t.Error("opened a directory as an executable")
	}
}

// The executable that was opened is started, whatever is on disk by now.
func TestExecutableSurvivesReplacement(t *testing.T) {
	own := self(t)
	b, err := os.ReadFile(own.Path())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := OpenExecutable(path)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/nonexistent\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := serving(t, "serve", Spec{Exe: exe})
	if id, err := p.Exe(); err != nil || id != exe.ID() || id == own.ID() {
		t.Errorf("it runs %v, %v; want %v", id, err, exe.ID())
	}
	if exe.Path() != path {
		t.Errorf("Path = %q, want %q", exe.Path(), path)
	}
}

func TestIdentity(t *testing.T) {
	p := serving(t, "serve", Spec{})
	id, err := Identify(p.PID())
	if err != nil || id != p.Identity() || id.StartTime == 0 {
		t.Errorf("Identify = %v, %v; want %v", id, err, p.Identity())
	}
	st, err := p.Stat()
	if err != nil || st.PPID != os.Getpid() || st.PID != p.PID() || st.StartTime != id.StartTime {
		t.Errorf("Stat = %+v, %v", st, err)
	}
	if exe, err := p.Exe(); err != nil || exe != self(t).ID() {
		t.Errorf("Exe = %v, %v; want the test binary", exe, err)
	}
	end(p)
	if _, err := Identify(p.PID()); !errors.Is(err, ErrNoProcess) {
		t.Errorf("Identify of a dead process: %v", err)
	}
	if got := Self(); got.PID != os.Getpid() || got.StartTime == 0 {
		t.Errorf("Self = %v", got)
	}
}

func TestAdopt(t *testing.T) {
	p := serving(t, "serve", Spec{})
	for _, start := range []uint64{p.Identity().StartTime, 0} {
		q, err := Adopt(p.PID(), start)
		if err != nil {
			t.Fatal(err)
		}
		if q.Identity() != p.Identity() {
			t.Errorf("adopted %v, want %v", q.Identity(), p.Identity())
		}
		defer q.Release()
	}
	if _, err := Adopt(p.PID(), p.Identity().StartTime+1); !errors.Is(err, ErrStranger) {
		t.Errorf("Adopt with another start time: %v, want ErrStranger", err)
	}
	end(p)
	if _, err := Adopt(p.PID(), p.Identity().StartTime); !errors.Is(err, ErrNoProcess) && !errors.Is(err, ErrStranger) {
		t.Errorf("Adopt of a dead process: %v", err)
	}
}

func TestAdoptFD(t *testing.T) {
	p := serving(t, "serve", Spec{})
	for _, tt := range []struct {
		id   Identity
		want error
	}{
		{Identity{}, nil},
		{p.Identity(), nil},
		{Identity{PID: p.PID() + 1}, ErrStranger},
		{Identity{PID: p.PID(), StartTime: 1}, ErrStranger},
	} {
		f, err := p.File()
		if err != nil {
			t.Fatal(err)
		}
		q, err := AdoptFD(f, tt.id)
		if !errors.Is(err, tt.want) {
			t.Errorf("AdoptFD(%v) = %v, want %v", tt.id, err, tt.want)
		}
		if err == nil {
			if q.Identity() != p.Identity() {
				t.Errorf("adopted %v, want %v", q.Identity(), p.Identity())
			}
			q.Release()
		}
	}
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	end(p)
	if _, err := AdoptFD(f, Identity{}); !errors.Is(err, ErrNoProcess) {
		t.Errorf("AdoptFD of a dead process: %v, want ErrNoProcess", err)
	}
	if r, w, err := os.Pipe(); err == nil {
		defer w.Close()
		if _, err := AdoptFD(r, Identity{}); err == nil {
			t.Error("adopted a pipe")
		}
	}
}

// One process, started and adopted: both learn how it ended, whoever reaps it.
func TestStartedAndAdopted(t *testing.T) {
	for range 20 {
		p := serving(t, "serve", Spec{})
		q, err := Adopt(p.PID(), p.Identity().StartTime)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		want := Exit{Signal: syscall.SIGKILL, Known: true}
		if a, b := ends(t, p), ends(t, q); a != want || b != want {
			t.Fatalf("started: %v, adopted: %v, want %v", a, b, want)
		}
		q.Release()
	}
}

// A process that is nobody's child here: its end is seen.
func TestAdoptedStranger(t *testing.T) {
	parent, in, out := talk(t, "parent", Spec{})
	pid, err := strconv.Atoi(line(t, out))
	if err != nil {
		t.Fatal(err)
	}
	q, err := Adopt(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Release()
	// Its parent's thread that asked for it has ended, the parent lives: no death signal yet.
	in.Close()
	if got := line(t, out); got != "alive" {
		t.Errorf("the child with a death signal is %s", got)
	}
	ends(t, parent)
	// And now the parent is dead.
	ends(t, q)
	if e := q.Exit(); e.Known && e.Signal != syscall.SIGKILL {
		t.Errorf("got %v, want killed or unknown", e)
	}
}

func TestReleaseLeavesTheProcessAlone(t *testing.T) {
	p := serving(t, "serve", Spec{})
	q, err := Adopt(p.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	q.Release()
	q.Release()
	if err := q.Signal(syscall.SIGKILL); err == nil {
		t.Error("a released Process sent a signal")
	}
	select {
	case <-q.Done():
		t.Error("Done was closed by Release")
	case <-p.Done():
		t.Error("it died")
	default:
	}
	if err := p.Signal(0); err != nil {
		t.Error(err)
	}
}

func TestSignalGroup(t *testing.T) {
	p := serving(t, "serve", Spec{})
	if err := p.SignalGroup(syscall.SIGKILL); !errors.Is(err, ErrNoProcess) {
		t.Errorf("SignalGroup of one that leads no group: %v, want ErrNoProcess", err)
	}
	leader := serving(t, "serve", Spec{Setpgid: true})
	member := serving(t, "serve", Spec{Sys: &syscall.SysProcAttr{Setpgid: true, Pgid: leader.PID()}})
	if err := leader.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, q := range []*Process{leader, member} {
		if e := ends(t, q); e.Signal != syscall.SIGKILL {
			t.Errorf("group member: %v", e)
		}
	}
	if err := p.Signal(0); err != nil {
		t.Errorf("the bystander: %v", err)
	}
}

func TestTerminate(t *testing.T) {
	const tiny = time.Millisecond
	killed := Exit{Signal: syscall.SIGKILL, Known: true}
	for _, tt := range []struct {
		name string
		role string
		stop bool
		e    Escalation
		sent []syscall.Signal
		end  Exit
	}{
		{"listens", "serve", false, Escalation{Grace: time.Hour}, []syscall.Signal{syscall.SIGTERM}, Exit{Signal: syscall.SIGTERM, Known: true}},
		{"deaf", "deaf", false, Escalation{Grace: tiny}, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}, killed},
		{"deaf to the core signal", "deaf", false, Escalation{Grace: tiny, CoreSignal: syscall.SIGQUIT, CoreGrace: tiny},
			[]syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGKILL}, killed},
		{"core signal", "deaf", false, Escalation{Grace: tiny, CoreSignal: syscall.SIGABRT, CoreGrace: time.Hour},
			[]syscall.Signal{syscall.SIGTERM, syscall.SIGABRT}, Exit{Code: 2, Known: true}}, // as Go dies of it, with its stacks,
		{"no grace", "serve", false, Escalation{}, []syscall.Signal{syscall.SIGKILL}, killed},
		{"stopped", "serve", true, Escalation{Grace: tiny}, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}, killed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serving(t, tt.role, Spec{})
			if tt.stop {
				if err := p.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				eventually(t, "stop", func() bool { st, err := p.Stat(); return err == nil && st.State == 'T' })
			}
			var sent []syscall.Signal
			tt.e.Sent = func(sig syscall.Signal) { sent = append(sent, sig) }
			if err := p.Terminate(patience(t), tt.e); err != nil {
				t.Fatal(err)
			}
			if e := p.Exit(); e != tt.end || !slices.Equal(sent, tt.sent) {
				t.Errorf("got %v after %v, want %v after %v", e, sent, tt.end, tt.sent)
			}
			if err := p.Terminate(patience(t), tt.e); err != nil {
				t.Errorf("Terminate of a dead process: %v", err)
			}
		})
	}
}

func TestTerminateEndsWithContext(t *testing.T) {
	p := serving(t, "deaf", Spec{})
	ctx, cancel := context.WithCancel(context.Background())
	err := p.Terminate(ctx, Escalation{Grace: time.Hour, Sent: func(syscall.Signal) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Terminate = %v, want Canceled", err)
	}
	if err := p.Terminate(ctx, Escalation{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Terminate = %v, want Canceled", err)
	}
	if err := p.Signal(0); err != nil {
		t.Errorf("it was killed: %v", err)
	}
}

// Nothing but the kernel can keep a process from dying of KILL, so a Process is made that never learns of the death.
func TestTerminateWarns(t *testing.T) {
	p := serving(t, "serve", Spec{})
	undead := &Process{id: p.id, file: p.file, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	warned := 0
	err := undead.Terminate(ctx, Escalation{WarnEvery: time.Millisecond, Warn: func(since time.Duration) {
		if warned++; warned == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || warned != 3 {
		t.Errorf("got %v after %d warnings, want Canceled after 3", err, warned)
	}
}

func TestReaper(t *testing.T) {
	if got := strings.TrimSpace(output(t, "orphanage", Spec{})); got != "20 false" {
		t.Errorf("subreaper: got %q, want 20 orphans and no child left", got)
	}
}

func TestReaperAsPID1(t *testing.T) {
	got := strings.TrimSpace(output(t, "pid1", Spec{Sys: newNamespaces()}))
	if got != "20 false" {
		t.Errorf("PID 1: got %q, want 20 orphans and no child left", got)
	}
}

// newNamespaces makes the child PID 1 of a PID namespace. The user namespace makes that possible without privilege.
func newNamespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

func TestPID1StartsAndEnds(t *testing.T) {
	got := strings.TrimSpace(output(t, "mortal", Spec{Args: []string{self(t).Path()}, Sys: newNamespaces()}))
	if got != "signal: terminated" {
		t.Errorf("got %q", got)
	}
}

// The conditions of a container image made from scratch: PID 1, and nothing there but the executable.
func TestWithoutProc(t *testing.T) {
	b, err := os.ReadFile(self(t).Path())
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "program"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	copyLibraries(t, root, b)
	sys := newNamespaces()
	sys.Chroot = root
	got := output(t, "noproc", Spec{Path: "/program", Dir: "/", Sys: sys})
	want := "/program exit status 3\nsignal: killed signal: killed\ntrue\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSetName(t *testing.T) {
	p := serving(t, "name", Spec{})
	if st, err := p.Stat(); err != nil || st.Comm != "traffic_test" {
		t.Errorf("comm is %q, %v", st.Comm, err)
	}
	for _, bad := range []string{"", "sixteen_bytes_xx"} {
		if err := SetName(bad); err == nil {
			t.Errorf("SetName(%q) succeeded", bad)
		}
	}
}

// Without /proc, the main thread only. Tests do not run on it.
func TestSetThreadName(t *testing.T) {
	err := setThreadName("traffic_test")
	if unix.Gettid() == os.Getpid() {
		return
	}
	if !errors.Is(err, ErrNotMainThread) && err != nil {
		t.Errorf("got %v, want ErrNotMainThread", err)
	}
}

func TestFindStrays(t *testing.T) {
	exe := self(t)
	root := t.TempDir()
	mine := serving(t, "serve", Spec{Exe: exe, Env: []string{"PROC_TEST_ROOT=" + root}})
	other := serving(t, "serve", Spec{Exe: exe, Env: []string{"PROC_TEST_ROOT=" + root + "2"}})
	// Says it is one of ours by name, arguments and environment, but runs another program.
	liar, in, out := talk(t, "", Spec{Path: "/bin/sh", Argv0: "serve", Args: []string{"-c", "echo ready; read x", root}, Env: []string{"PROC_TEST_ROOT=" + root}})
	defer in.Close()
	line(t, out)

	shown := map[int]bool{}
	found, err := FindStrays(exe.ID(), func(c *Candidate) bool {
		shown[c.PID] = true
		v, ok := c.Getenv("PROC_TEST_ROOT")
		return ok && v == root
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Identity() != mine.Identity() {
		t.Errorf("found %v, want only %v", found, mine.Identity())
	}
	for _, p := range found {
		p.Release()
	}
	if !shown[mine.PID()] || !shown[other.PID()] || shown[liar.PID()] || shown[os.Getpid()] {
		t.Errorf("shown: mine %v, other %v, liar %v, self %v", shown[mine.PID()], shown[other.PID()], shown[liar.PID()], shown[os.Getpid()])
	}
}

func TestDaemonize(t *testing.T) {
	dir := t.TempDir()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	extra, err := os.Create(filepath.Join(dir, "extra"))
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	extra.WriteString("extra")

	id, err := Daemonize(patience(t), DaemonSpec{
		Exe: self(t), Argv0: "test-daemon", Args: []string{"x"}, Env: env("daemon"), Output: log, Files: []*os.File{extra},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Adopt(id.PID, id.StartTime)
	if err != nil {
		t.Fatal(err)
	}
	defer end(p)
	b, _ := os.ReadFile(log.Name())
	want := "dir=/ umask=022 leader=false stdin=\"\" stage=false args=[test-daemon x] fd3=extra\n"
	if string(b) != want {
		t.Errorf("got  %swant %s", b, want)
	}
	st, err := p.Stat()
	if err != nil || st.PPID == os.Getpid() || st.Session == st.PID || st.Session == Self().PID {
		t.Errorf("Stat = %+v, %v; want another session, led by another, and init as parent", st, err)
	}
	eventually(t, "the middle process is gone", func() bool { _, err := Identify(st.Session); return errors.Is(err, ErrNoProcess) })
}

func TestDaemonFails(t *testing.T) {
	spec := func(role string) DaemonSpec { return DaemonSpec{Exe: self(t), Env: env(role)} }
	_, err := Daemonize(patience(t), spec("bad daemon"))
	var r *RefusedError
	if !errors.As(err, &r) || r.Reason != refusal {
		t.Errorf("got %v, want the daemon's reason", err)
	}
	id, err := Daemonize(patience(t), spec("dumb"))
	var d *DiedError
	if !errors.As(err, &d) || id.PID == 0 || d.PID != id.PID {
		t.Errorf("got %v, %v; want DiedError", id, err)
	}
	d0 := spec("daemon")
	d0.Dir = "/nonexistent"
	if _, err := Daemonize(patience(t), d0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// Nobody waits for the daemon any more: it does not stay behind, at whatever point of its start that happens.
func TestDaemonizeEndsWithContext(t *testing.T) {
	exe, mark := self(t), "PROC_TEST_ROOT="+t.TempDir()
	for i := range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*5*time.Millisecond)
		_, err := Daemonize(ctx, DaemonSpec{Exe: exe, Env: append(env("hesitate"), mark)})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
	}
	eventually(t, "all daemons are gone", func() bool {
		found, err := FindStrays(exe.ID(), func(c *Candidate) bool { return slices.Contains(c.Env, mark) })
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			p.Release()
		}
		return len(found) == 0
	})
}

func TestRaiseNoFile(t *testing.T) {
	n, err := RaiseNoFile()
	if err != nil {
		t.Fatal(err)
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur != lim.Max || lim.Cur != n {
		t.Errorf("limit %+v, %v; want %d", lim, err, n)
	}
}
