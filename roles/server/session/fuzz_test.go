package session

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/transaction"
)

// FuzzSession: whatever a client sends, and however it is cut, it gets well-formed responses in order, the
// session comes to an end with the stream, and what is taken for a request does not depend on
// the cuts. (Only how far the connection goes on may, and what becomes of a request whose body is malformed: a
// body that nobody wants is waited for no longer than the reply.)
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r", "\r", "\x16\x03\x01", "GET / HTTP/1.1\nHost: a\n\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		if len(stream) > 16<<10 {
			return
		}
		whole, asked := statuses(t, stream, len(stream)+1)
		cut, _ := statuses(t, stream, int(step)+1)
		compareStream(t, stream, asked)
		n := min(len(whole), len(cut))
		if n > 0 && n == len(whole) && whole[n-1] == 400 && bytes.Contains(bytes.ToLower(stream), []byte("chunked")) {
			n-- // a malformed body is refused when it comes with its head, else too late for the answer
		}
		if !slices.Equal(whole[:n], cut[:n]) || len(cut) > len(whole) {
			t.Fatalf("%q: %v at once, %v in pieces of %d", stream, whole, cut, int(step)+1)
		}
	})
}

// compareStream holds what was taken for requests against what net/http takes for them: so far as the
// session goes it must find the same ones, one behind the other. Known and meant: net/http refuses a chunked
// request whose Trailer names a framing field, and reads trailer sections otherwise.
func compareStream(t *testing.T, stream []byte, asked []string) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(stream))
	for i, want := range asked {
		for range http1.MaxEmptyLines {
			if b, _ := in.Peek(2); string(b) == "\r\n" {
				_, _ = in.Discard(2)
			}
		}
		q, err := http.ReadRequest(in)
		if err != nil {
			if strings.Contains(want, " trailer") {
				return
			}
			t.Fatalf("%q: request %d of %q is none to net/http: %v", stream, i, asked, err)
		}
		got := fmt.Sprintf("%s %s %s %d %v", q.Method, q.RequestURI, q.Host, max(q.ContentLength, 0), len(q.TransferEncoding) > 0)
		if q.ContentLength < 0 {
			got = fmt.Sprintf("%s %s %s 0 true", q.Method, q.RequestURI, q.Host)
		}
		if got != strings.TrimSuffix(want, " trailer") {
			t.Fatalf("%q: request %d is %q, to net/http %q", stream, i, want, got)
		}
		if _, err := io.Copy(io.Discard, q.Body); err != nil && i+1 < len(asked) {
			t.Fatalf("%q: behind request %d of %q, whose body is none to net/http: %v", stream, i, asked, err)
		}
	}
}

// describe says what net/http can say, too.
func describe(r *http1.Request, head []byte) string {
	d := fmt.Sprintf("%s %s %s %d %v", r.MethodName.In(head), r.Target.In(head), r.Host.In(head), max(r.ContentLength, 0), r.Chunked)
	if r.Chunked && r.Has(header.Trailer) {
		d += " trailer"
	}
	return d
}

// statuses plays a stream in pieces and returns the status codes of the responses, and what was taken
// for requests.
func statuses(t *testing.T, stream []byte, piece int) (codes []int, asked []string) {
	t.Helper()
	h := newHost(t)
	table, err := remap.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.Env.Settings.Store(&transaction.Settings{Via: "t", Remap: table})
	h.Env.Hook = func(r *http1.Request, head []byte) { asked = append(asked, describe(r, head)) }
	fd, client := pair(t)
	s := h.takeSession()
	s.fd, s.counted = fd, true
	h.sessions.push(s)
	var out []byte
	take := func() {
		for b := make([]byte, 64<<10); ; {
			n, _ := unix.Read(client, b)
			if n <= 0 {
				return
			}
			out = append(out, b[:n]...)
		}
	}
	for len(stream) > 0 && s.phase != phaseClosed {
		n, err := unix.Write(client, stream[:min(piece, len(stream))])
		if err != nil {
			break
		}
		stream = stream[n:]
		s.readable = true
		s.run()
		take()
	}
	_ = unix.Shutdown(client, unix.SHUT_WR)
	for turns := 0; s.phase != phaseClosed; turns++ {
		if turns == 1000 {
			t.Fatalf("%q: the session does not end: it is %v", out, s.phase)
		}
		s.readable, s.turn = true, false
		s.run()
		take()
	}
	for _, m := range statusLine.FindAllSubmatch(out, -1) {
		switch code, _ := strconv.Atoi(string(m[1])); code {
		case 100:
		case 414, 431, 501, 505:
			codes = append(codes, 400) // of several faults the one that is seen first
		default:
			codes = append(codes, code)
		}
	}
	return codes, asked
}

// statusLine finds responses; no body of ours has one in it.
var statusLine = regexp.MustCompile(`HTTP/1\.1 (\d{3}) `)
