package server

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"trafficd/roles/internal/config"
	"trafficd/roles/server/remap"
)

// forward is the proxy for hosts that no rule is for, as a configuration wants it.
func forward(c *config.Config) *remap.Forward {
	f := &c.Forward
	g := &remap.Guard{To: f.To, Local: isOurs}
	for _, a := range append([]string{c.Autoconf.Listen}, c.Listen...) {
		g.Own = append(g.Own, addresses(a)...)
	}
	return &remap.Forward{Allow: f.Allow, Ports: ports(f.Ports), ConnectPorts: ports(f.ConnectPorts), Guard: g}
}

func ports(list []config.Ports) (ps []remap.Ports) {
	for _, p := range list {
		ps = append(ps, remap.Ports{First: p.First, Last: p.Last})
	}
	return ps
}

// addresses are those of a listener; none for one that is off.
func addresses(listen string) []netip.AddrPort {
	if port, ok := strings.CutPrefix(listen, ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil
		}
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))}
	}
	if a, err := netip.ParseAddrPort(listen); err == nil {
		return []netip.AddrPort{a}
	}
	return nil
}

// isOurs reports whether an address is one of this machine's, now: they come and go. It is asked only of
// requests for a port that we listen at.
func isOurs(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, i := range list {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}
