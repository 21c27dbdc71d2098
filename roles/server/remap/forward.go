package remap

import (
	"fmt"
	"net/netip"
	"strings"
)

// Forward is what a proxy does for hosts that no rule is for, and for whom.
// Immutable; the zero value does nothing for anybody.
type Forward struct {
	Allow        []netip.Prefix // clients; empty: nobody
	Ports        []Ports        // of the hosts
	ConnectPorts []Ports        // that CONNECT may lead to
	Guard        *Guard
}

// Ports are the TCP ports from First to Last.
type Ports struct{ First, Last uint16 }

// Enabled reports whether anybody may use it.
func (f *Forward) Enabled() bool { return f != nil && len(f.Allow) > 0 }

// Allows reports whether a client may use it.
func (f *Forward) Allows(client netip.Addr) bool {
	return f.Enabled() && (&Policy{Allow: f.Allow}).Allows(client)
}

// Origin is the origin that host[:port] names. connect: a tunnel is asked for.
// The error says, to the client, why there is none.
func (f *Forward) Origin(authority []byte, connect bool) (*Origin, error) {
	o, err := ParseOrigin("http://" + strings.ToLower(string(authority)))
	if err != nil || !plainHost(o.Host) {
		return nil, fmt.Errorf("the host is malformed")
	}
	ports := f.Ports
	if connect {
		ports = f.ConnectPorts
	}
	for _, p := range ports {
		if p.First <= o.Port && o.Port <= p.Last {
			o.Guard = f.Guard
			return o, nil
		}
	}
	return nil, fmt.Errorf("port %d may not be asked for", o.Port)
}

// A Guard says which addresses may be connected to on behalf of clients that
// name hosts themselves: what a client could not reach without us it must not
// reach through us. It is asked when the name has been resolved, so that no name can lead
// elsewhere meanwhile. Immutable.
type Guard struct {
	To []netip.Prefix // permitted beside the public addresses
	// Own are the addresses that we listen at; an unspecified one stands for
	// all of this machine.
	Own []netip.AddrPort
	// Local reports whether an address is this machine's; nil: loopback is.
	Local func(netip.Addr) bool
}

// Check returns why an address must not be connected to.
func (g *Guard) Check(to netip.AddrPort) error {
	a := embedded(to.Addr().Unmap().WithZone(""))
	if g.own(netip.AddrPortFrom(a, to.Port())) {
		return fmt.Errorf("the request would come back to this proxy")
	}
	for _, p := range g.To {
		if p.Contains(a) {
			return nil
		}
	}
	if !public(a) {
		return fmt.Errorf("the address is not a public one")
	}
	return nil
}

func (g *Guard) own(to netip.AddrPort) bool {
	for _, o := range g.Own {
		if o.Port() != to.Port() {
			continue
		}
		if a := o.Addr().Unmap(); a == to.Addr() || a.IsUnspecified() && g.local(to.Addr()) {
			return true
		}
	}
	return false
}

func (g *Guard) local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || g.Local != nil && g.Local(a)
}

// embedded is the IPv4 address that stands in an IPv6 address of a transition
// mechanism: NAT64 (RFC 6052 §2.1), 6to4 (RFC 3056 §2). A gateway near us may lead there.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")

	// special are the networks of the IANA special-purpose registries (RFC 6890)
	// that net/netip has no name for.
	special = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598: carriers' own
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("::/96"), // IPv4-compatible, with :: and ::1 in it
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"),
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("fec0::/10"), // RFC 3879: site-local, once
	}
)

// public reports whether an address is one of the Internet at large.
func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
