package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A zone answers questions: packets to send, in order, for a packet that came by network.
type zone func(network string, q dnsmessage.Message) [][]byte

// serve makes a name server on loopback, for UDP and TCP, and returns its address.
func serve(t *testing.T, z zone) netip.AddrPort {
	t.Helper()
	l, u := listenBoth(t)
	addr := u.LocalAddr().(*net.UDPAddr).AddrPort()
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, m := range z("udp", unpack(t, buf[:n])) {
				u.WriteToUDPAddrPort(m, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			io.ReadFull(c, size[:])
			buf := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, buf); err == nil {
				for _, m := range z("tcp", unpack(t, buf)) {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() { u.Close(); l.Close(); wg.Wait() })
	return addr
}

// listenBoth takes a port that is free for both.
func listenBoth(t *testing.T) (net.Listener, *net.UDPConn) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := l.Addr().(*net.TCPAddr)
		if u, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP, Port: a.Port}); err == nil {
			return l, u
		}
		l.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

func unpack(t *testing.T, b []byte) (m dnsmessage.Message) {
	if err := m.Unpack(b); err != nil {
		t.Errorf("question: %v", err)
	}
	return m
}

// reply makes the answer to a question out of lines: "name ttl A 192.0.2.1", "name ttl CNAME other", and "name ttl SOA minimum",
// which goes into the authority section.
func answerTo(q dnsmessage.Message, code dnsmessage.RCode, lines ...string) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RCode: code, RecursionAvailable: true},
		Questions: q.Questions,
	}
	for _, line := range lines {
		f := strings.Fields(line)
		var ttl, minimum uint32
		fmt.Sscan(f[1], &ttl)
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(f[0]), Class: dnsmessage.ClassINET, TTL: ttl}}
		switch f[2] {
		case "A":
			r.Body = &dnsmessage.AResource{A: netip.MustParseAddr(f[3]).As4()}
		case "AAAA":
			r.Body = &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(f[3]).As16()}
		case "CNAME":
			r.Body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(f[3])}
		case "TXT":
			r.Body = &dnsmessage.TXTResource{TXT: f[3:]}
		case "SOA":
			fmt.Sscan(f[3], &minimum)
			r.Body = &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns."), MBox: dnsmessage.MustNewName("m."), MinTTL: minimum}
			m.Authorities = append(m.Authorities, r)
			continue
		}
		m.Answers = append(m.Answers, r)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// lines is a zone that gives a name's lines to whoever asks for it, A to those that ask for A and so on.
func lines(byName map[string][]string) zone {
	return func(_ string, q dnsmessage.Message) [][]byte {
		ask := q.Questions[0]
		found, ok := byName[ask.Name.String()]
		if !ok {
			return [][]byte{answerTo(q, dnsmessage.RCodeNameError, ". 900 SOA 60")}
		}
		var list []string
		for _, l := range found {
			f := strings.Fields(l)
			if "Type"+f[2] == ask.Type.String() || f[2] == "CNAME" || f[2] == "TXT" || f[2] == "SOA" || f[0] == "evil." {
				list = append(list, l)
			}
		}
		return [][]byte{answerTo(q, dnsmessage.RCodeSuccess, list...)}
	}
}

func lookupAt(t *testing.T, server netip.AddrPort, host string) (Answer, error) {
	t.Helper()
	var d net.Dialer
	c := client{dial: d.DialContext}
	cf := newConf("search s.example\n", "")
	cf.servers, cf.timeout, cf.attempts = []netip.AddrPort{server}, 20*time.Second, 1
	return c.lookup(t.Context(), &cf, host)
}

func TestLookups(t *testing.T) {
	server := serve(t, lines(map[string][]string{
		"a.example.":       {"a.example. 30 A 192.0.2.1", "A.EXAMPLE. 20 A 192.0.2.2", "evil. 1 A 192.0.2.66", "a.example. 5 TXT x"},
		"alias.example.":   {"alias.example. 10 CNAME b.example.", "b.example. 300 CNAME a.example.", "a.example. 30 A 192.0.2.1"},
		"loop.example.":    {"loop.example. 10 CNAME loop.example."},
		"mail.example.":    {"example. 40 SOA 25"},
		"short.s.example.": {"short.s.example. 7 A 192.0.2.7"},
		"big.example.":     {"big.example. 4294967295 A 192.0.2.1"},
	}))
	for _, c := range []struct {
		host, want string
		ttl        time.Duration
		err        string
	}{
		{"a.example", "[192.0.2.1 192.0.2.2]", 20 * time.Second, ""},
		{"a.example.", "[192.0.2.1 192.0.2.2]", 20 * time.Second, ""},
		{"alias.example", "[192.0.2.1]", 10 * time.Second, ""},
		{"short", "[192.0.2.7]", 7 * time.Second, ""},
		{"big.example", "[192.0.2.1]", 0, ""},
		{"loop.example", "", 0, "aliases"},
		{"mail.example", "", 25 * time.Second, "no such host: mail.example"},
		{"none.example", "", 60 * time.Second, "no such host: none.example"},
		{strings.Repeat("x", 300) + ".example", "", 0, "name"},
	} {
		a, err := lookupAt(t, server, c.host)
		if c.err != "" {
			var none *NotFoundError
			if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.err) || errors.As(err, &none) && none.TTL != c.ttl {
				t.Errorf("%.20s: got %v (%+v), want %s for %v", c.host, err, none, c.err, c.ttl)
			}
			continue
		}
		if err != nil || fmt.Sprint(a.Addrs) != c.want || a.TTL != c.ttl {
			t.Errorf("%s: got %v for %v, %v; want %s for %v", c.host, a.Addrs, a.TTL, err, c.want, c.ttl)
		}
	}
}

// Both families are asked for, and the least of their TTLs counts.
func TestBothFamiliesAreAsked(t *testing.T) {
	server := serve(t, lines(map[string][]string{"h.example.": {"h.example. 30 A 127.0.0.1", "h.example. 9 AAAA ::1"}}))
	a, err := lookupAt(t, server, "h.example")
	if err != nil || len(a.Addrs) != 2 || a.TTL != 9*time.Second {
		t.Errorf("got %v for %v, %v", a.Addrs, a.TTL, err)
	}
}

// What does not answer the question is passed over, however well it looks, and the answer that follows is taken.
func TestForgedAnswersArePassedOver(t *testing.T) {
	server := serve(t, func(_ string, q dnsmessage.Message) [][]byte {
		forged := func(change func(*dnsmessage.Message)) []byte {
			m := q
			m.Questions = append([]dnsmessage.Question(nil), q.Questions...)
			change(&m)
			return answerTo(m, dnsmessage.RCodeSuccess, "h.example. 30 A 192.0.2.66")
		}
		echo := forged(func(*dnsmessage.Message) {})
		echo[2] &^= 0x80 // not a response
		return [][]byte{
			{}, {1, 2, 3}, echo,
			forged(func(m *dnsmessage.Message) { m.ID++ }),
			forged(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("evil.") }),
			forged(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeTXT }),
			forged(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }),
			forged(func(m *dnsmessage.Message) { m.Questions = nil }),
			answerTo(q, dnsmessage.RCodeSuccess, "h.example. 30 A 192.0.2.1"),
		}
	})
	a, err := lookupAt(t, server, "h.example")
	if err != nil || fmt.Sprint(a.Addrs) != "[192.0.2.1]" {
		t.Errorf("got %v, %v", a.Addrs, err)
	}
}

func TestATruncatedAnswerIsHadByTCP(t *testing.T) {
	server := serve(t, func(network string, q dnsmessage.Message) [][]byte {
		var all []string
		for i := range 100 {
			all = append(all, fmt.Sprintf("h.example. 30 A 192.0.2.%d", i))
		}
		if network == "udp" {
			m := answerTo(q, dnsmessage.RCodeSuccess)
			m[2] |= 0x02 // TC
			return [][]byte{m}
		}
		if q.Questions[0].Type != dnsmessage.TypeA {
			all = nil
		}
		return [][]byte{answerTo(q, dnsmessage.RCodeSuccess, all...)}
	})
	a, err := lookupAt(t, server, "h.example")
	if err != nil || len(a.Addrs) != 100 {
		t.Errorf("got %d addresses, %v", len(a.Addrs), err)
	}
}

// A server that cannot answer, or does not, is passed over for the next one.
func TestTheNextNameServerIsAsked(t *testing.T) {
	bad := serve(t, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{answerTo(q, dnsmessage.RCodeServerFailure)}
	})
	silent := serve(t, func(string, dnsmessage.Message) [][]byte { return nil })
	good := serve(t, lines(map[string][]string{"h.example.": {"h.example. 30 A 192.0.2.1"}}))
	var d net.Dialer
	c := client{dial: d.DialContext}
	cf := newConf("", "")
	cf.timeout, cf.attempts = 50*time.Millisecond, 500 // the good one, too, is only a goroutine that may be late: then it is asked again
	cf.servers = []netip.AddrPort{bad, silent, good}
	a, err := c.lookup(t.Context(), &cf, "h.example")
	if err != nil || fmt.Sprint(a.Addrs) != "[192.0.2.1]" {
		t.Errorf("got %v, %v", a.Addrs, err)
	}
	cf.servers, cf.attempts = []netip.AddrPort{bad, silent}, 2
	var none *NotFoundError
	if _, err := c.lookup(t.Context(), &cf, "h.example"); err == nil || errors.As(err, &none) {
		t.Errorf("with none that answers: %v", err)
	}
}

func TestSystem(t *testing.T) {
	server := serve(t, lines(map[string][]string{"both.example.": {"both.example. 30 A 192.0.2.1"}, "dns.example.": {"dns.example. 30 A 192.0.2.2"}}))
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ nsswitch, host, want string }{
		{"", "both.example", "[10.0.0.1]"},
		{"hosts: dns files\n", "both.example", "[192.0.2.1]"},
		{"hosts: dns files\n", "file.example", "[10.0.0.2]"},
		{"", "dns.example", "[192.0.2.2]"},
		{"", "printer.local", "[10.9.9.9]"},
		{"", "localhost", "[10.9.9.9]"},
	} {
		s := NewSystem()
		s.fallback = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
		}
		s.paths.nsswitch = write("nsswitch.conf", c.nsswitch)
		s.paths.resolv = write("resolv.conf", "nameserver 192.0.2.254\n")
		s.paths.hosts = write("hosts", "10.0.0.1 both.example\n10.0.0.2 file.example\n")
		s.SetServers([]netip.AddrPort{server})
		a, err := s.Lookup(t.Context(), c.host)
		if err != nil || fmt.Sprint(a.Addrs) != c.want {
			t.Errorf("%q, %s: got %v, %v; want %s", c.nsswitch, c.host, a.Addrs, err, c.want)
		}
	}
	s := NewSystem()
	s.fallback = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
	}
	s.paths.nsswitch = write("nsswitch.conf", "hosts: ldap dns\n")
	s.paths.hosts = write("hosts", "")
	if a, err := s.Lookup(t.Context(), "h.example"); err != nil || fmt.Sprint(a.Addrs) != "[10.9.9.9]" {
		t.Errorf("with a source of others: %v, %v", a.Addrs, err)
	}
}

// Whatever comes as an answer: it is refused, or its addresses are of the family asked for.
func FuzzAnswer(f *testing.F) {
	q, err := newQuestion("h.example.", dnsmessage.TypeA, 7)
	if err != nil {
		f.Fatal(err)
	}
	packed, err := q.pack()
	if err != nil {
		f.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(packed); err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(answerTo(m, dnsmessage.RCodeSuccess, "h.example. 30 A 192.0.2.1"))
	f.Add(answerTo(m, dnsmessage.RCodeSuccess, "h.example. 30 CNAME b.example.", "b.example. 7 A 192.0.2.1", "b.example. 8 AAAA ::1", "x. 1 TXT y"))
	f.Add(answerTo(m, dnsmessage.RCodeNameError, ". 900 SOA 60"))
	f.Add(answerTo(m, dnsmessage.RCodeSuccess, "h.example. 10 CNAME h.example."))
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := q.parse(msg)
		if err != nil {
			return
		}
		if r.ttl < 0 || r.ttl > (1<<31)*time.Second || len(r.addrs) > 0 && !r.found {
			t.Fatalf("%+v", r)
		}
		for _, a := range r.addrs {
			if !a.Is4() {
				t.Fatalf("%v is no IPv4 address", a)
			}
		}
	})
}
