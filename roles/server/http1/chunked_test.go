package http1

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

// decoded is everything a body yields.
type decoded struct {
	data, canonical string
	consumed        int
	done            bool
	err             error
}

// decode hands body over in pieces that end at the given cuts. What is not
// consumed is handed over again with what comes next.
func decode(body string, cuts ...int) (d decoded) {
	var c Chunked
	var data, canonical []byte
	cuts = append(cuts, len(body))
	for _, cut := range cuts {
		for {
			in := []byte(body[d.consumed:cut])
			ev, s, n, err := c.Step(in)
			d.consumed += n
			if ev == Data {
				data = append(data, s.In(in)...)
			}
			canonical = appendFraming(append(canonical, s.In(in)...), &c, ev)
			if err != nil || ev == ChunkedEnd {
				d.data, d.canonical, d.err, d.done = string(data), string(canonical), err, c.Done()
				return d
			}
			if ev == NeedMore {
				break
			}
		}
	}
	d.data, d.canonical = string(data), string(canonical)
	return d
}

// appendFraming appends what stands around an event in the canonical form of a body: no
// extensions, sizes in small letters without leading zeros, chunk boundaries as received.
// c is as Step has left it.
func appendFraming(dst []byte, c *Chunked, ev Event) []byte {
	switch {
	case ev == ChunkStart:
		return AppendChunkHeader(dst, int64(c.size))
	case ev == LastChunkStart:
		return append(dst, "0\r\n"...)
	case ev == ChunkedEnd, ev == Data && c.state == chDataCR:
		return append(dst, CRLF...)
	}
	return dst
}

func TestChunked(t *testing.T) {
	const end = "0\r\n\r\n"
	hex15 := strings.Repeat("0", 15)
	for _, c := range []struct {
		section, body string
		data          string
		status        int // 0: complete
	}{
		{"RFC 9112 §7.1 empty", end, "", 0},
		{"RFC 9112 §7.1 one chunk", "3\r\nabc\r\n" + end, "abc", 0},
		{"RFC 9112 §7.1 two chunks", "1\r\na\r\n2\r\nbc\r\n" + end, "abc", 0},
		{"RFC 9112 §7.1 hex in either case", "a\r\n0123456789\r\nB\r\n0123456789a\r\n" + end, "01234567890123456789a", 0},
		{"RFC 9112 §7.1 leading zeros", hex15 + "1\r\na\r\n000\r\n\r\n", "a", 0},
		{"RFC 9112 §7.1 17 digits", "0" + hex15 + "1\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 overflow", "8000000000000000\r\n", "", 400},
		{"RFC 9112 §7.1 no digits", "\r\n", "", 400},
		{"RFC 9112 §7.1 plus", "+1\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 minus", "-1\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 0x", "0x1\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 leading space", " 1\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 trailing space", "1 \r\na\r\n", "", 400},
		{"RFC 9112 §7.1 underscore", "1_0\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 bare LF after size", "1\na\r\n", "", 400},
		{"RFC 9112 §7.1 bare CR after size", "1\ra\r\n", "", 400},
		{"RFC 9112 §7.1 CR CR LF", "1\r\r\na\r\n", "", 400},
		{"RFC 9112 §7.1 data too long", "1\r\nab\r\n" + end, "a", 400},
		{"RFC 9112 §7.1 data without CRLF", "1\r\na1\r\n", "a", 400},
		{"RFC 9112 §7.1 bare LF after data", "1\r\na\n" + end, "a", 400},
		{"RFC 9112 §7.1 bare CR after data", "1\r\na\r0\r\n\r\n", "a", 400},
		{"RFC 9112 §7.1 negative after data", "1\r\na\r\n-1\r\n", "a", 400},
		{"RFC 9112 §7.1.1 extension", "1;a\r\na\r\n0;b=c\r\n\r\n", "a", 0},
		{"RFC 9112 §7.1.1 quoted", "1;a=\"b;\\\" \\\\c\";d=e\r\na\r\n" + end, "a", 0},
		{"RFC 9112 §7.1.1 empty name", "1;\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 empty name before =", "1;=a\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 empty value", "1;a=\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 two values", "1;a=b=c\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 blank before", "1 ;a\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 blank after", "1; a\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 blank at end", "1;a \r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 bare LF", "1;a\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 LF in quotes", "1;a=\"\n\"\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 CR LF in quotes", "1;a=\"\r\n\"\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 escaped CR", "1;a=\"\\\r\n\"\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 more after quotes", "1;a=\"b\"c\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 NUL", "1;a\x00\r\na\r\n", "", 400},
		{"RFC 9112 §7.1.1 at the limit", "1;" + strings.Repeat("a", 255) + "\r\na\r\n" + end, "a", 0},
		{"RFC 9112 §7.1.1 over the limit", "1;" + strings.Repeat("a", 256) + "\r\na\r\n" + end, "", 400},
		{"RFC 9112 §7.1.1 over the body's limit", strings.Repeat("1;"+strings.Repeat("a", 255)+"\r\nb\r\n", 65), strings.Repeat("b", 64), 400},
		{"RFC 9112 §7.1.2 trailers", "0\r\nX: y\r\nZ: \r\n\r\n", "", 0},
		{"RFC 9112 §7.1.2 forbidden ones are dropped", "0\r\nContent-Length: 5\r\nX: y\r\nHost: a\r\n\r\n", "", 0},
		{"RFC 9112 §7.1.2 space before colon", "0\r\nX : y\r\n\r\n", "", 400},
		{"RFC 9112 §7.1.2 obs-fold", "0\r\nX: y\r\n z\r\n\r\n", "", 400},
		{"RFC 9112 §7.1.2 bare LF", "0\r\nX: y\n\r\n", "", 400},
		{"RFC 9112 §7.1.2 bare LF at the end", "0\r\n\n", "", 400},
		{"RFC 9112 §7.1.2 bare CR", "0\r\nX: y\rZ: a\r\n\r\n", "", 400},
		{"RFC 9112 §7.1.2 CR before empty line", "0\r\n\r\r\n", "", 400},
		{"RFC 9112 §7.1.2 no field", "0\r\nGET / HTTP/1.1\r\n\r\n", "", 400},
		{"RFC 9112 §7.1.2 line too long", "0\r\nX: " + strings.Repeat("a", MaxTrailerLine) + "\r\n\r\n", "", 431},
		{"RFC 9112 §7.1.2 section too long", "0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 2000)+"\r\n", 5), "", 431},
		{"RFC 9112 §7.1.2 too many", "0\r\n" + strings.Repeat("X:\r\n", MaxTrailers+1) + "\r\n", "", 431},
	} {
		d := decode(c.body)
		var e *Error
		switch {
		case d.data != c.data:
			t.Errorf("%s: data %q, want %q", c.section, d.data, c.data)
		case c.status == 0 && (d.err != nil || !d.done || d.consumed != len(c.body)):
			t.Errorf("%s: %+v, want it complete", c.section, d)
		case c.status != 0 && (!errors.As(d.err, &e) || e.Status != c.status):
			t.Errorf("%s: %v, want status %d", c.section, d.err, c.status)
		}
	}
}

// The bodies that are cut everywhere.
var cutBodies = []string{
	"3\r\nabc\r\n10;x=\"a\\\"b\";y\r\n0123456789abcdef\r\n000\r\nX: y\r\nHost: a\r\nZ:  b \r\n\r\nGET /",
	"3\r\nabc\r\n3\r\nabcX\r\n",
	"1\r\na\r\n0\r\nX: y\r\n z\r\n\r\n",
	"1;a=b\"\r\n",
	"ffffffffffffffff\r\n",
}

func TestChunkedDoesNotDependOnCuts(t *testing.T) {
	for _, body := range cutBodies {
		whole := decode(body)
		for i := range body {
			for k := i; k < len(body); k++ {
				if got := decode(body, i, k); got != whole {
					t.Fatalf("%q cut at %d and %d: %+v, want %+v", body, i, k, got, whole)
				}
			}
		}
		all := make([]int, len(body))
		for i := range all {
			all[i] = i
		}
		if got := decode(body, all...); got != whole {
			t.Fatalf("%q byte by byte: %+v, want %+v", body, got, whole)
		}
	}
}

func TestChunkedCanonicalForm(t *testing.T) {
	d := decode(cutBodies[0])
	if want := "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\nZ:  b \r\n\r\n"; d.canonical != want {
		t.Errorf("canonical form %q, want %q", d.canonical, want)
	}
	// It is a function of the prefix: what has been written for one is the
	// beginning of what is written for a longer one.
	for n := range cutBodies[0] {
		if p := decode(cutBodies[0][:n]); !strings.HasPrefix(d.canonical, p.canonical) {
			t.Fatalf("canonical form of %q is %q", cutBodies[0][:n], p.canonical)
		}
	}
	again := decode(d.canonical)
	if again.canonical != d.canonical || again.data != d.data {
		t.Errorf("canonical form of the canonical form: %+v", again)
	}
}

func TestChunkedIsACopyableWord(t *testing.T) {
	if n := unsafe.Sizeof(Chunked{}); n != 24 {
		t.Errorf("Chunked has %d bytes; its documentation says 24", n)
	}
	if n := unsafe.Sizeof(HeadScan{}); n != 12 {
		t.Errorf("HeadScan has %d bytes; its documentation says 12", n)
	}
}

func TestChunkedNextYieldsDataOnly(t *testing.T) {
	body := []byte(cutBodies[0])
	var c Chunked
	var data []byte
	at := 0
	for !c.Done() {
		s, n, err := c.Next(body[at:])
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, s.In(body[at:])...)
		at += n
	}
	if string(data) != "abc0123456789abcdef" || string(body[at:]) != "GET /" {
		t.Errorf("data %q, rest %q", data, body[at:])
	}
	if _, n, err := c.Next(body[at:]); n != 0 || err != nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

func TestChunkedRepeatsItsError(t *testing.T) {
	var c Chunked
	in := []byte("1\r\naX")
	for at := 0; ; {
		_, n, err := c.Next(in[at:])
		at += n
		if err == nil {
			continue
		}
		if _, n, again := c.Next(in[at:]); n != 0 || again != err || at != 4 {
			t.Errorf("at %d: %v, then %d, %v", at, err, n, again)
		}
		return
	}
}

func TestAppendChunkHeader(t *testing.T) {
	for _, n := range []int64{1, 9, 10, 15, 16, 255, 4096, 1<<63 - 1} {
		if got, want := string(AppendChunkHeader(nil, n)), fmt.Sprintf("%x\r\n", n); got != want {
			t.Errorf("AppendChunkHeader(%d) = %q, want %q", n, got, want)
		}
	}
}
