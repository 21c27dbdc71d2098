package queue

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener is one listening TCP socket: the first stage of the connection
// queue. It is bound once in the life of an instance and never closed or
// re-bound while it lives, so that the kernel goes on completing handshakes
// and queueing connections whatever process has died. All processes that hold
// it share one queue; the first to accept gets the oldest.
type Listener struct {
	name string         // immutable: the address as asked for, canonical
	addr netip.AddrPort // immutable: the address the kernel has given
	fd   int            // owned until Close; O_NONBLOCK, close-on-exec

	closeOnce sync.Once
}

// Endpoint is a parsed listen address.
type endpoint struct {
	addr netip.AddrPort
	dual bool // every address of both families: "", "*"
}

// parseEndpoint reads HOST:PORT. Names other than localhost are refused: what
// they mean could change between two starts, and the sockets must not.
func parseEndpoint(s string) (endpoint, error) {
	bad := func(why string) (endpoint, error) {
		return endpoint{}, fmt.Errorf("listen address %q: %s", s, why)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("no port; want HOST:PORT, as 127.0.0.1:8080 or [::1]:8080")
	}
	host, portText := s[:i], s[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return bad("port is not a number from 0 to 65535")
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	switch {
	case host == "" || host == "*":
		return endpoint{netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), true}, nil
	case host == "localhost":
		host = "127.0.0.1"
	case bracketed:
		host = host[1 : len(host)-1]
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return bad("host is not an IP address, localhost or *")
	}
	if ip.Is6() != bracketed {
		return bad("an IPv6 address, and only that, goes into brackets")
	}
	if ip.Is4In6() {
		return bad("write an IPv4 address as such")
	}
	if ip, err = numericZone(ip); err != nil {
		return bad(err.Error())
	}
	return endpoint{netip.AddrPortFrom(ip, uint16(port)), false}, nil
}

// numericZone turns fe80::1%eth0 into fe80::1%2, which is what the kernel says
// the socket is bound to.
func numericZone(ip netip.Addr) (netip.Addr, error) {
	if ip.Zone() == "" {
		return ip, nil
	}
	if _, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		return ip, nil
	}
	dev, err := net.InterfaceByName(ip.Zone())
	if err != nil {
		return ip, fmt.Errorf("zone %s: no such interface", ip.Zone())
	}
	return ip.WithZone(strconv.Itoa(dev.Index)), nil
}

func (e endpoint) String() string {
	if e.dual {
		return "*:" + strconv.Itoa(int(e.addr.Port()))
	}
	return e.addr.String()
}

// ListenerName is the canonical form of a listen address, under which a
// listener is found again: "localhost:80" is "127.0.0.1:80", ":80" is "*:80".
func ListenerName(addr string) (string, error) {
	e, err := parseEndpoint(addr)
	if err != nil {
		return "", err
	}
	return e.String(), nil
}

// Bind makes a listening socket on addr, HOST:PORT. HOST is an IPv4 address,
// an IPv6 address in brackets (IPv6 only, also [::]), localhost (127.0.0.1),
// or empty or * for all addresses of both families. backlog is the number of
// connections the kernel may hold ready; it caps it at net.core.somaxconn, see
// Backlog for the result.
//
// Options set here are inherited by every accepted connection (sk_clone in
// the kernel), and so cost nothing per connection: TCP_NODELAY, since a proxy
// writes whole answers; SO_OOBINLINE, since urgent data outside the stream would
// falsify SIOCINQ, from which custody computes how far a connection got.
// SO_KEEPALIVE is not set: its timer would be set up for every connection,
// however short, and time limits find dead clients anyhow. SO_REUSEADDR lets a new instance bind while connections of
// an old one are in TIME_WAIT. SO_REUSEPORT is not used: it would give each
// socket a queue of its own, and order, and the connections in the queue of
// the one that is closed, would be lost.
//
// An address in use is an *InUseError.
func Bind(addr string, backlog int) (*Listener, error) {
	e, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	fd, err := bindEndpoint(e)
	if e.dual && errors.Is(err, unix.EAFNOSUPPORT) {
		// A kernel without IPv6: all addresses are then the IPv4 ones.
		fd, err = bindEndpoint(endpoint{addr: netip.AddrPortFrom(netip.IPv4Unspecified(), e.addr.Port())})
	}
	if err != nil {
		return nil, bindError(e, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		return nil, bindError(e, err)
	}
	l, err := newListener(fd, e)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return l, nil
}

func bindEndpoint(e endpoint) (int, error) {
	family := unix.AF_INET
	if e.addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, boolInt(!e.dual))
	}
	if err == nil {
		err = setInherited(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(e.addr))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setInherited(fd int) error {
	for _, o := range []struct{ level, name int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return fmt.Errorf("set socket option: %w", err)
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FromFD adopts an inherited listening socket. addr is the address it is
// expected to have, in the notation of Bind; port 0 stands for any port, and
// "" for whatever it listens on. What is not a listening TCP socket, or
// listens elsewhere, is refused and stays the caller's; on success the
// Listener owns fd. The options of Bind are set again, since whoever made the
// socket (an init system) may not have, and changes apply to connections
// that come from now on.
func FromFD(fd int, addr string) (*Listener, error) {
	got, err := listening(fd)
	if err != nil {
		return nil, fmt.Errorf("adopt listener %s: descriptor %d: %w", addr, fd, err)
	}
	want := endpoint{addr: got}
	if addr != "" {
		if want, err = parseEndpoint(addr); err != nil {
			return nil, err
		}
		if !want.matches(got) {
			return nil, fmt.Errorf("adopt listener %s: descriptor %d listens on %s", addr, fd, got)
		}
	} else {
		want.dual = isDual(fd, got)
	}
	if err := setInherited(fd); err != nil {
		return nil, fmt.Errorf("adopt listener %s: %w", addr, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("adopt listener %s: set non-blocking: %w", addr, err)
	}
	unix.CloseOnExec(fd)
	return newListener(fd, want)
}

func isDual(fd int, got netip.AddrPort) bool {
	if !got.Addr().Is6() || !got.Addr().IsUnspecified() {
		return false
	}
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && only == 0
}

// NameOf is the canonical name of the listening socket fd, whose address is
// got (see ListeningOn): as ListenerName of what Bind would have been given.
func NameOf(fd int, got netip.AddrPort) string {
	return endpoint{addr: got, dual: isDual(fd, got)}.String()
}

// MatchesAddr is nil if a socket listening on got is what addr, in the
// notation of Bind, asks for.
func MatchesAddr(addr string, got netip.AddrPort) error {
	e, err := parseEndpoint(addr)
	if err == nil && !e.matches(got) {
		err = fmt.Errorf("listens on %s, not on %s", got, addr)
	}
	return err
}

func (e endpoint) matches(got netip.AddrPort) bool {
	if e.addr.Port() != 0 && e.addr.Port() != got.Port() {
		return false
	}
	// 0.0.0.0 is what "*" becomes on a kernel without IPv6.
	return e.addr.Addr() == got.Addr() || e.dual && got.Addr().IsUnspecified()
}

// listening returns the local address of fd if it is a listening TCP socket.
func listening(fd int) (netip.AddrPort, error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return netip.AddrPort{}, err
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if proto != unix.IPPROTO_TCP || accepts != 1 {
		return netip.AddrPort{}, errors.New("not a listening TCP socket")
	}
	return localAddr(fd)
}

// ListeningOn is the local address of fd if that is a listening TCP socket,
// else an error. It changes nothing.
func ListeningOn(fd int) (netip.AddrPort, error) { return listening(fd) }

func localAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("getsockname: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, errors.New("not an internet socket")
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

func newListener(fd int, e endpoint) (*Listener, error) {
	got, err := localAddr(fd)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e, err)
	}
	return &Listener{name: e.String(), addr: got, fd: fd}, nil
}

// Name is the canonical address the listener was asked for; with port 0 it
// keeps the 0. It is what the heritage calls it.
func (l *Listener) Name() string { return l.name }

// ID is ListenerID(Name()).
func (l *Listener) ID() uint32 { return ListenerID(l.name) }

// Addr is the address the kernel has given, with the real port.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// FD is the socket; it stays the Listener's.
func (l *Listener) FD() int { return l.fd }

// File is a duplicate of the socket, for os/exec; the caller closes it. It
// shares O_NONBLOCK with every other duplicate, which nobody may clear.
func (l *Listener) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate listener %s: %w", l.name, err)
	}
	return os.NewFile(uintptr(fd), "listener:"+l.name), nil
}

// Accept takes the oldest connection out of the kernel's queue, non-blocking
// and close-on-exec. ErrEmpty: none is waiting. A connection that its client
// has reset meanwhile is passed over. Other errors (no descriptors, no memory)
// leave the connection in the queue.
func (l *Listener) Accept() (fd int, err error) {
	for {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			return fd, nil
		case unix.EAGAIN:
			return -1, ErrEmpty
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO:
			continue
		}
		return -1, fmt.Errorf("accept on %s: %w", l.name, err)
	}
}

// Close closes this process's descriptor. It ends the listener only if nobody
// else holds it. An instance does so when it ends and at no other time.
func (l *Listener) Close() (err error) {
	l.closeOnce.Do(func() {
		if err = unix.Close(l.fd); err != nil {
			err = fmt.Errorf("close listener %s: %w", l.name, err)
		}
	})
	return err
}

// DeferAccept keeps a connection from Accept until its first bytes are there, which spares its
// server one of two wake-ups. It is for protocols in which the client speaks first. seconds counts in
// repetitions of the SYN-ACK (TCP_DEFER_ACCEPT, tcp(7)): a client that says nothing is let in when it has answered
// the last of them, after about that time. 0 switches it off.
func (l *Listener) DeferAccept(seconds int) error {
	if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds); err != nil {
		return fmt.Errorf("defer accept on %s: %w", l.name, err)
	}
	return nil
}

// Backlog is the filling of a listener's queue in the kernel.
type Backlog struct {
	Queued int // connections with the handshake done, not yet accepted
	Max    int // the backlog in force; the kernel lets in one more than this
}

// Backlog asks the kernel. For a listening socket tcp_get_info
// (net/ipv4/tcp.c) reports sk_ack_backlog as tcpi_unacked and
// sk_max_ack_backlog as tcpi_sacked.
func (l *Listener) Backlog() (Backlog, error) {
	ti, err := unix.GetsockoptTCPInfo(l.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Backlog{}, fmt.Errorf("backlog of %s: %w", l.name, err)
	}
	return Backlog{Queued: int(ti.Unacked), Max: int(ti.Sacked)}, nil
}

// NearlyFull reports that three quarters of the backlog are used. Beyond its
// end the kernel drops handshakes, and clients wait a second for their next try.
func (b Backlog) NearlyFull() bool { return b.Queued > 0 && b.Queued*4 >= b.Max*3 }

// Fuller returns the fuller of two, by the part used.
func (b Backlog) Fuller(o Backlog) Backlog {
	if b.Max == 0 || o.Queued*b.Max > b.Queued*o.Max {
		return o
	}
	return b
}
