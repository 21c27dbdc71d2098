package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also every other process of the tests: PROC_TEST_ROLE says which one.
func TestMain(m *testing.M) {
	DaemonStage()
	role, ok := roles[os.Getenv("PROC_TEST_ROLE")]
	if !ok {
		os.Exit(m.Run())
	}
	role()
	os.Exit(0)
}

var roles = map[string]func(){
	"exit":       roleExit,
	"die":        roleDie,
	"serve":      roleServe,
	"deaf":       roleDeaf,
	"refuse":     roleRefuse,
	"mute":       roleMute,
	"hesitate":   roleHesitate,
	"fds":        roleFDs,
	"describe":   roleDescribe,
	"parent":     roleParent,
	"orphanage":  roleOrphanage,
	"leave":      roleLeave,
	"outlive":    roleOutlive,
	"pid1":       rolePID1,
	"mortal":     roleMortal,
	"name":       roleName,
	"noproc":     roleNoProc,
	"daemon":     roleDaemon,
	"bad daemon": roleBadDaemon,
	"dumb":       roleDumb,
}

// roleExit exits with the code given.
func roleExit() {
	code, _ := strconv.Atoi(os.Args[1])
	os.Exit(code)
}

// roleDie kills itself with the signal given.
func roleDie() {
	sig, _ := strconv.Atoi(os.Args[1])
	unix.Kill(os.Getpid(), syscall.Signal(sig))
	wait()
}

// roleServe is ready at once and lives until it is ended, or until its input ends.
func roleServe() {
	NotifyReady()
	wait()
}

// roleDeaf takes no notice of TERM and QUIT.
func roleDeaf() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGQUIT)
	NotifyReady()
	wait()
}

// wait never returns.
func wait() {
	for {
		unix.Pause()
	}
}

const refusal = "open \"x\\y\":\nno such file"

func roleRefuse() {
	NotifyError(errors.New(refusal))
	os.Exit(78)
}

// roleHesitate neither gets ready nor gives up.
func roleHesitate() { wait() }

// roleMute closes its notify pipe and lives.
func roleMute() {
	fd, _ := claimNotify()
	unix.Close(fd)
	wait()
}

// roleFDs prints its open descriptors and what can be read from those that are regular files.
func roleFDs() {
	for fd := range 1024 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if flags&unix.FD_CLOEXEC != 0 {
			continue // made by this process itself
		}
		b := make([]byte, 64)
		n := 0
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			n, _ = unix.Pread(fd, b, 0)
		}
		fmt.Printf("%d=%s ", fd, b[:max(n, 0)])
	}
	fmt.Println()
}

// roleDescribe prints how it was started.
func roleDescribe() {
	dir, _ := os.Getwd()
	sid, _ := unix.Getsid(0)
	pgid, _ := unix.Getpgid(0)
	var lim syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	_, notify := os.LookupEnv(NotifyEnv)
	fmt.Printf("%s %v %s leader=%v group=%v notify=%v\n", os.Args[0], os.Args[1:], dir, sid == os.Getpid(), pgid == os.Getpid(), notify)
}

// roleParent starts a server with a death signal from a goroutine whose thread ends, says its PID, and waits.
func roleParent() {
	type result struct {
		p   *Process
		err error
	}
	started := make(chan result)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		p, err := Start(Spec{Exe: mustSelf(), Env: env("serve"), DeathSig: syscall.SIGKILL, Notify: true})
		started <- result{p, err}
	}()
	r := <-started
	if r.err != nil {
		fmt.Println(r.err)
		os.Exit(1)
	}
	<-r.p.Ready()
	fmt.Println(r.p.PID())
	io.Copy(io.Discard, os.Stdin)
	if r.p.over() {
		fmt.Println("dead before its parent")
	} else {
		fmt.Println("alive")
	}
	io.Copy(io.Discard, os.Stdin)
}

// roleLeave starts as many processes as its argument says, which exit with code 5 when this one is dead, and exits.
func roleLeave() {
	n, _ := strconv.Atoi(os.Args[1])
	r, _, err := os.Pipe()
	check(err)
	for range n {
		_, err := Start(Spec{Exe: mustSelf(), Args: []string{"5"}, Env: env("outlive"), Stdin: r})
		check(err)
	}
}

// roleOutlive exits with the code given when its input ends.
func roleOutlive() {
	io.Copy(io.Discard, os.Stdin)
	roleExit()
}

// roleOrphanage is a subreaper. Its descendants leave orphans; it has children of its own at the same time, whose exit status
// must reach them.
func roleOrphanage() {
	check(SetSubreaper(true))
	orphanage()
}

// rolePID1 does the same as PID 1.
func rolePID1() {
	if os.Getpid() != 1 {
		fmt.Println("not PID 1 but", os.Getpid())
		os.Exit(1)
	}
	orphanage()
}

func orphanage() {
	const parents, each = 4, 5
	orphans := make(chan Exit, parents*each)
	r := StartReaper(func(_ int, e Exit) { orphans <- e })
	var own []*Process
	for i := range parents {
		p, err := Start(Spec{Exe: mustSelf(), Args: []string{strconv.Itoa(each)}, Env: env("leave"), Stdout: os.Stdout})
		check(err)
		own = append(own, p)
		p, err = Start(Spec{Exe: mustSelf(), Args: []string{strconv.Itoa(10 + i)}, Env: env("exit")})
		check(err)
		own = append(own, p)
	}
	for i, p := range own {
		<-p.Done()
		want := Exit{Known: true}
		if i%2 == 1 {
			want.Code = 10 + i/2
		}
		if got := p.Exit(); got != want {
			fmt.Printf("child %d: got %v, want %v\n", i, got, want)
			os.Exit(1)
		}
	}
	for range parents * each {
		if e := <-orphans; e != (Exit{Code: 5, Known: true}) {
			fmt.Println("orphan:", e)
			os.Exit(1)
		}
	}
	r.Close()
	fmt.Println(r.Orphans(), HasChildren())
}

// roleMortal is PID 1 without /proc of its namespace: it starts, signals and reaps.
func roleMortal() {
	p, err := Start(Spec{Path: os.Args[1], Env: env("serve"), Notify: true})
	check(err)
	check(p.WaitReady(context.Background()))
	check(p.Terminate(context.Background(), Escalation{Grace: time.Minute}))
	fmt.Println(p.Exit())
}

// roleName sets its name from a thread that is not the main one, and lives.
func roleName() {
	named := make(chan error)
	go func() {
		runtime.LockOSThread()
		named <- SetName("traffic_test")
	}()
	check(<-named)
	NotifyReady()
	wait()
}

// roleNoProc runs where there is no /proc, in a chroot with nothing but the executable, and does all that shall work there.
func roleNoProc() {
	_, err := Identify(os.Getpid())
	if !errors.Is(err, ErrNoProc) || procMounted() {
		fmt.Println("Identify:", err)
		os.Exit(1)
	}
	if Self() != (Identity{PID: os.Getpid()}) {
		fmt.Println("Self:", Self())
	}
	if _, err := FindStrays(FileID{}, func(*Candidate) bool { return true }); !errors.Is(err, ErrNoProc) {
		fmt.Println("FindStrays:", err)
	}
	exe, err := OpenSelf()
	check(err)
	p, err := Start(Spec{Exe: exe, Argv0: "anything", Args: []string{"3"}, Env: env("exit")}) // there is no /dev/null
	check(err)
	<-p.Done()
	fmt.Println(exe.Path(), p.Exit())

	p, err = Start(Spec{Exe: exe, Env: env("deaf"), Notify: true})
	check(err)
	check(p.WaitReady(context.Background()))
	q, err := Adopt(p.PID(), 12345) // nobody can tell the start time here
	check(err)
	check(q.Signal(syscall.SIGKILL))
	<-p.Done()
	<-q.Done()
	fmt.Println(p.Exit(), q.Exit())

	check(os.Rename(exe.Path(), exe.Path()+".old"))
	if _, err := Start(Spec{Exe: exe, Env: env("exit")}); err == nil {
		fmt.Println("started an executable that is not there")
	}
	check(os.WriteFile(exe.Path(), []byte("other"), 0o755))
	_, err = Start(Spec{Exe: exe, Env: env("exit")})
	fmt.Println(errors.Is(err, ErrReplaced))
}

func roleDaemon() {
	pid := os.Getpid()
	sid, _ := unix.Getsid(0)
	dir, _ := os.Getwd()
	umask := syscall.Umask(0)
	stdin, _ := io.ReadAll(os.Stdin)
	_, stage := os.LookupEnv(daemonEnv)
	b := make([]byte, 16)
	n, _ := unix.Pread(3, b, 0)
	fmt.Printf("dir=%s umask=%03o leader=%v stdin=%q stage=%v args=%v fd3=%s\n", dir, umask, sid == pid, stdin, stage, os.Args, b[:n])
	check(NotifyReady())
	wait()
}

func roleBadDaemon() {
	NotifyError(errors.New(refusal))
	os.Exit(78)
}

// roleDumb dies without a word.
func roleDumb() { os.Exit(9) }

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func mustSelf() *Executable {
	exe, err := OpenSelf()
	check(err)
	return exe
}

// env is the environment that makes the test binary play a role.
func env(role string) []string {
	var e []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PROC_TEST_ROLE=") {
			e = append(e, kv)
		}
	}
	// A program built with -race sleeps a second before it exits, for reports still to come.
	return append(e, "PROC_TEST_ROLE="+role, "GORACE=atexit_sleep_ms=0")
}

// self is the test binary, opened for one test.
func self(t *testing.T) *Executable {
	t.Helper()
	exe, err := OpenSelf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exe.Close() })
	return exe
}

// start starts a role. It is killed when the test ends.
func start(t *testing.T, role string, s Spec) *Process {
	t.Helper()
	if s.Exe == nil && s.Path == "" {
		s.Exe = self(t)
	}
	s.Env = append(env(role), s.Env...)
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(p) })
	return p
}

func end(p *Process) {
	select {
	case <-p.Done():
	default:
		if err := p.Signal(syscall.SIGKILL); err == nil {
			<-p.Done()
		}
	}
	p.Release()
}

// serving starts a role and waits until it is ready.
func serving(t *testing.T, role string, s Spec) *Process {
	t.Helper()
	s.Notify = true
	p := start(t, role, s)
	if err := p.WaitReady(patience(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

// patience is how long a test waits for what must happen, so that a failure ends with a message.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// ends waits until p has ended and returns how.
func ends(t *testing.T, p *Process) Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-patience(t).Done():
		t.Fatalf("process %d does not end", p.PID())
		panic("unreachable")
	}
}

// output runs a role to its end and returns what it prints.
func output(t *testing.T, role string, s Spec) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.Stdout, s.Stderr = f, os.Stderr
	p := start(t, role, s)
	e := ends(t, p)
	b, err := os.ReadFile(f.Name())
	if err != nil || e != (Exit{Known: true}) {
		t.Fatalf("%s: %v, %v; it says %q", role, e, err, b)
	}
	return string(b)
}

// talk starts a role with a pipe for its input and one for its output.
func talk(t *testing.T, role string, s Spec) (*Process, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin, s.Stdout, s.Stderr = inR, outW, os.Stderr
	p := start(t, role, s)
	inR.Close()
	outW.Close()
	t.Cleanup(func() { inW.Close(); outR.Close() })
	return p, inW, bufio.NewReader(outR)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("got %q, %v", s, err)
	}
	return strings.TrimSpace(s)
}

// eventually polls what the operating system shows and has no event for.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not happen", what)
		}
		runtime.Gosched()
	}
}
