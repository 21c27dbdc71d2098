package e2e

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// forwarding is a configuration that lets these tests, which come from loopback, ask for loopback addresses.
func forwarding(more string) harness.Option {
	return harness.Config("forward: {allow: 127.0.0.0/8, to: 127.0.0.1, connect_ports: 1025-65535}\n" + more)
}

// A request in absolute form for a host that no rule is for goes to that host, and what comes is stored; one that a
// rule is for goes where the rule says (RFC 9112 section 3.2.2).
func TestForwardProxy(t *testing.T) {
	t.Parallel()
	far := harness.NewOrigin(t, func(e *harness.Exchange) {
		e.Reply(200, "far "+e.Host+" "+e.Target, "Cache-Control: max-age=60")
	})
	near := tells(t, "near")
	p := harness.Start(t, harness.Args("--threads", "1"),
		forwarding(fmt.Sprintf("map: [{prefix: 'http://mapped.example/', origin: '%s/inside'}]\n", near.URL())))
	c := p.Client().Dial()
	for range 2 {
		r := c.Send(harness.Request("GET", far.URL()+"/a?b", "", "Host: mapped.example", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "X-Kept: yes")).
			Read("GET").Expect(200, "far "+far.Addr()+" /a?b")
		if !strings.Contains(r.Get("Via"), "trafficd") {
			t.Errorf("Via: %s", r.Get("Via"))
		}
	}
	far.ExpectCount("/a?b", 1)
	got := far.Last("/a?b").Header
	if got.Get("Proxy-Connection") != "" || got.Get("Proxy-Authorization") != "" || got.Get("X-Kept") != "yes" || got.Get("Via") == "" {
		t.Errorf("the origin got %v", got)
	}
	c.Send(harness.Request("GET", far.URL(), "")).Read("GET").Expect(200, "far "+far.Addr()+" /")
	c.Send(harness.Request("GET", "http://mapped.example/a", "")).Read("GET").Expect(200, "near mapped.example /inside/a")
	_, port, _ := strings.Cut(far.Addr(), ":")
	c.Send(harness.Request("GET", "http://localhost:"+port+"/name", "")).Read("GET").Expect(200, "far localhost:"+port+" /name")

	for request, status := range map[string]int{
		"/a":                                404, // no rule, and the client names no host to a proxy
		"http://127.0.0.1:25/a":             403,
		"http://127.0.0.2:8000/a":           403,
		"http://[::1]:8000/a":               403,
		"http://10.0.0.1/a":                 403,
		"http://169.254.169.254/a":          403,
		"http://[::ffff:169.254.169.254]/a": 403,
		"http://0.0.0.0:8000/a":             403,
		"http://" + p.Addr + "/a":           403,
		"http://" + p.Autoconf + "/a":       403,
		"https://mapped.example/a":          421,
	} {
		host := "Host: unmapped.example"
		c.Send(harness.Request("GET", request, "", host)).Read("GET").ExpectStatus(status)
	}
}

// A proxy without rules is for other hosts only.
func TestForwardProxyWithoutRules(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, func(e *harness.Exchange) { e.Reply(200, e.Method+" "+e.Target, noStore) })
	p := harness.Start(t, harness.Args("--threads", "1"), forwarding(""))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", o.URL()+"/a", "")).Read("GET").Expect(200, "GET /a")
	c.Send(harness.Request("OPTIONS", o.URL(), "")).Read("OPTIONS").Expect(200, "OPTIONS *")
	c.Send(harness.Request("OPTIONS", o.URL(), "", "Max-Forwards: 0")).Read("OPTIONS").Expect(200, "").Has("Allow")
	c.Send(harness.Request("POST", o.URL()+"/p", "body")).Read("POST").Expect(200, "POST /p")
	c.Send(harness.Request("GET", "/", "")).Read("GET").ExpectStatus(404)
}

// Nobody has configured it: there is no proxy for other hosts, not even for clients on this machine, since whatever
// stands in front of us makes everybody one of those.
func TestForwardIsOffByDefault(t *testing.T) {
	t.Parallel()
	o := tells(t, "o")
	p := harness.Start(t, harness.Args("--threads", "1", "--map", "http://mapped.example/="+o.URL()))
	p.Client().Get(o.URL() + "/a").ExpectStatus(404)
	c := p.Client().Dial()
	c.Send("CONNECT "+o.Addr()+" HTTP/1.1\r\nHost: "+o.Addr()+"\r\n\r\n").Read("CONNECT").ExpectStatus(405).Header("Connection", "close")
	c.ExpectEOF()
	if n := o.Connections(); n != 0 {
		t.Errorf("the origin saw %d connections", n)
	}
}

func TestForwardIsForConfiguredClients(t *testing.T) {
	t.Parallel()
	o := tells(t, "o")
	p := harness.Start(t, harness.Args("--threads", "1"), harness.Config(fmt.Sprintf(`
forward: {allow: [192.0.2.0/24, '2001:db8::/32'], to: 127.0.0.1, connect_ports: 1-65535}
map: [{prefix: 'http://mapped.example/', origin: %q}]
`, o.URL())))
	p.Client().Get(o.URL() + "/a").ExpectStatus(403)
	p.Client().Get("http://mapped.example/a").Expect(200, "o mapped.example /a")
	c := p.Client().Dial()
	c.Send("CONNECT "+o.Addr()+" HTTP/1.1\r\nHost: "+o.Addr()+"\r\n\r\n").Read("CONNECT").ExpectStatus(403).Header("Connection", "close")
	c.ExpectEOF()
}

// listener serves each connection, until the story ends.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

// deafListener is an address at which the kernel takes no more connections: it drops what would begin one, until
// there is room, which accept makes. It returns the first connection that comes then and is not given up, and its first byte.
func deafListener(t *testing.T) (addr string, accept func() (net.Conn, byte)) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String()) // the one that has room
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return l.Addr().String(), func() (net.Conn, byte) {
		t.Helper()
		for {
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close() })
			if in.RemoteAddr().String() == c.LocalAddr().String() {
				continue
			}
			var first [1]byte
			if n, _ := in.Read(first[:]); n == 1 {
				return in, first[0]
			}
		}
	}
}

// connect asks for a tunnel; what is given follows at once.
func connect(c *harness.Conn, to, text string) *harness.Response {
	return c.Send("CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n" + text).ReadHead()
}

// A tunnel takes bytes both ways, those first that came behind the request; each direction ends by itself (RFC 9110
// section 9.3.6).
func TestConnect(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--threads", "1"), forwarding(""))
	echo := listener(t, func(c net.Conn) {
		io.WriteString(c, "hello ")
		io.Copy(c, c)
		io.WriteString(c, "bye")
	})
	c := p.Client().Dial()
	r := connect(c, echo, "early ").ExpectStatus(200)
	for _, name := range []string{"Content-Length", "Transfer-Encoding"} {
		r.Header(name, "")
	}
	if got := c.ReadRaw(len("hello early ")); got != "hello early " {
		t.Errorf("got %q", got)
	}
	c.Send("GET / HTTP/1.1\r\n\r\n")
	if got := c.ReadRaw(18); got != "GET / HTTP/1.1\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	c.CloseWrite()
	if got := c.ReadRaw(3); got != "bye" {
		t.Errorf("got %q", got)
	}
	c.ExpectEOF()

	nobody := harness.FreeAddr(t)
	for to, status := range map[string]int{
		nobody: 502, "127.0.0.1:443": 403, "127.0.0.2:8000": 403, "169.254.169.254:8000": 403, p.Addr: 403,
	} {
		c := p.Client().Dial()
		c.Send("CONNECT "+to+" HTTP/1.1\r\nHost: "+to+"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").Read("CONNECT").ExpectStatus(status).Header("Connection", "close")
		c.ExpectEOF()
	}
	for _, line := range []string{"CONNECT / HTTP/1.1", "CONNECT http://x:80/ HTTP/1.1", "CONNECT x HTTP/1.1", "CONNECT x:0 HTTP/1.1", "CONNECT u@x:443 HTTP/1.1"} {
		c := p.Client().Dial()
		c.Send(line + "\r\nHost: x\r\n\r\n").Read("GET").ExpectStatus(400)
		c.ExpectEOF()
	}
}

// Neither a tunnel on which nothing moves nor a far side that does not answer keeps its place.
func TestConnectHasTimeLimits(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--threads", "1"), forwarding(""), harness.Set("timeouts.tunnel_idle", "300ms"))
	idle := p.Client().Dial()
	connect(idle, listener(t, func(c net.Conn) { io.Copy(io.Discard, c) }), "").ExpectStatus(200)
	idle.ExpectClosed()
	p = harness.Start(t, harness.Args("--threads", "1"), forwarding(""), harness.Set("timeouts.origin_connect", "200ms"))
	addr, _ := deafListener(t)
	p.Client().Dial().Send("CONNECT "+addr+" HTTP/1.1\r\nHost: x:1\r\n\r\n").Read("CONNECT").ExpectStatus(504).Header("Connection", "close")
}

// A tunnel has its line in the access log at its end, with the bytes of two servers, and so has one that is refused.
func TestTunnelsAreLogged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	p := harness.Start(t, harness.Args("--threads", "1"), forwarding(""), harness.Set("access_log.path", path))
	echo := listener(t, func(c net.Conn) { io.Copy(c, c) })
	c := p.Client().Dial()
	connect(c, echo, "x").ExpectStatus(200)
	c.ReadRaw(1)
	p.Client().Dial().Send("CONNECT " + harness.FreeAddr(t) + " HTTP/1.1\r\nHost: x\r\n\r\n").Read("CONNECT").ExpectStatus(502)
	p.Client().Dial().Send("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n").Read("CONNECT").ExpectStatus(403)
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	c.Send("y").ReadRaw(1)
	c.CloseWrite().ExpectEOF()
	got := lines(t, path, 3)
	for i, want := range []string{"/502 ", "TCP_DENIED/403 ", "TCP_TUNNEL/200 [0-9]+ CONNECT " + echo} {
		if !regexp.MustCompile(want).MatchString(got[i]) {
			t.Errorf("line %d has no %q: %s", i+1, want, got[i])
		}
	}
}

// A server that dies while it connects leaves a request behind that is begun anew: the far side has had no byte of it.
func TestConnectIsBegunAnew(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--threads", "1"), forwarding(""))
	addr, accept := deafListener(t)
	c := p.Client().Dial()
	c.Send("CONNECT " + addr + " HTTP/1.1\r\nHost: x\r\n\r\nearly")
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	// What the dead server had begun may get through as well, until its successor closes it. No byte comes on it.
	far, first := accept()
	c.ReadHead().ExpectStatus(200)
	b := append([]byte{first}, "...."...)
	if _, err := io.ReadFull(far, b[1:]); err != nil || string(b) != "early" {
		t.Fatalf("the far side got %q, %v", b, err)
	}
	io.WriteString(far, "answer")
	if got := c.ReadRaw(6); got != "answer" {
		t.Errorf("got %q", got)
	}
}

// A tunnel outlives the server, whatever is on its way through it: both directions are byte-exact.
func TestConnectTunnelsOutliveTheServer(t *testing.T) {
	t.Parallel()
	const size, tunnels, kills = 8 << 20, 3, 4
	noise := func(seed uint64, w io.Writer) error { // as much as will go
		_, err := io.CopyN(w, rand.NewChaCha8([32]byte{byte(seed)}), size)
		return err
	}
	sum := func(r io.Reader) (string, error) {
		h := sha256.New()
		n, err := io.Copy(h, r)
		if err == nil && n != size {
			err = fmt.Errorf("got %d bytes", n)
		}
		return fmt.Sprintf("%x", h.Sum(nil)), err
	}
	want := func(seed uint64) string {
		h := sha256.New()
		noise(seed, h)
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	type heard struct {
		sum string
		err error
	}
	came := make(chan heard, tunnels)
	gate := make(chan struct{}, 2*tunnels*kills)
	far := listener(t, func(c net.Conn) {
		done := make(chan struct{})
		go func() { defer close(done); noise(2, slowly{c, gate}); c.(*net.TCPConn).CloseWrite() }()
		s, err := sum(c)
		came <- heard{s, err}
		<-done
	})
	p := harness.Start(t, harness.Args("--threads", "2"), forwarding(""))
	got := make(chan heard, tunnels)
	for range tunnels {
		c := p.Client().Dial()
		connect(c, far, "").ExpectStatus(200)
		go func() { noise(1, slowly{c, gate}); c.CloseWriteIfOpen() }()
		go func() {
			h := sha256.New()
			n, err := c.CopyRaw(h, size)
			if err == nil && n != size {
				err = fmt.Errorf("got %d bytes", n)
			}
			got <- heard{fmt.Sprintf("%x", h.Sum(nil)), err}
		}()
	}
	for range kills {
		old := p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old.PID)
		for range 2 * tunnels {
			gate <- struct{}{}
		}
	}
	close(gate)
	for range tunnels {
		if h := harness.Receive(t, "what the far side got", came); h.err != nil || h.sum != want(1) {
			t.Errorf("the far side got %v %s", h.err, h.sum)
		}
		if h := harness.Receive(t, "what the client got", got); h.err != nil || h.sum != want(2) {
			t.Errorf("the client got %v %s", h.err, h.sum)
		}
	}
}

// slowly is a writer that goes on only when the story does, so that there is something on its way whenever the server dies.
type slowly struct {
	w    io.Writer
	gate <-chan struct{}
}

func (s slowly) Write(b []byte) (int, error) {
	return s.w.Write(b)
}

func (s slowly) ReadFrom(r io.Reader) (n int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for i := 0; ; i++ {
		b, err := in.Peek(1)
		if err != nil || len(b) == 0 {
			return n, nil
		}
		if i%8 == 7 {
			<-s.gate
		}
		k, err := io.CopyN(s.w, in, int64(in.Buffered()))
		n += k
		if err != nil {
			return n, err
		}
	}
}
