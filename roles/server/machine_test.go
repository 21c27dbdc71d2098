package server

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"trafficd/roles/internal/config"
)

var here, elsewhere = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")

func TestTheMachinesAddresses(t *testing.T) {
	m := newMachine()
	if !m.has(elsewhere) {
		t.Error("an address is said to be elsewhere although nobody has looked")
	}
	m.look()
	if !m.has(here) || m.has(elsewhere) {
		t.Error("127.0.0.1 is not this machine's, or 192.0.2.1 is")
	}
}

// Whoever asks is told what was seen last; the kernel is asked beside the loops.
func TestTheKernelIsAskedBesideTheLoops(t *testing.T) {
	_, net1, _ := net.ParseCIDR("192.0.2.1/32")
	answer, broken := make(chan []net.Addr), errors.New("broken")
	m := &machine{ask: func() ([]net.Addr, error) {
		if a := <-answer; a != nil {
			return a, nil
		}
		return nil, broken
	}}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { m.watch(stop, func() bool { return true }); close(ended) }()
	see := func(a []net.Addr, want bool) {
		t.Helper()
		answer <- a
		waitFor(t, "the answer to be seen", func() bool { return m.has(elsewhere) == want })
	}
	see([]net.Addr{&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)}}, false)
	// From here on each look hangs until it is answered, and everybody else goes on.
	if m.has(elsewhere) || !m.has(here) {
		t.Error("it does not know what it has seen")
	}
	see([]net.Addr{net1}, true)
	see([]net.Addr{}, false)
	see(nil, true)
	close(stop)
	close(answer)
	<-ended
}

// A server whose clients may name hosts knows the machine's addresses before it serves them; its loops do not ask.
func TestTheServerLooksForItself(t *testing.T) {
	e := startEngine(t, 1, func(c *config.Config) { c.Forward.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	if g := e.settings.Load().Forward.Guard; g.Local == nil || !g.Local(here) || g.Local(elsewhere) {
		t.Error("it does not know them")
	}
	e.machine.ask = func() ([]net.Addr, error) { panic("a request asks the kernel") }
	e.machine.addrs.Store(&map[netip.Addr]bool{elsewhere: true})
	if g := e.settings.Load().Forward.Guard; !g.Local(elsewhere) {
		t.Error("what was seen does not count")
	}
}
