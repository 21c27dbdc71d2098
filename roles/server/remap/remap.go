package remap

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// Builtin is the origin that answers from within the server: it needs no
// network, so the first minute of a new installation shows something true.
const Builtin = "builtin:"

// Group begins an origin that is a group of servers, group:NAME[/path]. Which of them gets a
// request is decided elsewhere.
const Group = "group:"

// An Origin is where requests of a rule go. Immutable.
type Origin struct {
	Name      string // as in the configuration, for logs
	Authority string // host[:port] as sent when the client gave no host
	Group     string // name of the group of servers; "": Host and Port are the only one
	Host      string // name or address to connect to, without brackets
	Port      uint16
	Path      string // takes the place of the prefix; no slash at its end
	Builtin   bool
}

// A Spec is a rule as the configuration says it: a prefix and its origin.
type Spec struct {
	Type   string  // "": a map
	Prefix string  // `/path` or `http://host[:port]/path`
	Origin string  // `http://host[:port][/path]`, `group:NAME[/path]` or Builtin
	Policy *Policy // nil: as for all
}

// A Rule is one rule of a Table. Immutable.
type Rule struct {
	Name   string // its prefix as in the configuration, for logs
	Origin *Origin
	Policy *Policy // never nil
}

// A Match is the answer of a lookup.
type Match struct {
	Rule   *Rule
	Origin *Origin // where the request goes
	Prefix int     // bytes of the request's path that the origin's path replaces
}

// Policy is that of the rule; of a Match without one, and so before a rule is
// found, a policy that wants nothing. Never nil.
func (m *Match) Policy() *Policy {
	if m.Rule == nil {
		return &noPolicy
	}
	return m.Rule.Policy
}

// A Table finds the rule for a request. Immutable; safe for any goroutine.
type Table struct {
	hosts map[string]*paths // by host:port or host in lower case
	any   *paths            // rules without a host
}

// paths are the rules of one host.
type paths struct {
	rules   map[string]*Rule // by prefix without the slash at its end
	longest int              // bytes of the longest prefix
}

// New makes a table. The error names the rule that is wrong.
func New(rules []Spec) (*Table, error) {
	t := &Table{hosts: map[string]*paths{}, any: newPaths()}
	origins := map[string]*Origin{}
	for _, r := range rules {
		if r.Type != "" {
			return nil, fmt.Errorf("%s %s: there are no such rules", r.Type, r.Prefix)
		}
		o := origins[r.Origin]
		if o == nil {
			var err error
			if o, err = ParseOrigin(r.Origin); err != nil {
				return nil, fmt.Errorf("map %s: %w", r.Prefix, err)
			}
			origins[r.Origin] = o
		}
		policy := r.Policy
		if policy == nil {
			policy = &noPolicy
		}
		if err := t.add(r.Prefix, &Rule{Name: r.Prefix, Origin: o, Policy: policy}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func newPaths() *paths { return &paths{rules: map[string]*Rule{}} }

func (t *Table) add(prefix string, r *Rule) error {
	p, path := t.any, prefix
	if rest, ok := cutScheme(prefix); ok {
		host, tail, _ := strings.Cut(rest, "/")
		if host == "" {
			return fmt.Errorf("map %s: the prefix has no host", prefix)
		}
		host = strings.TrimSuffix(strings.ToLower(host), ":80")
		if p = t.hosts[host]; p == nil {
			p = newPaths()
			t.hosts[host] = p
		}
		path = "/" + tail
	}
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("map %s: a prefix is /path or http://host/path", prefix)
	}
	key := strings.TrimSuffix(path, "/")
	if _, twice := p.rules[key]; twice {
		return fmt.Errorf("map %s: there is another rule for this prefix", prefix)
	}
	p.rules[key] = r
	p.longest = max(p.longest, len(key))
	return nil
}

func cutScheme(s string) (rest string, ok bool) {
	const scheme = "http://"
	if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
		return s[len(scheme):], true
	}
	return s, false
}

// ParseOrigin reads an origin as the configuration writes it.
func ParseOrigin(s string) (*Origin, error) {
	if s == Builtin {
		return &Origin{Name: s, Builtin: true}, nil
	}
	if rest, ok := strings.CutPrefix(s, Group); ok {
		return parseGroup(s, rest)
	}
	rest, ok := cutScheme(s)
	if !ok {
		return nil, fmt.Errorf("origin %q: an origin is http://host[:port][/path] or group:NAME[/path]", s)
	}
	authority, path, _ := strings.Cut(rest, "/")
	o := &Origin{Name: s, Authority: authority, Port: 80}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		n, err := parsePort(port)
		if err != nil {
			return nil, fmt.Errorf("origin %q: %w", s, err)
		}
		o.Port = n
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || strings.ContainsAny(host, " \t@?#") {
		return nil, fmt.Errorf("origin %q: the host is missing or malformed", s)
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("origin %q: %w", s, err)
		}
	}
	if strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("origin %q: the path may have neither query nor fragment", s)
	}
	o.Host = host
	if path = strings.TrimSuffix(path, "/"); path != "" {
		o.Path = "/" + path
	}
	return o, nil
}

// parseGroup reads NAME[/path].
func parseGroup(s, rest string) (*Origin, error) {
	name, path, _ := strings.Cut(rest, "/")
	if name == "" || strings.ContainsAny(rest, " \t@?#:") {
		return nil, fmt.Errorf("origin %q: a group is group:NAME[/path]", s)
	}
	o := &Origin{Name: s, Authority: name, Group: name}
	if path = strings.TrimSuffix(path, "/"); path != "" {
		o.Path = "/" + path
	}
	return o, nil
}

func parsePort(s string) (uint16, error) {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 65535 {
			return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
		}
		n = n*10 + int(c-'0')
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

// Lookup finds the rule for a request's host, as the client sent it, and path.
// ok is false when no rule applies. It does not allocate for hosts of up to
// 256 bytes.
func (t *Table) Lookup(host, path []byte) (m Match, ok bool) {
	if len(t.hosts) > 0 && len(host) > 0 {
		var lower [256]byte
		h := appendLower(lower[:0], host)
		h = bytes.TrimSuffix(h, []byte(":80"))
		if p := t.hosts[string(h)]; p != nil {
			if m, ok = p.lookup(path); ok {
				return m, true
			}
		}
		if name := withoutPort(h); len(name) < len(h) {
			if p := t.hosts[string(name)]; p != nil {
				if m, ok = p.lookup(path); ok {
					return m, true
				}
			}
		}
	}
	return t.any.lookup(path)
}

func appendLower(dst, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// withoutPort cuts the port off a host; the colons of an IPv6 literal stand
// within brackets.
func withoutPort(h []byte) []byte {
	if i := bytes.LastIndexByte(h, ':'); i >= 0 && bytes.IndexByte(h[i:], ']') < 0 {
		return h[:i]
	}
	return h
}

func (p *paths) lookup(path []byte) (Match, bool) {
	n := len(path)
	if n > p.longest {
		// The longest prefix that can match ends at a slash no later than here.
		n = bytes.LastIndexByte(path[:p.longest+1], '/')
	} else if n > 0 && path[n-1] == '/' {
		n--
	}
	for n >= 0 {
		if r := p.rules[string(path[:n])]; r != nil {
			return Match{Rule: r, Origin: r.Origin, Prefix: n}, true
		}
		n = bytes.LastIndexByte(path[:n], '/')
	}
	return Match{}, false
}

// AppendTarget appends the path that the origin is asked for.
func (m Match) AppendTarget(dst, path []byte) []byte {
	dst = append(dst, m.Origin.Path...)
	rest := path[m.Prefix:]
	if len(rest) == 0 && len(m.Origin.Path) == 0 {
		return append(dst, '/')
	}
	return append(dst, rest...)
}
