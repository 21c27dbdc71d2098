package origin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/resolve"
)

// rig is a pool on a running loop.
type rig struct {
	t       *testing.T
	loop    *eventloop.Loop
	arena   *buffer.Arena
	pool    *Pool
	names   map[string][]netip.Addr // answers of the resolver
	parents *parent.Directory

	// Owned by the loop.
	opened, closed, reused, failed, busy, malformed int
}

func (r *rig) Opened()                                       { r.opened++ }
func (r *rig) Reused()                                       { r.reused++ }
func (r *rig) Closed()                                       { r.closed++ }
func (r *rig) Failed(*remap.Origin, *parent.Server, Failure) { r.failed++ }
func (r *rig) Busy()                                         { r.busy++ }
func (r *rig) Malformed()                                    { r.malformed++ }
func (r *rig) Sent(int)                                      {}
func (r *rig) Received(int)                                  {}

// long is a limit that no test reaches.
const long = time.Minute

func newRig(t *testing.T, tune func(*Limits)) *rig {
	t.Helper()
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, loop: l, names: map[string][]netip.Addr{}, parents: parent.NewDirectory(parent.Settings{}, nil)}
	if r.arena, err = buffer.New(buffer.Shape{Smalls: 256, Larges: 64}); err != nil {
		t.Fatal(err)
	}
	lookup := func(_ context.Context, host string) (resolve.Answer, error) {
		if a := r.names[host]; a != nil {
			return resolve.Answer{Addrs: a, TTL: time.Minute}, nil
		}
		return resolve.Answer{}, fmt.Errorf("no such host %s", host)
	}
	r.pool = NewPool(l, r.arena, nil, resolve.New(resolve.Limits{Max: time.Hour}, lookup), r)
	lim := Limits{Connect: long, Response: long, Body: long, Idle: long, MaxIdle: 8}
	if tune != nil {
		tune(&lim)
	}
	r.pool.SetLimits(lim)
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		r.on(func() {
			r.pool.CloseIdle()
			if used := r.arena.InUse(); used != (buffer.Shape{}) {
				t.Errorf("pages are still in use: %+v", used)
			}
			if r.opened != r.closed {
				t.Errorf("%d connections opened, %d closed", r.opened, r.closed)
			}
		})
		l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// on runs f on the loop and waits.
func (r *rig) on(f func()) {
	done := make(chan struct{})
	r.loop.Post(func() { defer close(done); f() })
	<-done
}

// until polls, on the loop, for what no event announces.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for ok := false; !ok; r.on(func() { ok = cond() }) {
		if time.Now().After(deadline) {
			r.t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// request is an exchange, its handler and its sink.
type request struct {
	Exchange
	r *rig

	// Owned by the loop until over is closed.
	status   int
	framing  http1.Framing
	body     []byte
	most     int // bytes of the body that the sink takes; -1: all
	interims []int
	failure  *Failure
	early    []byte
	fd       int
	hook     func(where string)
	buf      [700]byte // an odd size, so that everything is cut somewhere

	headed chan struct{} // closed when the final head has come
	over   chan struct{} // closed at the end
}

// get makes a GET request to addr.
func (r *rig) get(addr string) *request {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		r.t.Fatal(err)
	}
	var n uint16
	fmt.Sscan(port, &n)
	q := &request{r: r, most: -1, fd: -1, headed: make(chan struct{}), over: make(chan struct{})}
	q.Exchange = Exchange{
		Handler: q, Method: http1.GET, Head: []byte("GET / HTTP/1.1\r\nHost: o\r\n\r\n"),
		Origin: &remap.Origin{Name: "http://" + addr, Host: host, Port: n},
	}
	q.Server, _ = r.parents.Of(q.Origin).Pick(0, 0, 0)
	return q
}

// upload makes a POST request.
func (r *rig) upload(addr string, b *body) *request {
	q := r.get(addr)
	q.Method, q.Body = http1.POST, b
	q.Head = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: o\r\nContent-Length: %d\r\n\r\n", len(b.p))
	return q
}

func (q *request) start() *request {
	q.r.on(func() { q.r.pool.Start(&q.Exchange) })
	return q
}

// wait waits for the end.
func (q *request) wait() *request {
	q.r.t.Helper()
	select {
	case <-q.over:
	case <-time.After(20 * time.Second):
		q.r.t.Fatal("the exchange does not end")
	}
	return q
}

func (q *request) at(where string) {
	if q.hook != nil {
		q.hook(where)
	}
}

func (q *request) OriginInterim(_ int, r *http1.Response, _ []byte) {
	q.interims = append(q.interims, r.Status)
	q.at("interim")
}

func (q *request) OriginHead(r *http1.Response, _ []byte, f http1.Framing) Sink {
	q.status, q.framing = r.Status, f
	close(q.headed)
	q.at("head")
	return q
}

func (q *request) OriginUnkept()   { q.at("unkept") }
func (q *request) OriginProgress() { q.at("progress") }
func (q *request) OriginEnd()      { q.at("end"); close(q.over) }
func (q *request) OriginFail(f Failure) {
	q.failure = &f
	close(q.over)
}

func (q *request) OriginResumed(int64, int) Sink { return q }

func (q *request) OriginTunnel(s Switched, early []byte) {
	for _, page := range s.Pages {
		defer q.r.arena.Put(page)
	}
	q.fd, q.early = s.FD, append([]byte(nil), early...)
	close(q.over)
}

func (q *request) Space() []byte {
	q.at("space")
	if !q.active {
		return nil
	}
	if q.most < 0 {
		return q.buf[:]
	}
	return q.buf[:min(q.most-len(q.body), len(q.buf))]
}

func (q *request) Commit(n int) { q.body = append(q.body, q.buf[:n]...) }

// body is a request body that is all there from the beginning, unless it waits.
type body struct {
	p     []byte
	state BodyState // behind p
	taken uint64
}

func (b *body) Next() ([]byte, BodyState) { return b.p, b.state }
func (b *body) Advance(n int)             { b.p, b.taken = b.p[n:], b.taken+uint64(n) }
func (b *body) Taken() uint64             { return b.taken }

// serve makes an origin that serves each connection by its own script, in the
// order they come, and returns its address.
func serve(t *testing.T, script ...func(c *peer)) string {
	t.Helper()
	return serveAt(t, "127.0.0.1:0", script...)
}

// serveAt makes one at an address of its own.
func serveAt(t *testing.T, addr string, script ...func(c *peer)) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards conns
	var conns []net.Conn
	wg.Go(func() {
		for _, f := range script {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f(&peer{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// peer is the origin's end of a connection.
type peer struct {
	*net.TCPConn
	in *bufio.Reader
}

// request reads a request with its body; false when there is none.
func (p *peer) request() (string, bool) {
	q, err := http.ReadRequest(p.in)
	if err != nil {
		return "", false
	}
	b, err := io.ReadAll(q.Body)
	return string(b), err == nil
}

func (p *peer) say(s string) { io.WriteString(p, s) }

// stay waits until the other side closes.
func (p *peer) stay() { io.Copy(io.Discard, p.in) }

// answer is a script that answers every request of a connection alike.
func answer(s string) func(*peer) {
	return func(p *peer) {
		for {
			if _, ok := p.request(); !ok {
				return
			}
			p.say(s)
		}
	}
}
