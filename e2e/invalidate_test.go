package e2e

import (
	"testing"

	"trafficd/e2e/harness"
)

// RFC 9111 section 4.4: what an unsafe request has changed is not served from the cache any more, to nobody: nor to those who
// say that they have reached it otherwise, whom the origin may have answered otherwise.
func TestUnsafeRequestsInvalidateForEverybody(t *testing.T) {
	t.Parallel()
	page := func(e *harness.Exchange) {
		if e.Method != "GET" {
			e.Reply(204, "", "Location: /there")
			return
		}
		e.Reply(200, e.Target, "Cache-Control: max-age=600")
	}
	p, o := proxy(t, map[string]harness.Handler{"": page})
	ways := []string{"", "X-Forwarded-Proto: https", "X-Forwarded-Proto: http", "X-Forwarded-Host: other.example", "Forwarded: proto=https;for=192.0.2.1"}
	get := func(target, way string) *harness.Response {
		if way == "" {
			return p.Client().Get(target)
		}
		return p.Client().Get(target, way)
	}
	asked := map[string]int{}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, from := range ways {
			for _, target := range []string{"/here", "/there", "/elsewhere"} {
				for _, way := range ways {
					get(target, way).Expect(200, target)
					get(target, way).Expect(200, target).Has("Age")
				}
			}
			asked["/elsewhere"] = len(ways)
			o.ExpectCount("/elsewhere", asked["/elsewhere"])
			if from == "" {
				p.Client().Do(method, "/here", "").ExpectStatus(204)
			} else {
				p.Client().Do(method, "/here", "", from).ExpectStatus(204)
			}
			for _, target := range []string{"/here", "/there"} {
				if r := get(target, from); r.Get("Age") != "" {
					t.Fatalf("%s from %q: %s was served from the cache", method, from, target)
				}
				for _, way := range ways {
					harness.WaitFor(t, "it to be gone", func() bool {
						return way == from || get(target, way).Get("Age") == "" // which stores it anew
					})
				}
			}
		}
	}
}
