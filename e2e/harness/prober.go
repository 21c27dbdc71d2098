package harness

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// Prober opens a new connection for every request, one after the other, until it is
// stopped. Each request carries its number, which must come back in the answer, so that an
// answer that is lost, doubled or out of order is noticed.
//
// The origin behind it must answer with EchoNumber.
//
// Hold parks it between two requests. What happens while it is parked hits no connection of
// its own: the promise about new connections can then be tested without the allowance that
// is made for connections inside a process that is being killed.
type Prober struct {
	t    testing.TB
	addr string

	stop    chan struct{}
	hold    chan chan struct{} // carries the channel whose closing lets it go on
	stopped chan struct{}

	mu       sync.Mutex // guards below
	done     int
	failures []Failure
	deaths   []death
	answered chan struct{} // closed and replaced after each request
}

// Failure is one request of a prober that was not answered as it should.
type Failure struct {
	Number    int
	Connected bool      // the connection had been made
	Began     time.Time // when connecting began
	Ended     time.Time
	Err       error
}

// death is the time in which a process with connections inside it was dying.
type death struct{ from, to time.Time }

// EchoNumber is the origin's side of a prober.
func EchoNumber(e *Exchange) { e.Reply(200, "probe "+e.Target, "Cache-Control: no-store") }

// NewProber starts a prober; it ends with the story.
func NewProber(t testing.TB, addr string) *Prober {
	p := &Prober{
		t: t, addr: addr, stop: make(chan struct{}), stopped: make(chan struct{}),
		hold: make(chan chan struct{}), answered: make(chan struct{}),
	}
	go p.run()
	t.Cleanup(p.halt)
	return p
}

// Prober starts a prober of the first listener.
func (p *Trafficd) Prober() *Prober { return NewProber(p.t, p.Addr) }

func (p *Prober) run() {
	defer close(p.stopped)
	for n := 1; ; n++ {
		select {
		case <-p.stop:
			return
		case release := <-p.hold:
			select {
			case <-release:
			case <-p.stop:
				return
			}
		default:
		}
		p.record(n, p.probe(n))
	}
}

func (p *Prober) probe(n int) *Failure {
	f := &Failure{Number: n, Began: time.Now()}
	defer func() { f.Ended = time.Now() }()
	conn, err := dial(p.addr)
	if err != nil {
		f.Err = fmt.Errorf("connect: %w", err)
		return f
	}
	defer conn.Close()
	f.Connected = true
	target := fmt.Sprintf("/probe/%d", n)
	if _, err := io.WriteString(conn, Request("GET", target, "", "Connection: close")); err != nil {
		f.Err = fmt.Errorf("send: %w", err)
		return f
	}
	in := bufio.NewReader(conn)
	r, err := ReadResponse(in, "GET")
	if err != nil {
		f.Err = fmt.Errorf("read: %w", err)
		return f
	}
	if want := "probe " + target; r.Status != 200 || string(r.Body) != want {
		f.Err = fmt.Errorf("got %d %s, want 200 %q", r.Status, clip(string(r.Body)), want)
		return f
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		f.Err = fmt.Errorf("after the answer: %s, %v", clip(string(rest)), err)
	}
	return f
}

func (p *Prober) record(n int, f *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = n
	if f.Err != nil {
		p.failures = append(p.failures, *f)
	}
	close(p.answered)
	p.answered = make(chan struct{})
}

// Hold parks the prober between two requests and returns what lets it go on.
func (p *Prober) Hold() (release func()) {
	p.t.Helper()
	ch := make(chan struct{})
	select {
	case p.hold <- ch:
	case <-time.After(2 * Patience):
		p.t.Fatalf("prober hangs in request %d", p.Done()+1)
	}
	return sync.OnceFunc(func() { close(ch) })
}

// Done is the number of requests that have ended.
func (p *Prober) Done() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Await waits until n more requests have ended.
func (p *Prober) Await(n int) {
	p.t.Helper()
	timeout := time.After(2 * Patience)
	for want := p.Done() + n; ; {
		p.mu.Lock()
		done, answered := p.done, p.answered
		p.mu.Unlock()
		if done >= want {
			return
		}
		select {
		case <-answered:
		case <-timeout:
			p.t.Fatalf("prober hangs in request %d", done+1)
		}
	}
}

// Dying tells the prober that a process that holds connections was killed in a function
// which returns when the process has ended. Connections made before that end may break.
func (p *Prober) Dying(kill func()) {
	from := time.Now()
	kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaths = append(p.deaths, death{from, time.Now()})
}

func (p *Prober) halt() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	<-p.stopped
}

// ExpectClean stops the prober and fails for every request that was not answered, except
// those whose connection was inside a process while it died (see Dying).
func (p *Prober) ExpectClean() {
	p.t.Helper()
	p.halt()
	excused := 0
	var lines []string
	for _, f := range p.failures {
		if f.Connected && p.inside(f) {
			excused++
			continue
		}
		lines = append(lines, fmt.Sprintf("request %d (connected: %v): %v", f.Number, f.Connected, f.Err))
	}
	if len(lines) > 0 {
		p.t.Errorf("%d of %d requests failed:\n%s", len(lines), p.done, strings.Join(lines[:min(len(lines), 10)], "\n"))
	}
	p.t.Logf("prober: %d requests, %d failed, %d broken inside a dying process", p.done, len(lines), excused)
}

func (p *Prober) inside(f Failure) bool {
	for _, d := range p.deaths {
		if f.Began.Before(d.to) && f.Ended.After(d.from) {
			return true
		}
	}
	return false
}
