package e2e

import (
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// As many event loops as there can be, which is what a machine of 64 processors gets by default: custody and access log have
// room for all of them.
func TestAsManyLoopsAsThereCanBe(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%r %>s", answers, harness.Args("--threads", "64"))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/a", "")).Read("GET").Expect(200, "hello")
	old, standby := p.PID(harness.Server), p.Standby()
	p.Kill(harness.Server)
	if got := p.WaitReplaced(harness.Server, old); got != standby {
		t.Errorf("server %d follows, want the standby %d", got, standby)
	}
	c.Send(harness.Request("GET", "/a", "")).Read("GET").Expect(200, "hello")
	if s := p.Status(); !strings.HasPrefix(s.Custody, "on") {
		t.Errorf("custody is %s", s.Custody)
	}
	lines(t, path, 2)
}
