package server

import (
	"net/netip"
	"strconv"
	"strings"

	"trafficd/roles/internal/config"
	"trafficd/roles/server/remap"
)

// forward is the proxy for hosts that no rule is for, as a configuration wants it, on a machine that has these addresses.
func forward(c *config.Config, local func(netip.Addr) bool) *remap.Forward {
	f := &c.Forward
	g := &remap.Guard{To: f.To, Local: local}
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
