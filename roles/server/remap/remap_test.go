package remap

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func table(t testing.TB, rules ...string) *Table {
	t.Helper()
	var rs []Spec
	for _, r := range rules {
		prefix, origin, _ := strings.Cut(r, "=")
		rs = append(rs, Spec{Prefix: prefix, Origin: origin})
	}
	tab, err := New(rs)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestLookup(t *testing.T) {
	tab := table(t,
		"/=http://root",
		"/shop=http://shop/v2",
		"/shop/cart/=http://cart",
		"http://a.example/=http://a",
		"http://a.example/deep/er=http://deeper:81/",
		"http://a.example:8080/=http://port",
	)
	for _, c := range []struct{ host, path, origin, target string }{
		{"x", "/", "http://root", "/"},
		{"x", "/any/thing", "http://root", "/any/thing"},
		{"x", "/shop", "http://shop/v2", "/v2"},
		{"x", "/shop/", "http://shop/v2", "/v2/"},
		{"x", "/shop/a", "http://shop/v2", "/v2/a"},
		{"x", "/shopping", "http://root", "/shopping"},
		{"x", "/shop/cart", "http://cart", "/"},
		{"x", "/shop/cart/1", "http://cart", "/1"},
		{"", "/shop/cart/1", "http://cart", "/1"},
		{"A.Example", "/x", "http://a", "/x"},
		{"a.example:80", "/x", "http://a", "/x"},
		{"a.example:99", "/x", "http://a", "/x"},
		{"a.example:8080", "/x", "http://port", "/x"},
		{"a.example", "/deep/er/x", "http://deeper:81/", "/x"},
		{"a.example", "/deep/e", "http://a", "/deep/e"},
		{"[::1]:80", "/x", "http://root", "/x"},
		{"x", "/" + strings.Repeat("/", 4000), "http://root", "/" + strings.Repeat("/", 4000)},
	} {
		m, ok := tab.Lookup([]byte(c.host), []byte(c.path))
		if !ok {
			t.Errorf("%s%s: no rule", c.host, c.path)
			continue
		}
		if got := string(m.AppendTarget(nil, []byte(c.path))); m.Origin.Name != c.origin || got != c.target {
			t.Errorf("%s%s: got %s %s, want %s %s", c.host, c.path, m.Origin.Name, got, c.origin, c.target)
		}
	}
}

func TestNoRuleApplies(t *testing.T) {
	tab := table(t, "/a=http://a", "http://h/b=http://b")
	for _, path := range []string{"/", "/b", "/ab", "*", ""} {
		if m, ok := tab.Lookup([]byte("x"), []byte(path)); ok {
			t.Errorf("%q: got %s, want no rule", path, m.Origin.Name)
		}
	}
}

// A prefix is compared in the form that paths have when they are looked up.
func TestPrefixesAreNormal(t *testing.T) { // RFC 3986 §6.2.2
	tab := mustNew(t,
		Spec{Prefix: "/a%2fb", Origin: "http://a"},
		Spec{Prefix: "http://h/%7euser/", Origin: "http://h"},
		Spec{Type: "regex_map", Prefix: "/x%c3", Path: ".*", Origin: "http://x"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"", "/a%2fb/c", "a:80 /c"}, {"", "/a%2Fb/c", "a:80 /c"}, {"", "/a/b/c", "404"}, {"h", "/~user/x", "h:80 /x"}, {"", "/x%c3/", "x:80 /x%C3/"},
	} {
		if got := where(tab, c.host, string(AppendNormal(nil, []byte(c.path))), ""); got != c.want {
			t.Errorf("%s%s: got %s, want %s", c.host, c.path, got, c.want)
		}
	}
	if _, err := New([]Spec{{Prefix: "/a%2f", Origin: "http://a"}, {Prefix: "/a%2F", Origin: "http://b"}}); err == nil {
		t.Error("two rules for one prefix")
	}
}

func TestParseOrigin(t *testing.T) {
	for _, c := range []struct {
		in    string
		host  string
		port  uint16
		group string
		path  string
		bad   string // part of the error
	}{
		{in: "http://h", host: "h", port: 80},
		{in: "http://h:8080/", host: "h", port: 8080},
		{in: "HTTP://h/a/b/", host: "h", port: 80, path: "/a/b"},
		{in: "http://[::1]:99/x", host: "::1", port: 99, path: "/x"},
		{in: "http://[::1]", host: "::1", port: 80},
		{in: "group:app", group: "app"},
		{in: "group:app/v2/", group: "app", path: "/v2"},
		{in: "group:", bad: "a group is"},
		{in: "group:/x", bad: "a group is"},
		{in: "group:a:80", bad: "a group is"},
		{in: "h:80", bad: "an origin is"},
		{in: "https://h", bad: "an origin is"},
		{in: "http://", bad: "host is missing"},
		{in: "http://h:0", bad: "port"},
		{in: "http://h:65536", bad: "port"},
		{in: "http://h:8x", bad: "port"},
		{in: "http://u@h", bad: "host is missing or malformed"},
		{in: "http://h/a?b", bad: "query"},
	} {
		o, err := ParseOrigin(c.in)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: got error %v, want %q", c.in, err, c.bad)
			}
			continue
		}
		if err != nil || o.Host != c.host || o.Port != c.port || o.Group != c.group || o.Path != c.path {
			t.Errorf("%s: got %+v, %v", c.in, o, err)
		}
	}
}

func TestNewNamesTheBadRule(t *testing.T) {
	for _, c := range []struct {
		rules []Spec
		want  string
	}{
		{[]Spec{{Prefix: "/a", Origin: "http://x"}, {Prefix: "/a/", Origin: "http://y"}}, "map /a/: there is another rule"},
		{[]Spec{{Prefix: "a", Origin: "http://x"}}, "map a: a prefix is"},
		{[]Spec{{Prefix: "http:///a", Origin: "http://x"}}, "no host"},
		{[]Spec{{Prefix: "/a", Origin: "ftp://x"}}, "map /a: origin"},
	} {
		if _, err := New(c.rules); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.rules, err, c.want)
		}
	}
}

func manyRules(tb testing.TB, n int) *Table {
	var rs []string
	for i := range n {
		rs = append(rs, fmt.Sprintf("/site%d/app=http://o%d", i, i))
	}
	return table(tb, rs...)
}

func TestLookupDoesNotAllocate(t *testing.T) {
	for _, tab := range []*Table{manyRules(t, 100), shops(t, 100)} {
		host, path := []byte("Some.Host:8080"), []byte("/site7/app/index.html")
		if n := testing.AllocsPerRun(100, func() { tab.Lookup(host, path) }); n != 0 {
			t.Errorf("got %v allocations a lookup, want none", n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n, " rules"), func(b *testing.B) {
			tab := manyRules(b, n)
			host, path := []byte("some.host"), []byte("/site0/app/index.html")
			for b.Loop() {
				tab.Lookup(host, path)
			}
		})
	}
}

func TestAPolicyIsThatOfTheRule(t *testing.T) {
	policy := &Policy{Cache: Off}
	tab, err := New([]Spec{{Prefix: "/a", Origin: "http://a", Policy: policy}, {Prefix: "/", Origin: "http://b"}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Toggle{"/a/x": Off, "/b": Unset} {
		m, ok := tab.Lookup(nil, []byte(path))
		if !ok || m.Policy().Cache != want {
			t.Errorf("%s: got %+v, %v", path, m.Policy(), ok)
		}
	}
	if p := new(Match).Policy(); p == nil || p.Cache != Unset {
		t.Errorf("a match of no rule has the policy %+v", p)
	}
}

func TestAllows(t *testing.T) {
	p := &Policy{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}}
	for client, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "2001:db8::1": true, "::1": false,
	} {
		if got := p.Allows(netip.MustParseAddr(client)); got != want {
			t.Errorf("%s: got %v", client, got)
		}
	}
	if !noPolicy.Allows(netip.Addr{}) {
		t.Error("a rule for everybody refuses a client without an address")
	}
}
