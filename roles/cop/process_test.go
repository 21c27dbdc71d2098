package cop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// The test binary is all three processes: cop is the real one, manager and server do
// just what cop's contract asks of them.
func TestMain(m *testing.M) {
	proc.DaemonStage()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "stall":
			go abort()
			select {}
		case "cop":
			os.Exit(copProcess(os.Args[2:]))
		case "manager":
			os.Exit(int(exitcode.Of(managerProcess(os.Args[2:]))))
		case "server":
			os.Exit(int(exitcode.Of(serverProcess(os.Args[2:]))))
		}
	}
	os.Exit(m.Run())
}

func copProcess(args []string) int {
	var o Options
	f := flag.NewFlagSet("cop", flag.ExitOnError)
	f.BoolVar(&o.Foreground, "foreground", false, "")
	f.StringVar(&o.Flags.RunRoot, "run-root", "", "")
	f.StringVar(&o.Flags.Config, "config", "", "")
	f.Parse(args)
	return Run(context.Background(), o)
}

// member is what manager and server have in common.
type member struct {
	root   runroot.Root
	h      *heritage.Set
	region *stats.Region
}

func enter(args []string, role stats.RoleID, lock func(runroot.Root) string) (*member, error) {
	f := flag.NewFlagSet(role.String(), flag.ExitOnError)
	dir := f.String("run-root", "", "")
	f.String("config", "", "")
	f.Parse(args)
	root, err := runroot.New(*dir)
	if err != nil {
		return nil, err
	}
	m := &member{root: root}
	if m.h, err = heritage.FromEnv(); err != nil {
		return nil, err
	}
	if _, err := lockfile.Acquire(lock(root)); err != nil {
		return nil, exitcode.With(exitcode.TryAgain, err)
	}
	if fd, err := m.h.GetDup(heritage.Stats); err == nil {
		m.region, err = stats.Attach(os.NewFile(uintptr(fd), "stats"))
		if err != nil {
			return nil, err
		}
	} else {
		if m.region, err = stats.Create(); err != nil {
			return nil, err
		}
		if err := m.h.PutDup(heritage.Stats, int(m.region.File().Fd())); err != nil {
			return nil, err
		}
	}
	self := proc.Self()
	m.region.Role(role).Enter(self.PID, self.StartTime, supervise.TakeGeneration())
	return m, nil
}

func answer(path string) error {
	l, err := runroot.ListenUnix(path, runroot.Stream)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				c.Read(make([]byte, 4096))
				c.Write(heartbeat.AppendResponse(nil, "GET"))
			}(c)
		}
	}()
	return nil
}

func serverProcess(args []string) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	m, err := enter(args, stats.RoleServer, runroot.Root.ServerLock)
	if err != nil {
		return err
	}
	if err := answer(m.root.ServerSocket()); err != nil {
		return err
	}
	me := m.region.Role(stats.RoleServer)
	me.State.Store(uint64(stats.Ready))
	proc.NotifyReady()
	cell := m.region.Bank(me.Generation.Load()).Cell(0)
	for {
		select {
		case <-term:
			return nil
		case <-time.After(20 * time.Millisecond):
			cell.Iterations.Add(1)
		}
	}
}

func managerProcess(args []string) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	m, err := enter(args, stats.RoleManager, runroot.Root.ManagerLock)
	if err != nil {
		return err
	}
	exe, err := proc.OpenSelf()
	if err != nil {
		return err
	}
	if err := answer(m.root.ControlSocket()); err != nil {
		return err
	}
	if err := m.hub(); err != nil {
		return err
	}
	m.region.Role(stats.RoleManager).State.Store(uint64(stats.Ready))
	proc.NotifyReady()
	for {
		server, err := m.server(exe)
		if err != nil {
			return err
		}
		select {
		case <-server.Done():
			m.region.Role(stats.RoleServer).Leave(server.PID())
		case <-term:
			return server.Terminate(context.Background(), proc.Escalation{Grace: time.Second})
		}
	}
}

func (m *member) server(exe *proc.Executable) (*supervise.Peer, error) {
	if p, err := supervise.Meet(supervise.Server, m.root.ServerLock(), exe); p != nil || err != nil {
		return p, err
	}
	g := m.region.Role(stats.RoleServer).Generation.Load() + 1
	m.region.Bank(g).Begin(g, 1)
	files, env, err := m.h.Export(3)
	if err != nil {
		return nil, err
	}
	defer heritage.CloseFiles(files)
	argv0, args := supervise.Command("server", config.Overrides{RunRoot: m.root.Dir()})
	p, err := proc.Start(proc.Spec{
		Exe: exe, Argv0: argv0, Args: args, Env: append(supervise.Environ(g), env),
		Stderr: os.Stderr, Files: files, Notify: true, Setpgid: true,
	})
	if err != nil {
		return nil, err
	}
	return supervise.Child(supervise.Server, p, exe), p.WaitReady(context.Background())
}

func (m *member) hub() error {
	l, err := runroot.ListenUnix(m.root.ManagerSocket(), runroot.Packet)
	if err != nil {
		return err
	}
	self := proc.Self()
	link.Serve(l, link.ServerOptions{
		Self: func() link.Hello {
			return link.Hello{Role: "manager", PID: self.PID, Generation: m.region.Role(stats.RoleManager).Generation.Load()}
		},
		OnConnect: func(c *link.Conn) {
			body, fds, err := m.h.Marshal()
			if err == nil {
				_, err = c.Call(context.Background(), "deposit", json.RawMessage(body), fds...)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "deposit:", err)
			}
		},
	})
	return nil
}

// scene is one run root with the processes in it.
type scene struct {
	t    *testing.T
	root runroot.Root

	mu     sync.Mutex
	events []string // messages that cops have logged
	news   chan struct{}
}

func newScene(t *testing.T) *scene {
	root, err := runroot.New(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, root: root, news: make(chan struct{}, 1)}
	t.Cleanup(s.clear)
	return s
}

// clear ends whatever still holds a lock of this run root, outermost first.
func (s *scene) clear() {
	for _, path := range []string{s.root.CopLock(), s.root.ManagerLock(), s.root.ServerLock()} {
		if pid := s.holder(path); pid != 0 {
			if p, err := proc.Adopt(pid, 0); err == nil {
				p.Signal(syscall.SIGKILL)
				<-p.Done()
				p.Release()
			}
		}
	}
}

func (s *scene) command(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"cop", "--run-root=" + s.root.Dir()}, args...)...)
	cmd.Env = append(os.Environ(), "TRAFFICD_HEALTH_INTERVAL=50ms", "TRAFFICD_HEALTH_TIMEOUT=500ms",
		"TRAFFICD_HEALTH_KILL_GRACE=50ms", "TRAFFICD_HEALTH_CORE_SIGNAL=none", "TRAFFICD_LOG_LEVEL=debug")
	return cmd
}

// cop starts a cop in the foreground and follows its log.
func (s *scene) cop() *exec.Cmd {
	s.t.Helper()
	cmd := s.command("--foreground")
	r, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go s.follow(r)
	return cmd
}

func (s *scene) follow(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var e struct{ Message string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Message == "" {
			e.Message = lines.Text()
		}
		s.mu.Lock()
		s.events = append(s.events, e.Message)
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

// see waits until every one of want was logged, in this order, since the last see.
func (s *scene) see(want ...string) {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		found, at := 0, 0
		for i, e := range s.events {
			if found < len(want) && e == want[found] {
				found, at = found+1, i+1
			}
		}
		if found == len(want) {
			s.events = s.events[at:]
		}
		all := slices.Clone(s.events)
		s.mu.Unlock()
		if found == len(want) {
			return
		}
		select {
		case <-s.news:
		case <-limit:
			s.t.Fatalf("waiting for %q, %q is missing; log:\n%s", want, want[found], strings.Join(all, "\n"))
		}
	}
}

func (s *scene) holder(path string) int {
	o, _, err := lockfile.Holder(path)
	if err != nil {
		s.t.Error(err)
	}
	return o.PID
}

func (s *scene) pids() (manager, server int) {
	return s.holder(s.root.ManagerLock()), s.holder(s.root.ServerLock())
}

// eventually polls what only the kernel knows.
func (s *scene) eventually(what string, ok func() bool) {
	s.t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			s.t.Fatal(what + ": did not happen")
		}
	}
}

func (s *scene) signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	p, err := proc.Adopt(pid, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer p.Release()
	if err := p.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// end asks cop to stop and looks whether anybody is left.
func (s *scene) end(cop *exec.Cmd) {
	s.t.Helper()
	cop.Process.Signal(syscall.SIGTERM)
	if err := cop.Wait(); err != nil {
		s.t.Errorf("cop: %v, want exit status 0", err)
	}
	if m, v := s.pids(); m != 0 || v != 0 {
		s.t.Errorf("left behind: manager %d, server %d", m, v)
	}
}

// A TERM that comes while cop starts is heeded when it has started. This one is held up by a log that nobody reads.
func TestStopWhileCopStarts(t *testing.T) {
	s := newScene(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	size, err := unix.FcntlInt(w.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("\n"), size)); err != nil {
		t.Fatal(err)
	}
	cop := s.command("--foreground")
	cop.Stderr = w
	if err := cop.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.eventually("cop on duty", func() bool { return s.holder(s.root.CopLock()) == cop.Process.Pid })
	cop.Process.Signal(syscall.SIGTERM)
	go s.follow(r)
	s.end(cop)
}

func TestInstanceHealsItself(t *testing.T) {
	s := newScene(t)
	cop := s.cop()
	s.see("manager not running", "making sure server is dead", "safe_kill", "spawn_manager", "ready")
	m1, v1 := s.pids()

	// Killed: the next manager adopts the server.
	s.signal(m1, syscall.SIGKILL)
	s.see("manager died", "check_programs", "manager not running", "spawn_manager", "link to manager is up", "deposit")
	m2, v2 := s.pids()
	if m2 == 0 || m2 == m1 || v2 != v1 {
		t.Errorf("manager %d → %d, server %d → %d; want another, and the same", m1, m2, v1, v2)
	}

	// Stopped: found by its heartbeat, killed, replaced.
	s.signal(m2, syscall.SIGSTOP)
	s.see("manager heartbeat failed", "safe_kill", "manager died", "spawn_manager", "deposit")
	m3, v3 := s.pids()
	if m3 == 0 || m3 == m2 || v3 != v1 {
		t.Errorf("manager %d → %d, server %d → %d; want another, and the same", m2, m3, v1, v3)
	}

	// A stopped server likewise; the manager starts the next.
	s.signal(v3, syscall.SIGSTOP)
	s.see("server heartbeat failed", "safe_kill", "server died", "adopt server")
	if m4, v4 := s.pids(); m4 != m3 || v4 == v3 {
		t.Errorf("manager %d → %d, server %d → %d; want the same, and another", m3, m4, v3, v4)
	}
	s.end(cop)
}

func TestSecondCopNamesTheFirst(t *testing.T) {
	s := newScene(t)
	cop := s.cop()
	s.see("ready")
	m, v := s.pids()
	out, err := s.command("--foreground").CombinedOutput()
	if code := exitOf(err); code != 75 || !strings.Contains(string(out), strconv.Itoa(cop.Process.Pid)) {
		t.Errorf("second cop: exit %d and %q, want 75 and pid %d", code, out, cop.Process.Pid)
	}
	if m2, v2 := s.pids(); m2 != m || v2 != v {
		t.Error("the first instance was disturbed")
	}
	s.end(cop)
}

func TestNextCopAdoptsBoth(t *testing.T) {
	s := newScene(t)
	first := s.cop()
	s.see("ready")
	m, v := s.pids()
	first.Process.Kill()
	first.Wait()
	next := s.cop()
	s.see("adopt manager", "adopt server", "deposit")
	if m2, v2 := s.pids(); m2 != m || v2 != v {
		t.Errorf("manager %d → %d, server %d → %d; want the same", m, m2, v, v2)
	}
	// It looks after what it did not start.
	s.signal(m, syscall.SIGKILL)
	s.see("manager died", "spawn_manager", "deposit")
	if m2, v2 := s.pids(); m2 == m || v2 != v {
		t.Errorf("manager %d → %d, server %d → %d; want another, and the same", m, m2, v, v2)
	}
	s.end(next)
}

func TestBothDie(t *testing.T) {
	s := newScene(t)
	cop := s.cop()
	s.see("ready")
	m, v := s.pids()
	s.signal(m, syscall.SIGKILL)
	s.signal(v, syscall.SIGKILL)
	s.see("spawn_manager", "deposit")
	s.eventually("both are back", func() bool {
		m2, v2 := s.pids()
		return m2 != 0 && m2 != m && v2 != 0 && v2 != v
	})
	s.end(cop)
}

func TestBadConfigurationEndsTheStart(t *testing.T) {
	s := newScene(t)
	file := filepath.Join(t.TempDir(), "trafficd.yaml")
	for _, text := range []string{"health:\n  intervall: 1s\n", "cache:\n  disk_path: " + file + "/below\n"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, mode := range [][]string{{"--foreground"}, nil} {
			out, err := s.command(append(mode, "--config="+file)...).CombinedOutput()
			if code := exitOf(err); code != 78 || !strings.HasPrefix(string(out), file+":2:") {
				t.Errorf("%q: exit %d and %q, want 78 and the position", mode, code, out)
			}
		}
	}
}

func TestDaemon(t *testing.T) {
	s := newScene(t)
	start := s.command()
	start.Env = append(start.Env, "TRAFFICD_THREDS=1")
	out, err := start.CombinedOutput()
	if want := "did you mean TRAFFICD_THREADS?"; !strings.Contains(string(out), want) {
		t.Errorf("nobody sees the daemon's log at its start, and standard error has no %s: %s", want, out)
	}
	if err != nil {
		log, _ := os.ReadFile(s.root.LogFile())
		t.Fatalf("start: %v: %s\n%s", err, out, log)
	}
	m, v := s.pids()
	if m == 0 || v == 0 {
		t.Errorf("returned with manager %d, server %d; want both", m, v)
	}
	pid := s.holder(s.root.CopLock())
	if st, err := proc.ReadStat(pid); err != nil || st.Session == pid || st.Comm != "traffic_cop" {
		t.Errorf("daemon %d: %+v, %v; want traffic_cop, not leading a session", pid, st, err)
	}

	// A rotated log is let go on USR1.
	if err := os.Rename(s.root.LogFile(), s.root.LogFile()+".1"); err != nil {
		t.Fatal(err)
	}
	s.signal(pid, syscall.SIGUSR1)
	s.eventually("log reopened", func() bool { _, err := os.Stat(s.root.LogFile()); return err == nil })

	if out, err := s.command().CombinedOutput(); exitOf(err) != 75 {
		t.Errorf("second start: %v: %s; want 75", err, out)
	}
	p, err := proc.Adopt(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	p.Signal(syscall.SIGTERM)
	<-p.Done()
	if m, v := s.pids(); m != 0 || v != 0 {
		t.Errorf("left behind: manager %d, server %d", m, v)
	}
}

func TestStalledCopAbortsWithStacks(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "stall")
	cmd.Dir = t.TempDir() // for the core, where cores are written
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT {
		t.Errorf("ended with %v, want SIGABRT", err)
	}
	for _, want := range []string{"the loop has stalled", "TestMain", "goroutine 1 "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in its last words:\n%s", want, out)
		}
	}
}

func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	sd, err := newSystemd()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	sd.say("READY=1")
	sd.beat(now)
	sd.beat(now.Add(999 * time.Millisecond)) // not due: half the time systemd allows
	sd.beat(now.Add(time.Second))
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		buf := make([]byte, 64)
		n, err := l.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v; want %q", buf[:n], err, want)
		}
	}
}

func exitOf(err error) int {
	if ee, ok := err.(*exec.ExitError); ok {
		return ee.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
