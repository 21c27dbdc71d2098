package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
)

// What an origin gets of a request, and what is answered in its place.

// echoHead is an origin that answers with the head it got.
func echoHead(t *testing.T) string {
	t.Helper()
	return scriptedOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			var head strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if head.WriteString(line); line == "\r\n" {
					break
				}
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", head.Len(), head.String())
		}
	})
}

// scriptedOrigin gives each connection to serve and closes it afterwards.
func scriptedOrigin(t *testing.T, serve func(net.Conn)) string {
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
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestTheRequestHeadAsTheOriginGetsIt(t *testing.T) {
	e := startEngine(t, 1, nil, "/="+echoHead(t), "/p="+echoHead(t)+"/deep")
	for _, c := range []struct {
		name, request string
		has, lacks    []string
	}{
		{"request line and host", "GET /p/a?b=c HTTP/1.1\r\nHost: Example.com:81\r\n\r\n",
			[]string{"GET /deep/a?b=c HTTP/1.1\r\nHost: example.com:81\r\n"}, nil},
		{"absolute form", "GET http://other.test?x HTTP/1.1\r\nHost: h\r\n\r\n",
			[]string{"GET /?x HTTP/1.1\r\nHost: other.test\r\n"}, []string{"Host: h"}},
		{"no host", "GET / HTTP/1.0\r\n\r\n", []string{"HTTP/1.1\r\nHost: 127.0.0.1:", "Via: 1.0 trafficd\r\n"}, nil},
		{"hop by hop", "POST / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: 5\r\nX-Mine: 1\r\n" +
			"TE: trailers\r\nTrailer: T\r\nProxy-Connection: close\r\nProxy-Authorization: b\r\nUpgrade: x\r\nX-Yours: 2\r\nContent-Length: 0\r\n\r\n",
			[]string{"X-Yours: 2\r\n", "Content-Length: 0\r\n"},
			[]string{"Connection", "Keep-Alive", "X-Mine", "TE:", "Trailer", "Proxy-", "Upgrade"}},
		{"via and forwarded", "POST / HTTP/1.1\r\nHost: h\r\nVia: 1.1 other\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 0\r\n\r\n",
			[]string{"Via: 1.1 other\r\n", "Via: 1.1 trafficd\r\n", "X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n"}, nil},
		{"conditions of a GET that may be stored", "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\nIf-Match: \"b\"\r\n\r\n",
			[]string{"If-Match: \"b\"\r\n"}, []string{"If-None-Match"}},
		{"range", "GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n", []string{"Range: bytes=0-1\r\n"}, nil},
		{"max-forwards of OPTIONS", "OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n", []string{"Max-Forwards: 2\r\n"}, nil},
		{"max-forwards of GET", "GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", []string{"Max-Forwards: 0\r\n"}, nil},
		{"upgrade", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
			[]string{"Connection: Upgrade\r\nUpgrade: websocket\r\n"}, nil},
		{"upgrade to another HTTP", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x, H2C\r\n\r\n", nil, []string{"Upgrade"}},
		{"upgrade to what is no protocol", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x, y;q=1\r\n\r\n", nil, []string{"Upgrade"}},
		{"upgrade with content", "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nab",
			nil, []string{"Upgrade"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, got, _ := strings.Cut(e.raw(c.request), "\r\n\r\n")
			for _, want := range c.has {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %q", want, got)
				}
			}
			for _, no := range c.lacks {
				if strings.Contains(got, no) {
					t.Errorf("%q in %q", no, got)
				}
			}
		})
	}
}

func TestRequestsThatEndHere(t *testing.T) {
	e := startEngine(t, 1, nil, "/="+echoHead(t))
	const close = "Connection: close\r\n"
	for _, c := range []struct{ request, status, has string }{
		{"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", "200", "Allow: "},
		{"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "200", "Allow: "},
		{"OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", "200", "Allow: "},
		{"TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nCookie: secret\r\n\r\n", "405", "Allow: "},
		{"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "405", close},
		{"GET / HTTP/1.1\r\nHost: h\r\nVia: " + strings.Repeat("1.1 Trafficd (x), ", 8) + "1.0 a\r\n\r\n", "508", ""},
		{"GET / HTTP/1.1\r\nHost: h\r\nVia: " + strings.Repeat("1.1 trafficd, 1.1 other, ", 7) + "\r\n\r\n", "200", ""},
		{"GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "421", ""},
	} {
		got := e.raw(c.request)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status) || !strings.Contains(got, c.has) || strings.Contains(got, "secret") {
			t.Errorf("%q: got %q, want %s and %q", c.request, got, c.status, c.has)
		}
		if n := strings.Count(got, "HTTP/1.1 "); c.status == "405" && n != 1 {
			t.Errorf("%q: got %d answers: %q", c.request, n, got)
		}
	}
}

// A request that is sent again is the same request, whatever the loop has sent
// meanwhile.
func TestARetriedRequestIsStillItself(t *testing.T) {
	var mu sync.Mutex
	conns, waiting, drop := 0, make(chan struct{}), make(chan struct{})
	o := scriptedOrigin(t, func(c net.Conn) {
		mu.Lock()
		conns++
		first := conns == 1
		mu.Unlock()
		in := bufio.NewReader(c)
		for n := 0; ; n++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if first && n == 1 {
				close(waiting)
				<-drop
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path)
		}
	})
	e := startEngine(t, 1, nil, "/="+o)
	c := e.client()
	e.get(c, "/warm")
	got := make(chan string)
	go func() { _, body := e.get(c, "/mine"); got <- body }()
	<-waiting
	if _, body := e.get(c, "/theirs"); body != "/theirs" {
		t.Errorf("got %q", body)
	}
	close(drop)
	if body := <-got; body != "/mine" {
		t.Errorf("got the answer to %q, want /mine", body)
	}
	if n := e.count(stats.OriginRetries); n != 1 {
		t.Errorf("got %d retries, want 1", n)
	}
}

// A request that would find out whether its origin is up again, and that cannot be passed on at all.
func TestARequestThatCannotBePassedOnFindsOutNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	e := startEngine(t, 1, func(c *config.Config) {
		c.Origin.FailThreshold, c.Origin.DownTime = 1, time.Hour
		c.Limits.HeaderSize = buffer.Large
	}, "/=http://"+addr)
	ask := func(field string, status int) {
		t.Helper()
		if got := e.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + field + "\r\n"); !strings.HasPrefix(got, fmt.Sprint("HTTP/1.1 ", status)) {
			t.Errorf("got %.40q, want %d", got, status)
		}
	}
	ask("", 502)
	ask("X: "+strings.Repeat("x", buffer.Large-60)+"\r\n", 431)
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask("", 200)
}

func TestAPostIsNotSentTwice(t *testing.T) {
	o := scriptedOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		http.ReadRequest(in)
	})
	e := startEngine(t, 1, nil, "/="+o)
	e.get(e.client(), "/")
	got := e.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
	if !strings.HasPrefix(got, "HTTP/1.1 502 ") || e.count(stats.OriginRetries) != 0 {
		t.Errorf("got %q after %d retries", got, e.count(stats.OriginRetries))
	}
}

// An error of our own says what happened, and no name or address of an origin.
func TestErrorsTellNoInnards(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // refuses from now on
	e := startEngine(t, 1, nil, "/refused=http://"+addr, "/silent="+rawOrigin(t, ""), "/nonsense="+rawOrigin(t, "HTTP/1.1 what\r\n\r\n"))
	for path, want := range map[string]string{
		"/refused":  "502 Bad Gateway: the origin refused the connection\n",
		"/silent":   "502 Bad Gateway: the origin closed the connection without an answer\n",
		"/nonsense": "502 Bad Gateway: the origin's response is malformed\n",
	} {
		if resp, body := e.get(e.client(), path); resp.StatusCode != 502 || body != want {
			t.Errorf("%s: got %d %q, want %q", path, resp.StatusCode, body, want)
		}
	}
}
