package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

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
	for _, message := range []string{"origin failed", "origin server down"} {
		if l := p.Log.Wait(t, mark, "the news", harness.Message(message)); l.String("origin") != "group:app" || l.String("server") != a.Addr() {
			t.Errorf("the origin has two names: %s", l.Raw)
		}
	}
	p.Expect("trafficd_origin_servers_down", 1)
	p.ExpectMetric(fmt.Sprintf(`trafficd_origin_server_requests_total{group="app",server=%q}`, b.Addr()), "its share", func(v float64) bool { return v >= 10 })
	for command, want := range map[string][]string{
		"origins": {a.Addr(), "refused", b.Addr(), "up"},
		"status":  {"1 servers are down"},
	} {
		if r := p.Ctl(command); r.Code != 0 || !containsAll(r.Stdout, want) {
			t.Errorf("ctl %s: exit code %d, want %q in\n%s%s", command, r.Code, want, r.Stdout, r.Stderr)
		}
	}
	a.Up()
	harness.WaitFor(t, "the first server to be used again", func() bool { return string(p.Client().Get("/").Body) == "a" })
	p.Log.Wait(t, mark, "the news", harness.Message("origin server up"))
	p.Expect("trafficd_origin_servers_down", 0)
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
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
	for i := range 100 { // with fewer it would happen, once in a great while, that one of the three has no share of them
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
	p := harness.Start(t, group("strict", ", health: {path: /healthz, interval: 20ms, timeout: 1m, rise: 2, fall: 2}", a, b))
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

// A server that has no other answers than the statuses for which another is asked is marked down as one that has none: else it
// would use up the budget of repeated requests, and clients would get its answers. When all answer a request so, it is the request.
func TestAServerThatOnlyAnswers503IsMarkedDown(t *testing.T) {
	t.Parallel()
	const n = 30 // more than are repeated within ten seconds
	a := harness.NewOrigin(t, harness.Reply(503, "a"))
	b := harness.NewOrigin(t, func(e *harness.Exchange) {
		if e.Target == "/broken" {
			e.Reply(503, "b")
			return
		}
		e.Reply(200, "b", "Cache-Control: no-store")
	})
	const threshold = 5
	configuration := harness.All(group("strict", ", retry_status: [503]", a, b), harness.Set("origin.fail_threshold", fmt.Sprint(threshold)), harness.Set("origin.down_time", "1h"))

	p := harness.Start(t, configuration)
	for range n {
		p.Client().Get("/broken").ExpectStatus(503)
	}
	if p.Log.Count(0, harness.Message("origin server down")) != 0 {
		t.Error("a server is marked down for a request that all answer alike")
	}

	p = harness.Start(t, configuration)
	for range n {
		p.Client().Get("/").Expect(200, "b")
	}
	p.Log.Wait(t, 0, "the mark-down", harness.Message("origin server down"))
	a.ExpectCount("/", threshold)
}

// A server that does not answer in time: what may be asked twice is asked of the next one.
func TestAnotherServerIsAskedAfterATimeout(t *testing.T) {
	t.Parallel()
	a, b := harness.NewOrigin(t, harness.Silent), named(t, "b")
	p := harness.Start(t, group("strict", "", a, b), harness.Set("timeouts.origin_response", "1s"), harness.Set("origin.fail_threshold", "0"))
	// On a busy machine the second one, too, may take longer than it has.
	harness.WaitFor(t, "the second server's answer", func() bool {
		r := p.Client().Get("/")
		return r.Status == 200 && string(r.Body) == "b"
	})
	n := len(b.Requests())
	p.Client().Post("/", "x").ExpectStatus(504)
	if got := len(b.Requests()); got != n {
		t.Errorf("the second server got %d requests, want the %d for GET only", got, n)
	}
}

// In an outage requests are repeated only out of the budget: the first ten, and no more than a fifth of the rest.
func TestAnOutageIsNotAmplified(t *testing.T) {
	t.Parallel()
	const n = 60
	broken := func(e *harness.Exchange) { e.Close() }
	a, b, c := harness.NewOrigin(t, broken), harness.NewOrigin(t, broken), harness.NewOrigin(t, broken)
	p := harness.Start(t, group("round_robin", "", a, b, c), harness.Set("origin.fail_threshold", "0"), harness.NotReady())
	harness.WaitFor(t, "a server", func() bool { return p.Ready() })
	begun := time.Now()
	for range n {
		p.Client().Get("/x").ExpectStatus(502)
	}
	// There are another ten in each ten seconds, should it take so long.
	first := 10 * (1 + int(time.Since(begun)/(10*time.Second)))
	if got := a.Count("/x") + b.Count("/x") + c.Count("/x"); got < n+10 || got > n+first+n/5 {
		t.Errorf("%d requests became %d", n, got)
	}
	p.ExpectMetric("trafficd_origin_retries_refused_total", "some", func(v float64) bool { return v > 0 })
}

// When no server of a group answers, one request waits for one of them to do so; the others are told at once. That one is
// back is noticed with the next request.
func TestServersThatHangHoldOneRequest(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	hang := harness.Routes(map[string]harness.Handler{
		"/hang": harness.Silent,
		"/hold": func(e *harness.Exchange) {
			gate.Wait(e)
			e.Close()
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	})
	a, b := harness.NewOrigin(t, hang), harness.NewOrigin(t, hang)
	// Only what is to run out of time has little of it.
	p := harness.Start(t, harness.Set("origin.fail_threshold", "1"), harness.Config(fmt.Sprintf(`
origins:
  - {name: app, servers: [%q, %q], policy: strict}
map:
  - {prefix: /hang, origin: "group:app/hang", response_timeout: 1s}
  - {prefix: /, origin: "group:app"}
`, a.URL(), b.URL())))
	p.Client().Get("/hang").ExpectStatus(504) // of both
	c := p.Client().Dial().Send(harness.Request("POST", "/hold", ""))
	gate.WaitReached(t) // by the one that finds out
	p.Client().Get("/other").ExpectStatus(503).Has("Retry-After")
	gate.Open()
	c.Read("POST").ExpectStatus(502)
	p.Client().Get("/other").Expect(200, "ok")
}

// The only server of an origin is not marked down for what it does not answer: there is nobody else to ask, and what
// it does answer goes on.
func TestAnOriginThatHangsIsStillAsked(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/hang": harness.Silent,
		"":      harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Set("origin.fail_threshold", "1"), harness.Config(fmt.Sprintf(`
map:
  - {prefix: /hang, origin: '%[1]s/hang', response_timeout: 1s}
  - {prefix: /, origin: %[1]q}
`, o.URL())))
	p.Client().Get("/hang").ExpectStatus(504)
	c := p.Client().Dial().Send(harness.Request("GET", "/hang", ""))
	o.WaitCount("/hang", 2)
	p.Client().Get("/other").Expect(200, "ok")
	c.Read("GET").ExpectStatus(504)
}

// An origin that cannot be connected to, and does not say so: once that is known one request at a time tries.
func TestAnOriginThatIsCutOffHoldsOneRequest(t *testing.T) {
	t.Parallel()
	cut := harness.NewDeaf(t)
	p := harness.Start(t, harness.Args("--map", "/=http://"+cut.Addr()), harness.NotReady(),
		harness.Set("origin.fail_threshold", "2"), harness.Set("timeouts.origin_connect", "1s"))
	harness.WaitFor(t, "a server", func() bool { return p.Ready() })
	p.Client().Concurrently(2, harness.Request("POST", "/a", ""), nil)
	p.Log.Wait(t, 0, "the mark-down", harness.Message("origin server down"))
	answers := p.Client().Concurrently(10, harness.Request("POST", "/b", ""), nil)
	at := map[int]int{}
	for _, r := range answers {
		if r != nil {
			at[r.Status]++
		}
	}
	if at[504] < 1 || at[504] > 3 || at[503] != 10-at[504] {
		t.Errorf("got %v, want one 504, or few, and else 503", at)
	}
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

// 1,000 misses of one URL at once, on several loops: one request to the origin, and everybody has all of a large body.
func TestAThousandMissesAreOneRequest(t *testing.T) {
	t.Parallel()
	const clients, size = 1000, 64 << 10
	body := letters(size)
	gate := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/one": func(e *harness.Exchange) {
			e.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n", size))
			e.Raw(body[:size/2])
			gate.Wait(e)
			e.Raw(body[size/2:])
		},
		"/silent": harness.Silent,
		"":        harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "3"))
	answers := p.Client().Concurrently(clients, harness.Request("GET", "/one", ""), func() {
		p.ExpectMetric("trafficd_cache_collapsed_total", "those that follow", func(v float64) bool { return v == clients-1 })
		p.Client().Get("/other").Expect(200, "ok")
		gate.Open()
	})
	for _, r := range answers {
		if r != nil && (r.Status != 200 || string(r.Body) != body) {
			t.Fatalf("got status %d and %d bytes, want 200 and %d", r.Status, len(r.Body), size)
		}
	}
	o.ExpectCount("/one", 1)
}

// Followers of a request that comes to nothing share the failure: the origin, in trouble, does not get as many requests as
// there are clients.
func TestFollowersShareTheFailure(t *testing.T) {
	t.Parallel()
	const clients = 200
	gate := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/one": func(e *harness.Exchange) {
			gate.Wait(e)
			e.Close()
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"))
	for _, r := range p.Client().Concurrently(clients, harness.Request("GET", "/one", ""), func() {
		p.ExpectMetric("trafficd_cache_collapsed_total", "those that follow", func(v float64) bool { return v == clients-1 })
		gate.Open()
	}) {
		if r != nil {
			r.ExpectStatus(502)
		}
	}
	o.ExpectCount("/one", 1)
}

// Clients that ask first and leave hand the lead on to one of those who wait, however often: never does everybody go
// to the origin at once.
func TestLeadersThatLeaveCauseNoStampede(t *testing.T) {
	t.Parallel()
	const clients, leaders = 20, 6
	gate := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/one": func(e *harness.Exchange) {
			gate.Wait(e)
			e.Reply(200, "for those who stay", "Cache-Control: max-age=600")
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "1"))
	var all []*harness.Conn
	for i := range clients {
		all = append(all, p.Client().Dial().Send(harness.Request("GET", "/one", "")))
		p.ExpectMetric("trafficd_cache_collapsed_total", "those that follow", func(v float64) bool { return v == float64(i) })
	}
	// The lead goes to the one who came last, so it is always the leader who leaves.
	for i := range leaders {
		o.WaitCount("/one", i+1)
		all[(clients-i)%clients].Reset()
	}
	o.WaitCount("/one", leaders+1)
	gate.Open()
	for _, c := range all[1 : clients-leaders+1] {
		c.Read("GET").Expect(200, "for those who stay")
	}
	o.ExpectCount("/one", leaders+1)
}

// What turns out to be uncacheable is fetched by everybody, at the same time: the origin answers nobody before all
// hundred are there.
func TestAHundredUncacheablesAreNotSerialised(t *testing.T) {
	t.Parallel()
	const clients = 100
	gate := harness.NewGate()
	var first harness.Switch
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/mine": func(e *harness.Exchange) {
			if first.On() {
				gate.Wait(e)
			}
			e.Reply(200, "mine", "Cache-Control: private")
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"))
	p.Client().Get("/mine").Expect(200, "mine")
	first.Set()
	for _, r := range p.Client().Concurrently(clients, harness.Request("GET", "/mine", ""), func() {
		o.WaitCount("/mine", clients+1)
		gate.Open()
	}) {
		if r != nil {
			r.Expect(200, "mine")
		}
	}
}

// One client of several that share a body takes nothing of it. The body turns out to be too large to be stored, so
// that all read from one window; the slow one is given up, and the others have everything.
func TestASlowFollowerDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	const size, piece = 16 << 20, 64 << 10
	gate := harness.NewGate()
	part := letters(piece)
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/large": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n")
			gate.Wait(e)
			for range size / piece {
				e.Chunk(part)
			}
			e.Raw("0\r\n\r\n")
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"), harness.Set("cache.max_object_size", "1MiB"))
	slow := p.Client().Dial().Narrow().Send(harness.Request("GET", "/large", ""))
	slow.ReadHead().ExpectStatus(200)
	for _, r := range p.Client().Concurrently(3, harness.Request("GET", "/large", ""), func() {
		p.ExpectMetric("trafficd_cache_collapsed_total", "those that follow", func(v float64) bool { return v == 3 })
		gate.Open()
	}) {
		if r != nil && (r.Status != 200 || len(r.Body) != size || strings.Count(string(r.Body), part) != size/piece) {
			t.Errorf("got status %d and %d bytes, want 200 and %d", r.Status, len(r.Body), size)
		}
	}
	o.ExpectCount("/large", 1)
	p.Expect("trafficd_cache_followers_given_up_total", 1)
	slow.ExpectClosed()
}

// An origin that misbehaves in any way costs its own requests only: what is asked of another one meanwhile is
// answered as ever, and so is the next request to the same one.
func TestABadOriginCostsItsOwnRequestsOnly(t *testing.T) {
	t.Parallel()
	head := "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
	forever := func(e *harness.Exchange, text string) {
		for e.Write(text) == nil {
		}
	}
	const response, body, total = "response_timeout", "origin_body", "origin_total"
	for name, c := range map[string]struct {
		bad   harness.Handler
		want  int    // status; 0: the answer is cut, or 502 where that is known before it began
		limit string // only the clock tells: what runs out
	}{
		"never answers":      {bad: harness.Silent, want: 504, limit: response},
		"closes":             {bad: func(e *harness.Exchange) { e.Close() }, want: 502},
		"resets":             {bad: func(e *harness.Exchange) { e.Reset() }, want: 502},
		"half a head":        {bad: func(e *harness.Exchange) { e.Raw(head); harness.Silent(e) }, want: 504, limit: response},
		"resets in the body": {bad: func(e *harness.Exchange) { e.Raw(head + "Content-Length: 10\r\n\r\n12345"); e.Reset() }},
		"too short":          {bad: func(e *harness.Exchange) { e.Raw(head + "Content-Length: 10\r\n\r\n12345"); e.Close() }},
		"too long": {bad: func(e *harness.Exchange) {
			e.Raw(head + "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")
			e.Close()
		}, want: 200},
		"stops in the body":  {bad: func(e *harness.Exchange) { e.Raw(head + "Content-Length: 10\r\n\r\n12345"); harness.Silent(e) }, limit: body},
		"endless head":       {bad: func(e *harness.Exchange) { e.Raw(head); forever(e, "X-More: and more\r\n") }, want: 502},
		"endless status":     {bad: func(e *harness.Exchange) { forever(e, "HTTP/1.1 200 ") }, want: 502},
		"endless 1xx":        {bad: func(e *harness.Exchange) { forever(e, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n") }, want: 502},
		"endless chunk line": {bad: func(e *harness.Exchange) { e.Raw(head + "Transfer-Encoding: chunked\r\n\r\n"); forever(e, "0") }},
		"not HTTP":           {bad: func(e *harness.Exchange) { e.Raw("SSH-2.0-OpenSSH_9.9\r\n\r\n"); e.Close() }, want: 502},
		"drips its head":     {bad: func(e *harness.Exchange) { drip(e, head+"X: "+letters(1000)+"\r\nContent-Length: 2\r\n\r\nok") }, want: 504, limit: response},
		"drips its body":     {bad: func(e *harness.Exchange) { e.Raw(head + "Content-Length: 1000\r\n\r\n"); drip(e, letters(1000)) }, limit: total},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			well := harness.NewOrigin(t, harness.Reply(200, "well", "Cache-Control: no-store"))
			o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
				"/bad": c.bad,
				"":     harness.Reply(200, "still here", "Cache-Control: no-store"),
			}))
			rules := fmt.Sprintf("map:\n  - {prefix: /, origin: %q}\n  - {prefix: /well, origin: %q}\n", o.URL(), well.URL())
			limits := ""
			switch c.limit {
			case response:
				rules += fmt.Sprintf("  - {prefix: /bad, origin: '%s/bad', response_timeout: 1s}\n", o.URL())
			case body: // those of the healthy come with their heads
				rules += "timeouts: {origin_body: 1s}\n"
			case total:
				limits = "timeouts: {origin_total: 1500ms}\n"
			}
			p := harness.Start(t, harness.Config(rules+limits), harness.Args("--threads", "1"))
			p.WaitServing()
			bad := p.Client().Dial().Send(harness.Request("GET", "/bad", ""))
			o.WaitCount("/bad", 1)
			if limits != "" { // the healthy are not to be hurried
				p.WriteConfig(rules)
				if r := p.Ctl("config", "reload"); r.Code != 0 {
					t.Fatal(r.Stderr)
				}
			}
			for range 5 {
				p.Client().Get("/well").Expect(200, "well")
				p.Client().Get("/same").Expect(200, "still here")
			}
			r, err := bad.Try("GET")
			interim := 0
			if r != nil {
				interim = len(r.Interim)
			}
			switch {
			case c.want == 0 && err == nil && r.Status != 502:
				t.Errorf("a whole answer came: %d, %d bytes", r.Status, len(r.Body))
			case c.want != 0 && (err != nil || r.Status != c.want):
				t.Errorf("got %+v and %v, want status %d", r, err, c.want)
			case interim > 40:
				t.Errorf("%d interim answers were passed on", interim)
			}
			p.Client().Get("/same").Expect(200, "still here")
		})
	}
}

// drip sends a byte now and then until the other side has had enough.
func drip(e *harness.Exchange, text string) {
	for i := range len(text) {
		if e.Write(text[i:i+1]) != nil || !e.Pause(20*time.Millisecond) {
			return
		}
	}
}

// An origin that answers before it has had the whole upload: the client has the answer, and the rest of what it sends is
// nobody's.
func TestAnAnswerBeforeTheUploadIsComplete(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/early": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
			e.Close()
		},
		"": harness.Reply(200, "ok", "Cache-Control: no-store"),
	}))
	p := harness.Start(t, harness.Map("/", o))
	c := p.Client().Dial()
	c.Send("POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n" + letters(1000))
	c.Read("POST").Expect(413, "no\n")
	c.Offer(letters(100_000))
	p.Client().Get("/").Expect(200, "ok")
	o.ExpectCount("/early", 1)
}

// The addresses of a name are those that its name server says, for as long as it says; and for longer when that does
// not answer any more. Connections that are kept are no reason to stay behind.
func TestNamesAreFollowed(t *testing.T) {
	t.Parallel()
	for _, kept := range []string{"0", "128"} {
		t.Run("max_idle "+kept, func(t *testing.T) {
			t.Parallel()
			names := harness.NewNames(t)
			names.Set("app.test", "127.0.0.1")
			o := named(t, "one")
			_, port, _ := strings.Cut(o.Addr(), ":")
			moved := harness.NewOriginAt(t, "127.0.0.2:"+port, harness.Reply(200, "two", "Cache-Control: no-store"))
			p := harness.Start(t, harness.Args("--map", "/=http://app.test:"+port, "--threads", "1"), harness.Set("resolver.servers", names.Addr()),
				harness.Set("resolver.min_ttl", "10ms"), harness.Set("origin.max_idle", kept))
			p.Client().Get("/").Expect(200, "one")
			names.Set("app.test", "127.0.0.2")
			harness.WaitFor(t, "the name to be followed", func() bool {
				r := p.Client().Get("/").ExpectStatus(200)
				return string(r.Body) == "two"
			})
			names.Silence()
			for range 5 {
				p.Client().Get("/").Expect(200, "two")
			}
			if len(moved.Requests()) < 5 {
				t.Errorf("the new place got %d requests", len(moved.Requests()))
			}
		})
	}
}

// A name of several addresses, one of which nobody listens on: no client notices.
func TestOneOfSeveralAddressesIsDead(t *testing.T) {
	t.Parallel()
	names := harness.NewNames(t)
	names.Set("app.test", "127.0.0.9", "127.0.0.1")
	o := named(t, "here")
	_, port, _ := strings.Cut(o.Addr(), ":")
	p := harness.Start(t, harness.Args("--map", "/=http://app.test:"+port), harness.Set("resolver.servers", names.Addr()), harness.Set("origin.max_idle", "0"))
	for range 6 {
		p.Client().Post("/", "x").Expect(200, "here")
	}
	p.Client().Get("/").Expect(200, "here")
	p.Expect("trafficd_origin_failures_total", 0)
}

// A name that does not exist is an answer of its own, and other names go on.
func TestANameThatDoesNotExist(t *testing.T) {
	t.Parallel()
	names := harness.NewNames(t)
	o := named(t, "here")
	p := harness.Start(t, harness.Map("/", o), harness.Args("--map", "/none=http://none.test"), harness.Set("resolver.servers", names.Addr()))
	r := p.Client().Get("/none").ExpectStatus(502)
	if !strings.Contains(string(r.Body), "could not be resolved") {
		t.Errorf("body %q", r.Body)
	}
	p.Client().Get("/").Expect(200, "here")
}

// Uploads to a group whose first server refuses, while the server is killed again and again: each is answered, and has
// reached exactly one server exactly once.
func TestRetriesThroughDeathsSendNothingTwice(t *testing.T) {
	t.Parallel()
	const clients, kills = 4, 12
	dead := named(t, "dead")
	o := harness.NewOrigin(t, func(e *harness.Exchange) { e.Reply(200, e.Target+e.ReadBody(), "Cache-Control: no-store") })
	p := harness.Start(t, group("strict", "", dead, o), harness.Set("origin.fail_threshold", "0"), harness.Args("--threads", "2"))
	dead.Down()
	body := letters(10_000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	sent := make([]int, clients)
	for i := range clients {
		c := p.Client().Dial()
		wg.Go(func() {
			for ; ; sent[i]++ {
				select {
				case <-stop:
					return
				default:
				}
				target := fmt.Sprintf("/%d/%d", i, sent[i])
				if _, err := c.Write([]byte(harness.Request("POST", target, body))); err != nil {
					t.Errorf("send %s: %v", target, err)
					return
				}
				r, err := c.Try("POST")
				if err != nil || r.Status != 200 || string(r.Body) != target+body {
					t.Errorf("%s: %v, %v", target, r, err)
					return
				}
			}
		})
	}
	for range kills {
		p.Standby()
		p.Kill(harness.Server)
	}
	close(stop)
	wg.Wait()
	times := map[string]int{}
	for _, r := range o.Requests() {
		times[r.Target]++
	}
	total := 0
	for i, n := range sent {
		total += n
		for j := range n {
			if got := times[fmt.Sprintf("/%d/%d", i, j)]; got != 1 {
				t.Errorf("upload %d of client %d reached the server %d times", j, i, got)
			}
		}
	}
	t.Logf("%d uploads through %d deaths", total, kills)
	p.ExpectMetric("trafficd_origin_retries_total", "one for each upload", func(v float64) bool { return v >= float64(total) })
}

// A reload changes groups, and keeps what is known of the servers that stay.
func TestReloadChangesGroups(t *testing.T) {
	t.Parallel()
	config := func(policy string, servers ...*harness.Origin) string {
		var urls []string
		for _, s := range servers {
			urls = append(urls, `"`+s.URL()+`"`)
		}
		return fmt.Sprintf("origin: {fail_threshold: 1, down_time: 1h}\norigins:\n  - {name: app, servers: [%s], policy: %s}\nmap:\n  - {prefix: /, origin: \"group:app\"}\n",
			strings.Join(urls, ", "), policy)
	}
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	p := harness.Start(t, harness.Config(config("strict", a, b)))
	p.Client().Get("/").Expect(200, "a")
	a.Down()
	p.Client().Get("/").Expect(200, "b")
	a.Up() // nobody has found out
	p.WriteConfig(config("strict", c, a, b))
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Fatalf("reload: %s", r.Stderr)
	}
	p.Client().Get("/").Expect(200, "c")
	p.WriteConfig(config("strict", a, b))
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Fatalf("reload: %s", r.Stderr)
	}
	p.Client().Get("/").Expect(200, "b")
	p.WriteConfig(strings.Replace(config("strict", a, b), "group:app", "group:ap", 1))
	if r := p.Ctl("config", "reload"); r.Code == 0 || !strings.Contains(r.Stderr, `did you mean "app"`) {
		t.Errorf("a rule for a group that is not there: exit code %d, %s", r.Code, r.Stderr)
	}
	p.Client().Get("/").Expect(200, "b")
}
