package http1

import (
	"errors"
	"strings"
	"testing"

	"trafficd/roles/server/header"
)

// parseRequest parses a head that must be accepted.
func parseRequest(t *testing.T, head string) *Request {
	t.Helper()
	var r Request
	if err := r.Parse([]byte(head), nil); err != nil {
		t.Fatalf("Parse(%q): %v", head, err)
	}
	return &r
}

// wantRefused checks that Parse refuses a head with the given status.
func wantRefused(t *testing.T, head string, status int) {
	t.Helper()
	var r Request
	err := r.Parse([]byte(head), nil)
	var e *Error
	if !errors.As(err, &e) || e.Status != status {
		t.Errorf("Parse(%.200q) = %v, want status %d", head, err, status)
	}
}

func TestRequestLine(t *testing.T) {
	for _, c := range []struct {
		section, line string
		status        int // 0: accepted
	}{
		{"RFC 9112 §3 plain", "GET / HTTP/1.1", 0},
		{"RFC 9112 §3 two spaces", "GET  / HTTP/1.1", 400},
		{"RFC 9112 §3 two spaces before version", "GET /  HTTP/1.1", 400},
		{"RFC 9112 §3 tab", "GET\t/ HTTP/1.1", 400},
		{"RFC 9112 §3 leading space", " GET / HTTP/1.1", 400},
		{"RFC 9112 §3 trailing space", "GET / HTTP/1.1 ", 400},
		{"RFC 9112 §3 more words", "GET / x HTTP/1.1", 400},
		{"RFC 9112 §3 no target", "GET HTTP/1.1", 400},
		{"RFC 9112 §3 empty target", "GET  HTTP/1.1", 400},
		{"RFC 9112 §3 method too long", strings.Repeat("A", 33) + " / HTTP/1.1", 501},
		{"RFC 9110 §9.1 unknown method", "BREW / HTTP/1.1", 0},
		{"RFC 9110 §9.1 method is a token", "G@T / HTTP/1.1", 400},
		{"RFC 9110 §9.1 method is case-sensitive", "get / HTTP/1.1", 0},
		{"RFC 9112 §2.2 no line", "", 400},
		{"RFC 9112 §2.3 lower case", "GET / http/1.1", 400},
		{"RFC 9112 §2.3 no minor", "GET / HTTP/1", 400},
		{"RFC 9112 §2.3 no dot", "GET / HTTP/11", 400},
		{"RFC 9112 §2.3 two digits", "GET / HTTP/1.10", 400},
		{"RFC 9112 §2.3 sign", "GET / HTTP/+1.1", 400},
		{"RFC 9112 §2.3 zero before", "GET / HTTP/01.1", 400},
		{"RFC 9112 §2.3 other protocol", "GET / ICAP/1.0", 400},
		{"RFC 9112 §2.3 letter", "GET / HTTP/1.d", 400},
		{"RFC 9110 §2.5 higher minor", "GET / HTTP/1.2", 0},
		{"RFC 9110 §15.6.6 version 2", "GET / HTTP/2.0", 505},
		{"RFC 9110 §15.6.6 version 0.9", "GET / HTTP/0.9", 505},
		{"RFC 9110 §15.6.6 version 3", "GET / HTTP/3.0", 505},
		{"RFC 9113 §3.4 preface", "PRI * HTTP/2.0", 505},
		{"HTTP/0.9 simple request", "GET /", 400},
		{"RFC 9112 §3.2 options *", "OPTIONS * HTTP/1.1", 0},
		{"RFC 9112 §3.2.4 get *", "GET * HTTP/1.1", 400},
		{"RFC 9112 §3.2.4 more than *", "OPTIONS *x HTTP/1.1", 400},
		{"RFC 9112 §3.2.1 fragment", "GET /a#b HTTP/1.1", 400},
		{"RFC 9112 §3.2.1 fragment in query", "GET /a?b#c HTTP/1.1", 400},
		{"RFC 9112 §3.2.1 no slash", "GET a HTTP/1.1", 400},
		{"RFC 9112 §3.2.1 only query", "GET ?a HTTP/1.1", 400},
		{"RFC 3986 §3.3 control", "GET /a\x01 HTTP/1.1", 400},
		{"RFC 3986 §3.3 NUL", "GET /a\x00 HTTP/1.1", 400},
		{"RFC 3986 §3.3 DEL", "GET /a\x7f HTTP/1.1", 400},
		{"RFC 3986 §3.3 eighth bit", "GET /\xc3\xa9 HTTP/1.1", 400},
		{"RFC 3986 §3.3 quote", "GET /\" HTTP/1.1", 400},
		{"RFC 3986 §3.3 less than", "GET /<a> HTTP/1.1", 400},
		{"RFC 3986 §3.3 backslash", "GET /a\\b HTTP/1.1", 400},
		{"WHATWG backslash in query", "GET /a?b\\c HTTP/1.1", 0},
		{"WHATWG characters", "GET /[a]|{b}^`?[a]|{b}^` HTTP/1.1", 0},
		{"RFC 3986 §2.1 encoding", "GET /%2F%e9 HTTP/1.1", 0},
		{"RFC 3986 §2.1 half an encoding", "GET /%2 HTTP/1.1", 400},
		{"RFC 3986 §2.1 no encoding", "GET /%zz HTTP/1.1", 400},
		{"RFC 3986 §2.1 percent in query", "GET /?100% HTTP/1.1", 0},
		{"RFC 9112 §3.2.2 absolute", "GET http://example.com/a HTTP/1.1", 0},
		{"RFC 9112 §3.2.2 absolute, scheme in capitals", "GET HTTPS://example.com HTTP/1.1", 0},
		{"RFC 9112 §3.2.2 other scheme", "GET ftp://example.com/a HTTP/1.1", 400},
		{"RFC 9112 §3.2.2 scheme with more", "GET httpss://example.com/a HTTP/1.1", 400},
		{"RFC 9112 §3.2.2 one slash", "GET http:/example.com/a HTTP/1.1", 400},
		{"RFC 9112 §3.2.2 no host", "GET http:///a HTTP/1.1", 400},
		{"RFC 9110 §4.2.4 user information", "GET http://a@example.com/ HTTP/1.1", 400},
		{"RFC 9112 §3.2.2 fragment after host", "GET http://example.com#a HTTP/1.1", 400},
		{"RFC 9112 §3.2.3 connect", "CONNECT example.com:443 HTTP/1.1", 0},
		{"RFC 9112 §3.2.3 connect without port", "CONNECT example.com HTTP/1.1", 400},
		{"RFC 9112 §3.2.3 connect with path", "CONNECT example.com:443/ HTTP/1.1", 400},
		{"RFC 9112 §3.2.3 connect origin-form", "CONNECT / HTTP/1.1", 400},
		{"RFC 9112 §3.2.3 connect IPv6", "CONNECT [::1]:443 HTTP/1.1", 0},
		{"RFC 9112 §3.2.3 get authority-form", "GET example.com:80 HTTP/1.1", 400},
	} {
		head := c.line + "\r\nHost: example.com\r\n\r\n"
		if c.status != 0 {
			wantRefused(t, head, c.status)
			continue
		}
		var r Request
		if err := r.Parse([]byte(head), nil); err != nil {
			t.Errorf("%s: %q: %v", c.section, c.line, err)
		}
	}
}

func TestFieldSyntax(t *testing.T) {
	for _, c := range []struct {
		section, fields string
		status          int
	}{
		{"RFC 9112 §5 plain", "A: b\r\n", 0},
		{"RFC 9112 §5 no blank", "A:b\r\n", 0},
		{"RFC 9112 §5 blanks around", "A: \t b \t\r\n", 0},
		{"RFC 9110 §5.5 empty value", "A:\r\n", 0},
		{"RFC 9110 §5.5 tab within", "A: b\tc\r\n", 0},
		{"RFC 9110 §5.5 eighth bit", "A: \xff\r\n", 0},
		{"RFC 9112 §5.1 space before colon", "A : b\r\n", 400},
		{"RFC 9112 §5.1 tab before colon", "A\t: b\r\n", 400},
		{"RFC 9112 §2.2 space before first field", " A: b\r\n", 400},
		{"RFC 9112 §5.2 obs-fold", "A: b\r\n c\r\n", 400},
		{"RFC 9112 §5.2 obs-fold with tab", "A: b\r\n\tc\r\n", 400},
		{"RFC 9110 §5.1 empty name", ": b\r\n", 400},
		{"RFC 9110 §5.1 no colon", "A\r\n", 400},
		{"RFC 9110 §5.1 invalid name", "A(b): c\r\n", 400},
		{"RFC 9110 §5.1 eighth bit in name", "\xc3\xa9: c\r\n", 400},
		{"RFC 9110 §5.1 NUL in name", "A\x00: c\r\n", 400},
		{"RFC 9110 §5.5 NUL", "A: b\x00c\r\n", 400},
		{"RFC 9110 §5.5 control", "A: b\x0bc\r\n", 400},
		{"RFC 9110 §5.5 DEL", "A: b\x7fc\r\n", 400},
		{"RFC 9112 §2.2 bare CR", "A: b\rc\r\n", 400},
		{"RFC 9112 §2.2 CR CR LF", "A: b\r\r\n", 400},
		{"RFC 9112 §2.2 bare LF", "A: b\nC: d\r\n", 400},
		{"RFC 9112 §2.2 bare LF before Host", "\n", 400},
		{"RFC 9112 §2.2 bare CR for a line", "A: b\r\n\rC: d\r\n", 400},
		{"long value with a control at each place", "A: " + strings.Repeat("b", 23) + "\x01\r\n", 400},
	} {
		head := "GET / HTTP/1.1\r\n" + c.fields + "Host: a\r\n\r\n"
		if c.status != 0 {
			wantRefused(t, head, c.status)
			continue
		}
		var r Request
		if err := r.Parse([]byte(head), nil); err != nil {
			t.Errorf("%s: %q: %v", c.section, c.fields, err)
		}
	}
	wantRefused(t, "GET / HTTP/1.1\nHost: a\n\n", 400)
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\n\n", 400)
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\n\rX", 400)
}

func TestContentFraming(t *testing.T) {
	const none, chunked = -1, -2
	for _, c := range []struct {
		section, fields string
		minor           string
		want            int64 // length, none, chunked
		status          int
	}{
		{"RFC 9112 §6.3 r7", "", "1", none, 0},
		{"RFC 9112 §6.3 r6", "Content-Length: 5\r\n", "1", 5, 0},
		{"RFC 9112 §6.3 r6", "Content-Length: 0\r\n", "1", 0, 0},
		{"RFC 9110 §8.6 leading zeros are digits", "Content-Length: 010\r\n", "1", 10, 0},
		{"RFC 9110 §8.6 largest", "Content-Length: 9223372036854775807\r\n", "1", 1<<63 - 1, 0},
		{"RFC 9110 §8.6 too large", "Content-Length: 9223372036854775808\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 wraps 64 bits", "Content-Length: 18446744073709551621\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 plus", "Content-Length: +5\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 minus", "Content-Length: -5\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 hex", "Content-Length: 0x5\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 space within", "Content-Length: 1 0\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 decimal point", "Content-Length: 5.0\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 underscore", "Content-Length: 1_0\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 quoted", "Content-Length: \"5\"\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 empty", "Content-Length:\r\n", "1", 0, 400},
		{"RFC 9110 §8.6 other digits", "Content-Length: \xd9\xa5\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r5 list", "Content-Length: 5, 5\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r5 list of different", "Content-Length: 5,6\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r5 empty member", "Content-Length: 5,\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r5 twice", "Content-Length: 5\r\nContent-Length: 5\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r5 twice, different", "Content-Length: 5\r\nContent-Length: 6\r\n", "1", 0, 400},
		{"CGI look-alike", "Content_Length: 5\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r4", "Transfer-Encoding: chunked\r\n", "1", chunked, 0},
		{"RFC 9112 §7 case", "Transfer-Encoding: CHUNKED\r\n", "1", chunked, 0},
		{"RFC 9112 §5.1 blanks", "transfer-encoding:\t chunked \r\n", "1", chunked, 0},
		{"RFC 9112 §6.3 r3 CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r3 TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r3 TE unknown and CL", "Transfer-Encoding: x\r\nContent-Length: 5\r\n", "1", 0, 400},
		{"RFC 9112 §6.1 TE in 1.0", "Transfer-Encoding: chunked\r\n", "0", 0, 400},
		{"RFC 9112 §7 repeated", "Transfer-Encoding: chunked, chunked\r\n", "1", 0, 400},
		{"RFC 9112 §7 two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "1", 0, 400},
		{"TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "1", 0, 400},
		{"TE.TE other order", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "1", 0, 400},
		{"RFC 9112 §6.1 not last", "Transfer-Encoding: chunked, gzip\r\n", "1", 0, 400},
		{"RFC 9112 §6.3 r4 without chunked", "Transfer-Encoding: gzip\r\n", "1", 0, 400},
		{"RFC 9112 §6.1 known before chunked", "Transfer-Encoding: gzip, chunked\r\n", "1", 0, 501},
		{"RFC 9112 §6.1 unknown", "Transfer-Encoding: xchunked\r\n", "1", 0, 501},
		{"RFC 9112 §6.1 identity", "Transfer-Encoding: identity\r\n", "1", 0, 501},
		{"RFC 9112 §6.1 identity before", "Transfer-Encoding: identity, chunked\r\n", "1", 0, 501},
		{"TE obfuscated: parameter", "Transfer-Encoding: chunked;q=1\r\n", "1", 0, 400},
		{"TE obfuscated: quoted", "Transfer-Encoding: \"chunked\"\r\n", "1", 0, 400},
		{"TE obfuscated: empty member before", "Transfer-Encoding: ,chunked\r\n", "1", 0, 400},
		{"TE obfuscated: empty member after", "Transfer-Encoding: chunked,\r\n", "1", 0, 400},
		{"TE obfuscated: empty", "Transfer-Encoding:\r\n", "1", 0, 400},
		{"TE obfuscated: vertical tab", "Transfer-Encoding: \x0bchunked\r\n", "1", 0, 400},
		{"TE obfuscated: form feed", "Transfer-Encoding: chunked\x0c\r\n", "1", 0, 400},
		{"TE obfuscated: NUL", "Transfer-Encoding: chunked\x00\r\n", "1", 0, 400},
		{"TE obfuscated: eighth bit", "Transfer-Encoding: \xa0chunked\r\n", "1", 0, 400},
		{"TE obfuscated: space before colon", "Transfer-Encoding : chunked\r\n", "1", 0, 400},
		{"TE obfuscated: folded", "Transfer-Encoding:\r\n chunked\r\n", "1", 0, 400},
		{"TE obfuscated: behind bare LF", "X: y\nTransfer-Encoding: chunked\r\n", "1", 0, 400},
		{"TE obfuscated: behind bare CR", "X: y\rTransfer-Encoding: chunked\r\n", "1", 0, 400},
		{"TE obfuscated: two words", "Transfer-Encoding: chunked identity\r\n", "1", 0, 400},
		{"TE obfuscated: underscore", "Transfer_Encoding: chunked\r\n", "1", 0, 400},
	} {
		head := "POST / HTTP/1." + c.minor + "\r\nHost: a\r\n" + c.fields + "\r\n"
		if c.status != 0 {
			wantRefused(t, head, c.status)
			continue
		}
		r := parseRequest(t, head)
		got := r.ContentLength
		if r.Chunked {
			got = chunked
		}
		if got != c.want {
			t.Errorf("%s: %q: framing %d, want %d", c.section, c.fields, got, c.want)
		}
	}
}

func TestMethodsWithoutContent(t *testing.T) {
	for _, line := range []string{"TRACE /", "CONNECT a:443"} {
		start := line + " HTTP/1.1\r\nHost: a\r\n"
		wantRefused(t, start+"Content-Length: 1\r\n\r\n", 400)
		wantRefused(t, start+"Transfer-Encoding: chunked\r\n\r\n", 400)
		parseRequest(t, start+"Content-Length: 0\r\n\r\n")
	}
}

func TestHost(t *testing.T) {
	for _, c := range []struct {
		section, head string
		status        int
		want          string
	}{
		{"RFC 9112 §3.2 missing", "GET / HTTP/1.1\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 missing, absolute-form", "GET http://a/ HTTP/1.1\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 missing in 1.0", "GET / HTTP/1.0\r\n\r\n", 0, ""},
		{"RFC 9112 §3.2 two", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 two in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2 invalid though unused", "GET http://a/ HTTP/1.1\r\nHost: b@c\r\n\r\n", 400, ""},
		{"RFC 9112 §3.2.2 target wins", "GET http://a:81/ HTTP/1.1\r\nHost: b\r\n\r\n", 0, "a:81"},
		{"RFC 9112 §3.2.3 target wins", "CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n", 0, "a:443"},
		{"RFC 9110 §7.2 plain", "GET / HTTP/1.1\r\nhOST: A.example:8080\r\n\r\n", 0, "A.example:8080"},
	} {
		if c.status != 0 {
			wantRefused(t, c.head, c.status)
			continue
		}
		if got := string(parseRequest(t, c.head).Host.In([]byte(c.head))); got != c.want {
			t.Errorf("%s: host %q, want %q", c.section, got, c.want)
		}
	}
}

func TestValidHost(t *testing.T) {
	for _, s := range []string{"a", "example.com", "EXAMPLE.com.", "a_b", "127.0.0.1", "a:1", "a:65535", "[::1]", "[::]:80",
		"[1:2:3:4:5:6:7:8]", "[1::8]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", "[1:2:3:4:5:6:7::]", "[FE80::1]:443"} {
		if _, ok := ValidHost([]byte(s)); !ok {
			t.Errorf("ValidHost(%q) = false", s)
		}
	}
	for _, s := range []string{"", ":80", "a:", "a:0", "a:080", "a:65536", "a:123456", "a:8x", "a:80:80", "a b", "a/b", "a@b", "a,b", "a#b",
		"a?b", "a\\b", "a%41", "\xc3\xa9", "[", "[]", "[::1", "::1", "[::1]x", "[::1]:", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]",
		"[1::2::3]", "[:1]", "[1:]", "[12345::]", "[:::]", "[::1%25eth0]", "[v1.a]", "[1.2.3.4]", "[::1.2.3]", "[::1.2.3.256]",
		"[::1.2.3.04]", "[::1.2.3.4:5]", "[1:2:3:4:5:6:7:1.2.3.4]", strings.Repeat("a", 256)} {
		if _, ok := ValidHost([]byte(s)); ok {
			t.Errorf("ValidHost(%q) = true", s)
		}
	}
}

func TestConnectionPersistence(t *testing.T) {
	for _, c := range []struct {
		minor, connection string
		close, keepAlive  bool
	}{ // RFC 9112 §9.3
		{"1", "", false, false},
		{"1", "Connection: close\r\n", true, false},
		{"1", "Connection: Keep-Alive\r\n", false, true},
		{"1", "Connection: keep-alive, CLOSE\r\n", true, true},
		{"1", "Connection: x\r\nConnection: y, close\r\n", true, false},
		{"0", "", true, false},
		{"0", "Connection: keep-alive\r\n", false, true},
		{"0", "Connection: keep-alive, close\r\n", true, true},
		{"0", "Connection: x\r\n", true, false},
	} {
		r := parseRequest(t, "GET / HTTP/1."+c.minor+"\r\nHost: a\r\n"+c.connection+"\r\n")
		if r.Close != c.close || r.KeepAlive != c.keepAlive {
			t.Errorf("HTTP/1.%s %q: close %v keep-alive %v", c.minor, c.connection, r.Close, r.KeepAlive)
		}
	}
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n", 400)
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\nConnection: close\r\n\r\n", 400)
}

// What Connection may name is bounded, however it is spread: every other field is held against it.
func TestTooManyOptions(t *testing.T) { // RFC 9110 §7.6.1
	options := func(n int) string { return strings.TrimSuffix(strings.Repeat("z,", n), ",") }
	for _, connection := range []string{
		"Connection: " + options(65) + "\r\n",
		"Connection: " + options(40) + "\r\nConnection: close\r\nConnection:" + options(24) + "\r\n",
		"Connection: a b," + options(64) + "\r\n",
		strings.Repeat("Connection: close\r\n", 65),
	} {
		wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\n"+connection+"\r\n", 431)
		var r Response
		if err := r.Parse([]byte("HTTP/1.1 200 OK\r\n"+connection+"\r\n"), nil); err != originFault(errOptions) {
			t.Errorf("%.60q of an origin: %v", connection, err)
		}
	}
	head := "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat(" ,", 100) + options(63) + ", y\r\nY: 1\r\nX: 1\r\n\r\n"
	r := parseRequest(t, head)
	if !r.HopByHop([]byte(head), &r.Fields[2]) || r.HopByHop([]byte(head), &r.Fields[3]) {
		t.Error("the last of 64 options means nothing")
	}
}

func TestUpgradeNeedsNomination(t *testing.T) { // RFC 9110 §7.8
	for _, c := range []struct {
		minor, fields string
		want          bool
	}{
		{"1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true},
		{"1", "Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n", true},
		{"1", "Upgrade: websocket\r\n", false},
		{"1", "Connection: upgrade\r\n", false},
		{"0", "Connection: upgrade\r\nUpgrade: websocket\r\n", false},
	} {
		if r := parseRequest(t, "GET / HTTP/1."+c.minor+"\r\nHost: a\r\n"+c.fields+"\r\n"); r.Upgrade != c.want {
			t.Errorf("HTTP/1.%s %q: upgrade %v", c.minor, c.fields, r.Upgrade)
		}
	}
}

// A wish for more protocols than anybody has is not heard: an answer would be held against all of them.
func TestUpgradeToTooMany(t *testing.T) { // RFC 9110 §7.8
	for n, want := range map[int]bool{64: true, 65: false} {
		fields := "Connection: upgrade\r\nUpgrade: " + strings.Repeat("p/1,", n) + "\r\n\r\n"
		if r := parseRequest(t, "GET / HTTP/1.1\r\nHost: a\r\n"+fields); r.Upgrade != want {
			t.Errorf("%d protocols: upgrade %v", n, r.Upgrade)
		}
	}
}

func TestExpect(t *testing.T) { // RFC 9110 §10.1.1
	for _, c := range []struct {
		minor, fields string
		want          bool
	}{
		{"1", "Expect: 100-Continue\r\nContent-Length: 1\r\n", true},
		{"1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true},
		{"1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false},
		{"1", "Expect: 100-continue\r\n", false},
		{"0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false},
	} {
		if r := parseRequest(t, "POST / HTTP/1."+c.minor+"\r\nHost: a\r\n"+c.fields+"\r\n"); r.Expect100 != c.want {
			t.Errorf("HTTP/1.%s %q: expect %v", c.minor, c.fields, r.Expect100)
		}
	}
	wantRefused(t, "POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417)
	wantRefused(t, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, magic\r\n\r\n", 417)
	wantRefused(t, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: magic\r\n\r\n", 417)
}

func TestHopByHop(t *testing.T) { // RFC 9110 §7.6.1
	head := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, Cookie, x-forwarded-for\r\nConnection: x-other\r\n" +
		"X-MINE: 1\r\nX-Other: 1\r\nX-Theirs: 1\r\nCookie: c\r\nX-Forwarded-For: 1.2.3.4\r\nTE: trailers\r\n" +
		"Keep-Alive: 5\r\nProxy-Connection: close\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTrailer: x\r\n\r\n"
	r := parseRequest(t, head)
	var kept []string
	for i := range r.Fields {
		if !r.HopByHop([]byte(head), &r.Fields[i]) {
			kept = append(kept, string(r.Fields[i].Name.In([]byte(head))))
		}
	}
	if got, want := strings.Join(kept, " "), "Host X-Theirs Cookie X-Forwarded-For"; got != want {
		t.Errorf("forwarded: %s, want %s", got, want)
	}
}

func TestRequestSpans(t *testing.T) {
	head := "GET https://a.example:8443/b/c?d=e HTTP/1.0\r\nHost: b\r\nX-A: 1\r\nX-a: 2\r\nVia: x\r\nVia: y\r\n\r\nGET / "
	r := parseRequest(t, head)
	in := func(s Span) string { return string(s.In([]byte(head))) }
	for _, c := range []struct{ what, got, want string }{
		{"method", in(r.MethodName), "GET"},
		{"target", in(r.Target), "https://a.example:8443/b/c?d=e"},
		{"scheme", in(r.Scheme), "https"},
		{"authority", in(r.Authority), "a.example:8443"},
		{"path", in(r.Path), "/b/c"},
		{"query", in(r.Query), "d=e"},
		{"host", in(r.Host), "a.example:8443"},
		{"first Via", string(r.Value([]byte(head), header.Via)), "x"},
		{"last field", in(r.Fields[4].Value), "y"},
		{"rest", head[r.HeadLen:], "GET / "},
	} {
		if c.got != c.want {
			t.Errorf("%s = %q, want %q", c.what, c.got, c.want)
		}
	}
	if !r.HTTPS || r.Form != AbsoluteForm || r.Method != GET || r.Minor != 0 || !r.HasQuery {
		t.Errorf("https %v form %v method %v minor %d query %v", r.HTTPS, r.Form, r.Method, r.Minor, r.HasQuery)
	}
	if !r.Has(header.Via) || !r.Repeated(header.Via) || r.Repeated(header.Host) || r.Has(header.Age) || r.Value(nil, header.Age) != nil {
		t.Error("index of fields is wrong")
	}
	// The next Parse with the same value starts from nothing.
	second := "GET / HTTP/1.1\r\nHost: z\r\n\r\n"
	if err := r.Parse([]byte(second), nil); err != nil {
		t.Fatal(err)
	}
	if r.Has(header.Via) || r.Repeated(header.Via) || len(r.Fields) != 1 || r.Scheme.Len != 0 || r.HasQuery || r.HTTPS {
		t.Errorf("left over from the last request: %+v", r)
	}
}

func TestLimits(t *testing.T) {
	lim := &Limits{RequestLine: 30, Head: 100, Fields: 3}
	status := func(head string) int {
		var r Request
		err := r.Parse([]byte(head), lim)
		var e *Error
		if errors.As(err, &e) {
			return e.Status
		}
		return 200
	}
	line := func(n int) string { return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n" }
	const host = "Host: a\r\n"
	pad := func(n int) string { // a head of n bytes
		head := line(20) + host + "A: "
		return head + strings.Repeat("b", n-len(head)-4) + "\r\n\r\n"
	}
	for _, c := range []struct {
		what, head string
		want       int
	}{
		{"line at the limit", line(30) + host + "\r\n", 200},
		{"line over the limit", line(31) + host + "\r\n", 414},
		{"endless line", "GET /" + strings.Repeat("a", 1000), 414},
		{"line over the limit in its version", line(31)[:32], 414},
		{"fields at the limit", line(20) + host + "A:\r\nB:\r\n\r\n", 200},
		{"fields over the limit", line(20) + host + "A:\r\nB:\r\nC:\r\n\r\n", 431},
		{"head at the limit", pad(100), 200},
		{"head over the limit", pad(101), 431},
		{"endless head", line(20) + host + "A: " + strings.Repeat("b", 1000), 431},
		{"good so far", line(20) + host + "A: b", 0},
	} {
		if got := status(c.head); got != c.want {
			t.Errorf("%s: status %d, want %d", c.what, got, c.want)
		}
	}
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("A: b\r\n", 5000)+"\r\n", 431)
	wantRefused(t, "GET /"+strings.Repeat("a", 9000)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414)
	wantRefused(t, "GET / HTTP/1.1\r\nHost: a\r\nA: "+strings.Repeat("a", 70000)+"\r\n\r\n", 431)
}

func TestEveryPrefixIsIncompleteOrRefused(t *testing.T) {
	for _, head := range []string{browserRequest, "GET http://a:1/%41?b HTTP/1.0\r\nHost: a\r\n\r\n",
		"CONNECT [::1]:1 HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.9\r\nHost: a\r\n\r\n"} {
		for n := range head {
			var r Request
			if err := r.Parse([]byte(head[:n]), nil); err != ErrIncomplete {
				t.Fatalf("Parse(%q) = %v, want ErrIncomplete", head[:n], err)
			}
		}
		parseRequest(t, head)
	}
}

func TestMethods(t *testing.T) { // RFC 9110 §9.2
	for m := Other + 1; m < numMethods; m++ {
		if LookupMethod([]byte(m.String())) != m {
			t.Errorf("LookupMethod(%q) failed", m)
		}
	}
	for _, c := range []struct {
		m                Method
		safe, idempotent bool
	}{{GET, true, true}, {HEAD, true, true}, {OPTIONS, true, true}, {TRACE, true, true}, {PUT, false, true}, {DELETE, false, true},
		{POST, false, false}, {PATCH, false, false}, {CONNECT, false, false}, {PURGE, false, false}, {Other, false, false}} {
		if c.m.Safe() != c.safe || c.m.Idempotent() != c.idempotent {
			t.Errorf("%v: safe %v, idempotent %v", c.m, c.m.Safe(), c.m.Idempotent())
		}
	}
}
