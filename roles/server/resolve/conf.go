package resolve

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A conf is how names are looked up, as the machine's files say.
type conf struct {
	servers  []netip.AddrPort // in order
	search   []string         // domains, without dots at their ends
	ndots    int
	attempts int
	timeout  time.Duration // for each server and attempt
	rotate   bool

	files, dns bool // sources
	dnsFirst   bool
	foreign    bool // there is a source that is not done here
}

// Bounds of what a file may say; the C library's where it has some (resolv.conf(5)).
const (
	maxServers  = 3
	maxSearch   = 16
	maxNdots    = 15
	maxAttempts = 5
	maxTimeout  = 30
	dnsPort     = 53
)

// newConf reads the text of resolv.conf and nsswitch.conf; either may be empty. Lines that are not understood are
// passed over, as the C library does.
func newConf(resolv, nsswitch string) conf {
	c := conf{ndots: 1, attempts: 2, timeout: 5 * time.Second}
	for line := range strings.Lines(resolv) {
		c.resolvLine(line)
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	c.sources(nsswitch)
	return c
}

func (c *conf) resolvLine(line string) {
	if i := strings.IndexAny(line, ";#"); i >= 0 {
		line = line[:i]
	}
	f := strings.Fields(line)
	if len(f) < 2 {
		return
	}
	switch f[0] {
	case "nameserver":
		if a, err := netip.ParseAddr(f[1]); err == nil && len(c.servers) < maxServers {
			c.servers = append(c.servers, netip.AddrPortFrom(a, dnsPort))
		}
	case "domain":
		c.search = domains(f[1:2])
	case "search":
		c.search = domains(f[1:])
	case "options":
		for _, o := range f[1:] {
			c.option(o)
		}
	}
}

func domains(words []string) (list []string) {
	for _, w := range words {
		if d := strings.Trim(w, "."); d != "" && len(list) < maxSearch {
			list = append(list, d)
		}
	}
	return list
}

func (c *conf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "rotate":
		c.rotate = true
	case err != nil:
	case name == "ndots":
		c.ndots = max(0, min(n, maxNdots))
	case name == "attempts":
		c.attempts = max(1, min(n, maxAttempts))
	case name == "timeout":
		c.timeout = time.Duration(max(1, min(n, maxTimeout))) * time.Second
	}
}

// tolerated are sources that know the machine itself and its neighbours, and so nothing of origins; names that end in
// .local are not asked here.
var tolerated = []string{"mdns", "mdns4", "mdns6", "mdns_minimal", "mdns4_minimal", "mdns6_minimal", "myhostname", "mymachines", "resolve"}

// sources reads the line of nsswitch.conf about hosts. Conditions in brackets are those of sources that are passed
// over, or say what is the case anyway.
func (c *conf) sources(nsswitch string) {
	words := []string{"files", "dns"} // nsswitch.conf(5): what holds without a line
	for line := range strings.Lines(nsswitch) {
		line, _, _ = strings.Cut(line, "#")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:"); ok {
			words = strings.Fields(unbracketed(rest))
		}
	}
	for _, w := range words {
		switch {
		case w == "files":
			c.files, c.dnsFirst = true, c.dns
		case w == "dns", w == "resolve":
			c.dns = true
		case !slices.Contains(tolerated, w):
			c.foreign = true
		}
	}
}

// unbracketed leaves out what stands in brackets.
func unbracketed(s string) string {
	var b strings.Builder
	deep := false
	for _, r := range s {
		switch {
		case r == '[':
			deep = true
		case r == ']':
			deep = false
		case !deep:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// names are the absolute names that a host may mean, in the order in which they are tried (resolv.conf(5), ndots).
func (c *conf) names(host string) []string {
	if strings.HasSuffix(host, ".") {
		return []string{host}
	}
	var list []string
	for _, d := range c.search {
		list = append(list, host+"."+d+".")
	}
	if strings.Count(host, ".") >= c.ndots {
		return append([]string{host + "."}, list...)
	}
	return append(list, host+".")
}

// hosts finds a name in the text of a hosts file.
func hosts(text, host string) (addrs []netip.Addr) {
	host = strings.TrimSuffix(host, ".")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		for _, name := range f[1:] {
			if strings.EqualFold(name, host) {
				if a, err := netip.ParseAddr(f[0]); err == nil && a.Zone() == "" && !slices.Contains(addrs, a.Unmap()) {
					addrs = append(addrs, a.Unmap())
				}
				break
			}
		}
	}
	return addrs
}
