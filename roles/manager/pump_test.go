package manager

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
)

// bench is a pump that works only when it is told to, on real sockets.
type bench struct {
	*pump
	es *estate
}

func newBench(t *testing.T, q config.Queue) *bench {
	t.Helper()
	es, err := newEstate(heritage.New())
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Listen, cfg.Cache.Size, cfg.Queue = []string{"127.0.0.1:0"}, 0, q
	if err := es.provide(cfg, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	b := &bench{
		pump: &pump{since: time.Now(), row: new(stats.Row), over: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)},
		es:   es,
	}
	close(b.done)
	if err := b.configure(q, es); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		es.close()
		es.region.Close()
	})
	return b
}

// clients connect and ask; they have their place in the kernel's queue when it returns.
func (b *bench) clients(t *testing.T, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", b.es.listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

var patient = config.Queue{Limit: 3, MaxWait: time.Hour, AcceptAfter: 2 * time.Second, RetryAfter: 7 * time.Second}

func TestPumpCollectsWhenNobodyServes(t *testing.T) {
	b := newBench(t, patient)
	b.clients(t, 2)
	b.step(b.since.Add(time.Second))
	if s := b.status(); s.depth != 0 || s.reason != queue.Waiting {
		t.Errorf("too early: %+v", s)
	}
	b.step(b.since.Add(3 * time.Second))
	if s := b.status(); s.depth != 2 || s.reason != queue.NoServer {
		t.Errorf("after the time: %+v", s)
	}
	if n := b.row.Load(stats.QueueAccepted); n != 2 {
		t.Errorf("%d accepted", n)
	}
	if n := b.row.Load(stats.QueueDepth); n != 2 {
		t.Errorf("depth %d", n)
	}
}

func TestPumpRestsWhileSomebodyServes(t *testing.T) {
	b := newBench(t, patient)
	b.clients(t, 2)
	b.serving(true, time.Now())
	if d := b.step(time.Now().Add(time.Hour)); d != pumpRest {
		t.Errorf("looks again after %v", d)
	}
	if s := b.status(); s.depth != 0 || s.reason != queue.ServerReady {
		t.Errorf("%+v", s)
	}
	// And begins to wait anew when it is gone.
	gone := time.Now()
	b.serving(false, gone)
	b.step(gone.Add(time.Second))
	if s := b.status(); s.depth != 0 {
		t.Errorf("%+v", s)
	}
	b.step(gone.Add(3 * time.Second))
	if s := b.status(); s.depth != 2 {
		t.Errorf("%+v", s)
	}
}

// What does not fit stays in the kernel.
func TestPumpLeavesWhatDoesNotFit(t *testing.T) {
	b := newBench(t, patient)
	b.clients(t, 5)
	for range 3 {
		b.step(b.since.Add(3 * time.Second))
	}
	if s := b.status(); s.depth != 3 || s.reason != queue.Overflow {
		t.Errorf("%+v", s)
	}
	if q, err := b.es.listeners[0].Backlog(); err != nil || q.Queued != 2 {
		t.Errorf("%d in the kernel, %v", q.Queued, err)
	}
}

// Who has waited too long is told so, the oldest first; the others go on waiting.
func TestPumpRefusesWhoHasWaitedTooLong(t *testing.T) {
	q := patient
	q.MaxWait = time.Nanosecond // the kernel's clock says how long somebody waits, so it cannot be set
	b := newBench(t, q)
	c := b.clients(t, 1)[0]
	for b.row.Load(stats.QueueExpired) == 0 {
		b.step(b.since.Add(3 * time.Second))
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != 503 || r.Header.Get("Retry-After") != "7" {
		t.Fatalf("got %v, %v", r, err)
	}
	if b.row.Load(stats.QueueWait) < uint64(q.MaxWait) {
		t.Errorf("waited %d ns", b.row.Load(stats.QueueWait))
	}
}

// A new configuration, and another manager, find what waits.
func TestPumpKeepsWhatWaits(t *testing.T) {
	b := newBench(t, patient)
	b.clients(t, 2)
	b.step(b.since.Add(3 * time.Second))
	q := patient
	q.Limit, q.RetryAfter = 10, time.Second
	if err := b.configure(q, b.es); err != nil {
		t.Fatal(err)
	}
	if s := b.status(); s.depth != 2 || s.limit != 10 {
		t.Errorf("after a reload: %+v", s)
	}
	f, err := b.es.fifo(5)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Len(); err != nil || n != 2 {
		t.Errorf("another view has %d, %v", n, err)
	}
	for range 2 {
		_, fd, err := f.Take()
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
}
