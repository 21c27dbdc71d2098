package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Types of a Mapping, by the names of the original's remap.config.
const (
	MapRule                   = "map"                      // ask the origin
	ReverseMap                = "reverse_map"              // rewrite what responses say of where they are
	Redirect                  = "redirect"                 // answer 301
	RedirectTemporary         = "redirect_temporary"       // answer 307
	RegexMap                  = "regex_map"                // the same, by a regular expression of the host
	RegexRedirect             = "regex_redirect"           // likewise
	RegexRedirectForNow       = "regex_redirect_temporary" // likewise
	maxExpression       int64 = 1024                       // bytes of a regular expression
)

// A Mapping is a remap rule: it sends what begins with Prefix to Origin. Prefix and origin are canonical.
type Mapping struct {
	Prefix string `json:"prefix"` // "/path", "http://host/path" or "http://host:port/path"; the host of a regex is one
	// Origin is "http://host[:port][/path]", "group:NAME[/path]" or "builtin:"; of a redirect or a reverse map, where it leads:
	// "http[s]://host[:port][/path]" or "/path". That of a regex may hold $0 to $9.
	Origin string `json:"origin"`
	Type   string `json:"type,omitempty"` // "": MapRule
	Path   string `json:"path,omitempty"` // of a regex: what the whole path must match; "": anything
	RuleOptions
}

// RuleOptions are what a rule wants otherwise than the settings say for all. A nil pointer and a zero say nothing.
type RuleOptions struct {
	Reverse              bool           `json:"reverse,omitempty"`
	Allow                []netip.Prefix `json:"allow,omitempty"`
	PreserveHost         *bool          `json:"preserve_host,omitempty"`
	Cache                *bool          `json:"cache,omitempty"`
	TTL                  time.Duration  `json:"ttl,omitempty"`
	DefaultTTL           time.Duration  `json:"default_ttl,omitempty"`
	Heuristic            *bool          `json:"heuristic,omitempty"`
	IgnoreClientNoCache  bool           `json:"ignore_client_no_cache,omitempty"`
	IgnoreQuery          bool           `json:"ignore_query,omitempty"`
	MaxObjectSize        int64          `json:"max_object_size,omitempty"`
	StoreCookies         *bool          `json:"store_cookies,omitempty"`
	StaleIfError         *time.Duration `json:"stale_if_error,omitempty"`         // 0: never
	StaleWhileRevalidate *time.Duration `json:"stale_while_revalidate,omitempty"` // 0: never
	ConnectTimeout       time.Duration  `json:"connect_timeout,omitempty"`
	ResponseTimeout      time.Duration  `json:"response_timeout,omitempty"`
}

// A ruleKey is a key of an entry of map beside its prefix and where it leads. It is written and checked like a setting.
type ruleKey struct {
	Setting
	of    []string             // types of rules that have it
	field func(m *Mapping) any // pointer to the field
}

var (
	regexTypes    = []string{RegexMap, RegexRedirect, RegexRedirectForNow}
	redirectTypes = []string{Redirect, RedirectTemporary, RegexRedirect, RegexRedirectForNow}
	mapTypes      = []string{MapRule, RegexMap}
	ruleTypes     = []string{MapRule, ReverseMap, Redirect, RedirectTemporary, RegexMap, RegexRedirect, RegexRedirectForNow}
)

// ruleKeys are all of them, in the order in which they are written out. The type comes first.
var ruleKeys = []ruleKey{
	{Setting{Name: "type", Kind: Choice, Choices: ruleTypes, Help: "what the rule does"},
		ruleTypes, func(m *Mapping) any { return &m.Type }},
	{Setting{Name: "path", Kind: Expression, Max: maxExpression, Help: "regular expression that the whole path must match; its groups are numbered behind those of the host"},
		regexTypes, func(m *Mapping) any { return &m.Path }},
	{Setting{Name: "reverse", Kind: Switch, Help: "rewrite Location, Content-Location, Refresh and the cookies' Domain and Path of the responses, so that they lead back here"},
		mapTypes, func(m *Mapping) any { return &m.Reverse }},
	{Setting{Name: "allow", Kind: Networks, Max: 1000, Help: "clients the rule is for; others get 403"},
		slices.Concat(mapTypes, redirectTypes), func(m *Mapping) any { return &m.Allow }},
	{Setting{Name: "preserve_host", Kind: Switch, Help: "the origin sees the client's Host; false: its own name"},
		mapTypes, func(m *Mapping) any { return &m.PreserveHost }},
	{Setting{Name: "cache", Kind: Switch, Help: "false: nothing is stored, and nothing answered from the cache"},
		mapTypes, func(m *Mapping) any { return &m.Cache }},
	{Setting{Name: "ttl", Kind: Duration, Min: ms, Max: 3650 * day, Help: "time for which a response that may be stored is fresh, whatever it says"},
		mapTypes, func(m *Mapping) any { return &m.TTL }},
	{Setting{Name: "default_ttl", Kind: Duration, Min: ms, Max: 3650 * day, Help: "time for which a response is fresh that does not say"},
		mapTypes, func(m *Mapping) any { return &m.DefaultTTL }},
	{Setting{Name: "heuristic", Kind: Switch, Help: "guess how long a response is fresh that does not say"},
		mapTypes, func(m *Mapping) any { return &m.Heuristic }},
	{Setting{Name: "ignore_client_no_cache", Kind: Switch, Help: "a client's no-cache does not reach the origin while the stored response is fresh"},
		mapTypes, func(m *Mapping) any { return &m.IgnoreClientNoCache }},
	{Setting{Name: "ignore_query", Kind: Switch, Help: "requests that differ in the query alone have one response"},
		mapTypes, func(m *Mapping) any { return &m.IgnoreQuery }},
	{Setting{Name: "max_object_size", Kind: Size, Min: 1, Max: 1 << 44, Help: "largest response body that is stored, cache.max_object_size at most"},
		mapTypes, func(m *Mapping) any { return &m.MaxObjectSize }},
	{Setting{Name: "store_cookies", Kind: Switch, Help: "whether a response with Set-Cookie may be stored"},
		mapTypes, func(m *Mapping) any { return &m.StoreCookies }},
	{Setting{Name: "stale_if_error", Kind: Duration, Max: 3650 * day, Help: "time for which a stale response serves while the origin fails"},
		mapTypes, func(m *Mapping) any { return &m.StaleIfError }},
	{Setting{Name: "stale_while_revalidate", Kind: Duration, Max: 3650 * day, Help: "time for which a stale response serves while it is validated"},
		mapTypes, func(m *Mapping) any { return &m.StaleWhileRevalidate }},
	{Setting{Name: "connect_timeout", Kind: Duration, Min: 10 * ms, Max: hour, Help: "time to connect to the origin"},
		mapTypes, func(m *Mapping) any { return &m.ConnectTimeout }},
	{Setting{Name: "response_timeout", Kind: Duration, Min: 10 * ms, Max: day, Help: "time the origin has to begin its answer"},
		mapTypes, func(m *Mapping) any { return &m.ResponseTimeout }},
}

// entryKeys are all keys of an entry of map.
func entryKeys() []string {
	keys := []string{"prefix", "origin", "to"}
	for i := range ruleKeys {
		keys = append(keys, ruleKeys[i].Name)
	}
	return keys
}

func lookupRuleKey(name string) *ruleKey {
	for i := range ruleKeys {
		if ruleKeys[i].Name == name {
			return &ruleKeys[i]
		}
	}
	return nil
}

// An option is the value of a ruleKey as it was written.
type option struct {
	key    *ruleKey
	values []element
	at     place
}

// Kind is the type of the rule, with its default.
func (m *Mapping) kind() string {
	if m.Type == "" {
		return MapRule
	}
	return m.Type
}

// target is how the type calls where the rule leads.
func (m *Mapping) target() string {
	if slices.Contains(mapTypes, m.kind()) {
		return "origin"
	}
	return "to"
}

// String is the rule as one line of YAML, from which it can be read again; of a plain one the form of the command line,
// PREFIX=ORIGIN.
func (m Mapping) String() string {
	if len(m.options()) == 0 {
		return m.Prefix + "=" + m.Origin
	}
	return m.flow()
}

// flow is the rule as a flow mapping of YAML.
func (m *Mapping) flow() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{prefix: %q, %s: %q", m.Prefix, m.target(), m.Origin)
	for _, o := range m.options() {
		switch o.key.Kind {
		case Networks:
			fmt.Fprintf(&b, ", %s: [", o.key.Name)
			for i, v := range o.values {
				if i > 0 {
					b.WriteString(", ")
				}
				b.WriteString(strconv.Quote(v.text))
			}
			b.WriteByte(']')
		case Expression:
			fmt.Fprintf(&b, ", %s: %q", o.key.Name, o.values[0].text)
		default:
			fmt.Fprintf(&b, ", %s: %s", o.key.Name, o.values[0].text)
		}
	}
	b.WriteByte('}')
	return b.String()
}

// options are those that m has, as they could be read again.
func (m *Mapping) options() (list []option) {
	for i := range ruleKeys {
		k := &ruleKeys[i]
		var es []element
		switch p := k.field(m).(type) {
		case **bool:
			if *p != nil {
				es = texts(strconv.FormatBool(**p))
			}
		case **time.Duration:
			if *p != nil {
				es = texts(formatDuration(**p))
			}
		case *bool:
			if *p {
				es = texts("true")
			}
		case *string:
			if *p != "" {
				es = texts(*p)
			}
		case *int64:
			if *p != 0 {
				es = texts(FormatSize(*p))
			}
		case *time.Duration:
			if *p != 0 {
				es = texts(formatDuration(*p))
			}
		case *[]netip.Prefix:
			es = texts(formatNetworks(*p)...)
		}
		if es != nil {
			list = append(list, option{key: k, values: es})
		}
	}
	return list
}

// assignOption stores the value of a key.
func (m *Mapping) assignOption(o option) []Problem {
	k := o.key
	bad := func(at place, err error) []Problem {
		if at == (place{}) {
			at = o.at
		}
		return []Problem{{place: at, Msg: fmt.Sprintf("%s %v", k.Name, err)}}
	}
	if p, ok := k.field(m).(*[]netip.Prefix); ok {
		ps := assignList(&k.Setting, p, o.values, ParseNetwork)
		for i := range ps {
			ps[i] = bad(ps[i].place, fmt.Errorf("%s", ps[i].Msg))[0]
		}
		if ps == nil && len(*p) == 0 {
			return bad(o.at, fmt.Errorf("must have at least one network: nobody could use the rule"))
		}
		return ps
	}
	if len(o.values) != 1 {
		return bad(o.at, fmt.Errorf("must be one value, not a list"))
	}
	v := o.values[0]
	var err error
	switch p := k.field(m).(type) {
	case **bool:
		on := false
		err = k.assignScalar(&on, v.text)
		*p = &on
	case **time.Duration:
		d := time.Duration(0)
		err = k.assignScalar(&d, v.text)
		*p = &d
	default:
		err = k.assignScalar(p, v.text)
	}
	if err != nil {
		return bad(v.at, err)
	}
	return nil
}

// parseMapping reads a rule and checks it as far as it can be without the others.
func parseMapping(e element) (Mapping, []Problem) {
	var m Mapping
	var ps []Problem
	for _, o := range e.options {
		if o.key.Name == "type" {
			ps = append(ps, m.assignOption(o)...)
		}
	}
	if len(ps) > 0 {
		return Mapping{}, ps // what the rest means depends on it
	}
	for _, o := range e.options {
		switch {
		case o.key.Name == "type":
		case !slices.Contains(o.key.of, m.kind()):
			ps = append(ps, Problem{place: o.at, Msg: fmt.Sprintf("%s has no %s", m.kind(), o.key.Name)})
		default:
			ps = append(ps, m.assignOption(o)...)
		}
	}
	if m.Type == MapRule {
		m.Type = ""
	}
	if !e.pair {
		e.text, e.origin = splitMapping(e.text)
		e.originAt = e.at
	}
	if e.target != "" && e.target != m.target() {
		ps = append(ps, Problem{place: e.originAt, Msg: fmt.Sprintf("%s has %q, not %q", m.kind(), m.target(), e.target)})
		return Mapping{}, ps
	}
	report := func(at place, err error) {
		if err != nil {
			ps = append(ps, Problem{place: at, Msg: err.Error()})
		}
	}
	var err error
	if slices.Contains(regexTypes, m.kind()) {
		groups := 0
		m.Prefix, groups, err = parseRegexPrefix(e.text, m.Path)
		report(e.at, err)
		if err == nil { // otherwise the number of groups is not known
			m.Origin, err = parseTemplate(e.origin, m.target(), groups)
			report(e.originAt, err)
		}
	} else {
		m.Prefix, err = m.parsePrefix(e.text)
		report(e.at, err)
		m.Origin, err = m.parseTarget(e.origin)
		report(e.originAt, err)
	}
	if ps != nil {
		return Mapping{}, ps
	}
	return m, nil
}

// parsePrefix reads the prefix of a rule that is no regex.
func (m *Mapping) parsePrefix(text string) (string, error) {
	p, err := parsePrefix(text)
	if err != nil {
		return "", err
	}
	if m.kind() == ReverseMap && p.host == "" {
		return "", fmt.Errorf("prefix of a reverse_map must be http://host[:port]/path: what the origin says of itself")
	}
	return p.String(), nil
}

func (m *Mapping) parseTarget(text string) (string, error) {
	if m.target() == "to" {
		return text, checkRedirect(text)
	}
	o, err := parseOrigin(text)
	if err == nil && text == Builtin {
		return Builtin, nil
	}
	return o.String(), err
}

// checkRedirect checks where a redirect or a reverse map leads.
func checkRedirect(text string) error {
	const form = "to must be http[s]://host[:port][/path] or /path"
	if text == "" {
		return fmt.Errorf("to is missing, must be http[s]://host[:port][/path] or /path")
	}
	path := text
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			path = ""
			if i := strings.IndexAny(rest, "/?"); i >= 0 {
				rest, path = rest[:i], rest[i:]
			}
			if _, err := parseAuthority("to", rest); err != nil {
				return err
			}
			if path == "" {
				return nil
			}
		}
	}
	if path == text && (path[0] != '/' || strings.HasPrefix(path, "//")) {
		return fmt.Errorf("%s", form)
	}
	path, query, _ := strings.Cut(path, "?")
	if strings.IndexFunc(query, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>#", r) }) >= 0 {
		return fmt.Errorf("to has a character in its query that must be percent-encoded")
	}
	return checkPath("to", path)
}

// parseRegexPrefix checks http://REGEX[:port]/path, or /path for any host, and the expression of the path. It returns
// the number of groups of both.
func parseRegexPrefix(text, path string) (prefix string, groups int, err error) {
	host, port, rest, err := SplitRegexPrefix(text)
	if err != nil {
		return "", 0, err
	}
	if err := checkPath("prefix", rest); err != nil {
		return "", 0, err
	}
	for _, part := range []struct{ what, expr string }{{"prefix", host}, {"path", path}} {
		if part.expr == "" {
			continue
		}
		if int64(len(part.expr)) > maxExpression {
			return "", 0, fmt.Errorf("%s has a regular expression of more than %d bytes", part.what, maxExpression)
		}
		re, err := regexp.Compile(part.expr)
		if err != nil {
			return "", 0, fmt.Errorf("%s has a malformed regular expression: %v", part.what, err)
		}
		groups += re.NumSubexp()
	}
	if host == "" {
		return rest, groups, nil
	}
	if port != 0 {
		host += ":" + strconv.Itoa(port)
	}
	return "http://" + host + rest, groups, nil
}

// SplitRegexPrefix takes the prefix of a regex rule apart: the expression of the host ("" for any), the port (0 for
// any) and the path. The expression ends at the first slash, and a number behind its last colon is the port.
func SplitRegexPrefix(text string) (host string, port int, path string, err error) {
	if strings.HasPrefix(text, "/") {
		return "", 0, text, nil
	}
	rest, ok := strings.CutPrefix(text, "http://")
	if !ok {
		return "", 0, "", fmt.Errorf("prefix must be http://REGEX[:port]/path, or /path for any host")
	}
	host, path, _ = strings.Cut(rest, "/")
	path = "/" + path
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		if n, err := parseCount(host[i+1:]); err == nil && n >= 1 && n <= 65535 {
			host, port = host[:i], int(n)
		}
	}
	if host == "" {
		return "", 0, "", fmt.Errorf("prefix has no host")
	}
	return host, port, path, nil
}

// parseTemplate checks an origin or a redirect that may hold $0 to $9, with a letter in their place.
func parseTemplate(text, target string, groups int) (string, error) {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' {
			plain.WriteByte(text[i])
			continue
		}
		if i++; i == len(text) || text[i] < '0' || text[i] > '9' {
			return "", fmt.Errorf("%s has a $ without a digit: $0 to $9 are the groups of the expressions", target)
		}
		if n := int(text[i] - '0'); n > groups {
			return "", fmt.Errorf("%s has $%d, but the expressions have %d groups", target, n, groups)
		}
		plain.WriteByte('x')
	}
	if target == "to" {
		return text, checkRedirect(plain.String())
	}
	_, err := parseOrigin(plain.String())
	return text, err
}

// identity is what no two rules may have in common.
func (m *Mapping) identity() string {
	prefix := strings.TrimSuffix(m.Prefix, "/")
	switch {
	case m.Type == ReverseMap:
		return ReverseMap + " " + prefix
	case slices.Contains(regexTypes, m.Type):
		return "regex " + normalEncodings(prefix) + " " + m.Path
	}
	return normalEncodings(prefix)
}

var percentEncoding = regexp.MustCompile("%[0-9A-Fa-f]{2}")

// normalEncodings writes percent-encodings in the one way in which a server compares them (RFC 3986 §6.2.2).
func normalEncodings(s string) string {
	return percentEncoding.ReplaceAllStringFunc(s, func(e string) string {
		c, _ := url.QueryUnescape(e)
		if url.QueryEscape(c) == c { // it leaves what is unreserved
			return c
		}
		return strings.ToUpper(e)
	})
}
