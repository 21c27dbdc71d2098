package remap

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"trafficd/roles/server/header"
)

// A reverseMap says what stands in a response in place of what the origin says
// of where things are. The zero value says nothing.
type reverseMap struct {
	paths map[string]map[string]*base // by host[:port] without a port 80, then by path without the slash at its end
	names map[string]*base            // the first of each host, for the Domain of cookies
}

// A base is what begins a URL: what takes the place of an origin's.
type base struct {
	root string // scheme://host[:port]; "": the client's own
	host string // of root, without the port
	path string // no slash at its end
}

func (rm *reverseMap) add(prefix, to string) error {
	host, path, err := splitPrefix(prefix)
	switch {
	case err != nil:
		return err
	case host == "":
		return fmt.Errorf("the prefix has no host: it is what the origin says of itself")
	}
	if err := checkTo(to); err != nil {
		return err
	}
	b := &base{path: strings.TrimSuffix(to, "/")}
	if scheme, rest, ok := strings.Cut(b.path, "://"); ok {
		authority, tail, _ := strings.Cut(rest, "/")
		b.root, b.path = scheme+"://"+authority, ""
		b.host = string(withoutPort([]byte(authority)))
		if tail != "" {
			b.path = "/" + tail
		}
	}
	if rm.paths == nil {
		rm.paths, rm.names = map[string]map[string]*base{}, map[string]*base{}
	}
	host = strings.TrimSuffix(host, ":80")
	paths := rm.paths[host]
	if paths == nil {
		paths = map[string]*base{}
		rm.paths[host] = paths
	}
	if paths[path] != nil {
		return fmt.Errorf("there is another rule for this prefix")
	}
	paths[path] = b
	if name := string(withoutPort([]byte(host))); rm.names[name] == nil {
		rm.names[name] = b
	}
	return nil
}

// find returns the base with the longest path that path begins with, and how long that is.
func (rm *reverseMap) find(host, path string) (*base, int) {
	paths := rm.paths[host]
	if paths == nil {
		return nil, 0
	}
	n := len(strings.TrimSuffix(path, "/"))
	for n >= 0 {
		if b := paths[path[:n]]; b != nil {
			return b, n
		}
		n = strings.LastIndexByte(path[:n], '/')
	}
	return nil, 0
}

// Reverses reports whether AppendReversed may change a response to a request of the match.
func (t *Table) Reverses(m *Match) bool {
	return m.Rule != nil && m.Origin != nil && (m.Rule.reverse || len(t.back.paths) > 0)
}

// Speaks reports whether field lines of a response say something that AppendReversed may change.
func Speaks(lines []byte) bool {
	for len(lines) > 0 {
		switch n := bytes.IndexByte(lines, ':'); n {
		case len("Refresh"), len("Location"), len("Set-Cookie"), len("Content-Location"):
			if spokenOf(lines[:n]) != nil {
				return true
			}
		}
		i := bytes.IndexByte(lines, '\n')
		if i < 0 {
			return false
		}
		lines = lines[i+1:]
	}
	return false
}

// spokenOf is how the value of a field is rewritten; nil if it is not.
func spokenOf(name []byte) func(r *reversal, dst, value []byte) []byte {
	switch header.Lookup(name) {
	case header.Location, header.ContentLocation:
		return (*reversal).appendURL
	case header.SetCookie:
		return (*reversal).appendCookie
	}
	if header.EqualFold(name, "refresh") {
		return (*reversal).appendRefresh
	}
	return nil
}

// AppendReversed appends field lines of a response with Location,
// Content-Location, Refresh, and Domain and Path of Set-Cookie, rewritten so
// that they lead the client back here. client is the host[:port] that it asked for. What
// does not lead to an origin that the rules know stays as it is.
func (t *Table) AppendReversed(dst, lines []byte, m *Match, client []byte) []byte {
	r := reversal{t: t, m: m, client: client, origin: originHost(m.Origin)}
	for len(lines) > 0 {
		line := lines
		if i := bytes.IndexByte(lines, '\n'); i >= 0 {
			line = lines[:i+1]
		}
		lines = lines[len(line):]
		dst = r.appendLine(dst, line)
	}
	return dst
}

// AppendReversedURL is AppendReversed for a single URL.
func (t *Table) AppendReversedURL(dst, v []byte, m *Match, client []byte) []byte {
	r := reversal{t: t, m: m, client: client, origin: originHost(m.Origin)}
	return r.appendURL(dst, v)
}

// originHost is an origin as a URL names it.
func originHost(o *Origin) string { return strings.ToLower(strings.TrimSuffix(o.Authority, ":80")) }

// A reversal is the rewriting of one response.
type reversal struct {
	t      *Table
	m      *Match
	client []byte
	origin string
}

func (r *reversal) appendLine(dst, line []byte) []byte {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return append(dst, line...)
	}
	with := spokenOf(name)
	if with == nil {
		return append(dst, line...)
	}
	dst = append(append(dst, name...), ": "...)
	dst = with(r, dst, header.Trim(bytes.TrimRight(value, "\r\n")))
	return append(dst, "\r\n"...)
}

// appendRefresh rewrites `5; url=http://…`, with or without quotes.
func (r *reversal) appendRefresh(dst, v []byte) []byte {
	i := bytes.IndexAny(v, ";,")
	if i < 0 {
		return append(dst, v...)
	}
	rest := bytes.TrimLeft(v[i+1:], " \t")
	if len(rest) >= 3 && header.EqualFold(rest[:3], "url") {
		if url, ok := bytes.CutPrefix(bytes.TrimLeft(rest[3:], " \t"), []byte{'='}); ok {
			rest = bytes.TrimLeft(url, " \t")
		}
	}
	end := len(v)
	if len(rest) >= 2 && (rest[0] == '"' || rest[0] == '\'') && rest[len(rest)-1] == rest[0] {
		rest, end = rest[1:len(rest)-1], end-1
	}
	dst = append(dst, v[:end-len(rest)]...)
	dst = r.appendURL(dst, rest)
	return append(dst, v[end:]...)
}

// appendURL rewrites a URL, or leaves it.
func (r *reversal) appendURL(dst, v []byte) []byte {
	scheme, host, path, ok := splitURL(string(v))
	if !ok {
		return append(dst, v...)
	}
	b, n := r.find(scheme, host, path)
	if b == nil {
		return append(dst, v...)
	}
	root := b.root
	if root == "" && host != "" && r.isClient(host) {
		root = string(v[:len(v)-len(path)]) // its own scheme and spelling of itself
	}
	dst = append(dst, root...)
	if rest := path[n:]; rest == "" || rest[0] != '/' {
		if b.path == "" {
			dst = append(dst, '/')
		}
	}
	dst = append(dst, b.path...)
	if root == "" && b.path == "" && strings.HasPrefix(path[n:], "//") {
		dst = append(dst, "/."...) // two slashes would name another host
	}
	return append(dst, path[n:]...)
}

// splitURL takes an http or https URL apart, or a path: host[:port] in lower case without a port that goes without saying,
// and what is behind it. False: it is neither, or is relative to what was asked for.
func splitURL(v string) (scheme, host, path string, ok bool) {
	if strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "//") {
		return "", "", v, true
	}
	rest := v
	if !strings.HasPrefix(v, "//") {
		scheme, rest, ok = strings.Cut(v, ":")
		scheme = strings.ToLower(scheme)
		if !ok || scheme != "http" && scheme != "https" {
			return "", "", "", false
		}
	}
	if rest, ok = strings.CutPrefix(rest, "//"); !ok {
		return "", "", "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host = strings.ToLower(rest[:end])
	if scheme != "https" {
		host = strings.TrimSuffix(host, ":80")
	}
	return scheme, host, rest[end:], host != "" && !strings.Contains(host, "@")
}

// pathEnd is where the path of what splitURL gives ends.
func pathEnd(path string) int {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return i
	}
	return len(path)
}

// find returns the base for a URL, and how much of its path the base replaces.
func (r *reversal) find(scheme, host, path string) (*base, int) {
	path = path[:pathEnd(path)]
	if r.m.Rule.reverse {
		ours := host == "" || r.isClient(host)
		if ours || host == r.origin && scheme != "https" {
			if b, n, ok := r.own(path); ok {
				if ours && b.path == path[:n] {
					return nil, 0 // as it is
				}
				return b, n
			}
		}
	}
	if host == "" || scheme == "https" {
		return nil, 0
	}
	return r.t.back.find(host, path)
}

// own is what the rule itself says: the prefix takes the place of the origin's path.
func (r *reversal) own(path string) (*base, int, bool) {
	from := r.m.Origin.Path
	if p := r.m.Rule.pattern; p != nil && p.path != nil {
		return &base{}, 0, p.keepPath // a path that an expression made cannot be made undone
	}
	if !strings.HasPrefix(path, from) || len(path) > len(from) && path[len(from)] != '/' && from != "" {
		return nil, 0, false
	}
	return &base{path: r.m.Rule.prefix}, len(from), true
}

// isClient reports whether a host[:port] is the one that the client asked for.
func (r *reversal) isClient(host string) bool {
	return header.EqualFold(bytes.TrimSuffix(r.client, []byte(":80")), host)
}

// appendCookie rewrites Domain and Path of a Set-Cookie (RFC 6265 §4.1.1).
func (r *reversal) appendCookie(dst, v []byte) []byte {
	host := string(withoutPort([]byte(r.origin)))
	domain := cookieDomain(v)
	for i, part := range bytes.Split(v, []byte{';'}) {
		name, value, ok := bytes.Cut(part, []byte{'='})
		word := header.Trim(name)
		value = header.Trim(value)
		switch {
		case i == 0 || !ok:
		case header.EqualFold(word, "domain"):
			if to := r.domain(strings.ToLower(string(value))); to != "" {
				dst = append(dst, "; Domain="...)
				dst = append(dst, to...)
				continue
			}
		case header.EqualFold(word, "path"):
			if to, ok := r.cookiePath(domain, host, string(value)); ok {
				dst = append(dst, "; Path="...)
				dst = append(dst, to...)
				continue
			}
		}
		if i > 0 {
			dst = append(dst, ';')
		}
		dst = append(dst, part...)
	}
	return dst
}

// cookieDomain is the Domain of a Set-Cookie, in lower case.
func cookieDomain(v []byte) string {
	_, attributes, _ := bytes.Cut(v, []byte{';'})
	for part := range bytes.SplitSeq(attributes, []byte{';'}) {
		name, value, _ := bytes.Cut(part, []byte{'='})
		if header.EqualFold(header.Trim(name), "domain") {
			return strings.TrimPrefix(strings.ToLower(string(header.Trim(value))), ".")
		}
	}
	return ""
}

// domain is what takes the place of a Domain; "": it stays.
func (r *reversal) domain(of string) string {
	of = strings.TrimPrefix(of, ".")
	if r.m.Rule.reverse && of == string(withoutPort([]byte(r.origin))) {
		return r.clientName()
	}
	switch b := r.t.back.names[of]; {
	case b == nil:
		return ""
	case b.root == "":
		return r.clientName()
	default:
		return b.host
	}
}

// clientName is the host that the client asked for, without its port.
func (r *reversal) clientName() string {
	name := strings.Trim(string(withoutPort(r.client)), "[]")
	if a, err := netip.ParseAddr(name); err == nil {
		return a.String()
	}
	return strings.ToLower(name)
}

// cookiePath is what takes the place of a Path. domain is the cookie's own, host that of the origin.
func (r *reversal) cookiePath(domain, host, path string) (string, bool) {
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	if r.m.Rule.reverse && (domain == "" || domain == host || domain == r.clientName()) {
		if b, n, ok := r.own(path); ok {
			return join(b.path, path[n:]), true
		}
	}
	if domain != "" && domain != host {
		return "", false
	}
	if b, n := r.t.back.find(r.origin, path); b != nil {
		return join(b.path, path[n:]), true
	}
	return "", false
}

// join puts a path behind a base; together they are at least a slash.
func join(base, rest string) string {
	if base == "" && rest == "" {
		return "/"
	}
	return base + rest
}
