package server

import (
	"fmt"
	"net/netip"
	"testing"

	"trafficd/roles/internal/config"
)

// What the proxy for other hosts takes for itself.
func TestForwardKnowsItsOwnAddresses(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "[0.0.0.0:8080 [::]:8080]", "127.0.0.1:80": "[127.0.0.1:80]", "[::1]:80": "[[::1]:80]", config.Off: "[]", "": "[]",
	} {
		if got := fmt.Sprint(addresses(listen)); got != want {
			t.Errorf("%q: got %s, want %s", listen, got, want)
		}
	}
	c, err := config.Load(config.Sources{Flags: config.Overrides{Listen: []string{":8080"}, Autoconf: "127.0.0.1:8083"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Forward.To = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	g := forward(c, newMachine().has).Guard
	for to, ok := range map[string]bool{"127.0.0.1:8080": false, "127.0.0.1:8083": false, "127.0.0.1:8084": true, "10.1.1.1:80": false} {
		if err := g.Check(netip.MustParseAddrPort(to)); (err == nil) != ok {
			t.Errorf("%s: %v", to, err)
		}
	}
}
