package header

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHopByHop(t *testing.T) { // RFC 9110 §7.6.1
	for _, name := range strings.Fields("Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade " +
		"Proxy-Authenticate Proxy-Authorization HTTP2-Settings") {
		if id := Lookup([]byte(name)); !HopByHop(id) {
			t.Errorf("%s must not be forwarded", name)
		}
	}
	for _, id := range []ID{Host, ContentLength, Cookie, Authorization, CacheControl, XForwardedFor, Via, SetCookie} {
		if HopByHop(id) {
			t.Errorf("%v must be forwarded", id)
		}
	}
	if HopByHop(Unknown) {
		t.Error("an unknown field is forwarded unless it is nominated")
	}
	for _, id := range []ID{TransferEncoding, ContentLength, Host, CacheControl, Authorization, SetCookie, ContentType, Trailer} {
		if !TrailerForbidden(id) { // RFC 9110 §6.5.1
			t.Errorf("%v must not be in a trailer section", id)
		}
	}
	if TrailerForbidden(Unknown) || TrailerForbidden(ETag) {
		t.Error("unknown fields and ETag may be in a trailer section")
	}
}

func TestSetHoldsEveryID(t *testing.T) {
	for id := ID(0); id < NumIDs; id++ {
		s := SetOf(id)
		for other := ID(0); other < NumIDs; other++ {
			if s.Has(other) != (other == id) {
				t.Fatalf("set of %d: has %d is %v", id, other, s.Has(other))
			}
		}
	}
	if NumIDs.String() != "" || Unknown.String() != "" {
		t.Error("what is no field has no name")
	}
}

func TestCharacterClasses(t *testing.T) {
	for c := range 256 {
		b := byte(c)
		token := strings.IndexByte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", b) >= 0
		if IsTokenByte(b) != token || IsToken([]byte{'a', b}) != token {
			t.Errorf("%#x: token byte is %v", c, !token)
		}
		text := b == '\t' || b >= 0x20 && b != 0x7f
		// At every place within, and after, a run of eight bytes.
		for n := range 20 {
			v := append(bytes.Repeat([]byte{'a'}, n), b)
			v = append(v, "\tbbbbbbbbb"...)
			want := len(v)
			if !text {
				want = n
			}
			if got := ScanText(v, 0); got != want {
				t.Fatalf("ScanText(%q) = %d, want %d", v, got, want)
			}
		}
	}
	if IsToken(nil) {
		t.Error("an empty token is none")
	}
}

func TestEqualFoldAndTrim(t *testing.T) {
	if !EqualFold([]byte("KeeP"), "kEEp") || EqualFold([]byte("keep"), "keeps") || EqualFold([]byte("@"), "`") ||
		EqualFold([]byte("\xe9"), "\xc9") || !EqualFoldBytes([]byte("A-b"), []byte("a-B")) || EqualFoldBytes([]byte("a"), nil) {
		t.Error("EqualFold is wrong")
	}
	for in, want := range map[string]string{"": "", " \t ": "", " a b\t": "a b", "a": "a", "\x0ba": "\x0ba"} {
		if got := string(Trim([]byte(in))); got != want {
			t.Errorf("Trim(%q) = %q", in, got)
		}
	}
	if Lower('A') != 'a' || Lower('[') != '[' || Lower(0xc9) != 0xc9 {
		t.Error("Lower is wrong")
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in    string
		n     int64
		ok    bool
		delta int64
		okD   bool
	}{
		{"0", 0, true, 0, true},
		{"010", 10, true, 10, true},
		{"2147483648", 1 << 31, true, 1 << 31, true},
		{"2147483649", 1<<31 + 1, true, 1 << 31, true},
		{"9223372036854775807", math.MaxInt64, true, 1 << 31, true},
		{"9223372036854775808", 0, false, 1 << 31, true},
		{strings.Repeat("9", 1000), 0, false, 1 << 31, true},
		{"", 0, false, 0, false},
		{"+1", 0, false, 0, false}, {"-1", 0, false, 0, false}, {" 1", 0, false, 0, false}, {"1 ", 0, false, 0, false},
		{"1.5", 0, false, 0, false}, {"0x1", 0, false, 0, false}, {"1e3", 0, false, 0, false}, {"\xb2", 0, false, 0, false},
	} {
		if n, ok := ParseUint([]byte(c.in)); n != c.n || ok != c.ok {
			t.Errorf("ParseUint(%q) = %d, %v", c.in, n, ok)
		}
		if n, ok := ParseDelta([]byte(c.in)); ok != c.okD || ok && n != c.delta {
			t.Errorf("ParseDelta(%q) = %d, %v", c.in, n, ok)
		}
	}
	for _, n := range []uint64{0, 9, 10, 1234567890, math.MaxUint64} {
		if got := string(AppendUint(nil, n)); got != strconv.FormatUint(n, 10) {
			t.Errorf("AppendUint(%d) = %s", n, got)
		}
	}
}

func members(l List) (out []string, malformed bool) {
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		out = append(out, string(m))
	}
	return out, l.Malformed()
}

func TestMembers(t *testing.T) { // RFC 9110 §5.6.1
	for _, c := range []struct {
		in, want  string // members joined by |
		malformed bool
	}{
		{"", "", false}, {",, ,\t,", "", false}, {"a", "a", false}, {" a ,b,\tc\t", "a|b|c", false}, {",a,,b,", "a|b", false},
		{`a="b,c",d`, `a="b,c"|d`, false}, {`"a\",b",c`, `"a\",b"|c`, false}, {`a,"b,c`, `a|"b,c`, true}, {`a\,b`, `a\|b`, false}, {`"\`, `"\`, true},
	} {
		got, malformed := members(Members([]byte(c.in)))
		if strings.Join(got, "|") != c.want || malformed != c.malformed {
			t.Errorf("Members(%q): %q, malformed %v", c.in, got, malformed)
		}
	}
	for in, want := range map[string]string{
		"": "", "a": "a", ",": "|", "a,": "a|", " , a\t,,b ": "|a||b", `",",`: `","|`, `a,"b,`: `a|"b,`,
	} {
		if got, _ := members(AllMembers([]byte(in))); len(got) == 0 || strings.Join(got, "|") != want {
			t.Errorf("AllMembers(%q): %q", in, got)
		}
	}
	if got, _ := members(List{}); got != nil {
		t.Errorf("the zero value has %q", got)
	}
	if !HasToken([]byte("gzip, Chunked"), "chunked") || HasToken([]byte("xchunked"), "chunked") || HasToken([]byte(`"a, chunked"`), "chunked") {
		t.Error("HasToken is wrong")
	}
}

func directives(v string) (out string, malformed bool) {
	d := Directives([]byte(v))
	for d.Next() {
		out += string(d.Name)
		if d.HasValue {
			out += "=" + string(d.Value)
		}
		if d.Quoted {
			out += "(q)"
		}
		out += "|"
	}
	return out, d.Malformed()
}

func TestDirectives(t *testing.T) { // RFC 9111 §5.2
	for _, c := range []struct {
		in, want  string
		malformed bool
	}{
		{"", "", false},
		{"no-store", "no-store|", false},
		{"max-age=60, Public", "max-age=60|Public|", false},
		{`no-cache="a, b",x`, `no-cache=a, b(q)|x|`, false},
		{`a="b\"c"`, `a=b\"c(q)|`, false},
		{`a=""`, `a=(q)|`, false},
		{"a=,b", "b|", true},
		{"=a,b", "b|", true},
		{"a =1,b", "b|", true},
		{"a= 1,b", "b|", true},
		{"a=1 2,b", "b|", true},
		{`a="b"c,d`, "d|", true},
		{`a="b,no-store`, "", true},
		{"a=\"\x01\",b", "b|", true},
	} {
		got, malformed := directives(c.in)
		if got != c.want || malformed != c.malformed {
			t.Errorf("Directives(%q): %q, malformed %v", c.in, got, malformed)
		}
	}
	for d := Directive(1); d < numDirectives; d++ {
		if LookupDirective([]byte(strings.ToUpper(d.String()))) != d {
			t.Errorf("LookupDirective(%v) failed", d)
		}
	}
	if LookupDirective([]byte("max-ag")) != UnknownDirective || numDirectives.String() != "" {
		t.Error("an unknown directive has no number")
	}
}

func TestETags(t *testing.T) { // RFC 9110 §8.8.3.2, the table of its example
	for _, c := range []struct {
		a, b         string
		strong, weak bool
	}{
		{`W/"1"`, `W/"1"`, false, true}, {`W/"1"`, `W/"2"`, false, false}, {`W/"1"`, `"1"`, false, true}, {`"1"`, `"1"`, true, true},
		{`"1"`, `"2"`, false, false}, {`1`, `1`, false, false}, {`w/"1"`, `w/"1"`, false, false}, {`""`, `""`, true, true}, {``, ``, false, false},
		{`"a`, `"a`, false, false}, {`"a"b`, `"a"b`, false, false}, {"\"a b\"", "\"a b\"", false, false}, {`"a\"`, `"a\"`, true, true},
	} {
		if s, w := StrongMatch([]byte(c.a), []byte(c.b)), WeakMatch([]byte(c.a), []byte(c.b)); s != c.strong || w != c.weak {
			t.Errorf("%s and %s: strong %v, weak %v", c.a, c.b, s, w)
		}
	}
	for _, c := range []struct {
		in, want  string
		malformed bool
	}{ // RFC 9110 §13.1.2
		{`"a", W/"b" ,"c,d"`, `"a"|W/"b"|"c,d"`, false}, {``, ``, false}, {`,, "a",`, `"a"`, false}, {`"a\", "b"`, `"a\"|"b"`, false},
		{`"a" "b"`, ``, true}, {`a`, ``, true}, {`"a", b, "c"`, `"a"`, true}, {`"a`, ``, true}, {`*`, ``, true},
	} {
		var got []string
		cur := ETags([]byte(c.in))
		for cur.Next() {
			got = append(got, string(cur.Tag))
		}
		if strings.Join(got, "|") != c.want || cur.bad != c.malformed || cur.Next() {
			t.Errorf("ETags(%q): %q, malformed %v", c.in, got, cur.bad)
		}
	}
	if !IsAny([]byte(" * ")) || IsAny([]byte(`"*"`)) || IsAny(nil) {
		t.Error("IsAny is wrong")
	}
}

func TestNoAllocations(t *testing.T) {
	cc, tags := []byte(`max-age=60, no-cache="a,b", public`), []byte(`"a", W/"b"`)
	date, rfc850, buf := []byte("Sun, 06 Nov 1994 08:49:37 GMT"), []byte("Sunday, 06-Nov-94 08:49:37 GMT"), make([]byte, 0, 64)
	n := testing.AllocsPerRun(100, func() {
		for d := Directives(cc); d.Next(); {
			LookupDirective(d.Name)
		}
		for c := ETags(tags); c.Next(); {
			WeakMatch(c.Tag, tags)
		}
		ParseDate(date, 0)
		ParseDate(rfc850, 0)
		AppendDate(buf, 784111777)
		AppendUint(buf, 1<<40)
		HasToken(cc, "public")
		Lookup(cc[:7])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleDirectives() {
	cur := Directives([]byte(`max-age=60, no-cache="set-cookie", stale-if-error=300`))
	for cur.Next() {
		fmt.Println(LookupDirective(cur.Name), string(cur.Value))
	}
	// Output:
	// max-age 60
	// no-cache set-cookie
	// stale-if-error 300
}

// Many tags are held against a long one for what they are long themselves.
func TestManyTagsAgainstALongOne(t *testing.T) {
	list := []byte(strings.Repeat(`"a",`, 8000))
	brief, lengthy := []byte(`"b"`), []byte(`"`+strings.Repeat("a", 20<<10)+`"`) // made once: to copy it is not what is measured
	cost := func(tag []byte) time.Duration {
		begun := time.Now()
		for c := ETags(list); c.Next(); {
			if WeakMatch(c.Tag, tag) {
				t.Fatal("it is none of them")
			}
		}
		return time.Since(begun)
	}
	// The least of many turns is what it costs when nothing else happens on the machine.
	short, long := cost(brief), cost(lengthy)
	for n := 0; n < 50 && long > 20*short; n++ {
		short, long = min(short, cost(brief)), min(long, cost(lengthy))
	}
	if long > 20*short {
		t.Errorf("%v against a short one, %v against a long one", short, long)
	}
}
