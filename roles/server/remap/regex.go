package remap

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// A pattern is what a regex rule has beyond a literal one.
type pattern struct {
	named    bool           // the prefix has a host: $0 is the host, and otherwise the path
	path     *regexp.Regexp // of the whole path; nil: anything behind the prefix
	to       template       // its origin or redirect
	keepPath bool           // to has no path: that of the request stays
	inHost   int            // so many of the first groups of to are in its authority
}

// A template is a text with the places of $0 to $9 in it: parts[0] $groups[0] parts[1] …
type template struct {
	parts  []string
	groups []int
}

// parseTemplate reads a template of which the expressions have so many groups.
func parseTemplate(s string, groups int) (t template, err error) {
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			t.parts = append(t.parts, s)
			return t, nil
		}
		if i+1 == len(s) || s[i+1] < '0' || s[i+1] > '9' {
			return t, fmt.Errorf("there is a $ without a digit in %q", s)
		}
		n := int(s[i+1] - '0')
		if n > groups {
			return t, fmt.Errorf("there is no group $%d", n)
		}
		t.parts, t.groups = append(t.parts, s[:i]), append(t.groups, n)
		s = s[i+2:]
	}
}

// inAuthority is how many of the groups, the first ones, stand in the authority of a URL, or before it.
func (t *template) inAuthority() int {
	before := ""
	for i, part := range t.parts {
		before += part
		if _, rest, ok := strings.Cut(before, "://"); !ok && strings.ContainsAny(before, "/:") || ok && strings.ContainsAny(rest, "/?#") {
			return i
		}
	}
	return len(t.groups)
}

func (t *template) expand(groups [][]byte) string {
	var b strings.Builder
	for i, part := range t.parts {
		b.WriteString(part)
		if i < len(t.groups) {
			b.Write(groups[t.groups[i]])
		}
	}
	return b.String()
}

// addRegex adds a regex rule. One whose host is no expression after all belongs to that host.
func (t *Table) addRegex(s *Spec, r *Rule) error {
	expr, port, path, err := splitRegexPrefix(s.Prefix)
	if err != nil {
		return err
	}
	r.prefix = normalPrefix(path)
	r.pattern = &pattern{named: expr != ""}
	groups := 0
	if s.Path != "" {
		if r.pattern.path, err = regexp.Compile("^(?:" + s.Path + ")$"); err != nil {
			return err
		}
		groups = r.pattern.path.NumSubexp()
	}
	p := t.any
	if expr != "" {
		h, err := t.patterns.host(expr, port)
		if err != nil {
			return err
		}
		groups += h.re.NumSubexp()
		p = h.paths
		if host, ok := h.literal(); ok {
			p = t.pathsOf(withPort(host, port))
		} else {
			t.patterns.keep(h)
		}
	}
	if r.pattern.to, err = parseTemplate(s.Origin, groups); err != nil {
		return err
	}
	r.pattern.inHost = r.pattern.to.inAuthority()
	_, behind, absolute := strings.Cut(s.Origin, "://")
	r.pattern.keepPath = absolute && !strings.ContainsAny(behind, "/?")
	switch {
	case r.Kind != Map:
		r.to, err = s.Origin, checkTo(s.Origin)
	case len(r.pattern.to.groups) == 0:
		r.Origin, err = r.pattern.origin(s.Origin)
	}
	if err != nil {
		return err
	}
	if r.pattern.path == nil {
		return p.add(r.prefix, r)
	}
	if p.regexes == nil {
		p.regexes = map[string][]*Rule{}
	}
	p.regexes[r.prefix] = append(p.regexes[r.prefix], r)
	p.longest = max(p.longest, len(r.prefix))
	return nil
}

func withPort(host string, port int) string {
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}

// splitRegexPrefix takes http://REGEX[:port]/path apart. The expression ends at the first slash.
func splitRegexPrefix(prefix string) (expr string, port int, path string, err error) {
	if strings.HasPrefix(prefix, "/") {
		return "", 0, prefix, nil
	}
	rest, ok := cutScheme(prefix)
	if !ok {
		return "", 0, "", fmt.Errorf("a prefix is /path or http://REGEX[:port]/path")
	}
	expr, path, _ = strings.Cut(rest, "/")
	if i := strings.LastIndexByte(expr, ':'); i >= 0 {
		if n, err := parsePort(expr[i+1:]); err == nil {
			expr, port = expr[:i], int(n)
		}
	}
	if expr == "" {
		return "", 0, "", fmt.Errorf("the prefix has no host")
	}
	return expr, port, "/" + path, nil
}

// match reports whether a regex rule that is found by n bytes of the path
// applies. groups are those of the host's expression; nil: it has none.
func (r *Rule) match(host []byte, groups [][]byte, path []byte, n int) (m Match, ok bool) {
	p := r.pattern
	m = Match{Rule: r, Origin: r.Origin, Prefix: n, to: r.to}
	if p.path != nil {
		found := p.path.FindSubmatch(path)
		if found == nil {
			return Match{}, false
		}
		m.Prefix = p.replaced(path)
		switch {
		case groups != nil:
			groups = append(groups, found[1:]...)
		case p.named:
			groups = append([][]byte{bytes.Clone(host)}, found[1:]...)
		default:
			groups = found
		}
	} else if groups == nil {
		groups = [][]byte{path}
		if p.named {
			groups[0] = bytes.Clone(host)
		}
	}
	if len(p.to.groups) == 0 {
		return m, true
	}
	for _, g := range p.to.groups[:p.inHost] {
		if bytes.ContainsAny(groups[g], `/?#@\`) {
			return Match{}, false // it would end the host, and make another one of what it begins with
		}
	}
	to := p.to.expand(groups)
	if climbs(to) {
		return Match{climbs: true}, true
	}
	if r.Kind != Map {
		m.to = to
		return m, true
	}
	o, err := p.origin(to)
	if err != nil || !plainHost(o.Host) {
		return Match{}, false // what the client sent makes no host
	}
	m.Origin = o
	return m, true
}

// climbs reports whether the path of a URL that holds what a client sent has dot segments (RFC 3986 §5.2.4). A request's own path
// has none any more, but a group may be dots of a host or of a longer segment, and what stands before it in a template
// is then not where it leads.
func climbs(to string) bool {
	if _, rest, absolute := strings.Cut(to, "://"); absolute {
		_, to, _ = strings.Cut(rest, "/")
	} else if rest, ok := strings.CutPrefix(to, Group); ok {
		_, to, _ = strings.Cut(rest, "/")
	}
	if i := strings.IndexAny(to, "?#"); i >= 0 {
		to = to[:i]
	}
	for segment := range strings.SplitSeq(to, "/") {
		if isDots(segment) {
			return true
		}
	}
	return false
}

// replaced is how much of a path gives way to that of the origin, or of where a redirect leads: all of it if the
// rule has an expression for it, and nothing if what takes its place has no path.
func (p *pattern) replaced(path []byte) int {
	if p.keepPath {
		return 0
	}
	return len(path)
}

// origin reads the origin of a rule. A path that takes the place of the whole path keeps the slash at its end.
func (p *pattern) origin(s string) (*Origin, error) {
	o, err := ParseOrigin(s)
	if err == nil && p.path != nil && o.Path != "" && strings.HasSuffix(s, "/") {
		o.Path += "/"
	}
	return o, err
}

// plainHost reports whether a host that holds what a client sent is a name or an address.
func plainHost(host string) bool {
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}

// patterns are the rules whose host is an expression, by the end that every
// host has which the expression matches: of ten thousand rules for as many
// domains only those of the request's own are looked at.
type patterns struct {
	rules int
	all   map[string]*hostPattern   // by expression and port
	tails map[string][]*hostPattern // by the last labels that the expression says literally; "": it says none
}

// A hostPattern is an expression of a host and the rules that have it.
type hostPattern struct {
	re     *regexp.Regexp
	port   int    // 0: any
	rank   int    // its place in the configuration
	prefix string // what every host begins with
	suffix string // what every host ends with
	whole  bool   // prefix is all there is
	paths  *paths
}

// host returns the pattern of an expression and port.
func (ps *patterns) host(expr string, port int) (*hostPattern, error) {
	key := withPort(expr, port)
	if h := ps.all[key]; h != nil {
		return h, nil
	}
	re, err := regexp.Compile("^(?i:" + expr + ")$")
	if err != nil {
		return nil, err
	}
	h := &hostPattern{re: re, port: port, paths: newPaths()}
	h.analyse(expr)
	return h, nil
}

// keep makes a pattern one that is looked at.
func (ps *patterns) keep(h *hostPattern) {
	expr := strings.TrimSuffix(strings.TrimPrefix(h.re.String(), "^(?i:"), ")$")
	key := withPort(expr, h.port)
	ps.rules++
	if ps.all[key] != nil {
		return
	}
	if ps.all == nil {
		ps.all, ps.tails = map[string]*hostPattern{}, map[string][]*hostPattern{}
	}
	h.rank = len(ps.all)
	ps.all[key] = h
	tail := tailOf(h.suffix)
	ps.tails[tail] = append(ps.tails[tail], h)
}

// maxTail is the number of labels that patterns are found by.
const maxTail = 4

// tailOf is the whole labels at the end of a suffix, maxTail at most.
func tailOf(suffix string) string {
	dots := 0
	for i := len(suffix) - 1; i >= 0; i-- {
		if suffix[i] == '.' {
			if dots++; dots == maxTail {
				return suffix[i+1:]
			}
		}
	}
	// What stands before the first dot may be the end of a longer label.
	if _, tail, ok := strings.Cut(suffix, "."); ok {
		return tail
	}
	return ""
}

// literal is the only host that the expression matches, if there is only one.
func (h *hostPattern) literal() (string, bool) {
	return h.prefix, h.whole && h.re.NumSubexp() == 0
}

// analyse finds what every host begins and ends with.
func (h *hostPattern) analyse(expr string) {
	re, err := syntax.Parse("^(?i:"+expr+")$", syntax.Perl)
	if err != nil {
		return // it has been compiled: a bound of the parser's, and then every host is tried
	}
	parts := flatten(re.Simplify(), nil)
	first := 0
	for ; first < len(parts); first++ {
		text, ok := literalText(parts[first])
		if !ok {
			break
		}
		h.prefix += text
	}
	h.whole = first == len(parts)
	for i := len(parts) - 1; i >= 0; i-- {
		text, ok := literalText(parts[i])
		if !ok {
			break
		}
		h.suffix = text + h.suffix
	}
}

// flatten gives the parts of a concatenation, groups opened up.
func flatten(re *syntax.Regexp, parts []*syntax.Regexp) []*syntax.Regexp {
	switch re.Op {
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			parts = flatten(sub, parts)
		}
		return parts
	}
	return append(parts, re)
}

// literalText is the text that a part stands for, in lower case; "" for an anchor.
func literalText(re *syntax.Regexp) (string, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return strings.ToLower(string(re.Rune)), true
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpEmptyMatch:
		return "", true
	}
	return "", false
}

// lookup finds the first pattern, in the order of the configuration, that matches and has a rule for the path.
func (ps *patterns) lookup(name []byte, port int, path []byte) (Match, bool) {
	var lists [maxTail + 1][]*hostPattern
	n := 0
	add := func(l []*hostPattern) {
		if len(l) > 0 {
			lists[n], n = l, n+1
		}
	}
	add(ps.tails[""])
	for i, labels := len(name)-1, 0; labels < maxTail && i >= 0; i-- {
		if name[i] == '.' {
			add(ps.tails[string(name[i+1:])])
			labels++
		}
	}
	for {
		h := next(lists[:n])
		if h == nil {
			return Match{}, false
		}
		if m, ok := h.match(name, port, path); ok {
			return m, true
		}
	}
}

// next takes the pattern of the lowest rank off its list.
func next(lists [][]*hostPattern) *hostPattern {
	best := -1
	for i, l := range lists {
		if len(l) > 0 && (best < 0 || l[0].rank < lists[best][0].rank) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	h := lists[best][0]
	lists[best] = lists[best][1:]
	return h
}

// match reports whether the host matches and has a rule for the path.
func (h *hostPattern) match(name []byte, port int, path []byte) (Match, bool) {
	if h.port != 0 && h.port != port || len(name) < len(h.prefix) || string(name[:len(h.prefix)]) != h.prefix {
		return Match{}, false
	}
	// What is found lies in a copy, so that the host of a request that no regex is for can stay where it is.
	groups := h.re.FindSubmatch(bytes.Clone(name))
	if groups == nil {
		return Match{}, false
	}
	return h.paths.lookup(nil, groups, path)
}
