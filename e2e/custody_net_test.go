package e2e

import (
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"trafficd/e2e/harness"
	"trafficd/roles/demo/witness"
)

// "Loss on the wire does not confuse adoption": what the kernel's counters say of a connection must
// be right also while bytes are sent again, arrive twice, or out of order.
func TestKillsWhilePacketsAreLost(t *testing.T) {
	if !harness.InOwnNetwork(t) {
		return
	}
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	s := harness.SetStage(t, witness.Everybody(), witness.Options{Seed: seed, Patience: 2 * harness.Patience}, harness.Args("--threads", "2"))
	c := newCampaign(t, s.Trafficd, seed, victims, 150*time.Millisecond)
	_, port, _ := net.SplitHostPort(s.Addr)
	r := s.Play(func() {
		harness.LoseOnTheWire(t, port, "0.03")
		c.run(120)
	})
	n := harness.Dropped(t)
	t.Logf("%s; %d packets lost; worst probe %s", c.report(), n, witness.Short(harness.WorstProbe(r)))
	if n == 0 {
		t.Error("not one packet was lost, so nothing was shown")
	}
}

// "Works as an unprivileged user with no capabilities and no_new_privs, under Docker's default
// seccomp rules": all of custody does, not a lesser promise.
func TestKillsWithoutRights(t *testing.T) {
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	s := harness.SetStage(t, witness.Everybody(), witness.Options{Seed: seed}, harness.Confined())
	c := newCampaign(t, s.Trafficd, seed, victims, 40*time.Millisecond)
	r := s.Play(func() { c.run(60) })
	t.Logf("%s; worst probe %s", c.report(), witness.Short(harness.WorstProbe(r)))
	for role, pid := range s.PIDs() {
		if err := harness.CheckConfined(pid); err != nil {
			t.Errorf("%s has rights left, so nothing was shown: %v", role, err)
		}
	}
}

// "Hangs: a server that is stopped is replaced, and its connections go on in the next." The
// windows are short, and the clients more patient than they are long.
func TestStoppedServersConnectionsGoOn(t *testing.T) {
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	s := harness.SetStage(t, witness.Everybody(), witness.Options{Seed: seed, Patience: harness.Patience}, quick())
	c := newCampaign(t, s.Trafficd, seed, nil, 0)
	r := s.Play(func() {
		for range 3 {
			at := c.await(killing(1, harness.Server))
			h := s.Stop(harness.Server)
			if h.PID != at.server.PID {
				t.Errorf("server %d was stopped, and not %d", h.PID, at.server.PID)
			}
			h.WaitGone(t)
			s.WaitReplaced(harness.Server, h.PID)
			at.release()
		}
	})
	t.Logf("worst probe %s", witness.Short(harness.WorstProbe(r)))
}
