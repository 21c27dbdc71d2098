package config

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// limits describes what values a setting accepts; "" if its kind says it all.
func (s *Setting) limits() string {
	switch {
	case s.Kind == Choice:
		return strings.Join(s.Choices, ", ")
	case s.Kind == Switch:
		return "true, false"
	case s.Kind != Count && s.Kind != Size && s.Kind != Duration:
		return ""
	}
	text := s.number(s.Min) + " to " + s.number(s.Max)
	if s.Zero != "" {
		text += ", or 0: " + s.Zero
	}
	return text
}

// typeText is the kind with its unit.
func (s *Setting) typeText() string {
	if s.Unit == "" || s.Kind == Size {
		return s.Kind.String()
	}
	return s.Kind.String() + " of " + s.Unit
}

func (s *Setting) defaultText() string {
	if s.Default == "" {
		return "none"
	}
	return s.Default
}

func (s *Setting) reloadText() string {
	if s.Reloadable {
		return "by reload"
	}
	return "by restart"
}

// Describe writes the table for a terminal; this is `config describe`. With names, only those settings, or everything
// in those sections; a name that is neither is an error.
func Describe(w io.Writer, names ...string) error {
	rows, err := choose(names)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	for i, s := range rows {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%s\n    %s\n    type:     %s\n", s.Name, s.Help, s.typeText())
		if l := s.limits(); l != "" {
			fmt.Fprintf(b, "    values:   %s\n", l)
		}
		fmt.Fprintf(b, "    default:  %s\n    changed:  %s\n    variable: %s\n", s.defaultText(), s.reloadText(), s.EnvName())
		if s.Kind == Mappings {
			b.WriteString("    keys of an entry, beside prefix and origin (of redirects and reverse maps: to):\n")
			for i := range ruleKeys {
				k := &ruleKeys[i]
				fmt.Fprintf(b, "      %-24s%s: %s\n", k.Name, k.kindText(), k.Help)
			}
		}
		if s.Kind == Groups {
			b.WriteString("    keys of health:\n")
			for _, k := range healthKeys {
				fmt.Fprintf(b, "      %-24s%s\n", k.name, k.help)
			}
		}
	}
	return b.Flush()
}

func choose(names []string) ([]*Setting, error) {
	var rows []*Setting
	if len(names) == 0 {
		for i := range table {
			rows = append(rows, &table[i])
		}
		return rows, nil
	}
	var all []string
	for i := range table {
		all = append(all, table[i].Name)
	}
	for _, name := range names {
		found := false
		for i := range table {
			if section, _ := table[i].split(); table[i].Name == name || section == name {
				rows, found = append(rows, &table[i]), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s", unknownSetting(name, all))
		}
	}
	return rows, nil
}

func unknownSetting(name string, all []string) string {
	if near := nearest(name, all); near != "" {
		return fmt.Sprintf("no setting %q (did you mean %q?)", clip(name), near)
	}
	return fmt.Sprintf("no setting %q", clip(name))
}

// kindText is the kind with the values it accepts.
func (k *ruleKey) kindText() string {
	if k.Kind == Choice {
		return "one of " + strings.Join(k.Choices, ", ")
	}
	return k.Kind.String()
}

// Effective writes every value of c with where it came from; this is `config show --effective`. The result is a valid
// configuration file.
func (c *Config) Effective(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# generation %d\n", c.Generation)
	section := ""
	for i := range table {
		s := &table[i]
		sec, leaf := s.split()
		if sec != section {
			section = sec
			fmt.Fprintf(b, "%s:\n", sec)
		}
		indent := ""
		if sec != "" {
			indent = "  "
		}
		s.effective(b, c, indent, leaf)
	}
	return b.Flush()
}

func (s *Setting) effective(b *bufio.Writer, c *Config, indent, leaf string) {
	from := c.SourceOf(s.Name)
	switch p := s.field(c).(type) {
	case *[]string, *[]netip.Prefix, *[]Ports:
		list := s.list(c)
		if len(list) == 0 {
			fmt.Fprintf(b, "%s%s: [] # %s\n", indent, leaf, from)
			return
		}
		fmt.Fprintf(b, "%s%s: # %s\n", indent, leaf, from)
		for _, a := range list {
			fmt.Fprintf(b, "%s  - %q\n", indent, a)
		}
	case *[]Mapping:
		if len(*p) == 0 {
			fmt.Fprintf(b, "%s%s: [] # %s\n", indent, leaf, from)
			return
		}
		fmt.Fprintf(b, "%s%s: # %s\n", indent, leaf, from)
		for _, m := range *p {
			fmt.Fprintf(b, "%s  - %s\n", indent, m.flow())
		}
	case *[]OriginGroup:
		if len(*p) == 0 {
			fmt.Fprintf(b, "%s%s: [] # %s\n", indent, leaf, from)
			return
		}
		fmt.Fprintf(b, "%s%s: # %s\n", indent, leaf, from)
		for _, g := range *p {
			fmt.Fprintf(b, "%s  - %s\n", indent, g)
		}
	case *string:
		fmt.Fprintf(b, "%s%s: %q # %s\n", indent, leaf, *p, from)
	default:
		fmt.Fprintf(b, "%s%s: %s # %s\n", indent, leaf, s.format(c), from)
	}
}
