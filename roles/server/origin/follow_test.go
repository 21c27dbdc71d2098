package origin

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"trafficd/roles/server/resolve"
)

// names is a name server of one name, whose answers hold for an instant only.
type names struct {
	mu    sync.Mutex // guards what follows
	addrs []netip.Addr
	err   error
	gate  chan struct{} // look-ups wait until it is closed; nil: they do not
	asked int
}

// move has the name lead to addr.
func (n *names) move(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.err = []netip.Addr{netip.MustParseAddr(addr)}, nil
}

// fail has look-ups fail.
func (n *names) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

// hang has look-ups wait for the gate that it returns.
func (n *names) hang() (gate chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gate = make(chan struct{})
	return n.gate
}

func (n *names) lookups() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *names) lookup(context.Context, string) (resolve.Answer, error) {
	n.mu.Lock()
	n.asked++
	gate := n.gate
	n.mu.Unlock()
	if gate != nil {
		<-gate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return resolve.Answer{Addrs: n.addrs}, n.err
}

// follows gives the rig a name server that has the rig's name lead to 127.0.0.1.
func (r *rig) follows() *names {
	n := &names{}
	n.move("127.0.0.1")
	r.on(func() {
		r.pool.resolver = resolve.New(resolve.Limits{Min: time.Millisecond, Max: time.Millisecond}, n.lookup)
	})
	return n
}

// ask makes requests, one after the other, until one is answered with want; and none may fail.
func (r *rig) ask(port uint16, want string) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		q := r.get("h.test:" + strconv.Itoa(int(port))).start().wait()
		if q.failure != nil {
			r.t.Fatalf("a request failed: %+v", q.failure)
		}
		if string(q.body) == want {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("still answered by %q, not by %q", q.body, want)
		}
	}
}

// open, of so many connections, is waited for.
func (r *rig) wantOpen(n int) {
	r.t.Helper()
	r.until("the connections that lead elsewhere to be closed", func() bool { return r.opened-r.closed == n })
}

// twoPlaces are two origins on one port of different addresses; each answers with its name.
func twoPlaces(t *testing.T) (port uint16) {
	t.Helper()
	one := serve(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"))
	two := answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo")
	serveAt(t, "127.0.0.2:"+strconv.Itoa(int(portOf(one))), two, two)
	return portOf(one)
}

// A name that moves is followed although a connection to the old place is kept and used all the time.
func TestKeptConnectionsFollowTheirName(t *testing.T) {
	r := newRig(t, nil)
	n := r.follows()
	port := twoPlaces(t)
	r.ask(port, "one")
	n.move("127.0.0.2")
	r.ask(port, "two")
	r.wantOpen(1)
	r.on(func() {
		if r.opened != 2 {
			t.Errorf("%d connections were opened, want one to each place", r.opened)
		}
	})
}

// A name server that does not answer, or fails, costs no request an instant, and no connection.
func TestKeptConnectionsOutliveTheirNameServer(t *testing.T) {
	r := newRig(t, nil)
	n := r.follows()
	port := twoPlaces(t)
	r.ask(port, "one")
	gate, before := n.hang(), n.lookups()
	for n.lookups() == before {
		r.ask(port, "one")
	}
	r.ask(port, "one")
	n.fail(errors.New("no name server answers"))
	close(gate)
	for range 5 {
		r.ask(port, "one")
	}
	r.on(func() {
		if r.opened != 1 {
			t.Errorf("%d connections were opened, want 1", r.opened)
		}
	})
}

// A connection that is in use when its name moves is closed when it would be put back; so is one that is idle.
func TestAConnectionThatComesBackToANameThatHasMoved(t *testing.T) {
	r := newRig(t, nil)
	n := r.follows()
	gate := make(chan struct{})
	first := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
		<-gate
		p.say("old")
		p.stay()
	}, answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")) // for who asks before the move is known
	port := portOf(first)
	serveAt(t, "127.0.0.2:"+strconv.Itoa(int(port)), answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"))
	long := r.get("h.test:" + strconv.Itoa(int(port))).start()
	<-long.headed
	n.move("127.0.0.2")
	r.ask(port, "two")
	close(gate)
	if long.wait(); string(long.body) != "old" {
		t.Errorf("got %q, %+v", long.body, long.failure)
	}
	r.wantOpen(1)
	r.ask(port, "two")
}

// A name that there is no more leads nowhere.
func TestANameThatIsTakenAway(t *testing.T) {
	r := newRig(t, nil)
	n := r.follows()
	port := twoPlaces(t)
	r.ask(port, "one")
	n.fail(&resolve.NotFoundError{Host: "h.test"})
	for {
		q := r.get("h.test:" + strconv.Itoa(int(port))).start().wait()
		if q.failure != nil && errors.Is(q.failure.Err, resolve.ErrUnresolved) {
			break
		}
		if q.failure != nil {
			t.Fatalf("got %+v", q.failure)
		}
	}
	r.wantOpen(0)
}

// To take a connection out of the pool and to put it back allocates nothing, and asks nobody while the answer holds;
// of an address never.
func TestReuseCostsNothing(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "h.test"} {
		t.Run(host, func(t *testing.T) {
			r := newRig(t, nil)
			n := r.follows()
			r.on(func() { r.pool.resolver.SetLimits(resolve.Limits{Min: time.Hour, Max: time.Hour}) })
			q := r.get(host + ":" + strconv.Itoa(int(twoPlaces(t)))).start().wait()
			r.on(func() {
				if allocs := testing.AllocsPerRun(1000, func() {
					c := r.pool.take(q.Server, false)
					if c == nil || !r.pool.room(c) {
						t.Error("the connection is not kept")
						return
					}
					r.pool.put(c)
				}); allocs != 0 {
					t.Errorf("%v allocations", allocs)
				}
			})
			if asked := n.lookups(); asked > 1 || host != "h.test" && asked != 0 {
				t.Errorf("%d look-ups", asked)
			}
		})
	}
}
