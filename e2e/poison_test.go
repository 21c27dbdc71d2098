package e2e

import (
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// hooks lets requests of the story kill the server.
func hooks() harness.Option { return harness.Set("test_hooks", "1") }

// "a request that kills the server twice fails alone": it gets a 502 and its connection ends,
// two servers are dead, and everybody else's connection goes on.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"panic", "abort", "exit", "spin"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			o := harness.NewOrigin(t, harness.EchoNumber)
			opts := []harness.Option{harness.Map("/", o), hooks(), harness.Panicking()}
			if how == "spin" {
				// The first server is found out by its heartbeats. Its successor takes the request up before it has said that it is ready, and has
				// its start deadline. Neither is so short that a busy machine is taken for a hang.
				opts = append(opts, harness.Set("health.interval", "200ms"), harness.Set("health.timeout", "2s"), harness.Set("health.kill_grace", "200ms"),
					harness.Set("supervision.start_deadline", "10s"))
			}
			p := harness.Start(t, opts...)
			idle := p.Client().Dial()
			idle.Send(harness.Request("GET", "/", "")).Read("GET").ExpectStatus(200)
			p.Standby()
			mark := p.Log.Mark()

			poison := p.Client().Dial()
			r := poison.Send(harness.Request("GET", "/poison", "", "Trafficd-Test: "+how)).Read("GET")
			r.ExpectStatus(502)
			if !strings.Contains(string(r.Body), "the server died of this request") {
				t.Errorf("body %q", r.Body)
			}
			poison.ExpectEOF()

			idle.Send(harness.Request("GET", "/", "")).Read("GET").ExpectStatus(200)
			p.Log.Wait(t, mark, "who was to blame", harness.Message("request has killed servers, and fails"))
			p.ExpectMetric("trafficd_crashes_masked_total", "2", func(n float64) bool { return n == 2 })
			p.ExpectMetric("trafficd_requests_lost_total", "1", func(n float64) bool { return n == 1 })
		})
	}
}

// A request that is under way each time when somebody kills the server is not to blame.
func TestNotPoison(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "at last")
	})
	p := harness.Start(t, harness.Map("/", o))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/slow", ""))
	o.WaitCount("/slow", 1)
	for range 4 {
		p.Standby()
		old := p.PID(harness.Server)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
	}
	gate.Open()
	if r := c.Read("GET"); r.Status != 200 || string(r.Body) != "at last" {
		t.Errorf("%d %q", r.Status, r.Body)
	}
	o.ExpectCount("/slow", 1)
}
