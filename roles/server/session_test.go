package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/stats"
)

// A client's connection in every phase of its life.

// dial opens a connection to the engine.
func (e *engine) dial() *net.TCPConn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func (e *engine) say(c net.Conn, s string) {
	e.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		e.t.Fatal(err)
	}
}

// expect reads one response and its body.
func (e *engine) expect(in *bufio.Reader, status int, body string) *http.Response {
	e.t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || string(b) != body {
		e.t.Fatalf("got %d %q %v, want %d %q", resp.StatusCode, b, err, status, body)
	}
	return resp
}

// expectGone waits until no session is left.
func (e *engine) expectGone() {
	e.t.Helper()
	waitFor(e.t, "the sessions to end", func() bool {
		return e.sessions() == 0 && e.count(stats.ClientConnectionsCurrent) == 0
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%s %s", r.URL.Path, b)
}

func TestBytesMayArriveOneByOne(t *testing.T) {
	e := startEngine(t, 1, nil, "/="+startOrigin(t, echo))
	c := e.dial()
	in := bufio.NewReader(c)
	for _, b := range []byte("\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz" +
		"\r\nPOST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;e=v\r\nc\r\n0\r\nTrailer: v\r\n\r\n") {
		e.say(c, string(b))
	}
	e.expect(in, 200, "/a ")
	e.expect(in, 200, "/b xyz")
	e.expect(in, 200, "/c abc")
}

func TestPipelinedBodiesOfBothFramings(t *testing.T) {
	e := startEngine(t, 1, nil, "/="+startOrigin(t, echo))
	long := strings.Repeat("x", 5000) // more than the page of the head
	got := bufio.NewReader(strings.NewReader(e.raw(
		"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\nU: w\r\n\r\n" +
			fmt.Sprintf("POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(long), long) +
			fmt.Sprintf("POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long) +
			"GET /4 HTTP/1.1\r\nHost: h\r\n\r\n")))
	e.expect(got, 200, "/1 abc")
	e.expect(got, 200, "/2 "+long)
	e.expect(got, 200, "/3 "+long)
	e.expect(got, 200, "/4 ")
}

func TestReplyFraming(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(304)
		case "/chunked":
			io.WriteString(w, "abc")
			w.(http.Flusher).Flush()
		default:
			w.Header().Set("Age", "7")
			io.WriteString(w, "abc")
		}
	})
	e := startEngine(t, 1, nil, "/="+o)
	for _, c := range []struct {
		request    string
		has, lacks []string
		end        string
	}{
		{"GET /200 HTTP/1.1\r\nHost: h\r\n\r\n", []string{"Content-Length: 3\r\n", "Age: 7\r\n", "Via: 1.1 trafficd\r\n", "Date: "}, []string{"Connection"}, "\r\n\r\nabc"},
		{"GET /200 HTTP/1.0\r\n\r\n", []string{"Content-Length: 3\r\n", "Connection: close\r\n"}, nil, "\r\n\r\nabc"},
		{"GET /200 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []string{"Connection: keep-alive\r\n"}, nil, "\r\n\r\nabc"},
		{"GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n", []string{"Transfer-Encoding: chunked\r\n"}, []string{"Content-Length"}, "\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []string{"Connection: close\r\n"}, []string{"Transfer-Encoding", "keep-alive"}, "\r\n\r\nabc"},
		{"HEAD /200 HTTP/1.1\r\nHost: h\r\n\r\n", []string{"Content-Length: 3\r\n"}, nil, "\r\n\r\n"},
		{"GET /204 HTTP/1.1\r\nHost: h\r\n\r\n", nil, []string{"Content-Length", "Transfer-Encoding"}, "\r\n\r\n"},
		{"HEAD /304 HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\n\r\n", []string{"304", "\"a\""}, []string{"Transfer-Encoding"}, "\r\n\r\n"},
		{"GET /304 HTTP/1.1\r\nHost: h\r\n\r\n", []string{"HTTP/1.1 502 "}, nil, "\n"}, // nobody asked for it
		{"HEAD /x HTTP/1.1\r\nHost: h\r\nCache-Control: only-if-cached\r\n\r\n", []string{"HTTP/1.1 504 "}, nil, "\r\n\r\n"},
	} {
		got := e.raw(c.request)
		for _, want := range append(c.has, c.end) {
			if !strings.Contains(got, want) {
				t.Errorf("%q: no %q in %q", c.request, want, got)
			}
		}
		for _, no := range c.lacks {
			if strings.Contains(got, no) {
				t.Errorf("%q: %q in %q", c.request, no, got)
			}
		}
		if !strings.HasSuffix(got, c.end) || strings.Count(got, "Via: ") > 1 {
			t.Errorf("%q: got %q, want it to end in %q", c.request, got, c.end)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	const head = "POST /%s HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
	refusing := scriptedOrigin(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
		}
	})
	e := startEngine(t, 1, nil, "/="+startOrigin(t, echo), "/refused="+refusing)
	c := e.dial()
	in := bufio.NewReader(c)
	e.say(c, fmt.Sprintf(head, "x"))
	if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, %v", line, err)
	}
	in.ReadString('\n')
	e.say(c, "abc")
	e.expect(in, 200, "/x abc")
	// A client that does not wait keeps its connection, and needs no 100.
	e.say(c, fmt.Sprintf(head, "y")+"abc")
	if resp := e.expect(in, 200, "/y abc"); resp.Close {
		t.Error("the connection was closed")
	}
	// What was refused may still be sent, so the connection cannot go on.
	e.say(c, fmt.Sprintf(head, "refused"))
	if resp := e.expect(in, 403, "no"); !resp.Close {
		t.Error("the connection goes on where the body may come")
	}
}

func TestUnwantedBodies(t *testing.T) {
	e := startEngine(t, 1, nil, "http://known/="+startOrigin(t, echo))
	c := e.dial()
	in := bufio.NewReader(c)
	e.say(c, "POST / HTTP/1.1\r\nHost: unknown\r\nContent-Length: 3\r\n\r\nabc")
	if resp := e.expect(in, 404, "404 Not Found: no remap rule applies to this request\n"); resp.Close {
		t.Error("a small body that had come made the connection end")
	}
	// Nobody reads this one; the reply must get through all the same.
	e.say(c, "POST / HTTP/1.1\r\nHost: unknown\r\nContent-Length: 1048576\r\n\r\n")
	if resp := e.expect(in, 404, "404 Not Found: no remap rule applies to this request\n"); !resp.Close {
		t.Error("the connection goes on in the middle of a body")
	}
	e.say(c, strings.Repeat("x", 1<<20))
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the end, not a reset", err)
	}
	c.Close()
	e.expectGone()
}

func TestAMalformedChunkIsTheClientsFault(t *testing.T) {
	e := startEngine(t, 1, nil, "/="+startOrigin(t, echo))
	got := e.raw("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestClientsMayVanishInAnyPhase(t *testing.T) {
	hold := make(chan struct{})
	began := make(chan struct{}, 16)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		if r.URL.Path == "/body" {
			w.Header().Set("Content-Length", "100000000")
			w.WriteHeader(200)
			for buf := make([]byte, 1<<16); ; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		}
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	defer close(hold)
	e := startEngine(t, 1, nil, "/="+o)
	for name, c := range map[string]struct {
		sent string
		asks bool // the origin
	}{
		"idle":                 {"", false},
		"in a head":            {"GET / HT", false},
		"waiting":              {"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n", true},
		"in a request's body":  {"POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\nabc", true},
		"in a response's body": {"GET /body HTTP/1.1\r\nHost: h\r\n\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			conn := e.dial()
			e.say(conn, c.sent)
			if c.asks {
				<-began
			}
			waitFor(t, "the session", func() bool { return e.sessions() == 1 })
			if err := conn.SetLinger(0); err != nil { // a reset
				t.Fatal(err)
			}
			conn.Close()
			e.expectGone()
		})
	}
}

func TestTimeLimitsOfClients(t *testing.T) {
	const short = 40 * time.Millisecond
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "100000000")
		for buf := make([]byte, 1<<16); ; {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	})
	for _, c := range []struct {
		name, sent, answer string
		tune               func(*config.Config)
		counted            stats.Metric
	}{
		{"head", "GET / HT", "HTTP/1.1 408 ", func(c *config.Config) { c.Timeouts.ClientHeader = short }, stats.TimeoutClientHeader},
		{"body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 408 ", func(c *config.Config) { c.Timeouts.ClientBody = short }, stats.TimeoutClientBody},
		{"idle", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 ", func(c *config.Config) { c.Timeouts.ClientIdle = short }, stats.TimeoutClientIdle},
		{"write", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "", func(c *config.Config) { c.Timeouts.ClientWrite = short }, stats.TimeoutClientWrite},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEngine(t, 1, c.tune, "/="+o)
			conn := e.dial()
			e.say(conn, c.sent)
			waitFor(t, "the limit", func() bool { return e.count(c.counted) == 1 })
			if c.answer != "" {
				b, err := io.ReadAll(conn)
				if err != nil || !strings.HasPrefix(string(b), c.answer) {
					t.Errorf("got %q, %v", b, err)
				}
			}
			conn.Close()
			e.expectGone()
		})
	}
}

func TestDrainEndsConnectionsWithTheirReplies(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-release
		}
		io.WriteString(w, "ok")
	})
	e := startEngine(t, 1, nil, "/="+o)
	busy, quiet := e.dial(), e.dial()
	e.say(quiet, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	in := bufio.NewReader(quiet)
	e.expect(in, 200, "ok")
	e.say(busy, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	e.each(func(w *worker) { w.host.Drain() })
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: got %v, want its end", err)
	}
	close(release)
	if resp := e.expect(bufio.NewReader(busy), 200, "ok"); !resp.Close {
		t.Error("a reply of a draining server does not say close")
	}
	busy.Close()
	e.expectGone()
}

// A fast reader of a large body takes turns with the others of its loop.
func TestLargeHitsComeWhole(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 6<<20/16)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, body)
	})
	e := startEngine(t, 1, nil, "/="+o)
	for range 3 {
		if _, got := e.get(e.client(), "/"); got != body {
			t.Errorf("got %d bytes, want %d", len(got), len(body))
		}
	}
}

// mallocsOf counts what the whole process allocates while f runs n times.
func mallocsOf(n int, f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

func TestAHitAllocatesNothing(t *testing.T) {
	e := startEngine(t, 1, nil)
	request := []byte("GET / HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n")
	buf := make([]byte, 64<<10)
	c := e.dial()
	var size int
	hit := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for got := 0; got == 0 || got < size; {
			n, err := c.Read(buf[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
			if size == 0 {
				return
			}
		}
	}
	first, err := http.NewRequest("GET", e.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := e.client().Do(first)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	hit() // one whole response, received at once on the loopback
	waitFor(t, "the response", func() bool { return e.count(stats.Responses2xx) == 2 })
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	size = 1 // from now on a burst is a response
	for range 100 {
		hit()
	}
	if got := mallocsOf(2000, hit); got > 0.05 {
		t.Errorf("a hit over keep-alive allocates %.3f times", got)
	}
	if hits := e.count(stats.CacheHits); hits < 2000 {
		t.Errorf("got %d hits", hits)
	}
}

func TestAHitOverANewConnectionAllocatesLittle(t *testing.T) {
	e := startEngine(t, 1, nil)
	request := []byte("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	buf := make([]byte, 64<<10)
	fetch := func(port int) {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		syscall.Write(fd, request)
		for n := 1; n > 0; {
			n, _ = syscall.Read(fd, buf)
		}
	}
	var port int
	fmt.Sscan(e.addr[strings.LastIndexByte(e.addr, ':')+1:], &port)
	for range 50 {
		fetch(port)
	}
	// One of these is the address that the client's own Connect makes.
	if got := mallocsOf(500, func() { fetch(port) }); got > 3 {
		t.Errorf("a hit over a new connection allocates %.2f times", got)
	}
}
