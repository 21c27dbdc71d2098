package logformat

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]Piece{
		`%h`:                {{Op: Client}},
		`%%h`:               {{Literal, "%h"}},
		`a\tb\"\\`:          {{Literal, "a\tb\"\\"}},
		`%h "%r" %>s`:       {{Op: Client}, {Literal, ` "`}, {Op: RequestLine}, {Literal, `" `}, {Op: Status}},
		`%{User-Agent}i|%b`: {{RequestField, "user-agent"}, {Literal, "|"}, {Op: BodyHyphen}},
		`%{ms}T%T%{usec}t`:  {{Op: Msec}, {Op: Sec}, {Op: TimeUsec}},
		`%{cache}x%{X-Id}o`: {{Op: Cache}, {ResponseField, "x-id"}},
	} {
		got, err := Parse(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
}

// What is wrong is said with its place and with what may have been meant.
func TestFaults(t *testing.T) {
	for text, want := range map[string]string{
		``:                        "is empty",
		`%h %`:                    "column 4: a letter is missing",
		`%h %{Host`:               "column 4: the brace is not closed",
		`%{Host}`:                 "column 1: a letter is missing",
		`%R`:                      "did you mean %r, request line?",
		`%z`:                      "behind % may stand one of h a p",
		`%i`:                      "needs the name of a field: %{Name}i",
		`%{a b}o`:                 "needs the name of a field",
		`%{min}T`:                 "%T is written %T, %{s}T, %{ms}T, %{us}T",
		`%{}t`:                    "%t is written %t, %{iso}t",
		`%p`:                      "%p is written %{remote}p",
		"%h\n":                    "column 3: a control character",
		`%h\n`:                    `column 3: \n is not known`,
		`\`:                       "nothing follows the backslash",
		`%{x}x`:                   "%x is written %{cache}x",
		strings.Repeat("x", 5000): "at most 4096",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", text, err, want)
		}
	}
}

// Every field can be written, and every letter has help.
func TestTheTableIsComplete(t *testing.T) {
	seen := map[Op]bool{Literal: true, RequestField: true, ResponseField: true}
	for _, l := range letters {
		if l.help == "" {
			t.Errorf("%%%c has no help", l.name)
		}
		for _, w := range l.words {
			seen[w.op] = true
		}
	}
	for op := range Op(Ops) {
		if !seen[op] {
			t.Errorf("field %d cannot be written", op)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`%h %l %u %t "%r" %>s %b`, `%{`, `%{}i`, `\`, `%%%`, `%<{a}i`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pieces, err := Parse(s)
		if (err == nil) != (len(pieces) > 0) {
			t.Fatalf("%q: %v, %v", s, pieces, err)
		}
		for _, p := range pieces {
			if strings.ContainsAny(p.Text, "\n\r\x00") {
				t.Fatalf("%q: a line could be broken by %q", s, p.Text)
			}
		}
	})
}
