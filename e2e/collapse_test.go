package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"trafficd/e2e/harness"
)

// Misses of one URL whose responses differ cost one request for each of these.
func TestMissesThatVaryCollapse(t *testing.T) {
	t.Parallel()
	kinds := []string{"a", "b", "c"}
	const each = 8
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, e.Header.Get("X-Kind"), freshLong, "Vary: X-Kind")
	})
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"), harness.NotReady())
	harness.WaitFor(t, "a server", func() bool { return p.Ready() })
	var conns []*harness.Conn
	for i := range each * len(kinds) {
		conns = append(conns, p.Client().Dial().Send(harness.Request("GET", "/v", "", "X-Kind: "+kinds[i%len(kinds)])))
	}
	p.ExpectMetric("trafficd_cache_collapsed_total", "all but one", func(v float64) bool { return v == float64(len(conns)-1) })
	gate.Open()
	for i, c := range conns {
		c.Read("GET").Expect(200, kinds[i%len(kinds)])
	}
	o.ExpectCount("/v", len(kinds))
}

// A request that gets an answer for itself alone, such as 412 (Precondition Failed), has nobody else sent to the origin:
// neither those who wait for it, nor those who come later.
func TestOddRequestsDoNotEndCollapsing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 406, 412, 415, 416, 417, 428, 429, 431} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			gate := harness.NewGate()
			p, o := proxy(t, map[string]harness.Handler{"/u": func(e *harness.Exchange) {
				if e.Header.Get("X-Odd") == "" {
					e.Reply(200, "usual", freshLong)
					return
				}
				gate.Wait(e)
				e.Reply(status, "odd", "Cache-Control: no-store")
			}})
			odd := p.Client().Dial().Send(harness.Request("GET", "/u", "", "X-Odd: 1"))
			o.WaitCount("/u", 1)
			const n = 10
			for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/u", ""), func() {
				p.ExpectMetric("trafficd_cache_collapsed_total", "all", func(v float64) bool { return v == n })
				gate.Open()
			}) {
				if r != nil {
					r.Expect(200, "usual")
				}
			}
			odd.Read("GET").ExpectStatus(status)
			o.ExpectCount("/u", 2)
		})
	}
}

// Nor does such an answer, or one that is not stored, keep those from waiting for each other who come later.
func TestCollapsingGoesOnAfterOddRequests(t *testing.T) {
	t.Parallel()
	for reply, status := range map[string]int{"X: none": 412, "Cache-Control: no-store": 200} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			gate := harness.NewGate()
			var slow harness.Switch
			p, o := proxy(t, map[string]harness.Handler{"/s": func(e *harness.Exchange) {
				if slow.On() {
					gate.Wait(e)
				}
				switch {
				case e.Header.Get("X-Odd") != "":
					e.Reply(status, "odd", reply)
				case e.Header.Get("If-None-Match") != "":
					e.Reply(304, "", "Cache-Control: max-age=0", `ETag: "v1"`)
				default:
					e.Reply(200, "v1", "Cache-Control: max-age=0", `ETag: "v1"`)
				}
			}})
			p.Client().Get("/s").Expect(200, "v1")
			p.Client().Get("/s", "X-Odd: 1", "Cache-Control: no-cache").Expect(status, "odd")
			p.Client().Get("/s").Expect(200, "v1") // which is stored, or validated, again
			before := o.Count("/s")
			slow.Set()
			const n = 10
			for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/s", ""), func() {
				p.ExpectMetric("trafficd_cache_collapsed_total", "all but one", func(v float64) bool { return v == n-1 })
				gate.Open()
			}) {
				if r != nil {
					r.Expect(200, "v1")
				}
			}
			o.ExpectCount("/s", before+1)
		})
	}
}

// A request that goes round in circles is told so, and does not wait for the fetch that it is itself.
func TestALoopIsNotCollapsed(t *testing.T) {
	t.Parallel()
	addr := harness.FreeAddr(t)
	p := harness.Start(t, harness.NoListen(), harness.Args("--listen", addr, "--map", "/=http://"+addr), harness.NotReady())
	p.Addr = addr
	p.WaitReady()
	p.Client().Get("/").ExpectStatus(508)
	p.Client().Get("/", "Range: bytes=0-1").ExpectStatus(508)
}

// What has come through a proxy of the same name is collapsed as anything else.
func TestMissesOfAnotherTierCollapse(t *testing.T) {
	t.Parallel()
	const n = 8
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "a", freshLong)
	})
	p := harness.Start(t, harness.Map("/", o), harness.NotReady())
	harness.WaitFor(t, "a server", func() bool { return p.Ready() })
	var conns []*harness.Conn
	for range n {
		conns = append(conns, p.Client().Dial().Send(harness.Request("GET", "/a", "", "Via: 1.1 trafficd")))
	}
	p.ExpectMetric("trafficd_cache_collapsed_total", "all but one", func(v float64) bool { return v == n-1 })
	gate.Open()
	for _, c := range conns {
		c.Read("GET").Expect(200, "a")
	}
	o.ExpectCount("/a", 1)
}

// What must not be used unvalidated by anybody but who asked for it (RFC 9111 sections 5.2.2.2 and 5.2.2.4) is not given to those who
// waited for it, nor do they go to the origin one after the other. What is stored is validated for each request.
func TestWhatIsOnlyForOneRequestIsNotGivenToThoseWhoWait(t *testing.T) {
	t.Parallel()
	for _, control := range []string{"no-cache", "no-cache, max-age=100", "max-age=0, must-revalidate", "s-maxage=0", "max-age=0, proxy-revalidate"} {
		t.Run(control, func(t *testing.T) {
			t.Parallel()
			first, gates := harness.NewGate(), [3]*harness.Gate{harness.NewGate(), harness.NewGate(), harness.NewGate()}
			p, o := proxy(t, map[string]harness.Handler{"/mine": func(e *harness.Exchange) {
				if round, err := strconv.Atoi(e.Header.Get("X-Round")); err == nil {
					gates[round].Wait(e)
				} else {
					first.Wait(e)
				}
				user := e.Header.Get("X-User")
				lines := []string{"Cache-Control: " + control, fmt.Sprintf("ETag: %q", user)}
				if e.Header.Get("If-None-Match") == strconv.Quote(user) {
					e.Reply(304, "", lines...)
					return
				}
				e.Reply(200, "for "+user, lines...)
			}})
			leader := p.Client().Dial().Send(harness.Request("GET", "/mine", "", "X-User: leader"))
			o.WaitCount("/mine", 1)
			const n = 8
			for round, gate := range gates {
				var conns []*harness.Conn
				for i := range n {
					conns = append(conns, p.Client().Dial().Send(harness.Request("GET", "/mine", "", fmt.Sprintf("X-User: %d", i), fmt.Sprintf("X-Round: %d", round))))
				}
				if round == 0 {
					p.ExpectMetric("trafficd_cache_collapsed_total", "all but one", func(v float64) bool { return v == n })
					first.Open()
					leader.Read("GET").Expect(200, "for leader")
				}
				o.WaitCount("/mine", 1+(round+1)*n) // all at once
				gate.Open()
				for i, c := range conns {
					c.Read("GET").Expect(200, fmt.Sprintf("for %d", i))
				}
			}
			o.ExpectCount("/mine", 1+len(gates)*n)
		})
	}
}

// What may be used as long as nobody forbids it answers all who had asked before it came, however short it is fresh.
func TestWhatIsStaleFromTheStartAnswersThoseWhoWaited(t *testing.T) {
	t.Parallel()
	for _, control := range []string{"max-age=0", "max-age=0, stale-while-revalidate=9", "max-age=60, must-revalidate"} {
		t.Run(control, func(t *testing.T) {
			t.Parallel()
			gate := harness.NewGate()
			p, o := proxy(t, map[string]harness.Handler{"/all": func(e *harness.Exchange) {
				gate.Wait(e)
				e.Reply(200, "all's", "Cache-Control: "+control, `ETag: "v1"`)
			}})
			const n = 8
			for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/all", ""), func() {
				p.ExpectMetric("trafficd_cache_collapsed_total", "all but one", func(v float64) bool { return v == n-1 })
				gate.Open()
			}) {
				if r != nil {
					r.Expect(200, "all's")
				}
			}
			o.ExpectCount("/all", 1)
		})
	}
}
