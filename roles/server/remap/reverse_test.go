package remap

import (
	"strings"
	"testing"
)

// back rewrites one field line of a response to a request for host and path.
func back(t testing.TB, tab *Table, host, path, line string) string {
	t.Helper()
	m, ok := tab.Lookup([]byte(host), []byte(path))
	if !ok {
		t.Fatalf("%s%s: no rule", host, path)
	}
	if !tab.Reverses(&m) {
		return line
	}
	if lines := []byte("X: y\r\nCache-Control: a\r\n" + line + "\r\n"); Speaks(lines) != Speaks([]byte(line+"\r\n")) || !Speaks(lines) {
		t.Errorf("%q is said to say nothing", lines)
	}
	got := string(tab.AppendReversed(nil, []byte("X: y\r\n"+line+"\r\nZ: http://shop:8080/v2/\r\n"), &m, []byte(host)))
	got, first := strings.CutPrefix(got, "X: y\r\n")
	got, last := strings.CutSuffix(got, "\r\nZ: http://shop:8080/v2/\r\n")
	if !first || !last {
		t.Fatalf("other fields have changed: %q", got)
	}
	return got
}

func TestResponsesLeadBack(t *testing.T) {
	tab := mustNew(t,
		Spec{Prefix: "/shop", Origin: "http://shop:8080/v2", Reverse: true},
		Spec{Prefix: "/", Origin: "http://root", Reverse: true},
		Spec{Prefix: "/plain", Origin: "http://shop:8080/v2"},
		Spec{Type: "reverse_map", Prefix: "http://login:80/in/", Origin: "https://www.example/login"},
		Spec{Type: "reverse_map", Prefix: "http://other/", Origin: "/other"},
		Spec{Type: "regex_map", Prefix: `http://(.*)\.r\.example/r`, Origin: "http://$1.internal/o", Reverse: true},
	)
	for _, c := range []struct{ host, path, line, want string }{
		{"me:81", "/shop/a", "Location: http://shop:8080/v2/b?q=http://shop:8080/v2#f", "Location: /shop/b?q=http://shop:8080/v2#f"},
		{"me:81", "/shop/a", "location:   HTTP://SHOP:8080/v2", "location: /shop"},
		{"me:81", "/shop/a", "Location: //shop:8080/v2/", "Location: /shop/"},
		{"me:81", "/shop/a", "Location: /v2/b", "Location: /shop/b"},
		{"me:81", "/shop/a", "Location: /v22/b", "Location: /v22/b"},
		{"me:81", "/shop/a", "Location: b/c", "Location: b/c"},
		{"me:81", "/shop/a", "Location: ?q", "Location: ?q"},
		{"me:81", "/shop/a", "Location: http://Me:81/v2/b", "Location: http://Me:81/shop/b"},
		{"me", "/shop/a", "Location: https://me/v2/b", "Location: https://me/shop/b"},
		{"me", "/shop/a", "Location: http://me:80/v2/b", "Location: http://me:80/shop/b"},
		{"me:81", "/shop/a", "Location: http://shop:8081/v2/b", "Location: http://shop:8081/v2/b"},
		{"me:81", "/shop/a", "Location: https://shop:8080/v2/b", "Location: https://shop:8080/v2/b"},
		{"me:81", "/shop/a", "Location: http://u@shop:8080/v2/b", "Location: http://u@shop:8080/v2/b"},
		{"me:81", "/shop/a", "Location: mailto:x", "Location: mailto:x"},
		{"me:81", "/shop/a", "Content-Location: /v2/b", "Content-Location: /shop/b"},
		{"me:81", "/shop/a", "Refresh: 5; url=http://shop:8080/v2/b", "Refresh: 5; url=/shop/b"},
		{"me:81", "/shop/a", `Refresh: 0;URL="/v2/b"`, `Refresh: 0;URL="/shop/b"`},
		{"me:81", "/shop/a", "Refresh: 5", "Refresh: 5"},
		{"me:81", "/a", "Location: http://root", "Location: /"},
		{"me:81", "/a", "Location: http://root?x", "Location: /?x"},
		{"me:81", "/a", "Location: http://root:80//evil.example", "Location: /.//evil.example"},
		{"me:81", "/a", "Location: /same", "Location: /same"},
		{"me:81", "/a", "Location: http://login/in/x", "Location: https://www.example/login/x"},
		{"me:81", "/plain/a", "Location: http://login/in", "Location: https://www.example/login"},
		{"me:81", "/plain/a", "Location: http://other:80/x", "Location: /other/x"},
		{"me:81", "/plain/a", "Location: http://shop:8080/v2/b", "Location: http://shop:8080/v2/b"},
		{"x.r.example", "/r/a", "Location: http://x.internal/o/b", "Location: /r/b"},

		{"me:81", "/shop/a", "Set-Cookie: a=b; Domain=.Shop; Path=/v2/x; Secure", "Set-Cookie: a=b; Domain=me; Path=/shop/x; Secure"},
		{"me:81", "/shop/a", "Set-Cookie: a=/v2; path=/v2;HttpOnly", "Set-Cookie: a=/v2; Path=/shop;HttpOnly"},
		{"me:81", "/shop/a", "Set-Cookie: domain=shop; Max-Age=3", "Set-Cookie: domain=shop; Max-Age=3"},
		{"me:81", "/shop/a", "Set-Cookie: a=b; Domain=elsewhere; Path=/v2", "Set-Cookie: a=b; Domain=elsewhere; Path=/v2"},
		{"[::1]:81", "/shop/a", "Set-Cookie: a=b; Domain=shop", "Set-Cookie: a=b; Domain=::1"},
		{"me", "/a", "Set-Cookie: a=b; Path=/", "Set-Cookie: a=b; Path=/"},
		{"me", "/plain/a", "Set-Cookie: a=b; Domain=login", "Set-Cookie: a=b; Domain=www.example"},
		{"me", "/plain/a", "Set-Cookie: a=b; Domain=shop; Path=/v2", "Set-Cookie: a=b; Domain=shop; Path=/v2"},
	} {
		if got := back(t, tab, c.host, c.path, c.line); got != c.want {
			t.Errorf("%s%s %s:\ngot  %s\nwant %s", c.host, c.path, c.line, got, c.want)
		}
	}
}

func TestMostResponsesSayNothing(t *testing.T) {
	for _, lines := range []string{"", "Content-Type: a\r\nLast-Modified: b\r\nServer: c\r\nRetry-After: 3\r\nLocations: x\r\nX-Location: y\r\n", "location"} {
		if Speaks([]byte(lines)) {
			t.Errorf("%q is said to say something", lines)
		}
	}
}

func BenchmarkSpeaks(b *testing.B) {
	lines := []byte("Content-Type: text/html\r\nServer: x\r\nDate: Mon, 23 Nov 2026 03:10:22 GMT\r\nLast-Modified: Mon, 23 Nov 2026 03:10:22 GMT\r\nCache-Control: max-age=60\r\nETag: \"abc\"\r\n")
	for b.Loop() {
		Speaks(lines)
	}
}

func FuzzReverse(f *testing.F) {
	for _, v := range []string{"http://shop:8080/v2/b", "/v2", "//shop:8080", "5; url='http://shop:8080/v2'", "a=b; Domain=shop; Path=/v2", ";;=;path=", "http://root//x", "0;url=\""} {
		f.Add(v)
	}
	tab := mustNew(f,
		Spec{Prefix: "/shop", Origin: "http://shop:8080/v2", Reverse: true},
		Spec{Prefix: "/", Origin: "http://root", Reverse: true},
		Spec{Type: "reverse_map", Prefix: "http://login/in", Origin: "https://www.example/login"})
	f.Fuzz(func(t *testing.T, v string) {
		if strings.ContainsAny(v, "\r\n") || strings.TrimSpace(v) != v {
			return
		}
		for _, path := range []string{"/shop/x", "/x"} {
			for _, name := range []string{"Location", "Content-Location", "Refresh", "Set-Cookie"} {
				got := back(t, tab, "me", path, name+": "+v)
				if !strings.HasPrefix(got, name+": ") || strings.ContainsAny(got, "\r\n") {
					t.Errorf("%s: %q became %q", name, v, got)
				}
				if u := strings.TrimPrefix(got, "Location: "); u != got && strings.HasPrefix(u, "//") && !strings.HasPrefix(v, "//") {
					t.Errorf("%q became %q, which names another host", v, u)
				}
			}
		}
	})
}
