package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Change is one setting that differs between two configurations.
type Change struct {
	Name       string
	Old, New   string   // as the operator would write them; of a long list how much it has
	Entries    []string // of a long list: what is added, removed and changed, the first few of each
	Reloadable bool     // false: takes effect with a new process only
}

// Bounds of what is told of a list. One of two short values is best read as a whole; ten thousand rules are not.
const (
	wholeList  = 200 // bytes of both values
	toldOfKind = 5   // entries
)

// Diff lists the settings whose values differ, in the order of the table. Sources and generations are not compared.
func Diff(old, new *Config) []Change {
	var out []Change
	for i := range table {
		s := &table[i]
		a, b := s.format(old), s.format(new)
		if a == b {
			continue
		}
		c := Change{Name: s.Name, Old: a, New: b, Reloadable: s.Reloadable}
		if s.ofEntries() && len(a)+len(b) > wholeList {
			c.compare(s.entries(old), s.entries(new))
		}
		out = append(out, c)
	}
	return out
}

// NeedRestart picks the changes that a running process cannot make.
func NeedRestart(changes []Change) []Change {
	var out []Change
	for _, c := range changes {
		if !c.Reloadable {
			out = append(out, c)
		}
	}
	return out
}

// ofEntries reports whether a value of the setting is a list.
func (s *Setting) ofEntries() bool { return s.Kind.list() || s.Kind == Mappings || s.Kind == Groups }

// An entry is an element of a list: what it is known by, which no two have in common, and how it would be written.
type entry struct{ id, text string }

func (s *Setting) entries(c *Config) []entry {
	list := s.list(c)
	out := make([]entry, len(list))
	for i, text := range list {
		out[i] = entry{text, text}
		switch p := s.field(c).(type) {
		case *[]Mapping:
			out[i].id = (*p)[i].identity()
		case *[]OriginGroup:
			out[i].id = (*p)[i].Name
		}
	}
	return out
}

// compare tells of two lists by what is in one of them only, and by what has changed.
func (c *Change) compare(old, new []entry) {
	before, after := byID(old), byID(new)
	var added, removed, changed told
	for _, e := range new {
		switch was, ok := before[e.id]; {
		case !ok:
			added.tell("added   ", clipTo(e.text, longEntry))
		case was != e.text:
			changed.tell("changed ", entryChange(was, e.text))
		}
	}
	for _, e := range old {
		if _, ok := after[e.id]; !ok {
			removed.tell("removed ", clipTo(e.text, longEntry))
		}
	}
	var counts []string
	for _, k := range []struct {
		*told
		verb string
	}{{&added, "added"}, {&removed, "removed"}, {&changed, "changed"}} {
		if k.n == 0 {
			continue
		}
		counts = append(counts, fmt.Sprintf("%d %s", k.n, k.verb))
		c.Entries = append(c.Entries, k.lines...)
		if more := k.n - len(k.lines); more > 0 {
			c.Entries = append(c.Entries, fmt.Sprintf("and %d more %s", more, k.verb))
		}
	}
	if counts == nil {
		counts = []string{"in another order"}
	}
	c.Old, c.New = howMany(len(old)), howMany(len(new))+" ("+strings.Join(counts, ", ")+")"
}

// told is what is told of one kind of difference.
type told struct {
	n     int
	lines []string
}

func (t *told) tell(what, text string) {
	if t.n++; t.n <= toldOfKind {
		t.lines = append(t.lines, what+text)
	}
}

func byID(list []entry) map[string]string {
	m := make(map[string]string, len(list))
	for _, e := range list {
		m[e.id] = e.text
	}
	return m
}

func howMany(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// longEntry is how many characters of an entry are told.
const longEntry = 200

// entryChange tells of one entry by its old and its new text; of long ones, from where they differ.
func entryChange(old, new string) string {
	if len(old) <= longEntry && len(new) <= longEntry {
		return old + " → " + new
	}
	from := 0
	for from < min(len(old), len(new)) && old[from] == new[from] {
		from++
	}
	for from > 0 && !(from < len(old) && from < len(new) && utf8.RuneStart(old[from]) && utf8.RuneStart(new[from])) {
		from--
	}
	return clip(new) + ": …" + clip(old[from:]) + " → …" + clip(new[from:])
}
