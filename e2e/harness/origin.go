package harness

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Origin is a scripted origin. It reads requests with net/http's parser, which is not ours,
// and writes exactly the bytes that its handler says.
type Origin struct {
	t       testing.TB
	addr    string // immutable, also over Down and Up
	handler Handler
	closing chan struct{} // closed at the end of the story; every wait of a handler ends then
	wg      sync.WaitGroup

	mu       sync.Mutex   // guards below
	listener net.Listener // nil while the origin is down
	conns    map[net.Conn]bool
	accepted int
	requests []*Received
	arrived  chan struct{} // closed and replaced when a request arrives or ends
}

// Handler answers one request. It runs on the connection's own goroutine.
type Handler func(e *Exchange)

// Received is what the origin saw of one request.
type Received struct {
	Method, Target, Proto, Host string
	Header                      http.Header
	Conn                        int // 1 for the first connection that the origin accepted

	// Valid when Done: the handler has returned and the body was read to its end.
	Done     bool
	BodyErr  error // the body did not come to a proper end
	BodyLen  int64
	BodyHash string // SHA-256, hexadecimal
	Trailer  http.Header
}

// Exchange is a request that is being answered.
type Exchange struct {
	*Received
	Body io.Reader // counts and hashes what is read from it

	origin *Origin
	conn   net.Conn
	in     *bufio.Reader
	hash   hash.Hash
	close  bool
}

// NewOrigin starts an origin on a free port; it ends with the story.
func NewOrigin(t testing.TB, h Handler) *Origin {
	t.Helper()
	return newOrigin(t, freeListener(t), h)
}

// NewOriginAt is NewOrigin on an address of the story's choice.
func NewOriginAt(t testing.TB, addr string, h Handler) *Origin {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newOrigin(t, l, h)
}

func newOrigin(t testing.TB, l net.Listener, h Handler) *Origin {
	o := &Origin{
		t: t, addr: l.Addr().String(), handler: h, closing: make(chan struct{}),
		conns: map[net.Conn]bool{}, arrived: make(chan struct{}),
	}
	o.acceptOn(l)
	t.Cleanup(o.end)
	return o
}

// Reply is a handler that gives every request the same answer.
func Reply(status int, body string, headers ...string) Handler {
	return func(e *Exchange) { e.Reply(status, body, headers...) }
}

// Routes chooses the handler by the target without its query; "" is for all others.
func Routes(routes map[string]Handler) Handler {
	return func(e *Exchange) {
		path, _, _ := strings.Cut(e.Target, "?")
		h, ok := routes[path]
		if !ok {
			h, ok = routes[""]
		}
		if !ok {
			h = Reply(404, "the origin has no "+path, "Cache-Control: no-store")
		}
		h(e)
	}
}

// URL is the origin as --map wants it.
func (o *Origin) URL() string { return "http://" + o.addr }

// Addr is the origin's address and port.
func (o *Origin) Addr() string { return o.addr }

// Up listens; NewOrigin has done so already.
func (o *Origin) Up() {
	o.t.Helper()
	l, err := net.Listen("tcp", o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	o.acceptOn(l)
}

func (o *Origin) acceptOn(l net.Listener) {
	o.mu.Lock()
	o.listener = l
	o.mu.Unlock()
	o.wg.Go(func() { o.accept(l) })
}

// Down stops listening and closes every connection: the next one is refused.
func (o *Origin) Down() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.listener != nil {
		o.listener.Close()
		o.listener = nil
	}
	for c := range o.conns {
		c.Close()
	}
}

func (o *Origin) end() {
	close(o.closing)
	o.Down()
	o.wg.Wait()
}

func (o *Origin) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.listener != l { // Down has not seen this one
			o.mu.Unlock()
			conn.Close()
			return
		}
		o.accepted++
		n := o.accepted
		o.conns[conn] = true
		o.mu.Unlock()
		o.wg.Go(func() { o.serve(conn, n) })
	}
}

func (o *Origin) serve(conn net.Conn, n int) {
	defer func() {
		conn.Close()
		o.mu.Lock()
		delete(o.conns, conn)
		o.mu.Unlock()
	}()
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		e := o.receive(req, conn, n)
		e.in = in
		o.handler(e)
		if e.close {
			o.finish(e, req)
			return
		}
		io.Copy(io.Discard, e.Body)
		o.finish(e, req)
		if req.Close || !req.ProtoAtLeast(1, 1) {
			return
		}
	}
}

func (o *Origin) receive(req *http.Request, conn net.Conn, n int) *Exchange {
	e := &Exchange{
		Received: &Received{
			Method: req.Method, Target: req.RequestURI, Proto: req.Proto, Host: req.Host,
			Header: req.Header, Conn: n,
		},
		origin: o, conn: conn, hash: sha256.New(),
	}
	e.Header = req.Header.Clone()
	if len(req.TransferEncoding) > 0 { // net/http takes the field away
		e.Header.Set("Transfer-Encoding", strings.Join(req.TransferEncoding, ", "))
	}
	e.Body = &bodyReader{e, req.Body}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests = append(o.requests, e.Received)
	o.signalLocked()
	return e
}

// bodyReader counts and hashes.
type bodyReader struct {
	e  *Exchange
	in io.Reader
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	b.e.hash.Write(p[:n])
	b.e.origin.mu.Lock()
	defer b.e.origin.mu.Unlock()
	b.e.BodyLen += int64(n)
	if err != nil && err != io.EOF {
		b.e.BodyErr = err
	}
	return n, err
}

func (o *Origin) finish(e *Exchange, req *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.Done = true
	e.BodyHash = hex.EncodeToString(e.hash.Sum(nil))
	e.Trailer = req.Trailer
	o.signalLocked()
}

func (o *Origin) signalLocked() {
	close(o.arrived)
	o.arrived = make(chan struct{})
}

// Reply sends an answer with Content-Length and Date, unless the headers bring their own.
// Each header is a whole line, "Name: value".
func (e *Exchange) Reply(status int, body string, headers ...string) {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	if !hasField(headers, "date") {
		b.WriteString("Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n")
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	bodiless := status == 204 || status == 304 || status < 200
	if !bodiless && !hasField(headers, "content-length") && !hasField(headers, "transfer-encoding") {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	if e.Method != "HEAD" && !bodiless {
		b.WriteString(body)
	}
	e.Raw(b.String())
	if hasField(headers, "connection") {
		e.close = true
	}
}

// Raw writes bytes as they are. An error means that the proxy has gone, which the story sees
// by other means.
func (e *Exchange) Raw(text string) { io.WriteString(e.conn, text) }

// Write writes bytes as they are, for handlers that go on until the proxy has gone.
func (e *Exchange) Write(text string) error {
	_, err := io.WriteString(e.conn, text)
	return err
}

// Pause lets time pass in an origin that is slow; false: the story has ended.
func (e *Exchange) Pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-e.origin.closing:
		return false
	}
}

// Chunk writes one chunk of a body for which the handler has sent Transfer-Encoding: chunked.
func (e *Exchange) Chunk(data string) { e.Raw(fmt.Sprintf("%x\r\n%s\r\n", len(data), data)) }

// Close closes the connection after the handler has returned.
func (e *Exchange) Close() { e.close = true }

// Reset makes the close an RST.
func (e *Exchange) Reset() {
	e.conn.(*net.TCPConn).SetLinger(0)
	e.close = true
}

// Break is Reset, now.
func (e *Exchange) Break() {
	e.Reset()
	e.conn.Close()
}

// ReadBody reads the request body to its end.
func (e *Exchange) ReadBody() string {
	b, _ := io.ReadAll(e.Body)
	return string(b)
}

// Stream is the connection after the request head, for tunnels.
func (e *Exchange) Stream() io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{e.in, e.conn}
}

// Await blocks the handler until ch is closed or has something. When the story ends first,
// the handler ends with it.
func (e *Exchange) Await(ch <-chan struct{}) {
	select {
	case <-ch:
	case <-e.origin.closing:
		runtime.Goexit()
	}
}

// Silent is a handler that never answers.
func Silent(e *Exchange) { e.Await(nil) }

// Requests are all that have arrived, in order.
func (o *Origin) Requests() []Received {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]Received, len(o.requests))
	for i, r := range o.requests {
		all[i] = *r
	}
	return all
}

// Count is the number of requests for that target.
func (o *Origin) Count(target string) int {
	n := 0
	for _, r := range o.Requests() {
		if r.Target == target {
			n++
		}
	}
	return n
}

// ExpectCount fails unless exactly that many requests for the target have arrived.
func (o *Origin) ExpectCount(target string, want int) {
	o.t.Helper()
	if got := o.Count(target); got != want {
		o.t.Errorf("origin saw %d requests for %s, want %d", got, target, want)
	}
}

// Connections is the number of connections accepted so far.
func (o *Origin) Connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// WaitCount waits until n requests for the target have arrived.
func (o *Origin) WaitCount(target string, n int) {
	o.t.Helper()
	o.wait(fmt.Sprintf("%d requests for %s", n, target), func() bool { return o.Count(target) >= n })
}

// Last waits until the latest request for the target has been answered and returns it.
func (o *Origin) Last(target string) Received {
	o.t.Helper()
	var last Received
	o.wait("an answered request for "+target, func() bool {
		last = Received{}
		for _, r := range o.Requests() {
			if r.Target == target {
				last = r
			}
		}
		return last.Done
	})
	return last
}

func (o *Origin) wait(what string, cond func() bool) {
	o.t.Helper()
	timeout := time.After(Patience)
	for {
		o.mu.Lock()
		arrived := o.arrived
		o.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-arrived:
		case <-timeout:
			o.t.Fatalf("origin waited %v in vain for %s", Patience, what)
		}
	}
}

// Gate is a place where handlers wait until the story lets them go on.
type Gate struct {
	open    chan struct{}
	once    sync.Once
	reached atomic.Bool
}

// NewGate is a closed gate.
func NewGate() *Gate { return &Gate{open: make(chan struct{})} }

// Open lets through all who wait and all who come later.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// Wait blocks the handler until the gate is open.
func (g *Gate) Wait(e *Exchange) {
	g.reached.Store(true)
	e.Await(g.open)
}

// WaitReached waits until a handler has come to the gate: what it does before that is done. A request that is counted may not
// have begun to be looked at.
func (g *Gate) WaitReached(t testing.TB) {
	t.Helper()
	WaitFor(t, "a handler at the gate", g.reached.Load)
}

// Switch is a flag that a story throws once to change what an origin does.
type Switch struct{ on atomic.Bool }

// Set turns the switch on.
func (s *Switch) Set() { s.on.Store(true) }

// On says whether the switch is on.
func (s *Switch) On() bool { return s.on.Load() }
