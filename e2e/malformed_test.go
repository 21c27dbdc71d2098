package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// "Bad input to the proxy: no crash, no hang": each is answered with its status, the connection
// is closed, the origin sees nothing of it, and the server is still the same process.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	server := p.PID(harness.Server)
	host := "Host: localhost\r\n"
	for _, c := range []struct {
		name, raw string
		status    int
	}{
		{"garbage", "\x00\x01\x02\xff\xfe\r\n\r\n", 400},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"no version", "GET /\r\n" + host + "\r\n", 400},
		{"unknown major version", "GET / HTTP/3.0\r\n" + host + "\r\n", 505},
		{"malformed version", "GET / HTTP/1.x\r\n" + host + "\r\n", 400},
		{"lower-case version", "GET / http/1.1\r\n" + host + "\r\n", 400},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"control in the target", "GET /a\x01b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", 400},
		{"other scheme", "GET ftp://localhost/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"method is no token", "G@T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"leading space", " GET / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
		{"bad Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:99999999\r\n\r\n", 400},
		{"bare LF", "GET / HTTP/1.1\n" + host + "\n\n", 400},
		{"bare LF in a field", "GET / HTTP/1.1\r\n" + host + "X: a\nY: b\r\n\r\n", 400},
		{"bare CR in a field", "GET / HTTP/1.1\r\n" + host + "X: a\rY: b\r\n\r\n", 400},
		{"folded field", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", 400},
		{"space before colon", "GET / HTTP/1.1\r\n" + host + "X : a\r\n\r\n", 400},
		{"field without colon", "GET / HTTP/1.1\r\n" + host + "nonsense\r\n\r\n", 400},
		{"empty field name", "GET / HTTP/1.1\r\n" + host + ": a\r\n\r\n", 400},
		{"field name is no token", "GET / HTTP/1.1\r\n" + host + "X(Y): a\r\n\r\n", 400},
		{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400},
		{"length and chunked", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"two equal lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400},
		{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400},
		{"negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
		{"hexadecimal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc", 400},
		{"enormous length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400},
		{"unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 400},
		{"unknown coding before chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"chunked not last", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, gzip\r\n\r\n", 400},
		{"chunked twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n", 400},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"chunked spelt with a control", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"unknown expectation", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nExpect: miracles\r\n\r\na", 417},
		{"long request line", "GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		{"endless request line", "GET /" + strings.Repeat("a", 1<<20), 414},
		{"large field", "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 40<<10) + "\r\n\r\n", 431},
		{"endless field", "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 1<<20), 431},
		{"many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: a\r\n", 200) + "\r\n", 431},
		{"endless empty lines", strings.Repeat("\r\n", 1<<16), 400},
		{"CONNECT", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := len(o.Requests())
			conn := harness.NewClient(t, p.Addr).Dial()
			defer conn.Close()
			conn.Offer(c.raw)
			r := conn.Read("GET")
			switch {
			case c.status == 0 && (r.Status < 400 || r.Status > 599):
				t.Errorf("status %d, want a refusal", r.Status)
			case c.status != 0 && r.Status != c.status:
				t.Errorf("status %d, want %d", r.Status, c.status)
			}
			if c.status != 0 {
				conn.ExpectClosed()
			}
			if n := len(o.Requests()); n != seen {
				t.Errorf("origin saw %v", o.Requests()[seen:])
			}
		})
	}
	p.ExpectSame(harness.Server, server)
	p.Client().Get("/after").Expect(200, "GET /after ")
}

// Chunked bodies that are none: the origin must never see the end of such a body as a proper
// one, the client gets an error or the end of its connection, and what follows the nonsense is
// not taken as a request.
func TestMalformedChunks(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	server := p.PID(harness.Server)
	for i, body := range []string{
		"x\r\n", "-1\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", " 3\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n",
		"3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "ffffffffffffffff\r\nabc", "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"3;" + strings.Repeat("e", 1<<20), "0\r\nX : y\r\n\r\n", "0\r\nX: " + strings.Repeat("t", 1<<20), "\r\n", "3;a=\x00\r\nabc\r\n0\r\n\r\n",
	} {
		target := fmt.Sprintf("/bad/%d", i)
		smuggled := fmt.Sprintf("/smuggled/%d", i)
		conn := p.Client().Dial()
		conn.Offer("POST " + target + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + body + harness.Request("GET", smuggled, ""))
		if r, err := conn.Try("POST"); err == nil && (r.Status < 400 || r.Status > 599) {
			t.Errorf("%.40q: status %d", body, r.Status)
		}
		conn.ExpectClosed()
		conn.Close()
		o.ExpectCount(smuggled, 0)
		for _, r := range o.Requests() {
			if r.Target == target && r.Done && r.BodyErr == nil {
				t.Errorf("%.40q: origin took the body for a proper one of %d bytes", body, r.BodyLen)
			}
		}
	}
	p.ExpectSame(harness.Server, server)
	p.Client().Get("/after").Expect(200, "GET /after ")
}

// Empty lines before a request are skipped (RFC 9112 section 2.2), a reasonable number of them.
func TestEmptyLinesBeforeARequest(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo})
	c := p.Client().Dial()
	c.Send("\r\n\r\n"+harness.Request("GET", "/a", "")).Read("GET").Expect(200, "GET /a ")
	c.Send("\r\n"+harness.Request("GET", "/b", "")).Read("GET").Expect(200, "GET /b ")
}

// "sane time limits": a head that never ends is cut off, whether nothing more comes or a byte
// now and then; a client that connects and says nothing is let go.
func TestSlowHeads(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo},
		harness.Set("timeouts.client_header", "300ms"), harness.Set("timeouts.client_idle", "300ms"))
	server := p.PID(harness.Server)
	t.Run("stops in the middle", func(t *testing.T) {
		c := harness.NewClient(t, p.Addr).Dial().Send("GET / HTTP/1.1\r\nHos")
		if r, err := c.Try("GET"); err == nil && r.Status != 408 {
			t.Errorf("status %d, want 408 or a close", r.Status)
		}
		c.ExpectClosed()
	})
	t.Run("drips for ever", func(t *testing.T) {
		c := harness.NewClient(t, p.Addr).Dial().Send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
		harness.WaitFor(t, "the connection to be closed", func() bool {
			_, err := c.Write([]byte("a"))
			return err != nil
		})
	})
	t.Run("never begins", func(t *testing.T) {
		harness.NewClient(t, p.Addr).Dial().ExpectClosed()
	})
	t.Run("idle after an answer", func(t *testing.T) {
		var c *harness.Conn
		harness.WaitFor(t, "an answer", func() bool {
			c = harness.NewClient(t, p.Addr).Dial().Offer(harness.Request("GET", "/a", ""))
			r, err := c.Try("GET")
			return err == nil && r.Status == 200 && string(r.Body) == "GET /a "
		})
		c.ExpectClosed()
	})
	p.ExpectSame(harness.Server, server)
	stillServes(t, p)
	p.ExpectMetric(`trafficd_timeouts_total{kind="client_header"}`, "at least 2", func(v float64) bool { return v >= 2 })
}

// stillServes waits for a good answer where clients have so little time to ask that on a busy machine they may come too late.
func stillServes(t *testing.T, p *harness.Trafficd) {
	t.Helper()
	harness.WaitFor(t, "an answer", func() bool {
		r, err := harness.Fetch(p.Addr, harness.Request("GET", "/after", "", "Connection: close"))
		return err == nil && r.Status == 200 && string(r.Body) == "GET /after "
	})
}

// A body that never comes is cut off after timeouts.client_body.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo}, harness.Set("timeouts.client_body", "300ms"))
	c := p.Client().Dial().Send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
	if r, err := c.Try("POST"); err == nil && r.Status < 400 {
		t.Errorf("status %d, want an error or a close", r.Status)
	}
	c.ExpectClosed()
	for _, r := range o.Requests() {
		if r.Target == "/slow" && r.Done && r.BodyErr == nil {
			t.Error("origin took half a body for a whole one")
		}
	}
	p.Client().Get("/after").Expect(200, "GET /after ")
}

// A client that takes nothing of its answer is let go after timeouts.client_write, and the
// server's memory does not pay for it.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/big": harness.Reply(200, letters(32<<20), noStore), "": echo},
		harness.Set("timeouts.client_write", "300ms"))
	server := p.PID(harness.Server)
	c := p.Client().Dial().Send(harness.Request("GET", "/big", ""))
	o.WaitCount("/big", 1)
	// The origin is rid of its side only when the proxy has given up: till then it is held back.
	o.Last("/big")
	if r, err := c.Try("GET"); err == nil {
		t.Errorf("a whole answer of %d bytes after the time limit", len(r.Body))
	}
	p.ExpectSame(harness.Server, server)
	p.Client().Get("/after").Expect(200, "GET /after ")
}

// "no unbounded memory": many connections each hold an unfinished head of nearly the limit, and
// a pipeline of a thousand requests is answered in order while its sender does not read.
func TestManyHalfHeadsAndBigPipelines(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo, "/hit": harness.Reply(200, letters(8000), "Cache-Control: max-age=600")})
	server := p.PID(harness.Server)
	p.Client().Get("/hit").ExpectStatus(200)
	before := harness.ResidentBytes(server)
	half := "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 30<<10)
	for range 300 {
		p.Client().Dial().Send(half)
	}
	c := p.Client().Dial()
	const n = 3000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.Offer(strings.Repeat(harness.Request("GET", "/hit", ""), n))
	}()
	p.Client().Get("/between").Expect(200, "GET /between ")
	for range n {
		c.Read("GET").Expect(200, letters(8000))
	}
	<-sent
	if grown := harness.ResidentBytes(server) - before; grown > 96<<20 {
		t.Errorf("the server grew by %d MiB", grown>>20)
	}
	p.ExpectSame(harness.Server, server)
}

// Random bytes, and good requests with random damage: the server lives and goes on answering.
// The seed is fixed, so that a failure comes again.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo}, harness.Set("timeouts.client_header", "200ms"),
		harness.Set("timeouts.client_body", "200ms"), harness.Set("timeouts.origin_body", "200ms"))
	server := p.PID(harness.Server)
	random := rand.New(rand.NewPCG(1, 2))
	good := harness.Request("POST", "/d", "5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "X-A: b") + harness.Request("GET", "/e", "")
	var conns []*harness.Conn
	for range 300 {
		b := []byte(good)
		for range 1 + random.IntN(4) {
			b[random.IntN(len(b))] = byte(random.IntN(256))
		}
		conns = append(conns, p.Client().Dial().Offer(string(b)))
	}
	for _, c := range conns {
		c.CloseWriteIfOpen()
		for {
			if _, err := c.Try("GET"); err != nil {
				break
			}
		}
		c.Close()
	}
	p.ExpectSame(harness.Server, server)
	stillServes(t, p)
}
