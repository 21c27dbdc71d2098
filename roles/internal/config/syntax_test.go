package config

import (
	"strings"
	"testing"
)

// Where the operator has to look, of the mistakes that are made.
func TestSyntaxErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"a brace is not closed", "listen: :80\nmap: []\ncache: {size: 8MiB\nthreads: 2\nqueue:\n  limit: 3\n", `3:8: "{" is not closed by "}"`},
		{"at the end of the file", "listen: :80\nmap: []\ncache: {size: 8MiB\n", `3:8: "{" is not closed by "}"`},
		{"in the first line", "cache: {size: 8MiB\nthreads: 2\n", `1:8: "{" is not closed by "}"`},
		{"over several lines", "threads: 1\nqueue: {limit: 1,\n  max_wait: 2s\nlog: {level: info}\nhealth:\n  interval: 1s\n", `2:8: "{" is not closed by "}"`},
		{"of two braces one", "threads: 1\ncache: {size: {a: b}, x: [1]\n", `2:8: "{" is not closed by "}"`},
		{"a rule", "threads: 1\nmap:\n  - {prefix: /, origin: http://x\n  - {prefix: /a, origin: http://y}\nqueue:\n  limit: 1\n", `3:5: "{" is not closed by "}"`},
		{"a bracket", "listen: [\n  a,\n  b\n\n# comment\nthreads: 1\n", `1:9: "[" is not closed by "]"`},
		{"one brace too many", "threads: 2\ncache: {size: 8MiB}}\nqueue:\n  limit: 3\n", "2:1: did not find expected key"},
		{"with comments behind it", "threads: 1\ncache: {size: 8MiB}} # hm\n\n# more\n\nqueue:\n  limit: 3\n", "2:1: did not find expected key"},
		{"the other bracket", "threads: 1\nmap:\n  - {prefix: /, origin: http://x]\n  - {prefix: /a, origin: http://y}\n", "3:3: did not find expected ',' or '}'"},
		{"no comma in a rule", "threads: 1\nmap:\n  - {prefix: / origin: http://x}\n", "3:3: did not find expected ',' or '}'"},
		{"no comma in a list", "listen: [\n  \"a\",\n  \"b\"\n  \"c\",\n  \"d\"\n]\n", "4:3: did not find expected ',' or ']'"},
		{"no comma between rules", "map: [\n  {prefix: /, origin: http://x},\n  {prefix: /a, origin: http://y}\n  {prefix: /b, origin: http://z}\n]\n", "4:3: did not find expected ',' or ']'"},
		{"indented too far", "queue:\n  limit: 1\ncache:\n  size: 8MiB\n   disk_size: 1GiB\nthreads: 2\n", "5:4: mapping values are not allowed in this context"},
		{"with the other line ends", "threads: 1\r\nqueue:\r\n  limit: 1\r\n   max_wait: 1s\r\n", "4:4: mapping values are not allowed in this context"},
		{"not far enough", "map: []\nlisten: a\ncache:\n   size: 8MiB\n  disk_size: 1GiB\nthreads: 2\n", "5:3: did not find expected key"},
		{"with a comment before it", "threads: 1\nqueue:\n  limit: 1\n  # a comment\n max_wait: 3s\n\n\n# c\nlog: {level: info}\n", "5:2: did not find expected key"},
		{"a key of a rule", "threads: 1\nmap:\n  - prefix: /\n   origin: http://x\nqueue:\n  limit: 2\n", "4:4: did not find expected '-' indicator"},
		{"a list beside keys", "threads: 1\n- a\n- b\n", "2:1: did not find expected key"},
		{"text of several lines", "threads: 1\nproxy:\n  via_name: |\n    a\n   b\nqueue:\n", "5:4: did not find expected key"},
		{"a tab", "queue:\n  limit: 1\n\tmax_wait: 2s\n", "3:1: tab in the indentation, must be spaces"},
		{"no colon", "threads: 1\nqueue:\n  limit 2\n  max_wait: 3s\n", "3:3: could not find expected ':'"},
		{"no colon behind a section", "threads: 1\nqueue\n  limit: 2\nlog:\n  level: info\n", "2:1: could not find expected ':'"},
		{"no colon in the last line", "listen: 1:1\nthreads 3\n", "2:1: could not find expected ':'"},
		{"one colon too many", "threads: 1\nqueue:\n  limit: 1: 2\n", "3:3: mapping values are not allowed in this context"},
		{"a quote is not closed", "threads: 1\nproxy:\n  via_name: \"abc\nqueue:\n  limit: 2\n", "3:3: text in quotes that is not closed"},
		{"more behind a quote", "threads: 1\n\nproxy:\n  via_name: \"a\" b\n\n# c\n\nqueue:\n  limit: 3\n", "4:3: did not find expected key"},
		{"an escape that is none", "threads: 1\nproxy:\n  via_name: \"a\\qb\"\nqueue: {}\n", "3:3: found unknown escape character"},
		{"a percent sign", "threads: 1\naccess_log:\n  custom: %h %l\n", "3:3: found character that cannot start any token"},
		{"a star", "threads: 1\nlisten: *:80\n", "2:1: did not find expected alphabetic or numeric character"},
		{"a mark before the first line", "\ufefflisten: {b\n", `1:9: "{" is not closed by "}"`},
	} {
		if _, err := load(c.text); err == nil || err.Error() != "trafficd.yaml:"+c.want {
			t.Errorf("%s: %q\n got %v\nwant trafficd.yaml:%s", c.what, c.text, err, c.want)
		}
	}
}

// FuzzSyntax: whatever is wrong, it is in the file.
func FuzzSyntax(f *testing.F) {
	for _, s := range []string{"a: {b\nc: d\n", "a: [b\n  \"c\"\n", "a:\n b: c\n  d: e\n", "}", "\"", "?", ": :", "a: !<", "%", "a: b\n...\n}\n", "\ufeff{", "a: |\n\tb\n c", "*x", "\r{\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := decodeAll(strings.NewReader(text))
		if _, bad := badText([]byte(text)); err == nil || bad != "" {
			return
		}
		s := examine([]byte(text), err)
		at, why := s.problem()
		if at.line < 1 || at.line > len(s.lines) || at.col < 1 || at.col > len(s.lines[at.line-1])+1 || why == "" {
			t.Errorf("%q: %v: line %d, column %d, %q", text, err, at.line, at.col, why)
		}
	})
}
