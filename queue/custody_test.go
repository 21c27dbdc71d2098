package queue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A relay is a service that is killed again and again: what outlives the
// servers is held here, by the test, as cop would.
type relay struct {
	t        *testing.T
	listener *Listener
	tally    *tally
	files    []*os.File
	journal  int

	mu   sync.Mutex
	next chan struct{} // closed at the next kill
	calm bool          // nobody is killed any more

	waiting [3]atomic.Int64 // clients that do nothing before the next kill, by what they left

	server  *child
	suicide bool // the last server had died before it was killed
	kills   atomic.Int64
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	fd, err := NewJournal(Geometry{Loops: 1, Slots: 1024, Pool: poolBytes})
	if err != nil {
		t.Fatal(err)
	}
	journal := os.NewFile(uintptr(fd), "journal")
	t.Cleanup(func() { journal.Close() })
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	l := mustBind(t, "127.0.0.1:0", 128)
	listener, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	shared, mem := memory(t, int(unsafe.Sizeof(tally{})))
	r := &relay{
		t: t, listener: l, tally: (*tally)(unsafe.Pointer(&mem[0])), journal: fd,
		files: []*os.File{in, out, journal, listener, shared}, next: make(chan struct{}),
	}
	t.Cleanup(r.end)
	return r
}

func (r *relay) start(env ...string) {
	r.server = startRole(r.t, "server", nil, r.files, env...)
}

// untilDeath waits at most limit for the server's own death, then kills it.
func (r *relay) untilDeath(limit time.Duration) {
	n, err := pollFor([]unix.PollFd{{Fd: int32(r.server.pidfd), Events: unix.POLLIN}}, limit, limit == 0)
	if err != nil {
		r.t.Error(err)
	}
	r.server.kill()
	r.suicide = n > 0
	r.kills.Add(1)
	for i := range r.tally.now {
		r.tally.now[i].Store(0)
	}
	r.mu.Lock()
	close(r.next)
	r.next = make(chan struct{})
	r.mu.Unlock()
}

// nextKill is closed when the server is killed next, or never will be again.
func (r *relay) nextKill() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// peace ends the killing: nobody waits for a kill from now on.
func (r *relay) peace() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm = true
	close(r.next)
}

// settled are the conditions that a client can leave a connection in, until the
// next kill.
var settled = [3]condition{idle, half, partly}

// untilSettled returns when a death right now leaves connections in each of the
// settled conditions: their clients wait for it.
func (r *relay) untilSettled() {
	eventually(r.t, "connections in every settled condition", func() bool {
		for i, c := range settled {
			if r.waiting[i].Load() == 0 || r.tally.now[c].Load() == 0 {
				return false
			}
		}
		return true
	})
}

// end takes the last server and the keepers away. A keeper may still wait for
// somebody to receive; without a receiving end it gives up.
func (r *relay) end() {
	if r.server != nil {
		r.server.kill()
	}
	j, err := OpenJournal(r.journal)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer j.Close()
	for _, s := range j.Outstanding() {
		endKeeper(r.t, s)
	}
	reapOrphans()
}

// The clients. Each returns an error for whatever it was not promised: a
// connection refused, reset, closed, a byte too many, too few, or wrong.
type client struct {
	relay *relay
	rng   *rand.Rand
	stop  *atomic.Bool
	asked *atomic.Int64
	conn  net.Conn
	n     uint32
	due   []due
}

type due struct {
	n    uint32
	body int
}

const patience = 60 * time.Second

func (c *client) dial() error {
	conn, err := net.Dial("tcp", c.relay.listener.Addr().String())
	if err != nil {
		return err
	}
	c.conn = conn
	// The rest of a download must not fit into the buffers of the kernel.
	if err := conn.(*net.TCPConn).SetReadBuffer(1 << 16); err != nil {
		return err
	}
	return conn.SetDeadline(time.Now().Add(patience))
}

func (c *client) ask(body, answer int, flags uint32) []byte {
	c.n++
	c.due = append(c.due, due{c.n, answer})
	c.asked.Add(1)
	return appendAsk(nil, c.n, body, answer, flags)
}

func (c *client) send(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// readAll reads the answers that are due. midway is called when half of a body
// is read.
func (c *client) readAll(midway func()) error {
	for len(c.due) > 0 {
		want := c.due[0]
		c.due = c.due[1:]
		if err := c.readOne(want, midway); err != nil {
			return fmt.Errorf("answer to %d: %w", want.n, err)
		}
	}
	return nil
}

func (c *client) readOne(want due, midway func()) error {
	head := make([]byte, tellLen)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(head[4*i:]) }
	if word(0) != tellMagic || word(1) != want.n || int(word(2)) != want.body || word(4) > 700 {
		return fmt.Errorf("head % x", head)
	}
	padding := make([]byte, word(4))
	if _, err := io.ReadFull(c.conn, padding); err != nil {
		return fmt.Errorf("padding: %w", err)
	}
	for i, b := range padding {
		if b != byte(word(3)+uint32(i)) {
			return fmt.Errorf("byte %d of the padding is of another process", i)
		}
	}
	buf := make([]byte, 1<<14)
	for at := 0; at < want.body; {
		n, err := c.conn.Read(buf[:min(len(buf), want.body-at)])
		if err != nil {
			return fmt.Errorf("byte %d of %d of the body: %w", at, want.body, err)
		}
		if !bytes.Equal(buf[:n], bodyPart(want.n, at, n)) {
			return fmt.Errorf("body is wrong between bytes %d and %d", at, at+n)
		}
		if midway != nil && at < want.body/2 && at+n >= want.body/2 {
			midway()
		}
		at += n
	}
	return nil
}

// waitKill lets a kill happen right now, with the connection as it is.
func (c *client) waitKill(left condition) {
	next := c.relay.nextKill()
	waiting := &c.relay.waiting[slices.Index(settled[:], left)]
	waiting.Add(1)
	<-next
	waiting.Add(-1)
	_ = c.conn.SetDeadline(time.Now().Add(patience))
}

// hangUp closes, and makes sure that the server had nothing more to say.
func (c *client) hangUp() error {
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return c.expectEnd()
}

func (c *client) expectEnd() error {
	defer c.conn.Close()
	rest, err := io.ReadAll(c.conn)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("end of connection: %d bytes too many, %w", len(rest), err)
	}
	return nil
}

// clientKinds: each does one exchange on c.conn, which is open.
var clientKinds = []struct {
	name string
	do   func(c *client) error
	once bool // a new connection each time
}{
	{"keep-alive", func(c *client) error {
		if err := c.send(c.ask(c.rng.IntN(50), c.rng.IntN(3000), 0)); err != nil {
			return err
		}
		return c.readAll(nil)
	}, false},
	{"pipelining", func(c *client) error {
		var all []byte
		for range 1 + c.rng.IntN(20) {
			all = append(all, c.ask(c.rng.IntN(1500), c.rng.IntN(9000), 0)...)
		}
		if err := c.send(all); err != nil {
			return err
		}
		return c.readAll(nil)
	}, false},
	{"download over a kill", func(c *client) error {
		if err := c.send(c.ask(0, 16<<20+c.rng.IntN(1<<20), 0)); err != nil {
			return err
		}
		return c.readAll(func() { c.waitKill(partly) })
	}, false},
	{"request over a kill", func(c *client) error {
		all := c.ask(c.rng.IntN(9000), 100, 0)
		cut := 1 + c.rng.IntN(len(all)-1)
		if err := c.send(all[:cut]); err != nil {
			return err
		}
		c.waitKill(half)
		if err := c.send(all[cut:]); err != nil {
			return err
		}
		return c.readAll(nil)
	}, false},
	{"byte by byte", func(c *client) error {
		all := c.ask(c.rng.IntN(100), 500, 0)
		for len(all) > 0 {
			n := min(1+c.rng.IntN(8), len(all))
			if err := c.send(all[:n]); err != nil {
				return err
			}
			all = all[n:]
		}
		return c.readAll(nil)
	}, false},
	{"upload", func(c *client) error {
		if err := c.send(c.ask(5000+c.rng.IntN(50_000), 10, 0)); err != nil {
			return err
		}
		return c.readAll(nil)
	}, false},
	{"idle over a kill", func(c *client) error {
		c.waitKill(idle)
		if err := c.send(c.ask(0, 1, 0)); err != nil {
			return err
		}
		return c.readAll(nil)
	}, false},
	{"server closes", func(c *client) error {
		if err := c.send(c.ask(10, c.rng.IntN(100_000), flagClose)); err != nil {
			return err
		}
		if err := c.readAll(nil); err != nil {
			return err
		}
		return c.expectEnd()
	}, true},
	{"client closes", func(c *client) error {
		if err := c.send(c.ask(10, c.rng.IntN(1000), 0)); err != nil {
			return err
		}
		if err := c.readAll(nil); err != nil {
			return err
		}
		return c.hangUp()
	}, true},
}

// run is one client until stop.
func (c *client) run(kind int) error {
	k := clientKinds[kind]
	for !c.stop.Load() {
		if c.conn == nil || k.once {
			if err := c.dial(); err != nil {
				return fmt.Errorf("%s: dial: %w", k.name, err)
			}
		}
		if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if err := k.do(c); err != nil {
			c.conn.Close()
			return fmt.Errorf("%s from %s: %w", k.name, c.conn.LocalAddr(), err)
		}
	}
	if !k.once && c.conn != nil {
		return c.hangUp()
	}
	return nil
}

// crowd runs two clients of each kind while kill does its worst, and then lets
// them end in peace.
func crowd(t *testing.T, r *relay, kill func()) (asked int64) {
	t.Helper()
	var stop atomic.Bool
	var count atomic.Int64
	var all sync.WaitGroup
	const each = 2
	for i := range each * len(clientKinds) {
		c := &client{relay: r, rng: rand.New(rand.NewPCG(uint64(i), 42)), stop: &stop, asked: &count, n: uint32(i) << 20}
		all.Go(func() {
			if err := c.run(i % len(clientKinds)); err != nil {
				t.Errorf("client failed after %d kills: %v", r.kills.Load(), err)
			}
		})
	}
	// Also when kill has failed: the clients must not outlive the test.
	defer func() {
		stop.Store(true)
		r.start()
		r.peace()
		all.Wait()
		asked = count.Load()
	}()
	kill()
	return 0
}

// report says what was adopted, and holds what must be nil to it.
func (r *relay) report(asked int64) {
	t := r.t
	t.Helper()
	var b strings.Builder
	for c := range conditions {
		fmt.Fprintf(&b, "%v %d, ", c, r.tally.adopted[c].Load())
	}
	t.Logf("%d kills, %d requests, none failed unless said so; adopted: %svanished %d, twice %d",
		r.kills.Load(), asked, b.String(), r.tally.vanished.Load(), r.tally.duplicates.Load())
	if n := r.tally.adopted[broken].Load(); n > 0 {
		t.Errorf("%d connections of which the journal is wrong", n)
	}
	if n := r.tally.vanished.Load(); n > 0 {
		t.Errorf("%d slots without a socket", n)
	}
	if n := r.tally.badAsks.Load(); n > 0 {
		t.Errorf("%d requests arrived wrong", n)
	}
	j := reopen(t, r.journal)
	eventually(t, "slots and places given back", func() bool {
		return j.Ledger(0).InUse() == 0 && r.tally.taken.Load() == 0
	})
}

// mustHaveMet fails for each condition that no connection was adopted in.
func (r *relay) mustHaveMet(wanted ...condition) {
	r.t.Helper()
	for _, c := range wanted {
		if r.tally.adopted[c].Load() == 0 {
			r.t.Errorf("no connection was adopted as %v", c)
		}
	}
}

// TestKilledAtRandom kills a server again and again: while it serves, while it
// adopts, before it has done either. The same TCP connections go on through all
// of it, and every byte of them is checked.
func TestKilledAtRandom(t *testing.T) {
	r := newRelay(t)
	rng := rand.New(rand.NewPCG(7, 7))
	asked := crowd(t, r, func() {
		for i := range 48 {
			r.start()
			switch i % 6 {
			case 5: // before it serves, perhaps
				r.untilDeath(time.Duration(rng.IntN(12_000)) * time.Microsecond)
				continue
			case 2: // with connections in conditions that are known
				r.untilSettled()
			default:
				enough := r.tally.served.Load() + int64(rng.IntN(200))
				r.untilServed(enough)
			}
			r.untilDeath(time.Duration(rng.IntN(2_000)) * time.Microsecond)
		}
	})
	r.report(asked)
	r.mustHaveMet(settled[:]...)
}

// untilServed returns when so many requests are served, or the server has died.
// Clients that wait for a kill ask for nothing; the others always go on.
func (r *relay) untilServed(enough int64) {
	eventually(r.t, "requests served", func() bool { return r.tally.served.Load() > enough || r.server.gone() })
}
