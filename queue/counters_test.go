package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tcpEnd is one end of a connection, and what the application knows of it.
type tcpEnd struct {
	fd      int
	side    Side
	written uint64
	read    uint64
}

// tcpPair connects two sockets of this process: [0] active, [1] passive.
func tcpPair() (ends [2]*tcpEnd, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return ends, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return ends, err
	}
	at, err := unix.Getsockname(l)
	if err != nil {
		return ends, err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, err
	}
	if err := unix.Connect(c, at); err != nil {
		return ends, err
	}
	s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return ends, err
	}
	return [2]*tcpEnd{{fd: c, side: Active}, {fd: s, side: Passive}}, unix.SetNonblock(c, true)
}

func (e *tcpEnd) write(b []byte) error {
	n, err := unix.Write(e.fd, b)
	if err == unix.EAGAIN {
		return nil
	}
	e.written += uint64(max(n, 0))
	return err
}

func (e *tcpEnd) readSome(b []byte) error {
	n, err := unix.Read(e.fd, b)
	if err == unix.EAGAIN {
		return nil
	}
	e.read += uint64(max(n, 0))
	return err
}

// check compares what the kernel says with what the application knows.
func (e *tcpEnd) check() error {
	p, err := ReadProgress(e.fd, e.side)
	if err != nil {
		return err
	}
	if p.Written != e.written || p.Consumed != e.read {
		return fmt.Errorf("side %d, %v: written %d, consumed %d; the application wrote %d and read %d",
			e.side, p.State, p.Written, p.Consumed, e.written, e.read)
	}
	return nil
}

// obviousIsWrong tells whether the formula one would think of fails.
func (e *tcpEnd) obviousIsWrong() bool {
	ti, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && ti.Bytes_sent-ti.Bytes_retrans+uint64(ti.Notsent_bytes) != e.written
}

// A sampling is the outcome of exercise.
type sampling struct {
	samples, obviousWrong int
	moved                 uint64
	retransmitted         uint64
}

func (s sampling) String() string {
	return fmt.Sprintf("%d samples, 0 wrong (bytes_sent - bytes_retrans + notsent: %d wrong), %d bytes moved, %d retransmissions",
		s.samples, s.obviousWrong, s.moved, s.retransmitted)
}

// exercise writes and reads at both ends in random pieces, and asks the kernel
// after each, until so many bytes have moved.
func exercise(ends [2]*tcpEnd, until uint64, limit time.Duration) (s sampling, err error) {
	rng := rand.New(rand.NewPCG(1, uint64(until)))
	buf := make([]byte, 2<<10)
	for end := time.Now().Add(limit); s.moved < until && time.Now().Before(end); {
		for _, e := range ends {
			if rng.IntN(2) == 0 {
				err = e.write(buf[:1+rng.IntN(len(buf))])
			} else {
				err = e.readSome(buf[:1+rng.IntN(len(buf))])
			}
			if err != nil {
				return s, err
			}
		}
		for _, e := range ends {
			if err := e.check(); err != nil {
				return s, fmt.Errorf("sample %d: %w", s.samples, err)
			}
			if e.obviousIsWrong() {
				s.obviousWrong++
			}
			s.samples++
		}
		s.moved = ends[0].read + ends[1].read
	}
	for _, e := range ends {
		ti, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return s, err
		}
		s.retransmitted += uint64(ti.Total_retrans)
	}
	return s, nil
}

// dropIncoming loses each segment that arrives at fd with the probability
// given (1: all), by a classic BPF filter: needs neither privilege nor
// iptables, and works before the segment reaches TCP (tcp_filter in
// tcp_v4_rcv).
func dropIncoming(fd int, probability float64) error {
	const random = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
	threshold := uint32(probability * (1<<32 - 1))
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: threshold, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

func admitIncoming(t *testing.T, e *tcpEnd) {
	t.Helper()
	if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		t.Fatal(err)
	}
}

func mustPair(t *testing.T) (active, passive *tcpEnd) {
	t.Helper()
	ends, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0].fd); unix.Close(ends[1].fd) })
	return ends[0], ends[1]
}

func TestCountersAgreeWithTheApplication(t *testing.T) {
	for name, loss := range map[string]float64{"no loss": 0, "5 % lost": 0.05} {
		t.Run(name, func(t *testing.T) {
			a, p := mustPair(t)
			until := uint64(8 << 20)
			if loss > 0 && !filtersAllowed(t) {
				t.Log("this user may attach no filter: see the lossy network")
				return
			}
			if loss > 0 {
				until = 1 << 20
				for _, e := range []*tcpEnd{a, p} {
					if err := dropIncoming(e.fd, loss); err != nil {
						t.Fatal(err)
					}
				}
			}
			s, err := exercise([2]*tcpEnd{a, p}, until, 4*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(s)
			if loss > 0 && s.retransmitted == 0 {
				t.Error("nothing was lost")
			}
			if s.samples < 500 {
				t.Errorf("%d samples only", s.samples)
			}
		})
	}
}

// runLossy samples in a network namespace of its own, with an interface that
// drops. 3: where to report.
func runLossy() error {
	report := os.NewFile(3, "report")
	if err := loopbackUp(); err != nil {
		return err
	}
	tool, err := exec.LookPath("iptables")
	scenarios := [][]string{nil}
	if err == nil {
		scenarios = append(scenarios, []string{"INPUT"}, []string{"OUTPUT"}, []string{"INPUT", "OUTPUT"})
	}
	for _, chains := range scenarios {
		for _, chain := range chains {
			out, err := exec.Command(tool, "-w", "-A", chain, "-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP").CombinedOutput()
			if err != nil {
				// This kernel has no such match: the loss by filter is left.
				fmt.Fprintf(report, "iptables cannot drop here: %s\n", strings.ReplaceAll(string(out), "\n", " "))
				return nil
			}
		}
		err := sampleLossy(report, chains)
		for _, chain := range chains {
			_ = exec.Command(tool, "-w", "-F", chain).Run()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sampleLossy(report *os.File, chains []string) error {
	ends, err := tcpPair()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer unix.Close(ends[0].fd)
	defer unix.Close(ends[1].fd)
	until, limit := uint64(8<<20), 2*time.Second
	if len(chains) > 0 {
		until = 1 << 20
	}
	s, err := exercise(ends, until, limit)
	fmt.Fprintf(report, "drop in %v: %v\n", chains, s)
	// A transmission that fails at home is not counted as a retransmission, but
	// it is what makes the obvious formula wrong.
	if err == nil && len(chains) > 0 && s.retransmitted == 0 && s.obviousWrong == 0 {
		err = errors.New("nothing was lost")
	}
	return err
}

// loopbackUp brings the interface up, with the MTU of a real one.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, set := range []struct {
		req uint
		val uint32
	}{{unix.SIOCSIFMTU, 1500}, {unix.SIOCSIFFLAGS, unix.IFF_UP | unix.IFF_RUNNING}} {
		r, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if set.req == unix.SIOCSIFFLAGS {
			r.SetUint16(uint16(set.val))
		} else {
			r.SetUint32(set.val)
		}
		if err := unix.IoctlIfreq(s, set.req, r); err != nil {
			return fmt.Errorf("bring up lo: %w", err)
		}
	}
	return nil
}

// TestCountersInALossyNetwork drops segments on the way out as well: a failed
// local transmission is what the obvious formula counts wrongly.
func TestCountersInALossyNetwork(t *testing.T) {
	if !namespacesAllowed() {
		t.Log("no network namespace for this user: the loss by filter, above, is all")
		return
	}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUSER}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	if os.Getuid() == 0 {
		attr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	}
	r, w := pipe(t)
	c := startRole(t, "lossy", attr, []*os.File{w})
	w.Close()
	var text strings.Builder
	for b := make([]byte, 4096); ; {
		n, err := r.Read(b)
		text.Write(b[:max(n, 0)])
		if err != nil {
			break
		}
	}
	t.Logf("\n%s", text.String())
	if err := c.wait(); err != nil {
		t.Error(err)
	}
}

// namespacesAllowed tries one out: what forbids them (a sysctl, seccomp, a
// security module) cannot be asked.
func namespacesAllowed() bool {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	return cmd.Run() == nil
}

// TestEndsAreCounted goes through every state that a FIN leads to, seen from
// either side, with data before it and without.
func TestEndsAreCounted(t *testing.T) {
	for _, c := range []struct {
		want     TCPState
		deafness bool // a FIN alone stays unacknowledged only with a filter
		do       func(t *testing.T, us, peer *tcpEnd)
	}{
		{TCPEstablished, false, func(*testing.T, *tcpEnd, *tcpEnd) {}},
		{TCPFinWait1, false, func(t *testing.T, us, peer *tcpEnd) { stuff(t, us, peer); shutdown(t, us) }},
		{TCPFinWait1, true, func(t *testing.T, us, peer *tcpEnd) { deafen(t, peer); shutdown(t, us) }},
		{TCPFinWait2, false, func(t *testing.T, us, peer *tcpEnd) { shutdown(t, us) }},
		{TCPCloseWait, false, func(t *testing.T, us, peer *tcpEnd) { shutdown(t, peer) }},
		{TCPLastAck, false, func(t *testing.T, us, peer *tcpEnd) {
			stuff(t, us, peer)
			shutdown(t, peer)
			reach(t, us, TCPCloseWait)
			shutdown(t, us)
		}},
		{TCPLastAck, true, func(t *testing.T, us, peer *tcpEnd) {
			shutdown(t, peer)
			reach(t, us, TCPCloseWait)
			deafen(t, peer)
			shutdown(t, us)
		}},
		{TCPClosing, false, func(t *testing.T, us, peer *tcpEnd) {
			stuff(t, us, peer)
			shutdown(t, us)
			shutdown(t, peer) // its FIN arrives, ours waits for a window
		}},
		{TCPClosing, true, func(t *testing.T, us, peer *tcpEnd) {
			deafen(t, us)
			deafen(t, peer)
			shutdown(t, us)
			shutdown(t, peer)
			admitIncoming(t, us) // hears of the peer's FIN, sent again, but never of its own
		}},
	} {
		if c.deafness && !filtersAllowed(t) {
			t.Logf("%v without data: this user may attach no filter", c.want)
			continue
		}
		for _, data := range []int{0, 1, 3000} {
			for _, side := range []Side{Active, Passive} {
				t.Run(fmt.Sprintf("%v, side %d, %d bytes, %v", c.want, side, data, c.deafness), func(t *testing.T) {
					us, peer := mustPair(t)
					if side == Passive {
						us, peer = peer, us
					}
					for _, e := range []*tcpEnd{us, peer} {
						if err := e.write(make([]byte, data)); err != nil {
							t.Fatal(err)
						}
					}
					eventually(t, "data arrived", func() bool {
						n, err := unix.IoctlGetInt(us.fd, unix.SIOCINQ)
						return err == nil && n == data
					})
					c.do(t, us, peer)
					reach(t, us, c.want)
					// Unread, half read, read, and the end itself read.
					for _, n := range []int{0, data / 2, data, 1, 1} {
						if err := us.readSome(make([]byte, n)); err != nil {
							t.Fatal(err)
						}
						if err := us.check(); err != nil {
							t.Fatalf("with %d of %d read: %v", us.read, data, err)
						}
					}
				})
			}
		}
	}
}

func shutdown(t *testing.T, e *tcpEnd) {
	t.Helper()
	if err := unix.Shutdown(e.fd, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
}

func deafen(t *testing.T, e *tcpEnd) {
	t.Helper()
	if err := dropIncoming(e.fd, 1); err != nil {
		t.Fatal(err)
	}
}

// stuff writes until the peer's window is shut and our buffer full: a FIN
// behind that cannot leave.
func stuff(t *testing.T, us, peer *tcpEnd) {
	t.Helper()
	// A window that was offered before may still be filled, 64 KiB; the send
	// buffer holds several times that.
	for _, opt := range []struct{ fd, name, size int }{{us.fd, unix.SO_SNDBUF, 200 << 10}, {peer.fd, unix.SO_RCVBUF, 4096}} {
		if err := unix.SetsockoptInt(opt.fd, unix.SOL_SOCKET, opt.name, opt.size); err != nil {
			t.Fatal(err)
		}
	}
	for refused := 0; refused < 3; {
		before := us.written
		if err := us.write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if us.written == before {
			refused++
		}
	}
}

// filtersAllowed: some kernels refuse socket filters to the unprivileged.
func filtersAllowed(t *testing.T) bool {
	t.Helper()
	us, _ := mustPair(t)
	err := dropIncoming(us.fd, 0)
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return err == nil
}

func reach(t *testing.T, e *tcpEnd, want TCPState) {
	t.Helper()
	var got TCPState
	defer func() {
		if got != want {
			t.Logf("state %v, want %v", got, want)
		}
	}()
	eventually(t, "state "+want.String(), func() bool {
		ti, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		got = TCPState(ti.State)
		return err == nil && got == want
	})
}

func TestUnackedLeavesOutTheFIN(t *testing.T) {
	us, peer := mustPair(t)
	stuff(t, us, peer)
	before, err := ReadProgress(us.fd, Active)
	if err != nil || before.Unacked == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	shutdown(t, us)
	p, err := ReadProgress(us.fd, Active)
	if err != nil || p.Unacked > before.Unacked || p.Unacked == 0 || p.Written != us.written {
		t.Errorf("%+v, %v; want at most the %d bytes unacknowledged before, and %d written", p, err, before.Unacked, us.written)
	}
}

func TestAConnectionThatIsOverSaysSo(t *testing.T) {
	us, peer := mustPair(t)
	if err := unix.SetsockoptLinger(peer.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, peer.fd, unix.O_CLOEXEC); err != nil { // closes it: a reset
		t.Fatal(err)
	}
	reach(t, us, TCPClose)
	if _, err := ReadProgress(us.fd, Active); !errors.Is(err, ErrConnectionOver) {
		t.Errorf("after a reset: %v", err)
	}
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fresh)
	if _, err := ReadEnded(us.fd, Active); !errors.Is(err, ErrConnectionOver) {
		t.Errorf("after a reset, asked for what is left: %v", err)
	}
	if _, err := ReadProgress(fresh, Active); !errors.Is(err, ErrConnectionOver) {
		t.Errorf("never connected: %v", err)
	}
	if _, err := ReadProgress(null, Active); err == nil {
		t.Error("/dev/null has made progress")
	}
}

// Both sides have shut down, and what the peer sent last has not been read: the socket is closed to the kernel,
// and its counters are exact all the same, before and behind the end that is in it.
func TestWhatIsLeftOfAConnectionThatEndedInOrder(t *testing.T) {
	for _, side := range []Side{Passive, Active} {
		us, peer := mustPair(t)
		if us.side != side {
			us, peer = peer, us
		}
		shutdown(t, us)
		if err := peer.write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		shutdown(t, peer)
		reach(t, us, TCPClose)
		for _, n := range []int{0, 400, 600, 1} { // the last: the end itself
			if n > 0 {
				if err := us.readSome(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
			}
			p, err := ReadEnded(us.fd, us.side)
			if err != nil {
				t.Fatal(err)
			}
			if p.Written != us.written || p.Consumed != us.read {
				t.Errorf("side %d: %d written, %d consumed, but the socket says %+v", us.side, us.written, us.read, p)
			}
		}
	}
}

func TestReadProgressDoesNotAllocate(t *testing.T) {
	us, _ := mustPair(t)
	if n := testing.AllocsPerRun(100, func() { _, _ = ReadProgress(us.fd, Active) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if unsafe.Sizeof(Progress{}) > 32 {
		t.Errorf("Progress has %d bytes", unsafe.Sizeof(Progress{}))
	}
}
