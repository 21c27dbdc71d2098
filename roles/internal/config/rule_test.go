package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

const everyKindOfRule = `
map:
  - {prefix: /, origin: 'http://root:8080'}
  - prefix: http://Shop.Example/v1
    origin: http://shop/v2
    reverse: true
    allow: [10.0.0.0/8, '::1']
    preserve_host: false
    cache: true
    ttl: 1h30m
    default_ttl: 5s
    heuristic: false
    ignore_client_no_cache: true
    ignore_query: true
    max_object_size: 2MiB
    store_cookies: false
    stale_if_error: 0s
    stale_while_revalidate: 30s
    connect_timeout: 200ms
    response_timeout: 2s
  - {type: reverse_map, prefix: 'http://shop:8080/v2', to: 'https://www.example/shop'}
  - {type: redirect, prefix: /old, to: 'https://new.example/base?from=old'}
  - {type: redirect_temporary, prefix: 'http://a/old', to: /new, allow: 10.0.0.1}
  - {type: regex_map, prefix: 'http://(.*)\.img\.example:8080/x', path: '/x/(\d+)/.*', origin: 'http://$1.internal/by/$2', cache: false}
  - {type: regex_redirect, prefix: /, path: '/u/(.*)', to: '/users/$1'}
`

func TestRules(t *testing.T) {
	c, err := load(everyKindOfRule)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Map[1]
	if m.Prefix != "http://shop.example/v1" || m.Origin != "http://shop/v2" || !m.Reverse || *m.PreserveHost || !*m.Cache ||
		m.TTL != 90*time.Minute || m.DefaultTTL != 5*time.Second || *m.Heuristic || !m.IgnoreClientNoCache || !m.IgnoreQuery ||
		m.MaxObjectSize != 2<<20 || *m.StoreCookies || *m.StaleIfError != 0 || *m.StaleWhileRevalidate != 30*time.Second ||
		m.ConnectTimeout != 200*time.Millisecond || m.ResponseTimeout != 2*time.Second || len(m.Allow) != 2 || m.Type != "" {
		t.Errorf("got %v", m)
	}
	if m := c.Map[5]; m.Type != RegexMap || m.Prefix != `http://(.*)\.img\.example:8080/x` || m.Path != `/x/(\d+)/.*` || *m.Cache {
		t.Errorf("got %v", m)
	}
}

// What is written for the operator, and what is published to the server, is read again as it was.
func TestRulesCanBeReadAgain(t *testing.T) {
	c, err := load(everyKindOfRule)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.Effective(&b); err != nil {
		t.Fatal(err)
	}
	again, err := load(b.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	published, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(published)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]*Config{"written": again, "published": decoded} {
		if !reflect.DeepEqual(got.Map, c.Map) {
			t.Errorf("%s:\n%v\nwant\n%v", name, got.Map, c.Map)
		}
		if d := Diff(c, got); len(d) != 0 {
			t.Errorf("%s differs: %v", name, d)
		}
	}
}

// A key that changes nothing but a policy is a change.
func TestAChangedOptionIsAChange(t *testing.T) {
	a, errA := load("map: [{prefix: /, origin: 'http://x'}]\n")
	b, errB := load("map: [{prefix: /, origin: 'http://x', ttl: 5s}]\n")
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if d := Diff(a, b); len(d) != 1 || d[0].Name != "map" {
		t.Errorf("got %v", d)
	}
}

func TestBadRules(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{`{prefix: /, origin: 'http://x', typ: map}`, `1:33: unknown key "typ" (did you mean "type"?)`},
		{`{prefix: /, origin: 'http://x', type: mapp}`, `1:39: map: type must be one of map, reverse_map, redirect, redirect_temporary, regex_map, regex_redirect, regex_redirect_temporary (did you mean "map"?)`},
		{`{prefix: /, origin: 'http://x', type: redirect}`, `1:21: map: redirect has "to", not "origin"`},
		{`{prefix: /, to: 'http://x'}`, `1:17: map: map has "origin", not "to"`},
		{`{prefix: /, to: 'http://x', origin: 'http://y'}`, `1:17: map: map has "origin" only, "to" does not belong here`},
		{`{prefix: /, to: 'http://x', origin: 'http://y', type: redirect}`, `1:37: map: redirect has "to" only, "origin" does not belong here`},
		{`{type: reverse_map, origin: 'http://y', prefix: /, to: 'http://x'}`, `1:29: map: reverse_map has "to" only, "origin" does not belong here`},
		{`{prefix: /, to: 'http://x', origin: 'http://y', type: redirct}`, `1:55: map: type must be one of map, reverse_map, redirect, redirect_temporary, regex_map, regex_redirect, regex_redirect_temporary (did you mean "redirect"?)`},
		{`{to: 'http://x', type: redirect}`, `1:1: map: entry needs both prefix and origin (or to, of a redirect)`},
		{`{prefix: /, to: 'http://x', type: redirect, ttl: 5s}`, `1:50: map: redirect has no ttl`},
		{`{prefix: /, to: '//x', type: redirect}`, `1:17: map: to must be http[s]://host[:port][/path] or /path`},
		{`{prefix: /, to: 'ftp://x', type: redirect}`, `1:17: map: to must be http[s]://host[:port][/path] or /path`},
		{`{prefix: /, to: 'https://x?a b', type: redirect}`, `1:17: map: to has a character in its query that must be percent-encoded`},
		{`{prefix: /, to: 'https://', type: redirect}`, `1:17: map: to has no host`},
		{`{prefix: /, to: 'https://x', type: reverse_map}`, `1:10: map: prefix of a reverse_map must be http://host[:port]/path: what the origin says of itself`},
		{`{prefix: /, origin: 'https://x', type: regex_map}`, `1:21: map: origin must be http://host[:port][/path]: https is not available`},
		{`{prefix: 'http://(/', origin: 'http://x', type: regex_map}`, "1:10: map: prefix has a malformed regular expression: error parsing regexp: missing closing ): `(`"},
		{`{prefix: 'http://a(b)/', origin: 'http://$2', type: regex_map}`, `1:34: map: origin has $2, but the expressions have 1 groups`},
		{`{prefix: 'http://a(b)/', origin: 'http://$x', type: regex_map}`, `1:34: map: origin has a $ without a digit: $0 to $9 are the groups of the expressions`},
		{`{prefix: 'a(b)/', origin: 'http://$1', type: regex_map}`, `1:10: map: prefix must be http://REGEX[:port]/path, or /path for any host`},
		{`{prefix: /, path: '(', origin: 'http://x', type: regex_map}`, "1:10: map: path has a malformed regular expression: error parsing regexp: missing closing ): `(`"},
		{`{prefix: /, path: '/a', origin: 'http://x'}`, `1:19: map: map has no path`},
		{`{prefix: /, origin: 'http://x', ttl: 0s}`, `1:38: map: ttl must be at least 1ms`},
		{`{prefix: /, origin: 'http://x', ttl: [1s]}`, `1:38: ttl: must be a duration such as 500ms, 30s or 1h30m, not a list`},
		{`{prefix: /, origin: 'http://x', cache: 'no'}`, `1:40: cache: must be true or false, not the text "no"`},
		{`{prefix: /, origin: 'http://x', allow: [10.0.0.1/8]}`, `1:41: map: allow has the network 10.0.0.1/8 with bits behind its prefix: did you mean 10.0.0.0/8?`},
		{`{prefix: /, origin: 'http://x', allow: []}`, `1:40: map: allow must have at least one network: nobody could use the rule`},
	} {
		_, err := load("map: [" + c.rule + "]\n")
		if err == nil {
			t.Errorf("%s is taken", c.rule)
			continue
		}
		// The entry begins in column 7.
		if got := shift(err.Error(), 6); got != "trafficd.yaml:"+c.want {
			t.Errorf("%s:\ngot  %s\nwant trafficd.yaml:%s", c.rule, got, c.want)
		}
	}
}

// shift moves the column of a message to the left.
func shift(msg string, by int) string {
	parts := strings.SplitN(msg, ":", 4)
	col, err := parseCount(parts[2])
	if len(parts) != 4 || err != nil {
		return msg
	}
	return strings.Join([]string{parts[0], parts[1], strconv.FormatInt(col-int64(by), 10), parts[3]}, ":")
}

func TestRulesThatAreThereTwice(t *testing.T) {
	for _, c := range []struct {
		rules string
		ok    bool
	}{
		{`{prefix: /a, origin: 'http://x'}, {prefix: /a/, origin: 'http://y'}`, false},
		{`{prefix: /a, origin: 'http://x'}, {prefix: /a, to: /b, type: redirect}`, false},
		{`{prefix: 'http://h/a', origin: 'http://x'}, {prefix: 'http://h/a', to: 'http://b', type: reverse_map}`, true},
		{`{prefix: 'http://h/a', origin: 'http://x'}, {prefix: 'http://h/a', origin: 'http://b', type: regex_map}`, true},
		{`{prefix: /, path: /a, origin: 'http://x', type: regex_map}, {prefix: /, path: /b, origin: 'http://b', type: regex_map}`, true},
		{`{prefix: /, path: /a, origin: 'http://x', type: regex_map}, {prefix: /, path: /a, to: 'http://b', type: regex_redirect}`, false},
	} {
		if _, err := load("map: [" + c.rules + "]\n"); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.rules, err)
		}
	}
}

func TestNetworksAndPorts(t *testing.T) {
	c, err := load("forward: {allow: [10.0.0.0/8, 192.168.1.1, '2001:db8::/32'], to: 127.0.0.1, ports: [80, 1000-2000], connect_ports: 443}\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"forward.allow": "10.0.0.0/8,192.168.1.1,2001:db8::/32", "forward.to": "127.0.0.1",
		"forward.ports": "80,1000-2000", "forward.connect_ports": "443"} {
		if got := c.Value(name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if c := Default(); len(c.Forward.Allow) != 0 || c.Value("forward.ports") != "80,443,1025-65535" || c.Value("forward.connect_ports") != "443" {
		t.Errorf("by default %+v", c.Forward)
	}
	for _, bad := range []string{"allow: [10.0.0.1/8]", "allow: [x]", "allow: ['::ffff:1.2.3.4/120']", "allow: ['fe80::1%lo']", "ports: [0]", "ports: [2-1]",
		"ports: [70000]", "ports: ['80,81']", "connect_ports: [http]"} {
		if _, err := load("forward: {" + bad + "}\n"); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func FuzzRule(f *testing.F) {
	for _, line := range strings.Split(everyKindOfRule, "\n") {
		if rule, ok := strings.CutPrefix(line, "  - {"); ok {
			f.Add("{" + rule)
		}
	}
	f.Add(`{prefix: 'http://(((', path: '(?i)[', origin: 'http://$0$9', type: regex_map}`)
	f.Add(`{prefix: 'http://[::1]:80/', to: 'https://[::1]:443?x', type: redirect}`)
	f.Fuzz(func(t *testing.T, rule string) {
		c, err := load("map:\n  - " + rule + "\n")
		if err != nil || len(c.Map) != 1 {
			return
		}
		again, err := load("map:\n  - " + c.Map[0].flow() + "\n")
		if err != nil {
			t.Fatalf("%s was read, and %s is not: %v", rule, c.Map[0].flow(), err)
		}
		if !reflect.DeepEqual(again.Map, c.Map) {
			t.Errorf("%s is read again as %s", c.Map[0].flow(), again.Map[0].flow())
		}
	})
}
