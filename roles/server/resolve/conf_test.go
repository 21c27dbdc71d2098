package resolve

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestResolvConf(t *testing.T) {
	c := newConf("# a comment\nnameserver 192.0.2.1\nnameserver fe80::1%eth0 ; scoped\nnameserver nonsense\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"+
		"domain one.example\nsearch two.example. three.example\noptions ndots:2 timeout:1 attempts:9 rotate edns0\n", "")
	want := "[192.0.2.1:53 [fe80::1%eth0]:53 192.0.2.3:53]"
	if got := fmt.Sprint(c.servers); got != want {
		t.Errorf("servers %s, want %s", got, want)
	}
	if fmt.Sprint(c.search) != "[two.example three.example]" || c.ndots != 2 || c.timeout != time.Second || c.attempts != maxAttempts || !c.rotate {
		t.Errorf("got %+v", c)
	}
	if c := newConf("", ""); fmt.Sprint(c.servers) != "[127.0.0.1:53]" || !c.files || !c.dns || c.dnsFirst || c.foreign {
		t.Errorf("without files: %+v", c)
	}
}

func TestNsswitchConf(t *testing.T) {
	for _, c := range []struct {
		line                        string
		files, dns, dnsFirst, alien bool
	}{
		{"hosts: files dns", true, true, false, false},
		{"hosts:\tdns [!UNAVAIL=return] files # order", true, true, true, false},
		{"hosts: files mdns4_minimal [NOTFOUND=return] dns myhostname", true, true, false, false},
		{"hosts: mymachines resolve [!UNAVAIL=return] files", true, true, true, false},
		{"hosts: files", true, false, false, false},
		{"hosts: files ldap dns", true, true, false, true},
		{"passwd: ldap", true, true, false, false},
	} {
		got := newConf("", c.line)
		if got.files != c.files || got.dns != c.dns || got.dnsFirst != c.dnsFirst || got.foreign != c.alien {
			t.Errorf("%s: %+v", c.line, got)
		}
	}
}

func TestNamesThatAHostMayMean(t *testing.T) {
	c := newConf("search a.example b.example\noptions ndots:2\n", "")
	for host, want := range map[string]string{
		"h":      "h.a.example. h.b.example. h.",
		"h.x":    "h.x.a.example. h.x.b.example. h.x.",
		"h.x.y":  "h.x.y. h.x.y.a.example. h.x.y.b.example.",
		"h.x.y.": "h.x.y.",
	} {
		if got := strings.Join(c.names(host), " "); got != want {
			t.Errorf("%s: got %s, want %s", host, got, want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	text := "127.0.0.1 localhost\n192.0.2.7\tapp.example App # nothing app2\n::1 app\n192.0.2.7 app\n192.0.2.8 # app\nbad app\nfe80::1%lo app\n"
	for host, want := range map[string][]netip.Addr{
		"app":         {netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("::1")},
		"APP.EXAMPLE": {netip.MustParseAddr("192.0.2.7")},
		"app2":        nil,
	} {
		if got := hosts(text, host); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", host, got, want)
		}
	}
}

func FuzzConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n", "hosts: files dns\n", "127.0.0.1 localhost\n", "localhost")
	f.Add("options timeout:-1 ndots:99999999999999999999\nnameserver ::", "hosts: [[ ] dns", "1.2.3.4", "..")
	f.Fuzz(func(t *testing.T, resolv, nsswitch, text, host string) {
		c := newConf(resolv, nsswitch)
		if n := len(c.servers); n < 1 || n > maxServers || c.attempts < 1 || c.timeout < time.Second || len(c.search) > maxSearch {
			t.Fatalf("%+v", c)
		}
		for _, name := range c.names(host) {
			if !strings.HasSuffix(name, ".") {
				t.Fatalf("%q is not absolute", name)
			}
		}
		hosts(text, host)
	})
}
