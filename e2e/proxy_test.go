package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// One instance with one event loop serves most of this file's stories: what they ask is
// independent, and they are many.
func proxy(t *testing.T, routes map[string]harness.Handler, opts ...harness.Option) (*harness.Trafficd, *harness.Origin) {
	t.Helper()
	o := harness.NewOrigin(t, harness.Routes(routes))
	return harness.Start(t, append(opts, harness.Map("/", o), harness.Args("--threads", "1"))...), o
}

const noStore = "Cache-Control: no-store"

// echo answers with what it was asked.
func echo(e *harness.Exchange) {
	body := e.ReadBody()
	e.Reply(200, fmt.Sprintf("%s %s %s", e.Method, e.Target, body), noStore)
}

// "keep-alive both sides": many requests on one connection, one connection to the origin.
func TestKeepAliveBothSides(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	before := o.Connections()
	c := p.Client().Dial()
	late := 0 // turns in which a POST, which must not be sent twice, may have found a connection that has been idle for too long for that
	for i := range 10 {
		begun := time.Now()
		target := fmt.Sprintf("/k/%d", i)
		c.Send(harness.Request("GET", target, "")).Read("GET").Expect(200, "GET "+target+" ")
		c.Send(harness.Request("POST", target, "body")).Read("POST").Expect(200, "POST "+target+" body")
		if time.Since(begun) >= time.Second {
			late++
		}
	}
	c.Send(harness.Request("GET", "/end", "", "Connection: close")).Read("GET").Expect(200, "GET /end ").Header("Connection", "close")
	c.ExpectEOF()
	if n := o.Connections() - before; n > 1+late {
		t.Errorf("origin saw %d connections, want %d at most", n, 1+late)
	}
}

// "pipelining": a burst of requests, with bodies and without, is answered in its order.
func TestPipeliningInOrder(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo, "/hit": harness.Reply(200, "hit", "Cache-Control: max-age=600")})
	var burst strings.Builder
	var want []string
	for i := range 200 {
		target := fmt.Sprintf("/p/%d", i)
		switch i % 4 {
		case 0:
			burst.WriteString(harness.Request("POST", target, "body of "+target))
			want = append(want, "POST "+target+" body of "+target)
		case 1:
			burst.WriteString(harness.Request("GET", "/hit", ""))
			want = append(want, "hit")
		case 2:
			burst.WriteString(harness.Request("POST", target, "3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
			want = append(want, "POST "+target+" abc")
		default:
			burst.WriteString(harness.Request("GET", target, ""))
			want = append(want, "GET "+target+" ")
		}
	}
	c := p.Client().Dial()
	done := make(chan struct{})
	go func() { defer close(done); c.Offer(burst.String()) }()
	for i := range want {
		method := "GET"
		if strings.HasPrefix(want[i], "POST") {
			method = "POST"
		}
		c.Read(method).Expect(200, want[i])
	}
	<-done
}

// A request that arrives byte by byte, and its body too, is one request.
func TestRequestByteByByte(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	c := p.Client().Dial()
	c.Drip(harness.Request("POST", "/drip", "slow body"), nil)
	c.Read("POST").Expect(200, "POST /drip slow body")
	c.Drip(harness.Request("POST", "/drip", "4\r\nslow\r\n5;x=y\r\n body\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), nil)
	c.Read("POST").Expect(200, "POST /drip slow body")
	o.ExpectCount("/drip", 2)
}

// "HEAD": the fields of a GET, no body, and the connection goes on.
func TestHead(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": harness.Reply(200, "twelve bytes", noStore)})
	c := p.Client().Dial()
	c.Send(harness.Request("HEAD", "/h", "")).Read("HEAD").Expect(200, "").Header("Content-Length", "12")
	c.Send(harness.Request("GET", "/h", "")).Read("GET").Expect(200, "twelve bytes")
	if m := o.Requests(); len(m) < 2 || m[len(m)-2].Method != "HEAD" {
		t.Errorf("origin did not see the HEAD as one: %v", m)
	}
}

// "Content-Length and chunked bodies both ways", each combination byte-exact. Sizes around the
// usual buffer sizes are where framing breaks.
func TestBodiesBothWays(t *testing.T) {
	t.Parallel()
	mirror := func(chunkedBack bool) harness.Handler {
		return func(e *harness.Exchange) {
			body := e.ReadBody()
			if !chunkedBack {
				e.Reply(200, body, noStore)
				return
			}
			e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nTransfer-Encoding: chunked\r\n\r\n")
			for len(body) > 0 {
				n := min(len(body), 1+rand.IntN(20000))
				e.Chunk(body[:n])
				body = body[n:]
			}
			e.Raw("0\r\n\r\n")
		}
	}
	p, o := proxy(t, map[string]harness.Handler{"/length": mirror(false), "/chunked": mirror(true)})
	for _, size := range []int{0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20} {
		body := letters(size)
		for _, back := range []string{"/length", "/chunked"} {
			for _, chunked := range []bool{false, true} {
				c := p.Client().Dial()
				request := harness.Request("POST", back, body)
				if chunked {
					request = harness.Request("POST", back, chunks(body), "Transfer-Encoding: chunked")
				}
				done := make(chan struct{})
				go func() { defer close(done); c.Offer(request) }()
				c.Read("POST").Expect(200, body)
				<-done
				if got := o.Last(back); got.BodyLen != int64(size) || got.BodyHash != sum(body) {
					t.Errorf("size %d, chunked %v: origin received %d bytes, hash equal: %v", size, chunked, got.BodyLen, got.BodyHash == sum(body))
				}
				c.Close()
			}
		}
	}
}

// letters is a body that shows where a piece is missing or doubled.
func letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + (i+i/26+i/4096)%26)
	}
	return string(b)
}

func chunks(body string) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(len(body), 1+rand.IntN(9000))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// "POST/PUT with streamed bodies of any size under back-pressure (bounded memory per
// connection)": 64 MiB go through while the origin at first reads nothing. Once the sender has
// come to a stand, what is buffered is in the kernel, not in the server.
func TestLargeUploadIsStreamedInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/upload": func(e *harness.Exchange) {
		gate.Wait(e)
		io.Copy(io.Discard, e.Body)
		e.Reply(200, "received", noStore)
	}})
	server := p.PID(harness.Server)
	p.Client().Get("/warm").ExpectStatus(404)
	before := harness.ResidentBytes(server)

	c := p.Client().Dial()
	hash := sha256.New()
	sent := make(chan error, 1)
	go func() {
		fmt.Fprintf(c, "PUT /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", size)
		random := rand.NewChaCha8([32]byte{1})
		_, err := io.CopyN(io.MultiWriter(c, hash), random, size)
		sent <- err
	}()
	o.WaitCount("/upload", 1)
	c.WaitStuck()
	if grown := harness.ResidentBytes(server) - before; grown > size/4 {
		t.Errorf("the server grew by %d MiB while the origin read nothing", grown>>20)
	}
	gate.Open()
	c.Read("PUT").Expect(200, "received")
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got := o.Last("/upload")
	if got.BodyLen != size || got.BodyHash != hex.EncodeToString(hash.Sum(nil)) {
		t.Errorf("origin received %d bytes, want %d; hash equal: %v", got.BodyLen, size, got.BodyHash == hex.EncodeToString(hash.Sum(nil)))
	}
	if grown := harness.ResidentBytes(server) - before; grown > size/2 {
		t.Errorf("the server grew by %d MiB for a body of %d MiB", grown>>20, size>>20)
	}
}

// The same the other way: the client reads nothing at first.
func TestLargeDownloadIsStreamedInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	body := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{2}), size) }
	want := sha256.New()
	io.Copy(want, body())
	p, _ := proxy(t, map[string]harness.Handler{"/download": func(e *harness.Exchange) {
		e.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n", noStore, size))
		io.Copy(e.Stream(), body())
	}})
	server := p.PID(harness.Server)
	p.Client().Get("/warm").ExpectStatus(404)
	before := harness.ResidentBytes(server)
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/download", ""))
	got := sha256.New()
	c.ReadHead().ExpectStatus(200)
	if n, err := c.CopyRaw(got, size); err != nil {
		t.Fatalf("received %d bytes, then %v", n, err)
	}
	if hex.EncodeToString(got.Sum(nil)) != hex.EncodeToString(want.Sum(nil)) {
		t.Error("the body is not what the origin sent")
	}
	if grown := harness.ResidentBytes(server) - before; grown > size/2 {
		t.Errorf("the server grew by %d MiB for a body of %d MiB", grown>>20, size>>20)
	}
}

// "Expect: 100-continue", accepted by the origin: the client's body is asked for before it is sent.
func TestExpectContinueAccepted(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/up": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 100 Continue\r\n\r\n")
		e.Reply(200, "got "+e.ReadBody(), noStore)
	}})
	c := p.Client().Dial()
	c.Send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	c.ReadHead().ExpectStatus(100)
	c.Send("body")
	c.Read("POST").Expect(200, "got body")
	c.Send(harness.Request("GET", "/next", "")).Read("GET").ExpectStatus(404)
	if got := o.Last("/up"); got.BodyHash != sum("body") {
		t.Errorf("origin received %d bytes, want 4", got.BodyLen)
	}
}

// Refused by the origin: the answer comes although no body was sent.
func TestExpectContinueRefused(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"/up": func(e *harness.Exchange) {
		e.Reply(403, "no", noStore, "Connection: close")
	}})
	c := p.Client().Dial()
	c.Send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	r := c.Read("POST").ExpectStatus(403)
	if len(r.Interim) > 0 && r.Interim[0] == 100 {
		// The proxy may have asked for the body on its own; then it must take it.
		c.Send("body")
	}
	p.Client().Get("/other").ExpectStatus(404)
}

// "HTTP/1.0 clients": no chunks, closed after the answer unless keep-alive was asked for.
func TestHTTP10Client(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{
		"/length": harness.Reply(200, "length", noStore),
		"/chunked": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nTransfer-Encoding: chunked\r\n\r\n")
			e.Chunk("chun")
			e.Chunk("ked")
			e.Raw("0\r\n\r\n")
		},
	})
	c := p.Client().Dial()
	c.Send("GET /length HTTP/1.0\r\n\r\n").Read("GET").Expect(200, "length")
	c.ExpectEOF()
	c = p.Client().Dial()
	r := c.Send("GET /chunked HTTP/1.0\r\n\r\n").Read("GET").Expect(200, "chunked").Header("Transfer-Encoding", "")
	if r.Framing == "chunked" {
		t.Error("a client of HTTP/1.0 was sent chunks")
	}
	c = p.Client().Dial()
	c.Send("GET /length HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").Read("GET").Expect(200, "length").Header("Connection", "keep-alive")
	c.Send("GET /length HTTP/1.0\r\n\r\n").Read("GET").Expect(200, "length")
	c.ExpectEOF()
}

// An origin of HTTP/1.0 that ends its body by closing: the client of HTTP/1.1 learns the end
// by framing and keeps its connection.
func TestOriginEndsByClose(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"/old": func(e *harness.Exchange) {
		e.Raw("HTTP/1.0 200 OK\r\n" + noStore + "\r\n\r\nuntil close")
		e.Close()
	}})
	c := p.Client().Dial()
	r := c.Send(harness.Request("GET", "/old", "")).Read("GET").Expect(200, "until close")
	if r.Framing == "close" {
		c.ExpectEOF()
		return
	}
	c.Send(harness.Request("GET", "/old", "")).Read("GET").Expect(200, "until close")
}

// A client that has sent its request and then FIN still gets its answer.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": echo})
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/half", "")).CloseWrite()
	c.Read("GET").Expect(200, "GET /half ")
	c.ExpectEOF()
}

// "Upgrade tunnels": bytes both ways, unframed, also those that come with the head, and the
// end of one direction is handed on while the other is open.
func TestUpgradeTunnel(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/ws": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ")
		s := e.Stream()
		io.Copy(s, s)
		e.Raw("bye")
		e.Close()
	}})
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/ws", "", "Connection: Upgrade", "Upgrade: echo"))
	r := c.ReadHead().ExpectStatus(101)
	r.Header("Upgrade", "echo")
	if !strings.EqualFold(r.Get("Connection"), "upgrade") {
		t.Errorf("Connection: got %q, want upgrade", r.Get("Connection"))
	}
	if got := c.ReadRaw(6); got != "hello " {
		t.Errorf("first bytes of the tunnel: %q", got)
	}
	for i := range 50 {
		text := fmt.Sprintf("message %d\x00\r\n", i)
		c.Send(text)
		if got := c.ReadRaw(len(text)); got != text {
			t.Fatalf("tunnel: got %q, want %q", got, text)
		}
	}
	c.CloseWrite()
	if got := c.ReadRaw(3); got != "bye" {
		t.Errorf("after our FIN: got %q, want bye", got)
	}
	c.ExpectEOF()
	o.ExpectCount("/ws", 1)
}

// An origin that does not want to upgrade answers as usual, and the connection goes on.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": harness.Reply(200, "plain", noStore)})
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/ws", "", "Connection: Upgrade", "Upgrade: echo")).Read("GET").Expect(200, "plain")
	c.Send(harness.Request("GET", "/next", "")).Read("GET").Expect(200, "plain")
}

// "hop-by-hop stripping", those that Connection nominates too, both ways (RFC 9110 section 7.6.1).
func TestHopByHopFieldsEndHere(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/hop": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\n" +
			"Proxy-Authenticate: Basic\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\nok")
	}})
	c := p.Client().Dial()
	r := c.Send(harness.Request("GET", "/hop", "", "Connection: x-private, keep-alive", "X-Private: 1", "Keep-Alive: timeout=5",
		"Proxy-Connection: keep-alive", "TE: trailers", "Trailer: X-T", "X-Kept: yes")).Read("GET").Expect(200, "ok")
	r.Header("X-Kept", "yes").Header("X-Secret", "").Header("Keep-Alive", "").Header("Proxy-Authenticate", "")
	got := o.Last("/hop").Header
	for _, name := range []string{"X-Private", "Keep-Alive", "Proxy-Connection", "Te", "Trailer"} {
		if got.Get(name) != "" {
			t.Errorf("origin received %s: %s", name, got.Get(name))
		}
	}
	if got.Get("X-Kept") != "yes" {
		t.Error("origin did not receive X-Kept")
	}
}

// "Via" both ways, with the version that was received, after what was there (RFC 9110 section 7.6.3).
func TestVia(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/via": harness.Reply(200, "ok", noStore, "Via: 1.1 inner")})
	p.Client().Get("/via", "Via: 1.0 outer").Header("Via", "1.1 inner, 1.1 trafficd")
	if got := strings.Join(o.Last("/via").Header.Values("Via"), ", "); got != "1.0 outer, 1.1 trafficd" {
		t.Errorf("origin received Via %q", got)
	}
	c := p.Client().Dial()
	c.Send("GET /via HTTP/1.0\r\n\r\n").Read("GET")
	if got := strings.Join(o.Last("/via").Header.Values("Via"), ", "); got != "1.0 trafficd" {
		t.Errorf("origin received Via %q for a client of HTTP/1.0", got)
	}
}

// Host reaches the origin as the client gave it, and a request target in absolute form wins over it.
func TestHostIsKept(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	p.Client().Get("/host", "Host: shop.example").ExpectStatus(200)
	if got := o.Last("/host").Host; got != "shop.example" {
		t.Errorf("origin received Host %q, want shop.example", got)
	}
	p.Client().Get("http://abs.example/absolute?q=1", "Host: other.example").Expect(200, "GET /absolute?q=1 ")
	if got := o.Last("/absolute?q=1").Host; got != "abs.example" {
		t.Errorf("origin received Host %q, want abs.example", got)
	}
}

// An origin that refuses connections is a 502; when it is back, so is the answer.
func TestOriginRefuses(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": echo})
	p.Client().Get("/a").Expect(200, "GET /a ")
	o.Down()
	p.Client().Get("/a").ExpectStatus(502)
	o.Up()
	p.Client().Get("/a").Expect(200, "GET /a ")
}

// An origin that accepts and says nothing is a 504 after timeouts.origin_response.
func TestOriginSilent(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"/silent": harness.Silent, "": echo}, harness.Set("timeouts.origin_response", "300ms"))
	p.Client().Get("/silent").ExpectStatus(504)
	eventually(t, p, "/a", "GET /a ") // which may take longer than there is time, on a busy machine
}

// Answers that are none: a 502 each, and nothing of them reaches the client.
func TestOriginTalksNonsense(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"no answer":           "",
		"not HTTP":            "hello\r\n\r\n",
		"cut in the head":     "HTTP/1.1 200 OK\r\nContent-Le",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"length and chunked":  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bad length":          "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"space before colon":  "HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n",
		"folded field":        "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
		"bare LF":             "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"endless head":        "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"status of 4 digits":  "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"uninvited upgrade":   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"endless interim 1xx": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := proxy(t, map[string]harness.Handler{"/x": func(e *harness.Exchange) {
				e.Raw(raw)
				e.Close()
			}, "": echo})
			server := p.PID(harness.Server)
			c := p.Client().Dial()
			c.Send(harness.Request("GET", "/x", ""))
			if r := c.Read("GET"); r.Status != 502 {
				t.Errorf("status %d, want 502", r.Status)
			}
			p.Client().Get("/after").Expect(200, "GET /after ")
			p.ExpectSame(harness.Server, server)
		})
	}
}

// "Body truncated by origin": the client sees an aborted transfer, never a clean end, and
// nothing is stored. A client of HTTP/1.0, to whom the end is the close, sees a reset.
func TestTruncatedByOrigin(t *testing.T) {
	t.Parallel()
	cut := func(head string, body ...string) harness.Handler {
		return func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n" + head + "\r\n\r\n")
			for _, b := range body {
				e.Raw(b)
			}
			e.Close()
		}
	}
	p, o := proxy(t, map[string]harness.Handler{
		"/length":   cut("Content-Length: 1000", "only this"),
		"/nothing":  cut("Content-Length: 1000"),
		"/chunked":  cut("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
		"/in-chunk": cut("Transfer-Encoding: chunked", "ff\r\nhello"),
		"/bad":      cut("Transfer-Encoding: chunked", "5\r\nhello\r\nzz\r\n"),
	})
	for _, target := range []string{"/length", "/nothing", "/chunked", "/in-chunk", "/bad"} {
		for _, proto := range []string{"1.1", "1.0"} {
			for range 2 {
				c := p.Client().Dial()
				c.Send("GET " + target + " HTTP/" + proto + "\r\nHost: localhost\r\n\r\n")
				// An origin that fails before its first body byte may still become a 502.
				if r, err := c.Try("GET"); err == nil && r.Status == 200 {
					t.Errorf("%s, HTTP/%s: a clean end after %d bytes (%s)", target, proto, len(r.Body), r.Framing)
				}
				c.Close()
			}
		}
		if n := o.Count(target); n < 4 {
			t.Errorf("%s: origin saw %d requests of 4: a truncated answer was stored", target, n)
		}
	}
}

// What the origin sends after the end of its answer belongs to nobody.
func TestOriginSendsTooMuch(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{
		"/long": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		},
		"": echo,
	})
	for i := range 5 {
		p.Client().Get("/long").Expect(200, "good")
		target := fmt.Sprintf("/next/%d", i)
		p.Client().Get(target).Expect(200, "GET "+target+" ")
	}
}

// The bytes of an answer are handed on as they come: the client sees each chunk before the
// origin sends the next.
func TestAnswerIsStreamed(t *testing.T) {
	t.Parallel()
	step := make(chan struct{}, 5)
	p, _ := proxy(t, map[string]harness.Handler{"/steps": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range 5 {
			e.Chunk(fmt.Sprintf("step %d", i))
			e.Await(step)
		}
		e.Raw("0\r\n\r\n")
	}})
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/steps", ""))
	c.ReadHead().ExpectStatus(200).Header("Transfer-Encoding", "chunked")
	for i := range 5 {
		want := fmt.Sprintf("6\r\nstep %d\r\n", i)
		if got := c.ReadRaw(len(want)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		step <- struct{}{}
	}
	if got := c.ReadRaw(5); got != "0\r\n\r\n" {
		t.Errorf("got %q, want the last chunk", got)
	}
}

// The same for a request body.
func TestUploadIsStreamed(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 5)
	p, _ := proxy(t, map[string]harness.Handler{"/up": func(e *harness.Exchange) {
		in := bufio.NewReader(e.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			seen <- line
		}
		e.Reply(200, "done", noStore)
	}})
	c := p.Client().Dial()
	c.Send("POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
	for i := range 5 {
		line := fmt.Sprintf("line %d\n", i)
		c.Send(fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
		if got := harness.Receive(t, "a line at the origin", seen); got != line {
			t.Fatalf("origin read %q, want %q", got, line)
		}
	}
	c.Send("0\r\n\r\n").Read("POST").Expect(200, "done")
}

// A client that goes away in the middle costs nothing but its own request.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/gone": func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, letters(1<<20), noStore)
	}, "": echo})
	server := p.PID(harness.Server)
	for i := range 20 {
		c := p.Client().Dial()
		c.Send(harness.Request("GET", "/gone", ""))
		o.WaitCount("/gone", i+1)
		c.Reset()
	}
	gate.Open()
	p.Client().Get("/after").Expect(200, "GET /after ")
	p.ExpectSame(harness.Server, server)
}

// "--map PREFIX=ORIGIN (repeatable; PREFIX is /path or http://host/path)": host rules before
// those without, the longest prefix wins, a prefix ends at a segment, no rule is a 404.
func TestMapRules(t *testing.T) {
	t.Parallel()
	named := func(name string) *harness.Origin {
		return harness.NewOrigin(t, func(e *harness.Exchange) { e.Reply(200, name+" "+e.Target, noStore) })
	}
	p := harness.Start(t, harness.Map("/a", named("a")), harness.Map("/a/b", named("ab")),
		harness.Map("http://shop.example/a", named("shop")))
	for _, c := range []struct{ target, host, want string }{
		{"/a", "localhost", "a /"},
		{"/a?q", "localhost", "a /?q"},
		{"/a/x", "localhost", "a /x"},
		{"/a/b", "localhost", "ab /"},
		{"/a/b/c", "localhost", "ab /c"},
		{"/a/bc", "localhost", "a /bc"},
		{"/a/b/c", "shop.example", "shop /b/c"},
		{"/a/x", "SHOP.example", "shop /x"},
		{"/a/x", "shop.example:80", "shop /x"},
		{"/ab", "localhost", ""},
		{"/", "localhost", ""},
		{"/b", "shop.example", ""},
	} {
		r := p.Client().Get(c.target, "Host: "+c.host)
		if c.want == "" {
			r.ExpectStatus(404)
		} else {
			r.Expect(200, c.want)
		}
	}
}

// Clean 4xx and 5xx: an error of our own is a whole answer, with Date and without our innards.
func TestOwnErrorsAreWholeAnswers(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, echo)
	p := harness.Start(t, harness.Map("/a", o))
	r := p.Client().Get("/unmapped").ExpectStatus(404).Has("Content-Length")
	if _, err := http.ParseTime(r.Get("Date")); err != nil {
		t.Errorf("Date: %v", err)
	}
	c := p.Client().Dial()
	c.Send(harness.Request("HEAD", "/unmapped", "")).Read("HEAD").Expect(404, "")
	c.Send(harness.Request("POST", "/unmapped", "ignored body")).Read("POST").ExpectStatus(404)
	c.Send(harness.Request("GET", "/a", "")).Read("GET").Expect(200, "GET / ")
}
