package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
	"trafficd/proc"
)

// The test binary is the process that holds a lock.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		if _, err := lockfile.Acquire(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {}
	}
	os.Exit(m.Run())
}

func self(t *testing.T) *proc.Executable {
	t.Helper()
	exe, err := proc.OpenSelf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exe.Close() })
	return exe
}

// holder starts a process that holds path, running the executable at exe.
func holder(t *testing.T, exe, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(exe, "hold", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("holder said %q: %v", line, err)
	}
	return cmd
}

func me(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMeetFreeLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.lock")
	if p, err := Meet(Server, path, self(t)); p != nil || err != nil {
		t.Errorf("no file: %v, %v", p, err)
	}
	// Whatever a free lock file says, it says nothing.
	for _, text := range []string{"", "garbage\n", strconv.Itoa(os.Getppid()) + "\n", "1\n", "-1\n", "0\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if p, err := Meet(Server, path, self(t)); p != nil || err != nil {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestMeetAndKillTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.lock")
	cmd := holder(t, me(t), path)
	// The text is not believed about who it is.
	if err := os.WriteFile(path, []byte("1\n0 -\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := Meet(Server, path, self(t))
	if err != nil || p == nil || p.PID() != cmd.Process.Pid {
		t.Fatalf("met %v, %v; want pid %d", p, err, cmd.Process.Pid)
	}
	defer p.Release()
	var last Decision
	gate := NewGate(KillAll, LiveEnv(func(Role) string { return path }, func(d Decision) { last = d }))
	if o := gate.Kill(t.Context(), p.Target(), Unhealthy, "test", Escalation{Grace: time.Minute}); o != Killed {
		t.Errorf("%v: %+v", o, last)
	}
	// Our child, although met and not started through package proc: it was reaped there.
	if s := p.Status(); s != (Status{Known: true, Signal: syscall.SIGTERM}) {
		t.Errorf("status %v", s)
	}
	if p, err := Meet(Server, path, self(t)); p != nil || err != nil {
		t.Errorf("after its death: %v, %v", p, err)
	}
	if o := gate.Kill(t.Context(), p.Target(), Unhealthy, "again", Escalation{}); o != Gone {
		t.Errorf("second kill: %v", o)
	}
}

// A stopped process takes no notice of TERM; the escalation ends it.
func TestKillOfAStoppedHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.lock")
	holder(t, me(t), path)
	p, err := Meet(Server, path, self(t))
	if err != nil || p == nil {
		t.Fatalf("met %v, %v", p, err)
	}
	defer p.Release()
	p.Signal(syscall.SIGSTOP)
	gate := NewGate(KillAll, LiveEnv(func(Role) string { return path }, func(Decision) {}))
	if o := gate.Kill(t.Context(), p.Target(), Unhealthy, "test", Escalation{Grace: 10 * time.Millisecond}); o != Killed {
		t.Errorf("got %v", o)
	}
	if s := p.Status(); s != (Status{Known: true, Signal: syscall.SIGKILL}) {
		t.Errorf("ended by %v", s)
	}
}

// A stranger may lock our file, a backup program say. It is not ours to kill.
func TestStrangerThatLocksTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.lock")
	copied := filepath.Join(dir, "stranger")
	image, err := os.ReadFile(me(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, image, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := holder(t, copied, path)

	// Another file with our code, that wrote its identity as we do, is one of ours of
	// another version.
	p, err := Meet(Server, path, self(t))
	if err != nil || p == nil {
		t.Fatalf("holder of another version: %v, %v", p, err)
	}
	p.Release()

	if err := os.WriteFile(path, []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := Meet(Server, path, self(t)); !errors.Is(err, ErrUnidentified) {
		t.Errorf("stranger: %v, %v", p, err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Error("the stranger was signalled")
	}
}

func TestLockThatWeHoldOurselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.lock")
	l, err := lockfile.Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if p, err := Meet(Server, path, self(t)); !errors.Is(err, ErrUnidentified) {
		t.Errorf("met myself: %v, %v", p, err)
	}
}

// The gate looks again: between meeting and killing, the lock may have changed hands.
func TestGateLooksAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.lock")
	first := holder(t, me(t), path)
	p, err := Meet(Server, path, self(t))
	if err != nil || p == nil {
		t.Fatalf("met %v, %v", p, err)
	}
	defer p.Release()
	first.Process.Kill()
	first.Wait()
	<-p.Done()
	second := holder(t, me(t), path)
	gate := NewGate(KillAll, LiveEnv(func(Role) string { return path }, func(Decision) {}))
	if o := gate.Kill(context.Background(), p.Target(), Unhealthy, "test", Escalation{}); o != Stranger {
		t.Errorf("got %v, want stranger", o)
	}
	if err := second.Process.Signal(unix.Signal(0)); err != nil {
		t.Error("the new holder was signalled")
	}
}

func TestCoreSignal(t *testing.T) {
	for s, want := range map[string]syscall.Signal{"none": 0, "QUIT": syscall.SIGQUIT, "ABRT": syscall.SIGABRT} {
		if got := CoreSignal(s); got != int(want) {
			t.Errorf("%s: %d, want %d", s, got, want)
		}
	}
}
