package origin

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
)

// deaf takes an address and port on which connections are neither made nor refused: its queue is full, so the kernel
// drops what else comes.
func deaf(t *testing.T, addr [4]byte, port uint16) {
	t.Helper()
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	at := &unix.SockaddrInet4{Addr: addr, Port: int(port)}
	l := open()
	// The port may have connections of an earlier test in TIME-WAIT.
	if err := errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(l, at)); err != nil {
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
}

// named makes a GET to a server whose name has these addresses.
func (r *rig) named(port uint16, addrs ...string) *request {
	q := r.get("127.0.0.1:1")
	q.Origin = &remap.Origin{Name: "http://h", Host: "h", Port: port}
	q.Server, _ = r.parents.Of(q.Origin).Pick(0, 0, 0)
	r.names["h"] = nil
	for _, a := range addrs {
		r.names["h"] = append(r.names["h"], netip.MustParseAddr(a))
	}
	return q
}

func portOf(addr string) uint16 {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		panic(err)
	}
	return a.Port()
}

// An address that does not answer is not waited for: the next one is tried beside it.
func TestTheNextAddressIsTriedBesideASlowOne(t *testing.T) {
	r := newRig(t, nil)
	port := portOf(serve(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
	deaf(t, [4]byte{127, 0, 0, 2}, port)
	if q := r.named(port, "127.0.0.2", "127.0.0.1").start().wait(); string(q.body) != "ok" {
		t.Fatalf("got %q, %+v", q.body, q.failure)
	}
	r.on(func() {
		if r.opened != 2 || r.closed != 1 {
			t.Errorf("%d connections opened and %d closed, want 2 and 1", r.opened, r.closed)
		}
	})
}

// An address that refuses is tried last from then on.
func TestAnAddressThatRefusesIsAvoided(t *testing.T) {
	r := newRig(t, nil)
	ok := answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	port := portOf(serve(t, ok, ok, ok))
	for i, want := range []int{2, 3, 4} {
		if q := r.named(port, "127.0.0.2", "127.0.0.1").start().wait(); string(q.body) != "ok" {
			t.Fatalf("got %q, %+v", q.body, q.failure)
		}
		r.on(func() {
			if r.opened != want {
				t.Errorf("after request %d: %d connections opened, want %d", i+1, r.opened, want)
			}
		})
	}
}

// An exchange that is cancelled while connections are being made leaves none behind.
func TestCancelWhileConnecting(t *testing.T) {
	r := newRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(l.Addr().String())
	l.Close()
	deaf(t, [4]byte{127, 0, 0, 2}, port)
	deaf(t, [4]byte{127, 0, 0, 3}, port)
	q := r.named(port, "127.0.0.2", "127.0.0.3").start()
	r.until("the second connection", func() bool { return r.opened == 2 })
	r.on(q.Cancel)
	r.until("both to be closed", func() bool { return r.closed == 2 })
}

// Who waits for room is served in turn by the connections of the others, and told when it has waited too long.
func TestWaitingForRoom(t *testing.T) {
	r := newRig(t, func(l *Limits) { l.Wait = 50 * time.Millisecond })
	r.parents.Configure(parent.Settings{MaxConnections: 1, MaxWaiting: 1}, nil)
	gate := make(chan struct{})
	addr := serve(t, func(p *peer) {
		for i := 0; ; i++ {
			if _, ok := p.request(); !ok {
				return
			}
			if i == 0 {
				<-gate
			}
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	first := r.get(addr).start()
	late, full := r.get(addr), r.get(addr)
	r.on(func() { // in one turn, so that the one waits when the other comes
		r.pool.Start(&late.Exchange)
		r.pool.Start(&full.Exchange)
	})
	for _, q := range []*request{full.wait(), late.wait()} {
		if q.failure == nil || q.failure.Err != ErrBusy || q.failure.Connected {
			t.Errorf("got %+v", q.failure)
		}
	}
	r.on(func() { r.pool.limits.Wait = long })
	next := r.get(addr).start()
	close(gate)
	for _, q := range []*request{first.wait(), next.wait()} {
		if string(q.body) != "ok" {
			t.Errorf("got %q, %+v", q.body, q.failure)
		}
	}
	r.on(func() {
		if r.opened != 1 || r.busy != 2 {
			t.Errorf("%d connections opened and %d turned away, want 1 and 2", r.opened, r.busy)
		}
	})
}

// An exchange is let in at one server's door, and is with another server when it is told: the place it got is not the other's.
func TestAPlaceThatIsNotWantedAnyMore(t *testing.T) {
	r := newRig(t, nil)
	r.parents.Configure(parent.Settings{MaxConnections: 1, MaxWaiting: 1}, nil)
	q, other := r.get("127.0.0.1:1"), r.get("127.0.0.1:2").Server
	mine := q.Server
	r.on(func() {
		mine.Door.Enter(nil)
		r.pool.Start(&q.Exchange)
		mine.Door.Leave()
		q.Cancel()
		q.Server = other
	})
	r.on(func() {}) // behind what was posted
	for _, s := range r.parents.Reports() {
		if s.Connections != 0 {
			t.Errorf("%s has %d connections", s.Server, s.Connections)
		}
	}
}

// An answer that comes steadily may still take too long in all; the time for which the client is slow does not count.
func TestTheLimitForAllOfAnAnswer(t *testing.T) {
	r := newRig(t, func(l *Limits) { l.Total = 100 * time.Millisecond })
	q := r.get(serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
		for {
			if _, err := p.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // the origin's pace is the story
		}
	})).start().wait()
	if q.failure == nil || !q.failure.Timeout {
		t.Errorf("got %+v", q.failure)
	}
}
