package remap

import (
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
	// Guard says which addresses may be connected to; nil: any.
	Guard *Guard
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
