package accesslog

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"trafficd/roles/server/http1"
)

const head = "GET /a/b?q=1 HTTP/1.1\r\nHost: example.org\r\nReferer: http://x/\r\nUser-Agent: curl/8 \"q\"\r\nX-Id: 7\r\n\r\n"

// example is a transaction that took 12.345 ms.
func example(t testing.TB, head string) *Entry {
	t.Helper()
	req := &http1.Request{}
	if err := req.Parse([]byte(head), nil); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 23, 3, 4, 5, 678e6, time.UTC).UnixNano()
	return &Entry{
		Conn: 0xabc, Request: 0x10, Client: netip.MustParseAddrPort("192.0.2.7:4711"),
		Began: began, Ended: began + 12_345_678, Req: req, Head: []byte(head), Received: int64(len(head)),
		Status: 200, Lines: []byte("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\n"), Extra: []byte("X-Extra: 1\r\n"),
		Sent: 1234, Body: 1000, Keep: true, Served: 3,
		Outcome: Outcome{Result: Miss, Origin: netip.MustParseAddrPort("10.0.0.1:80"), Host: "origin.example"},
	}
}

func line(t testing.TB, name, custom string, e *Entry) string {
	t.Helper()
	f, err := NewFormat(name, custom)
	if err != nil {
		t.Fatal(err)
	}
	return string(f.appendLine(nil, e, &clock{}))
}

func TestFormats(t *testing.T) {
	utc(t)
	for _, c := range []struct{ name, custom, want string }{
		{"common", "", `192.0.2.7 - - [23/Nov/2026:03:04:05 +0000] "GET /a/b?q=1 HTTP/1.1" 200 1000`},
		{"combined", "", `192.0.2.7 - - [23/Nov/2026:03:04:05 +0000] "GET /a/b?q=1 HTTP/1.1" 200 1000 "http://x/" "curl/8 \"q\""`},
		{"squid", "", `1795403045.690     12 192.0.2.7 TCP_MISS/200 1234 GET http://example.org/a/b?q=1 - DIRECT/origin.example text/html`},
		{"json", "", `{"time":"2026-11-23T03:04:05.678Z","client":"192.0.2.7","client_port":4711,"method":"GET","host":"example.org","url":"/a/b?q=1",` +
			`"protocol":"HTTP/1.1","referer":"http://x/","user_agent":"curl/8 \"q\"","status":200,"body_bytes":1000,"sent_bytes":1234,"received_bytes":97,` +
			`"duration_us":12345,"cache":"TCP_MISS","hierarchy":"DIRECT","origin":"10.0.0.1:80","origin_host":"origin.example","aborted":false}`},
		{"custom", `%a:%{remote}p %m %U%q %H %v %s %B/%O/%I/%S %D %T %{ms}T %X %k`,
			`192.0.2.7:4711 GET /a/b?q=1 HTTP/1.1 example.org 200 1000/1234/97/1331 12345 0 12 + 3`},
		{"custom", `%{X-ID}i %{etag}o %{x-extra}o %{None}i %{None}o %{cache}x %{hierarchy}x %{origin}x %{origin_host}x %{id}x`,
			`7 \"v1\" 1 - - TCP_MISS DIRECT 10.0.0.1:80 origin.example abc-10`},
		{"custom", `%{iso}t %{sec}t %{msec}t %{usec}t`, `2026-11-23T03:04:05.678Z 1795403045 1795403045678 1795403045678000`},
	} {
		if got := line(t, c.name, c.custom, example(t, head)); got != c.want+"\n" {
			t.Errorf("%s %s:\n got %swant %s", c.name, c.custom, got, c.want)
		}
	}
}

// utc makes the zone of the common format's times known.
func utc(t testing.TB) {
	was := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = was })
}

func TestFormatsOfWhatIsNotARequest(t *testing.T) {
	utc(t)
	e := &Entry{Head: []byte("GET /\x1b[31m \"x\r\nrest"), Status: 400, Sent: 90, Body: 30}
	for name, want := range map[string]string{
		"common": `- - - [01/Jan/1970:00:00:00 +0000] "GET /\x1b[31m \"x" 400 30`,
		"squid":  `0.000      0 - NONE/400 90 - error:invalid-request - NONE/- -`,
		"json": `{"time":"1970-01-01T00:00:00.000Z","client":"-","client_port":0,"request":"GET /\u001b[31m \"x","status":400,"body_bytes":30,` +
			`"sent_bytes":90,"received_bytes":0,"duration_us":0,"cache":"NONE","hierarchy":"NONE","aborted":false}`,
	} {
		if got := line(t, name, "", e); got != want+"\n" {
			t.Errorf("%s:\n got %swant %s", name, got, want)
		}
	}
}

// A client that goes before there is a reply: 499 as with nginx, 000 as with Squid.
func TestFormatsOfAnAbortedRequest(t *testing.T) {
	e := example(t, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n")
	e.Status, e.Aborted, e.Sent, e.Lines, e.Keep = ClientGone, true, 0, nil, false
	if got := line(t, "squid", "", e); !strings.Contains(got, " TCP_MISS_ABORTED/000 0 CONNECT h:443 - DIRECT/origin.example -\n") {
		t.Error(got)
	}
	if got := line(t, "custom", "%s %X %{cache}x %U", e); got != "499 X TCP_MISS_ABORTED h:443\n" {
		t.Error(got)
	}
}

func TestNewFormatRefuses(t *testing.T) {
	for _, c := range [][2]string{{"clf", ""}, {"custom", "%Q"}} {
		if _, err := NewFormat(c[0], c[1]); err == nil {
			t.Errorf("%v: no error", c)
		}
	}
}

// Whatever a client sends, a line is one line, and nothing in it reaches a terminal or ends a quoted value.
func FuzzLine(f *testing.F) {
	f.Add([]byte(head), []byte("X: \"\\\r\n"), uint8(0))
	f.Add([]byte("GET /\r\nx: \x00\x7f\xff\"\\ HTTP/1.1"), []byte("\xc3\xa9"), uint8(1))
	f.Add([]byte("GET http://h HTTP/1.0\r\n\r\n"), []byte(""), uint8(3))
	names := []string{"squid", "common", "combined", "json", "custom"}
	f.Fuzz(func(t *testing.T, head, lines []byte, which uint8) {
		e := &Entry{Head: head, Lines: lines, Status: 200}
		req := &http1.Request{}
		if req.Parse(head, nil) == nil {
			e.Req = req
		}
		name := names[int(which)%len(names)]
		got := line(t, name, `"%r" %U%q "%{User-Agent}i" "%{content-type}o" %v`, e)
		if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") || len(got) > maxLine+1 {
			t.Fatalf("%s: %q", name, got)
		}
		for _, c := range []byte(got[:len(got)-1]) {
			if c < ' ' || c == 0x7f || c > 0x7f && name != "json" {
				t.Fatalf("%s: byte %#x in %q", name, c, got)
			}
		}
		if name == "json" && len(got) < maxLine && (!json.Valid([]byte(got)) || !utf8.ValidString(got)) {
			t.Fatalf("not JSON: %q", got)
		}
	})
}

func FuzzPlainRun(f *testing.F) {
	f.Add([]byte("abcdefgh\"ijklmnop"))
	f.Add([]byte("01234567\x7f"))
	f.Fuzz(func(t *testing.T, p []byte) {
		want := 0
		for want < len(p) && plain(p[want]) {
			want++
		}
		if got := plainRun(p); got != want {
			t.Fatalf("%q: got %d, want %d", p, got, want)
		}
	})
}

func BenchmarkLine(b *testing.B) {
	h := "GET /images/logo-large.png?v=20261123 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n" +
		"Accept: image/avif,image/webp,*/*\r\nReferer: https://www.example.org/index.html\r\n\r\n"
	for _, name := range []string{"squid", "common", "combined", "json"} {
		b.Run(name, func(b *testing.B) {
			e := example(b, h)
			f, err := NewFormat(name, "")
			if err != nil {
				b.Fatal(err)
			}
			l := newLogs(b, 1).Log(0)
			l.Use(f)
			b.ReportAllocs()
			for b.Loop() {
				l.Add(e)
				l.ring.h.tail.Store(l.ring.h.head.Load())
			}
		})
	}
}

// A line on its whole way, in batches of a twentieth of a second at 20,000 requests a second. The budget is a
// microsecond.
func BenchmarkLineToFile(b *testing.B) {
	const batch = 1000
	e := example(b, head)
	f, err := NewFormat("combined", "")
	if err != nil {
		b.Fatal(err)
	}
	out := begin(newLogs(b, 1), filepath.Join(b.TempDir(), "log"))
	l := out.Log(0)
	l.Use(f)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		l.Add(e)
		if n%batch == 0 && !out.write() {
			b.Fatal("not written")
		}
	}
}
