package remap

import (
	"net/netip"
	"strings"
	"testing"

	"trafficd/roles/server/header"
)

func TestForwardIsForThoseWhoMay(t *testing.T) {
	var nobody *Forward
	if nobody.Enabled() || (&Forward{}).Allows(netip.MustParseAddr("127.0.0.1")) {
		t.Error("a proxy that nobody has configured is for somebody")
	}
	f := &Forward{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if !f.Allows(netip.MustParseAddr("::ffff:10.0.0.1")) || f.Allows(netip.MustParseAddr("11.0.0.1")) || f.Allows(netip.Addr{}) {
		t.Error("it is not for those that it was configured for")
	}
}

func TestForwardPorts(t *testing.T) {
	f := &Forward{Ports: []Ports{{80, 80}, {1025, 65535}}, ConnectPorts: []Ports{{443, 443}}, Guard: &Guard{}}
	for _, c := range []struct {
		authority string
		connect   bool
		ok        bool
	}{
		{"A.example", false, true}, {"a.example:80", false, true}, {"a.example:25", false, false}, {"[2001:db8::1]:8080", false, true},
		{"a.example:443", true, true}, {"a.example:80", true, false}, {"a.example:22", true, false}, {"a_b~c:80", false, false}, {"", false, false},
	} {
		o, err := f.Origin([]byte(c.authority), c.connect)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.authority, err)
		}
		if err == nil && (o.Guard != f.Guard || o.Host != strings.ToLower(o.Host)) {
			t.Errorf("%s: got %+v", c.authority, o)
		}
	}
}

func TestGuard(t *testing.T) {
	g := &Guard{
		To:    []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::1/128")},
		Own:   []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080"), netip.MustParseAddrPort("10.1.0.1:81"), netip.MustParseAddrPort("[::]:8080")},
		Local: func(a netip.Addr) bool { return a == netip.MustParseAddr("93.184.1.1") },
	}
	for to, ok := range map[string]bool{
		"93.184.216.34:80": true, "[2606:2800:220::1]:80": true,
		"127.0.0.1:81": true, "127.0.0.1:8080": false, "[::1]:8080": false, "[::1]:80": true, "[::ffff:127.0.0.1]:8080": false,
		"10.1.2.3:81": true, "10.1.0.1:81": false, "10.1.0.1:82": true, "10.2.0.1:80": false,
		"93.184.1.1:8080": false, "93.184.1.1:80": true,
		"192.168.1.1:80": false, "172.16.0.1:80": false, "169.254.169.254:80": false, "100.64.1.1:80": false, "0.0.0.0:80": false,
		"224.0.0.1:80": false, "255.255.255.255:80": false, "240.0.0.1:80": false, "198.18.0.1:80": false,
		"[fe80::1]:80": false, "[fe80::1%eth0]:80": false, "[fd00::1]:80": false, "[ff02::1]:80": false, "[::]:80": false, "[2001:db8::1]:80": false,
		"[64:ff9b::a9fe:a9fe]:80": false, "[64:ff9b::5db8:d822]:80": true, "[2002:c0a8:101::1]:80": false, "[::7f00:1]:80": false, "[fec0::1]:80": false,
	} {
		if err := g.Check(netip.MustParseAddrPort(to)); (err == nil) != ok {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func FuzzForwardOrigin(f *testing.F) {
	for _, s := range []string{"a.example:443", "[::1]:443", "a:b:c", "a@b:443", "a:443/x", "[::1", "127.1:443", "a:0443", "\x00:443"} {
		f.Add(s)
	}
	fw := &Forward{Ports: []Ports{{1, 65535}}, ConnectPorts: []Ports{{443, 443}}, Guard: &Guard{}}
	f.Fuzz(func(t *testing.T, authority string) {
		o, err := fw.Origin([]byte(authority), true)
		if err != nil {
			return
		}
		if o.Port != 443 || o.Host == "" || !plainHost(o.Host) || o.Guard == nil {
			t.Errorf("%q: got %+v", authority, o)
		}
	})
}

func TestNormalPaths(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/./b": "/a/b", "/a/../b": "/b", "/a/b/..": "/a/", "/a/.": "/a/", "/..": "/", "/../../a": "/a",
		"/%2e%2E/a": "/a", "/a/%2e%2e/%2e%2e/b": "/b", "/%61%7E%2d": "/a~-", "/%2f%2F": "/%2F%2F", "/%c3%bC": "/%C3%BC", "/%2f%2e%2e/%3a": "/%2F../%3A", "/a%2": "/a%2", "/a%2g%af": "/a%2g%AF", "/a//../b": "/a/b", "//a": "//a",
		"/.a/..b/c.": "/.a/..b/c.", "/%zz": "/%zz", "/%": "/%", "*": "*", "": "", "/a/%25%32%65": "/a/%252e",
	} {
		got := string(AppendNormal([]byte("x"), []byte(in)))[1:]
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		if Normal([]byte(in)) && got != in {
			t.Errorf("%q is said to be normal, and becomes %q", in, got)
		}
	}
}

// Nearly all paths are normal: that costs a look at each byte. The others are written anew, into memory that is there.
func TestNormalPathsAllocateNothing(t *testing.T) {
	usual, encoded, buf := []byte("/site7/app/index.html"), []byte("/%C3%BC/%e9/%7e/../x"), make([]byte, 0, 64)
	if !Normal(usual) {
		t.Errorf("%s is not normal", usual)
	}
	if n := testing.AllocsPerRun(100, func() { Normal(usual); buf = AppendNormal(buf[:0], encoded) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// wellFormed reports whether every percent sign of a path begins an encoding, as in the path of every request.
func wellFormed(path string) bool {
	for i := 0; i < len(path); i++ {
		if path[i] == '%' {
			if i+2 >= len(path) {
				return false
			}
			if _, ok := unhex(path[i+1], path[i+2]); !ok {
				return false
			}
			i += 2
		}
	}
	return true
}

// encodingsLower writes the digits of percent-encodings in small letters.
func encodingsLower(path string) []byte {
	b := []byte(path)
	for i := 0; i+2 < len(b); i++ {
		if _, ok := unhex(b[i+1], b[i+2]); b[i] == '%' && ok {
			b[i+1], b[i+2] = header.Lower(b[i+1]), header.Lower(b[i+2])
			i += 2
		}
	}
	return b
}

func FuzzNormal(f *testing.F) {
	f.Add("/a/%2e%2e/../b/./%2f%41")
	f.Fuzz(func(t *testing.T, path string) {
		got := AppendNormal(nil, []byte(path))
		if again := AppendNormal(nil, got); strings.HasPrefix(path, "/") && wellFormed(path) && string(again) != string(got) {
			t.Errorf("%q becomes %q and then %q", path, got, again)
		}
		// Which letters the digits are written with makes no difference.
		if lower := AppendNormal(nil, encodingsLower(path)); string(lower) != string(got) {
			t.Errorf("%q becomes %q, and in small letters %q", path, got, lower)
		}
		if strings.HasPrefix(path, "/") && (len(got) == 0 || got[0] != '/') {
			t.Errorf("%q becomes %q", path, got)
		}
		if strings.HasPrefix(path, "/") && (strings.Contains(string(got)+"/", "/../") || strings.Contains(string(got)+"/", "/./")) {
			t.Errorf("%q becomes %q", path, got)
		}
	})
}
