package server

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
)

// engine is a server without its process: loops, cache and one listener.
type engine struct {
	*Server
	t    *testing.T
	addr string
}

// startEngine serves the given remap rules ("/=http://…") on a port of its own.
func startEngine(t *testing.T, threads int, tune func(*config.Config), rules ...string) *engine {
	t.Helper()
	c, err := config.Load(config.Sources{Flags: config.Overrides{Map: rules, Threads: fmt.Sprint(threads)}})
	if err != nil {
		t.Fatal(err)
	}
	if tune != nil {
		tune(c)
	}
	log, err := logging.New(logging.Options{Role: "server", Level: "error"})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(1)
	s.log, s.heritage, s.region = log, heritage.New(), stats.New()
	s.bank = s.region.Bank(1)
	s.bank.Begin(1, threads)
	mem, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	if s.store, err = cache.Open(mem, cache.Options{MaxObject: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := s.build(c); err != nil {
		t.Fatal(err)
	}
	l, err := queue.Bind("127.0.0.1:0", 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.workers {
		w.run(func() { err = w.acceptOn(l.FD()) })
		if err != nil {
			t.Fatal(err)
		}
	}
	e := &engine{Server: s, t: t, addr: l.Addr().String()}
	t.Cleanup(func() {
		s.each((*worker).stopAccepting)
		s.each(func(w *worker) { w.host.CloseAll() })
		e.expectNoPages()
		if err := s.group.Close(); err != nil {
			t.Error(err)
		}
		l.Close()
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return e
}

// expectNoPages checks that whatever was served gave its memory back.
func (e *engine) expectNoPages() {
	e.each(func(w *worker) {
		w.env.Origins.CloseIdle()
		if used := w.env.Arena.InUse(); used != (buffer.Shape{}) {
			e.t.Errorf("pages are still in use: %+v", used)
		}
	})
}

func (e *engine) count(m stats.Metric) int { return int(e.region.Sum(m)) }

// client does not reuse connections of another test.
func (e *engine) client() *http.Client {
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func (e *engine) url(path string) string { return "http://" + e.addr + path }

// get fetches and returns the response with its body.
func (e *engine) get(c *http.Client, path string, fields ...string) (*http.Response, string) {
	e.t.Helper()
	req, err := http.NewRequest("GET", e.url(path), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		e.t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatalf("GET %s: read body: %v", path, err)
	}
	return resp, string(body)
}

// raw sends bytes on a connection of their own, says that no more will come if
// half is true, and returns all that is answered.
func (e *engine) raw(request string) string {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		e.t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		e.t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		e.t.Fatalf("read: %v after %q", err, b)
	}
	return string(b)
}

func startOrigin(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	o := httptest.NewServer(h)
	t.Cleanup(o.Close)
	return o.URL
}

func TestBuiltinPageGoesThroughTheCache(t *testing.T) {
	e := startEngine(t, 1, nil)
	c := e.client()
	for i, want := range []int{0, 1, 2} {
		resp, body := e.get(c, "/")
		if resp.StatusCode != 200 || !strings.Contains(body, "trafficd is running") {
			t.Fatalf("request %d: got %d %q", i, resp.StatusCode, body)
		}
		if got := e.count(stats.CacheHits); got != want {
			t.Errorf("request %d: got %d hits, want %d", i, got, want)
		}
	}
	if resp, _ := e.get(c, "/nothing"); resp.StatusCode != 404 {
		t.Errorf("got %d, want 404", resp.StatusCode)
	}
}

func TestHitsAndMisses(t *testing.T) {
	var asked sync.Map
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := asked.LoadOrStore(r.URL.Path, new(int))
		*n.(*int)++
		if strings.HasPrefix(r.URL.Path, "/c") {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		fmt.Fprintf(w, "%s %d", r.URL.Path, *n.(*int))
	})
	e := startEngine(t, 2, nil, "/="+o)
	c := e.client()
	for range 3 {
		if _, body := e.get(c, "/c1"); body != "/c1 1" {
			t.Errorf("got %q, want the stored response", body)
		}
	}
	e.get(c, "/n")
	if _, body := e.get(c, "/n"); body != "/n 2" {
		t.Errorf("got %q, want a response of its own", body)
	}
	resp, _ := e.get(c, "/c1")
	if resp.Header.Get("Age") == "" || resp.Header.Get("Via") == "" {
		t.Errorf("a hit without Age or Via: %v", resp.Header)
	}
}

func TestLargeBodiesOfEveryFraming(t *testing.T) {
	big := make([]byte, 20<<20) // larger than an object may be
	rand.Read(big)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		case "/chunked":
			for p := big; len(p) > 0; p = p[1<<20:] {
				w.Write(p[:1<<20])
				w.(http.Flusher).Flush()
			}
		case "/medium":
			w.Write(big[:5<<20])
		}
	})
	e := startEngine(t, 2, nil, "/="+o)
	c := e.client()
	for range 2 {
		for path, want := range map[string][]byte{"/length": big, "/chunked": big, "/medium": big[:5<<20]} {
			if _, body := e.get(c, path); body != string(want) {
				t.Errorf("%s: got %d bytes that are not the origin's %d", path, len(body), len(want))
			}
		}
	}
	if got := e.count(stats.CacheHits); got != 1 {
		t.Errorf("got %d hits, want 1: only /medium fits", got)
	}
}

func TestUploads(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v %v %x", len(b), err, r.TransferEncoding, sum(b))
	})
	e := startEngine(t, 1, nil, "/="+o)
	c := e.client()
	for _, size := range []int{0, 1, 4000, 70_000, 10 << 20} {
		b := make([]byte, size)
		rand.Read(b)
		for _, chunked := range []bool{false, true} {
			var body io.Reader = bytes.NewReader(b)
			if chunked {
				body = io.MultiReader(body)
			}
			resp, err := c.Post(e.url("/"), "application/octet-stream", body)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %v", size, chunked, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := fmt.Sprintf("%d <nil>", size); err != nil || !strings.HasPrefix(string(got), want) || !strings.HasSuffix(string(got), fmt.Sprintf("%x", sum(b))) {
				t.Errorf("%d bytes, chunked %v: the origin got %q, %v", size, chunked, got, err)
			}
		}
	}
}

func sum(b []byte) (s uint32) {
	for _, c := range b {
		s = s*31 + uint32(c)
	}
	return s
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body); fmt.Fprint(w, r.URL.Path) })
	e := startEngine(t, 1, nil, "/="+o)
	var req strings.Builder
	for i := range 40 {
		if i%2 == 0 {
			fmt.Fprintf(&req, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
		} else {
			fmt.Fprintf(&req, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", i)
		}
	}
	got := bufio.NewReader(strings.NewReader(e.raw(req.String())))
	for i := range 40 {
		resp, err := http.ReadResponse(got, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		want := fmt.Sprintf("/%d", i)
		if i%2 == 1 {
			want = "abc" + want
		}
		if err != nil || string(body) != want {
			t.Errorf("response %d: got %q %v, want %q", i, body, err, want)
		}
	}
}

func TestConcurrentMissesAreCollapsed(t *testing.T) {
	const clients = 40
	release := make(chan struct{})
	asked := make(chan struct{}, clients)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "once")
	})
	e := startEngine(t, 2, nil, "/="+o)
	c := e.client()
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, body := e.get(c, "/"); body != "once" {
				t.Errorf("got %q", body)
			}
		}()
	}
	waitFor(t, "all but one to follow", func() bool { return e.count(stats.CacheCollapsed) == clients-1 })
	close(release)
	wg.Wait()
	if n := len(asked); n != 1 {
		t.Errorf("the origin was asked %d times, want once", n)
	}
}

// waitFor polls for what no event announces.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(time.Millisecond); !cond(); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

func TestTruncatedResponsesAreNotPassedOffAsWhole(t *testing.T) {
	o := rawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=60\r\n\r\nshort")
	e := startEngine(t, 1, nil, "/="+o)
	c := e.client()
	for range 2 {
		resp, err := c.Get(e.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		// When nothing has been passed on yet there is still time to say so.
		if _, err := io.ReadAll(resp.Body); resp.StatusCode != 502 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %d and %v, want 502 or an unexpected end", resp.StatusCode, err)
		}
		resp.Body.Close()
	}
	if n := e.count(stats.CacheHits); n != 0 {
		t.Errorf("got %d hits of a response that never was complete", n)
	}
}

// rawOrigin answers each connection's first request with the given bytes and
// closes.
func rawOrigin(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestBadRequests(t *testing.T) {
	e := startEngine(t, 1, nil)
	for _, c := range []struct{ request, status string }{
		{"GET / HTTP/1.1\r\n\r\n", "400"},
		{"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505"},
		{"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
		{"GET / HTTP/1.1\nHost: h\n\n", "400"},
		{"\x16\x03\x01\x02\x00", "400"},
		{"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "405"},
		{"GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: h\r\n\r\n", "414"},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n", "431"},
	} {
		got := e.raw(c.request)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") || c.status != "405" && !strings.Contains(got, "Connection: close\r\n") {
			t.Errorf("%.40q: got %.100q, want %s and close", c.request, got, c.status)
		}
	}
}

func TestUpgradeTunnels(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ")
		io.Copy(c, br)
	}()
	e := startEngine(t, 1, nil, "/=http://"+l.Addr().String())
	got := e.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nand back")
	head, rest, ok := strings.Cut(got, "\r\n\r\n")
	if !ok || !strings.HasPrefix(head, "HTTP/1.1 101 ") || rest != "hello and back" {
		t.Errorf("got %q", got)
	}
}
