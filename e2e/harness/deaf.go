package harness

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Deaf is an address on which connections are neither made nor refused: the queue of its listener is full, so that the
// kernel drops what else comes, as a firewall would.
type Deaf struct{ port int }

// NewDeaf makes one; it ends with the story.
func NewDeaf(t testing.TB) *Deaf {
	t.Helper()
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	l := open()
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 0); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := unix.Connect(open(), at); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return &Deaf{at.(*unix.SockaddrInet4).Port}
}

// Addr is the address and port.
func (d *Deaf) Addr() string { return fmt.Sprintf("127.0.0.1:%d", d.port) }
