package witness

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The origin's targets other than objects.
const (
	sinkPath = "/sink/" // takes uploads of the object whose number follows
	echoPath = "/echo/" // a tunnel that gives back each byte with its bits turned over
)

// Fields of our own.
const (
	fieldToken  = "X-Witness"    // which object, in both directions
	fieldID     = "X-Witness-Id" // of an upload, unique in the run
	protocol    = "witness"      // of Upgrade
	earlyAnswer = "answered before the body\n"
)

// turned is what the tunnel's far end does to each byte, so that bytes that come
// back from this side of it, or go round twice, are seen.
func turned(p []byte) {
	for i := range p {
		p[i] = ^p[i]
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// receipt is the body of the answer to an upload.
func receipt(id string, length int64, sum uint32) string {
	return fmt.Sprintf("id=%s length=%d crc32c=%08x\n", id, length, sum)
}

// Origin is an origin server that knows what each byte must be, and remembers
// what it was asked how often. It speaks HTTP/1.1 in its own words, so that the
// framing of each answer is what the target says.
type Origin struct {
	seed     uint64       // immutable
	listener net.Listener // immutable
	wg       sync.WaitGroup
	closing  chan struct{} // closed by Close; every wait ends then

	mu      sync.Mutex // guards below
	conns   map[net.Conn]bool
	fetches map[string]int       // by target: whole objects for the cache, served with 200
	uploads map[string]int       // by ID: request heads that arrived
	again   map[string]int       // of both, what came more than once: "GET target" or "POST ID"
	last    map[string]time.Time // when that was
	faults  []string             // what no correct proxy sends
	broken  int                  // exchanges that ended before their time
}

// NewOrigin listens on addr, such as 127.0.0.1:0, and serves until Close.
func NewOrigin(addr string, seed uint64) (*Origin, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen as the origin: %w", err)
	}
	o := &Origin{
		seed: seed, listener: l, closing: make(chan struct{}), conns: map[net.Conn]bool{},
		fetches: map[string]int{}, uploads: map[string]int{}, again: map[string]int{},
		last: map[string]time.Time{},
	}
	o.wg.Go(o.accept)
	return o, nil
}

// Addr is host:port of the origin.
func (o *Origin) Addr() string { return o.listener.Addr().String() }

// URL is for a remap rule.
func (o *Origin) URL() string { return "http://" + o.Addr() }

// Repeated is what came more often than once, and how often: "GET target" of an
// object that may be stored, "POST ID" of an upload. It is a copy.
func (o *Origin) Repeated() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.again)
}

// lastOf is when what is Repeated came for the last time.
func (o *Origin) lastOf(line string) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last[line]
}

// count counts one of fetches or uploads.
func (o *Origin) count(of map[string]int, method, what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	of[what]++
	if n := of[what]; n > 1 {
		o.again[method+" "+what], o.last[method+" "+what] = n, time.Now()
	}
}

// Faults are what the origin was sent that nobody may send: a malformed
// request, a wrong byte in an upload or a tunnel. It is a copy.
func (o *Origin) Faults() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.faults...)
}

// Broken is how many exchanges the proxy broke off. It is no failure by itself: a
// client has noticed, or there was none any more.
func (o *Origin) Broken() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken
}

// Close ends all connections and waits for their goroutines.
func (o *Origin) Close() error {
	o.mu.Lock()
	select {
	case <-o.closing:
		o.mu.Unlock()
		return nil
	default:
	}
	close(o.closing)
	err := o.listener.Close()
	for c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
	return err
}

func (o *Origin) accept() {
	for {
		c, err := o.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			o.wait(10 * time.Millisecond) // out of descriptors: what is open goes on
			continue
		}
		o.mu.Lock()
		select {
		case <-o.closing:
			c.Close()
		default:
			o.conns[c] = true
			o.wg.Go(func() { o.converse(c) })
		}
		o.mu.Unlock()
	}
}

// wait returns false if the origin closes meanwhile.
func (o *Origin) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-o.closing:
		return false
	}
}

func (o *Origin) fault(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.faults) < maxFailures {
		o.faults = append(o.faults, fmt.Sprintf(format, args...))
	}
}

// converse answers the requests of one connection.
func (o *Origin) converse(c net.Conn) {
	w := newWire(c, 0)
	for o.exchange(w) {
	}
	o.mu.Lock()
	delete(o.conns, c)
	o.mu.Unlock()
	c.Close()
}

// exchange answers one request and says whether another may follow.
func (o *Origin) exchange(w *wire) bool {
	r, err := readRequest(w.in)
	var ne net.Error
	switch {
	case err == io.EOF, errors.As(err, &ne):
		return false
	case err == io.ErrUnexpectedEOF:
		o.breakOff()
		return false
	case err != nil:
		o.fault("origin: %v", err)
		return false
	}
	keep, err := o.answer(w, r)
	if err != nil {
		o.breakOff()
		return false
	}
	return keep && !r.fields.lists("Connection", "close")
}

func (o *Origin) breakOff() {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.closing: // it was us
	default:
		o.broken++
	}
}

// answer answers the request; an error is the connection's.
func (o *Origin) answer(w *wire, r *request) (keep bool, err error) {
	switch {
	case r.method == "CONNECT" && r.target == o.Addr(): // nobody stands between us and the client
		_, err = io.WriteString(w, "HTTP/1.1 200 Witness\r\n\r\n")
		return true, err
	case strings.HasPrefix(r.target, objectPath) && (r.method == "GET" || r.method == "HEAD"):
		return o.serveObject(w, r)
	case strings.HasPrefix(r.target, sinkPath) && (r.method == "POST" || r.method == "PUT"):
		return o.takeUpload(w, r)
	case strings.HasPrefix(r.target, echoPath) && r.fields.lists("Upgrade", protocol):
		return false, o.echo(w, r)
	}
	o.fault("origin: %s %s was asked for", r.method, r.target)
	_, err = io.WriteString(w, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	return false, err
}

// part is what of an object is asked for.
type part struct {
	status   int
	from, to int64
}

// selects evaluates the conditions (RFC 9110 section 13.2.2) and the range, of
// which the origin knows the forms that are used: bytes=from-to and bytes=from-.
func selects(r *request, obj Object) part {
	whole := part{200, 0, obj.Size}
	if tag := r.fields.get("If-None-Match"); tag != "" && r.fields.lists("If-None-Match", obj.ETag()) {
		return part{status: 304}
	}
	spec, ok := strings.CutPrefix(r.fields.get("Range"), "bytes=")
	first, last, two := strings.Cut(spec, "-")
	if !ok || !two || r.method != "GET" {
		return whole
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := obj.Size-1, error(nil)
	if last != "" {
		to, err2 = strconv.ParseInt(last, 10, 64)
	}
	if err1 != nil || err2 != nil || from > to || from >= obj.Size {
		return whole
	}
	return part{206, from, min(to+1, obj.Size)}
}

func (o *Origin) serveObject(w *wire, r *request) (keep bool, err error) {
	obj, err := parseObject(r.target)
	if err != nil {
		o.fault("origin: %v", err)
		return false, err
	}
	if !o.wait(obj.Delay) {
		return false, net.ErrClosed
	}
	p := selects(r, obj)
	if p.status == 200 && r.method == "GET" && obj.MaxAge != 0 {
		o.count(o.fetches, "GET", r.target)
	}
	if _, err := io.WriteString(w, objectHead(obj, p)); err != nil {
		return false, err
	}
	if r.method == "HEAD" || p.status == 304 {
		return true, nil
	}
	return obj.Framing != UntilClose, o.sendBody(w, obj, p)
}

func objectHead(obj Object, p part) string {
	var b strings.Builder
	if obj.Hints {
		b.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d Witness\r\n%s: %s\r\nETag: %s\r\nCache-Control: %s\r\n", p.status, fieldToken, obj.token(), obj.ETag(), obj.cacheControl())
	// RFC 9110 section 6.6.1: an origin with a clock sends Date.
	fmt.Fprintf(&b, "Date: %s\r\n", time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
	if p.status == 206 {
		fmt.Fprintf(&b, "Content-Range: bytes %d-%d/%d\r\n", p.from, p.to-1, obj.Size)
	}
	switch {
	case p.status == 304:
	case obj.Framing == Length:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", p.to-p.from)
	case obj.Framing == Chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	default:
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// chunkSizes are odd on purpose: of one byte, around powers of two, and around
// what fits a packet of the loopback interface.
var chunkSizes = [...]int64{1, 4096, 17, 8191, 333, 16385, 2, 1023, 65483}

// sendBody sends the part in the object's framing and at its rate.
func (o *Origin) sendBody(w *wire, obj Object, p part) error {
	body := Body{o.seed, obj.Number}
	buf := make([]byte, 32, 32+(16<<10)+2)
	pace := newPacer(obj.Rate)
	for off, i := p.from, int(obj.Number%uint64(len(chunkSizes))); off < p.to; i++ {
		n := min(int64(pieceSize(obj.Rate)), p.to-off)
		head, tail := "", ""
		if obj.Framing == Chunked {
			n = min(n, chunkSizes[i%len(chunkSizes)])
			head, tail = fmt.Sprintf("%x", n), "\r\n"
			if i%5 == 0 {
				head += ";witness=1" // RFC 9112 section 7.1.1: whoever does not know it ignores it
			}
			head += "\r\n"
		}
		buf = append(buf[:0], head...)
		buf = buf[:len(buf)+int(n)]
		body.Fill(buf[len(head):], off)
		if _, err := w.Write(append(buf, tail...)); err != nil {
			return err
		}
		off += n
		if !o.wait(pace.owed(n)) {
			return net.ErrClosed
		}
	}
	if obj.Framing == Chunked {
		_, err := io.WriteString(w, "0\r\n\r\n")
		return err
	}
	return nil
}

// takeUpload reads an upload, compares it and answers with a receipt. In the
// target, ?early=1 has it answer before it reads the body, and ?silent=1 leave an
// expectation of 100-continue unanswered.
func (o *Origin) takeUpload(w *wire, r *request) (keep bool, err error) {
	path, query, _ := strings.Cut(r.target, "?")
	object, err := strconv.ParseUint(strings.TrimPrefix(path, sinkPath), 10, 64)
	id := r.fields.get(fieldID)
	if err != nil || id == "" {
		o.fault("origin: upload %s with ID %q", r.target, id)
		return false, errors.New("bad upload")
	}
	o.count(o.uploads, "POST", id)
	if query == "early=1" {
		return false, o.answerEarly(w, r)
	}
	if r.fields.lists("Expect", "100-continue") && query != "silent=1" {
		if _, err := io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return false, err
		}
	}
	n, sum, wrong, err := digest(&r.body, Body{o.seed, object})
	if err != nil {
		return false, err
	}
	if wrong >= 0 {
		o.fault("origin: upload %s: wrong byte at offset %d", id, wrong)
	}
	text := receipt(id, n, sum)
	_, err = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", fieldToken, id, len(text), text)
	return true, err
}

// answerEarly refuses an upload by its head, as for want of a right, and then
// reads on, so that the answer is not lost in a reset (RFC 9112 section 9.6).
func (o *Origin) answerEarly(w *wire, r *request) error {
	_, err := fmt.Fprintf(w, "HTTP/1.1 403 Forbidden\r\n%s: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		fieldToken, r.fields.get(fieldID), len(earlyAnswer), earlyAnswer)
	if err != nil {
		return err
	}
	if err := w.closeWrite(); err != nil {
		return err
	}
	io.Copy(io.Discard, w.in) // the rest of the upload, or as much as is sent of it
	return nil
}

// digest reads a body to its end: how long it was, its CRC-32C, and the offset of
// the first byte that is not content's, -1 if there is none.
func digest(r io.Reader, content Body) (n int64, sum uint32, wrong int64, err error) {
	wrong = -1
	buf := make([]byte, 16<<10)
	for {
		m, err := r.Read(buf)
		if i := content.Check(buf[:m], n); i >= 0 && wrong < 0 {
			wrong = n + int64(i)
		}
		sum = crc32.Update(sum, castagnoli, buf[:m])
		n += int64(m)
		if err == io.EOF {
			return n, sum, wrong, nil
		}
		if err != nil {
			return n, sum, wrong, err
		}
	}
}

// echo is the far end of a tunnel: each byte comes back turned over, until the
// near end is done; then so is this one.
func (o *Origin) echo(w *wire, r *request) error {
	object, err := strconv.ParseUint(strings.TrimPrefix(r.target, echoPath), 10, 64)
	if err != nil {
		o.fault("origin: tunnel %s", r.target)
		return err
	}
	_, err = fmt.Fprintf(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n%s: %d/0\r\n\r\n", protocol, fieldToken, object)
	if err != nil {
		return err
	}
	return o.echoBytes(w, w.in, Body{o.seed, object}, r.target)
}

func (o *Origin) echoBytes(w io.Writer, in *bufio.Reader, content Body, target string) error {
	buf := make([]byte, 16<<10)
	for off := int64(0); ; {
		n, err := in.Read(buf)
		if i := content.Check(buf[:n], off); i >= 0 {
			o.fault("origin: tunnel %s: wrong byte at offset %d", target, off+int64(i))
			return errors.New("wrong byte")
		}
		turned(buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
