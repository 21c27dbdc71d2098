package witness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of the parser, for both sides. What is larger is wrong in any run.
const (
	maxLine   = 32 << 10
	maxFields = 200
)

// wire is a connection on which every read and write must make progress within
// patience. It belongs to one reading and one writing goroutine.
type wire struct {
	net.Conn
	patience time.Duration // immutable; 0: for ever
	in       *bufio.Reader // of the reader

	// waited, if set, is told how long each read and write took. Set before use.
	waited func(began time.Time, d time.Duration)
}

func newWire(c net.Conn, patience time.Duration) *wire {
	w := &wire{Conn: c, patience: patience}
	w.in = bufio.NewReaderSize(readSide{w}, 16<<10)
	return w
}

// readSide is wire's reading with its time limit, below the buffer.
type readSide struct{ *wire }

func (r readSide) Read(p []byte) (int, error) {
	if r.patience > 0 {
		r.SetReadDeadline(time.Now().Add(r.patience))
	}
	return r.timed(r.Conn.Read, p)
}

func (w *wire) Write(p []byte) (int, error) {
	if w.patience > 0 {
		w.SetWriteDeadline(time.Now().Add(w.patience))
	}
	return w.timed(w.Conn.Write, p)
}

func (w *wire) timed(f func([]byte) (int, error), p []byte) (int, error) {
	if w.waited == nil {
		return f(p)
	}
	began := time.Now()
	n, err := f(p)
	w.waited(began, time.Since(began))
	return n, err
}

// closeWrite ends the sending side only.
func (w *wire) closeWrite() error {
	if t, ok := w.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return errors.ErrUnsupported
}

// explain says what an error of the connection looked like from this end.
func explain(err error) string {
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return "the connection was closed"
	case errors.Is(err, syscall.ECONNRESET):
		return "the connection was reset"
	case errors.Is(err, syscall.EPIPE):
		return "the connection was closed while we sent"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no progress for too long"
	}
	return err.Error()
}

// field is one header field.
type field struct{ name, value string }

// fields are the header fields of a message in their order.
type fields []field

// all are the values of every field of that name.
func (f fields) all(name string) []string {
	var values []string
	for _, h := range f {
		if strings.EqualFold(h.name, name) {
			values = append(values, h.value)
		}
	}
	return values
}

// get is the value of a field that may come once; "" if it is not there.
func (f fields) get(name string) string {
	if v := f.all(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// lists says that a comma-separated field has the token (RFC 9110 section 5.6.1).
func (f fields) lists(name, token string) bool {
	for _, v := range f.all(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// readLine reads up to CRLF; a bare LF is an error. io.EOF means that there was
// not a single byte.
func readLine(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return "", errors.New("line too long")
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		}
		text, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || bytes.IndexByte(text, '\r') >= 0 {
			return "", fmt.Errorf("bad line %.60q: it does not end in CRLF", line)
		}
		return string(text), nil
	}
}

func readFields(in *bufio.Reader) (fields, error) {
	var f fields
	for len(f) <= maxFields {
		line, err := readLine(in)
		if err != nil {
			return nil, noEOF(err)
		}
		if line == "" {
			return f, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("bad field line %.60q", line)
		}
		f = append(f, field{name, strings.Trim(value, " \t")})
	}
	return nil, fmt.Errorf("more than %d fields", maxFields)
}

// noEOF is for places where the end must not come.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// answer is the head of a final response, and how its body is delimited.
type answer struct {
	status  int
	fields  fields
	interim []int // status codes of the 1xx responses before it
	body    body
}

// readAnswer reads heads until that of the final response (or 101), strictly.
func readAnswer(in *bufio.Reader, method string) (*answer, error) {
	a := &answer{}
	for {
		if err := a.readHead(in); err != nil {
			if len(a.interim) > 0 {
				err = noEOF(err)
			}
			return nil, err
		}
		if a.status >= 200 || a.status == 101 {
			return a, a.frame(in, method)
		}
		a.interim = append(a.interim, a.status)
	}
}

func (a *answer) readHead(in *bufio.Reader) error {
	line, err := readLine(in)
	if err != nil {
		return err
	}
	code, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	// RFC 9112 section 4: the space after the status is there even if the reason is empty.
	if !ok || len(code) < 4 || code[3] != ' ' {
		return fmt.Errorf("bad status line %.60q", line)
	}
	if a.status, err = strconv.Atoi(code[:3]); err != nil || a.status < 100 {
		return fmt.Errorf("bad status line %.60q", line)
	}
	a.fields, err = readFields(in)
	return err
}

// frame decides how the body is delimited (RFC 9112 section 6.3).
func (a *answer) frame(in *bufio.Reader, method string) error {
	te, cl := a.fields.all("Transfer-Encoding"), a.fields.all("Content-Length")
	if len(te) > 1 || len(cl) > 1 || len(te)+len(cl) > 1 {
		return fmt.Errorf("ambiguous framing: Transfer-Encoding %q, Content-Length %q", te, cl)
	}
	a.body = body{in: in, framing: UntilClose, left: -1}
	if len(cl) == 1 {
		n, err := strconv.ParseUint(cl[0], 10, 62)
		if err != nil {
			return fmt.Errorf("Content-Length %q", cl[0])
		}
		a.body.framing, a.body.left = Length, int64(n)
	}
	if len(te) == 1 {
		if te[0] != "chunked" {
			return fmt.Errorf("Transfer-Encoding %q", te[0])
		}
		a.body.framing, a.body.left = Chunked, 0
	}
	if method == "HEAD" || a.status == 204 || a.status == 304 || a.status == 101 {
		a.body = body{done: true}
	}
	return nil
}

// keepAlive says whether another request may follow on the connection.
func (a *answer) keepAlive() bool {
	return (a.body.framing != UntilClose || a.body.in == nil) && !a.fields.lists("Connection", "close")
}

// body reads a message body. Read returns io.EOF at its right end only, and
// io.ErrUnexpectedEOF where the connection ended before it.
type body struct {
	in      *bufio.Reader
	framing Framing
	left    int64 // bytes of the body, or of this chunk
	begun   bool  // a chunk has been read: its CRLF must follow
	done    bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	if b.framing == UntilClose {
		n, err := b.in.Read(p)
		b.done = err == io.EOF
		return n, err
	}
	if b.framing == Chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	if b.left == 0 {
		b.done = true
		return 0, io.EOF
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, noEOF(err)
}

func (b *body) nextChunk() error {
	if b.begun {
		if end, err := readLine(b.in); err != nil || end != "" {
			return orError(noEOF(err), "chunk data is followed by %.60q", end)
		}
	}
	b.begun = true
	line, err := readLine(b.in)
	if err != nil {
		return noEOF(err)
	}
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(size, 16, 40)
	if err != nil {
		return fmt.Errorf("chunk size %q", line)
	}
	b.left = int64(n)
	if n == 0 {
		_, err = readFields(b.in) // trailers
	}
	return err
}

// orError is err, or a new error if it is nil.
func orError(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf(format, args...)
}

// request is the head of a request as the origin reads it.
type request struct {
	method, target string
	fields         fields
	body           body
}

func readRequest(in *bufio.Reader) (*request, error) {
	line, err := readLine(in)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[2] != "HTTP/1.1" {
		return nil, fmt.Errorf("bad request line %.60q", line)
	}
	r := &request{method: parts[0], target: parts[1]}
	if r.fields, err = readFields(in); err != nil {
		return nil, err
	}
	te, cl := r.fields.all("Transfer-Encoding"), r.fields.all("Content-Length")
	switch {
	case len(te)+len(cl) > 1:
		return nil, fmt.Errorf("ambiguous framing: Transfer-Encoding %q, Content-Length %q", te, cl)
	case slices.Equal(te, []string{"chunked"}):
		r.body = body{in: in, framing: Chunked}
	case len(te) == 1:
		return nil, fmt.Errorf("Transfer-Encoding %q", te[0])
	case len(cl) == 1:
		n, err := strconv.ParseUint(cl[0], 10, 62)
		if err != nil {
			return nil, fmt.Errorf("Content-Length %q", cl[0])
		}
		r.body = body{in: in, framing: Length, left: int64(n)}
	default:
		r.body = body{done: true}
	}
	return r, nil
}
