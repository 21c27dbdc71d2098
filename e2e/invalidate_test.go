package e2e

import (
	"fmt"
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

// What was asked for before an unsafe request changed it, and comes after that, goes to who asked for it and to nobody
// else: it is not stored, and who asks from then on does not wait for it.
func TestUnsafeRequestOutrunsFetch(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} { // the response has begun
		for target, change := range map[string]string{"itself": "/a", "where it points to": "/b"} {
			t.Run(fmt.Sprint(target, " begun ", begun), func(t *testing.T) {
				t.Parallel()
				gate := harness.NewGate()
				var changed harness.Switch
				p, _ := proxy(t, map[string]harness.Handler{"/b": harness.Reply(204, "", "Location: /a"), "/a": func(e *harness.Exchange) {
					switch {
					case e.Method != "GET":
						e.Reply(204, "")
					case changed.On():
						e.Reply(200, "new", freshLong)
					case begun:
						e.Raw("HTTP/1.1 200 OK\r\n" + freshLong + "\r\nContent-Length: 3\r\n\r\no")
						gate.Wait(e)
						e.Raw("ld")
					default:
						gate.Wait(e)
						e.Reply(200, "old", freshLong)
					}
				}})
				first := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
				if gate.WaitReached(t); begun {
					first.ReadHead()
				}
				changed.Set()
				p.Client().Do("POST", change, "").ExpectStatus(204)
				p.Client().Get("/a").Expect(200, "new")
				gate.Open()
				if begun {
					if got := first.ReadRaw(3); got != "old" {
						t.Errorf("who asked before got %q", got)
					}
				} else {
					first.Read("GET").Expect(200, "old")
				}
				p.Client().Get("/a").Expect(200, "new").Has("Age")
			})
		}
	}
}

// The same holds for what is fetched in the background.
func TestUnsafeRequestOutrunsRefresh(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	var changed harness.Switch
	p, _ := proxy(t, map[string]harness.Handler{"/s": versions(staleSoon, func(e *harness.Exchange) {
		switch {
		case e.Method != "GET":
			changed.Set()
			e.Reply(204, "")
		case changed.On():
			e.Reply(200, "new", freshLong)
		default:
			gate.Wait(e)
			e.Reply(200, "old", freshLong)
		}
	})})
	p.Client().Get("/s").Expect(200, "v1")
	p.Client().Get("/s").Expect(200, "v1")
	gate.WaitReached(t)
	p.Client().Do("DELETE", "/s", "").ExpectStatus(204)
	gate.Open()
	p.Client().Get("/s").Expect(200, "new")
	p.Client().Get("/s").Expect(200, "new").Has("Age")
}
