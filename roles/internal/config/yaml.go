package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// file reads one YAML document. Everything found wrong is reported; what is right is set, so that later layers are
// checked too.
func (l *loader) file(name string, data []byte) {
	at := place{file: name, from: FromFile}
	if len(data) > MaxFile {
		l.report(at, "is larger than %d bytes", MaxFile)
		return
	}
	if p, bad := badText(data); bad != "" {
		p.file, p.from = name, FromFile
		l.report(p, "%s", bad)
		return
	}
	doc, p, err := parseYAML(data)
	if err != nil {
		p.file, p.from = name, FromFile
		l.report(p, "%v", err)
		return
	}
	if doc != nil && len(doc.Content) == 1 {
		y := &yamlReader{loader: l, name: name}
		y.root(doc.Content[0])
	}
}

// badText finds the first byte that is not text. The YAML library would refuse it as well, without saying where.
func badText(data []byte) (place, string) {
	line, col := 1, 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return place{line: line, col: col}, "is not UTF-8"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return place{line: line, col: col}, fmt.Sprintf("has the control character %U", r)
		case r == '\n':
			line, col = line+1, 0
		}
		i, col = i+n, col+1
	}
	return place{}, ""
}

// parseYAML gives the one document of data, nil if there is none. Aliases are not expanded by it, and this package
// follows them only as deep as the table goes, so a nest of them costs no more than its text.
func parseYAML(data []byte) (doc *yaml.Node, at place, err error) {
	// The library reports its own defects by panics, and these bytes are foreign.
	defer func() {
		if r := recover(); r != nil {
			doc, at, err = nil, place{}, errors.New("cannot be read as YAML")
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	switch err := d.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, place{}, nil
	case err != nil:
		return syntaxError(data, err)
	}
	switch err := d.Decode(&second); {
	case errors.Is(err, io.EOF):
		return &first, place{}, nil
	case err != nil:
		return syntaxError(data, err)
	}
	return nil, place{line: second.Line, col: second.Column}, errors.New("has a second document, must be one")
}

// syntaxError turns the library's message into one with a position.
func syntaxError(data []byte, err error) (*yaml.Node, place, error) {
	s := examine(data, err)
	at, why := s.problem()
	return nil, at, errors.New(why)
}

func find(lines []string, what string) place {
	for i, text := range lines {
		if j := strings.Index(text, what); j >= 0 {
			return place{line: i + 1, col: utf8.RuneCountInString(text[:j]) + 1}
		}
	}
	return place{line: 1, col: 1}
}

// A yamlReader walks the node tree along the table.
type yamlReader struct {
	*loader
	name string
}

func (y *yamlReader) at(n *yaml.Node) place {
	return place{file: y.name, line: n.Line, col: n.Column, from: FromFile}
}

// root reads the top level: settings and sections.
func (y *yamlReader) root(n *yaml.Node) {
	if isNull(n) {
		return // a file of comments, or of nothing
	}
	y.mapping(n, "the file", "", func(key, value *yaml.Node) {
		if s := lookup(key.Value); s != nil && !strings.Contains(key.Value, ".") {
			y.setting(s, value)
			return
		}
		y.section(key.Value, value)
	})
}

func (y *yamlReader) section(name string, n *yaml.Node) {
	if isNull(deref(n)) {
		return // a section whose lines are all commented out
	}
	y.mapping(n, strconv.Quote(name), name, func(key, value *yaml.Node) {
		y.setting(lookup(name+"."+key.Value), value)
	})
}

// mapping calls f for each valid key once, and reports the others. what names the place in a message, here is the
// section.
func (y *yamlReader) mapping(n *yaml.Node, what, here string, f func(key, value *yaml.Node)) {
	m := deref(n)
	if m.Kind != yaml.MappingNode || m.Tag != "!!map" {
		y.report(y.at(n), "%s must be keys and values, not %s", what, kindOf(m))
		return
	}
	valid := keys(here)
	if here == "map" {
		valid = entryKeys()
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			y.report(y.at(key), "key must be a word, not %s", kindOf(key))
		case !slices.Contains(valid, key.Value):
			y.report(y.at(key), "%s", unknownKey(key.Value, valid, here))
		case seen[key.Value] != 0:
			y.report(y.at(key), "duplicate key %q (first in line %d)", key.Value, seen[key.Value])
		default:
			seen[key.Value] = key.Line
			f(key, value)
		}
	}
}

// setting reads one value. Where a list is wanted a single element will do.
func (y *yamlReader) setting(s *Setting, n *yaml.Node) {
	var es []element
	var ok bool
	switch v := deref(n); {
	case s.Kind == Groups:
		es, ok = []element{{node: v, at: y.at(v)}}, true
	case s.Kind == Mappings:
		es, ok = y.mappings(s, v)
	case s.Kind.list() && v.Kind == yaml.SequenceNode:
		es, ok = y.scalars(s, v)
	default:
		var e element
		e, ok = y.scalar(s, n)
		es = []element{e}
	}
	if ok {
		y.set(s, es, y.at(n))
	}
}

func (y *yamlReader) scalars(s *Setting, list *yaml.Node) (es []element, ok bool) {
	ok = true
	for _, n := range list.Content {
		e, fine := y.scalar(s, n)
		ok = ok && fine
		es = append(es, e)
	}
	return es, ok
}

// wanted says which YAML types a kind may be written as, and how a message calls it. YAML takes an integer that is too
// large for a float, and a float where a number is wanted gets its message from the parser of the kind.
var wanted = map[Kind]struct {
	tags []string
	what string
}{
	Count:        {[]string{"!!int", "!!float"}, "a whole number"},
	Size:         {[]string{"!!int", "!!float", "!!str"}, "a size such as 123, 64KiB or 1MB"},
	Duration:     {[]string{"!!str", "!!int", "!!float"}, "a duration such as 500ms, 30s or 1h30m"},
	Choice:       {[]string{"!!str"}, "a word"},
	Token:        {[]string{"!!str"}, "text (put a number in quotes)"},
	Path:         {[]string{"!!str"}, "a path"},
	PathOrOff:    {[]string{"!!str"}, "a path, or " + Off},
	AddressOrOff: {[]string{"!!str", "!!int"}, "IP:PORT or " + Off},
	Addresses:    {[]string{"!!str", "!!int"}, "IP:PORT or a list of them"},
	Mappings:     {[]string{"!!str"}, "text"},
	Switch:       {[]string{"!!bool"}, "true or false"},
	Networks:     {[]string{"!!str"}, "a network such as 10.0.0.0/8 or a list of them"},
	Expression:   {[]string{"!!str"}, "a regular expression"},
	PortRanges:   {[]string{"!!int", "!!str"}, "a port, a range such as 1025-65535, or a list of them"},
	LineFormat:   {[]string{"!!str"}, "text such as '%h \"%r\" %>s' (in quotes)"},
}

func (y *yamlReader) scalar(s *Setting, n *yaml.Node) (element, bool) {
	v := deref(n)
	w := wanted[s.Kind]
	if v.Kind != yaml.ScalarNode || !slices.Contains(w.tags, v.Tag) {
		y.report(y.at(n), "%s: must be %s, not %s", s.Name, w.what, kindOf(v))
		return element{}, false
	}
	return element{text: v.Value, at: y.at(n)}, true
}

// mappings reads a list of rules.
func (y *yamlReader) mappings(s *Setting, list *yaml.Node) (es []element, ok bool) {
	if list.Kind != yaml.SequenceNode {
		y.report(y.at(list), "%s: must be a list of {prefix, origin}, not %s", s.Name, kindOf(list))
		return nil, false
	}
	ok = true
	before := len(y.problems)
	for _, item := range list.Content {
		e := element{pair: true}
		targets := map[string]element{}
		prefix := false
		y.mapping(item, "an entry of map", "map", func(key, value *yaml.Node) {
			if k := lookupRuleKey(key.Value); k != nil {
				o, fine := y.option(k, value)
				ok = ok && fine
				e.options = append(e.options, o)
				return
			}
			v, fine := y.scalar(s, value)
			ok = ok && fine
			if key.Value == "prefix" {
				e.text, e.at, prefix = v.text, v.at, true
			} else {
				targets[key.Value] = v
			}
		})
		switch {
		case len(y.problems) != before: // said already
		case !prefix || len(targets) == 0:
			y.report(y.at(item), "%s: entry needs both prefix and origin (or to, of a redirect)", s.Name)
		default:
			y.target(s, &e, targets)
		}
		ok = ok && len(y.problems) == before
		es = append(es, e)
		before = len(y.problems)
	}
	return es, ok
}

// target picks where a rule leads from its keys "origin" and "to". Each type has one of them.
func (y *yamlReader) target(s *Setting, e *element, targets map[string]element) {
	var m Mapping
	for _, o := range e.options {
		if o.key.Name == "type" {
			m.Type = o.values[0].text
		}
	}
	e.target = m.target()
	for key, v := range targets {
		switch {
		case len(targets) == 1:
			e.target = key // whether that is the right one is seen when the type is known to be one
		case key != e.target && slices.Contains(ruleTypes, m.kind()):
			y.report(v.at, "%s: %s has %q only, %q does not belong here", s.Name, m.kind(), e.target, key)
		}
	}
	e.origin, e.originAt = targets[e.target].text, targets[e.target].at
}

// option reads the value of a key of a rule.
func (y *yamlReader) option(k *ruleKey, n *yaml.Node) (o option, ok bool) {
	o = option{key: k, at: y.at(n)}
	if v := deref(n); k.Kind.list() && v.Kind == yaml.SequenceNode {
		o.values, ok = y.scalars(&k.Setting, v)
		return o, ok
	}
	e, ok := y.scalar(&k.Setting, n)
	o.values = []element{e}
	return o, ok
}

// deref follows an alias. An alias of an alias cannot be written.
func deref(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// kindOf names what somebody wrote.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a yes or no"
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!str":
		return fmt.Sprintf("the text %q", clip(n.Value))
	case "!!merge":
		return "a merge"
	}
	return "a value tagged " + clip(n.Tag)
}
