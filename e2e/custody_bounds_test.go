package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// A line is a connection that stays open between requests. It is small, since there are
// thousands of them.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func openLine(addr string) (*line, error) {
	c, err := net.DialTimeout("tcp", addr, harness.Patience)
	if err != nil {
		return nil, err
	}
	return &line{c, bufio.NewReaderSize(c, 512)}, nil
}

func (l *line) ask(target string) error {
	l.conn.SetDeadline(time.Now().Add(harness.Patience))
	_, err := io.WriteString(l.conn, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	return err
}

func (l *line) answer(body string) error {
	r, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != 200 || string(got) != body) {
		err = fmt.Errorf("status %d, %.60q", r.StatusCode, got)
	}
	return err
}

func (l *line) exchange(target, body string) error {
	if err := l.ask(target); err != nil {
		return err
	}
	return l.answer(body)
}

// openLines opens n of them, each with one request answered.
func openLines(t *testing.T, addr string, n int, target, body string) []*line {
	t.Helper()
	lines, errs := make([]*line, n), make([]error, n)
	each(n, func(i int) {
		if lines[i], errs[i] = openLine(addr); errs[i] == nil {
			errs[i] = lines[i].exchange(target, body)
		}
	})
	t.Cleanup(func() {
		for _, l := range lines {
			if l != nil {
				l.conn.Close()
			}
		}
	})
	if bad := count(errs); bad > 0 {
		t.Fatalf("%d of %d connections could not be opened: %v", bad, n, first(errs))
	}
	return lines
}

// each calls f for every number below n, some at a time.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 32 {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func count(errs []error) (n int) {
	for _, err := range errs {
		if err != nil {
			n++
		}
	}
	return n
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	at := func(q float64) time.Duration {
		return d[min(len(d)-1, int(q*float64(len(d))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("median %v, 99 %% %v, worst %v", at(0.5), at(0.99), at(1))
}

// "Fail-over with 10,000 idle keep-alive connections and 200 active ones: no idle one is lost." The
// active ones wait for an origin that answers at the instant of the death, so that each of them is
// in the middle of something; how long they wait beyond what they wait without a death is printed.
func TestTenThousandIdleConnections(t *testing.T) {
	idle, active := 10_000, 200
	if harness.Race() || testing.Short() {
		idle = 2000
	}
	harness.NeedFiles(t, 16_000)
	var gates sync.Map // *harness.Gate by target
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/hit": harness.Reply(200, "hit", "Cache-Control: max-age=600"),
		"/slow": func(e *harness.Exchange) {
			if g, ok := gates.Load(e.Target); ok {
				g.(*harness.Gate).Wait(e)
			}
			e.Reply(200, "slow", noStore)
		},
	}))
	p := harness.Start(t, harness.Bearing(), harness.Map("/", o))
	sleepers := openLines(t, p.Addr, idle, "/hit", "hit")
	workers := openLines(t, p.Addr, active, "/hit", "hit")

	// round has all workers wait for the origin, lets it answer at the instant of act, and returns how long each
	// waited from then on.
	asked := 0
	round := func(act func()) []time.Duration {
		errs, took := make([]error, active), make([]time.Duration, active)
		gate := harness.NewGate()
		for i, w := range workers {
			target := fmt.Sprintf("/slow?%d", asked+i) // one of its own, or one would be asked for all
			gates.Store(target, gate)
			if err := w.ask(target); err != nil {
				t.Fatal(err)
			}
		}
		for i := range workers {
			o.WaitCount(fmt.Sprintf("/slow?%d", asked+i), 1)
		}
		asked += active
		var wg sync.WaitGroup
		began := time.Now()
		for i, w := range workers {
			wg.Go(func() {
				errs[i] = w.answer("slow")
				took[i] = time.Since(began)
			})
		}
		act()
		gate.Open()
		wg.Wait()
		if bad := count(errs); bad > 0 {
			t.Errorf("%d of %d active connections were lost: %v", bad, active, first(errs))
		}
		return took
	}

	c := newCampaign(t, p, 1, nil, 0)
	var alone, killed []time.Duration
	for range 5 {
		alone = append(alone, round(func() {})...)
		at := c.await(killing(1, harness.Server))
		killed = append(killed, round(func() { p.Strike(at.server) })...)
		at.release()
		p.WaitReplaced(harness.Server, at.server.PID)
		errs := make([]error, idle)
		each(idle, func(i int) { errs[i] = sleepers[i].exchange("/hit", "hit") })
		if bad := count(errs); bad > 0 {
			t.Fatalf("%d of %d idle connections were lost: %v", bad, idle, first(errs))
		}
	}
	t.Logf("active ones wait, without a death: %s", quantiles(alone))
	t.Logf("active ones wait, with one:        %s", quantiles(killed))
	for _, l := range p.Log.Since(0) {
		if l.Message == "connections adopted" {
			t.Log(l.Raw)
		}
	}
	o.ExpectCount("/hit", 1)
}

// "A large server (2 GiB cache mapped) fails over as fast as a small one." Both are killed in turn, so
// that the machine's moods are the same for both, and the best of each is compared, since moods only add. What grows with the
// cache would be a hundred times as much for the large one.
func TestLargeCacheFailsOverAsFast(t *testing.T) {
	const objects, size, kills = 100, 4 << 20, 9
	body := strings.Repeat("0123456789abcdef", size/16)
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/hit": harness.Reply(200, "hit", "Cache-Control: max-age=600"),
		"/big": harness.Reply(200, body, "Cache-Control: max-age=600"),
	}))
	start := func(cache string) *harness.Trafficd {
		return harness.Start(t, harness.Bearing(), harness.Map("/", o), harness.Set("cache.size", cache), harness.Args("--threads", "1"))
	}
	servers := []*harness.Trafficd{start("16MiB"), start("2GiB")}
	filler := openLines(t, servers[1].Addr, 1, "/hit", "hit")[0]
	for i := range objects {
		if err := filler.exchange(fmt.Sprintf("/big?%d", i), body); err != nil {
			t.Fatal(err)
		}
	}
	servers[1].ExpectMetric("trafficd_cache_stores_total", "all that was fetched", func(v float64) bool { return v >= objects })
	var took [2][]time.Duration
	for range kills {
		for i, p := range servers {
			l := openLines(t, p.Addr, 1, "/hit", "hit")[0]
			c := newCampaign(t, p, 1, nil, 0)
			at := c.await(killing(1, harness.Server))
			began := time.Now()
			p.Strike(at.server)
			at.server.WaitGone(t)
			if err := l.exchange("/hit", "hit"); err != nil {
				t.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
			at.release()
		}
	}
	t.Logf("16 MiB: %s", quantiles(took[0]))
	t.Logf(" 2 GiB: %s", quantiles(took[1]))
	if small, large := slices.Min(took[0]), slices.Min(took[1]); large > 3*small {
		t.Errorf("the large one fails over in %v at best, the small one in %v", large, small)
	}
	// What is in it has survived, too.
	for i := range objects {
		if err := openLines(t, servers[1].Addr, 1, fmt.Sprintf("/big?%d", i), body)[0].conn.Close(); err != nil {
			t.Fatal(err)
		}
		o.ExpectCount(fmt.Sprintf("/big?%d", i), 1)
	}
}
