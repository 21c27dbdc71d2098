package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// ParseAddress checks a listener's address and gives its canonical form, by which a listener is known for as long as
// the instance lives:
//
//	127.0.0.1:8080   [2001:db8::1]:8080   one address
//	0.0.0.0:8080     [::]:8080            every address of that family only
//	:8080            *:8080               every address of both families (":8080")
//	localhost:8080                        127.0.0.1:8080
//
// Port 0 lets the kernel choose. Other names are refused: what a name means can change between two starts, and a
// listener that moves loses its connections.
func ParseAddress(text string) (string, error) {
	host, port, err := splitHostPort(text)
	if err != nil {
		return "", err
	}
	switch host {
	case "", "*":
		return ":" + strconv.Itoa(port), nil
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("must be IP:PORT, not the name %q", clip(host))
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)).String(), nil
}

func splitHostPort(text string) (host string, port int, err error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			return "", 0, fmt.Errorf("must be IP:PORT, such as 127.0.0.1:%d or :%d", n, n)
		}
		return "", 0, errors.New("must be IP:PORT, such as 127.0.0.1:8080")
	}
	host = text[:i]
	if in, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(in, "]"); !ok || !strings.Contains(host, ":") {
			return "", 0, errors.New("must be IP:PORT with an IPv6 address in brackets, such as [::1]:8080")
		}
	} else if strings.Contains(host, ":") {
		return "", 0, errors.New("must be IP:PORT with an IPv6 address in brackets, such as [::1]:8080")
	}
	n, err := parseCount(text[i+1:])
	if err != nil || n < 0 || n > 65535 {
		return "", 0, fmt.Errorf("has the port %q, must be 0 to 65535", clip(text[i+1:]))
	}
	return host, int(n), nil
}

// overlap reports whether the kernel would refuse to listen on both canonical addresses. Port 0 never collides with
// another port, but two equal texts do: a listener is known by its text.
func overlap(a, b string) bool {
	if a == b {
		return true
	}
	ha, pa, _ := splitHostPort(a)
	hb, pb, _ := splitHostPort(b)
	if pa != pb || pa == 0 {
		return false
	}
	if ha == "" || hb == "" {
		return true
	}
	ia, errA := netip.ParseAddr(ha)
	ib, errB := netip.ParseAddr(hb)
	if errA != nil || errB != nil || ia.Is4() != ib.Is4() {
		return false
	}
	return ia.IsUnspecified() || ib.IsUnspecified()
}

// Builtin is the origin that the server answers itself.
const Builtin = "builtin:"

// Group begins the name of an origin that is a group of Config.Origins.
const Group = "group:"

// A target is a URL of the small form that rules have.
type target struct {
	group string // of origins; "": none, and otherwise there is no host
	host  string // "" for a mere path, for a group and for builtin:
	port  int
	path  string
}

func (t target) String() string {
	if t.group != "" {
		return Group + t.group + t.path
	}
	if t.host == "" {
		return t.path
	}
	h := t.host
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	if t.port != 0 {
		h += ":" + strconv.Itoa(t.port)
	}
	return "http://" + h + t.path
}

// splitMapping divides PREFIX=ORIGIN. A path may hold a "=", so the one before an origin's scheme is preferred.
func splitMapping(text string) (prefix, origin string) {
	for _, scheme := range []string{"=http://", "=https://", "=" + Builtin, "=" + Group} {
		if i := strings.Index(text, scheme); i >= 0 {
			return text[:i], text[i+1:]
		}
	}
	prefix, origin, _ = strings.Cut(text, "=")
	return prefix, origin
}

func parsePrefix(text string) (target, error) {
	const form = "prefix must be /path, http://host/path or http://host:port/path"
	if strings.HasPrefix(text, "/") {
		return target{path: text}, checkPath("prefix", text)
	}
	rest, ok := strings.CutPrefix(text, "http://")
	if !ok {
		return target{}, errors.New(form)
	}
	t, err := parseAuthority("prefix", rest)
	if err == nil && t.path == "" {
		t.path = "/"
	}
	return t, err
}

func parseOrigin(text string) (target, error) {
	if text == Builtin {
		return target{}, nil
	}
	if name, ok := strings.CutPrefix(text, Group); ok {
		return parseGroup(name)
	}
	rest, ok := strings.CutPrefix(text, "http://")
	switch {
	case ok:
		t, err := parseAuthority("origin", rest)
		if err == nil && t.port == 0 && hasPort(rest) {
			return t, errors.New("origin must not have port 0")
		}
		return t, err
	case strings.HasPrefix(text, "https://"):
		return target{}, errors.New("origin must be http://host[:port][/path]: https is not available")
	case text == "":
		return target{}, errors.New("origin is missing, must be http://host[:port][/path]")
	}
	return target{}, errors.New("origin must be http://host[:port][/path], group:NAME[/path], or builtin: for the built-in page")
}

// parseGroup reads NAME[/path].
func parseGroup(text string) (target, error) {
	name, path, ok := strings.Cut(text, "/")
	if !groupName(name) {
		return target{}, fmt.Errorf("origin has the group name %q, must be 1 to 64 letters, digits or -_. characters", clip(name))
	}
	t := target{group: name}
	if ok {
		t.path = "/" + path
	}
	return t, checkPath("origin", t.path)
}

func hasPort(rest string) bool {
	authority, _, _ := strings.Cut(rest, "/")
	return strings.HasSuffix(authority, ":0")
}

// parseAuthority reads host[:port][/path].
func parseAuthority(what, rest string) (target, error) {
	var t target
	authority := rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, t.path = rest[:i], rest[i:]
		if err := checkPath(what, t.path); err != nil {
			return t, err
		}
	}
	if strings.Contains(authority, "@") {
		return t, fmt.Errorf("%s must not have a user name", what)
	}
	if strings.HasPrefix(authority, "[") && !strings.Contains(authority, "]") {
		return t, fmt.Errorf("%s has the malformed IPv6 address %q", what, clip(authority))
	}
	host := authority
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		n, err := parseCount(authority[i+1:])
		if err != nil || n < 0 || n > 65535 {
			return t, fmt.Errorf("%s has the port %q, must be 1 to 65535", what, clip(authority[i+1:]))
		}
		host, t.port = authority[:i], int(n)
	}
	t.host = strings.ToLower(host)
	if in, ok := strings.CutPrefix(t.host, "["); ok {
		t.host = strings.TrimSuffix(in, "]")
		if ip, err := netip.ParseAddr(t.host); err != nil || !ip.Is6() || ip.Zone() != "" || !strings.HasSuffix(host, "]") {
			return t, fmt.Errorf("%s has the malformed IPv6 address %q", what, clip(host))
		}
		return t, nil
	}
	return t, checkHost(what, t.host)
}

// checkHost accepts an IPv4 address and names of letters, digits, "-", "_" and ".": what DNS and every origin's Host
// check agree on.
func checkHost(what, host string) error {
	if host == "" {
		return fmt.Errorf("%s has no host", what)
	}
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if len(host) > 253 || strings.IndexFunc(host, bad) >= 0 || host[0] == '.' || strings.Contains(host, "..") {
		return fmt.Errorf("%s has the malformed host %q", what, clip(host))
	}
	return nil
}

// checkPath refuses what could not be compared with, or sent in, a request target.
func checkPath(what, path string) error {
	for _, r := range path {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`"<>\^`+"`{|}", r) {
			return fmt.Errorf("%s has %q in its path, must be percent-encoded", what, r)
		}
	}
	if strings.ContainsAny(path, "?#") {
		return fmt.Errorf("%s must not have a query or fragment", what)
	}
	if _, err := url.PathUnescape(path); err != nil {
		return fmt.Errorf("%s has malformed percent-encoding in its path", what)
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return fmt.Errorf("%s must not have %q in its path", what, seg)
		}
	}
	return nil
}
