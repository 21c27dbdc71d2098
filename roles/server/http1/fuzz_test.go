package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"testing"

	"trafficd/roles/server/header"
)

// requestSeeds are the ways in which requests have been smuggled, and what is
// next to them.
var requestSeeds = []string{
	wrkRequest, fiveFields, browserRequest,
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
	"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
	"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET http://a/b HTTP/1.1\r\nHost: c\r\n\r\n",
	"GET HTTPS://[::1]:8443?x HTTP/1.1\r\nHost: c\r\n\r\n",
	"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"CONNECT \x1e", "GET /\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / http/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET / HTTP/1.d\r\nHost: a\r\n\r\n",
	"GET /` HTTP/1.0\r\n\r\n", "GET /%zz?%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host, x\r\nX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nUpgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n",
	"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}

// checkSpans reads every span, so that one out of range panics.
func checkSpans(t *testing.T, head []byte, fields []Field, spans ...Span) {
	t.Helper()
	for _, s := range spans {
		if s.Len > 0 && bytes.ContainsAny(s.In(head), "\r\n\x00") {
			t.Fatalf("span %q crosses a line", s.In(head))
		}
	}
	for i := range fields {
		name, value := fields[i].Name.In(head), fields[i].Value.In(head)
		if !header.IsToken(name) || header.ScanText(value, 0) != len(value) || fields[i].ID != header.Lookup(name) || len(header.Trim(value)) != len(value) {
			t.Fatalf("field %q: %q, %v", name, value, fields[i].ID)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s), uint8(7))
		f.Add([]byte(s), uint8(200))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var lim *Limits
		if step >= 128 {
			lim = &Limits{RequestLine: int(step) % 32, Head: int(step) % 77, Fields: int(step) % 5}
		}
		var r Request
		err := r.Parse(b, lim)
		var scan HeadScan
		n := int(step)%64 + 1
		end, scanErr := drip(func(p []byte) (int, error) { return scan.Request(p, lim) }, string(b), n)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e != ErrIncomplete && (e.Status < 400 || e.Status > 505) {
				t.Fatalf("%q: %v", b, err)
			}
			if e == ErrIncomplete && (end != 0 || scanErr != nil) {
				t.Fatalf("%q is incomplete, but HeadScan says %d, %v", b, end, scanErr)
			}
			return
		}
		head := b[:r.HeadLen]
		checkSpans(t, head, r.Fields, r.MethodName, r.Target, r.Scheme, r.Authority, r.Path, r.Query, r.Host)
		if end != r.HeadLen || scanErr != nil {
			t.Fatalf("%q: HeadScan says %d, %v; Parse %d", b, end, scanErr, r.HeadLen)
		}
		compareRequest(t, head, &r)
		roundTripRequest(t, head, &r)
	})
}

// compareRequest holds what was accepted against net/http. Differences that are
// known and meant:
//   - net/http refuses a chunked request whose Trailer names a framing field;
//     here Trailer is hop-by-hop and promises nothing.
//   - net/http reports a higher minor version as it is; here it counts as 1.
//   - net/http escapes what RFC 3986 does not allow in a path, and browsers send; here it stays.
func compareRequest(t *testing.T, head []byte, r *Request) {
	t.Helper()
	if r.Has(header.Trailer) && r.Chunked {
		return
	}
	q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		t.Fatalf("accepted %q; net/http: %v", head, err)
	}
	in := func(s Span) string { return string(s.In(head)) }
	if q.Method != in(r.MethodName) || q.RequestURI != in(r.Target) || q.Host != in(r.Host) {
		t.Fatalf("%q: method %q target %q host %q; net/http: %q %q %q", head, in(r.MethodName), in(r.Target), in(r.Host), q.Method, q.RequestURI, q.Host)
	}
	if min(q.ProtoMinor, 1) != int(r.Minor) || q.ProtoMajor != 1 {
		t.Fatalf("%q: minor %d; net/http: %d", head, r.Minor, q.ProtoMinor)
	}
	if r.Form == OriginForm && q.URL.RawPath != in(r.Path) && q.URL.RawPath != "" {
		t.Fatalf("%q: path %q; net/http: %q", head, in(r.Path), q.URL.RawPath)
	}
	chunked := len(q.TransferEncoding) == 1 && q.TransferEncoding[0] == "chunked"
	if chunked != r.Chunked || !chunked && q.ContentLength != max(r.ContentLength, 0) {
		t.Fatalf("%q: chunked %v length %d; net/http: %v %d", head, r.Chunked, r.ContentLength, q.TransferEncoding, q.ContentLength)
	}
	compareFields(t, head, r.Fields, q.Header)
}

// compareFields looks for each field but those that net/http takes away.
func compareFields(t *testing.T, head []byte, fields []Field, h http.Header) {
	t.Helper()
	at := map[string]int{}
	for i := range fields {
		switch fields[i].ID {
		case header.Host, header.TransferEncoding, header.ContentLength, header.Trailer, header.Connection:
			continue
		}
		key := textproto.CanonicalMIMEHeaderKey(string(fields[i].Name.In(head)))
		values := h[key]
		if at[key] >= len(values) || values[at[key]] != string(fields[i].Value.In(head)) {
			t.Fatalf("%q: field %s number %d; net/http: %q", head, key, at[key], values)
		}
		at[key]++
	}
}

func roundTripRequest(t *testing.T, head []byte, r *Request) {
	t.Helper()
	again := fmt.Appendf(nil, "%s %s HTTP/1.1\r\n", r.MethodName.In(head), r.Target.In(head))
	for i := range r.Fields {
		again = AppendParsed(again, head, &r.Fields[i])
	}
	again = append(again, CRLF...)
	var q Request
	if r.Minor == 0 {
		again = bytes.Replace(again, []byte(" HTTP/1.1\r\n"), []byte(" HTTP/1.0\r\n"), 1)
	}
	if err := q.Parse(again, &Limits{RequestLine: len(again), Head: 2 * len(again), Fields: 1000}); err != nil {
		t.Fatalf("%q written as %q: %v", head, again, err)
	}
	if q.ContentLength != r.ContentLength || q.Chunked != r.Chunked || q.Close != r.Close || q.Form != r.Form || q.Method != r.Method ||
		!bytes.Equal(q.Host.In(again), r.Host.In(head)) || len(q.Fields) != len(r.Fields) || q.Upgrade != r.Upgrade || q.Expect100 != r.Expect100 {
		t.Fatalf("%q written as %q reads differently", head, again)
	}
}

func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		originResponse, "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
		"HTTP/1.9 999 \xff\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.0 10d\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3), false)
		f.Add([]byte(s), uint8(1), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8, isHead bool) {
		var r Response
		err := r.Parse(b, nil)
		var scan HeadScan
		end, scanErr := drip(func(p []byte) (int, error) { return scan.Response(p, nil) }, string(b), int(step)%64+1)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e != ErrIncomplete && e.Status != 502 {
				t.Fatalf("%q: %v", b, err)
			}
			if e == ErrIncomplete && (end != 0 || scanErr != nil) {
				t.Fatalf("%q is incomplete, but HeadScan says %d, %v", b, end, scanErr)
			}
			return
		}
		head := b[:r.HeadLen]
		checkSpans(t, head, r.Fields, r.Reason)
		if end != r.HeadLen || scanErr != nil {
			t.Fatalf("%q: HeadScan says %d, %v; Parse %d", b, end, scanErr, r.HeadLen)
		}
		method := GET
		if isHead {
			method = HEAD
		}
		compareResponse(t, head, &r, method)
		roundTripResponse(t, head, &r)
	})
}

// compareResponse holds what was accepted against net/http. Known differences:
// a Trailer that names framing fields, as in compareRequest; and after 1xx and
// 204, which never have a body here, net/http reports what the fields say.
func compareResponse(t *testing.T, head []byte, r *Response, method Method) {
	t.Helper()
	if r.Has(header.Trailer) && r.Chunked || r.Status == 204 && r.Chunked {
		return
	}
	p, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: method.String()})
	if err != nil {
		t.Fatalf("accepted %q; net/http: %v", head, err)
	}
	if p.StatusCode != r.Status || min(p.ProtoMinor, 1) != int(r.Minor) {
		t.Fatalf("%q: status %d minor %d; net/http: %d %d", head, r.Status, r.Minor, p.StatusCode, p.ProtoMinor)
	}
	chunked := len(p.TransferEncoding) > 0
	switch framing := r.Body(method); framing {
	case None, Tunnel:
		if n, _ := io.Copy(io.Discard, p.Body); n != 0 {
			t.Fatalf("%q: %v; net/http reads %d bytes", head, framing, n)
		}
	case Length:
		if p.ContentLength != r.ContentLength || chunked {
			t.Fatalf("%q: length %d; net/http: %d", head, r.ContentLength, p.ContentLength)
		}
	case ChunkedBody:
		if !chunked {
			t.Fatalf("%q: chunked; net/http: %d", head, p.ContentLength)
		}
	case UntilClose:
		if p.ContentLength != -1 || chunked {
			t.Fatalf("%q: until close; net/http: %d", head, p.ContentLength)
		}
	}
	compareFields(t, head, r.Fields, p.Header)
}

func roundTripResponse(t *testing.T, head []byte, r *Response) {
	t.Helper()
	again := AppendStatusLine(nil, r.Status)
	for i := range r.Fields {
		again = AppendParsed(again, head, &r.Fields[i])
	}
	again = append(again, CRLF...)
	var p Response
	if err := p.Parse(again, &Limits{RequestLine: len(again), Head: 2 * len(again), Fields: 1000}); err != nil {
		t.Fatalf("%q written as %q: %v", head, again, err)
	}
	if p.Status != r.Status || p.ContentLength != r.ContentLength || p.Chunked != r.Chunked || len(p.Fields) != len(r.Fields) || p.Body(GET) != r.Body(GET) {
		t.Fatalf("%q written as %q reads differently", head, again)
	}
}

func FuzzChunked(f *testing.F) {
	for _, s := range cutBodies {
		f.Add([]byte(s), uint16(3), uint16(9))
	}
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "+5\r\n", "0x5\r\n",
		"5\nhello\n0\n\n", "8000000000000000\r\n", "00000000000000005\r\n", "5\r\nhello0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n", "0\r\nX : y\r\n\r\n", "0\r\n\r\r\n"} {
		f.Add([]byte(s), uint16(1), uint16(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, one, two uint16) {
		body := string(b)
		whole := decode(body)
		cut1, cut2 := 0, 0
		if len(b) > 0 {
			cut1, cut2 = int(one)%len(b), int(two)%len(b)
		}
		if got := decode(body, min(cut1, cut2), max(cut1, cut2)); got != whole {
			t.Fatalf("%q cut at %d and %d: %+v, want %+v", body, cut1, cut2, got, whole)
		}
		if whole.err != nil {
			var e *Error
			if !errors.As(whole.err, &e) || e.Status < 400 {
				t.Fatalf("%q: %v", body, whole.err)
			}
		}
		if !whole.done {
			return
		}
		again := decode(whole.canonical)
		if !again.done || again.data != whole.data || again.canonical != whole.canonical {
			t.Fatalf("canonical form of %q is %q, which is %+v", body, whole.canonical, again)
		}
		for _, text := range []string{body, whole.canonical} {
			got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(text)))
			// net/http bounds the ratio of framing to data, here extensions and
			// trailers are bounded each.
			if err != nil && strings.Contains(err.Error(), "too much non-data") {
				continue
			}
			if err != nil || string(got) != whole.data {
				t.Fatalf("%q: data %q; net/http: %q, %v", text, whole.data, got, err)
			}
		}
	})
}
