package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"trafficd/roles/server/header"
)

func TestAppendStatusLine(t *testing.T) {
	for _, c := range []struct {
		status int
		want   string
	}{
		{200, "HTTP/1.1 200 OK\r\n"}, {404, "HTTP/1.1 404 Not Found\r\n"}, {299, "HTTP/1.1 299 \r\n"},
		{599, "HTTP/1.1 599 \r\n"}, {999, "HTTP/1.1 999 \r\n"}, {99, "HTTP/1.1 500 Internal Server Error\r\n"},
		{1000, "HTTP/1.1 500 Internal Server Error\r\n"},
	} {
		if got := string(AppendStatusLine(nil, c.status)); got != c.want {
			t.Errorf("AppendStatusLine(%d) = %q", c.status, got)
		}
	}
	for status := 100; status <= 999; status++ {
		var r Response
		if err := r.Parse(append(AppendStatusLine(nil, status), CRLF...), nil); err != nil || r.Status != status {
			t.Errorf("%d does not come back: %d, %v", status, r.Status, err)
		}
	}
	if StatusText(99) != "" || StatusText(600) != "" || StatusText(299) != "" || StatusText(503) != "Service Unavailable" {
		t.Error("StatusText is wrong")
	}
}

func TestAppendErrorForEveryStatusOfAProxy(t *testing.T) {
	var date DateLine
	line := date.Append(nil, 784111777)
	for _, status := range []int{400, 403, 404, 405, 408, 411, 413, 414, 417, 421, 431, 500, 501, 502, 503, 504, 505} {
		for _, content := range []bool{true, false} {
			method := "GET"
			if !content {
				method = "HEAD"
			}
			msg := AppendError(nil, status, line, []byte("Retry-After: 5\r\n"), content)
			src := bufio.NewReader(bytes.NewReader(msg))
			res, err := http.ReadResponse(src, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%d: %v", status, err)
			}
			body, _ := io.ReadAll(res.Body)
			want := fmt.Sprintf("%d %s\n", status, StatusText(status))
			if res.ContentLength != int64(len(want)) || content && string(body) != want || src.Buffered() != 0 {
				t.Errorf("%d %s: length %d, body %q, %d bytes more", status, method, res.ContentLength, body, src.Buffered())
			}
			if !res.Close || res.Header.Get("Retry-After") != "5" || res.Header.Get("Date") != "Sun, 06 Nov 1994 08:49:37 GMT" {
				t.Errorf("%d: %v", status, res.Header)
			}
		}
	}
	if got := AppendError(nil, 299, nil, nil, true); !bytes.HasPrefix(got, []byte("HTTP/1.1 500 ")) {
		t.Errorf("AppendError(299) = %q", got)
	}
}

func TestAppendFields(t *testing.T) {
	head := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	var r Request
	if err := r.Parse(head, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{AppendField(nil, []byte("A"), []byte("b")), "A: b\r\n"},
		{AppendFieldID(nil, header.ETag, []byte(`"x"`)), "ETag: \"x\"\r\n"},
		{AppendParsed(nil, head, &r.Fields[0]), "Host: a\r\n"},
		{AppendContentLength(nil, 0), "Content-Length: 0\r\n"},
		{AppendAge(nil, -1), "Age: 0\r\n"},
		{AppendAge(nil, 1<<40), "Age: 2147483648\r\n"},
		{AppendVia(nil, 0, "trafficd"), "Via: 1.0 trafficd\r\n"},
		{AppendDate(nil, 0), "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"},
	} {
		if string(c.got) != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestDateLineFollowsTheSecond(t *testing.T) {
	var d DateLine
	for _, unix := range []int64{0, 0, 1, 1, 784111777, 1, 0} {
		if got, want := string(d.Append(nil, unix)), string(AppendDate(nil, unix)); got != want {
			t.Errorf("at %d: %q, want %q", unix, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var r Request
	var resp Response
	var date DateLine
	request, response := []byte(browserRequest), []byte(originResponse)
	faulty := []byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n")
	body := []byte(cutBodies[0])
	buf := make([]byte, 0, 4096)
	for _, c := range []struct {
		what string
		f    func()
	}{
		{"Request.Parse", func() { _ = r.Parse(request, nil) }},
		{"Request.Parse, refused", func() { _ = r.Parse(faulty, nil) }},
		{"Response.Parse", func() { _ = resp.Parse(response, nil) }},
		{"Response.Parse, refused", func() { _ = resp.Parse(response[1:], nil) }},
		{"HeadScan", func() { var s HeadScan; _, _ = s.Request(request, nil) }},
		{"Chunked", func() {
			var ch Chunked
			for at := 0; !ch.Done(); {
				_, n, _ := ch.Next(body[at:])
				at += n
			}
		}},
		{"HopByHop", func() { r.HopByHop(request, &r.Fields[0]) }},
		{"response head", func() {
			b := AppendStatusLine(buf[:0], 200)
			b = date.Append(b, 1)
			b = AppendAge(b, 5)
			b = AppendVia(b, 1, "trafficd")
			AppendContentLength(b, 5)
		}},
		{"AppendError", func() { AppendError(buf[:0], 502, nil, nil, true) }},
	} {
		c.f() // the first call may grow Fields
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
	}
}
