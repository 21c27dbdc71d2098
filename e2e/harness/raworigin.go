package harness

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A RawOrigin records the exact bytes of what it is sent, and holds them against the one form in
// which a proxy may write a request: whoever reads it otherwise than another reader is a way in
// for smuggled requests. It answers with whatever bytes its script says.
type RawOrigin struct {
	t      testing.TB
	addr   string
	answer func(r *RawRequest) RawAnswer
	wg     sync.WaitGroup

	mu       sync.Mutex // guards below
	listener net.Listener
	conns    map[net.Conn]bool
	requests []*RawRequest
	faults   []string
}

// A RawRequest is one request as the origin got it.
type RawRequest struct {
	Head           string // the bytes, with the empty line
	Method, Target string
	Fields         []Field
	Body           string
	Whole          bool // its end has come
}

// A RawAnswer is what is sent back. Nothing at all closes the connection.
type RawAnswer struct {
	Text  string
	Close bool // after Text
}

// NewRawOrigin starts an origin on a free port; it ends with the story.
func NewRawOrigin(t testing.TB, answer func(r *RawRequest) RawAnswer) *RawOrigin {
	t.Helper()
	o := &RawOrigin{t: t, listener: freeListener(t), answer: answer, conns: map[net.Conn]bool{}}
	o.addr = o.listener.Addr().String()
	o.wg.Go(o.accept)
	t.Cleanup(o.end)
	return o
}

// MapRaw adds --map prefix=origin.
func MapRaw(prefix string, o *RawOrigin) Option { return Args("--map", prefix+"=http://"+o.addr) }

func (o *RawOrigin) end() {
	o.mu.Lock()
	o.listener.Close()
	for c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func (o *RawOrigin) accept() {
	for {
		c, err := o.listener.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[c] = true
		o.mu.Unlock()
		o.wg.Go(func() { o.serve(c) })
	}
}

func (o *RawOrigin) serve(c net.Conn) {
	defer func() {
		c.Close()
		o.mu.Lock()
		delete(o.conns, c)
		o.mu.Unlock()
	}()
	in := bufio.NewReaderSize(c, 256<<10)
	for {
		r, err := o.read(in)
		if err != nil {
			o.fault(r, err)
			return
		}
		a := o.answer(r)
		io.WriteString(c, a.Text)
		if a.Close || a.Text == "" {
			return
		}
	}
}

// fault notes what is no request in the one form. The end of a connection is none.
func (o *RawOrigin) fault(r *RawRequest, err error) {
	if r == nil || r.Head == "" || err == io.EOF || err == io.ErrUnexpectedEOF {
		return
	}
	if _, broken := err.(net.Error); broken {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults = append(o.faults, fmt.Sprintf("%v: %q", err, r.Head))
}

// read reads one request.
func (o *RawOrigin) read(in *bufio.Reader) (*RawRequest, error) {
	r := &RawRequest{}
	for !strings.HasSuffix(r.Head, "\r\n\r\n") {
		line, err := in.ReadString('\n')
		r.Head += line
		if err != nil {
			return r, err
		}
	}
	length, chunked, err := r.parse()
	o.mu.Lock()
	o.requests = append(o.requests, r)
	o.mu.Unlock()
	if err != nil {
		return r, err
	}
	body, err := readBody(in, length, chunked)
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Body, r.Whole = body, err == nil
	return r, err
}

// parse holds the head against the one form, and against net/http's opinion of it.
func (r *RawRequest) parse() (length int, chunked bool, err error) {
	lines := strings.Split(strings.TrimSuffix(r.Head, "\r\n\r\n"), "\r\n")
	parts := strings.Split(lines[0], " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || parts[2] != "HTTP/1.1" {
		return 0, false, fmt.Errorf("request line")
	}
	r.Method, r.Target = parts[0], parts[1]
	for _, c := range []byte(r.Target) {
		if c <= ' ' || c > '~' {
			return 0, false, fmt.Errorf("byte %#x in the target", c)
		}
	}
	count := map[string]int{}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || !isToken(name) || value != strings.Trim(value, " \t") || !isValue(value) {
			return 0, false, fmt.Errorf("field line %q", line)
		}
		r.Fields = append(r.Fields, Field{name, value})
		count[strings.ToLower(strings.ReplaceAll(name, "_", "-"))]++
	}
	length, chunked, err = r.framing(count)
	if err != nil {
		return 0, false, err
	}
	q, err := http.ReadRequest(bufio.NewReader(strings.NewReader(r.Head)))
	switch {
	case err != nil:
		return 0, false, fmt.Errorf("net/http: %w", err)
	case q.Method != r.Method || q.RequestURI != r.Target || q.Host != r.Get("Host"):
		return 0, false, fmt.Errorf("net/http reads %s %s for %s", q.Method, q.RequestURI, q.Host)
	case chunked != slices.Equal(q.TransferEncoding, []string{"chunked"}), !chunked && q.ContentLength != int64(length):
		return 0, false, fmt.Errorf("net/http takes %d bytes, %v", q.ContentLength, q.TransferEncoding)
	}
	return length, chunked, nil
}

func isValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// framing: one Host; a length in decimal or "chunked", not both and no more than once.
func (r *RawRequest) framing(count map[string]int) (length int, chunked bool, err error) {
	if count["host"] != 1 || count["content-length"]+count["transfer-encoding"] > 1 {
		return 0, false, fmt.Errorf("framing is ambiguous")
	}
	if count["transfer-encoding"] == 1 {
		if r.Get("Transfer-Encoding") != "chunked" {
			return 0, false, fmt.Errorf("transfer coding %q", r.Get("Transfer-Encoding"))
		}
		return 0, true, nil
	}
	if count["content-length"] == 1 {
		v := r.Get("Content-Length")
		if length, err = strconv.Atoi(v); err != nil || strconv.Itoa(length) != v || length < 0 {
			return 0, false, fmt.Errorf("length %q", v)
		}
	}
	return length, false, nil
}

// Get joins the values of a field.
func (r *RawRequest) Get(name string) string {
	var v []string
	for _, f := range r.Fields {
		if strings.EqualFold(f.Name, name) {
			v = append(v, f.Value)
		}
	}
	return strings.Join(v, " | ")
}

func readBody(in *bufio.Reader, length int, chunked bool) (string, error) {
	if !chunked {
		b := make([]byte, length)
		n, err := io.ReadFull(in, b)
		if n < length && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return string(b[:n]), err
	}
	var body strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return body.String(), io.ErrUnexpectedEOF
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 32)
		if err != nil || strconv.FormatUint(n, 16)+"\r\n" != line {
			return body.String(), fmt.Errorf("chunk size line %q", line)
		}
		b := make([]byte, n+2)
		if k, err := io.ReadFull(in, b); err != nil {
			body.Write(b[:min(k, int(n))])
			return body.String(), io.ErrUnexpectedEOF
		}
		if string(b[n:]) != "\r\n" {
			return body.String(), fmt.Errorf("chunk of %d bytes ends in %q", n, b[n:])
		}
		body.Write(b[:n])
		if n == 0 {
			return body.String(), nil
		}
	}
}

// Mark is the number of requests seen; Since returns those after a mark.
func (o *RawOrigin) Mark() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

// Since returns copies of the requests that began after a mark.
func (o *RawOrigin) Since(mark int) []RawRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	var rs []RawRequest
	for _, r := range o.requests[mark:] {
		rs = append(rs, *r)
	}
	return rs
}

// Faults returns, once, what was no request in the one form.
func (o *RawOrigin) Faults() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.faults
	o.faults = nil
	return f
}
