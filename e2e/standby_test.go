package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "server dies: standby adopts, manager makes a new standby", several times over, with a cache and without.
func TestStandbyFollows(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"16MiB", "0"} {
		t.Run("cache of "+size, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Set("cache.size", size))
			before := p.PIDs()
			kept := p.Client().Dial()
			for range 5 {
				old, standby := p.PID(harness.Server), p.Standby()
				kept.Send(harness.Request("GET", "/", "")).Read("GET").ExpectStatus(200)
				p.Kill(harness.Server)
				if got := p.WaitReplaced(harness.Server, old); got != standby {
					t.Errorf("server %d follows, want the standby %d", got, standby)
				}
				p.Standby(standby, old)
			}
			kept.Send(harness.Request("GET", "/", "")).Read("GET").ExpectStatus(200)
			p.ExpectSame(harness.Manager, before[harness.Manager])
			p.ExpectSame(harness.Cop, before[harness.Cop])
			if s := p.Status(); s.Server.Restarts != 5 || s.Custody != "on" {
				t.Errorf("status %s", s.Text)
			}
			if r := p.Ctl("status"); strings.Contains(r.Stdout, "why no") {
				t.Errorf("nothing is missing, and status says\n%s", r.Stdout)
			}
		})
	}
}

// "standby dies": another one is made, and nobody else notices; one that hangs is replaced.
func TestStandbyIsReplaced(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o), quick())
	before := p.PIDs()
	prober := p.Prober()
	first := p.Standby()
	p.KillPID(first).WaitGone(t)
	second := p.Standby(first)
	if err := unix.Kill(second, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Standby(first, second)
	prober.Await(20)
	prober.ExpectClean()
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
}

// Server and standby at once: a cold start, which follows like any standby.
func TestServerAndStandbyDieTogether(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	old, standby := p.PID(harness.Server), p.Standby()
	p.KillPID(standby)
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old)
	p.Client().Get("/").ExpectStatus(200)
	p.Standby(old, standby)
}

// "manager + server: standby adopts; cop starts a manager, which adopts it", and never a third server
// beside the two.
func TestManagerAndServerDieAndTheStandbyFollows(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	for range 3 {
		manager, server, standby := p.PID(harness.Manager), p.PID(harness.Server), p.Standby()
		p.Kill(harness.Manager)
		p.Kill(harness.Server)
		if got := p.WaitReplaced(harness.Server, server); got != standby {
			t.Errorf("server %d follows, want the standby %d", got, standby)
		}
		p.Client().Get("/").ExpectStatus(200)
		p.WaitReplaced(harness.Manager, manager)
		p.Standby(standby)
	}
	p.ExpectSame(harness.Cop, before[harness.Cop])
}

// A manager that is started anew finds both, and starts no third.
func TestNewManagerKnowsTheStandby(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	server, standby := p.PID(harness.Server), p.Standby()
	for range 3 {
		mark := p.Log.Mark()
		manager := p.PID(harness.Manager)
		p.Kill(harness.Manager)
		p.WaitReplaced(harness.Manager, manager)
		if got := p.Standby(); got != standby {
			t.Errorf("standby %d, want %d as before", got, standby)
		}
		if n := p.Log.Count(mark, harness.Message("spawn_server")); n != 0 {
			t.Errorf("%d servers were started beside two", n)
		}
	}
	p.ExpectSame(harness.Server, server)
}

// "cop + manager + server: the same, from the standby": the last process of the tree rebuilds it.
func TestStandbyRebuildsTheTree(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before, standby := p.PIDs(), p.Standby()
	for _, role := range []harness.Role{harness.Cop, harness.Manager, harness.Server} {
		p.Kill(role)
	}
	if got := p.WaitReplaced(harness.Server, before[harness.Server]); got != standby {
		t.Errorf("server %d follows, want the standby %d", got, standby)
	}
	p.Client().Get("/").ExpectStatus(200)
	p.WaitReplaced(harness.Cop, before[harness.Cop])
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	p.Standby(standby)
	p.ExpectSame(harness.Server, standby)
}

// "trafficd ctl restart server": the standby follows, and the old process is gone when the command
// returns, within a second.
func TestRestartServerYields(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for range 3 {
		server, standby := p.Process(harness.Server), p.Standby()
		began := time.Now()
		r := p.Ctl("restart", "server")
		took := time.Since(began)
		if r.Code != 0 || !server.Gone() {
			t.Errorf("ctl restart server exited with %d, old process gone: %v; %s", r.Code, server.Gone(), r.Stderr)
		}
		if want := fmt.Sprintf("server %d (generation ", standby); !strings.Contains(r.Stdout, want) || !strings.Contains(r.Stdout, fmt.Sprintf("server %d ", server.PID)) {
			t.Errorf("it says %q", r.Stdout)
		}
		p.ExpectSame(harness.Server, standby)
		t.Logf("took %v", took)
	}
	if n := p.Status().Server.Restarts; n != 3 {
		t.Errorf("%d restarts", n)
	}
}

// copyOf is another executable with the same text.
func copyOf(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	copyExecutable(t, path, harness.Binary())
	return path
}

// "trafficd ctl upgrade to a new executable on disk, for server, manager and cop": each runs it, cop in
// its own process, and no request fails on the way but those inside a server that yields.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Set("upgrade.probation", "300ms"))
	fresh := copyOf(t, "fresh")
	p.MayRun(fresh)
	before, standby := p.PIDs(), p.Standby()
	r := p.Ctl("upgrade", "--binary", fresh)
	if r.Code != 0 {
		t.Fatalf("ctl upgrade exited with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, role := range harness.Roles {
		if !p.Runs(role, fresh) {
			t.Errorf("the %s does not run the new executable", role)
		}
		if !strings.Contains(r.Stdout, string(role)+": upgraded") {
			t.Errorf("it says nothing of the %s: %s", role, r.Stdout)
		}
	}
	p.ExpectSame(harness.Cop, before[harness.Cop])
	p.Standby(standby)
	p.Client().Get("/").ExpectStatus(200)
	// The new cop is a cop in earnest.
	manager := p.Kill(harness.Manager)
	p.WaitReplaced(harness.Manager, manager.PID)
	if !p.Runs(harness.Manager, fresh) {
		t.Error("the next manager does not run the new executable")
	}
}

// USR2, to the executable that is on disk under the name that the instance was started by.
func TestUpgradeBySignal(t *testing.T) {
	t.Parallel()
	for _, role := range []harness.Role{harness.Cop, harness.Manager} {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()
			path := copyOf(t, "trafficd")
			p := harness.Start(t, harness.Executable(path), harness.Set("upgrade.probation", "300ms"))
			p.Standby()
			fresh := copyOf(t, "fresh")
			if err := os.Rename(fresh, path); err != nil {
				t.Fatal(err)
			}
			mark := p.Log.Mark()
			handle := p.PID(role)
			if err := unix.Kill(handle, unix.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			p.Log.Wait(t, mark, "cop becoming the new executable", harness.Message("cop becomes the new executable"))
			harness.WaitFor(t, "all three to run the new executable", func() bool {
				return p.Runs(harness.Cop, path) && p.Runs(harness.Manager, path) && p.Runs(harness.Server, path)
			})
		})
	}
}

// "roll-back if the new one dies in probation".
func TestUpgradeIsRolledBack(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Set("upgrade.probation", "30s"))
	fresh := copyOf(t, "fresh")
	p.MayRun(fresh)
	before, standby := p.PIDs(), p.Standby()
	upgraded := make(chan harness.Result, 1)
	go func() { upgraded <- p.Ctl("upgrade", "--binary", fresh) }()
	on := p.WaitReplaced(harness.Server, before[harness.Server])
	old := p.Standby(standby, on) // which status may still call that
	if !p.Runs(harness.Server, fresh) {
		t.Error("the server does not run the new executable")
	}
	p.Kill(harness.Server)
	if got := p.WaitReplaced(harness.Server, on); got != old {
		t.Errorf("server %d follows, want the standby %d", got, old)
	}
	r := harness.Receive(t, "the end of ctl upgrade", upgraded)
	if r.Code != 1 || !strings.Contains(r.Stdout, "rolled back") {
		t.Errorf("ctl upgrade exited with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, role := range harness.Roles {
		if p.Runs(role, fresh) {
			t.Errorf("the %s runs the new executable", role)
		}
	}
	p.ExpectSame(harness.Manager, before[harness.Manager])
	p.Client().Get("/").ExpectStatus(200)
}

// impostor builds an executable that answers like ours and whose processes end at once.
func impostor(t *testing.T) string {
	t.Helper()
	answer := harness.Run(t, "version").Stdout
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	text := fmt.Sprintf("package main\n\nimport \"os\"\n\nfunc main() {\n\tif len(os.Args) > 1 && os.Args[1] == \"version\" {\n\t\tos.Stdout.WriteString(%q)\n\t\treturn\n\t}\n\tos.Exit(1)\n}\n", answer)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "impostor")
	if out, err := exec.Command("go", "build", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// An executable that is none, or does not live, changes nothing.
func TestUpgradeToWhatIsNone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	p.Standby()
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/nonexistent", 64, "nothing has been changed"},
		{"/bin/sh", 1, "nothing has been changed"},
		{impostor(t), 1, "the old one serves on"},
	} {
		r := p.Ctl("upgrade", "--binary", tt.path)
		if r.Code != tt.code || !strings.Contains(r.Stdout+r.Stderr, tt.want) {
			t.Errorf("ctl upgrade to %s exited with %d: %s%s", tt.path, r.Code, r.Stdout, r.Stderr)
		}
		for role, pid := range before {
			p.ExpectSame(role, pid)
		}
	}
	p.Client().Get("/").ExpectStatus(200)
	p.Standby()
}
