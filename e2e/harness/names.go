package harness

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is a name server on loopback. Its answers hold for no time at all.
type Names struct {
	conn *net.UDPConn

	mu     sync.Mutex // guards what follows
	addrs  map[string][]netip.Addr
	silent bool
}

// NewNames starts a name server that knows no name; it ends with the story.
func NewNames(t testing.TB) *Names {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &Names{conn: conn, addrs: map[string][]netip.Addr{}}
	done := make(chan struct{})
	go func() { defer close(done); n.serve() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return n
}

// Addr is the server's address and port.
func (n *Names) Addr() string { return n.conn.LocalAddr().String() }

// Set gives a name its IPv4 addresses.
func (n *Names) Set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = nil
	for _, a := range addrs {
		n.addrs[name] = append(n.addrs[name], netip.MustParseAddr(a))
	}
}

// Silence makes the server answer nothing more.
func (n *Names) Silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = true
}

func (n *Names) serve() {
	buf := make([]byte, 4096)
	for {
		size, from, err := n.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(buf[:size]) != nil || len(q.Questions) != 1 {
			continue
		}
		if b := n.answer(&q); b != nil {
			n.conn.WriteToUDPAddrPort(b, from)
		}
	}
}

func (n *Names) answer(q *dnsmessage.Message) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent {
		return nil
	}
	ask := q.Questions[0]
	addrs, known := n.addrs[strings.TrimSuffix(ask.Name.String(), ".")]
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true}, Questions: q.Questions}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		if ask.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: ask.Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}
