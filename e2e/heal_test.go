package e2e

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

const kills = 20

// "New connections are never refused and never reset during any death or restart of server
// or manager, or both at once: a client that opens a connection for every request through 20
// kills sees answers only, in order."
//
// The prober is parked for the instant of the kill, so that none of its connections is inside
// the process that dies; all that follows, from the first connection after it, is asserted.
// A restart budget above the number of kills keeps back-off, which has its own story, away.
func TestNewConnectionsThroughKills(t *testing.T) {
	for _, c := range []struct {
		name  string
		n     int
		roles []harness.Role
	}{
		{"server", kills, []harness.Role{harness.Server}},
		{"manager", kills, []harness.Role{harness.Manager}},
		{"both", kills / 2, []harness.Role{harness.Manager, harness.Server}},
		{"both, server first", kills / 2, []harness.Role{harness.Server, harness.Manager}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := harness.NewOrigin(t, harness.EchoNumber)
			p := harness.Start(t, harness.Map("/", o), harness.Set("supervision.restart_budget", "1000"))
			prober := p.Prober()
			for range c.n {
				prober.Await(5)
				release := prober.Hold()
				pids := p.PIDs()
				var killed []*harness.Process
				for _, role := range c.roles {
					killed = append(killed, p.Kill(role))
				}
				for _, h := range killed {
					h.WaitGone(t)
				}
				release()
				for _, role := range c.roles {
					p.WaitReplaced(role, pids[role])
				}
				p.ExpectSame(harness.Cop, pids[harness.Cop])
			}
			prober.Await(5)
			prober.ExpectClean()
		})
	}
}

// The same without parking: connections inside the dying server may break until custody
// comes, no other may. With the manager alone there is no such excuse.
func TestNewConnectionsThroughKillsAtAnyInstant(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o), harness.Set("supervision.restart_budget", "1000"))
	prober := p.Prober()
	for range kills {
		prober.Await(5)
		old := p.PID(harness.Server)
		prober.Dying(func() { p.Kill(harness.Server).WaitGone(t) })
		p.WaitReplaced(harness.Server, old)
		prober.Await(5)
		old = p.PID(harness.Manager)
		p.Kill(harness.Manager).WaitGone(t)
		p.WaitReplaced(harness.Manager, old)
	}
	prober.Await(5)
	prober.ExpectClean()
}

// "kill -9 cop: replaced, manager and server PIDs unchanged", several times over, since the
// new cop is nobody's first child.
func TestCopIsReplaced(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	before := p.PIDs()
	prober := p.Prober()
	for range 3 {
		old := p.PID(harness.Cop)
		began := time.Now()
		p.Kill(harness.Cop).WaitGone(t)
		p.WaitReplaced(harness.Cop, old)
		t.Logf("cop replaced after %v", time.Since(began))
		p.ExpectSame(harness.Manager, before[harness.Manager])
		p.ExpectSame(harness.Server, before[harness.Server])
		prober.Await(5)
	}
	prober.ExpectClean()
	// The new cop is a cop in earnest: it replaces a manager, and it ends everything on TERM.
	p.Kill(harness.Manager)
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	p.ExpectSame(harness.Server, before[harness.Server])
	p.Terminate()
}

// Cop and manager die at once: the server rebuilds the tree and goes on.
func TestCopAndManagerDieTogether(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	before := p.PIDs()
	prober := p.Prober()
	prober.Await(5)
	cop := p.Kill(harness.Cop)
	manager := p.Kill(harness.Manager)
	cop.WaitGone(t)
	manager.WaitGone(t)
	p.WaitReplaced(harness.Cop, before[harness.Cop])
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	prober.Await(5)
	prober.ExpectClean()
	p.ExpectSame(harness.Server, before[harness.Server])
}

// quick makes the windows of the heartbeat short enough for a story.
func quick() harness.Option {
	return harness.All(
		harness.Set("health.interval", "200ms"),
		harness.Set("health.timeout", "400ms"),
		harness.Set("health.kill_grace", "200ms"),
	)
}

// quickWindow is several times what two strikes and an escalation take with quick.
const quickWindow = 4 * time.Second

// "kill -STOP server: replaced within the configured window."
func TestStoppedServerIsReplaced(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, quick())
	before := p.PIDs()
	h := p.Stop(harness.Server)
	h.WaitGone(t)
	p.WaitReplaced(harness.Server, before[harness.Server])
	p.WaitReady()
	p.ExpectSame(harness.Manager, before[harness.Manager])
	p.ExpectSame(harness.Cop, before[harness.Cop])
}

// "kill -STOP manager: replaced, server PID unchanged", and no request fails.
func TestStoppedManagerIsReplaced(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o), quick())
	before := p.PIDs()
	prober := p.Prober()
	h := p.Stop(harness.Manager)
	h.WaitGone(t)
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	prober.Await(20)
	prober.ExpectClean()
	p.ExpectSame(harness.Server, before[harness.Server])
	p.ExpectSame(harness.Cop, before[harness.Cop])
}

// "One kill gate for every path: policy": with none, nobody is killed for being deaf.
func TestKillPolicyNone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, quick(), harness.Set("health.kill", "none"))
	before := p.PIDs()
	server, manager := p.Stop(harness.Server), p.Stop(harness.Manager)
	harness.Holds(t, quickWindow, "stopped processes are left alone", func() bool {
		return !server.Gone() && !manager.Gone()
	})
	manager.Signal(t, unix.SIGCONT)
	server.Signal(t, unix.SIGCONT)
	p.WaitReady()
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
}

// "A server under full CPU load is not killed": with windows so short that heartbeats may
// well come late, the moving progress counter must save it.
func TestBusyServerIsNotKilled(t *testing.T) {
	o := harness.NewOrigin(t, harness.Reply(200, "small", "Cache-Control: max-age=600"))
	p := harness.Start(t, harness.Map("/", o), quick(), harness.Args("--threads", "1"))
	before := p.PIDs()
	stop := make(chan struct{})
	done := make(chan error, 8)
	for range cap(done) {
		go func() { done <- hammer(p.Addr, stop) }()
	}
	harness.Holds(t, quickWindow, "the busy server lives", func() bool {
		return harness.Alive(before[harness.Server])
	})
	close(stop)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
}

// hammer keeps one connection busy with deep pipelines of hits.
func hammer(addr string, stop <-chan struct{}) error {
	conn, err := harness.Connect(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	batch := ""
	for range 64 {
		batch += harness.Request("GET", "/hit", "")
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := conn.Write([]byte(batch)); err != nil {
			return fmt.Errorf("send a pipeline: %w", err)
		}
		for i := range 64 {
			r, err := conn.Try("GET")
			if err != nil {
				return fmt.Errorf("answer %d of a pipeline: %w", i, err)
			}
			if r.Status != 200 || string(r.Body) != "small" {
				return fmt.Errorf("answer %d of a pipeline: %d %q", i, r.Status, r.Body)
			}
		}
	}
}

// "One with a full accept queue is not killed": the limit on connections is reached, more
// clients than the kernel queues are waiting, and the heartbeat, exempt from limits, goes on.
func TestFullAcceptQueueIsNotKilled(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, quick(), harness.Set("limits.connections", "4"), harness.Set("listen_backlog", "4"))
	before := p.PIDs()
	// What is beyond the queue is not even connected, so dialling must not be waited for.
	crowd := harness.Crowd(t, p.Addr, 64)
	harness.Holds(t, quickWindow, "the server with a full queue lives", func() bool {
		return harness.Alive(before[harness.Server]) && harness.Alive(before[harness.Manager])
	})
	crowd.Leave()
	p.WaitReady()
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
}

// "One stopped for 3 s is not killed" with the default windows.
func TestServerStoppedForThreeSecondsIsNotKilled(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	h := p.Stop(harness.Server)
	harness.Holds(t, 3*time.Second, "the stopped server is left alone", func() bool { return !h.Gone() })
	h.Signal(t, unix.SIGCONT)
	p.Client().Get("/").ExpectStatus(200)
	p.WaitStatus("a ready server", func(s harness.Status) bool { return s.Server.State == "ready" })
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
}

// Signals to cop as in design §8: INT and QUIT end the instance as TERM does.
func TestSignalsThatStop(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t)
			p.Signal(harness.Cop, sig).WaitGone(t)
			if code := p.ExitCode(); code != 0 {
				t.Errorf("cop exited with %d after %v, want 0", code, sig)
			}
		})
	}
}
