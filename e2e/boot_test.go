package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "go run . cop --foreground serves with no configuration at all (the built-in page, through
// the whole path)"; "role visible in comm"; "in the run root: cop.lock, manager.lock,
// server.lock (first line: the PID)"; "exits 0 on TERM with nothing left behind".
func TestZeroConfiguration(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	r := p.Client().Get("/").ExpectStatus(200)
	if ct := r.Get("Content-Type"); !strings.HasPrefix(ct, "text/html") {
		t.Errorf("built-in page has Content-Type %q, want text/html", ct)
	}
	if !bytes.Contains(bytes.ToLower(r.Body), []byte("trafficd")) {
		t.Errorf("built-in page does not say whose it is: %q", r.Body)
	}
	for _, role := range harness.Roles {
		h := p.Process(role) // lock, comm and executable agree
		first, rest, _ := strings.Cut(p.ReadFile(string(role)+".lock"), "\n")
		if first != strconv.Itoa(h.PID) {
			t.Errorf("%s.lock: first line %q, want %d alone", role, first, h.PID)
		}
		if rest == "" {
			t.Errorf("%s.lock has no second line to tell a recycled PID by", role)
		}
	}
	if parent := harness.ParentPID(p.PID(harness.Server)); parent != p.PID(harness.Manager) {
		t.Errorf("server's parent is %d, want the manager", parent)
	}
	for _, started := range []string{"spawn_manager", "spawn_server"} { // by two processes, in any order
		p.Log.Wait(t, 0, started, harness.Message(started))
	}
	p.Terminate()
	if code := p.ExitCode(); code != 0 {
		t.Errorf("cop exited with %d after TERM, want 0", code)
	}
}

// The built-in page goes through the cache: the second answer is a stored one.
func TestBuiltInPageIsCached(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	first := p.Client().Get("/").ExpectStatus(200)
	p.Client().Get("/").Expect(200, string(first.Body)).Has("Age")
}

// "A second cop on the same run root exits 75 naming the holder; the first is not disturbed."
func TestSecondCopOnTheSameRunRoot(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	r := harness.Run(t, "cop", "--foreground", "--run-root", p.RunRoot,
		"--listen", harness.FreeAddr(t), "--autoconf", harness.FreeAddr(t))
	if r.Code != 75 {
		t.Errorf("second cop exited with %d, want 75\n%s", r.Code, r.Stderr)
	}
	if !strings.Contains(r.Stderr, strconv.Itoa(before[harness.Cop])) {
		t.Errorf("second cop does not name the holder %d: %s", before[harness.Cop], r.Stderr)
	}
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
	p.Client().Get("/").ExpectStatus(200)
}

// "Two instances (two run roots) side by side": one's end is not the other's.
func TestTwoInstancesSideBySide(t *testing.T) {
	t.Parallel()
	a := harness.Start(t)
	b := harness.Start(t)
	before := b.PIDs()
	a.Kill(harness.Server).WaitGone(t)
	a.WaitReady()
	a.Kill(harness.Manager).WaitGone(t)
	a.WaitReady()
	a.Terminate()
	for role, pid := range before {
		b.ExpectSame(role, pid)
	}
	b.Client().Get("/").ExpectStatus(200)
}

// "Without --foreground cop daemonises properly (setsid, double fork, stdio, umask, working
// directory) and the command returns only when the instance is ready."
func TestDaemonReturnsWhenReady(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Daemon())
	p.Client().Get("/").ExpectStatus(200) // no waiting: the command has returned
	pid := p.PID(harness.Cop)
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || dir != "/" {
		t.Errorf("daemon's working directory is %q (%v), want /", dir, err)
	}
	for _, fd := range []string{"0", "1", "2"} {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd))
		if err != nil || (target != "/dev/null" && target != filepath.Join(p.RunRoot, "trafficd.log")) {
			t.Errorf("daemon's descriptor %s is %q (%v), want /dev/null or the log", fd, target, err)
		}
	}
	sid := statField(t, pid, 6)
	if tty := statField(t, pid, 7); tty != "0" {
		t.Errorf("daemon has a controlling terminal: %s", tty)
	}
	if own := statField(t, os.Getpid(), 6); sid == own {
		t.Errorf("daemon is still in the session of who started it: %s", sid)
	}
	// A double fork: a session leader could acquire a terminal again.
	if sid == strconv.Itoa(pid) {
		t.Errorf("daemon %d is a session leader", pid)
	}
	p.Terminate()
}

// statField is a field of proc(5) stat by its number there.
func statField(t *testing.T, pid, n int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))[n-3]
}

// "… or with the reason why not": the reason is on the caller's standard error, the exit code
// is not 0, and nothing is left behind.
func TestDaemonReturnsWithTheReason(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for _, c := range []struct {
		name string
		opts []harness.Option
		code int // 0: any but 0
		want string
	}{
		{"port in use", []harness.Option{harness.NoListen(), harness.Args("--listen", taken.Addr().String())}, 0, taken.Addr().String()},
		{"bad configuration", []harness.Option{harness.Config("listne: 127.0.0.1:1\n")}, 78, `trafficd.yaml:1:1: unknown key "listne" (did you mean "listen"?)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, append(c.opts, harness.Daemon(), harness.NotReady(), harness.ExitAny())...)
			code := p.ExitCode()
			if code == 0 || (c.code != 0 && code != c.code) {
				t.Errorf("exit code %d, want %d (0: any failure)", code, c.code)
			}
			harness.WaitFor(t, "the reason on standard error", func() bool {
				return p.Log.Says(c.want)
			})
		})
	}
}

// A server that says that starting it again would not help ends a first start as a manager does: with its reason and its
// exit code, at once, in both forms.
func TestFirstServerIsRefused(t *testing.T) {
	t.Parallel()
	causes := []struct{ name, config, who, want string }{
		// Which cop looks at itself.
		{"no directory", "cache: {disk_path: /proc/trafficd}\n", "", "cache.disk_path"},
		// One host, which the configuration as such does not tell.
		{"a rule twice", `map:
  - {prefix: 'http://Twice/', type: regex_map, origin: http://127.0.0.1:1/}
  - {prefix: 'http://twice/', origin: http://127.0.0.1:2/}
`, "trafficd cop: trafficd server: ", "http://twice/"},
	}
	for form, option := range map[string]harness.Option{"daemon": harness.Daemon(), "foreground": harness.Args()} {
		for _, c := range causes {
			t.Run(form+", "+c.name, func(t *testing.T) {
				t.Parallel()
				p := harness.Start(t, option, harness.Config(c.config), harness.NotReady(), harness.ExitAny())
				if code := p.ExitCode(); code != 78 { // which waits for less than the time a start may take
					t.Errorf("exit code %d, want 78", code)
				}
				harness.WaitFor(t, "the reason on standard error", func() bool {
					return p.Log.Says(c.who) && p.Log.Says(c.want)
				})
				p.ExpectNothingLeft()
				if r := harness.Run(t, "ctl", "--run-root", p.RunRoot, "status"); r.Code != 69 {
					t.Errorf("ctl status exits with %d, want 69: nothing is there", r.Code)
				}
			})
		}
	}
}

// A listener that nobody alive is seen to have, as those of an instance that was killed while the kernel still takes its memory to
// pieces, is waited for: after the death of all a start at once succeeds.
func TestAddressOfTheDeadIsWaitedFor(t *testing.T) {
	t.Parallel()
	var addrs []string
	var release []func()
	for range 2 {
		addr, f := nobodys(t)
		addrs, release = append(addrs, addr), append(release, f)
	}
	p := harness.Start(t, harness.NoListen(), harness.Args("--listen", addrs[0], "--autoconf", addrs[1]), harness.NotReady())
	for i, addr := range addrs {
		p.Log.Wait(t, 0, "manager waits for "+addr, func(l harness.Line) bool {
			return strings.HasPrefix(l.Message, "waiting for an address") && l.String("address") == addr
		})
		release[i]()
	}
	p.Addr = addrs[0]
	p.WaitReady()
}

// nobodys listens on an address by a socket that no process has, as long as it is on its way to one.
func nobodys(t *testing.T) (addr string, release func()) {
	t.Helper()
	l, err := net.Listen("tcp", harness.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	t.Cleanup(release)
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), release
}

// A cop that gives up starts nothing that the next one, asked at once, could take for an instance.
func TestDaemonThatGivesUpLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	p := harness.Start(t, harness.NoListen(), harness.Args("--listen", taken.Addr().String()),
		harness.Daemon(), harness.NotReady(), harness.ExitAny())
	if code := p.ExitCode(); code != 75 {
		t.Errorf("exit code %d for an address in use, want 75", code)
	}
	const foreign = "203.0.113.9:80" // for documentation (RFC 5737): no machine has it
	r := harness.Run(t, "cop", "--run-root", p.RunRoot, "--autoconf", p.Autoconf, "--listen", foreign)
	if r.Code != 1 || !strings.Contains(r.Stderr, foreign) {
		t.Errorf("exit code %d for an address of another machine, want 1 and the reason\n%s", r.Code, r.Stderr)
	}
	p.ExpectNothingLeft()
	if n := strings.Count(p.ReadFile("trafficd.log"), `"spawn_manager"`); n != 2 {
		t.Errorf("%d managers were started, want one by each cop", n)
	}
}

// "Bad configuration at start: exit 78 with the position and no restart loop."
func TestBadConfigurationAtStart(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.NotReady(), harness.ExitAny(), harness.NoListen(), harness.Config(`# one
# two
listen:
  - {{addr}}
health:
  interval: 2s
# seven
map:
  - prefix: /a
    origin: http://127.0.0.1:9000
  - prefix: /
    orgin: http://127.0.0.1:9001
`))
	if code := p.ExitCode(); code != 78 {
		t.Errorf("exit code %d, want 78", code)
	}
	const want = `trafficd.yaml:12:5: unknown key "orgin" (did you mean "origin"?)`
	harness.WaitFor(t, "the position on standard error", func() bool { return p.Log.Says(want) })
	if n := p.Log.Count(0, harness.Message("spawn_manager")); n > 1 {
		t.Errorf("manager was spawned %d times with a bad configuration, want at most once", n)
	}
}

// "roles by argv[0] and by subcommand as in design §2".
func TestRoleByName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"traffic_cop", "cop", "trafficd-cop"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := filepath.Join(t.TempDir(), name)
			if err := os.Symlink(harness.Binary(), link); err != nil {
				t.Fatal(err)
			}
			p := harness.Start(t, harness.Executable(link), harness.NoRole())
			p.Client().Get("/").ExpectStatus(200)
		})
	}
	t.Run("ctl", func(t *testing.T) {
		t.Parallel()
		link := filepath.Join(t.TempDir(), "traffic_ctl")
		if err := os.Symlink(harness.Binary(), link); err != nil {
			t.Fatal(err)
		}
		p := harness.Start(t)
		if r := harness.RunFile(t, link, "status", "--run-root", p.RunRoot); r.Code != 0 {
			t.Errorf("traffic_ctl status exited with %d: %s", r.Code, r.Stderr)
		}
	})
}

// "Exit codes: 64 usage": every misuse is told on standard error, and nothing starts.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "run")
	for _, args := range [][]string{
		{"nonsense"},
		{"cop", "--nonsense"},
		{"cop", "--foreground", "--run-root", root, "surplus"},
		{"cop", "--foreground", "--run-root", root, "--threads", "many"},
		{"cop", "--foreground", "--run-root", root, "--threads", "-1"},
		{"cop", "--foreground", "--run-root", root, "--listen", "nowhere"},
		{"cop", "--foreground", "--run-root", root, "--map", "no-equals-sign"},
		{"cop", "--foreground", "--run-root", root, "--map", "/=ftp://127.0.0.1/"},
		{"cop", "--foreground", "--run-root"},
		{"ctl"},
		{"ctl", "--run-root", root, "nonsense"},
		{"ctl", "--run-root", root, "restart", "nonsense"},
	} {
		t.Run(strings.ReplaceAll(strings.Join(args, " "), root, "DIR"), func(t *testing.T) {
			r := harness.Run(t, args...)
			if r.Code != 64 {
				t.Errorf("exit code %d, want 64", r.Code)
			}
			if r.Stderr == "" {
				t.Error("nothing on standard error")
			}
			if r.Stdout != "" {
				t.Errorf("standard output has %q", r.Stdout)
			}
		})
	}
}

// "0 ok": help is not an error.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"cop", "--help"}, {"ctl", "--help"}} {
		r := harness.Run(t, args...)
		if r.Code != 0 || !strings.Contains(r.Stdout, "Usage") {
			t.Errorf("%v: exit code %d, output %q", args, r.Code, r.Stdout)
		}
	}
}
