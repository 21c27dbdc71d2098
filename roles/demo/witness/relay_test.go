package witness

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// relay stands where the proxy would and passes bytes on, but for its fault. It
// has no cache and no memory: what one client connection brings goes to one
// origin connection.
type relay struct {
	t        *testing.T
	listener net.Listener
	origin   string
	fault    fault
	wg       sync.WaitGroup

	mu      sync.Mutex // guards below
	conns   []net.Conn
	closed  bool
	faulted bool // the fault has happened; it happens once
}

// fault is what the relay does wrong, once: when the byte of that number, of
// those that one connection has brought to its client, is next; or the first byte
// behind the first head.
type fault struct {
	at int64 // or behindHead
	// answer gets what is to be sent from that byte on and sends what it likes; false
	// ends the connection.
	answer func(client *net.TCPConn, p []byte) bool
	// request, if set, gets the bytes of the first request and a second connection to
	// the origin.
	request func(p []byte, again net.Conn) []byte
}

const behindHead = -1

func newRelay(t *testing.T, o *Origin, f fault) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, listener: l, origin: o.Addr(), fault: f}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		r.closed = true
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) own(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	if r.closed {
		c.Close()
	}
}

// first says, once, that the fault is due.
func (r *relay) first() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.faulted
	r.faulted = true
	return !was
}

func (r *relay) pass(client *net.TCPConn) {
	r.own(client)
	defer client.Close()
	c, err := net.Dial("tcp", r.origin)
	if err != nil {
		return
	}
	origin := c.(*net.TCPConn)
	r.own(origin)
	brought := make(chan struct{})
	r.wg.Go(func() {
		defer close(brought)
		r.bring(client, origin)
		client.CloseWrite()
	})
	defer origin.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		p := buf[:n]
		if r.fault.request != nil && n > 0 && r.first() {
			again, err := net.Dial("tcp", r.origin)
			if err != nil {
				return
			}
			r.own(again)
			p = r.fault.request(p, again)
		}
		if _, err := origin.Write(p); err != nil {
			return
		}
		if err == io.EOF {
			origin.CloseWrite()
			<-brought // the origin's last bytes
			return
		}
		if err != nil {
			return
		}
	}
}

// bring carries the answers.
func (r *relay) bring(client, origin *net.TCPConn) {
	buf := make([]byte, 64<<10)
	at := r.fault.at
	for sent := int64(0); ; {
		n, err := origin.Read(buf)
		p := buf[:n]
		if head := bytes.Index(p, []byte("\r\n\r\n")); at == behindHead && sent == 0 && head >= 0 {
			at = int64(head) + 4
		}
		if r.fault.answer != nil && at >= 0 && sent+int64(n) > at && sent <= at && r.first() {
			before := p[:at-sent]
			if _, err := client.Write(before); err != nil || !r.fault.answer(client, p[len(before):]) {
				return
			}
		} else if _, err := client.Write(p); err != nil {
			return
		}
		sent += int64(n)
		if err != nil {
			return
		}
	}
}
