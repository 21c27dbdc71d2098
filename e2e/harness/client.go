package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Client sends requests to one address, a new connection for each unless Dial is used.
type Client struct {
	t    testing.TB
	addr string
	from string // the client's own address; empty: as it comes
}

// NewClient is a client of addr.
func NewClient(t testing.TB, addr string) *Client { return &Client{t: t, addr: addr} }

// From is the same client at an address of its own, such as 127.0.0.2.
func (c *Client) From(ip string) *Client { return &Client{t: c.t, addr: c.addr, from: ip} }

// Get sends a GET on a new connection. Each header is a whole line, "Name: value".
func (c *Client) Get(target string, headers ...string) *Response {
	c.t.Helper()
	return c.Do("GET", target, "", headers...)
}

// Head sends a HEAD on a new connection.
func (c *Client) Head(target string, headers ...string) *Response {
	c.t.Helper()
	return c.Do("HEAD", target, "", headers...)
}

// Post sends a POST with Content-Length on a new connection.
func (c *Client) Post(target, body string, headers ...string) *Response {
	c.t.Helper()
	return c.Do("POST", target, body, headers...)
}

// Do sends one request on a new connection that the client asks to have closed, checks
// that it is closed cleanly after the answer, and returns the answer.
func (c *Client) Do(method, target, body string, headers ...string) *Response {
	c.t.Helper()
	conn := c.Dial()
	defer conn.Close()
	conn.Send(Request(method, target, body, append(headers, "Connection: close")...))
	r := conn.Read(method)
	conn.ExpectEOF()
	return r
}

// Request renders a request. Host is "localhost" unless the headers have one; a body, or a
// method that usually has one, brings Content-Length.
func Request(method, target, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	if !hasField(headers, "host") {
		b.WriteString("Host: localhost\r\n")
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if (body != "" || method == "POST" || method == "PUT") && !hasField(headers, "content-length") && !hasField(headers, "transfer-encoding") {
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

func hasField(headers []string, name string) bool {
	for _, h := range headers {
		if n, _, _ := strings.Cut(h, ":"); strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// Conn is one client connection.
type Conn struct {
	t  testing.TB
	c  *net.TCPConn
	in *bufio.Reader
}

// Dial opens a connection; it is closed with the story at the latest.
func (c *Client) Dial() *Conn {
	c.t.Helper()
	conn, err := dialFrom(c.addr, c.from)
	if err != nil {
		c.t.Fatalf("connect to %s: %v", c.addr, err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return &Conn{t: c.t, c: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

func dial(addr string) (*net.TCPConn, error) { return dialFrom(addr, "") }

func dialFrom(addr, ip string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: Patience}
	if ip != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
	}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), conn.SetDeadline(time.Now().Add(Patience))
}

// bear begins the time that the next step may take; a story may have any number of them.
func (c *Conn) bear() { c.c.SetDeadline(time.Now().Add(Patience)) }

// Send writes raw bytes.
func (c *Conn) Send(text string) *Conn {
	c.t.Helper()
	c.bear()
	if _, err := io.WriteString(c.c, text); err != nil {
		c.t.Fatalf("send %s: %v", clip(text), err)
	}
	return c
}

// Offer writes raw bytes to a peer that may refuse them half way; what it does then is for
// the story to look at.
func (c *Conn) Offer(text string) *Conn { c.Write([]byte(text)); return c }

// Write implements io.Writer for bodies that are made as they are sent.
func (c *Conn) Write(b []byte) (int, error) { c.bear(); return c.c.Write(b) }

// Drip sends the text byte by byte and calls step, when there is one, after each.
func (c *Conn) Drip(text string, step func(i int)) *Conn {
	c.t.Helper()
	for i := range len(text) {
		c.Send(text[i : i+1])
		if step != nil {
			step(i)
		}
	}
	return c
}

// CloseWrite sends FIN; answers can still be read.
func (c *Conn) CloseWrite() *Conn {
	c.t.Helper()
	if err := c.c.CloseWrite(); err != nil {
		c.t.Fatalf("half-close: %v", err)
	}
	return c
}

// CloseWriteIfOpen is CloseWrite towards a peer that may have closed already.
func (c *Conn) CloseWriteIfOpen() { c.c.CloseWrite() }

// Close closes the connection.
func (c *Conn) Close() { c.c.Close() }

// Reset closes the connection with RST.
func (c *Conn) Reset() {
	c.c.SetLinger(0)
	c.c.Close()
}

// LocalAddr is the client's end.
func (c *Conn) LocalAddr() string { return c.c.LocalAddr().String() }

// Try reads one answer and leaves it to the story whether it had to come.
func (c *Conn) Try(method string) (*Response, error) {
	c.bear()
	r, err := ReadResponse(c.in, method)
	if r != nil {
		r.t = c.t
	}
	return r, err
}

// Read reads one answer to a request with that method.
func (c *Conn) Read(method string) *Response {
	c.t.Helper()
	r, err := c.Try(method)
	if err != nil {
		c.t.Fatalf("read answer to %s: %v", method, err)
	}
	return r
}

// ReadHead reads status line and fields only; the body is left for ReadRaw.
func (c *Conn) ReadHead() *Response {
	c.t.Helper()
	c.bear()
	r, err := readHead(c.in)
	if err != nil {
		c.t.Fatalf("read head: %v", err)
	}
	r.t = c.t
	return r
}

// ReadRaw reads exactly n bytes.
func (c *Conn) ReadRaw(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	c.bear()
	if got, err := io.ReadFull(c.in, b); err != nil {
		c.t.Fatalf("read %d bytes: got %d, then %v", n, got, err)
	}
	return string(b)
}

// CopyRaw reads exactly n bytes into w and returns how many came.
func (c *Conn) CopyRaw(w io.Writer, n int64) (int64, error) { c.bear(); return io.CopyN(w, c.in, n) }

// Narrow lets the connection hold few bytes that the story has not read yet.
func (c *Conn) Narrow() *Conn {
	c.t.Helper()
	if err := c.c.SetReadBuffer(128 << 10); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// Unsent is the number of bytes in the kernel that the peer has not taken yet (SIOCOUTQ).
func (c *Conn) Unsent() int {
	n := 0
	raw, err := c.c.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n
}

// WaitStuck waits until the peer takes nothing more: bytes are waiting in the kernel, and for
// a good number of looks in a row not one of them has gone.
func (c *Conn) WaitStuck() {
	c.t.Helper()
	last, same := 0, 0
	WaitFor(c.t, "back-pressure to reach the client", func() bool {
		if n := c.Unsent(); n == 0 || n != last {
			last, same = n, 0
		} else {
			same++
		}
		return same >= 100
	})
}

// ExpectEOF fails unless the peer closes the connection cleanly with nothing more to read.
func (c *Conn) ExpectEOF() {
	c.t.Helper()
	c.bear()
	b, err := io.ReadAll(c.in)
	if err != nil || len(b) > 0 {
		c.t.Errorf("want a clean close, got %s and %v", clip(string(b)), err)
	}
}

// ExpectClosed fails unless the connection ends, by FIN or by RST; a reset is allowed where
// the peer has refused what it was sent without reading all of it.
func (c *Conn) ExpectClosed() {
	c.t.Helper()
	c.bear()
	b, err := io.ReadAll(c.in)
	if isTimeout(err) {
		c.t.Errorf("connection is still open; read %s", clip(string(b)))
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Connect opens a connection outside of a story's own goroutine; of its methods only Write,
// Try and Close may be used there.
func Connect(addr string) (*Conn, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	return &Conn{c: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// Crowding is a number of clients that connect, or try to, and ask for nothing.
type Crowding struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Crowd lets n clients connect at once and stay until Leave or the end of the story. Those
// that the kernel does not let in go on trying.
func Crowd(t testing.TB, addr string, n int) *Crowding {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Crowding{cancel: cancel}
	for range n {
		c.wg.Go(func() {
			var d net.Dialer
			if conn, err := d.DialContext(ctx, "tcp", addr); err == nil {
				<-ctx.Done()
				conn.Close()
			}
		})
	}
	t.Cleanup(c.Leave)
	return c
}

// Leave closes all connections of the crowd.
func (c *Crowding) Leave() {
	c.cancel()
	c.wg.Wait()
}

// Fetch sends one raw request on a new connection and reads one answer. It may be called
// from any goroutine, since it fails no story.
func Fetch(addr, request string) (*Response, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	method, _, _ := strings.Cut(request, " ")
	return ReadResponse(bufio.NewReader(conn), method)
}

// Poke writes raw bytes to a Unix socket, ends the sending side and reads until the peer has
// closed. What it answers does not matter, that it ends does.
func Poke(t testing.TB, path, raw string) {
	t.Helper()
	conn, err := net.DialTimeout("unix", path, Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(Patience))
	io.WriteString(conn, raw)
	conn.(*net.UnixConn).CloseWrite()
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Errorf("%s: still open %v after %s", path, Patience, clip(raw))
	}
}

// Concurrently sends the same request on n connections at once and returns the answers in no
// order. gate, when there is one, is called when all have been sent.
func (c *Client) Concurrently(n int, request string, gate func()) []*Response {
	c.t.Helper()
	conns := make([]*Conn, n)
	for i := range conns {
		conns[i] = c.Dial().Send(request)
	}
	if gate != nil {
		gate()
	}
	method, _, _ := strings.Cut(request, " ")
	answers, errs := make([]*Response, n), make([]error, n)
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() { answers[i], errs[i] = conn.Try(method) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			c.t.Errorf("connection %d of %d: %v", i, n, err)
		}
	}
	return answers
}
