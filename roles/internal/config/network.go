package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseNetwork reads a network as 10.0.0.0/8 or a single address as 10.0.0.1, which is the network of that address
// alone. Bits behind the prefix must be zero: whoever wrote 10.1.0.0/8 meant something else than he wrote.
func ParseNetwork(text string) (netip.Prefix, error) {
	const form = "must be a network such as 10.0.0.0/8 or 2001:db8::/32, or an address"
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%s, not %q", form, clip(text))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s: write %q as a network of IPv4", form, clip(text))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("has the network %s with bits behind its prefix: did you mean %s?", text, p.Masked())
	}
	return p, nil
}

// formatNetwork is the form of ParseNetwork that is shorter.
func formatNetwork(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func formatNetworks(ps []netip.Prefix) []string {
	var out []string
	for _, p := range ps {
		out = append(out, formatNetwork(p))
	}
	return out
}

// Ports are the TCP ports from First to Last.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// String is "80", or "1025-65535".
func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// parsePorts reads a port or FIRST-LAST.
func parsePorts(text string) (Ports, error) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	a, errA := parseCount(first)
	b, errB := parseCount(last)
	if errA != nil || errB != nil || a < 1 || b > 65535 || a > b {
		return Ports{}, fmt.Errorf("must be a port or a range such as 1025-65535, not %q", clip(text))
	}
	return Ports{First: uint16(a), Last: uint16(b)}, nil
}

// assignList reads every element with parse, and stores the result if all of them are good.
func assignList[T any](s *Setting, p *[]T, es []element, parse func(string) (T, error)) (ps []Problem) {
	var list []T
	for _, e := range es {
		v, err := parse(e.text)
		if err != nil {
			ps = append(ps, Problem{place: e.at, Msg: err.Error()})
			continue
		}
		list = append(list, v)
	}
	if int64(len(es)) > s.Max {
		ps = append(ps, Problem{Msg: fmt.Sprintf("has %d entries, at most %d are possible", len(es), s.Max)})
	}
	if len(ps) == 0 {
		*p = list
	}
	return ps
}
