package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// instanceEnv is set for every instance to its run root. Processes inherit it, so that what
// an instance leaves behind is found even when its command line says nothing.
const instanceEnv = "E2E_INSTANCE"

// Trafficd is a running instance.
type Trafficd struct {
	RunRoot  string // a short path: Unix socket addresses have 107 bytes
	Addr     string // the first --listen
	Autoconf string // --autoconf
	Log      *Log   // standard error of all three processes

	t      testing.TB
	opts   options
	cmd    *exec.Cmd     // the command that was started; with Daemon it has returned
	exited chan struct{} // closed when cmd has been waited for

	mu     sync.Mutex // guards below
	seen   map[int]bool
	killed map[int]uint64 // by Strike: when it was started, by its PID
	ended  bool
}

type options struct {
	args      []string
	env       []string
	config    string
	daemon    bool
	binary    string
	binaries  []string // that processes of the instance may run besides
	prepare   []func(runRoot string)
	noRole    bool
	noListen  bool
	noReady   bool
	panicking bool
	exitAny   bool
	confined  bool
	cgroup    string // directory of a Fence; "": none
}

// Option changes how Start starts an instance.
type Option func(*options)

// Map adds --map prefix=origin.
func Map(prefix string, o *Origin) Option { return Args("--map", prefix+"="+o.URL()) }

// Args adds command line arguments to `trafficd cop`.
func Args(args ...string) Option {
	return func(o *options) { o.args = append(o.args, args...) }
}

// Set overrides a setting by the environment: Set("health.interval", "200ms").
func Set(setting, value string) Option {
	name := "TRAFFICD_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
	return func(o *options) { o.env = append(o.env, name+"="+value) }
}

// Config writes trafficd.yaml into the run root's parent and passes it by --config.
func Config(yaml string) Option { return func(o *options) { o.config = yaml } }

// Daemon leaves --foreground out.
func Daemon() Option { return func(o *options) { o.daemon = true } }

// Executable runs another file than the binary under test: a link to it, or a copy.
func Executable(path string) Option { return func(o *options) { o.binary = path } }

// All joins options into one.
func All(opts ...Option) Option {
	return func(o *options) {
		for _, opt := range opts {
			opt(o)
		}
	}
}

// Prepare makes the run root beforehand and calls f with it.
func Prepare(f func(runRoot string)) Option {
	return func(o *options) { o.prepare = append(o.prepare, f) }
}

// NoRole leaves the subcommand out: the role comes from the name of the Executable.
func NoRole() Option { return func(o *options) { o.noRole = true } }

// NoListen leaves --listen out, for configurations that name the listeners.
func NoListen() Option { return func(o *options) { o.noListen = true } }

// NotReady makes Start return without waiting for the first answer.
func NotReady() Option { return func(o *options) { o.noReady = true } }

// ExitAny drops the check that cop exits 0 at the end.
func ExitAny() Option { return func(o *options) { o.exitAny = true } }

// Panicking lets processes of the instance panic, if that is the story.
func Panicking() Option { return func(o *options) { o.panicking = true } }

// Start starts an instance with a run root and ports of its own, waits until it answers and
// sees to its end when the story ends.
func Start(t testing.TB, opts ...Option) *Trafficd {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	p := prepare(t, opts...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Log = newLog(r)
	p.cmd = p.command(p.arguments()...)
	p.cmd.Stderr = w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start trafficd: %v", err)
	}
	w.Close()
	started.Store(p.cmd.Process.Pid, true)
	t.Cleanup(p.end)
	go func() {
		p.cmd.Wait()
		started.Delete(p.cmd.Process.Pid)
		close(p.exited)
	}()
	switch {
	case p.opts.daemon:
		p.awaitDaemon()
	case !p.opts.noReady:
		p.WaitReady()
		p.waitKnown()
	}
	return p
}

// waitKnown waits until the manager knows of the first server that it is ready. Clients are answered some instants before,
// in which there is no server yet for the manager: none that it could restart or drain, and none that a standby is for.
func (p *Trafficd) waitKnown() {
	p.t.Helper()
	p.Log.Wait(p.t, 0, "a manager that knows that its server is ready", About("server ready", Manager))
}

// prepare makes the run root and chooses the ports.
func prepare(t testing.TB, opts ...Option) *Trafficd {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	p := &Trafficd{
		RunRoot: filepath.Join(base, "run"), Addr: FreeAddr(t), Autoconf: FreeAddr(t),
		t: t, exited: make(chan struct{}), seen: map[int]bool{}, killed: map[int]uint64{},
	}
	p.opts.binary = binary
	for _, o := range opts {
		o(&p.opts)
	}
	if p.opts.confined && os.Geteuid() == 0 {
		if err := os.Chown(base, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range p.opts.prepare {
		if err := os.MkdirAll(p.RunRoot, 0o755); err != nil {
			t.Fatal(err)
		}
		f(p.RunRoot)
	}
	return p
}

// ConfigPath is where Config puts the file.
func (p *Trafficd) ConfigPath() string {
	return filepath.Join(filepath.Dir(p.RunRoot), "trafficd.yaml")
}

// WriteConfig replaces the file that --config names.
func (p *Trafficd) WriteConfig(yaml string) {
	p.t.Helper()
	if err := os.WriteFile(p.ConfigPath(), []byte(yaml), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Trafficd) arguments() []string {
	args := []string{"--run-root", p.RunRoot, "--autoconf", p.Autoconf}
	if !p.opts.noRole {
		args = append([]string{"cop"}, args...)
	}
	if !p.opts.noListen {
		args = append(args, "--listen", p.Addr)
	}
	if !p.opts.daemon {
		args = append(args, "--foreground")
	}
	if p.opts.config != "" {
		p.WriteConfig(strings.NewReplacer("{{addr}}", p.Addr, "{{run-root}}", p.RunRoot).Replace(p.opts.config))
		args = append(args, "--config", p.ConfigPath())
	}
	return append(args, p.opts.args...)
}

func (p *Trafficd) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.opts.binary, args...)
	// A small file for the cache on disk: there are many instances, and few of them want one.
	cmd.Env = append(environment(), instanceEnv+"="+p.RunRoot, "TRAFFICD_CACHE_DISK_SIZE=16MiB")
	if p.opts.confined {
		cmd.Args = append([]string{cmd.Path}, cmd.Args...)
		cmd.Path = "/proc/self/exe"
		cmd.Env = append(cmd.Env, confinedEnv+"=1")
	}
	if p.opts.cgroup != "" {
		cmd.Args = append([]string{cmd.Path}, cmd.Args...)
		cmd.Path = "/proc/self/exe"
		cmd.Env = append(cmd.Env, cgroupEnv+"="+p.opts.cgroup)
	}
	cmd.Env = append(cmd.Env, p.opts.env...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

// environment is the test's own without what would configure or supervise an instance.
func environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "TRAFFICD_"), strings.HasPrefix(name, "LISTEN_"),
			name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == instanceEnv:
		default:
			env = append(env, kv)
		}
	}
	// A binary with the race detector sleeps a second before it exits otherwise.
	return append(env, "GORACE=atexit_sleep_ms=0")
}

// WaitReady waits for an answer that a server gave: a 503 may come from the manager.
func (p *Trafficd) WaitReady() {
	p.t.Helper()
	if !poll(Patience, func() bool { return (p.hasExited() && !p.opts.daemon) || p.Ready() }) {
		p.t.Fatalf("no answer from %s after %v\n%s", p.Addr, Patience, p.Log.Tail(0, 60))
	}
	if p.hasExited() && !p.opts.daemon {
		p.t.Fatalf("cop exited with %d before it was ready\n%s", p.cmd.ProcessState.ExitCode(), p.Log.Tail(0, 60))
	}
	p.note()
}

// Ready asks once for a page, by a method that no origin of a story sees, and says whether a
// server has answered.
func (p *Trafficd) Ready() bool {
	r, err := Fetch(p.Addr, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	return err == nil && r.Status != 503
}

// awaitDaemon waits until the command has returned.
func (p *Trafficd) awaitDaemon() {
	p.t.Helper()
	if !p.waitExited(Patience) {
		p.t.Fatalf("trafficd cop without --foreground has not returned after %v", Patience)
	}
	p.note()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 && !p.opts.noReady {
		p.t.Fatalf("trafficd cop exited with %d\n%s", code, p.Log.Tail(0, 60))
	}
}

func (p *Trafficd) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *Trafficd) waitExited(limit time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(limit):
		return false
	}
}

// ExitCode waits until the command that was started has ended and returns its exit code.
func (p *Trafficd) ExitCode() int {
	p.t.Helper()
	if !p.waitExited(Patience) {
		p.t.Fatalf("trafficd has not exited after %v\n%s", Patience, p.Log.Tail(0, 60))
	}
	return p.cmd.ProcessState.ExitCode()
}

// LockPath is the path of the role's lock file.
func (p *Trafficd) LockPath(role Role) string {
	return filepath.Join(p.RunRoot, string(role)+".lock")
}

// lockPID is what the first line of the role's lock file says; 0 when it says nothing.
func (p *Trafficd) lockPID(role Role) int {
	text, err := os.ReadFile(p.LockPath(role))
	if err != nil {
		return 0
	}
	first, _, ok := bytes.Cut(text, []byte("\n"))
	if !ok {
		return 0
	}
	pid, err := strconv.Atoi(string(first))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}

// PID waits until the role's lock file names a living process of that role and returns its PID.
func (p *Trafficd) PID(role Role) int {
	p.t.Helper()
	return p.WaitReplaced(role, 0)
}

// WaitReplaced waits until the role's lock file names a living process other than old.
func (p *Trafficd) WaitReplaced(role Role, old int) int {
	p.t.Helper()
	pid := 0
	if !poll(Patience, func() bool {
		pid = p.lockPID(role)
		return pid != 0 && pid != old && Alive(pid) && Comm(pid) == role.Comm()
	}) {
		p.t.Fatalf("no %s other than %d after %v: lock names %d (%q, state %c)\n%s",
			role, old, Patience, pid, Comm(pid), State(pid), p.Log.Tail(0, 60))
	}
	p.note()
	return pid
}

// Process opens a handle of the role's process: the lock names it before and after its
// pidfd was opened, it has the role's name, and it runs the executable under test.
func (p *Trafficd) Process(role Role) *Process {
	p.t.Helper()
	var found *Process
	if !poll(Patience, func() bool {
		pid := p.lockPID(role)
		if pid == 0 {
			return false
		}
		h, err := openProcess(pid)
		if err != nil {
			return false
		}
		if p.lockPID(role) != pid || h.Comm != role.Comm() || !p.runs(pid) {
			h.fd.Close()
			return false
		}
		found = h
		return true
	}) {
		p.t.Fatalf("no process is the %s: lock names %d\n%s", role, p.lockPID(role), p.Log.Tail(0, 60))
	}
	p.note()
	p.t.Cleanup(func() { found.fd.Close() })
	return found
}

// MayRun says that the instance's processes may run the file at path besides the binary under test.
func (p *Trafficd) MayRun(path string) { p.opts.binaries = append(p.opts.binaries, path) }

func (p *Trafficd) runs(pid int) bool {
	return sameExecutable(pid, p.opts.binary) ||
		slices.ContainsFunc(p.opts.binaries, func(path string) bool { return sameExecutable(pid, path) })
}

// Runs reports whether the role's process runs the file at path.
func (p *Trafficd) Runs(role Role, path string) bool {
	p.t.Helper()
	return sameExecutable(p.PID(role), path)
}

// KillPID sends SIGKILL to a process of the instance that holds no lock: a standby.
func (p *Trafficd) KillPID(pid int) *Process {
	p.t.Helper()
	h, err := openProcess(pid)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { h.fd.Close() })
	if !p.runs(pid) {
		p.t.Fatalf("process %d runs another executable", pid)
	}
	h.Signal(p.t, unix.SIGKILL)
	return h
}

func sameExecutable(pid int, path string) bool {
	a, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Kill sends SIGKILL to the role's process and returns its handle.
func (p *Trafficd) Kill(role Role) *Process { p.t.Helper(); return p.Signal(role, unix.SIGKILL) }

// Stop sends SIGSTOP to the role's process: alive, but deaf. It answers clients some instants before its supervisor has been told
// that it is ready, and until then it is not judged by heartbeats but by its start deadline; so that is waited for.
func (p *Trafficd) Stop(role Role) *Process {
	p.t.Helper()
	p.WaitStatus("the "+string(role)+" known as ready", func(s Status) bool { return s.Of(role).State == "ready" })
	return p.Signal(role, unix.SIGSTOP)
}

// Signal sends sig to the role's process and returns its handle.
func (p *Trafficd) Signal(role Role, sig unix.Signal) *Process {
	p.t.Helper()
	h := p.Process(role)
	h.Signal(p.t, sig)
	return h
}

// PIDs are those of all three roles.
func (p *Trafficd) PIDs() map[Role]int {
	p.t.Helper()
	pids := map[Role]int{}
	for _, role := range Roles {
		pids[role] = p.PID(role)
	}
	return pids
}

// ExpectSame fails unless the role's process is still the one with that PID.
func (p *Trafficd) ExpectSame(role Role, pid int) {
	p.t.Helper()
	if got := p.PID(role); got != pid {
		p.t.Errorf("%s has PID %d, want %d as before", role, got, pid)
	}
}

// Plagued is a role of which every new process is killed.
type Plagued struct {
	stop, stopped chan struct{}
	killed        int // valid when stopped
}

// Plague kills the role's process and each that follows as soon as its lock names it, until
// End or the end of the story.
func (p *Trafficd) Plague(role Role) *Plagued {
	g := &Plagued{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(g.stopped)
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case <-g.stop:
				return
			case <-tick.C:
				if p.killOnce(role) {
					g.killed++
				}
			}
		}
	}()
	p.t.Cleanup(func() { g.End() })
	return g
}

// killOnce kills the role's process if there is one now, and waits for its end.
func (p *Trafficd) killOnce(role Role) bool {
	pid := p.lockPID(role)
	if pid == 0 || !Alive(pid) {
		return false
	}
	h, err := openProcess(pid)
	if err != nil {
		return false
	}
	defer h.fd.Close()
	if h.Comm != role.Comm() || !p.runs(pid) {
		return false
	}
	return h.signal(unix.SIGKILL) == nil && h.waitGone(Patience)
}

// End leaves the role alone from now on and returns how many were killed.
func (g *Plagued) End() int {
	select {
	case <-g.stop:
	default:
		close(g.stop)
	}
	<-g.stopped
	return g.killed
}

// note remembers the PIDs of the instance, so that the zombies of those that are
// reparented to the test process can be told from any other's.
func (p *Trafficd) note() {
	pids := processesOf(p.RunRoot)
	for _, role := range Roles {
		if pid := p.lockPID(role); pid != 0 {
			pids = append(pids, pid)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range pids {
		p.seen[pid] = true
	}
}

// Client is a client of the first listener.
func (p *Trafficd) Client() *Client { return NewClient(p.t, p.Addr) }

// Ctl runs `trafficd ctl` against the instance's run root.
func (p *Trafficd) Ctl(args ...string) Result {
	p.t.Helper()
	return run(p.t, p.command(append([]string{"ctl", "--run-root", p.RunRoot}, args...)...))
}

// Result is what a command that has ended left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs the binary under test to its end. It is for commands that end by themselves,
// which an instance that starts does not.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return RunFile(t, binary, args...)
}

// RunFile is Run for another file than the binary under test, such as a link to it.
func RunFile(t testing.TB, path string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = environment()
	return run(t, cmd)
}

func run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // a daemon that keeps our pipe must not hold the story up
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %q: %v", cmd.Args, err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("run %q: %v", cmd.Args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%q has not ended after %v\n%s%s", cmd.Args, Patience, stdout.String(), stderr.String())
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Terminate sends TERM to cop, waits for the end of the instance and checks it: exit code
// 0, no process left, no zombie left. The story's end does the same when the story has not.
func (p *Trafficd) Terminate() {
	p.t.Helper()
	p.mu.Lock()
	ended := p.ended
	p.ended = true
	p.mu.Unlock()
	if ended {
		return
	}
	p.note()
	p.terminateCop()
	p.expectExit()
	p.ExpectNothingLeft()
	for _, line := range append(faults(p.Log.Since(0)), faults(p.daemonLog())...) {
		if p.opts.panicking && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "runtime: ")) {
			continue
		}
		p.t.Errorf("a process of the instance wrote: %s", line)
	}
}

// terminateCop sends TERM to the cop there is, or will be in a moment when the story has just
// killed one, unless the instance has ended already.
func (p *Trafficd) terminateCop() {
	p.t.Helper()
	var cop *Process
	poll(Patience, func() bool {
		pid := p.lockPID(Cop)
		if pid == 0 || p.wasKilled(pid) || !Alive(pid) || Comm(pid) != Cop.Comm() {
			return len(processesOf(p.RunRoot)) == 0
		}
		cop, _ = openProcess(pid)
		return cop != nil
	})
	if cop == nil {
		return
	}
	defer cop.fd.Close()
	p.note()
	cop.signal(unix.SIGTERM)
	if !cop.waitGone(Patience) {
		p.t.Errorf("cop %d has not ended %v after TERM\n%s", cop.PID, Patience, p.Log.Tail(0, 60))
	}
}

// daemonLog are the lines of the file that a daemon logs to.
func (p *Trafficd) daemonLog() []Line {
	text, err := os.ReadFile(filepath.Join(p.RunRoot, "trafficd.log"))
	if err != nil {
		return nil
	}
	var lines []Line
	for line := range strings.Lines(string(text)) {
		lines = append(lines, parseLine(strings.TrimSuffix(line, "\n")))
	}
	return lines
}

// expectExit checks the exit code of the command that was started, when it is known to be
// that of a cop that was asked to stop: not after the story has killed it.
func (p *Trafficd) expectExit() {
	p.t.Helper()
	if !p.waitExited(Patience) {
		p.t.Errorf("the started command %d has not ended", p.cmd.Process.Pid)
		return
	}
	ws, _ := p.cmd.ProcessState.Sys().(unix.WaitStatus)
	if !p.opts.exitAny && !ws.Signaled() && ws.ExitStatus() != 0 {
		p.t.Errorf("trafficd cop exited with %d, want 0\n%s", ws.ExitStatus(), p.Log.Tail(0, 60))
	}
}

// ExpectNothingLeft waits until no process of the instance is there any more.
func (p *Trafficd) ExpectNothingLeft() {
	p.t.Helper()
	var left []int
	if !poll(Patience, func() bool {
		p.reap()
		left = p.left()
		return len(left) == 0
	}) {
		var lines []string
		for _, pid := range left {
			lines = append(lines, fmt.Sprintf("%s %d (state %c, parent %d)", Comm(pid), pid, State(pid), ParentPID(pid)))
		}
		p.t.Errorf("the instance has left behind: %s\n%s", strings.Join(lines, ", "), p.Log.Tail(0, 40))
	}
}

// left are the PIDs of the instance's run root that still exist, and the zombies among those
// that were seen.
func (p *Trafficd) left() []int {
	left := processesOf(p.RunRoot)
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.seen {
		if State(pid) == 'Z' && strings.HasPrefix(Comm(pid), "traffic_") {
			left = append(left, pid)
		}
	}
	return left
}

func (p *Trafficd) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.seen {
		if p.cmd == nil || pid != p.cmd.Process.Pid {
			reapOrphan(pid)
		}
	}
}

// end is the clean-up of a story, whether it has failed or not.
func (p *Trafficd) end() {
	p.Terminate()
	// Again and again: as long as one of them lives it starts the others anew.
	poll(Patience, func() bool {
		left := processesOf(p.RunRoot)
		for _, pid := range left {
			if h, err := openProcess(pid); err == nil {
				h.signal(unix.SIGKILL)
				h.fd.Close()
			}
		}
		p.reap()
		return len(left) == 0
	})
	p.reap()
	if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", p.RunRoot, p.Log.Tail(0, 80))
		// All of it, for who says go test -artifacts.
		file := filepath.Join(p.t.ArtifactDir(), filepath.Base(filepath.Dir(p.RunRoot))+".log")
		if err := os.WriteFile(file, []byte(p.Log.Tail(0, 1<<30)), 0o644); err != nil {
			p.t.Logf("keep the log: %v", err)
		}
	}
}

// ReadFile reads a file below the run root.
func (p *Trafficd) ReadFile(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.RunRoot, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// Stranger starts a copy of this test binary under the given comm, outside every run root. It
// does nothing but wait; it ends with the story.
func Stranger(t testing.TB, comm string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), comm)
	if err := CopyProgram(path, self); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(environment(), strangerEnv+"=1")
	// A group of its own, so that a wrong signal to the group hits nobody else.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
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
	WaitFor(t, "the stranger's name", func() bool { return Comm(cmd.Process.Pid) == comm })
	h, err := openProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.fd.Close() })
	return h
}

const strangerEnv = "E2E_STRANGER"

// BeStranger makes the test binary a stranger when Stranger has started it: it returns when
// its standard input ends. A TestMain calls it first.
func BeStranger() bool {
	if os.Getenv(strangerEnv) == "" {
		return false
	}
	io.Copy(io.Discard, os.Stdin)
	return true
}

// CopyProgram copies an executable. Nothing is started meanwhile: until it executes, a child of this process has the copy open for writing
// as well, and nobody can execute that (ETXTBSY).
func CopyProgram(to, from string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
