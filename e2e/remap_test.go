package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// tells is an origin that says its name and what it was asked.
func tells(t *testing.T, name string) *harness.Origin {
	return harness.NewOrigin(t, func(e *harness.Exchange) {
		e.Reply(200, fmt.Sprintf("%s %s %s", name, e.Host, e.Target), noStore)
	})
}

// Each kind of rule, and which of several applies.
func TestRemapRules(t *testing.T) {
	t.Parallel()
	root, shop, images := tells(t, "root"), tells(t, "shop"), tells(t, "images")
	_, port, _ := strings.Cut(images.Addr(), ":")
	p := harness.Start(t, harness.Config(fmt.Sprintf(`
map:
  - {prefix: 'http://www.example/', origin: %[1]q}
  - {prefix: 'http://www.example/shop', origin: '%[2]s/v2'}
  - {prefix: 'http://www.example/shop/inside', origin: %[2]q, allow: 192.0.2.0/24}
  - {prefix: 'http://www.example/for-us', origin: %[2]q, allow: [192.0.2.0/24, 127.0.0.0/8]}
  - {prefix: 'http://own.example/', origin: '%[2]s', preserve_host: false}
  - {type: redirect, prefix: 'http://www.example/old', to: 'https://new.example/base'}
  - {type: redirect_temporary, prefix: /away, to: /there}
  - {type: regex_map, prefix: 'http://([a-z]+)\.images\.example/', path: '/(\d+)/(.*)', origin: 'http://127.0.0.1:%[3]s/$1/$3/$2'}
  - {type: regex_redirect, prefix: 'http://(.+)\.old\.example/', to: 'http://$1.new.example'}
`, root.URL(), shop.URL(), port)), harness.Args("--threads", "1"))
	c := p.Client()
	for _, s := range []struct{ host, path, want string }{
		{"www.example", "/a", "root www.example /a"},
		{"WWW.example:80", "/shop/a?b", "shop www.example /v2/a?b"},
		{"www.example", "/shopping", "root www.example /shopping"},
		{"www.example", "/for-us/a", "shop www.example /a"},
		{"www.example", "/x/../shop/%61", "shop www.example /v2/a"},
		{"own.example", "/a", "shop " + shop.Addr() + " /a"},
		{"cats.images.example", "/7/big/tabby?x", "images cats.images.example /cats/big/tabby/7?x"},
	} {
		c.Get(s.path, "Host: "+s.host).Expect(200, s.want)
	}
	for _, s := range []struct {
		host, path string
		status     int
		location   string
	}{
		{"www.example", "/old/a?b=c", 301, "https://new.example/base/a?b=c"},
		{"anybody", "/away", 307, "/there"},
		{"my.old.example", "/a", 301, "http://my.new.example/a"},
		{"other.example", "/a", 404, ""},
		{"cats.images.example", "/seven", 404, ""},
		{"www.example", "/shop/inside/a", 403, ""},
		{"www.example", "/shop/x/../inside/a", 403, ""},
		{"www.example", "/shop/%69nside", 403, ""},
	} {
		r := c.Get(s.path, "Host: "+s.host).ExpectStatus(s.status).Header("Location", s.location)
		if len(r.Body) == 0 {
			t.Errorf("%s%s: nothing for a human to read", s.host, s.path)
		}
	}
	conn := c.Dial()
	conn.Send(harness.Request("HEAD", "/away/a", "")).Read("HEAD").Expect(307, "").Header("Location", "/there/a")
	conn.Send(harness.Request("POST", "/away/b", "thrown away")).Read("POST").ExpectStatus(307).Header("Location", "/there/b")
	conn.Send(harness.Request("GET", "/a", "", "Host: www.example")).Read("GET").Expect(200, "root www.example /a")
}

// What a client sent takes the place of a group, and does not lead out of the path that the rule names.
func TestGroupsDoNotClimb(t *testing.T) { // RFC 3986 §5.2.4
	t.Parallel()
	o := tells(t, "home")
	p := harness.Start(t, harness.Config(fmt.Sprintf(`
map:
  - {type: regex_map, prefix: 'http://(.*)\.shop\.example/', origin: '%[1]s/$1/'}
  - {type: regex_map, prefix: /, path: '/u(.*)/x', origin: '%[1]s/home/$1/x'}
  - {type: regex_map, prefix: /, path: '/e(.*)25(.*)', origin: '%[1]s/home/$1$2'}
  - {type: regex_redirect, prefix: /, path: '/go(.*)/x', to: '/safe/$1/x'}
  - {prefix: /, origin: %[1]q}
`, o.URL())), harness.Args("--threads", "1"))
	for _, s := range []struct{ host, target, want string }{
		{"a.shop.example", "/secret", "200 /a/secret"},
		{"...shop.example", "/secret", "404 "},
		{"..shop.example", "/secret", "404 "},
		{"...shop.example", "/%2e./secret", "404 "},
		{"....shop.example", "/secret", "200 /.../secret"},
		{"any", "/u7/x", "200 /home/7/x"},
		{"any", "/u../x", "404 "},
		{"any", "/u%2E%2e/x", "404 "},
		{"any", "/e%252e%252E", "200 /home/%252e%2E"},
		{"any", "/e.%252e", "404 "},
		{"any", "/go7/x", "301 /safe/7/x"},
		{"any", "/go../x", "404 "},
	} {
		asked := len(o.Requests())
		r := p.Client().Get(s.target, "Host: "+s.host)
		got := fmt.Sprintf("%d %s", r.Status, r.Get("Location"))
		for _, seen := range o.Requests()[asked:] {
			got += seen.Target
		}
		if got != s.want {
			t.Errorf("%s%s: got %s, want %s", s.host, s.target, got, s.want)
		}
	}
}

// What an origin says of where things are leads back to us, also from the cache and after a validation; the cache keeps
// what the origin said, so another rule makes another thing of it at once.
func TestReverseMap(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	o = harness.NewOrigin(t, func(e *harness.Exchange) {
		self := "http://" + o.Addr()
		switch {
		case e.Header.Get("If-None-Match") != "":
			e.Reply(304, "", "Cache-Control: max-age=60", `ETag: "1"`, "Content-Location: "+self+"/v2/renamed")
		case e.Target == "/v2/moved":
			e.Reply(301, "moved", "Location: "+self+"/v2/to?x=1", "Cache-Control: max-age=60")
		case e.Target == "/v2/login":
			e.Reply(302, "", "Location: http://login.internal/in?then=/v2", "Set-Cookie: a=b; Domain=127.0.0.1; Path=/v2/x", "Set-Cookie: c=d; path=/v2")
		case e.Target == "/v2/stale":
			e.Reply(200, "stale", "Content-Location: "+self+"/v2/there", "Cache-Control: max-age=60", "Age: 60", `ETag: "1"`, "Refresh: 3; url=/v2/next")
		}
	})
	rules := func(prefix string) string {
		return fmt.Sprintf(`
map:
  - {prefix: /%s, origin: '%s/v2', reverse: true}
  - {prefix: /plain, origin: '%s/v2'}
  - {type: reverse_map, prefix: 'http://login.internal/', to: 'https://login.example'}
`, prefix, o.URL(), o.URL())
	}
	p := harness.Start(t, harness.Config(rules("shop")), harness.Args("--threads", "1"))
	c := p.Client()
	for range 2 {
		c.Get("/shop/moved").Expect(301, "moved").Header("Location", "/shop/to?x=1")
	}
	o.ExpectCount("/v2/moved", 1)
	c.Get("/plain/moved").Expect(301, "moved").Header("Location", o.URL()+"/v2/to?x=1")
	r := c.Get("/shop/login", "Host: me.example:81").ExpectStatus(302).Header("Location", "https://login.example/in?then=/v2")
	if got := strings.Join(r.Values("Set-Cookie"), " and "); got != "a=b; Domain=me.example; Path=/shop/x and c=d; Path=/shop" {
		t.Errorf("cookies: %s", got)
	}
	c.Get("/shop/stale").Expect(200, "stale").Header("Content-Location", "/shop/there").Header("Refresh", "3; url=/shop/next")
	for range 2 {
		c.Get("/shop/stale").Expect(200, "stale").Header("Content-Location", "/shop/renamed").Header("Refresh", "3; url=/shop/next")
	}
	c.Head("/shop/stale").Expect(200, "").Header("Content-Location", "/shop/renamed")
	c.Get("/shop/stale", `If-None-Match: "1"`).Expect(304, "").Header("Content-Location", "/shop/renamed")

	p.WriteConfig(rules("shop/") + "  - {type: reverse_map, prefix: '" + o.URL() + "/', to: 'http://elsewhere/'}\n")
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	c.Get("/plain/moved").Expect(301, "moved").Header("Location", "http://elsewhere/v2/to?x=1")
}

// What a rule wants otherwise than the configuration says for all.
func TestRulesHavePolicies(t *testing.T) {
	t.Parallel()
	p, o := func() (*harness.Trafficd, *harness.Origin) {
		o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
			"": harness.Reply(200, "x", "Cache-Control: max-age=60"), "/slow": harness.Silent, "/ttl": harness.Reply(200, "x", "Cache-Control: max-age=0"),
		}))
		return harness.Start(t, harness.Args("--threads", "1"), harness.Config(fmt.Sprintf(`
map:
  - {prefix: /, origin: %[1]q}
  - {prefix: /ttl, origin: '%[1]s/ttl', ttl: 60s}
  - {prefix: /uncached, origin: '%[1]s/uncached', cache: false}
  - {prefix: /query, origin: '%[1]s/query', ignore_query: true}
  - {prefix: /slow, origin: '%[1]s/slow', response_timeout: 100ms}
  - {prefix: /calm, origin: '%[1]s/calm', ignore_client_no_cache: true}
`, o.URL()))), o
	}()
	c := p.Client()
	c.Get("/slow").ExpectStatus(504)
	for _, s := range []struct {
		first, second string
		field         string
		asked         int
	}{
		{"/plain", "/plain", "", 1}, {"/plain?a", "/plain?b", "", 2}, {"/plain2", "/plain2", "Cache-Control: no-cache", 2},
		{"/ttl", "/ttl", "", 1}, {"/uncached", "/uncached", "", 2}, {"/query?a", "/query?b", "", 1}, {"/calm", "/calm", "Cache-Control: no-cache", 1},
	} {
		before := len(o.Requests())
		c.Get(s.first, "X: y").Expect(200, "x")
		c.Get(s.second, "X: y").Expect(200, "x")
		if s.field != "" {
			c.Get(s.second, s.field).Expect(200, "x")
		}
		if got := len(o.Requests()) - before; got != s.asked {
			t.Errorf("%s and %s, %q: the origin was asked %d times, want %d", s.first, s.second, s.field, got, s.asked)
		}
	}
}

// A bad rule is refused with its place, by check and by reload; the rules that were there stay.
func TestBadRulesAreRefused(t *testing.T) {
	t.Parallel()
	o := tells(t, "root")
	good := fmt.Sprintf("map:\n  - {prefix: /, origin: %q}\n", o.URL())
	p, dir := harness.Start(t, harness.Config(good)), t.TempDir()
	for rule, want := range map[string]string{
		"  - {type: regex_map, prefix: 'http://(x/', origin: 'http://x'}\n": `:3:31: map: prefix has a malformed regular expression`,
		"  - {prefix: /x, origin: 'https://x'}\n":                           `:3:26: map: origin must be http://host[:port][/path]: https is not available`,
		"  - {prefix: /, to: /x, type: redirect}\n":                         `:3:14: map has the prefix / twice (entries 1 and 2)`,
		"  - {prefix: /x, to: /x, type: redirekt}\n":                        `:3:32: map: type must be one of map, reverse_map`,
		"  - {prefix: /x, origin: 'http://x', ttl: fast}\n":                 `:3:43: map: ttl must be a duration`,
	} {
		p.WriteConfig(good + rule)
		if r := p.Ctl("config", "reload"); r.Code != 78 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s: reload exits with %d and says %s", rule, r.Code, r.Stderr)
		}
		file := filepath.Join(dir, "trafficd.yaml")
		if err := os.WriteFile(file, []byte(good+rule), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := harness.Run(t, "ctl", "config", "check", file); r.Code != 78 || !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Errorf("%s: check exits with %d and says %s%s", rule, r.Code, r.Stdout, r.Stderr)
		}
	}
	p.Client().Get("/a").Expect(200, "root localhost /a")
}

// Ten thousand rules are read, published to a server, and again by a reload, and each is found.
func TestTenThousandRules(t *testing.T) {
	t.Parallel()
	o := tells(t, "root")
	var rules strings.Builder
	rules.WriteString("map:\n")
	for i := range 10_000 {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&rules, "  - {prefix: 'http://shop%d.example/', origin: '%s/%d'}\n", i, o.URL(), i)
		case 1:
			fmt.Fprintf(&rules, "  - {prefix: /site%d/app, origin: '%s/%d'}\n", i, o.URL(), i)
		case 2:
			fmt.Fprintf(&rules, "  - {type: regex_map, prefix: 'http://(.+)\\.img%d\\.example/', origin: '%s/$1/%d'}\n", i, o.URL(), i)
		default:
			fmt.Fprintf(&rules, "  - {type: redirect, prefix: /old%d, to: 'https://new.example/%d'}\n", i, i)
		}
	}
	p := harness.Start(t, harness.Config(rules.String()), harness.Args("--threads", "1"))
	check := func() {
		c := p.Client()
		c.Get("/a", "Host: shop9996.example").Expect(200, "root shop9996.example /9996/a")
		c.Get("/site9997/app/a").Expect(200, "root localhost /9997/a")
		c.Get("/a", "Host: cat.img9998.example").Expect(200, "root cat.img9998.example /cat/9998/a")
		c.Get("/old9999/a").ExpectStatus(301).Header("Location", "https://new.example/9999/a")
		c.Get("/a", "Host: nobody.example").ExpectStatus(404)
	}
	check()
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	check()
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	check()
}
