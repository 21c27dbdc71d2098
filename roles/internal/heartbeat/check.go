package heartbeat

import (
	"bytes"
	"fmt"
	"strconv"
)

// An answer is at most this long. Ours is about 1.8 KB; the rest is for headers that
// another version may add.
const (
	maxHead   = 4096
	maxAnswer = maxHead + pageLines*len(pageLine)
)

// answer is a response as far as it has arrived.
//
// The head is parsed once, when it is complete. After that only the amount of what
// follows matters until the peer closes: the request asks it to (RFC 9112, section
// 9.6), and a byte too many shows only then.
type answer struct {
	buf  []byte
	body int // offset of the body in buf; 0: the head is not complete
	want int // length of the body; -1: until the connection closes
}

// next looks at what has arrived so far. A failure is final; nil: read more.
func (a *answer) next() *Failure {
	if a.body == 0 {
		if fail := a.head(); fail != nil || a.body == 0 {
			return fail
		}
	}
	limit := a.want
	if limit < 0 {
		limit = len(Page)
	}
	if len(a.buf)-a.body > limit {
		return failure(Oversized, "body is longer than %d bytes", limit)
	}
	return nil
}

// end judges the answer when the peer has closed the connection.
func (a *answer) end() *Failure {
	switch {
	case len(a.buf) == 0:
		return failure(Empty, "connection closed without an answer")
	case a.body == 0:
		return failure(Truncated, "connection closed after %d bytes of the head", len(a.buf))
	}
	body := a.buf[a.body:]
	if a.want >= 0 && len(body) < a.want {
		return failure(Truncated, "connection closed after %d of %d bytes", len(body), a.want)
	}
	return checkBody(body)
}

func checkBody(body []byte) *Failure {
	switch {
	case len(body) == 0:
		return failure(Empty, "body is empty")
	case string(body) == Page:
		return nil
	case len(body) < len(Page) && string(body) == Page[:len(body)]:
		return failure(Truncated, "body ends after %d of %d bytes", len(body), len(Page))
	}
	return failure(WrongBody, "body of %d bytes is not the synthetic page", len(body))
}

// head parses the status line and the two fields that matter. It leaves body at 0 as
// long as the head may still become good.
func (a *answer) head() *Failure {
	const start = "HTTP/1."
	if n := min(len(a.buf), len(start)); string(a.buf[:n]) != start[:n] {
		return failure(Malformed, "answer starts with %q", a.buf[:n])
	}
	end := bytes.Index(a.buf, []byte("\r\n\r\n"))
	if end > maxHead || end < 0 && len(a.buf) > maxHead {
		return failure(Oversized, "head is longer than %d bytes", maxHead)
	}
	if end < 0 {
		return nil
	}

	line, fields, _ := bytes.Cut(a.buf[:end], []byte("\r\n"))
	status, ok := parseStatus(line)
	if !ok {
		return failure(Malformed, "status line is %q", clip(line))
	}
	if status != 200 {
		return failure(Status, "status is %d", status)
	}
	want, fail := bodyLength(fields)
	if fail != nil {
		return fail
	}
	a.want, a.body = want, end+4
	return nil
}

// parseStatus reads "HTTP/1.x NNN …" (RFC 9112, section 4).
func parseStatus(line []byte) (int, bool) {
	const n = len("HTTP/1.1 200")
	if len(line) < n || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > n && line[n] != ' ' {
		return 0, false
	}
	status := 0
	for _, c := range line[9:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		status = status*10 + int(c-'0')
	}
	return status, status >= 100
}

// bodyLength finds the framing of the body in the fields of a head: -1 is until the
// connection closes. A transfer coding, or a second Content-Length, is never ours.
func bodyLength(fields []byte) (int, *Failure) {
	length := -1
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 {
			return 0, failure(Malformed, "header line is %q", clip(line))
		}
		switch {
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			return 0, failure(Malformed, "answer has a transfer coding")
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(bytes.Trim(value, " \t")), 10, 31)
			if err != nil || length >= 0 {
				return 0, failure(Malformed, "header line is %q", clip(line))
			}
			length = int(n)
		}
	}
	if length > len(Page) {
		return 0, failure(Oversized, "Content-Length is %d, not %d", length, len(Page))
	}
	return length, nil
}

func clip(b []byte) []byte { return b[:min(len(b), 80)] }

func failure(k Kind, format string, args ...any) *Failure {
	return &Failure{Kind: k, Err: fmt.Errorf(format, args...)}
}
