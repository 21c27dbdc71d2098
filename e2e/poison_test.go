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
			p := harness.Start(t, harness.Map("/", o), hooks(), quick(), harness.Panicking())
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
	release := make(chan struct{})
	answer := harness.Reply(200, "at last")
	o := harness.NewOrigin(t, func(e *harness.Exchange) { <-release; answer(e) })
	p := harness.Start(t, harness.Map("/", o))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/slow", ""))
	harness.WaitFor(t, "the request at the origin", func() bool { return o.Count("/slow") == 1 })
	for range 4 {
		p.Standby()
		old := p.PID(harness.Server)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
	}
	close(release)
	if r := c.Read("GET"); r.Status != 200 || string(r.Body) != "at last" {
		t.Errorf("%d %q", r.Status, r.Body)
	}
	o.ExpectCount("/slow", 1)
}
