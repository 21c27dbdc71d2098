package http1

import (
	"errors"
	"strings"
	"testing"
)

func TestStatusLine(t *testing.T) {
	for _, c := range []struct {
		section, line string
		status        int // 0: refused
		reason        string
	}{
		{"RFC 9112 §4 plain", "HTTP/1.1 200 OK", 200, "OK"},
		{"RFC 9112 §4 empty reason", "HTTP/1.1 200 ", 200, ""},
		{"RFC 9112 §4 no reason", "HTTP/1.1 200", 200, ""},
		{"RFC 9112 §4 words", "HTTP/1.1 404 Not \tFound \xe9", 404, "Not \tFound \xe9"},
		{"RFC 9110 §15 unknown class", "HTTP/1.1 999 X", 999, "X"},
		{"RFC 9110 §2.5 minor", "HTTP/1.7 200 OK", 200, "OK"},
		{"HTTP/1.0", "HTTP/1.0 200 OK", 200, "OK"},
		{"RFC 9112 §4 too low", "HTTP/1.1 099 X", 0, ""},
		{"RFC 9112 §4 two digits", "HTTP/1.1 20 OK", 0, ""},
		{"RFC 9112 §4 four digits", "HTTP/1.1 2000 OK", 0, ""},
		{"RFC 9112 §4 sign", "HTTP/1.1 +20 OK", 0, ""},
		{"RFC 9112 §4 letter", "HTTP/1.1 10d OK", 0, ""},
		{"RFC 9112 §4 two spaces", "HTTP/1.1  200 OK", 0, ""},
		{"RFC 9112 §4 tab", "HTTP/1.1\t200 OK", 0, ""},
		{"RFC 9112 §4 leading space", " HTTP/1.1 200 OK", 0, ""},
		{"RFC 9112 §2.3 version 2", "HTTP/2.0 200 OK", 0, ""},
		{"RFC 9112 §2.3 lower case", "http/1.1 200 OK", 0, ""},
		{"RFC 9112 §2.3 two digits", "HTTP/1.10 200 OK", 0, ""},
		{"Shoutcast", "ICY 200 OK", 0, ""},
		{"HTTP/0.9", "<html>", 0, ""},
		{"RFC 9112 §2.2 bare CR", "HTTP/1.1 200 O\rK", 0, ""},
		{"RFC 9112 §2.2 bare LF", "HTTP/1.1 200 O\nK", 0, ""},
		{"RFC 9112 §4 NUL", "HTTP/1.1 200 O\x00K", 0, ""},
	} {
		head := []byte(c.line + "\r\nContent-Length: 0\r\n\r\n")
		var r Response
		err := r.Parse(head, nil)
		var e *Error
		switch {
		case c.status == 0 && (!errors.As(err, &e) || e.Status != 502):
			t.Errorf("%s: %q: %v, want status 502", c.section, c.line, err)
		case c.status != 0 && (err != nil || r.Status != c.status || string(r.Reason.In(head)) != c.reason):
			t.Errorf("%s: %q: %v, status %d, reason %q", c.section, c.line, err, r.Status, r.Reason.In(head))
		}
	}
}

func TestResponseFraming(t *testing.T) {
	const refused = Framing(99)
	cl, cl0, te := "Content-Length: 5\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"
	for _, c := range []struct {
		section, line, fields string
		method                Method
		want                  Framing
		close                 bool
	}{
		{"RFC 9112 §6.3 r1 HEAD", "HTTP/1.1 200 OK", cl, HEAD, None, false},
		{"RFC 9112 §6.3 r1 HEAD chunked", "HTTP/1.1 200 OK", te, HEAD, None, false},
		{"RFC 9112 §6.3 r1 304", "HTTP/1.1 304 X", cl, GET, None, false},
		{"RFC 9112 §6.3 r1 304 chunked", "HTTP/1.1 304 X", te, GET, None, false},
		{"RFC 9112 §6.3 r1 204", "HTTP/1.1 204 X", "", GET, None, false},
		{"RFC 9112 §6.3 r1 204 with length 0", "HTTP/1.1 204 X", cl0, GET, None, false},
		{"RFC 9112 §6.3 r1 204 with length", "HTTP/1.1 204 X", cl, GET, None, true},
		{"RFC 9112 §6.1 204 chunked", "HTTP/1.1 204 X", te, GET, None, true},
		{"RFC 9112 §6.3 r1 100", "HTTP/1.1 100 X", "", POST, None, false},
		{"RFC 9112 §6.3 r1 103", "HTTP/1.1 103 X", "Link: </a>\r\n", GET, None, false},
		{"RFC 9110 §8.6 100 with length", "HTTP/1.1 100 X", cl, POST, refused, false},
		{"RFC 9112 §6.1 103 chunked", "HTTP/1.1 103 X", te, GET, refused, false},
		{"RFC 9110 §7.8 101", "HTTP/1.1 101 X", "", GET, Tunnel, false},
		{"RFC 9110 §7.8 101 with length 0", "HTTP/1.1 101 X", cl0, GET, Tunnel, false},
		{"RFC 9112 §6.3 r2 CONNECT", "HTTP/1.1 200 X", "", CONNECT, Tunnel, false},
		{"RFC 9112 §6.3 r2 CONNECT, fields ignored", "HTTP/1.1 299 X", cl, CONNECT, Tunnel, false},
		{"RFC 9112 §6.3 r2 CONNECT refused", "HTTP/1.1 403 X", cl, CONNECT, Length, false},
		{"RFC 9112 §6.3 r3 both", "HTTP/1.1 200 X", cl + te, GET, refused, false},
		{"RFC 9112 §6.3 r3 both, HEAD", "HTTP/1.1 200 X", te + cl, HEAD, refused, false},
		{"RFC 9112 §6.3 r4", "HTTP/1.1 200 X", te, GET, ChunkedBody, false},
		{"RFC 9112 §6.1 TE in 1.0", "HTTP/1.0 200 X", te, GET, refused, false},
		{"RFC 9112 §6.1 unknown coding", "HTTP/1.1 200 X", "Transfer-Encoding: x\r\n", GET, refused, false},
		{"RFC 9112 §6.1 gzip, chunked", "HTTP/1.1 200 X", "Transfer-Encoding: gzip, chunked\r\n", GET, refused, false},
		{"RFC 9112 §6.3 r4 gzip", "HTTP/1.1 200 X", "Transfer-Encoding: gzip\r\n", GET, refused, false},
		{"RFC 9112 §6.3 r5 invalid", "HTTP/1.1 200 X", "Content-Length: 5x\r\n", GET, refused, false},
		{"RFC 9112 §6.3 r5 twice", "HTTP/1.1 200 X", cl + cl, GET, refused, false},
		{"RFC 9112 §6.3 r5 list", "HTTP/1.1 200 X", "Content-Length: 5, 5\r\n", GET, refused, false},
		{"RFC 9112 §6.3 r6", "HTTP/1.1 200 X", cl, GET, Length, false},
		{"RFC 9112 §6.3 r6 zero", "HTTP/1.1 200 X", cl0, GET, Length, false},
		{"RFC 9110 §15.3.6 205", "HTTP/1.1 205 X", cl0, GET, Length, false},
		{"RFC 9112 §6.3 r8", "HTTP/1.1 200 X", "", GET, UntilClose, false},
		{"RFC 9112 §6.3 r8 1.0", "HTTP/1.0 200 X", "", GET, UntilClose, true},
		{"RFC 9112 §9.3 close", "HTTP/1.1 200 X", cl + "Connection: close\r\n", GET, Length, true},
		{"RFC 9112 §9.3 1.0", "HTTP/1.0 200 X", cl, GET, Length, true},
		{"RFC 9112 §9.3 1.0 keep-alive", "HTTP/1.0 200 X", cl + "Connection: keep-alive\r\n", GET, Length, false},
		{"RFC 9110 §7.6.1 malformed", "HTTP/1.1 200 X", cl + "Connection: a b\r\n", GET, Length, true},
		{"RFC 9112 §5.2 obs-fold", "HTTP/1.1 200 X", "A: b\r\n c\r\n", GET, refused, false},
		{"RFC 9112 §5.1 space before colon", "HTTP/1.1 200 X", "Content-Length : 5\r\n", GET, refused, false},
		{"CGI look-alike", "HTTP/1.1 200 X", "Content_Length: 5\r\n", GET, refused, false},
	} {
		var r Response
		err := r.Parse([]byte(c.line+"\r\n"+c.fields+"\r\n"), nil)
		var e *Error
		switch {
		case c.want == refused:
			if !errors.As(err, &e) || e.Status != 502 {
				t.Errorf("%s: %v, want status 502", c.section, err)
			}
		case err != nil || r.Body(c.method) != c.want || r.Close != c.close:
			t.Errorf("%s: %v, framing %v, close %v", c.section, err, r.Body(c.method), r.Close)
		}
	}
}

func TestInterimResponsesAreHeadsOfTheirOwn(t *testing.T) { // RFC 9110 §15.2
	stream := []byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	var r Response
	var seen []int
	for {
		if err := r.Parse(stream, nil); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, r.Status)
		stream = stream[r.HeadLen:]
		if r.Status >= 200 {
			break
		}
	}
	if len(seen) != 3 || seen[0] != 100 || seen[1] != 103 || string(stream) != "hi" {
		t.Errorf("heads %v, body %q", seen, stream)
	}
}

func TestResponseLimits(t *testing.T) {
	lim := &Limits{RequestLine: 30, Head: 60, Fields: 2}
	for _, head := range []string{
		"HTTP/1.1 200 " + strings.Repeat("a", 18) + "\r\n\r\n",
		"HTTP/1.1 200 " + strings.Repeat("a", 100),
		"HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 60),
	} {
		var r Response
		err := r.Parse([]byte(head), lim)
		var e *Error
		if !errors.As(err, &e) || e.Status != 502 {
			t.Errorf("Parse(%q) = %v, want status 502", head, err)
		}
	}
	for n := range originResponse {
		var r Response
		if err := r.Parse([]byte(originResponse[:n]), nil); err != ErrIncomplete {
			t.Fatalf("Parse(%q) = %v, want ErrIncomplete", originResponse[:n], err)
		}
	}
}

func TestFaultsOfOriginsAre502(t *testing.T) {
	for e, o := range fromOrigin {
		if o.Status != 502 || o.Reason != e.Reason {
			t.Errorf("%v became %d %v", e, o.Status, o)
		}
	}
	if originFault(ErrIncomplete) != ErrIncomplete {
		t.Error("an incomplete head is no fault")
	}
}
