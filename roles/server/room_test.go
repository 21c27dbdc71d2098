package server

import (
	"net/netip"
	"testing"

	"trafficd/queue"
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

// Of two listeners the kernel takes one only, for lack of memory say: both are tried again.
func TestAcceptingBeginsAgainTogether(t *testing.T) {
	l, err := queue.Bind("127.0.0.1:0", 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // after the engine
	e := startEngine(t, 1, nil)
	e.each(func(w *worker) {
		if err := w.acceptOn(l.FD()); err != nil {
			t.Fatal(err)
		}
		w.pauseAccepting()
		w.acceptors[1].fd = -1
		w.resumeAccepting()
		if !w.paused || w.acceptors[0].watch.Active() {
			t.Error("one of them accepts")
		}
		w.acceptors[1].fd = l.FD()
		w.resumeAccepting()
		if w.paused || !w.acceptors[0].watch.Active() || !w.acceptors[1].watch.Active() {
			t.Error("they do not accept again")
		}
	})
}
