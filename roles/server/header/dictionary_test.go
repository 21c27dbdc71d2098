package header

import (
	"fmt"
	"strings"
	"testing"
)

// dictionary writes down what a dictionary has, or "malformed".
func dictionary(line string) string {
	var b strings.Builder
	d := DictionaryMembers([]byte(line))
	for d.Next() {
		fmt.Fprintf(&b, "%s=%d:%s;", d.Key, d.Kind, d.Value)
	}
	if d.Malformed() {
		return "malformed"
	}
	return b.String()
}

func TestRFC9651Section4_2_2Dictionary(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", ""},
		{"  ", ""},
		{"max-age=600", "max-age=1:600;"},
		{" max-age=600 ", "max-age=1:600;"},
		{"max-age=600,no-store", "max-age=1:600;no-store=0:;"},
		{"max-age=600 \t,\t no-store", "max-age=1:600;no-store=0:;"},
		{"a=?0, b=?1, c", "a=0:?0;b=0:?1;c=0:;"},
		{"a=-5, b=1.5, c=999999999999999", "a=1:-5;b=2:1.5;c=1:999999999999999;"},
		{`private="Set-Cookie, a"`, "private=3:Set-Cookie, a;"},
		{`a="x\"y\\z"`, `a=3:x\"y\\z;`},
		{"a=tok/en:1, *b=*", "a=4:tok/en:1;*b=4:*;"},
		{"a=:aGk=:, b=@1659578233", "a=5::aGk=:;b=6:@1659578233;"},
		{`a=%"f%c3%bc"`, `a=7:%"f%c3%bc";`},
		{`a=(1 "x" y);q=1, b`, `a=8:(1 "x" y);b=0:;`},
		{"a=(), b=( 1 2 )", "a=8:();b=8:( 1 2 );"},
		{"a;x;y=2;  z=\"3\", b=1;c", "a=0:;b=1:1;"},
		{"a=1;b=?1", "a=1:1;"},

		{"max-age=600,", "malformed"},
		{",max-age=600", "malformed"},
		{"a,,b", "malformed"},
		{"max-age=10000, &&&&&", "malformed"},
		{"max-age =100", "malformed"},
		{"max-age= 100", "malformed"},
		{"max-age=", "malformed"},
		{"MaX-aGe=3600", "malformed"},
		{"a b", "malformed"},
		{"a=1b", "malformed"},
		{"a=1000000000000000", "malformed"},
		{"a=1.", "malformed"},
		{"a=1.2345", "malformed"},
		{"a=1234567890123.1", "malformed"},
		{"a=-", "malformed"},
		{`a="x`, "malformed"},
		{`a="x\y"`, "malformed"},
		{"a=\"\x7f\"", "malformed"},
		{"a=?2", "malformed"},
		{"a=:x", "malformed"},
		{"a=:*:", "malformed"},
		{"a=@x", "malformed"},
		{"a=@1.5", "malformed"},
		{`a=%"%C3"`, "malformed"},
		{"a=(1", "malformed"},
		{`a=(1"x")`, "malformed"},
		{"a;", "malformed"},
		{"a;B", "malformed"},
		{"a;b=", "malformed"},
		{"\ta", "malformed"},
	} {
		if got := dictionary(c.line); got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
}

func FuzzDictionary(f *testing.F) {
	for _, s := range []string{"max-age=600, no-store", `a="b\"c";d=?1`, "a=(1 2);x, b=:aGk=:", `a=%"%c3"`, "a=@-1, *=1.5", "a,", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		d := DictionaryMembers(line)
		n := 0
		for d.Next() {
			n++
			if len(d.Key) == 0 || d.Kind == Boolean && d.Value != nil && len(d.Value) != 2 {
				t.Fatalf("%q: key %q, kind %d, value %q", line, d.Key, d.Kind, d.Value)
			}
		}
		if d.Next() || n > len(line) {
			t.Fatalf("%q: it goes on", line)
		}
	})
}
