package queue

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eventually waits for a condition that only the kernel can tell.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func mustBind(t *testing.T, addr string, backlog int) *Listener {
	t.Helper()
	l, err := Bind(addr, backlog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustFIFO(t *testing.T, limit int) *FIFO {
	t.Helper()
	f, err := NewFIFO(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// dial connects and waits until the connection is in the kernel's queue.
func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	before, err := l.Backlog()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	eventually(t, "connection queued", func() bool {
		b, err := l.Backlog()
		return err == nil && b.Queued > before.Queued
	})
	return c
}

func mustAccept(t *testing.T, l *Listener) int {
	t.Helper()
	fd := -1
	eventually(t, "accept", func() bool {
		var err error
		fd, err = l.Accept()
		return err == nil
	})
	return fd
}

// openFDs lists what this process has open, to prove that nothing leaked.
func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// writeByte writes one byte to fd, so that the client can tell which it is.
func writeByte(t *testing.T, fd int, b byte) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{b}); err != nil {
		t.Fatal(err)
	}
}

func readByte(t *testing.T, c net.Conn) byte {
	t.Helper()
	var b [1]byte
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return b[0]
}
