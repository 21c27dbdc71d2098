package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// Response is one answer as it stood on the wire.
type Response struct {
	Proto   string // "HTTP/1.1"
	Status  int
	Reason  string
	Fields  []Field
	Body    []byte
	Trailer []Field
	Interim []int // status codes of the 1xx answers before it

	// Framing says how the body ended: "none", "length", "chunked" or "close".
	Framing string

	t testing.TB
}

// Field is one header field.
type Field struct{ Name, Value string }

// Head limits of the parser: a proxy that sends more is wrong in any story.
const (
	maxLine   = 64 << 10
	maxFields = 500
	maxBody   = 256 << 20
)

// errNothing is the end of a connection exactly between two answers.
var errNothing = errors.New("connection ended before an answer began")

// ReadResponse parses one answer to a request with the given method, strictly: CRLF line
// ends, a known version, a three-digit status, fields without folding, at most one
// Content-Length, never both framings, chunks exact, no body cut short.
func ReadResponse(in *bufio.Reader, method string) (*Response, error) {
	var interim []int
	for {
		r, err := readHead(in)
		if err != nil {
			return nil, err
		}
		if r.Status >= 200 || r.Status == 101 {
			r.Interim = interim
			return r, r.readBody(in, method)
		}
		interim = append(interim, r.Status)
	}
}

func readHead(in *bufio.Reader) (*Response, error) {
	line, err := readLine(in)
	if err == io.EOF && line == "" {
		return nil, errNothing
	}
	if err != nil {
		return nil, fmt.Errorf("status line: %w", err)
	}
	r := &Response{}
	var code string
	var ok bool
	if r.Proto, code, ok = strings.Cut(line, " "); !ok || (r.Proto != "HTTP/1.1" && r.Proto != "HTTP/1.0") {
		return nil, fmt.Errorf("bad status line %q", line)
	}
	// RFC 9112 section 4: the space after the status is there even when the reason is empty.
	if code, r.Reason, ok = strings.Cut(code, " "); !ok {
		return nil, fmt.Errorf("bad status line %q: no space after the status", line)
	}
	if r.Status, err = strconv.Atoi(code); err != nil || len(code) != 3 || r.Status < 100 {
		return nil, fmt.Errorf("bad status line %q", line)
	}
	r.Fields, err = readFields(in)
	return r, err
}

func readFields(in *bufio.Reader) ([]Field, error) {
	var fields []Field
	for len(fields) <= maxFields {
		line, err := readLine(in)
		if err != nil {
			return nil, fmt.Errorf("field line: %w", noEOF(err))
		}
		if line == "" {
			return fields, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, fmt.Errorf("bad field line %q", line)
		}
		value = strings.Trim(value, " \t")
		if strings.ContainsAny(value, "\x00\r") {
			return nil, fmt.Errorf("bad field value %q", line)
		}
		fields = append(fields, Field{name, value})
	}
	return nil, fmt.Errorf("more than %d fields", maxFields)
}

// readLine reads up to CRLF; a bare LF is an error.
func readLine(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return "", errors.New("line too long")
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return string(line), err
		}
		text, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok {
			return "", fmt.Errorf("line %q does not end in CRLF", line)
		}
		return string(text), nil
	}
}

// isToken is RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readBody follows RFC 9112 section 6.3.
func (r *Response) readBody(in *bufio.Reader, method string) error {
	te, cl := r.Values("Transfer-Encoding"), r.Values("Content-Length")
	if len(te) > 0 && len(cl) > 0 {
		return errors.New("both Transfer-Encoding and Content-Length")
	}
	if len(cl) > 1 || len(te) > 1 {
		return fmt.Errorf("repeated framing field: %q %q", te, cl)
	}
	if method == "HEAD" || r.Status == 204 || r.Status == 304 || r.Status == 101 {
		r.Framing = "none"
		return nil
	}
	switch {
	case len(te) == 1:
		if te[0] != "chunked" {
			return fmt.Errorf("Transfer-Encoding %q", te[0])
		}
		r.Framing = "chunked"
		return r.readChunks(in)
	case len(cl) == 1:
		n, err := strconv.ParseUint(cl[0], 10, 63)
		if err != nil || n > maxBody {
			return fmt.Errorf("Content-Length %q", cl[0])
		}
		r.Framing = "length"
		return r.readN(in, int64(n))
	}
	r.Framing = "close"
	body, err := io.ReadAll(io.LimitReader(in, maxBody))
	r.Body = body
	return err
}

func (r *Response) readN(in *bufio.Reader, n int64) error {
	buf := bytes.NewBuffer(r.Body)
	got, err := io.CopyN(buf, in, n)
	r.Body = buf.Bytes()
	if err != nil {
		return fmt.Errorf("body ends %d bytes early: %w", n-got, noEOF(err))
	}
	return nil
}

func (r *Response) readChunks(in *bufio.Reader) error {
	for {
		line, err := readLine(in)
		if err != nil {
			return fmt.Errorf("chunk size: %w", noEOF(err))
		}
		n, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			r.Trailer, err = readFields(in)
			return err
		}
		if int64(len(r.Body))+int64(n) > maxBody {
			return errors.New("chunked body too large")
		}
		if err := r.readN(in, int64(n)); err != nil {
			return err
		}
		if end, err := readLine(in); err != nil || end != "" {
			return fmt.Errorf("chunk data not followed by CRLF: %q %v", end, err)
		}
	}
}

// Values are the values of every field with that name.
func (r *Response) Values(name string) []string {
	var values []string
	for _, f := range r.Fields {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

// Get is the value of the field, "" when there is none; repeated fields are joined.
func (r *Response) Get(name string) string { return strings.Join(r.Values(name), ", ") }

// Int is the field as a number, -1 when it is none.
func (r *Response) Int(name string) int {
	n, err := strconv.Atoi(r.Get(name))
	if err != nil {
		return -1
	}
	return n
}

// Expect fails unless status and body are these.
func (r *Response) Expect(status int, body string) *Response {
	r.t.Helper()
	r.ExpectStatus(status)
	if string(r.Body) != body {
		r.t.Errorf("body: got %d bytes %s, want %d bytes %s", len(r.Body), clip(string(r.Body)), len(body), clip(body))
	}
	return r
}

// ExpectStatus fails unless the status is this.
func (r *Response) ExpectStatus(status int) *Response {
	r.t.Helper()
	if r.Status != status {
		r.t.Errorf("status: got %d %s, want %d (body %s)", r.Status, r.Reason, status, clip(string(r.Body)))
	}
	return r
}

// Header fails unless the field has exactly that value; "" means that it is absent.
func (r *Response) Header(name, want string) *Response {
	r.t.Helper()
	if got := r.Get(name); got != want {
		r.t.Errorf("field %s: got %q, want %q", name, got, want)
	}
	return r
}

// Has fails unless the field is there.
func (r *Response) Has(name string) *Response {
	r.t.Helper()
	if len(r.Values(name)) == 0 {
		r.t.Errorf("field %s is missing in %v", name, r.Fields)
	}
	return r
}

// AtLeast fails unless the field is a number of at least low.
func (r *Response) AtLeast(name string, low int) *Response {
	r.t.Helper()
	if got := r.Int(name); got < low {
		r.t.Errorf("field %s: got %q, want a number of at least %d", name, r.Get(name), low)
	}
	return r
}

func clip(s string) string {
	if len(s) > 120 {
		return fmt.Sprintf("%q…", s[:120])
	}
	return fmt.Sprintf("%q", s)
}
