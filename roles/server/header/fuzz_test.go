package header

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func FuzzLookup(f *testing.F) {
	for _, s := range []string{"", "Host", "host\x00", "CONTENT-LENGTH", "Transfer_Encoding", "TE", "X-Forwarded-Port", "\xff\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		id := Lookup(name)
		if id != Unknown && !strings.EqualFold(string(name), id.String()) {
			t.Fatalf("Lookup(%q) = %v", name, id)
		}
	})
}

func FuzzLists(f *testing.F) {
	for _, s := range []string{"", "a, b", `no-cache="a,b", max-age=1`, `"a\"`, `W/"a", "b,c"`, `a="`, ",,\t", `a="\`, "*"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		total := 0
		l := Members(v)
		for m, ok := l.Next(); ok; m, ok = l.Next() {
			if len(m) == 0 || len(Trim(m)) != len(m) || !bytes.Contains(v, m) {
				t.Fatalf("%q: member %q", v, m)
			}
			total += len(m)
		}
		if total > len(v) {
			t.Fatalf("%q: members of %d bytes", v, total)
		}
		l = Members(v)
		every, n := AllMembers(v), 0
		for m, ok := every.Next(); ok; m, ok = every.Next() {
			if n++; len(m) == 0 {
				continue
			}
			if other, ok := l.Next(); !ok || !bytes.Equal(m, other) {
				t.Fatalf("%q: member %q, without the empty ones %q", v, m, other)
			}
		}
		if m, more := l.Next(); more || n == 0 || n > bytes.Count(v, []byte(","))+1 || l.Malformed() != every.Malformed() {
			t.Fatalf("%q: %d members, and %q is left", v, n, m)
		}
		for d := Directives(v); d.Next(); {
			if !IsToken(d.Name) || d.HasValue && !d.Quoted && !IsToken(d.Value) || d.Quoted && ScanText(d.Value, 0) != len(d.Value) || !d.HasValue && d.Value != nil {
				t.Fatalf("%q: directive %q %q", v, d.Name, d.Value)
			}
			LookupDirective(d.Name)
		}
		for c := ETags(v); c.Next(); {
			if !ValidETag(c.Tag) || !WeakMatch(c.Tag, c.Tag) || StrongMatch(c.Tag, c.Tag) == WeakETag(c.Tag) {
				t.Fatalf("%q: entity tag %q", v, c.Tag)
			}
		}
	})
}

// FuzzDate: every date comes back as written; every IMF-fixdate that net/http
// writes is one here; and what both take for one is the same instant. (net/http
// knows no leap seconds, and no RFC 9110 rule for the year of the rfc850 form.)
func FuzzDate(f *testing.F) {
	for _, s := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "sun, 06 nov 0000 23:59:60 gmt", ""} {
		f.Add([]byte(s), int64(now))
	}
	f.Fuzz(func(t *testing.T, b []byte, at int64) {
		at %= 253402300799
		unix, ok := ParseDate(b, at)
		if !ok {
			if want, err := http.ParseTime(string(b)); err == nil && len(b) == DateLen && want.Format(http.TimeFormat) == string(b) {
				t.Fatalf("%q is a date", b)
			}
			return
		}
		const last = 253402300799 // 9999; a leap second after it cannot be written
		if again, ok := ParseDate(AppendDate(nil, unix), at); !ok || again != min(unix, last) {
			t.Fatalf("%q is %d, which does not come back: %d, %v", b, unix, again, ok)
		}
		want, err := http.ParseTime(string(b))
		if err == nil && want.Unix() != unix && b[3] == ',' && len(b) == DateLen {
			t.Fatalf("%q is %d; net/http: %d", b, unix, want.Unix())
		}
	})
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"", "0", "2147483649", "9223372036854775808", "+1", "99999999999999999999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := ParseUint(b)
		d, okD := ParseDelta(b)
		if ok && (!okD || d != min(n, MaxDelta)) {
			t.Fatalf("%q: %d and %d, %v", b, n, d, okD)
		}
		if ok && !bytes.Equal(AppendUint(nil, uint64(n)), append([]byte(nil), trimZeros(b)...)) {
			t.Fatalf("%q: %d", b, n)
		}
	})
}

func trimZeros(b []byte) []byte {
	for len(b) > 1 && b[0] == '0' {
		b = b[1:]
	}
	return b
}
