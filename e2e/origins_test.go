package e2e

import (
	"fmt"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// group is a configuration with one group of servers at /, and what else is given.
func group(policy string, more string, servers ...*harness.Origin) harness.Option {
	var urls []string
	for _, s := range servers {
		urls = append(urls, `"`+s.URL()+`"`)
	}
	return harness.Config(fmt.Sprintf("origins:\n  - {name: app, servers: [%s], policy: %s%s}\nmap:\n  - {prefix: /, origin: \"group:app\"}\n",
		strings.Join(urls, ", "), policy, more))
}

// named is an origin that answers with its name, and never the same twice.
func named(t *testing.T, name string) *harness.Origin {
	return harness.NewOrigin(t, harness.Reply(200, name, "Cache-Control: no-store"))
}

// The dead server of a group costs no client anything; it is marked down, and noticed when it is back.
func TestTheDeathOfAServerIsNotNoticed(t *testing.T) {
	t.Parallel()
	a, b := named(t, "a"), named(t, "b")
	p := harness.Start(t, group("strict", "", a, b), harness.Set("origin.fail_threshold", "2"), harness.Set("origin.down_time", "100ms"))
	p.Client().Get("/").Expect(200, "a")
	a.Down()
	mark := p.Log.Mark()
	for i := range 10 {
		if i%2 == 0 {
			p.Client().Get("/").Expect(200, "b")
		} else {
			p.Client().Post("/", "body").Expect(200, "b")
		}
	}
	p.Log.Wait(t, mark, "the mark-down", harness.Message("origin server down"))
	p.Expect("trafficd_origin_servers_down", 1)
	a.Up()
	harness.WaitFor(t, "the first server to be used again", func() bool { return string(p.Client().Get("/").Body) == "a" })
	p.Log.Wait(t, mark, "the news", harness.Message("origin server up"))
	p.Expect("trafficd_origin_servers_down", 0)
}

func TestServersTakeTurns(t *testing.T) {
	t.Parallel()
	a, b := named(t, "a"), named(t, "b")
	p := harness.Start(t, group("round_robin", "", a, b))
	n := len(a.Requests()) + len(b.Requests())
	for range 10 {
		p.Client().Get("/").ExpectStatus(200)
	}
	if na, nb := len(a.Requests()), len(b.Requests()); na+nb != n+10 || na-nb > 1 || nb-na > 1 {
		t.Errorf("a got %d requests and b %d", na, nb)
	}
}

// By URL: the same URL always goes to the same server, and the death of one moves only its own.
func TestURLsHaveTheirServer(t *testing.T) {
	t.Parallel()
	servers := []*harness.Origin{named(t, "a"), named(t, "b"), named(t, "c")}
	p := harness.Start(t, group("consistent_hash", "", servers...))
	owner := map[string]string{}
	used := map[string]bool{}
	for i := range 30 {
		path := fmt.Sprintf("/page/%d", i)
		owner[path] = string(p.Client().Get(path).Body)
		used[owner[path]] = true
	}
	if len(used) != 3 {
		t.Fatalf("only %v have a share", used)
	}
	servers[1].Down()
	for path, before := range owner {
		got := string(p.Client().Get(path).Body)
		if before != "b" && got != before || got == "b" {
			t.Errorf("%s went to %s, now to %s", path, before, got)
		}
	}
}

// Health checks take a server out that answers requests well, and bring it back.
func TestHealthChecksTakeAServerOut(t *testing.T) {
	t.Parallel()
	var sick harness.Switch
	checked := func(name string, s *harness.Switch) *harness.Origin {
		return harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
			"/healthz": func(e *harness.Exchange) {
				if s != nil && s.On() {
					e.Reply(503, "")
					return
				}
				e.Reply(200, "")
			},
			"": harness.Reply(200, name, "Cache-Control: no-store"),
		}))
	}
	a, b := checked("a", &sick), checked("b", nil)
	p := harness.Start(t, group("strict", ", health: {path: /healthz, interval: 20ms, rise: 2, fall: 2}", a, b))
	p.Client().Get("/").Expect(200, "a")
	sick.Set()
	harness.WaitFor(t, "the sick server to be left alone", func() bool { return string(p.Client().Get("/").Body) == "b" })
	n := a.Count("/")
	for range 5 {
		p.Client().Get("/").Expect(200, "b")
	}
	a.ExpectCount("/", n)
	p.Log.Wait(t, 0, "the mark-down", harness.Message("origin server down"))
}

// A response that the group does not want is had from the next server, and what the request had of the first is
// not seen by anybody.
func TestAnotherServerIsAskedAfterA503(t *testing.T) {
	t.Parallel()
	a := harness.NewOrigin(t, harness.Reply(503, "not now", "X-From: a"))
	b := harness.NewOrigin(t, func(e *harness.Exchange) { e.Reply(200, "b"+e.ReadBody(), "Cache-Control: no-store") })
	p := harness.Start(t, group("strict", ", retry_status: [503]", a, b))
	p.Client().Get("/").Expect(200, "b").Header("X-From", "")
	p.Client().Post("/", "x").Expect(503, "not now")
	p.Client().Do("PUT", "/", "x").Expect(503, "not now") // its body was taken by the first
	b.Down()
	p.Client().Get("/").ExpectStatus(502) // the last one's word counts
}

// In an outage requests are repeated only out of the budget: the first ten, and no more than a fifth of the rest.
func TestAnOutageIsNotAmplified(t *testing.T) {
	t.Parallel()
	const n = 60
	broken := func(e *harness.Exchange) { e.Close() }
	a, b, c := harness.NewOrigin(t, broken), harness.NewOrigin(t, broken), harness.NewOrigin(t, broken)
	p := harness.Start(t, group("round_robin", "", a, b, c), harness.Set("origin.fail_threshold", "0"), harness.NotReady())
	harness.WaitFor(t, "a server", func() bool { return p.Ready() })
	for range n {
		p.Client().Get("/x").ExpectStatus(502)
	}
	if got := a.Count("/x") + b.Count("/x") + c.Count("/x"); got < n+10 || got > n+10+n/5 {
		t.Errorf("%d requests became %d", n, got)
	}
	p.ExpectMetric("trafficd_origin_retries_refused_total", "some", func(v float64) bool { return v > 0 })
}

// An origin that never answers holds one request; the others are told at once. It is noticed when it is back.
func TestAnOriginThatHangsHoldsOneRequest(t *testing.T) {
	t.Parallel()
	var well harness.Switch
	gate := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/hang": func(e *harness.Exchange) {
			if !well.On() {
				gate.Wait(e)
			}
			e.Reply(200, "back", "Cache-Control: no-store")
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Set("origin.fail_threshold", "2"), harness.Set("timeouts.origin_response", "200ms"))
	for range 2 {
		p.Client().Get("/hang").ExpectStatus(504)
	}
	c := p.Client().Dial().Send(harness.Request("GET", "/hang", ""))
	o.WaitCount("/hang", 3) // the one that finds out
	p.Client().Get("/other").ExpectStatus(503).Has("Retry-After")
	well.Set()
	c.Read("GET").ExpectStatus(504)
	p.Client().Get("/hang").Expect(200, "back")
	p.Client().Get("/other").Expect(200, "ok")
	gate.Open()
}

// No more connections than allowed, over all loops; who comes when all are taken waits, and who cannot wait is told so.
func TestConnectionsToAnOriginAreBounded(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/slow": func(e *harness.Exchange) {
			gate.Wait(e)
			e.Reply(200, "slow", "Cache-Control: no-store")
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	other := named(t, "other")
	p := harness.Start(t, harness.Map("/", o), harness.Map("/other", other), harness.Args("--threads", "2"),
		harness.Set("origin.max_connections", "3"), harness.Set("origin.max_waiting", "5"))
	before := o.Connections()
	var busy, slow []*harness.Response
	conns := make([]*harness.Conn, 12)
	for i := range conns {
		conns[i] = p.Client().Dial().Send(harness.Request("POST", "/slow", ""))
	}
	p.ExpectMetric(`trafficd_origin_requests_rejected_total{reason="busy"}`, "those for whom there is no place", func(v float64) bool { return v >= 4 })
	p.Client().Get("/other").Expect(200, "other")
	gate.Open()
	for _, c := range conns {
		if r := c.Read("POST"); r.Status == 503 {
			busy = append(busy, r.Has("Retry-After"))
		} else {
			slow = append(slow, r.Expect(200, "slow"))
		}
	}
	if len(busy) != 4 || len(slow) != 8 {
		t.Errorf("%d were answered and %d turned away, want 8 and 4", len(slow), len(busy))
	}
	if n := o.Connections() - before; n > 11 {
		t.Errorf("%d connections were made", n)
	}
	p.ExpectMetric("trafficd_origin_connections", "at most 3 and one", func(v float64) bool { return v <= 4 })
}
