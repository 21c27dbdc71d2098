package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// An OriginGroup is several servers that hold the same: rules name it as group:NAME, and each request goes to one of
// them. Checked and complete: every default is filled in.
type OriginGroup struct {
	Name        string         `json:"name"`
	Servers     []OriginServer `json:"servers"` // in the order of preference
	Policy      string         `json:"policy"`  // RoundRobin, Strict, ConsistentHash, Latched
	RetryStatus []int          `json:"retry_status,omitempty"`
	Health      OriginHealth   `json:"health,omitzero"`
}

// An OriginServer is one of a group.
type OriginServer struct {
	Host   string `json:"host"` // lower case, no brackets: a name or an IP address
	Port   int    `json:"port"`
	Weight int    `json:"weight"` // its share of the requests, beside those of the others
}

// OriginHealth is how servers are asked whether they are well. The zero value: they are not asked.
type OriginHealth struct {
	Path     string        `json:"path"` // begins with "/"; "": no checks
	Host     string        `json:"host,omitempty"`
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
	Expect   string        `json:"expect"` // statuses that are good: "2xx,304"
	Rise     int           `json:"rise"`   // good answers in a row that bring a server back
	Fall     int           `json:"fall"`   // failed checks in a row that take it out
}

// Values of OriginGroup.Policy, by the names of the original's parent selection.
const (
	RoundRobin     = "round_robin"     // in turn, by weight
	Strict         = "strict"          // the first that is well
	ConsistentHash = "consistent_hash" // by URL; a death moves only the dead one's share
	Latched        = "latched"         // the same one until it fails, then the next
)

var policies = []string{RoundRobin, Strict, ConsistentHash, Latched}

// Bounds of a group.
const (
	maxServers = 64
	maxWeight  = 100
)

// Authority is host:port as a URL writes it.
func (s OriginServer) Authority() string {
	return strings.TrimPrefix(target{host: s.Host, port: s.Port}.String(), "http://")
}

// String is the group as one line of YAML, from which it can be read again.
func (g OriginGroup) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{name: %q, servers: [", g.Name)
	for i, s := range g.Servers {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "{url: %q, weight: %d}", "http://"+s.Authority(), s.Weight)
	}
	fmt.Fprintf(&b, "], policy: %s", g.Policy)
	if len(g.RetryStatus) > 0 {
		fmt.Fprintf(&b, ", retry_status: [%s]", strings.Join(numbers(g.RetryStatus), ", "))
	}
	if h := g.Health; h.Path != "" {
		fmt.Fprintf(&b, ", health: {path: %q", h.Path)
		if h.Host != "" {
			fmt.Fprintf(&b, ", host: %q", h.Host)
		}
		fmt.Fprintf(&b, ", interval: %s, timeout: %s, expect: %q, rise: %d, fall: %d}",
			formatDuration(h.Interval), formatDuration(h.Timeout), h.Expect, h.Rise, h.Fall)
	}
	b.WriteByte('}')
	return b.String()
}

func numbers(ns []int) []string {
	var out []string
	for _, n := range ns {
		out = append(out, strconv.Itoa(n))
	}
	return out
}

// assignGroups reads groups, each a YAML node of the file or a text of YAML.
func (s *Setting) assignGroups(p *[]OriginGroup, es []element) []Problem {
	var list []OriginGroup
	r := &groupReader{}
	for _, e := range es {
		r.outer = e.at
		for _, n := range r.nodes(e) {
			list = append(list, r.group(n))
		}
	}
	if int64(len(list)) > s.Max {
		r.report(nil, "has %d groups, at most %d are possible", len(list), s.Max)
	}
	seen := map[string]bool{}
	for _, g := range list {
		if g.Name != "" && seen[g.Name] {
			r.report(nil, "has the group %q twice", g.Name)
		}
		seen[g.Name] = true
	}
	if len(r.problems) == 0 {
		*p = list
	}
	return r.problems
}

// A groupReader reads groups and collects what is wrong with them.
type groupReader struct {
	outer    place // of the element; nodes of a file have their own below it
	problems []Problem
}

func (r *groupReader) report(n *yaml.Node, format string, args ...any) {
	at := r.outer
	if n != nil && at.from == FromFile {
		at.line, at.col = n.Line, n.Column
	}
	r.problems = append(r.problems, Problem{place: at, Msg: fmt.Sprintf(format, args...)})
}

// nodes gives the groups of an element: one, or a list.
func (r *groupReader) nodes(e element) []*yaml.Node {
	n := e.node
	if n == nil {
		doc, _, err := parseYAML([]byte(e.text))
		if err != nil || doc == nil || len(doc.Content) != 1 {
			r.report(nil, "must be a list of {name, servers, …} in YAML")
			return nil
		}
		n = doc.Content[0]
	}
	if n = deref(n); n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

// fields calls f for each key of a mapping, and reports keys that are not among valid.
func (r *groupReader) fields(n *yaml.Node, what string, valid []string, f func(key string, v *yaml.Node)) {
	m := deref(n)
	if m.Kind != yaml.MappingNode || m.Tag != "!!map" {
		r.report(n, "%s must be keys and values, not %s", what, kindOf(m))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], deref(m.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(valid, key.Value):
			msg := fmt.Sprintf("%s has the unknown key %q", what, clip(key.Value))
			if near := nearest(key.Value, valid); near != "" {
				msg += fmt.Sprintf(" (did you mean %q?)", near)
			}
			r.report(key, "%s", msg)
		case seen[key.Value]:
			r.report(key, "%s has the key %q twice", what, key.Value)
		default:
			seen[key.Value] = true
			f(key.Value, value)
		}
	}
}

// scalar gives the text of a value that is one.
func (r *groupReader) scalar(v *yaml.Node, what string) (string, bool) {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
		r.report(v, "%s must be one value, not %s", what, kindOf(v))
		return "", false
	}
	return v.Value, true
}

func (r *groupReader) group(n *yaml.Node) OriginGroup {
	g := OriginGroup{Policy: RoundRobin}
	valid := []string{"name", "servers", "policy", "retry_status", "health"}
	before := len(r.problems)
	r.fields(n, "a group", valid, func(key string, v *yaml.Node) {
		switch key {
		case "name":
			g.Name = r.name(v)
		case "servers":
			g.Servers = r.servers(v)
		case "policy":
			if t, ok := r.scalar(v, "policy"); ok {
				choice := Setting{Choices: policies}
				var err error
				if g.Policy, err = choice.choice(t); err != nil {
					r.report(v, "policy %v", err)
				}
			}
		case "retry_status":
			g.RetryStatus = r.statuses(v)
		case "health":
			g.Health = r.health(v)
		}
	})
	if len(r.problems) == before {
		if g.Name == "" {
			r.report(n, "a group needs a name")
		}
		if len(g.Servers) == 0 {
			r.report(n, "a group needs servers")
		}
	}
	return g
}

func (r *groupReader) name(v *yaml.Node) string {
	t, ok := r.scalar(v, "name")
	if ok && !groupName(t) {
		r.report(v, "name must be 1 to 64 letters, digits or -_. characters")
	}
	return t
}

// groupName reports whether a rule can name a group so.
func groupName(t string) bool {
	return t != "" && len(t) <= 64 && strings.IndexFunc(t, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c))
	}) < 0
}

func (r *groupReader) servers(v *yaml.Node) (list []OriginServer) {
	if v.Kind != yaml.SequenceNode {
		r.report(v, "servers must be a list, not %s", kindOf(v))
		return nil
	}
	if len(v.Content) > maxServers {
		r.report(v, "a group has at most %d servers", maxServers)
		return nil
	}
	seen := map[string]bool{}
	for _, n := range v.Content {
		s, ok := r.server(deref(n))
		if !ok {
			continue
		}
		if seen[s.Authority()] {
			r.report(n, "the group has the server %s twice", s.Authority())
		}
		seen[s.Authority()] = true
		list = append(list, s)
	}
	return list
}

// server reads http://host[:port] or {url, weight}.
func (r *groupReader) server(v *yaml.Node) (s OriginServer, ok bool) {
	before := len(r.problems)
	s.Weight = 1
	url := ""
	if v.Kind == yaml.ScalarNode {
		url, _ = r.scalar(v, "a server")
	} else {
		r.fields(v, "a server", []string{"url", "weight"}, func(key string, v *yaml.Node) {
			if key == "url" {
				url, _ = r.scalar(v, "url")
				return
			}
			s.Weight = r.count(v, "weight", 1, maxWeight)
		})
	}
	if len(r.problems) > before {
		return s, false
	}
	t, err := parseOrigin(url)
	switch {
	case err != nil:
		r.report(v, "a server's %v", err)
	case t.host == "":
		r.report(v, "a server must be http://host[:port]")
	case t.path != "" && t.path != "/":
		r.report(v, "a server must be http://host[:port]: the path belongs into the rule, group:NAME%s", t.path)
	}
	if t.port == 0 {
		t.port = 80
	}
	s.Host, s.Port = t.host, t.port
	return s, len(r.problems) == before
}

func (r *groupReader) count(v *yaml.Node, what string, low, high int) int {
	t, ok := r.scalar(v, what)
	if !ok {
		return low
	}
	n, err := parseCount(t)
	if err != nil || n < int64(low) || n > int64(high) {
		r.report(v, "%s must be %d to %d", what, low, high)
		return low
	}
	return int(n)
}

// statuses reads the statuses of a response after which the next server is asked.
func (r *groupReader) statuses(v *yaml.Node) (list []int) {
	nodes := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		nodes = v.Content
	}
	for _, n := range nodes {
		list = append(list, r.count(deref(n), "retry_status", 500, 599))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (r *groupReader) duration(v *yaml.Node, what string, low, high time.Duration) time.Duration {
	t, ok := r.scalar(v, what)
	if !ok {
		return low
	}
	d, err := parseDuration(t)
	switch {
	case err != nil:
		r.report(v, "%s %v", what, err)
	case d < low || d > high:
		r.report(v, "%s must be %s to %s", what, formatDuration(low), formatDuration(high))
	}
	return d
}

// healthKeys are the keys of a group's health, as config describe tells of them.
var healthKeys = []struct{ name, help string }{
	{"path", "text: asked for by GET, with its query; default /"},
	{"host", "text: sent as Host; default: the server's host and port"},
	{"interval", "duration: from one check to the next, 10ms to 1h, varied by a tenth in all; default 5s"},
	{"timeout", "duration: of one check, 10ms to 1h; default 2s"},
	{"expect", "list of statuses that are good, as 2xx,304; default 2xx,3xx"},
	{"rise", "number of good checks in a row that bring a server back, 1 to 100; default 2"},
	{"fall", "number of bad checks in a row that take it out, 1 to 100; default 3"},
}

// health fills in what is not said: asked every five seconds, out after three failures, back after two answers.
func (r *groupReader) health(v *yaml.Node) OriginHealth {
	h := OriginHealth{Path: "/", Interval: 5 * time.Second, Timeout: 2 * time.Second, Expect: "2xx,3xx", Rise: 2, Fall: 3}
	var valid []string
	for _, k := range healthKeys {
		valid = append(valid, k.name)
	}
	r.fields(v, "health", valid, func(key string, v *yaml.Node) {
		switch key {
		case "path":
			r.text(v, "path", &h.Path, func(t string) error {
				if !strings.HasPrefix(t, "/") {
					return fmt.Errorf("path must begin with /")
				}
				path, _, _ := strings.Cut(t, "?")
				if strings.ContainsAny(t, "# \t\r\n") {
					return fmt.Errorf("path has a character that must be percent-encoded")
				}
				return checkPath("health", path)
			})
		case "host":
			r.text(v, "host", &h.Host, func(t string) error {
				_, err := parseAuthority("host", t)
				return err
			})
		case "interval":
			h.Interval = r.duration(v, "interval", 10*time.Millisecond, time.Hour)
		case "timeout":
			h.Timeout = r.duration(v, "timeout", 10*time.Millisecond, time.Hour)
		case "expect":
			r.text(v, "expect", &h.Expect, func(t string) error {
				_, err := ParseStatuses(t)
				return err
			})
		case "rise":
			h.Rise = r.count(v, "rise", 1, 100)
		case "fall":
			h.Fall = r.count(v, "fall", 1, 100)
		}
	})
	return h
}

func (r *groupReader) text(v *yaml.Node, what string, dst *string, check func(string) error) {
	t, ok := r.scalar(v, what)
	if !ok {
		return
	}
	if err := check(t); err != nil {
		r.report(v, "%v", err)
	}
	*dst = t
}

// Statuses is a set of response statuses.
type Statuses [600]bool

// ParseStatuses reads a list such as "200,204,3xx".
func ParseStatuses(text string) (*Statuses, error) {
	var set Statuses
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		class, whole := strings.CutSuffix(word, "xx")
		n, err := parseCount(class)
		switch {
		case err == nil && whole && n >= 1 && n <= 5:
			for i := range 100 {
				set[int(n)*100+i] = true
			}
		case err == nil && !whole && n >= 100 && n <= 599:
			set[n] = true
		default:
			return nil, fmt.Errorf("expect must be a list of statuses such as 200,204,3xx, not %q", clip(text))
		}
	}
	return &set, nil
}

// crossGroups finds rules whose group does not exist.
func (l *loader) crossGroups() {
	if l.broken["origins"] {
		return
	}
	known := map[string]bool{}
	var names []string
	for _, g := range l.cfg.Origins {
		known[g.Name] = true
		names = append(names, g.Name)
	}
	for i, m := range l.cfg.Map {
		rest, ok := strings.CutPrefix(m.Origin, Group)
		if name, _, _ := strings.Cut(rest, "/"); ok && !known[name] {
			msg := fmt.Sprintf("map names the group %q, which is not in origins", clip(name))
			if near := nearest(name, names); near != "" {
				msg += fmt.Sprintf(" (did you mean %q?)", near)
			}
			l.report(l.where("map", i), "%s", msg)
		}
	}
}
