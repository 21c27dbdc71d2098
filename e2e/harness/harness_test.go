package harness

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
)

// A harness that lets bad answers pass proves nothing, so what it refuses is tested first.
func TestReadResponse(t *testing.T) {
	for _, c := range []struct {
		name, method, raw string
		body, framing     string // framing "": refused
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", "length"},
		{"empty reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", "length"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n", "hi!", "chunked"},
		{"close", "GET", "HTTP/1.0 200 OK\r\n\r\nuntil", "until", "close"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "", "none"},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", "none"},
		{"interim", "GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", "length"},
		{"nothing", "GET", "", "", ""},
		{"no reason space", "GET", "HTTP/1.1 200\r\n\r\n", "", ""},
		{"HTTP/2.0", "GET", "HTTP/2.0 200 OK\r\n\r\n", "", ""},
		{"two-digit status", "GET", "HTTP/1.1 20 OK\r\n\r\n", "", ""},
		{"bare LF", "GET", "HTTP/1.1 200 OK\n\n", "", ""},
		{"cut in the head", "GET", "HTTP/1.1 200 OK\r\nContent-", "", ""},
		{"space before colon", "GET", "HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "", ""},
		{"folded", "GET", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", "", ""},
		{"short body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "", ""},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "", ""},
		{"both framings", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ""},
		{"no last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "", ""},
		{"cut last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "", ""},
		{"chunk too long", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ReadResponse(bufio.NewReader(strings.NewReader(c.raw)), c.method)
			switch {
			case c.framing == "" && err == nil:
				t.Errorf("accepted as %+v", r)
			case c.framing != "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.framing != "" && (string(r.Body) != c.body || r.Framing != c.framing):
				t.Errorf("got %q (%s), want %q (%s)", r.Body, r.Framing, c.body, c.framing)
			}
		})
	}
}

func FuzzReadResponse(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 103 x\r\n\r\nHTTP/1.0 200 \r\n\r\nbody")
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := ReadResponse(bufio.NewReader(strings.NewReader(raw)), "GET")
		if err == nil && len(r.Body) > len(raw) {
			t.Errorf("a body of %d bytes out of %d", len(r.Body), len(raw))
		}
	})
}

func TestParseMetrics(t *testing.T) {
	m, err := ParseMetrics("# HELP a_total What it is.\n# TYPE a_total counter\na_total{role=\"server\"} 3\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 0.5\nh_count 1\n")
	if err != nil || m[`a_total{role="server"}`] != 3 || m["h_sum"] != 0.5 {
		t.Errorf("got %v, %v", m, err)
	}
	for _, bad := range []string{
		"a 1\n", "# TYPE a counter\na 1", "# TYPE a counter\na 1\na 1\n", "# TYPE a counter\na one\n", "# hello\n", "# TYPE a count\na 1\n",
	} {
		if m, err := ParseMetrics(bad); err == nil {
			t.Errorf("%q accepted as %v", bad, m)
		}
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add("# TYPE a counter\na{b=\"c\"} 1\n")
	f.Fuzz(func(_ *testing.T, text string) { ParseMetrics(text) })
}

func TestParseStatus(t *testing.T) {
	text := `{"cop":{"state":"ready","pid":1},"manager":{"state":"ready","pid":2},"server":{"state":"ready","pid":3,"restarts":1}}`
	s, err := parseStatus(text)
	if err != nil || s.Cop.PID != 1 || s.Manager.PID != 2 || s.Server != (ProcessStatus{State: "ready", PID: 3, Restarts: 1}) {
		t.Errorf("%s: got %+v, %v", text, s, err)
	}
	for _, text := range []string{"", "{}", "[]", `{"cop":{"pid":1}}`} {
		if s, err := parseStatus(text); err == nil {
			t.Errorf("%q accepted as %+v", text, s)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(`{"roles":{"cop":{"pid":1},"manager":{"pid":2},"server":{"pid":3}}}`)
	f.Fuzz(func(_ *testing.T, text string) { parseStatus(text) })
}

func TestLogSequence(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(r)
	go func() {
		w.WriteString(`{"level":"info","message":"spawn_manager","pid":7}` + "\nnot json\n" + `{"level":"info","message":"spawn_server","pid":8}` + "\n")
		w.Close()
	}()
	lines := l.Messages(t, 0, "spawn_manager", "spawn_server")
	if lines[0].Int("pid") != 7 || lines[1].Int("pid") != 8 {
		t.Errorf("got %v", lines)
	}
	if got := sequence(l.Since(0), []Match{Message("spawn_server"), Message("spawn_manager")}); len(got) != 1 {
		t.Errorf("the wrong order was found: %v", got)
	}
}

func TestMentions(t *testing.T) {
	file := t.TempDir() + "/list"
	for text, want := range map[string]bool{
		"cop\x00--run-root\x00/tmp/td1/run\x00": true,
		"X=/tmp/td1/run\x00":                    true,
		"--run-root=/tmp/td1/run/cop.lock\x00":  true,
		"/tmp/td1/runner\x00":                   false,
		"/tmp/td2/run\x00":                      false,
		"":                                      false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := mentions(file, "/tmp/td1/run"); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// Client and origin understand each other without a proxy between them, so that a failing story
// can be blamed on the proxy.
func TestClientAndOriginAlone(t *testing.T) {
	gate := NewGate()
	o := NewOrigin(t, Routes(map[string]Handler{
		"/a":    Reply(200, "a", "X-A: 1"),
		"/echo": func(e *Exchange) { e.Reply(200, e.ReadBody()) },
		"/gate": func(e *Exchange) { gate.Wait(e); e.Reply(200, "open") },
		"/cut": func(e *Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncut")
			e.Close()
		},
		"/silent": Silent,
		"/chunks": func(e *Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			e.Chunk("ab")
			e.Raw("0\r\n\r\n")
		},
	}))
	c := NewClient(t, o.Addr())
	c.Get("/a").Expect(200, "a").Header("X-A", "1").Has("Date")
	c.Get("/missing").ExpectStatus(404)
	c.Head("/a").Expect(200, "").Header("Content-Length", "1")
	c.Post("/echo", "body").Expect(200, "body")
	if r := o.Last("/echo"); r.BodyLen != 4 || len(r.BodyHash) != 64 || r.Method != "POST" {
		t.Errorf("recorded %+v", r)
	}
	c.Do("POST", "/echo", "2\r\nab\r\n0\r\n\r\n", "Transfer-Encoding: chunked").Expect(200, "ab")
	if r := o.Last("/echo"); r.Header.Get("Transfer-Encoding") != "chunked" {
		t.Errorf("recorded %+v", r)
	}
	c.Get("/chunks").Expect(200, "ab")

	conn := c.Dial()
	conn.Send(Request("GET", "/a", "") + Request("GET", "/chunks", ""))
	conn.Read("GET").Expect(200, "a")
	conn.Read("GET").Expect(200, "ab")
	conn.Drip(Request("GET", "/a", ""), nil).Read("GET").Expect(200, "a")
	conn.CloseWrite().ExpectEOF()

	if _, err := c.Dial().Send(Request("GET", "/cut", "")).Try("GET"); err == nil {
		t.Error("a cut answer was taken for a whole one")
	}
	for _, r := range c.Concurrently(5, Request("GET", "/gate", ""), func() { o.WaitCount("/gate", 5); gate.Open() }) {
		r.Expect(200, "open")
	}
	c.Dial().Send(Request("GET", "/silent", ""))
	o.WaitCount("/silent", 1)

	o.Down()
	if _, err := Fetch(o.Addr(), Request("GET", "/a", "")); err == nil {
		t.Error("an origin that is down has answered")
	}
	o.Up()
	c.Get("/a").Expect(200, "a")
}

// The prober notices each kind of failure, and its excuse covers only what it should.
func TestProber(t *testing.T) {
	o := NewOrigin(t, EchoNumber)
	p := NewProber(t, o.Addr())
	p.Await(20)
	release := p.Hold()
	done := p.Done()
	o.Down()
	release()
	p.Await(3)
	o.Up()
	p.Await(3)
	p.halt()
	if n := len(p.failures); n < 3 {
		t.Errorf("%d failures in %d requests after the first %d, want at least 3", n, p.Done(), done)
	}
	for _, f := range p.failures {
		if f.Connected {
			t.Errorf("request %d: connected to an origin that was down", f.Number)
		}
		if p.inside(f) {
			t.Errorf("request %d is excused although nobody was dying", f.Number)
		}
	}
	p.Dying(func() {})
	if p.inside(p.failures[0]) {
		t.Error("a death after the failure excuses it")
	}
	p.deaths = []death{{p.failures[0].Began, p.failures[0].Ended}}
	if !p.inside(p.failures[0]) {
		t.Error("a death during the request does not excuse it")
	}
}

func TestProcess(t *testing.T) {
	self := os.Getpid()
	if !Alive(self) || StartTime(self) == 0 || ParentPID(self) != os.Getppid() || ResidentBytes(self) == 0 {
		t.Errorf("own process: state %c, start %d, parent %d, resident %d", State(self), StartTime(self), ParentPID(self), ResidentBytes(self))
	}
	const none = 1 << 22 // beyond the largest PID
	if Alive(none) || State(none) != 0 || Comm(none) != "" {
		t.Error("a process that cannot be is alive")
	}
	if _, err := openProcess(none); err == nil {
		t.Error("a process that cannot be was opened")
	}
}

func TestRequestText(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(Request("GET", "/a", ""))
	b.WriteString(Request("POST", "/b", "xy", "Host: h"))
	want := "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
