package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is what a fake process does with a probe's connection.
type script func(conn *net.UnixConn)

// serve runs a fake process on a real Unix socket and returns the socket's path. Each
// connection is answered by s and closed when s returns.
func serve(t *testing.T, s script) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s(c.(*net.UnixConn))
			c.Close()
		}
	}()
	return path
}

// say answers with text after it has read the request, as a real server does.
func say(text string) script {
	return func(c *net.UnixConn) {
		if readRequest(c) {
			c.Write([]byte(text))
		}
	}
}

func readRequest(c *net.UnixConn) bool {
	var buf [1024]byte
	n := 0
	for !bytes.Contains(buf[:n], []byte("\r\n\r\n")) {
		m, err := c.Read(buf[n:])
		if err != nil {
			return false
		}
		n += m
	}
	return true
}

// hold sends text and then waits until the prober has gone away.
func hold(text string) script {
	return func(c *net.UnixConn) {
		say(text)(c)
		c.Read(make([]byte, 1))
	}
}

func ok(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// expectAtDeadline probes a peer that never answers in full, with a deadline that is over soon. Did that peer not even get
// the CPU for what it does say, the probe is made again with more time.
func expectAtDeadline(t *testing.T, path string, want Kind) {
	t.Helper()
	for limit := 100 * time.Millisecond; ; limit *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := Probe(ctx, Unix(path), Path)
		cancel()
		var f *Failure
		if silent := errors.As(err, &f) && f.Kind == Timeout; silent && want != Timeout && limit < 10*time.Second {
			continue
		}
		expect(t, err, want)
		return
	}
}

func TestProbePasses(t *testing.T) {
	for name, answer := range map[string]string{
		"our own answer":   string(AppendResponse(nil, "GET")),
		"until close, 1.0": "HTTP/1.0 200 OK\r\nServer: Traffic Manager\r\n\r\n" + Page,
		"no reason phrase": "HTTP/1.1 200\r\ncontent-LENGTH:\t1680 \r\n\r\n" + Page,
		"no fields":        "HTTP/1.1 200 OK\r\n\r\n" + Page,
	} {
		t.Run(name, func(t *testing.T) {
			if err := Probe(t.Context(), Unix(serve(t, say(answer))), Path); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProbePassesHoweverTheAnswerIsCut(t *testing.T) {
	path := serve(t, func(c *net.UnixConn) {
		if !readRequest(c) {
			return
		}
		answer := AppendResponse(nil, "GET")
		for i := range answer {
			if _, err := c.Write(answer[i : i+1]); err != nil {
				return
			}
		}
	})
	if err := Probe(t.Context(), Unix(path), Path); err != nil {
		t.Error(err)
	}
}

func TestProbeFails(t *testing.T) {
	good := string(AppendResponse(nil, "GET"))
	long := strings.Repeat("x", 2*maxAnswer)
	for name, c := range map[string]struct {
		s    script
		want Kind
	}{
		"no answer at all":           {say(""), Empty},
		"closed without reading":     {func(*net.UnixConn) {}, Empty},
		"empty body":                 {say(ok("")), Empty},
		"empty body until close":     {say("HTTP/1.0 200 OK\r\n\r\n"), Empty},
		"head cut":                   {say(good[:30]), Truncated},
		"first bytes only":           {say("HTT"), Truncated},
		"body cut":                   {say(good[:len(good)-1]), Truncated},
		"body cut, until close":      {say("HTTP/1.0 200 OK\r\n\r\n" + Page[:100]), Truncated},
		"short page, honest length":  {say(ok(Page[:1652])), Truncated},
		"one byte too many":          {say(good + "x"), Oversized},
		"one too many, until close":  {say("HTTP/1.0 200 OK\r\n\r\n" + Page + "x"), Oversized},
		"a long page announced":      {say(ok(Page + pageLine)), Oversized},
		"a long page until close":    {say("HTTP/1.0 200 OK\r\n\r\n" + long), Oversized},
		"a head without end":         {say("HTTP/1.1 200 OK\r\nX: " + long), Oversized},
		"head of lines without end":  {say("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 2000)), Oversized},
		"one byte wrong":             {say(ok(strings.Replace(Page, "m", "n", 1))), WrongBody},
		"another page":               {say(ok("hello")), WrongBody},
		"not found":                  {say("HTTP/1.1 404 Not Found\r\n\r\n" + Page), Status},
		"unavailable":                {say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), Status},
		"redirect":                   {say("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), Status},
		"interim only":               {say("HTTP/1.1 100 Continue\r\n\r\n" + good), Status},
		"not HTTP":                   {say("SSH-2.0-OpenSSH_9\r\n"), Malformed},
		"HTTP/0.9":                   {say(Page), Malformed},
		"HTTP/2":                     {say("HTTP/2.0 200 OK\r\n\r\n" + Page), Malformed},
		"HTTP/1.2":                   {say("HTTP/1.2 200 OK\r\n\r\n" + Page), Malformed},
		"status of two digits":       {say("HTTP/1.1 20 OK\r\n\r\n" + Page), Malformed},
		"status of four digits":      {say("HTTP/1.1 2000 OK\r\n\r\n" + Page), Malformed},
		"status of letters":          {say("HTTP/1.1 2x0 OK\r\n\r\n" + Page), Malformed},
		"status of zero":             {say("HTTP/1.1 000 OK\r\n\r\n" + Page), Malformed},
		"line without a colon":       {say("HTTP/1.1 200 OK\r\nhello\r\n\r\n" + Page), Malformed},
		"length of letters":          {say("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + Page), Malformed},
		"length negative":            {say("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + Page), Malformed},
		"length beyond an int":       {say("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), Malformed},
		"two lengths":                {say("HTTP/1.1 200 OK\r\nContent-Length: 1680\r\nContent-Length: 1680\r\n\r\n" + Page), Malformed},
		"chunked":                    {say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n690\r\n" + Page + "\r\n0\r\n\r\n"), Malformed},
		"the answer to another verb": {say(string(AppendResponse(nil, "POST"))), Status},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, Probe(t.Context(), Unix(serve(t, c.s)), Path), c.want)
		})
	}
}

func TestProbeGivesUpAtItsDeadline(t *testing.T) {
	good := string(AppendResponse(nil, "GET"))
	for name, c := range map[string]struct {
		s    script
		want Kind
	}{
		"silence":                     {hold(""), Timeout},
		"half a head":                 {hold(good[:20]), Dripping},
		"half a body":                 {hold(good[:500]), Dripping},
		"all of it, but never closed": {hold(good), Dripping},
		"a byte now and then": {func(c *net.UnixConn) {
			for i := 0; ; i++ {
				if _, err := c.Write([]byte{good[i%40]}); err != nil {
					return
				}
				// The pace, not a synchronisation: each byte resets a naive idle timer.
				c.SetReadDeadline(time.Now().Add(15 * time.Millisecond))
				c.Read(make([]byte, 256))
			}
		}, Dripping},
	} {
		t.Run(name, func(t *testing.T) {
			expectAtDeadline(t, serve(t, c.s), c.want)
		})
	}
}

func TestProbeCannotConnect(t *testing.T) {
	expect(t, Probe(t.Context(), Unix(filepath.Join(t.TempDir(), "none")), Path), Connect)
}

// A stopped process still has a listener: the kernel takes the connection and nobody
// ever accepts it.
func TestProbeOfAStoppedProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expectAtDeadline(t, path, Timeout)
}

func TestCancelledProbeAccusesNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := serve(t, func(c *net.UnixConn) {
		readRequest(c)
		cancel()
		c.Read(make([]byte, 1))
	})
	err := Probe(ctx, Unix(path), Path)
	var f *Failure
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("got %v, want context.Canceled and no Failure", err)
	}
}

func expect(t *testing.T, err error, want Kind) {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a failure of kind %q", err, want)
	}
	if f.Kind != want {
		t.Errorf("got %v, want kind %q", err, want)
	}
	if !strings.HasPrefix(f.Error(), "heartbeat: "+want.String()+": ") || errors.Unwrap(f) == nil {
		t.Errorf("message is %q", f.Error())
	}
}

func TestPageIsTheOriginals(t *testing.T) {
	if len(Page) != 1680 || strings.Count(Page, "\n") != 60 {
		t.Errorf("page has %d bytes in %d lines, want 1680 in 60", len(Page), strings.Count(Page, "\n"))
	}
}

// The answer must be HTTP for everybody, not for our prober only.
func TestAnswerIsValidHTTP(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST"} {
		t.Run(method, func(t *testing.T) {
			path := serve(t, say(string(AppendResponse([]byte(nil), method))))
			client := http.Client{Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Unix(path)(ctx) },
			}}
			req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+Path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var body bytes.Buffer
			if _, err := body.ReadFrom(resp.Body); err != nil {
				t.Fatal(err)
			}
			wantStatus, wantBody := 200, map[string]string{"GET": Page}[method]
			if method == "POST" {
				wantStatus = 405
			}
			if resp.StatusCode != wantStatus || body.String() != wantBody || !resp.Close {
				t.Errorf("status %d, %d bytes, close %v; want %d, %d, true", resp.StatusCode, body.Len(), resp.Close, wantStatus, len(wantBody))
			}
		})
	}
}

func TestAppendResponseDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = AppendResponse(buf[:0], "GET") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKindsPrint(t *testing.T) {
	seen := map[string]bool{}
	for k := Kind(0); k <= numKinds; k++ {
		if seen[k.String()] || k.String() == "" {
			t.Errorf("kind %d prints %q", k, k)
		}
		seen[k.String()] = true
	}
}

// judge feeds an answer to the checker in pieces of n bytes.
func judge(data []byte, n int) *Failure {
	a := answer{}
	for len(data) > 0 {
		m := min(n, len(data))
		a.buf = append(a.buf, data[:m]...)
		data = data[m:]
		if fail := a.next(); fail != nil {
			return fail
		}
	}
	return a.end()
}

// FuzzAnswer holds that no answer panics the checker, that only the exact page passes,
// and that the way in which an answer is cut does not decide whether it passes.
func FuzzAnswer(f *testing.F) {
	f.Add(AppendResponse(nil, "GET"), 1)
	f.Add(AppendResponse(nil, "HEAD"), 7)
	f.Add(AppendResponse(nil, "POST"), 100)
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\n"+Page), 3)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1680\r\nContent-Length: 0\r\n\r\n"), 2)
	f.Add([]byte("HTTP/1.1 200\r\n:\r\n\r\n"), 1)
	f.Add([]byte("HTTP/1."), 1)
	f.Add([]byte("\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		n = 1 + int(uint(n)%4096)
		whole, cut := judge(data, len(data)+1), judge(data, n)
		if (whole == nil) != (cut == nil) {
			t.Errorf("whole: %v, in pieces of %d: %v", whole, n, cut)
		}
		if whole == nil && (!bytes.HasPrefix(data, []byte("HTTP/1.")) || !bytes.HasSuffix(data, []byte(Page))) {
			t.Errorf("%q passed", data)
		}
	})
}
