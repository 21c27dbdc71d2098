package server

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// A machine knows the addresses of the machine. They come and go, and to ask the kernel for them is a call that may
// block (netlink, under the lock of the network's configuration): so somebody beside the loops asks again and again, and the
// loops look at what was answered last.
type machine struct {
	addrs atomic.Pointer[map[netip.Addr]bool] // nil: not known
	ask   func() ([]net.Addr, error)          // net.InterfaceAddrs; immutable
}

// lookEvery is how old an answer gets. A client that names an address of ours which is newer than that comes back to us once
// more, and no further than Via lets it.
const lookEvery = time.Second

func newMachine() *machine { return &machine{ask: net.InterfaceAddrs} }

// look asks the kernel. Not for a loop.
func (m *machine) look() {
	list, err := m.ask()
	if err != nil {
		m.addrs.Store(nil)
		return
	}
	addrs := make(map[netip.Addr]bool, len(list))
	for _, i := range list {
		if p, err := netip.ParsePrefix(i.String()); err == nil {
			addrs[p.Addr().Unmap()] = true
		}
	}
	m.addrs.Store(&addrs)
}

// has reports whether an address is one of the machine's. It may be as long as nothing is known: a request is rather
// refused than sent back here.
func (m *machine) has(a netip.Addr) bool {
	addrs := m.addrs.Load()
	return addrs == nil || (*addrs)[a]
}

// watch looks again every now and then, until stop is closed, while there is need.
func (m *machine) watch(stop <-chan struct{}, need func() bool) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		if need() {
			m.look()
		}
	}
}

// forwards reports whether clients may name hosts themselves.
func (s *Server) forwards() bool { return s.config.Load().Forward.Enabled() }
