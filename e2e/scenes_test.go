package e2e

import (
	"testing"

	"trafficd/e2e/harness"
)

// restarted waits until the log tells, from mark on, of a manager that was replaced together with its server, and returns the
// lines: of the kill, of the manager that cop has started, and of the server that this manager has started. The last two are two
// processes' lines. A child may be quicker with its own than its parent with the one that names it, so each is
// looked for by itself.
func restarted(t *testing.T, p *harness.Trafficd, mark int) (kill, manager, server harness.Line) {
	t.Helper()
	names := []string{"manager not running", "making sure server is dead", "safe_kill", "spawn_manager"}
	cop := p.Log.Messages(t, mark, names...)
	names[3] = "spawn_server"
	next := p.Log.Messages(t, mark, names...)[3]
	if next.Int("pid") != cop[3].Int("process_pid") {
		t.Errorf("server %d was started by %d, want the manager %d", next.Int("process_pid"), next.Int("pid"), cop[3].Int("process_pid"))
	}
	return cop[2], cop[3], next
}

// "kill -9 the manager with on_manager_death: restart: the log shows manager found not
// running, server made dead, manager spawned, server spawned, in that order, with new PIDs."
func TestSceneManagerDiesAndEverythingIsRestarted(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.NoListen(), harness.Config("listen: [{{addr}}]\nsupervision:\n  on_manager_death: restart\n"))
	before := p.PIDs()
	server := p.Process(harness.Server)
	standby := p.Standby()
	mark := p.Log.Mark()
	p.Kill(harness.Manager)

	killed, started, spawned := restarted(t, p, mark)
	server.WaitGone(t)
	manager := p.WaitReplaced(harness.Manager, before[harness.Manager])
	fresh := p.WaitReplaced(harness.Server, before[harness.Server])
	p.WaitReady()
	p.ExpectSame(harness.Cop, before[harness.Cop])
	// The server that follows is the standby; the one that is spawned stands by in its place.
	if fresh != standby {
		t.Errorf("server %d follows, want the standby %d", fresh, standby)
	}
	expectAbout(t, killed, before[harness.Server])
	expectAbout(t, started, manager)
	expectAbout(t, spawned, p.Standby(standby))
}

// The same without custody, as the original had it: the server that is spawned is the one that
// follows.
func TestSceneManagerDiesWithoutCustody(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Set("supervision.on_manager_death", "restart"), harness.Args("--custody=false"))
	before := p.PIDs()
	mark := p.Log.Mark()
	p.Kill(harness.Manager)
	killed, started, spawned := restarted(t, p, mark)
	manager := p.WaitReplaced(harness.Manager, before[harness.Manager])
	fresh := p.WaitReplaced(harness.Server, before[harness.Server])
	p.WaitReady()
	expectAbout(t, killed, before[harness.Server])
	expectAbout(t, started, manager)
	expectAbout(t, spawned, fresh)
	if s := p.Status(); s.Custody != "off" || s.Next.PID != 0 {
		t.Errorf("without custody: status %s", s.Text)
	}
}

// expectAbout fails unless the line is about that process.
func expectAbout(t *testing.T, line harness.Line, pid int) {
	t.Helper()
	if got := line.Int("process_pid"); got != pid {
		t.Errorf("%s is about process %d, want %d: %s", line.Message, got, pid, line.Raw)
	}
}

// "kill -9 the server: the manager notices, makes sure it is dead, spawns a new one, and the
// manager's PID is the same."
func TestSceneServerDies(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	mark := p.Log.Mark()
	p.Kill(harness.Server)

	p.Log.Messages(t, mark, "making sure server is dead", "spawn_server")
	p.WaitReplaced(harness.Server, before[harness.Server])
	p.WaitReady()
	p.ExpectSame(harness.Manager, before[harness.Manager])
	p.ExpectSame(harness.Cop, before[harness.Cop])
}

// "And with adopt (the default): kill -9 the manager, the server's PID stays, no request fails."
func TestManagerDiesAndServerIsAdopted(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	before := p.PIDs()
	p.Standby() // which the next manager would start otherwise
	prober := p.Prober()
	prober.Await(20)
	mark := p.Log.Mark()
	p.Kill(harness.Manager).WaitGone(t)
	p.Log.Messages(t, mark, "manager not running", "spawn_manager")
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	p.WaitStatus("an adopted, ready server", func(s harness.Status) bool {
		return s.Server.State == "ready" && s.Server.PID == before[harness.Server]
	})
	prober.Await(20)
	prober.ExpectClean()
	p.ExpectSame(harness.Server, before[harness.Server])
	if n := p.Log.Count(mark, harness.Message("spawn_server")); n != 0 {
		t.Errorf("a server was spawned %d times although one could be adopted", n)
	}
}
