package e2e

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "A stranger process with comm = traffic_server: nobody wrong is signalled."
func TestStrangerWithOurNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	strangers := []*harness.Process{
		harness.Stranger(t, "traffic_server"), harness.Stranger(t, "traffic_manager"), harness.Stranger(t, "traffic_cop"),
	}
	p := harness.Start(t, harness.Set("supervision.on_manager_death", "restart"))
	// Every path on which the original would have killed by name.
	for _, role := range []harness.Role{harness.Server, harness.Manager} {
		old := p.Kill(role)
		p.WaitReplaced(role, old.PID)
		p.WaitReady()
	}
	p.Terminate()
	for _, s := range strangers {
		if s.Gone() {
			t.Errorf("the stranger named %s was killed", s.Comm)
		}
	}
}

// "A lock file that names a recycled PID" and "a lock file full of garbage", left behind by an
// earlier life: the kernel says that nobody holds the lock, so the text means nothing.
func TestForeignLockFilesAtStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		text func(pid int) string
	}{
		{"a stranger's PID", func(pid int) string { return fmt.Sprintf("%d\n", pid) }},
		{"a stranger's PID with its start time", func(pid int) string { return fmt.Sprintf("%d\n%d\n", pid, harness.StartTime(pid)) }},
		{"no line feed", func(pid int) string { return fmt.Sprint(pid) }},
		{"a process group", func(pid int) string { return fmt.Sprintf("-%d\n", pid) }},
		{"garbage", func(int) string { return "\x00\xff\n\x1b[2J" + fmt.Sprint(make([]byte, 9000)) }},
		{"empty", func(int) string { return "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stranger := harness.Stranger(t, "traffic_server")
			p := harness.Start(t, harness.Prepare(func(runRoot string) {
				for _, role := range harness.Roles {
					path := fmt.Sprintf("%s/%s.lock", runRoot, role)
					if err := os.WriteFile(path, []byte(c.text(stranger.PID)), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}))
			p.Client().Get("/").ExpectStatus(200)
			p.Terminate()
			if stranger.Gone() {
				t.Error("the stranger whose PID was in the lock files was killed")
			}
		})
	}
}

// The text of a held lock is overwritten while its holder lives and hangs: the kernel knows the
// holder, and the process that is killed is that one.
func TestLockFileOverwrittenUnderAHungServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		text func(pid int) string
	}{
		{"a stranger's PID", func(pid int) string { return fmt.Sprintf("%d\n%d\n", pid, harness.StartTime(pid)) }},
		{"garbage", func(int) string { return "\xff\xfe not a PID" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stranger := harness.Stranger(t, "traffic_server")
			p := harness.Start(t, quick())
			server := p.Process(harness.Server)
			overwrite(t, p.LockPath(harness.Server), c.text(stranger.PID))
			server.Signal(t, unix.SIGSTOP)
			server.WaitGone(t)
			p.WaitReplaced(harness.Server, server.PID)
			p.WaitReady()
			if stranger.Gone() {
				t.Error("the stranger was killed")
			}
		})
	}
}

// The same under a manager that dies: the new one adopts the running server although its lock
// file names somebody else.
func TestServerWithAForeignLockTextIsAdopted(t *testing.T) {
	t.Parallel()
	stranger := harness.Stranger(t, "traffic_server")
	p := harness.Start(t)
	server := p.Process(harness.Server)
	overwrite(t, p.LockPath(harness.Server), fmt.Sprintf("%d\n", stranger.PID))
	old := p.Kill(harness.Manager)
	p.WaitReplaced(harness.Manager, old.PID)
	p.WaitStatus("the server that was there", func(s harness.Status) bool {
		return s.Server.State == "ready" && s.Server.PID == server.PID
	})
	p.Client().Get("/").ExpectStatus(200)
	p.Terminate()
	if !server.Gone() {
		t.Error("the server outlived its instance")
	}
	if stranger.Gone() {
		t.Error("the stranger was killed")
	}
}

// overwrite changes a file's text in place. The descriptor is this process's own, so closing it
// drops no lock of anybody's.
func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
