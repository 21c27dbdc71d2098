package e2e

import (
	"fmt"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// A scan of many times the cache leaves what is asked for again and again where it is, small and large,
// also when the server dies in the middle.
func TestScanLeavesHotSet(t *testing.T) {
	t.Parallel()
	small, large := strings.Repeat("s", 8_000), strings.Repeat("l", 150_000)
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		body := small
		if strings.HasPrefix(e.Target, "/large") {
			body = large
		}
		e.Reply(200, body, "Cache-Control: max-age=600")
	}}, harness.Set("cache.size", "8MiB"))
	var hot []string
	for n := range 60 {
		hot = append(hot, fmt.Sprintf("/small/%d", n))
	}
	for n := range 4 {
		hot = append(hot, fmt.Sprintf("/large/%d", n))
	}
	ask := func(targets []string) {
		c := p.Client().Dial()
		defer c.Close()
		for _, target := range targets {
			c.Send(harness.Request("GET", target, "")).Read("GET").ExpectStatus(200)
		}
	}
	scanned := 0
	scan := func(n int) {
		var targets []string
		for range n {
			scanned++
			targets = append(targets, fmt.Sprintf("/scan/%d", scanned))
		}
		ask(targets)
	}
	for range 3 {
		ask(hot)
	}
	scan(2000) // twice the cache
	old := p.PID(harness.Server)
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old)
	scan(2000)
	ask(hot)
	kept := map[string]int{}
	for _, target := range hot {
		if o.Count(target) == 1 {
			kept[target[:len("/small")]]++
		}
	}
	if kept["/small"] < 60*9/10 {
		t.Errorf("%d of 60 small ones were still there after a scan of %d objects", kept["/small"], scanned)
	}
	// Without the goroutine that moves large ones, which may get no processor here, a loop moves as many as it may at a time.
	if kept["/large"] == 0 {
		t.Error("none of the large ones was still there")
	}
}
