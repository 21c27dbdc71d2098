package sock

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConnectAcceptAndTalk(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			f, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			lfd := int(f.Fd())
			if err := unix.SetNonblock(lfd, true); err != nil {
				t.Fatal(err)
			}
			if _, _, errno := Accept(lfd); errno != Again {
				t.Errorf("nobody has come: got %v, want Again", errno)
			}
			client, err := Connect(netip.MustParseAddrPort(ln.Addr().String()))
			if err != nil {
				t.Fatal(err)
			}
			defer Close(client)
			await(t, client, unix.POLLOUT)
			if err := SocketError(client); err != nil {
				t.Fatal(err)
			}
			await(t, lfd, unix.POLLIN)
			server, peer, errno := Accept(lfd)
			if errno != 0 {
				t.Fatal(errno)
			}
			defer Close(server)
			if peer != Peer(server) || peer.Addr() != netip.MustParseAddr(host) || peer.Port() == 0 {
				t.Errorf("the peer is %v by Accept and %v by Peer", peer, Peer(server))
			}
			if Peer(client) != netip.MustParseAddrPort(ln.Addr().String()) {
				t.Errorf("the server is %v", Peer(client))
			}
			talk(t, client, server)
		})
	}
}

func talk(t *testing.T, client, server int) {
	t.Helper()
	buf := make([]byte, 16)
	if _, errno := Recv(server, buf); errno != Again {
		t.Errorf("nothing was sent: got %v, want Again", errno)
	}
	if n, errno := Send(client, []byte("hello")); n != 5 || errno != 0 {
		t.Fatal(n, errno)
	}
	await(t, server, unix.POLLIN)
	if n, errno := Recv(server, buf); errno != 0 || string(buf[:n]) != "hello" {
		t.Fatalf("got %q, %v", buf[:n], errno)
	}
	ShutdownWrite(client)
	await(t, server, unix.POLLIN)
	if n, errno := Recv(server, buf); n != 0 || errno != 0 {
		t.Errorf("got %d, %v, want the end", n, errno)
	}
	ResetOnClose(server)
}

func TestRefusedConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	ln.Close()
	fd, err := Connect(addr)
	if err != nil {
		return // told at once
	}
	defer Close(fd)
	await(t, fd, unix.POLLOUT)
	if err := SocketError(fd); err != unix.ECONNREFUSED {
		t.Errorf("got %v", err)
	}
	if Peer(fd).IsValid() {
		t.Errorf("it has the peer %v", Peer(fd))
	}
}

func await(t *testing.T, fd int, events int16) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for deadline := time.Now().Add(20 * time.Second); ; {
		n, err := unix.Poll(p, 1000)
		if n == 1 {
			return
		}
		if err != nil && err != unix.EINTR || time.Now().After(deadline) {
			t.Fatalf("poll: %d, %v", n, err)
		}
	}
}

// A sender has as much on its way as its receiver's window allows, and little when that is limited, however large it had grown.
func TestAWindowIsLimitedAndFreedAgain(t *testing.T) {
	const little, between = 64 << 10, 96 << 10
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from, err := Connect(netip.MustParseAddrPort(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer Close(from)
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	await(t, int(f.Fd()), unix.POLLIN)
	to, _, errno := Accept(int(f.Fd()))
	if errno != 0 {
		t.Fatal(errno)
	}
	defer Close(to)
	buf := make([]byte, 1<<20)
	// window streams some megabytes, more than any window, and returns what the sender may have on its way when all is taken.
	window := func() int {
		for sent, taken := 0, 0; taken < 16<<20 || taken < sent || onItsWay(t, from) > 0; {
			for errno := unix.Errno(0); errno == 0 && sent < 16<<20; {
				var n int
				if n, errno = Send(from, buf); errno == 0 {
					sent += n
				} else if errno != Again {
					t.Fatal(errno)
				}
			}
			if taken < sent {
				await(t, to, unix.POLLIN)
			}
			n, errno := Recv(to, buf)
			if errno != 0 && errno != Again {
				t.Fatal(errno)
			}
			taken += max(n, 0)
		}
		info, err := unix.GetsockoptTCPInfo(from, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Snd_wnd)
	}
	grows := func() int { // the kernel takes its time with that, and measures by its own clock
		w := 0
		for deadline := time.Now().Add(20 * time.Second); w <= between && time.Now().Before(deadline); {
			w = window()
		}
		return w
	}
	wide := grows()
	LimitWindow(to, little)
	narrow := window()
	FreeWindow(to)
	again := grows()
	if narrow > between || wide <= between || again <= between {
		t.Errorf("a window of %d bytes, with a limit of %d %d, and %d when it is taken away", wide, little, narrow, again)
	}
}

// onItsWay returns how much of what was sent is not acknowledged yet.
func onItsWay(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
