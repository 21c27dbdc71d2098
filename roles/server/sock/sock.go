package sock

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Again is the error number of "nothing now": the caller waits for its event.
const Again = syscall.EAGAIN

// Recv receives into p. n is 0 with errno 0 at the end of the stream.
func Recv(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// Send sends p, or as much of it as the socket takes.
func Send(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// SendV sends the pieces in one call, or as many bytes of them as the socket
// takes. No piece may be empty; there may be at most IOVMax of them. last says
// that the caller ends the connection as soon as all is sent: the kernel then
// keeps the rest back for an instant and sends it together with the end, one
// segment instead of two.
func SendV(fd int, iov []unix.Iovec, last bool) (n int, errno syscall.Errno) {
	msg := unix.Msghdr{Iov: unsafe.SliceData(iov)}
	msg.SetIovlen(len(iov))
	flags := uintptr(unix.MSG_NOSIGNAL)
	if last {
		flags |= unix.MSG_MORE
	}
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_SENDMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&msg)), flags, 0, 0, 0)
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// IOVMax is the most pieces one SendV takes; the kernel's own limit is 1024.
const IOVMax = 64

// Piece makes the vector of one non-empty slice.
func Piece(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}

// Accept takes the oldest connection of a listening socket, non-blocking and
// close-on-exec, with the address of its other end. The address is the zero
// value for a family other than IPv4 and IPv6.
func Accept(fd int) (conn int, peer netip.AddrPort, errno syscall.Errno) {
	var sa unix.RawSockaddrInet6
	for {
		size := uint32(unsafe.Sizeof(sa))
		r, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd),
			uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e == 0 {
			return int(r), addrPort(&sa), 0
		}
		if e != syscall.EINTR {
			return -1, netip.AddrPort{}, e
		}
	}
}

// Peer returns the address of the other end of a connection; the zero value
// when it has none.
func Peer(fd int) netip.AddrPort { return nameOf(fd, syscall.SYS_GETPEERNAME) }

// Local returns the address of this end of a connection; the zero value when it has
// none.
func Local(fd int) netip.AddrPort { return nameOf(fd, syscall.SYS_GETSOCKNAME) }

func nameOf(fd int, call uintptr) netip.AddrPort {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := syscall.RawSyscall(call, uintptr(fd),
		uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}

func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), swap(sa4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), swap(sa.Port))
	}
	return netip.AddrPort{}
}

// swap turns a port from network byte order, on the little-endian machines
// that this package is for.
func swap(port uint16) uint16 { return port<<8 | port>>8 }

// Connect begins a TCP connection to addr and returns its descriptor,
// non-blocking, close-on-exec, with TCP_NODELAY set. The connection is made, or
// has failed (SocketError says how), when the descriptor becomes writable.
func Connect(addr netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket for %s: %w", addr, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // a slower connection is still a connection
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: as4(addr.Addr())}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return fd, nil
}

func as4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

// SocketError takes the pending error of a socket; nil when there is none.
func SocketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return syscall.Errno(n)
	}
	return nil
}

// Close closes a descriptor. It does not block: no socket lingers.
func Close(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
}

// ShutdownWrite tells the other end that nothing more will be sent.
func ShutdownWrite(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

// ResetOnClose makes the close of a TCP connection a reset.
func ResetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Unsent is how many bytes of what was sent the other end has not acknowledged (SIOCOUTQ, tcp(7)).
func Unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// LimitUnsent has the kernel take no more of us while n bytes wait in it that it could not send yet
// (TCP_NOTSENT_LOWAT, tcp(7)); 0: as many as it likes. What is on its way does not count, so it costs a
// client no speed, but us a turn for each half of n.
func LimitUnsent(fd, n int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
}

// Unread is how many bytes have come that were not received yet (SIOCINQ, tcp(7)).
func Unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// rcvbufLock is SOCK_RCVBUF_LOCK of <linux/socket.h>.
const rcvbufLock = 2

// LimitWindow has the other end send no more than n bytes that were not received yet (TCP_WINDOW_CLAMP, tcp(7)), once it has
// used up what it was allowed before. The buffer is locked as large as it is (SO_BUF_LOCK, Linux 5.14): as it grows
// the kernel would widen the window with it. To make it smaller would drop what is on its way.
func LimitWindow(fd, n int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, rcvbufLock)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, n)
}

// FreeWindow takes that back. A small buffer is made twice as large first: the kernel lets it grow only when more comes in a
// round trip than ever before, which is as much as it holds.
func FreeWindow(fd int) {
	const small = 256 << 10
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && n <= small {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, 1<<30) // the largest that TCP can say (RFC 7323 §2.3)
}

// KeepAlive has the kernel find out when the other end of a long-lived TCP
// connection is no more.
func KeepAlive(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
