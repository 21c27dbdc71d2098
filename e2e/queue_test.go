package e2e

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "A server that dies at start: back-off 1, 2, 4 … with jitter, queue answers 503 after its
// limit, status says why", and when it is left alone, everything is well again.
func TestServerThatDoesNotStayUp(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o),
		harness.Set("supervision.restart_budget", "1"), harness.Set("supervision.backoff_max", "4s"),
		harness.Set("queue.accept_after", "100ms"), harness.Set("queue.max_wait", "300ms"), harness.Set("queue.retry_after", "7s"))
	before := p.PIDs()
	plague := p.Plague(harness.Server)

	status := p.WaitStatus("a server that is down for some time", func(s harness.Status) bool {
		return s.Server.State != "ready" && s.Server.Restarts >= 3
	})
	lower := strings.ToLower(status.Text)
	if !strings.Contains(lower, "kill") && !strings.Contains(lower, "signal") {
		t.Errorf("status does not say why the server is down: %s", status.Text)
	}
	// What waits too long is told so, and when to come again.
	harness.WaitFor(t, "an honest 503", func() bool {
		r, err := harness.Fetch(p.Addr, harness.Request("GET", "/", "", "Connection: close"))
		if err != nil {
			return false // it was inside a server when that was killed
		}
		if r.Status != 503 {
			return false
		}
		if r.Get("Retry-After") != "7" {
			t.Errorf("Retry-After: got %q, want 7", r.Get("Retry-After"))
		}
		return true
	})
	p.ExpectMetric(`trafficd_queue_rejected_total{reason="expired"}`, "at least 1", func(v float64) bool { return v >= 1 })
	p.ExpectSame(harness.Manager, before[harness.Manager])
	p.ExpectSame(harness.Cop, before[harness.Cop])

	killed := plague.End()
	p.WaitReady()
	p.Client().Get("/probe/1").Expect(200, "probe /probe/1")
	t.Logf("%d servers were killed at their start", killed)
}

// Connections that come while there is no server wait their turn and are all answered, in the
// kernel's queue first and then in the manager's. The manager is stopped for the moment of the
// kill, so that they certainly come before the next server does.
func TestConnectionsWaitForTheNextServer(t *testing.T) {
	t.Parallel()
	const n = 50
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	manager := p.Stop(harness.Manager)
	p.Kill(harness.Server).WaitGone(t)
	for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/wait", "", "Connection: close"), func() {
		manager.Signal(t, unix.SIGCONT)
	}) {
		if r != nil {
			r.Expect(200, "probe /wait")
		}
	}
	p.ExpectSame(harness.Manager, manager.PID)
}

// The manager's own queue: with queue.accept_after at nothing it accepts what comes while there
// is no server, and hands it to the next one before anything newer.
func TestManagersOwnQueue(t *testing.T) {
	t.Parallel()
	const n = 20
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o), harness.Set("queue.accept_after", "0"), harness.Set("queue.max_wait", "60s"),
		harness.Set("supervision.restart_budget", "1"), harness.Set("supervision.backoff_max", "10s"))
	plague := p.Plague(harness.Server)
	p.WaitStatus("a server that stays down long enough for the clients to come", func(s harness.Status) bool {
		return s.Server.State == "stopped" && s.Server.Retry.InSeconds > 6
	})
	for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/wait", "", "Connection: close"), func() { plague.End() }) {
		if r != nil {
			r.Expect(200, "probe /wait")
		}
	}
	p.ExpectMetric("trafficd_queue_handed_over_total", "at least 1", func(v float64) bool { return v >= 1 })
	p.Expect("trafficd_queue_depth", 0)
}
