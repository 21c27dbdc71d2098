package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"trafficd/roles/internal/logformat"
)

// A Kind is how a value is written and checked.
type Kind int

// The kinds.
const (
	Count        Kind = iota // a whole number
	Size                     // bytes: 123, 64KiB, 1MB
	Duration                 // Go syntax: 1m30s, 500ms
	Choice                   // one of a few words
	Token                    // a word of RFC 9110 token characters
	Path                     // an absolute file name, may be empty
	AddressOrOff             // one address, or Off
	Addresses                // a list of addresses
	Mappings                 // a list of {prefix, origin}
	Switch                   // true or false
	Groups                   // a list of {name, servers, …}
	Networks                 // a list of networks
	PortRanges               // a list of ports and ranges of them
	Expression               // a regular expression (RE2)
	PathOrOff                // an absolute file name, empty, or Off
	LineFormat               // the language of package logformat
)

var kindNames = [...]string{"count", "size", "duration", "choice", "token", "path", "address or off",
	"list of addresses", "list of {prefix, origin, …}", "switch", "list of {name, servers, policy, retry_status, health}",
	"list of networks", "list of ports", "regular expression", "path or off", "format of a line"}

// list reports whether a value of the kind is a list of scalars.
func (k Kind) list() bool { return k == Addresses || k == Networks || k == PortRanges }

// String is the kind's name as the reference prints it.
func (k Kind) String() string { return kindNames[k] }

// An element is one scalar of a value as it was written, with its place for messages. A mapping's place is that of its
// prefix, and the origin has its own.
type element struct {
	text     string
	at       place
	pair     bool // a Mapping whose halves came apart: text is the prefix. Otherwise text is PREFIX=ORIGIN
	origin   string
	originAt place
	node     *yaml.Node // of a group that stands in the file
	target   string     // the key of origin: "origin" or "to"; "": whichever is right
	options  []option   // the other keys of a Mapping
}

func texts(list ...string) []element {
	var es []element
	for _, t := range list {
		es = append(es, element{text: t})
	}
	return es
}

// defaults gives the default as elements.
func (s *Setting) defaults() []element {
	switch {
	case s.Default == "" && (s.Kind.list() || s.Kind == Mappings || s.Kind == Groups):
		return nil
	case s.Kind.list():
		return texts(strings.Split(s.Default, ",")...)
	}
	return texts(s.Default)
}

// assign parses es, checks the limits of s and stores the value in c. On any problem c keeps what it had.
func (s *Setting) assign(c *Config, es []element) []Problem {
	switch p := s.field(c).(type) {
	case *[]string:
		return s.assignAddresses(p, es)
	case *[]Mapping:
		return s.assignMappings(p, es)
	case *[]OriginGroup:
		return s.assignGroups(p, es)
	case *[]netip.Prefix:
		return assignList(s, p, es, ParseNetwork)
	case *[]Ports:
		return assignList(s, p, es, parsePorts)
	default:
		if len(es) != 1 {
			return []Problem{{Msg: "must be one value, not a list"}}
		}
		if err := s.assignScalar(p, es[0].text); err != nil {
			return []Problem{{place: es[0].at, Msg: err.Error()}}
		}
		return nil
	}
}

func (s *Setting) assignScalar(p any, text string) error {
	switch p := p.(type) {
	case *bool:
		on, err := parseSwitch(text)
		if err != nil {
			return err
		}
		*p = on
	case *int:
		n, err := parseCount(text)
		if err == nil {
			err = s.inRange(n)
		}
		if err != nil {
			return err
		}
		*p = int(n)
	case *int64:
		n, err := ParseSize(text)
		if err == nil {
			err = s.inRange(n)
		}
		if err != nil {
			return err
		}
		*p = n
	case *time.Duration:
		d, err := parseDuration(text)
		if err == nil {
			err = s.inRange(int64(d))
		}
		if err != nil {
			return err
		}
		*p = d
	case *string:
		t, err := s.word(text)
		if err != nil {
			return err
		}
		*p = t
	}
	return nil
}

func (s *Setting) assignAddresses(p *[]string, es []element) (ps []Problem) {
	var list []string
	for _, e := range es {
		a, err := ParseAddress(e.text)
		if err != nil {
			ps = append(ps, Problem{place: e.at, Msg: err.Error()})
			continue
		}
		list = append(list, a)
	}
	switch {
	case len(ps) > 0:
	case len(list) == 0 && s.Default != "":
		ps = append(ps, Problem{Msg: "must have at least one address"})
	case int64(len(list)) > s.Max:
		ps = append(ps, Problem{Msg: fmt.Sprintf("has %d addresses, at most %d are possible", len(list), s.Max)})
	default:
		*p = list
	}
	return ps
}

func (s *Setting) assignMappings(p *[]Mapping, es []element) (ps []Problem) {
	var list []Mapping
	for _, e := range es {
		m, bad := parseMapping(e)
		if bad != nil {
			ps = append(ps, bad...)
			continue
		}
		list = append(list, m)
	}
	if int64(len(list)) > s.Max {
		ps = append(ps, Problem{Msg: fmt.Sprintf("has %d rules, at most %d are possible", len(list), s.Max)})
	}
	if len(ps) == 0 {
		*p = list
	}
	return ps
}

// inRange checks a number against Min, Max and Zero.
func (s *Setting) inRange(n int64) error {
	switch {
	case n == 0 && s.Zero != "":
		return nil
	case n < 0 && s.Min == 0:
		return errors.New("must not be negative")
	case n < s.Min && s.Zero != "":
		return fmt.Errorf("must be 0 (%s) or at least %s", s.Zero, s.number(s.Min))
	case n < s.Min:
		return fmt.Errorf("must be at least %s", s.number(s.Min))
	case s.Max != 0 && n > s.Max:
		return fmt.Errorf("must be at most %s", s.number(s.Max))
	}
	return nil
}

// word checks the kinds that are text.
func (s *Setting) word(text string) (string, error) {
	switch s.Kind {
	case Choice:
		return s.choice(text)
	case Token:
		if text == "" || int64(len(text)) > s.Max || strings.IndexFunc(text, notToken) >= 0 {
			return "", fmt.Errorf("must be a word of 1 to %d letters, digits or !#$%%&'*+-.^_`|~", s.Max)
		}
		return text, nil
	case Path, PathOrOff:
		if s.Kind == PathOrOff && text == Off {
			return Off, nil
		}
		if text != "" && !filepath.IsAbs(text) {
			return "", errors.New("must be an absolute path: a daemon has no working directory of its own")
		}
		if strings.ContainsRune(text, 0) {
			return "", errors.New("must not contain a NUL")
		}
		return text, nil
	case Expression:
		return text, nil // checked with the rule it belongs to
	case AddressOrOff:
		if text == Off {
			return Off, nil
		}
		a, err := ParseAddress(text)
		if err != nil {
			return "", fmt.Errorf("%w, or %q", err, Off)
		}
		return a, nil
	case LineFormat:
		_, err := logformat.Parse(text)
		return text, err
	}
	panic("config: " + s.Name + " is not text")
}

func (s *Setting) choice(text string) (string, error) {
	if slices.Contains(s.Choices, text) {
		return text, nil
	}
	msg := fmt.Sprintf("must be one of %s", strings.Join(s.Choices, ", "))
	if near := nearest(text, s.Choices); near != "" {
		msg += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return "", errors.New(msg)
}

// notToken is the complement of tchar, RFC 9110 §5.6.2.
func notToken(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// parseSwitch accepts the two words of JSON only; YAML 1.1's yes, on and y mean text to others.
func parseSwitch(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

// parseCount accepts decimal digits only: what YAML makes of 010 or 0x10 depends on who is asked.
func parseCount(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' || (len(text) > 1 && text[0] == '0') {
		if errors.Is(err, strconv.ErrRange) {
			return 0, errors.New("is too large a number")
		}
		return 0, errors.New("must be a whole number")
	}
	return n, nil
}

var sizeUnits = []struct {
	name string
	mult int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a number of bytes: 123, 64KiB (1024), 1MB (1000×1000). There is no short form K or M, since half of
// the world reads it one way and half the other.
func ParseSize(text string) (int64, error) {
	digits, mult := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			digits, mult = strings.TrimSuffix(rest, " "), u.mult
			break
		}
	}
	n, err := parseCount(digits)
	if err != nil || n < 0 {
		return 0, errors.New("must be a size such as 123, 64KiB or 1MB")
	}
	if n > math.MaxInt64/mult {
		return 0, errors.New("is too large a size")
	}
	return n * mult, nil
}

// FormatSize writes n bytes so that ParseSize gives n back: in the largest binary unit that divides it.
func FormatSize(n int64) string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; n != 0 && n%u.mult == 0 {
			return strconv.FormatInt(n/u.mult, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		if _, e := strconv.ParseFloat(text, 64); e == nil {
			return 0, fmt.Errorf("must have a unit, such as %ss or %sms", text, text)
		}
		return 0, errors.New("must be a duration such as 500ms, 30s or 1h30m")
	}
	return d, nil
}

// formatDuration is Duration.String without the zero units at its end: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// number formats a limit of s.
func (s *Setting) number(n int64) string {
	switch s.Kind {
	case Size:
		return FormatSize(n)
	case Duration:
		return formatDuration(time.Duration(n))
	}
	return strconv.FormatInt(n, 10)
}

// list gives the value in c as the texts it could be read from again; one for a scalar.
func (s *Setting) list(c *Config) []string {
	switch p := s.field(c).(type) {
	case *bool:
		return []string{strconv.FormatBool(*p)}
	case *int:
		return []string{strconv.Itoa(*p)}
	case *int64:
		return []string{FormatSize(*p)}
	case *time.Duration:
		return []string{formatDuration(*p)}
	case *string:
		return []string{*p}
	case *[]string:
		return *p
	case *[]netip.Prefix:
		return formatNetworks(*p)
	case *[]Ports:
		var out []string
		for _, r := range *p {
			out = append(out, r.String())
		}
		return out
	case *[]Mapping:
		var out []string
		for _, m := range *p {
			out = append(out, m.String())
		}
		return out
	case *[]OriginGroup:
		var out []string
		for _, g := range *p {
			out = append(out, g.String())
		}
		return out
	}
	panic("config: field of " + s.Name)
}

// elements gives the value in c as elements without places.
func (s *Setting) elements(c *Config) []element {
	if p, ok := s.field(c).(*[]Mapping); ok {
		var es []element
		for _, m := range *p {
			es = append(es, element{text: m.Prefix, pair: true, origin: m.Origin, options: m.options()})
		}
		return es
	}
	return texts(s.list(c)...)
}

func (s *Setting) format(c *Config) string { return strings.Join(s.list(c), ",") }
