package remap

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A Kind is what a rule does.
type Kind uint8

// The kinds of rules that a look-up finds.
const (
	Map               Kind = iota // ask the origin
	Redirect                      // answer 301
	RedirectTemporary             // answer 307
)

// kinds by the names of the original's remap.config.
var kinds = map[string]struct {
	kind    Kind
	regex   bool
	reverse bool
}{
	"":                         {},
	"map":                      {},
	"redirect":                 {kind: Redirect},
	"redirect_temporary":       {kind: RedirectTemporary},
	"reverse_map":              {reverse: true},
	"regex_map":                {regex: true},
	"regex_redirect":           {kind: Redirect, regex: true},
	"regex_redirect_temporary": {kind: RedirectTemporary, regex: true},
}

// A Spec is a rule as the configuration says it.
type Spec struct {
	Type   string  // "": a map
	Prefix string  // `/path` or `http://host[:port]/path`; of a regex the host is one
	Path   string  // of a regex: what the path must match; "": anything
	Origin string  // `http://host[:port][/path]`, `group:NAME[/path]` or Builtin; of others than maps where they lead
	Policy *Policy // nil: as for all
	// Reverse: what responses of a map say of where they are is rewritten to lead back here.
	Reverse bool
}

// A Rule is one rule of a Table. Immutable.
type Rule struct {
	Name   string // its prefix as in the configuration, for logs
	Kind   Kind
	Origin *Origin // of a map; nil if it depends on the request
	Policy *Policy // never nil

	to      string   // of a redirect: where
	prefix  string   // the path of the prefix, without the slash at its end
	reverse bool     // see Spec
	pattern *pattern // of a regex
}

// A Match is the answer of a look-up.
type Match struct {
	Rule   *Rule
	Origin *Origin // where the request goes; nil for a redirect
	Prefix int     // bytes of the request's path that the origin's path replaces
	to     string  // of a redirect
	climbs bool    // the rule that is for the request leads out of where it may; never seen outside
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
	hosts    map[string]*paths // by host:port or host in lower case
	port80   bool              // some of them name port 80
	patterns patterns          // rules whose host is an expression
	any      *paths            // rules without a host
	back     reverseMap
}

// paths are the rules of one host.
type paths struct {
	rules   map[string]*Rule   // by prefix without the slash at its end
	regexes map[string][]*Rule // those that have an expression of the path, likewise; nil: none
	longest int                // bytes of the longest prefix
}

// New makes a table. The error names the rule that is wrong.
func New(rules []Spec) (*Table, error) {
	t := &Table{hosts: map[string]*paths{}, any: newPaths()}
	origins := map[string]*Origin{}
	for i := range rules {
		if err := t.add(&rules[i], origins); err != nil {
			kind := rules[i].Type
			if kind == "" {
				kind = "map"
			}
			return nil, fmt.Errorf("%s %s: %w", kind, rules[i].Prefix, err)
		}
	}
	return t, nil
}

func newPaths() *paths { return &paths{rules: map[string]*Rule{}} }

// add makes a rule of a spec. Rules with one origin share it in origins.
func (t *Table) add(s *Spec, origins map[string]*Origin) error {
	k, ok := kinds[s.Type]
	switch {
	case !ok:
		return fmt.Errorf("there are no such rules")
	case k.reverse:
		return t.back.add(s.Prefix, s.Origin)
	}
	r := &Rule{Name: s.Prefix, Kind: k.kind, Policy: s.Policy, reverse: s.Reverse}
	if r.Policy == nil {
		r.Policy = &noPolicy
	}
	if k.regex {
		return t.addRegex(s, r)
	}
	if r.Kind != Map {
		r.to = s.Origin
		if err := checkTo(r.to); err != nil {
			return err
		}
	} else {
		o := origins[s.Origin]
		if o == nil {
			var err error
			if o, err = ParseOrigin(s.Origin); err != nil {
				return err
			}
			origins[s.Origin] = o
		}
		r.Origin = o
	}
	host, path, err := splitPrefix(s.Prefix)
	if err != nil {
		return err
	}
	return t.pathsOf(host).add(normalPrefix(path), r)
}

// normalPrefix is the path of a prefix, without the slash at its end, with its encodings as in paths that are looked
// up. The configuration allows no dot segments in it.
func normalPrefix(path string) string {
	return string(appendEncoded(nil, []byte(strings.TrimSuffix(path, "/"))))
}

// checkTo checks where a redirect leads.
func checkTo(to string) error {
	if strings.HasPrefix(to, "/") || strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://") {
		return nil
	}
	return fmt.Errorf("a redirect leads to http[s]://host[:port][/path] or /path, not to %q", to)
}

// splitPrefix takes a prefix apart: host[:port] in lower case, "" for any, and the path without the slash at its end.
func splitPrefix(prefix string) (host, path string, err error) {
	path = prefix
	if rest, ok := cutScheme(prefix); ok {
		host, path, _ = strings.Cut(rest, "/")
		if host == "" {
			return "", "", fmt.Errorf("the prefix has no host")
		}
		host, path = strings.ToLower(host), "/"+path
	}
	if !strings.HasPrefix(path, "/") {
		return "", "", fmt.Errorf("a prefix is /path or http://host/path")
	}
	return host, strings.TrimSuffix(path, "/"), nil
}

// pathsOf returns the rules of a host, to add to them.
func (t *Table) pathsOf(host string) *paths {
	if host == "" {
		return t.any
	}
	p := t.hosts[host]
	if p == nil {
		p = newPaths()
		t.hosts[host] = p
		t.port80 = t.port80 || strings.HasSuffix(host, ":80")
	}
	return p
}

func (p *paths) add(path string, r *Rule) error {
	if _, twice := p.rules[path]; twice {
		return fmt.Errorf("there is another rule for this prefix")
	}
	p.rules[path] = r
	r.prefix = path
	p.longest = max(p.longest, len(path))
	return nil
}

// Lookup finds the rule for a request's host, as the client sent it, and path.
// ok is false when no rule applies. It does not allocate for hosts of up to
// 256 bytes, unless the rule that applies is a regex.
//
// A regex rule of whose groups dot segments would come applies to nothing. The rules behind it
// are not asked then, since what it says of the request (who may make it, for one) would be got round.
func (t *Table) Lookup(host, path []byte) (m Match, ok bool) {
	m, ok = t.lookup(host, path)
	if m.climbs {
		return Match{}, false
	}
	return m, ok
}

func (t *Table) lookup(host, path []byte) (m Match, ok bool) {
	if len(host) > 0 && (len(t.hosts) > 0 || t.patterns.rules > 0) {
		var lower [256 + len(":80")]byte
		if m, ok = t.lookupHost(appendLower(lower[:0], host), path); ok {
			return m, true
		}
	}
	return t.any.lookup(nil, nil, path)
}

// lookupHost finds the rule among those that name a host: first those that name its port, too.
func (t *Table) lookupHost(h, path []byte) (m Match, ok bool) {
	name := withoutPort(h)
	full := h
	if len(name) == len(h) {
		full = nil
		if t.port80 {
			full = append(h, ":80"...)
		}
	}
	if full != nil {
		if p := t.hosts[string(full)]; p != nil {
			if m, ok = p.lookup(name, nil, path); ok {
				return m, true
			}
		}
	}
	if p := t.hosts[string(name)]; p != nil {
		if m, ok = p.lookup(name, nil, path); ok {
			return m, true
		}
	}
	if t.patterns.rules > 0 {
		return t.patterns.lookup(name, portOf(h, name), path)
	}
	return m, false
}

// portOf is the port of a host that was cut to its name; 80 without one.
func portOf(h, name []byte) int {
	if len(h) <= len(name)+1 {
		return 80
	}
	n, err := strconv.Atoi(string(h[len(name)+1:]))
	if err != nil {
		return 0
	}
	return n
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

// lookup finds the rule with the longest prefix; of several for one prefix the first regex whose path matches, and
// then the one without an expression. groups are those of the host's expression, if it is one.
func (p *paths) lookup(host []byte, groups [][]byte, path []byte) (Match, bool) {
	n := len(path)
	if n > p.longest {
		// The longest prefix that can match ends at a slash no later than here.
		n = bytes.LastIndexByte(path[:p.longest+1], '/')
	} else if n > 0 && path[n-1] == '/' {
		n--
	}
	for n >= 0 {
		if p.regexes != nil {
			for _, r := range p.regexes[string(path[:n])] {
				if m, ok := r.match(host, groups, path, n); ok {
					return m, true
				}
			}
		}
		if r := p.rules[string(path[:n])]; r != nil {
			if r.pattern != nil {
				return r.match(host, groups, path, n)
			}
			return Match{Rule: r, Origin: r.Origin, Prefix: n, to: r.to}, true
		}
		n = bytes.LastIndexByte(path[:n], '/')
	}
	return Match{}, false
}

// AppendTarget appends the path that the origin is asked for.
func (m *Match) AppendTarget(dst, path []byte) []byte {
	return m.appendPath(dst, m.Origin.Path, path)
}

// appendPath appends the request's path with base in the place of the prefix.
func (m *Match) appendPath(dst []byte, base string, path []byte) []byte {
	dst = append(dst, base...)
	rest := path[m.Prefix:]
	if len(rest) == 0 && base == "" {
		return append(dst, '/')
	}
	return append(dst, rest...)
}

// Redirect is the status that a redirect answers with; 0 if the rule is none.
func (m *Match) Redirect() int {
	if m.Rule == nil {
		return 0
	}
	switch m.Rule.Kind {
	case Redirect:
		return 301
	case RedirectTemporary:
		return 307
	}
	return 0
}

// AppendLocation appends where a redirect leads a request: what stands behind
// the rule's prefix is kept, and the query, unless the rule has a query itself.
// query begins with its "?", if there is one.
func (m *Match) AppendLocation(dst, path, query []byte) []byte {
	start := len(dst)
	asks := strings.IndexByte(m.to, '?') >= 0
	if asks || m.Prefix == len(path) {
		dst = append(dst, m.to...)
	} else {
		dst = m.appendPath(dst, strings.TrimSuffix(m.to, "/"), path)
	}
	if m.to[0] == '/' {
		// A path that begins with two slashes would name another host (RFC 3986 §4.2).
		for len(dst) > start+1 && dst[start+1] == '/' {
			dst = append(dst[:start], dst[start+1:]...)
		}
	}
	if asks {
		return dst
	}
	return append(dst, query...)
}
