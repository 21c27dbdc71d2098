package remap

import (
	"fmt"
	"strings"
	"testing"
)

func mustNew(t testing.TB, specs ...Spec) *Table {
	t.Helper()
	tab, err := New(specs)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// where says in one line what a request comes to.
func where(t *Table, host, path, query string) string {
	m, ok := t.Lookup([]byte(host), []byte(path))
	switch {
	case !ok:
		return "404"
	case m.Redirect() != 0:
		return fmt.Sprint(m.Redirect(), " ", string(m.AppendLocation(nil, []byte(path), []byte(query))))
	}
	return fmt.Sprintf("%s:%d %s", m.Origin.Host, m.Origin.Port, m.AppendTarget(nil, []byte(path)))
}

func TestRegexRules(t *testing.T) {
	tab := mustNew(t,
		Spec{Type: "regex_map", Prefix: `http://(.+)\.img\.example/`, Origin: "http://$1.internal:81/i"},
		Spec{Type: "regex_map", Prefix: `http://(.+)\.img\.example/deep`, Origin: "http://$1.deep"},
		Spec{Type: "regex_map", Prefix: `http://(a|b)\.img\.example/`, Origin: "http://never"},
		Spec{Type: "regex_map", Prefix: `http://x([0-9]+)\.z\.com:8080/`, Origin: "http://real-x$1.z.com"},
		Spec{Type: "regex_map", Prefix: `http://(www\.)?shop\.example/`, Path: `/u/(\d+)/(.*)`, Origin: "http://users/$2/of/$3/"},
		Spec{Type: "regex_map", Prefix: `http://(www\.)?shop\.example/`, Path: `/keep/.*`, Origin: "http://kept"},
		Spec{Type: "regex_map", Prefix: `http://lit\.example/`, Path: `/p(\d)`, Origin: "http://$0/p/$1"},
		Spec{Prefix: "http://lit.example/", Origin: "http://literal"},
		Spec{Prefix: "http://c.img.example/", Origin: "http://exact"},
		Spec{Type: "regex_redirect", Prefix: `http://old\.(.*)/`, Origin: "https://new.$1"},
		Spec{Type: "regex_redirect_temporary", Prefix: "/", Path: "/go/(.*)", Origin: "/gone/$1?by=rule"},
		Spec{Type: "regex_map", Prefix: `http://any-(.*)/`, Origin: "http://$1"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"q.img.example", "/a", "q.internal:81 /i/a"},
		{"Q.IMG.Example:99", "/a", "q.internal:81 /i/a"},
		{"q.img.example", "/deep/a", "q.deep:80 /a"},
		{"a.img.example", "/", "a.internal:81 /i/"}, // the order of the file
		{"c.img.example", "/", "exact:80 /"},        // a literal host comes first
		{"xq.img.example.evil", "/", "404"},         // the whole host is matched
		{"x12.z.com:8080", "/a", "real-x12.z.com:80 /a"},
		{"x12.z.com", "/a", "404"},
		{"x12.z.com:8081", "/a", "404"},
		{"shop.example", "/u/7/a/b", "users:80 /7/of/a/b/"},
		{"www.shop.example", "/u/7/x", "users:80 /7/of/x/"},
		{"www.shop.example", "/keep/x", "kept:80 /keep/x"},
		{"www.shop.example", "/u/x/x", "404"},
		{"lit.example", "/p5", "lit.example:80 /p/5"},
		{"lit.example:8080", "/p5", "lit.example:80 /p/5"},
		{"lit.example", "/px", "literal:80 /px"},
		{"old.site.example", "/a/b", "301 https://new.site.example/a/b?q=1"},
		{"x", "/go/there", "307 /gone/there?by=rule"},
		{"any-", "/", "404"},    // no host comes of it
		{"any-a~b", "/", "404"}, // nor of this
		{"any-a..b", "/", "a..b:80 /"},
	} {
		if got := where(tab, c.host, c.path, "?q=1"); got != c.want {
			t.Errorf("%s%s: got %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

// What a client sent never leads out of the path that a rule names, nor to the rule behind it.
func TestGroupsDoNotClimb(t *testing.T) { // RFC 3986 §5.2.4
	tab := mustNew(t,
		Spec{Type: "regex_map", Prefix: `http://(.*)\.shop\.example/`, Origin: "http://shops/$1/"},
		Spec{Type: "regex_map", Prefix: `http://(.*)\.group\.example/`, Origin: "group:app/$1"},
		Spec{Type: "regex_map", Prefix: `http://(.*)\.dot\.example/`, Origin: "http://shops/.$1/x"},
		Spec{Type: "regex_map", Prefix: `http://(.*)\.host\.example/`, Origin: "http://h$1/x"},
		Spec{Type: "regex_map", Prefix: `/`, Path: `/u(.*)/x`, Origin: "http://users/home/$1/x"},
		Spec{Type: "regex_map", Prefix: `/`, Path: `/e(.*)25(.*)`, Origin: "http://users/home/$1$2"},
		Spec{Type: "regex_map", Prefix: `/`, Path: `/f(.*)`, Origin: "http://users/home/%2$1"},
		Spec{Type: "regex_redirect", Prefix: `/`, Path: `/go(.*)/x`, Origin: "/safe/$1/x"},
		Spec{Type: "regex_redirect", Prefix: `/`, Path: `/away(.*)/x`, Origin: "https://h/safe/$1?of=$1"},
		Spec{Type: "regex_redirect", Prefix: `/`, Path: `/ask(.*)/x`, Origin: "https://h/safe/?of=/$1/"},
		Spec{Prefix: "/", Origin: "http://all"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"a.shop.example", "/secret", "shops:80 /a/secret"},
		{"...shop.example", "/secret", "404"},
		{"..shop.example", "/secret", "404"},
		{"....shop.example", "/secret", "shops:80 /.../secret"},
		{"..a.shop.example", "/secret", "shops:80 /..a/secret"},
		{"...group.example", "/secret", "404"},
		{"..dot.example", "/secret", "404"},
		{"b.dot.example", "/secret", "shops:80 /.b/x/secret"},
		{"...host.example", "/secret", "h..:80 /x/secret"}, // no path
		{"", "/u7/x", "users:80 /home/7/x"},
		{"", "/u../x", "404"},
		{"", "/u./x", "404"},
		{"", "/u/../x", "404"}, // were it not in its normal form
		{"", "/ua/b../x", "users:80 /home/a/b../x"},
		{"", "/u%252e/x", "users:80 /home/%252e/x"}, // a percent sign for the origin, too
		{"", "/e.%252e", "404"},
		{"", "/fE.", "404"},
		{"", "/fF.", "users:80 /home/%2F."},
		{"", "/go7/x", "301 /safe/7/x"},
		{"", "/go../x", "404"},
		{"", "/away7/x", "301 https://h/safe/7?of=7"},
		{"", "/away../x", "404"},
		{"", "/ask../x", "301 https://h/safe/?of=/../"},
	} {
		if got := where(tab, c.host, c.path, ""); got != c.want {
			t.Errorf("%s%s: got %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

// What a client sent never makes another host of the one that a rule names.
func TestGroupsMakeNoHost(t *testing.T) {
	tab := mustNew(t,
		Spec{Type: "regex_redirect", Prefix: "/", Path: "/old/(.*)", Origin: "/$1?moved=1"},
		Spec{Type: "regex_redirect", Prefix: "/", Path: "/older/(.*)", Origin: "/$1"},
		Spec{Type: "regex_redirect", Prefix: "/", Path: "/to/(.*)", Origin: "https://$1.shop.example/"},
		Spec{Type: "regex_redirect", Prefix: "/", Path: "/two/(.*)/(.*)", Origin: "https://$1.shop.example/$2"},
		Spec{Type: "regex_redirect", Prefix: `http://(.*)/`, Path: "/tls(.*)", Origin: "https://$1$2"},
		Spec{Type: "regex_map", Prefix: "/", Path: "/from/(.*)", Origin: "http://$1.internal/x"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"", "/old/a", "301 /a?moved=1"},
		{"", "/old//evil.example/a", "301 /evil.example/a?moved=1"},
		{"", "/older//evil.example/a", "301 /evil.example/a"},
		{"", "/to/a", "301 https://a.shop.example/"},
		{"", "/to/evil.example/", "404"},
		{"", "/to/me@evil.example", "404"},
		{"", "/two/a/b/c", "404"}, // the first group takes what it can get
		{"", "/two/a/b", "301 https://a.shop.example/b"},
		{"[::1]", "/tls", "301 https://[::1]/tls"},
		{"h", "/tls/a", "404"}, // the second group continues the host
		{"", "/from/a", "a.internal:80 /x"},
		{"", "/from/evil.example/", "404"},
	} {
		if got := where(tab, c.host, c.path, ""); got != c.want {
			t.Errorf("%s%s: got %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

func TestRedirects(t *testing.T) {
	tab := mustNew(t,
		Spec{Prefix: "/", Origin: "http://root"},
		Spec{Type: "redirect", Prefix: "/old", Origin: "https://new.example/base/"},
		Spec{Type: "redirect_temporary", Prefix: "/moved/", Origin: "/"},
		Spec{Type: "redirect", Prefix: "/fixed", Origin: "http://new.example/here?from=old"},
		Spec{Type: "redirect", Prefix: "http://all.example/", Origin: "https://all.example"},
	)
	for _, c := range []struct{ host, path, query, want string }{
		{"x", "/older", "", "root:80 /older"},
		{"x", "/old", "", "301 https://new.example/base/"},
		{"x", "/old/", "", "301 https://new.example/base/"},
		{"x", "/old/a/b", "?x=1", "301 https://new.example/base/a/b?x=1"},
		{"x", "/moved", "", "307 /"},
		{"x", "/moved/a", "?", "307 /a?"},
		{"x", "/moved//evil.example/a", "", "307 /evil.example/a"},
		{"x", "/fixed/a", "?x=1", "301 http://new.example/here?from=old"},
		{"all.example", "/", "", "301 https://all.example/"},
		{"all.example", "//evil.example", "", "301 https://all.example//evil.example"},
	} {
		if got := where(tab, c.host, c.path, c.query); got != c.want {
			t.Errorf("%s%s%s: got %s, want %s", c.host, c.path, c.query, got, c.want)
		}
	}
}

func TestPortsOfPrefixes(t *testing.T) {
	tab := mustNew(t,
		Spec{Prefix: "http://h/", Origin: "http://any-port"},
		Spec{Prefix: "http://h:80/", Origin: "http://eighty"},
		Spec{Prefix: "http://h:81/", Origin: "http://eighty-one"},
		Spec{Prefix: "http://only:80/", Origin: "http://only"},
	)
	for host, want := range map[string]string{
		"h": "eighty:80 /", "H:80": "eighty:80 /", "h:81": "eighty-one:80 /", "h:82": "any-port:80 /",
		"only": "only:80 /", "only:81": "404",
	} {
		if got := where(tab, host, "/", ""); got != want {
			t.Errorf("%s: got %s, want %s", host, got, want)
		}
	}
}

func TestBadRulesAreNamed(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Type: "mapp", Prefix: "/", Origin: "http://x"}, "mapp /: there are no such rules"},
		{Spec{Type: "regex_map", Prefix: "http://(/", Origin: "http://x"}, "regex_map http://(/: error parsing"},
		{Spec{Type: "regex_map", Prefix: "/", Path: "(", Origin: "http://x"}, "regex_map /: error parsing"},
		{Spec{Type: "regex_map", Prefix: "http://a/", Origin: "http://$1"}, "there is no group $1"},
		{Spec{Type: "regex_map", Prefix: "http://a/", Origin: "http://$x"}, "without a digit"},
		{Spec{Type: "regex_map", Prefix: "http://:80/", Origin: "http://x"}, "no host"},
		{Spec{Type: "redirect", Prefix: "/", Origin: "x"}, "a redirect leads to"},
		{Spec{Type: "reverse_map", Prefix: "/", Origin: "http://x"}, "no host"},
	} {
		if _, err := New([]Spec{c.spec}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.spec, err, c.want)
		}
	}
}

// Rules for other domains cost a request nothing: what is looked at is found by the end of the host.
func TestPatternsAreFoundByTheirEnd(t *testing.T) {
	for _, c := range []struct{ expr, tail string }{
		{`(.*)\.example\.com`, "example.com"},
		{`(.*)example\.com`, "com"},
		{`(.*)\.a\.b\.c\.example\.com`, "b.c.example.com"},
		{`x(.*)`, ""},
		{`a|b`, ""},
		{`(.*)\.(example\.com)`, "example.com"},
		{`(www|img)\.EXAMPLE\.com`, "example.com"},
		{`.*\.example\.(com|net)`, ""},
	} {
		var ps patterns
		h, err := ps.host(c.expr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := tailOf(h.suffix); got != c.tail {
			t.Errorf("%s: got %q, want %q", c.expr, got, c.tail)
		}
	}
}

// dotSegments reports whether the path of a URL, as AppendNormal reads it, has segments that it would remove.
func dotSegments(url string) bool {
	url, _, _ = strings.Cut(url, "?")
	url, _, _ = strings.Cut(url, "#")
	if _, rest, ok := strings.Cut(url, "://"); ok {
		_, url, _ = strings.Cut(rest, "/")
	}
	url = strings.NewReplacer("%2e", ".", "%2E", ".").Replace("/" + url + "/")
	return strings.Contains(url, "/../") || strings.Contains(url, "/./")
}

func FuzzRegexRule(f *testing.F) {
	f.Add(`http://(.*)\.example\.com/`, `/u/(.*)`, "http://$1.internal/$2", "a.example.com", "/u/x")
	f.Add(`http://(?i)A(b|)c{2,3}/x`, ``, "http://$0", "abcc", "/x/y")
	f.Add(`/`, `^/a$|/b`, "http://x/$0", "", "/b")
	f.Add(`http://a\.b:80/`, ``, "http://$0:81", "a.b", "/")
	f.Add(`http://(.*)\.shop\.example/`, ``, "http://x/$1/", "...shop.example", "/secret")
	f.Add(`/`, `/u(.*)/(.*)`, "http://x/.$1/%2$2", "", "/u./e.")
	f.Add(`/a`, `/a(.*)25(.*)`, "group:x/$1$2", "", "/a.%252e")
	f.Fuzz(func(t *testing.T, prefix, expr, origin, host, path string) {
		tab, err := New([]Spec{{Type: "regex_map", Prefix: prefix, Path: expr, Origin: origin}})
		if err != nil {
			return
		}
		redirects, err := New([]Spec{{Type: "regex_redirect", Prefix: prefix, Path: expr, Origin: "/" + origin}})
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		path = string(AppendNormal(nil, []byte(path))) // as it is looked up
		if m, ok := tab.Lookup([]byte(host), []byte(path)); ok {
			if !plainHost(m.Origin.Host) && strings.Contains(origin, "$") {
				t.Errorf("the origin is %q", m.Origin.Host)
			}
			if to := string(m.AppendTarget(nil, []byte(path))); strings.Contains(origin, "$") && dotSegments(to) {
				t.Errorf("the origin is asked for %q", to)
			}
		}
		if m, ok := redirects.Lookup([]byte(host), []byte(path)); ok {
			if to := string(m.AppendLocation(nil, []byte(path), nil)); strings.HasPrefix(to, "//") {
				t.Errorf("the redirect leads to %q", to)
			} else if strings.Contains(origin, "$") && dotSegments(to) {
				t.Errorf("the redirect climbs to %q", to)
			}
		}
	})
}
