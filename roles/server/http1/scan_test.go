package http1

import (
	"errors"
	"strings"
	"testing"
)

// drip feeds head to scan n bytes at a time.
func drip(scan func(buf []byte) (int, error), head string, n int) (int, error) {
	for i := 0; i < len(head); i += n {
		end, err := scan([]byte(head[:min(i+n, len(head))]))
		if end != 0 || err != nil {
			return end, err
		}
	}
	return 0, nil
}

func TestHeadScanFindsTheEndHoweverItDrips(t *testing.T) {
	for n := 1; n <= len(browserRequest)+5; n++ {
		var s HeadScan
		end, err := drip(func(b []byte) (int, error) { return s.Request(b, nil) }, browserRequest+"GET /", n)
		if end != len(browserRequest) || err != nil {
			t.Fatalf("request, %d bytes at a time: %d, %v", n, end, err)
		}
		s = HeadScan{}
		end, err = drip(func(b []byte) (int, error) { return s.Response(b, nil) }, originResponse+"body", n)
		if end != len(originResponse) || err != nil {
			t.Fatalf("response, %d bytes at a time: %d, %v", n, end, err)
		}
	}
}

func TestHeadScanRefusesEarly(t *testing.T) {
	lim := &Limits{RequestLine: 100, Head: 300, Fields: 5}
	for _, c := range []struct {
		what, start string
		want        int
	}{
		{"TLS ClientHello", "\x16\x03\x01", 400},
		{"SSH", "SSH-2.0-OpenSSH_10.0\r\n", 400},
		{"PROXY protocol v2", "\r\n\r\n\x00\r\nQUIT\n", 400},
		{"a space first", " GET", 400},
		{"NUL in the target", "GET /\x00", 400},
		{"bare LF", "GET / HTTP/1.1\n", 400},
		{"bare LF in a field", "GET / HTTP/1.1\r\nHost: a\n", 400},
		{"bare CR", "GET / HTTP/1.1\rX", 400},
		{"long method", strings.Repeat("A", 33), 501},
		{"long line", "GET /" + strings.Repeat("a", 97), 414},
		{"long head", "GET / HTTP/1.1\r\nA: " + strings.Repeat("a", 300), 431},
		{"many fields", "GET / HTTP/1.1\r\n" + strings.Repeat("A:\r\n", 6), 431},
		{"nothing wrong so far", "GET / HTTP/1.1\r\n" + strings.Repeat("A:\r\n", 5) + "A: b", 0},
		{"half an empty line", "\r", 0},
		{"nothing", "", 0},
	} {
		for n := 1; n <= len(c.start); n++ {
			var s HeadScan
			_, err := drip(func(b []byte) (int, error) { return s.Request(b, lim) }, c.start, n)
			got := 0
			var e *Error
			if errors.As(err, &e) {
				got = e.Status
			}
			if got != c.want {
				t.Errorf("%s, %d bytes at a time: %v, want status %d", c.what, n, err, c.want)
				break
			}
		}
	}
	for _, start := range []string{"X", "HTTP/2", "HTTP/1.1 200 OK\n", "HTTP/1.1 200 " + strings.Repeat("a", 200), "HTTP/1.1 200\r\n" + strings.Repeat("A:\r\n", 6)} {
		var s HeadScan
		_, err := drip(func(b []byte) (int, error) { return s.Response(b, lim) }, start, 1)
		var e *Error
		if !errors.As(err, &e) || e.Status != 502 {
			t.Errorf("response %q: %v, want status 502", start, err)
		}
	}
}

func TestLineLimitAboveHeadLimit(t *testing.T) {
	lim := &Limits{RequestLine: 100, Head: 20}
	var request, response HeadScan
	_, err := request.Request([]byte("GET /"+strings.Repeat("a", 40)+" HTTP/1.1\r\n"), lim)
	if err != errHeadTooLarge {
		t.Errorf("request: %v", err)
	}
	_, err = response.Response([]byte("HTTP/1.1 200 "+strings.Repeat("a", 40)+"\r\n"), lim)
	if err != originFault(errHeadTooLarge) {
		t.Errorf("response: %v", err)
	}
}

func TestSkipEmptyLines(t *testing.T) { // RFC 9112 §2.2
	for _, c := range []struct {
		in   string
		want int
	}{{"", 0}, {"GET", 0}, {"\r\nGET", 2}, {"\r\n\r\nG", 4}, {"\r", 0}, {"\n", 0}, {"\r\n\r", 2}, {"\r\n\n", 2}, {strings.Repeat("\r\n", 9), 8}} {
		if got := SkipEmptyLines([]byte(c.in)); got != c.want {
			t.Errorf("SkipEmptyLines(%q) = %d, want %d", c.in, got, c.want)
		}
	}
}
