package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

const attackers = 1000

// attackTime is how long a slow client is borne in these stories. Those that are slow but move are clients of this process, and on
// a machine that is busy they stand still whenever it gets no processor: never as long as this.
const attackTime = 4 * time.Second

// hold is a crowd of clients of which each has sent the beginning of something and then goes on with a
// byte now and then, by tick, until it is thrown out or the story ends.
type hold struct {
	wg   sync.WaitGroup
	done chan struct{}
	gone atomic.Int32
}

// beset lets n clients connect and begin, and returns when all have.
func beset(t *testing.T, addr string, n int, begin string, tick func(c *net.TCPConn) error) *hold {
	t.Helper()
	h := &hold{done: make(chan struct{})}
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.TCPConn)
		conns[i].SetReadBuffer(4096)
		if _, err := c.Write([]byte(begin)); err != nil {
			t.Fatal(err)
		}
	}
	h.wg.Go(func() { h.drip(conns, tick) })
	t.Cleanup(func() {
		close(h.done)
		h.wg.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
	return h
}

func (h *hold) drip(conns []*net.TCPConn, tick func(c *net.TCPConn) error) {
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	over := make([]bool, len(conns))
	for {
		for i, c := range conns {
			if !over[i] && tick(c) != nil {
				over[i] = true
				h.gone.Add(1)
			}
		}
		select {
		case <-every.C:
		case <-h.done:
			return
		}
	}
}

func dripByte(c *net.TCPConn) error {
	_, err := c.Write([]byte("a"))
	return err
}

func sipByte(c *net.TCPConn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

// latencies are how long healthy clients wait, of two kinds: on a connection that they keep, and on a
// new one each time. The same is asked of the origin, in turn with them: it is in no way concerned with what the proxy is
// busy with, and tells what the machine and this process can do just then.
type latencies struct{ kept, fresh, keptOrigin, freshOrigin []time.Duration }

// healthy measures n requests of each kind.
func healthy(t *testing.T, p *harness.Trafficd, o *harness.Origin, n int) (l latencies) {
	t.Helper()
	proxy, origin := p.Client(), harness.NewClient(t, o.Addr())
	viaProxy, direct := proxy.Dial(), origin.Dial()
	keep := func(to *[]time.Duration, c *harness.Conn) {
		began := time.Now()
		c.Send(harness.Request("GET", "/hit", "")).Read("GET").ExpectStatus(200)
		*to = append(*to, time.Since(began))
	}
	dial := func(to *[]time.Duration, c *harness.Client) {
		began := time.Now()
		c.Get("/hit").ExpectStatus(200)
		*to = append(*to, time.Since(began))
	}
	for range n {
		keep(&l.kept, viaProxy)
		keep(&l.keptOrigin, direct)
		dial(&l.fresh, proxy)
		dial(&l.freshOrigin, origin)
	}
	for _, all := range [][]time.Duration{l.kept, l.fresh, l.keptOrigin, l.freshOrigin} {
		slices.Sort(all)
	}
	return l
}

// asBefore compares with what was measured without attackers, or with what the machine can do now if that is worse; generously:
// on a machine that has other work to do, too, only what is far out says anything.
func (l latencies) asBefore(t *testing.T, before latencies) {
	t.Helper()
	for _, c := range []struct {
		name              string
		now, was, machine time.Duration
		times             int64
		worthTheWords     time.Duration
	}{
		{"median on a kept connection", at(l.kept, 50), at(before.kept, 50), at(l.keptOrigin, 50), 10, 10 * time.Millisecond},
		{"median on a new connection", at(l.fresh, 50), at(before.fresh, 50), at(l.freshOrigin, 50), 10, 10 * time.Millisecond},
		{"p99 on a kept connection", at(l.kept, 99), at(before.kept, 99), at(l.keptOrigin, 99), 50, time.Second},
		{"p99 on a new connection", at(l.fresh, 99), at(before.fresh, 99), at(l.freshOrigin, 99), 50, time.Second},
	} {
		t.Logf("%s: %v, without attackers %v, of the origin %v", c.name, c.now, c.was, c.machine)
		if c.now > max(c.was, c.machine)*time.Duration(c.times)+c.worthTheWords {
			t.Errorf("%s: %v, without attackers %v, of the origin %v", c.name, c.now, c.was, c.machine)
		}
	}
}

func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)-1)*percent/100]
}

// Slow attackers: clients that hold their places by sending, or taking, a byte now and then. A
// thousand of them are thrown out when their time is over, the healthy ones are served as before, and
// so is a client that is slow, but moves.
func TestSlowAttackers(t *testing.T) {
	t.Parallel()
	const big = 16 << 20
	for _, attack := range []struct {
		name, begin, setting string
		tick                 func(*net.TCPConn) error
	}{
		{"slow heads", "GET /hit HTTP/1.1\r\nHost: localhost\r\nX: ", "client_header", dripByte},
		{"slow bodies", "POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", "client_body", dripByte},
		{"slow readers", harness.Request("GET", "/big", ""), "client_write", sipByte},
	} {
		t.Run(attack.name, func(t *testing.T) {
			p, o := proxy(t, map[string]harness.Handler{
				"/hit": harness.Reply(200, letters(1000), "Cache-Control: max-age=600"),
				"/big": harness.Reply(200, letters(big), "Cache-Control: max-age=600"),
				"":     echo,
			}, harness.Set("timeouts."+attack.setting, attackTime.String()), harness.Set("cache.max_object_size", "64MiB"))
			server := p.PID(harness.Server)
			p.Client().Get("/big").ExpectStatus(200)
			before := healthy(t, p, o, 100)
			slow := slowButMoving(t, p, big)
			h := beset(t, p.Addr, attackers, attack.begin, attack.tick)
			healthy(t, p, o, 100).asBefore(t, before)
			p.ExpectMetric(fmt.Sprintf("trafficd_timeouts_total{kind=%q}", attack.setting), "all attackers", func(v float64) bool { return v >= attackers })
			p.ExpectMetric("trafficd_client_connections", "nobody but the healthy", func(v float64) bool { return v <= 10 })
			if attack.setting != "client_write" { // what has come lies in a reader's own kernel
				harness.WaitFor(t, "the attackers to notice", func() bool { return h.gone.Load() == attackers })
			}
			slow()
			healthy(t, p, o, 20).asBefore(t, before)
			p.ExpectSame(harness.Server, server)
		})
	}
}

// slowButMoving begins two slow transfers: a kilobyte a second goes up, some more comes down. What it
// returns ends them and fails unless they were let go on to their ends.
func slowButMoving(t *testing.T, p *harness.Trafficd, size int) (end func()) {
	t.Helper()
	const body = 200_000
	up := p.Client().Dial().Send(fmt.Sprintf("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", body))
	// As many downloads as outlast the story, however long that takes: it ends when the attackers are gone.
	down := p.Client().Dial().Send(strings.Repeat(harness.Request("GET", "/big", ""), 20))
	down.ReadHead()
	done := make(chan struct{})
	var wg sync.WaitGroup
	sent := 0
	wg.Go(func() {
		every := time.NewTicker(100 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				n, err := up.Write([]byte(strings.Repeat("u", 100)))
				sent += n
				taken, derr := down.CopyRaw(discard{}, 200_000)
				if err != nil || derr != nil {
					t.Errorf("a slow client was thrown out: %v after %d bytes up, %v after %d of %d down", err, sent, derr, taken, 200_000)
					return
				}
			case <-done:
				return
			}
		}
	})
	return func() {
		t.Helper()
		close(done)
		wg.Wait()
		if t.Failed() {
			return
		}
		up.Send(strings.Repeat("u", body-sent)).Read("POST").ExpectStatus(200)
		if _, err := down.CopyRaw(discard{}, int64(size)); err != nil {
			t.Errorf("the slow downloads broke off: %v", err)
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// When there is no place left, those who do not use theirs make room: idle connections, the oldest first, and
// then those whose request does not come. Nobody can keep the others out by being there.
func TestRoomForThoseWhoAsk(t *testing.T) {
	t.Parallel()
	for _, crowd := range []struct{ name, begin, threads string }{
		{"idle between requests", harness.Request("GET", "/hit", ""), "1"},
		{"idle on two loops", harness.Request("GET", "/hit", ""), "2"},
		{"connected and silent", "", "2"},
		{"a head that stops", "GET /hit HTTP/1.1\r\nHost: loc", "1"},
		{"a body that stops", "POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf", "1"},
	} {
		t.Run(crowd.name, func(t *testing.T) {
			t.Parallel()
			o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{"/hit": harness.Reply(200, "hit", "Cache-Control: max-age=600"), "": echo}))
			p := harness.Start(t, harness.Map("/", o), harness.Set("limits.connections", "64"), harness.Args("--threads", crowd.threads))
			server := p.PID(harness.Server)
			p.Client().Get("/hit").Expect(200, "hit")
			never := func(*net.TCPConn) error { return nil }
			beset(t, p.Addr, 80, crowd.begin, never)
			for range 10 {
				p.Client().Get("/hit").Expect(200, "hit")
			}
			p.ExpectMetric("trafficd_client_connections_evicted_total", "some", func(v float64) bool { return v >= 16 })
			p.ExpectSame(harness.Server, server)
		})
	}
}

// A client that keeps its connections busy is none of those.
func TestThoseWhoUseTheirPlacesKeepThem(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/hit": harness.Reply(200, "hit", "Cache-Control: max-age=600"), "/wait": func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "waited", noStore)
	}}, harness.Set("limits.connections", "64"))
	waiting := p.Client().Dial().Send(harness.Request("GET", "/wait", ""))
	o.WaitCount("/wait", 1)
	beset(t, p.Addr, 200, harness.Request("GET", "/hit", ""), func(*net.TCPConn) error { return nil })
	p.Client().Get("/hit").Expect(200, "hit")
	gate.Open()
	waiting.Read("GET").Expect(200, "waited")
}

// limits.connections_per_client: one client cannot take the places of all.
func TestConnectionsOfOneClient(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo}, harness.Set("limits.connections_per_client", "10"))
	harness.WaitFor(t, "the first checks of the story to be gone", func() bool { return p.Metrics()["trafficd_client_connections"] == 0 })
	var held []*harness.Conn
	for range 10 {
		held = append(held, p.Client().Dial().Send(harness.Request("GET", "/a", "")))
		held[len(held)-1].Read("GET").ExpectStatus(200)
	}
	if r, err := harness.Fetch(p.Addr, harness.Request("GET", "/b", "")); err == nil {
		t.Errorf("the eleventh got %d", r.Status)
	}
	p.Expect("trafficd_client_connections_over_limit_total", 1)
	p.Client().From("127.0.0.2").Get("/c").ExpectStatus(200)
	held[0].Close()
	harness.WaitFor(t, "a place", func() bool {
		r, err := harness.Fetch(p.Addr, harness.Request("GET", "/d", "", "Connection: close"))
		return err == nil && r.Status == 200
	})
	for _, c := range held[1:] {
		c.Send(harness.Request("GET", "/e", "")).Read("GET").ExpectStatus(200)
	}
}

// A response that the kernel has taken whole is not yet the client's. One that never takes it loses
// it with the connection; from one that does, however slowly, it is not taken away.
func TestRepliesThatLieInTheKernel(t *testing.T) {
	t.Parallel()
	const size = 150_000
	p, _ := proxy(t, map[string]harness.Handler{"": harness.Reply(200, letters(size), "Cache-Control: max-age=600")},
		harness.Set("timeouts.client_idle", attackTime.String()), harness.Set("timeouts.client_write", attackTime.String()))
	p.Client().Get("/a").ExpectStatus(200)
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		tc := c.(*net.TCPConn)
		tc.SetReadBuffer(4096)
		tc.SetDeadline(time.Now().Add(harness.Patience))
		fmt.Fprint(c, harness.Request("GET", "/a", ""))
		return tc
	}
	still := dial()
	slow := dial()
	const sips = 100
	every := time.NewTicker(2 * attackTime / sips)
	defer every.Stop()
	got := 0
	for b := make([]byte, size/sips); ; <-every.C { // twice the time in all
		slow.SetDeadline(time.Now().Add(harness.Patience))
		n, err := slow.Read(b)
		got += n
		if err != nil || got >= size {
			break
		}
	}
	if got < size {
		t.Errorf("the slow client got %d bytes", got)
	}
	slow.Close()
	p.ExpectMetric("trafficd_client_connections", "nobody", func(v float64) bool { return v == 0 })
	if n, err := io.Copy(io.Discard, still); err == nil || n >= size {
		t.Errorf("the one that stood still got %d bytes in the end, %v", n, err)
	}
}

// The death of a server is worth one time limit to slow attackers, and no more: its successor knows
// them, and throws them out.
func TestSlowAttackersAndTheDeathOfTheServer(t *testing.T) {
	t.Parallel()
	const n = 50
	p, o := proxy(t, map[string]harness.Handler{
		"/hit": harness.Reply(200, letters(1000), "Cache-Control: max-age=600"),
		"/big": harness.Reply(200, letters(8<<20), "Cache-Control: max-age=600"), "": echo,
	}, harness.Set("timeouts.client_header", attackTime.String()), harness.Set("timeouts.client_body", attackTime.String()),
		harness.Set("timeouts.client_write", attackTime.String()))
	p.Client().Get("/big").ExpectStatus(200)
	old := p.PID(harness.Server)
	p.Standby()
	beset(t, p.Addr, n, "GET /hit HTTP/1.1\r\nHost: localhost\r\nX: ", dripByte)
	beset(t, p.Addr, n, "POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", dripByte)
	beset(t, p.Addr, n, harness.Request("GET", "/big", ""), sipByte)
	o.WaitCount("/sink", n)
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old)
	p.Client().Get("/hit").ExpectStatus(200)
	p.ExpectMetric("trafficd_client_connections", "nobody but the healthy", func(v float64) bool { return v <= 2 })
}

// What lies in the kernel for clients that do not take it is bounded for all of them together, not for each. A client that
// takes everything gets everything, meanwhile and afterwards.
func TestClientsThatTakeNothingHoldLittle(t *testing.T) {
	t.Parallel()
	const (
		n    = 200
		size = 16 << 20
		each = 512 << 10 // what each of n may hold on average; without a bound it is at least 1 MiB
	)
	p, _ := proxy(t, map[string]harness.Handler{"": harness.Reply(200, letters(size), "Cache-Control: max-age=600")},
		harness.Set("cache.max_object_size", "64MiB"), harness.Set("limits.untaken", "1MiB"), harness.Set("timeouts.client_write", "1h"))
	sent := func() float64 { return p.Metrics()["trafficd_client_sent_bytes_total"] }
	fast := p.Client().Dial()
	take := func() {
		t.Helper()
		if r := fast.Send(harness.Request("GET", "/big", "")).Read("GET").ExpectStatus(200); len(r.Body) != size {
			t.Errorf("%d bytes", len(r.Body))
		}
	}
	take()
	before := sent()
	still := make([]*net.TCPConn, n)
	for i := range still {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		still[i] = c.(*net.TCPConn)
		still[i].SetReadBuffer(4096)
		still[i].SetDeadline(time.Now().Add(harness.Patience))
		io.WriteString(c, harness.Request("GET", "/big", ""))
		if _, err := c.Read(make([]byte, 1)); err != nil { // its reply has begun
			t.Fatal(err)
		}
	}
	held := sent() - before
	t.Logf("%.0f KiB of each", held/n/1024)
	if held > n*each {
		t.Errorf("%d clients that take nothing have been given %.0f MiB", n, held/(1<<20))
	}
	take()
	for _, c := range still {
		c.Close()
	}
	p.ExpectMetric("trafficd_client_connections", "only the fast one", func(v float64) bool { return v <= 1 })
	take()
}
