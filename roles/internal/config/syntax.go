package config

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The library says "line 3: did not find expected key" and means by line 3, of what its parser finds, where the mapping
// began that was being read, less one, and if that is the first line, something else. What it stumbled over it does not
// say. So the text is read once more: with a line before it, so that no line is the first, and byte by byte, so that it
// can be seen how far the library had read when it gave up. That is a little too far; how little is found by leaving
// out the last lines, one by one, while the error stays.

// A syntax is a text that is no YAML, and what the library says of it.
type syntax struct {
	lines  []string
	msg    string // without the line
	begun  int    // line of what was being read, from 1
	reason int    // line of what could not be read
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parserSays are the messages of its parser; all others are its scanner's, of whose lines none is lost.
var parserSays = regexp.MustCompile(`^(did not find expected (key|node content|'-' indicator|',' or '[]}]'|<.*>)|found (undefined tag handle|duplicate %|incompatible YAML))`)

// Bounds of how often a text is read to find the reason, and of how many bytes of it in all: the largest files take
// seconds each time. The library looks two tokens ahead, so a few will do.
const (
	mostTries = 8
	mostRead  = 16 << 20
)

// examine finds out where the text is wrong. err is what the library said of it.
func examine(data []byte, err error) syntax {
	text := strings.TrimPrefix(string(data), "\ufeff")
	s := syntax{lines: strings.Split(text, "\n"), begun: 1}
	slow := &byteReader{text: firstLine + text}
	if again := decodeAll(slow); again != nil {
		err = again
	}
	s.msg = err.Error()
	if m := yamlLine.FindStringSubmatch(s.msg); m != nil {
		s.msg = s.msg[len(m[0]):]
		s.begun, _ = strconv.Atoi(m[1])
		if !parserSays.MatchString(s.msg) {
			s.begun--
		}
	}
	s.begun = min(max(s.begun, 1), len(s.lines))
	s.reason = s.begun
	if parserSays.MatchString(s.msg) {
		s.narrow(err.Error(), strings.Count(slow.text[:slow.read], "\n"))
	}
	return s
}

// firstLine comes before a text that is read once more.
const firstLine = "#\n"

// narrow finds the reason of an error that has been met when this line was read.
func (s *syntax) narrow(said string, line int) {
	closer := ""
	if flow := flowEnd.FindStringSubmatch(s.msg); flow != nil {
		closer = flow[1] // what is merely cut off is complete with it
	}
	s.reason = min(line, len(s.lines)) + 1
	tries, read := 0, 0
	for n := s.reason - 1; n >= s.begun && tries < mostTries && read < mostRead; n-- {
		if blank(s.lines[n-1]) {
			continue
		}
		text := firstLine + strings.Join(s.lines[:n], "\n") + "\n" + closer
		tries, read = tries+1, read+len(text)
		err := decodeAll(strings.NewReader(text))
		if err == nil || err.Error() != said {
			break
		}
		s.reason = n
	}
}

// flowEnd is what the parser says in {…} and […].
var flowEnd = regexp.MustCompile(`^did not find expected ',' or '([]}])'`)

// decodeAll reads as far as parseYAML does: a second document is one too many.
func decodeAll(r io.Reader) error {
	d := yaml.NewDecoder(r)
	for range 2 {
		var n yaml.Node
		switch err := d.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// A byteReader gives one byte at a time.
type byteReader struct {
	text string
	read int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.read == len(r.text) {
		return 0, io.EOF
	}
	n := copy(p[:min(1, len(p))], r.text[r.read:])
	r.read += n
	return n, nil
}

// problem is where the operator has to look, and why.
func (s *syntax) problem() (place, string) {
	if name, ok := strings.CutPrefix(s.msg, "unknown anchor '"); ok {
		name = strings.TrimSuffix(name, "' referenced")
		return find(s.lines, "*"+name), fmt.Sprintf("alias *%s has no anchor", clip(name))
	}
	// A tab is the commonest cause, and the library never says so.
	for _, n := range []int{s.begun, s.begun + 1, s.reason} {
		if n > len(s.lines) {
			continue
		}
		text := s.lines[n-1]
		if i := strings.IndexByte(text[:indent(text)], '\t'); i >= 0 && indent(text) < len(text) {
			return place{line: n, col: i + 1}, "tab in the indentation, must be spaces"
		}
	}
	flow := flowEnd.FindStringSubmatch(s.msg)
	switch {
	case flow != nil && s.unclosed():
		return s.opener(flow[1])
	case s.msg == "mapping values are not allowed in this context":
		return s.value()
	case s.msg == "found unexpected end of stream":
		return s.start(s.begun), "text in quotes that is not closed"
	}
	return s.start(min(s.reason, len(s.lines))), s.msg
}

// unclosed tells of {…} or […] that could be read as far as there is something that is hardly part of it: nothing, or
// what stands beside or left of the line where it was opened, and does not close it.
func (s *syntax) unclosed() bool {
	if s.reason == s.begun {
		return false
	}
	if s.reason > len(s.lines) {
		return true
	}
	text := s.lines[s.reason-1]
	in := indent(text)
	return blank(text) || in <= indent(s.lines[s.begun-1]) && !strings.ContainsAny(text[in:in+1], "]}")
}

// opener is the last bracket that the line leaves open.
func (s *syntax) opener(end string) (place, string) {
	begin := map[string]string{"}": "{", "]": "["}[end]
	text := s.lines[s.begun-1]
	at, depth := s.start(s.begun), 0
	for i := len(text) - 1; i >= 0; i-- {
		switch text[i : i+1] {
		case end:
			depth++
		case begin:
			if depth--; depth < 0 {
				at.col = utf8.RuneCountInString(text[:i]) + 1
				i = 0
			}
		}
	}
	return at, fmt.Sprintf("%q is not closed by %q", begin, end)
}

// value is about a ':' where there can be none. A line before it that stands beside it and has none is taken for the
// beginning of its key.
func (s *syntax) value() (place, string) {
	text := s.lines[s.begun-1]
	for n := s.begun - 1; n > 0; n-- {
		if before := s.lines[n-1]; !blank(before) {
			if indent(before) == indent(text) && !strings.Contains(before, ":") && !strings.HasPrefix(before[indent(before):], "- ") {
				return s.start(n), "could not find expected ':'"
			}
			break
		}
	}
	return s.start(s.begun), s.msg
}

// start is where the text of a line begins.
func (s *syntax) start(line int) place {
	return place{line: line, col: 1 + indent(s.lines[line-1])}
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// blank tells of a line that says nothing.
func blank(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || line[0] == '#'
}
