package autoconf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/stats"
)

// port is a handler whose loop turns, with what it complained of.
type port struct {
	*Handler
	complaints []string
	turns      bool
}

func newPort() *port {
	p := &port{turns: true}
	p.Handler = New(Options{
		Pulse:   func(context.Context) bool { return p.turns },
		Metrics: stats.New().WritePrometheus,
		Failed:  func(path string, err error) { p.complaints = append(p.complaints, path+": "+err.Error()) },
	})
	return p
}

func (p *port) ask(method, target string) *http.Response {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8083}))
	p.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPaths(t *testing.T) {
	p := newPort()
	for _, tt := range []struct {
		method, path string
		status       int
		contentType  string
		contains     string
	}{
		{"GET", "/", 200, "text/plain; charset=utf-8", "/proxy.pac"},
		{"GET", "/proxy.pac", 200, ContentType, "FindProxyForURL(url, host)"},
		{"GET", "/wpad.dat", 200, ContentType, "FindProxyForURL(url, host)"},
		{"GET", "/synthetic.txt", 200, "text/plain", heartbeat.Page},
		{"HEAD", "/synthetic.txt", 200, "text/plain", ""},
		{"GET", "/metrics", 200, stats.ContentType, "# TYPE trafficd_queue_depth gauge"},
		{"GET", "/nothing", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/nothing", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/proxy.pac", 405, "text/plain; charset=utf-8", ""},
		{"DELETE", "/metrics", 405, "text/plain; charset=utf-8", ""},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			r := p.ask(tt.method, "http://192.0.2.7:8083"+tt.path)
			body := text(t, r)
			if r.StatusCode != tt.status || r.Header.Get("Content-Type") != tt.contentType || !strings.Contains(body, tt.contains) {
				t.Errorf("status %d, type %q, body %.200q", r.StatusCode, r.Header.Get("Content-Type"), body)
			}
			if tt.status == 405 && r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow: %q", r.Header.Get("Allow"))
			}
			if tt.method == "HEAD" && (body != "" || r.Header.Get("Content-Length") == "0") {
				t.Errorf("HEAD: body of %d bytes, Content-Length %s", len(body), r.Header.Get("Content-Length"))
			}
		})
	}
}

// What has content, or is no reading, is the last request of its connection: nothing behind it is answered.
func TestOddRequestsEndTheConnection(t *testing.T) { // RFC 9112 §6.1
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(newPort().Handler)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	defer func() { srv.Close(); <-ended }()
	const next = "GET /synthetic.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		request string
		answers string
	}{
		{"GET /synthetic.txt HTTP/1.1\r\nHost: a\r\n\r\n", "200 200 close"},
		{"HEAD /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "404 200 close"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "200 close"},
		{"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 close"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 close"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 close"},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 close"},
		{"POST /synthetic.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405 close"},
		{"DELETE /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "404 close"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "405 close"},
	} {
		if got := converse(t, l.Addr().String(), c.request+next); got != c.answers {
			t.Errorf("%q: got %s, want %s", c.request, got, c.answers)
		}
	}
}

// converse sends what may be several requests, and tells the statuses of the answers until the connection ends. The last says
// that it does.
func converse(t *testing.T, addr, requests string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, requests); err != nil {
		t.Fatal(err)
	}
	got, in, method := "", bufio.NewReader(c), requests[:strings.IndexByte(requests, ' ')]
	for {
		r, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return got + err.Error()
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return got + err.Error()
		}
		if got += fmt.Sprint(r.StatusCode, " "); r.Close {
			if _, err := in.ReadByte(); err != io.EOF {
				return got + fmt.Sprint("and then ", err)
			}
			return got + "close"
		}
		method = "GET"
	}
}

func TestHeartbeatNeedsTheLoop(t *testing.T) {
	p := newPort()
	p.turns = false
	if r := p.ask("GET", "/synthetic.txt"); r.StatusCode != 503 {
		t.Errorf("status %d although the loop does not turn", r.StatusCode)
	}
}

func TestGenerated(t *testing.T) {
	for _, tt := range []struct {
		name    string
		proxies []string
		host    string // of the Host field
		want    string
	}{
		{"one", []string{"127.0.0.1:8080"}, "127.0.0.1:8083", "PROXY 127.0.0.1:8080; DIRECT"},
		{"several, in order, once", []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"}, "x", "PROXY 10.0.0.1:80; PROXY 10.0.0.2:80; DIRECT"},
		{"IPv6", []string{"[2001:db8::1]:80"}, "x", "PROXY [2001:db8::1]:80; DIRECT"},
		{"wildcard, by name", []string{"0.0.0.0:8080"}, "proxy.example:8083", "PROXY proxy.example:8080; DIRECT"},
		{"wildcard, by address", []string{"[::]:8080"}, "[2001:db8::2]:8083", "PROXY [2001:db8::2]:8080; DIRECT"},
		{"wildcard, without a port", []string{"[::]:8080"}, "proxy.example", "PROXY proxy.example:8080; DIRECT"},
		{"wildcard, a host that is a trick", []string{"0.0.0.0:8080"}, `x";alert(1)//`, "PROXY 192.0.2.7:8080; DIRECT"},
		{"nothing", nil, "x", "DIRECT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPort()
			s := Settings{Forward: true}
			for _, a := range tt.proxies {
				s.Proxies = append(s.Proxies, netip.MustParseAddrPort(a))
			}
			p.Set(s)
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/proxy.pac", nil)
			r.Host = tt.host
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8083}))
			p.ServeHTTP(w, r)
			if got := w.Body.String(); !strings.Contains(got, "\treturn \""+tt.want+"\";\n") {
				t.Errorf("want %q in\n%s", tt.want, got)
			}
		})
	}
}

// Where nobody may use the proxy as a forward proxy, browsers are not sent to it.
func TestGeneratedWithoutForwarding(t *testing.T) {
	p := newPort()
	s := Settings{Proxies: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")}}
	for _, s.Forward = range []bool{false, true, false} {
		p.Set(s)
		got := text(t, p.ask("GET", "/proxy.pac"))
		if strings.Contains(got, `return "PROXY 127.0.0.1:8080; DIRECT"`) != s.Forward || strings.HasPrefix(got, "// forward.allow names no clients: PROXY 127.0.0.1:8080 is") == s.Forward {
			t.Errorf("forwarding %v:\n%s", s.Forward, got)
		}
	}
}

func TestFile(t *testing.T) {
	p := newPort()
	path := filepath.Join(t.TempDir(), "our.pac")
	write := func(text string, when time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Unix(1_700_000_000, 0)
	p.Set(Settings{PACFile: path})
	if r := p.ask("GET", "/proxy.pac"); r.StatusCode != 500 || len(p.complaints) != 1 {
		t.Errorf("no file: status %d, complaints %q", r.StatusCode, p.complaints)
	}
	write("first", begin)
	for range 2 {
		if r := p.ask("GET", "/wpad.dat"); r.Header.Get("Content-Type") != ContentType || text(t, r) != "first" {
			t.Errorf("got %v", r)
		}
	}
	write("other", begin.Add(time.Second))
	if got := text(t, p.ask("GET", "/proxy.pac")); got != "other" {
		t.Errorf("after a change: %q", got)
	}
	write(strings.Repeat("x", maxFile+1), begin.Add(2*time.Second))
	if r := p.ask("GET", "/proxy.pac"); r.StatusCode != 500 {
		t.Errorf("too long a file: status %d", r.StatusCode)
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if r := p.ask("GET", "/proxy.pac"); r.StatusCode != 500 {
		t.Errorf("a FIFO for a file: status %d", r.StatusCode)
	}
}

// A third connection is not accepted before one of two is closed.
func TestLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	default:
	}
	first.Close()
	first.Close() // twice closed is one room, not two
	third := <-accepted
	second.Close()
	third.Close()
	l.Close()
	<-ended
}

// Whatever a Host field says: the script stays a script with one string in it.
func FuzzReachedAs(f *testing.F) {
	for _, s := range []string{"", "localhost", "proxy.example:8083", "[::1]:8083", "::1", "[fe80::1%eth0]:1", `x"`, "x\n", "a b", "ä.example", "\x00", strings.Repeat("a", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		at := reachedAs(host, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7)})
		s := &Settings{Proxies: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")}, Forward: true}
		got := generate(s, at)
		if strings.Count(got, `"`) != strings.Count(script, `"`) || strings.Count(got, "\n") != strings.Count(script, "\n") {
			t.Fatalf("Host %q makes\n%s", host, got)
		}
		s.Forward = false
		if comment, _, _ := strings.Cut(generate(s, at), "function "); strings.Count(comment, "\n") != 1 || !strings.HasPrefix(comment, "//") || !strings.HasSuffix(comment, "\n") {
			t.Fatalf("Host %q makes the comment\n%s", host, comment)
		}
	})
}
