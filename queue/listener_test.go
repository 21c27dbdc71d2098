package queue

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenAddresses(t *testing.T) {
	for _, c := range []struct{ in, name, fault string }{
		{"127.0.0.1:8080", "127.0.0.1:8080", ""},
		{"localhost:80", "127.0.0.1:80", ""},
		{"[::1]:8080", "[::1]:8080", ""},
		{"[::]:8080", "[::]:8080", ""},
		{"[0:0::1]:8080", "[::1]:8080", ""},
		{"[fe80::1%lo]:1", "[fe80::1%1]:1", ""},
		{":8080", "*:8080", ""},
		{"*:8080", "*:8080", ""},
		{"0.0.0.0:0", "0.0.0.0:0", ""},
		{"8080", "", "no port"},
		{"127.0.0.1:", "", "port is not a number"},
		{"127.0.0.1:65536", "", "port is not a number"},
		{"127.0.0.1:-1", "", "port is not a number"},
		{"example.com:80", "", "host is not an IP address"},
		{"::1:80", "", "brackets"},
		{"[127.0.0.1]:80", "", "brackets"},
		{"[::ffff:127.0.0.1]:80", "", "write an IPv4 address"},
		{"[fe80::1%none0]:1", "", "no such interface"},
	} {
		got, err := ListenerName(c.in)
		if c.fault == "" && (err != nil || got != c.name) {
			t.Errorf("ListenerName(%q) = %q, %v; want %q", c.in, got, err, c.name)
		}
		if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("ListenerName(%q) error = %v; want one with %q", c.in, err, c.fault)
		}
	}
}

func FuzzListenerName(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1]:0", ":1", "*:2", "[fe80::1%1]:3", "::", "[]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ListenerName(s)
		if err != nil {
			return
		}
		if again, err := ListenerName(name); err != nil || again != name {
			t.Errorf("ListenerName(%q) = %q, whose name is %q, %v", s, name, again, err)
		}
	})
}

func TestAcceptedConnectionsInheritOptions(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	dial(t, l)
	fd := mustAccept(t, l)
	defer unix.Close(fd)
	for name, o := range map[string][2]int{
		"TCP_NODELAY":  {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		"SO_OOBINLINE": {unix.SOL_SOCKET, unix.SO_OOBINLINE},
	} {
		if v, err := unix.GetsockoptInt(fd, o[0], o[1]); err != nil || v == 0 {
			t.Errorf("%s of accepted connection = %d, %v; want it set", name, v, err)
		}
	}
	if fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); fl&unix.O_NONBLOCK == 0 {
		t.Error("accepted connection is blocking")
	}
	if fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
		t.Error("accepted connection would be inherited by exec")
	}
	if _, err := l.Accept(); !errors.Is(err, ErrEmpty) {
		t.Errorf("second Accept: %v, want ErrEmpty", err)
	}
}

func TestWildcards(t *testing.T) {
	all := mustBind(t, ":0", 16)
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(int(all.Addr().Port()))))
		if err != nil {
			t.Errorf("listener on * does not serve %s: %v", host, err)
			continue
		}
		c.Close()
	}
	// The same port must be free for IPv4: [::] is IPv6 only. Unless somebody else
	// has just that one; not of ten.
	var err error
	for range 10 {
		six := mustBind(t, "[::]:0", 16)
		var l *Listener
		if l, err = Bind(fmt.Sprintf("0.0.0.0:%d", six.Addr().Port()), 16); err == nil {
			l.Close()
			return
		}
	}
	t.Errorf("0.0.0.0 beside [::]: %v", err)
}

func TestAddressInUseNamesAddressAndHolder(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	for _, addr := range []string{l.Addr().String(), fmt.Sprintf(":%d", l.Addr().Port())} {
		_, err := Bind(addr, 16)
		var inUse *InUseError
		if !errors.As(err, &inUse) || !errors.Is(err, unix.EADDRINUSE) {
			t.Fatalf("Bind(%s) = %v, want InUseError", addr, err)
		}
		name, _ := ListenerName(addr)
		if inUse.Addr != name || !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not name %s", err, name)
		}
		if want := fmt.Sprintf("pid %d (", os.Getpid()); !strings.Contains(inUse.Holder, want) || !inUse.Alive {
			t.Errorf("holder %q, alive %v; want %q, alive", inUse.Holder, inUse.Alive, want)
		}
	}
}

// Whose processes cannot be seen is not waited for.
func TestAddressInUseByAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	l := mustBind(t, "127.0.0.1:0", 16)
	if err := unix.Fchown(l.FD(), 65534, 65534); err != nil { // what the kernel shows as the socket's user
		t.Fatal(err)
	}
	addr := l.Addr().String()
	defer inFlight(t, l)()
	var inUse *InUseError
	if _, err := Bind(addr, 16); !errors.As(err, &inUse) || !inUse.Alive || inUse.Holder != "a process of uid 65534" {
		t.Errorf("Bind(%s) = %v, %+v, want an InUseError with the other user as a holder that lives", addr, err, inUse)
	}
}

// What is on its way from one process to another no process has, as the sockets of one that is nearly gone.
func TestAddressInUseByNobody(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	addr := l.Addr().String()
	defer inFlight(t, l)()
	var inUse *InUseError
	if _, err := Bind(addr, 16); !errors.As(err, &inUse) || inUse.Alive || inUse.Holder == "" {
		t.Errorf("Bind(%s) = %v, %+v, want an InUseError with a holder that is not seen to live", addr, err, inUse)
	}
}

// inFlight closes l when it is on its way to another process.
func inFlight(t *testing.T, l *Listener) (release func()) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(l.FD()), nil, 0); err != nil {
		t.Fatal(err)
	}
	l.Close()
	return func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
}

func TestDies(t *testing.T) {
	// Fields 3 to 31 of proc(5), of which 9 are the flags and 31 the pending signals.
	stat := func(flags, pending int) []byte {
		return fmt.Appendf(nil, "7 (a) b) S 1 1 1 0 -1 %d %s%d 0 0\n", flags, strings.Repeat("0 ", 21), pending)
	}
	for _, c := range []struct {
		stat []byte
		want bool
	}{
		{stat(0x400040, 0), false}, {stat(0x400044, 0), true}, {stat(0x40, 1<<8), true}, {stat(0x40, 1<<14), false}, {nil, false},
	} {
		if got := dies(c.stat); got != c.want {
			t.Errorf("dies(%q) = %v, want %v", c.stat, got, c.want)
		}
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil || dies(own) {
		t.Errorf("this process dies: %q, %v", own, err)
	}
}

func FuzzDies(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 1 1 0 -1 4 0"))
	f.Add([]byte(") S (7"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stat []byte) {
		if dies(stat) && len(strings.Fields(string(stat))) < 29 {
			t.Errorf("%q tells too little to say so", stat)
		}
	})
}

func TestBindElsewhere(t *testing.T) {
	if _, err := Bind("192.0.2.1:1", 1); !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "192.0.2.1:1") {
		t.Errorf("Bind on a foreign address: %v", err)
	}
}

func TestBacklogIsWhatTheKernelHolds(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 8)
	for i := range 6 {
		if b, err := l.Backlog(); err != nil || b != (Backlog{i, 8}) || b.NearlyFull() {
			t.Fatalf("with %d waiting: %+v, %v, nearly full %v", i, b, err, b.NearlyFull())
		}
		dial(t, l)
	}
	if b, _ := l.Backlog(); !b.NearlyFull() {
		t.Errorf("%+v is not nearly full", b)
	}
}

func TestFullerBacklog(t *testing.T) {
	half, most, none := Backlog{50, 100}, Backlog{9, 10}, Backlog{}
	for _, c := range []struct{ a, b, want Backlog }{
		{half, most, most}, {most, half, most}, {none, half, half}, {half, none, half}, {none, none, none},
	} {
		if got := c.a.Fuller(c.b); got != c.want {
			t.Errorf("%v.Fuller(%v) = %v", c.a, c.b, got)
		}
	}
}

func TestListenerIsAdoptedWithWhatWaitsInIt(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	client := dial(t, l)
	l.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromFD(fd, l.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Name() != l.Name() || again.ID() != l.ID() || again.Addr() != l.Addr() {
		t.Errorf("adopted as %s on %s, want %s on %s", again.Name(), again.Addr(), l.Name(), l.Addr())
	}
	conn := mustAccept(t, again)
	defer unix.Close(conn)
	writeByte(t, conn, 'x')
	if got := readByte(t, client); got != 'x' {
		t.Errorf("client read %q", got)
	}
}

func TestDeferredConnectionsComeWithTheirFirstBytes(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	if err := l.DeferAccept(1); err != nil {
		t.Fatal(err)
	}
	var clients [2]net.Conn
	for i := range clients {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients[i] = c
	}
	silent, talker := clients[0], clients[1]
	if _, err := l.Accept(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("a connection that has said nothing: %v, want %v", err, ErrEmpty)
	}
	if _, err := talker.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	conn := mustAccept(t, l)
	defer unix.Close(conn)
	if peer, err := unix.Getpeername(conn); err != nil || peer.(*unix.SockaddrInet4).Port != talker.LocalAddr().(*net.TCPAddr).Port {
		t.Errorf("accepted %v, %v, want the one that has sent something, %v", peer, err, talker.LocalAddr())
	}
	if n, err := unix.Read(conn, make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("at once %d bytes, %v, want 1", n, err)
	}
	// The other is not forgotten.
	conn = mustAccept(t, l)
	defer unix.Close(conn)
	writeByte(t, conn, 'y')
	if got := readByte(t, silent); got != 'y' {
		t.Errorf("the silent client read %q", got)
	}
}

func TestForeignDescriptorsAreNotAdopted(t *testing.T) {
	l := mustBind(t, "127.0.0.1:0", 16)
	all := mustBind(t, ":0", 16)
	client := dial(t, l).(*net.TCPConn)
	cf, _ := client.File()
	defer cf.Close()
	pipe, w, _ := os.Pipe()
	defer pipe.Close()
	defer w.Close()
	for _, c := range []struct {
		what  string
		fd    int
		addr  string
		adopt bool
	}{
		{"a pipe", int(pipe.Fd()), "", false},
		{"a connection", int(cf.Fd()), "", false},
		{"a closed number", 1 << 20, "", false},
		{"another port", l.FD(), "127.0.0.1:1", false},
		{"another address", l.FD(), "127.0.0.2:0", false},
		{"a wildcard for one address", l.FD(), "*:0", false},
		{"nonsense asked for", l.FD(), "nonsense", false},
		{"any port", l.FD(), "127.0.0.1:0", true},
		{"anything", l.FD(), "", true},
		{"the wildcard", all.FD(), "*:0", true},
	} {
		fd := c.fd
		if c.adopt {
			fd, _ = unix.Dup(fd)
		}
		got, err := FromFD(fd, c.addr)
		if (err == nil) != c.adopt {
			t.Errorf("%s: adopt = %v", c.what, err)
		}
		if err == nil {
			got.Close()
		}
	}
	if name := NameOf(all.FD(), all.Addr()); name != fmt.Sprintf("*:%d", all.Addr().Port()) {
		t.Errorf("name of the wildcard is %s", name)
	}
}

func FuzzListenRows(f *testing.F) {
	for _, p := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if text, err := os.ReadFile(p); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range parseListenRows(text) {
			if !r.addr.Addr().IsValid() || r.inode == "" {
				t.Errorf("row %+v", r)
			}
		}
	})
}
