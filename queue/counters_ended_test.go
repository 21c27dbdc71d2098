package queue

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Both sides have ended, and the kernel is done with the connection: what was sent last still waits
// to be read, and its place in the stream is known to the byte. As in a tunnel that a server left behind in that instant.
func TestAConnectionThatEndedInOrderIsStillCounted(t *testing.T) {
	for _, weFirst := range []bool{true, false} {
		for _, side := range []Side{Active, Passive} {
			t.Run(fmt.Sprintf("we first %v, side %d", weFirst, side), func(t *testing.T) {
				us, peer := mustPair(t)
				if side == Passive {
					us, peer = peer, us
				}
				send := func(e *tcpEnd, n int) {
					if _, err := unix.Write(e.fd, make([]byte, n)); err != nil {
						t.Fatal(err)
					}
				}
				send(us, 300)
				send(peer, 5000)
				if n, err := unix.Read(us.fd, make([]byte, 1844)); n != 1844 || err != nil {
					t.Fatalf("read %d, %v", n, err)
				}
				first, second := us, peer
				if !weFirst {
					first, second = peer, us
				}
				if err := unix.Shutdown(first.fd, unix.SHUT_WR); err != nil {
					t.Fatal(err)
				}
				if n, err := unix.Read(peer.fd, make([]byte, 4096)); n != 300 || err != nil {
					t.Fatalf("read %d, %v", n, err)
				}
				if err := unix.Shutdown(second.fd, unix.SHUT_WR); err != nil {
					t.Fatal(err)
				}
				reach(t, us, TCPClose)
				p, err := ReadProgress(us.fd, side)
				if err != nil || p.Written != 300 || p.Consumed != 1844 || p.Unread != 5000-1844 {
					t.Errorf("%+v, %v", p, err)
				}
			})
		}
	}
}
