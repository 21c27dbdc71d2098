package server

import (
	"net/netip"
	"testing"

	"trafficd/roles/internal/config"
)

func TestConnectionsOfAClient(t *testing.T) {
	var c clients
	cfg := &config.Config{}
	a := netip.MustParseAddr
	enter := func(addr string, counted, ok bool) {
		t.Helper()
		if gotCounted, gotOK := c.enter(a(addr)); gotCounted != counted || gotOK != ok {
			t.Errorf("%s: counted %v, let in %v", addr, gotCounted, gotOK)
		}
	}
	c.configure(cfg, 4) // half of all: two
	enter("10.0.0.1", true, true)
	enter("10.0.0.1", true, true)
	enter("10.0.0.1", false, false)
	enter("10.0.0.2", true, true)
	enter("::ffff:10.0.0.1", false, false) // the same client
	enter("2001:db8::1", true, true)
	enter("2001:db8::2", true, true)
	enter("2001:db8:0:0:ffff::3", false, false) // of the same household
	enter("2001:db8:0:1::1", true, true)
	for range 10 {
		enter("127.0.0.1", false, true)
		enter("::1", false, true)
	}
	c.leave(a("10.0.0.1"))
	enter("10.0.0.1", true, true)
	c.leave(a("2001:db8::9"))
	enter("2001:db8::1", true, true)

	cfg.Limits.PerClient = 3
	c.configure(cfg, 4)
	enter("10.0.0.1", true, true)
	enter("10.0.0.1", false, false)
	for i := range 5 {
		enter("127.0.0.1", i < 3, i < 3) // a number counts for all
	}
	for range 3 {
		c.leave(a("127.0.0.1"))
	}
	enter("127.0.0.1", true, true)
	if _, ok := c.enter(netip.Addr{}); !ok {
		t.Error("a client without an address is not let in")
	}
}
