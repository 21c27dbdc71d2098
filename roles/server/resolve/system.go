package resolve

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// A System looks names up as the machine is configured to. Safe for any goroutine.
type System struct {
	client   client
	fallback func(ctx context.Context, host string) ([]netip.Addr, error)
	paths    struct{ resolv, nsswitch, hosts string }

	mu      sync.Mutex // guards what follows
	servers []netip.AddrPort
	conf    conf
	hosts   string
	read    time.Time // when the files were read; zero: not yet
}

const (
	filesFor = 5 * time.Second  // for which what the files say is believed
	plainTTL = 30 * time.Second // of answers that do not say theirs
)

// NewSystem makes a System.
func NewSystem() *System {
	var d net.Dialer
	s := &System{client: client{dial: d.DialContext}, fallback: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	s.paths.resolv, s.paths.nsswitch, s.paths.hosts = "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/hosts"
	return s
}

// SetServers makes it ask these name servers in place of the machine's; none: those of the machine.
func (s *System) SetServers(servers []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers, s.read = servers, time.Time{}
}

// Lookup is a Lookup.
func (s *System) Lookup(ctx context.Context, host string) (Answer, error) {
	cf, text := s.files()
	if cf.foreign {
		return s.plain(ctx, host)
	}
	files := func() (Answer, bool) {
		addrs := hosts(text, host)
		return Answer{Addrs: addrs, TTL: filesFor}, cf.files && len(addrs) > 0
	}
	if !cf.dnsFirst {
		if a, ok := files(); ok {
			return a, nil
		}
	}
	if isLocal(host) {
		return s.plain(ctx, host)
	}
	if !cf.dns {
		return Answer{}, &NotFoundError{Host: host, TTL: filesFor}
	}
	a, err := s.client.lookup(ctx, cf, host)
	if err != nil && cf.dnsFirst {
		if a, ok := files(); ok {
			return a, nil
		}
	}
	return a, err
}

// isLocal reports whether a name is for other means than name servers: RFC 6762 §3 (multicast), and RFC 6761 §6.3, by
// which localhost is this machine.
func isLocal(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.HasSuffix(host, ".local") || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// plain asks the standard library.
func (s *System) plain(ctx context.Context, host string) (Answer, error) {
	addrs, err := s.fallback(ctx, host)
	if err != nil {
		return Answer{}, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return Answer{Addrs: addrs, TTL: plainTTL}, nil
}

// files reads the files, if that was not done a moment ago. A file that cannot be read is an empty one.
func (s *System) files() (*conf, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read.IsZero() || time.Since(s.read) > filesFor {
		s.conf = newConf(readText(s.paths.resolv), readText(s.paths.nsswitch))
		s.hosts = readText(s.paths.hosts)
		if len(s.servers) > 0 {
			s.conf.servers, s.conf.dns, s.conf.foreign = s.servers, true, false
		}
		s.read = time.Now()
	}
	cf := s.conf
	return &cf, s.hosts
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}
