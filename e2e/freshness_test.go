package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// Answers of these tests are stale on arrival by their Age, so nobody sleeps.
const (
	staleSoon  = "Cache-Control: max-age=60, stale-while-revalidate=600, stale-if-error=600"
	staleByNow = "Age: 61"
	freshLong  = "Cache-Control: max-age=600"
)

// versions answers the first request with v1, which is stale, and the later ones as next does.
func versions(control string, next harness.Handler) harness.Handler {
	var asked atomic.Int64
	return func(e *harness.Exchange) {
		if asked.Add(1) == 1 {
			e.Reply(200, "v1", control, staleByNow, `ETag: "v1"`)
			return
		}
		next(e)
	}
}

// eventually asks until the answer is body, and returns it.
func eventually(t *testing.T, p *harness.Trafficd, target, body string) *harness.Response {
	t.Helper()
	var r *harness.Response
	harness.WaitFor(t, target+" to be "+body, func() bool {
		r = p.Client().Get(target)
		return string(r.Body) == body
	})
	return r
}

// RFC 5861 section 3: who comes meanwhile gets what there is, at once; one request goes to the
// origin; then there is a fresh answer.
func TestStaleWhileRevalidate(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/s": versions(staleSoon, func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "v2", freshLong, `ETag: "v2"`)
	})})
	p.Client().Get("/s").Expect(200, "v1")
	for range 5 {
		p.Client().Get("/s").Expect(200, "v1").AtLeast("Age", 61)
	}
	o.WaitCount("/s", 2)
	gate.Open()
	eventually(t, p, "/s", "v2").Header("ETag", `"v2"`)
	if got := o.Last("/s").Header.Get("If-None-Match"); got != `"v1"` {
		t.Errorf("the origin was asked with If-None-Match %q", got)
	}
	o.ExpectCount("/s", 2)
	p.Expect("trafficd_cache_background_total", 1)
}

// A 304 to the background's question makes it fresh; the next request does not ask again.
func TestStaleWhileRevalidateConfirmed(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/s": versions(staleSoon, harness.Reply(304, "", freshLong, `ETag: "v1"`, "X-Round: second"))})
	p.Client().Get("/s").Expect(200, "v1")
	p.Client().Get("/s", "Range: bytes=1-1").Expect(206, "1")
	harness.WaitFor(t, "the answer to be fresh", func() bool { return p.Client().Get("/s").Get("X-Round") == "second" })
	p.Client().Get("/s").Expect(200, "v1")
	o.ExpectCount("/s", 2)
}

// The background's failure changes nothing, whatever the error says of itself.
func TestStaleWhileRevalidateFails(t *testing.T) {
	t.Parallel()
	var good harness.Switch
	p, o := proxy(t, map[string]harness.Handler{"/s": versions(staleSoon, func(e *harness.Exchange) {
		if good.On() {
			e.Reply(200, "v2", freshLong)
			return
		}
		e.Reply(503, "broken", freshLong)
	})})
	p.Client().Get("/s").Expect(200, "v1")
	harness.WaitFor(t, "four requests at the origin", func() bool {
		p.Client().Get("/s").Expect(200, "v1")
		return o.Count("/s") >= 4
	})
	good.Set()
	eventually(t, p, "/s", "v2")
}

// Beyond the window the origin is asked first, as ever.
func TestStaleWhileRevalidateWindow(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{
		"/over": versions("Cache-Control: max-age=10, stale-while-revalidate=50", harness.Reply(200, "v2", freshLong)),
		"/must": versions("Cache-Control: max-age=10, stale-while-revalidate=500, must-revalidate", harness.Reply(200, "v2", freshLong)),
		"/head": versions(staleSoon, harness.Reply(200, "v2", freshLong)),
	})
	for _, target := range []string{"/over", "/must"} {
		p.Client().Get(target).Expect(200, "v1")
		p.Client().Get(target).Expect(200, "v2")
	}
	p.Client().Get("/head").Expect(200, "v1")
	p.Client().Head("/head").Expect(200, "")
	o.ExpectCount("/head", 2)
	p.Expect("trafficd_cache_background_total", 0)
}

// Nobody can have the origin asked behind his back as often as he likes: beyond the bound he waits.
func TestStaleWhileRevalidateIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 256
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/s": func(e *harness.Exchange) {
		if e.Header.Get("If-None-Match") == "" {
			e.Reply(200, "v1", staleSoon, staleByNow, `ETag: "v1"`)
			return
		}
		gate.Wait(e)
		e.Reply(200, "v2", freshLong)
	}}, harness.Set("timeouts.origin_response", "1h")) // the first waits until the last has asked
	c := p.Client().Dial()
	target := func(i int) string { return fmt.Sprintf("/s?%d", i) }
	for i := range bound + 1 {
		c.Send(harness.Request("GET", target(i), "")).Read("GET").Expect(200, "v1")
	}
	for i := range bound {
		c.Send(harness.Request("GET", target(i), "")).Read("GET").Expect(200, "v1")
	}
	c.Send(harness.Request("GET", target(bound), ""))
	o.WaitCount(target(bound), 2)
	gate.Open()
	c.Read("GET").Expect(200, "v2")
	eventually(t, p, target(0), "v2")
	p.Expect("trafficd_cache_background_total", bound)
	last := bound
	harness.WaitFor(t, "room for another", func() bool {
		last++ // what was asked for before may be fresh by now
		p.Client().Get(target(last)).Expect(200, "v1")
		p.Client().Get(target(last))
		return p.Metrics()["trafficd_cache_background_total"] > bound
	})
}

// The server dies while the origin is being asked behind the client's back: the client's connection
// goes on, what it gets is the same, and the next server asks again.
func TestStaleWhileRevalidateSurvivesKills(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	big := letters(2 << 20)
	p, o := proxy(t, map[string]harness.Handler{
		"/s": versions(staleSoon, func(e *harness.Exchange) {
			gate.Wait(e)
			e.Reply(200, "v2", freshLong)
		}),
		"/big": func(e *harness.Exchange) {
			if e.Header.Get("If-None-Match") != "" {
				gate.Wait(e)
			}
			e.Reply(200, big, staleSoon, staleByNow, `ETag: "v1"`)
		},
	})
	p.Client().Get("/s").Expect(200, "v1")
	p.Client().Get("/big").Expect(200, big)
	c := p.Client().Dial()
	slow := p.Client().Dial().Send(harness.Request("GET", "/big", ""))
	slow.ReadHead().ExpectStatus(200)
	for range 2 {
		c.Send(harness.Request("GET", "/s", "")).Read("GET").Expect(200, "v1")
		p.Kill(harness.Server).WaitGone(t)
		p.WaitReady()
	}
	if got := slow.ReadRaw(len(big)); got != big {
		t.Error("the large answer is not what it was")
	}
	gate.Open()
	harness.WaitFor(t, "/s to be v2", func() bool {
		return string(c.Send(harness.Request("GET", "/s", "")).Read("GET").Body) == "v2"
	})
	if n := o.Count("/s"); n > 4 {
		t.Errorf("the origin was asked %d times", n)
	}
}

// RFC 5861 section 4, RFC 9111 section 4.2.4: the origin is gone, and what there is stands in for it.
func TestStaleIfError(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{
		"/said":   harness.Reply(200, "said", "Cache-Control: max-age=60, stale-if-error=600", staleByNow),
		"/usual":  harness.Reply(200, "usual", "Cache-Control: max-age=60", staleByNow, `ETag: "v1"`),
		"/none":   harness.Reply(200, "none", "Cache-Control: max-age=60, stale-if-error=0", staleByNow, `ETag: "v1"`),
		"/must":   harness.Reply(200, "must", "Cache-Control: max-age=60, must-revalidate", staleByNow, `ETag: "v1"`),
		"/s-max":  harness.Reply(200, "s-max", "Cache-Control: s-maxage=60", staleByNow, `ETag: "v1"`),
		"/never":  harness.Reply(200, "never", "Cache-Control: max-age=0", `ETag: "v1"`),
		"/direct": harness.Reply(200, "direct", "Cache-Control: no-cache", `ETag: "v1"`),
	})
	stored := []string{"/said", "/usual", "/none", "/must", "/s-max", "/never", "/direct"}
	for _, target := range stored {
		p.Client().Get(target).Expect(200, target[1:])
	}
	o.Down()
	for _, target := range stored[:2] {
		p.Client().Get(target).Expect(200, target[1:]).AtLeast("Age", 61)
		p.Client().Head(target).Expect(200, "")
		p.Client().Get(target, "Range: bytes=0-1").Expect(206, target[1:3])
		p.Client().Get(target, "Cache-Control: no-cache").ExpectStatus(502)
	}
	for _, target := range stored[2:] {
		p.Client().Get(target).ExpectStatus(502)
	}
	p.Client().Get("/never", "Cache-Control: stale-if-error=60").Expect(200, "never")
	p.Expect(`trafficd_cache_stale_served_total{reason="error"}`, 7)
	o.Up()
	p.Client().Get("/usual").Expect(200, "usual")
	p.Client().Get("/direct").Expect(200, "direct")
}

// An origin that answers with an error, or not at all, is as good as none. What has nothing to stand in for it is
// passed on as it is.
func TestStaleIfErrorOfTheOrigin(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]harness.Handler{
		"500":     harness.Reply(500, "broken", noStore),
		"503":     harness.Reply(503, "broken", freshLong), // not even then is it stored
		"closed":  func(e *harness.Exchange) { e.Close() },
		"reset":   func(e *harness.Exchange) { e.Reset() },
		"silent":  harness.Silent,
		"garbage": func(e *harness.Exchange) { e.Raw("no HTTP\r\n\r\n"); e.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := proxy(t, map[string]harness.Handler{
				"/a":   versions("Cache-Control: max-age=60", broken),
				"/404": versions("Cache-Control: max-age=60", harness.Reply(404, "gone", noStore)),
				"/new": broken,
			}, harness.Config("# nothing yet\n"))
			p.WaitServing()
			p.Client().Get("/a").Expect(200, "v1")
			p.Client().Get("/404").Expect(200, "v1")
			p.Client().Get("/404").Expect(404, "gone")
			if name == "silent" { // what has to be answered has been
				p.WriteConfig("timeouts: {origin_response: 1s}\n")
				if r := p.Ctl("config", "reload"); r.Code != 0 {
					t.Fatal(r.Stderr)
				}
			}
			for range 2 {
				p.Client().Get("/a").Expect(200, "v1")
			}
			if r := p.Client().Get("/new"); r.Status < 500 {
				t.Errorf("nothing is stored, and it is answered %d", r.Status)
			}
		})
	}
}

// Many wait for one fetch, and it fails: all of them are served what there is.
func TestStaleIfErrorForAllWhoWait(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/a": versions("Cache-Control: max-age=60", func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(503, "broken")
	})})
	p.Client().Get("/a").Expect(200, "v1")
	for _, r := range p.Client().Concurrently(20, harness.Request("GET", "/a", ""), func() {
		o.WaitCount("/a", 2)
		p.Expect("trafficd_cache_collapsed_total", 19)
		gate.Open()
	}) {
		if r != nil {
			r.Expect(200, "v1")
		}
	}
	o.ExpectCount("/a", 2)
}

// The server dies while it waits for the origin, and then the origin does: the client gets what is stored, on
// the same connection, and so does who came along.
func TestStaleIfErrorSurvivesKills(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/a": versions("Cache-Control: max-age=60", func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reset()
	})})
	p.Client().Get("/a").Expect(200, "v1")
	first := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
	o.WaitCount("/a", 2)
	second := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
	p.Expect("trafficd_cache_collapsed_total", 1)
	p.Kill(harness.Server).WaitGone(t)
	p.WaitReady()
	gate.Open()
	first.Read("GET").Expect(200, "v1")
	second.Read("GET").Expect(200, "v1")
}

// A rule has its own idea of what is stored and for how long.
func TestRuleOverrides(t *testing.T) {
	t.Parallel()
	big := letters(200_000)
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		switch {
		case strings.HasSuffix(e.Target, "/chunked"):
			e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n")
			e.Chunk(big)
			e.Raw("0\r\n\r\n")
		case strings.HasSuffix(e.Target, "/big"):
			e.Reply(200, big, freshLong)
		default:
			e.Reply(200, "v", "Last-Modified: Mon, 02 Nov 2020 10:00:00 GMT")
		}
	})
	rule := func(prefix, options string) string {
		return "  - {prefix: " + prefix + ", origin: '" + o.URL() + "', " + options + "}\n"
	}
	p := harness.Start(t, harness.Args("--threads", "1"), harness.Config("map:\n"+
		rule("/off", "cache: false")+rule("/unguessed", "heuristic: false")+
		rule("/always", "ttl: 1h, ignore_client_no_cache: true")+rule("/query", "ignore_query: true")+
		rule("/small", "max_object_size: 100KB")))
	for _, c := range []struct {
		targets []string
		headers []string
		want    int // requests at the origin
	}{
		{[]string{"/off/a", "/off/a"}, nil, 2},
		{[]string{"/unguessed/a", "/unguessed/a"}, nil, 2},
		{[]string{"/always/a", "/always/a"}, []string{"Cache-Control: no-cache"}, 1},
		{[]string{"/query/a?x", "/query/a?y"}, nil, 1},
		{[]string{"/small/a", "/small/a"}, nil, 1},
		{[]string{"/small/big", "/small/big"}, nil, 2},
		{[]string{"/small/chunked", "/small/chunked"}, nil, 2},
	} {
		before := len(o.Requests())
		for _, target := range c.targets {
			body := "v"
			if strings.HasSuffix(target, "big") || strings.HasSuffix(target, "chunked") {
				body = big
			}
			p.Client().Get(target, c.headers...).Expect(200, body)
		}
		if got := len(o.Requests()) - before; got != c.want {
			t.Errorf("%q: the origin was asked %d times, want %d", c.targets, got, c.want)
		}
	}
}

// cache.stale_if_error: 0 leaves it to the responses.
func TestStaleIfErrorSwitchedOff(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{
		"/said":  harness.Reply(200, "said", "Cache-Control: max-age=60, stale-if-error=600", staleByNow),
		"/usual": harness.Reply(200, "usual", "Cache-Control: max-age=60", staleByNow, `ETag: "v1"`),
	}, harness.Set("cache.stale_if_error", "0s"))
	p.Client().Get("/said").Expect(200, "said")
	p.Client().Get("/usual").Expect(200, "usual")
	o.Down()
	p.Client().Get("/said").Expect(200, "said")
	p.Client().Get("/usual").ExpectStatus(502)
}

// RFC 9111 section 4.3.5: what a HEAD shows of a resource counts for what is stored of it.
func TestHeadUpdatesAndOutdates(t *testing.T) {
	t.Parallel()
	var changed harness.Switch
	p, o := proxy(t, map[string]harness.Handler{"/h": func(e *harness.Exchange) {
		switch {
		case changed.On():
			e.Reply(200, "v2", freshLong, `ETag: "v2"`)
		case e.Method == "HEAD":
			e.Reply(200, "v1", freshLong, `ETag: "v1"`, "X-Round: head")
		default:
			e.Reply(200, "v1", "Cache-Control: max-age=60", staleByNow, `ETag: "v1"`)
		}
	}})
	p.Client().Get("/h").Expect(200, "v1")
	p.Client().Head("/h").Expect(200, "")
	p.Client().Get("/h").Expect(200, "v1").Header("X-Round", "head")
	o.ExpectCount("/h", 2)
	changed.Set()
	p.Client().Get("/h").Expect(200, "v1")
	p.Client().Head("/h", "Cache-Control: no-cache").Header("ETag", `"v2"`)
	p.Client().Get("/h").Expect(200, "v2")
	o.ExpectCount("/h", 4)
}

// RFC 9110 section 9.3.3: what a POST brings of the resource itself is what a GET gets; other POSTs
// leave nothing behind.
func TestStoredPost(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		location := e.Target
		if e.Target == "/other" {
			location = "/elsewhere"
		}
		e.Reply(200, e.Method+e.ReadBody(), freshLong, `ETag: "x"`, "Content-Location: "+location)
	}})
	p.Client().Get("/same").Expect(200, "GET")
	p.Client().Post("/same", "1", `If-None-Match: "x"`).Expect(200, "POST1") // a POST is not answered with 304
	p.Client().Get("/same").Expect(200, "POST1").Has("Age")
	p.Client().Post("/same", "2").Expect(200, "POST2")
	p.Client().Get("/same").Expect(200, "POST2")
	o.ExpectCount("/same", 3)
	p.Client().Post("/other", "1").Expect(200, "POST1")
	p.Client().Get("/other").Expect(200, "GET")
}

// What other unsafe requests change while a POST is under way says nothing of what it brings, unless they change the same.
func TestStoredPostAmongOthers(t *testing.T) {
	t.Parallel()
	for other, stored := range map[string]bool{"/elsewhere": true, "/same": false} {
		t.Run(other, func(t *testing.T) {
			t.Parallel()
			gate := harness.NewGate()
			p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
				if e.Method == "POST" {
					gate.Wait(e)
				}
				e.Reply(200, e.Method, freshLong, "Content-Location: "+e.Target)
			}})
			post := p.Client().Dial().Send(harness.Request("POST", "/same", "1"))
			o.WaitCount("/same", 1)
			p.Client().Do("DELETE", other, "").Expect(200, "DELETE")
			gate.Open()
			post.Read("POST").Expect(200, "POST")
			want := "GET"
			if stored {
				want = "POST"
			}
			p.Client().Get("/same").Expect(200, want)
		})
	}
}

// RFC 9111 section 5.2.2.7: the one who asked gets the fields that others must not have, those who wait with it
// or come later do not.
func TestPrivateFields(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/p": func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "v1", `Cache-Control: max-age=600, private="set-cookie, X-Mine"`, "Set-Cookie: a=b", "X-Mine: 1", "X-All: 1")
	}})
	first := p.Client().Dial().Send(harness.Request("GET", "/p", ""))
	o.WaitCount("/p", 1)
	second := p.Client().Dial().Send(harness.Request("GET", "/p", ""))
	p.Expect("trafficd_cache_collapsed_total", 1)
	gate.Open()
	first.Read("GET").Expect(200, "v1").Header("Set-Cookie", "a=b").Header("X-Mine", "1").Header("X-All", "1")
	second.Read("GET").Expect(200, "v1").Header("Set-Cookie", "").Header("X-Mine", "").Header("X-All", "1")
	p.Client().Get("/p").Expect(200, "v1").Header("Set-Cookie", "").Header("X-Mine", "").Header("X-All", "1")
	o.ExpectCount("/p", 1)
}

// RFC 9111 section 7.3, and cache.store_cookies.
func TestCookies(t *testing.T) {
	t.Parallel()
	routes := map[string]harness.Handler{
		"/explicit": harness.Reply(200, "v", freshLong, "Set-Cookie: a=b"),
		"/guess":    harness.Reply(200, "v", "Last-Modified: Mon, 02 Nov 2020 10:00:00 GMT", "Set-Cookie: a=b"),
		"/public":   harness.Reply(200, "v", freshLong+", public", "Set-Cookie: a=b"),
	}
	for store, counts := range map[string][3]int{"true": {1, 2, 1}, "false": {2, 2, 1}} {
		p, o := proxy(t, routes, harness.Set("cache.store_cookies", store))
		for i, target := range []string{"/explicit", "/guess", "/public"} {
			for range 2 {
				p.Client().Get(target).Expect(200, "v").Header("Set-Cookie", "a=b")
			}
			o.ExpectCount(target, counts[i])
		}
	}
}

// What decides on the lifetime: the field for caches like this one (RFC 9213), the time since the last change
// (RFC 9111 section 4.2.2), the operator.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	const old = "Last-Modified: Mon, 02 Nov 2020 10:00:00 GMT"
	p, o := proxy(t, map[string]harness.Handler{
		"/targeted":    harness.Reply(200, "v", "CDN-Cache-Control: max-age=600", noStore),
		"/targeted-no": harness.Reply(200, "v", "CDN-Cache-Control: no-store", freshLong),
		"/malformed":   harness.Reply(200, "v", "CDN-Cache-Control: no-store, &", freshLong),
		"/guessed":     harness.Reply(200, "v", old),
		"/unguessable": harness.Reply(403, "v", old),
		"/negative":    harness.Reply(404, "v"),
		"/broken":      harness.Reply(503, "v"),
		"/broken-not":  harness.Reply(503, "v", noStore),
		"/299":         harness.Reply(299, "v", freshLong),
		"/429":         harness.Reply(429, "v", freshLong),
	}, harness.Set("cache.negative_ttl", "1m"))
	for target, want := range map[string]int{
		"/targeted": 1, "/targeted-no": 2, "/malformed": 1, "/guessed": 1, "/unguessable": 2, "/negative": 1, "/broken": 1,
		"/broken-not": 2, "/299": 1, "/429": 2,
	} {
		for range 2 {
			p.Client().Get(target)
		}
		o.ExpectCount(target, want)
	}
}

// RFC 9111 section 4.1: requests that mean the same get the same alternate, and what replaces it takes its place.
func TestVaryByMeaning(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{
		"/e": func(e *harness.Exchange) {
			e.Reply(200, "for "+e.Header.Get("Accept-Encoding"), freshLong, "Vary: Accept-Encoding")
		},
		"/l": harness.Reply(200, "deutsch", freshLong, "Vary: Accept-Language", "Content-Language: de"),
		"/x": func(e *harness.Exchange) { // of which nobody knows that it is a list
			e.Reply(200, "for "+strings.Join(e.Header.Values("X-V"), "|"), freshLong, "Vary: X-V")
		},
	})
	p.Client().Get("/e", "Accept-Encoding: gzip, br").Expect(200, "for gzip, br")
	p.Client().Get("/e", "Accept-Encoding: br,GZIP;q=1.0").Expect(200, "for gzip, br")
	p.Client().Get("/e", "Accept-Encoding: br,GZIP;q=1.0", "Cache-Control: no-cache").Expect(200, "for br,GZIP;q=1.0")
	p.Client().Get("/e", "Accept-Encoding: gzip, br").Expect(200, "for br,GZIP;q=1.0")
	p.Client().Get("/e", "Accept-Encoding: gzip").Expect(200, "for gzip")
	o.ExpectCount("/e", 3)
	p.Client().Get("/l", "Accept-Language: en, de").Expect(200, "deutsch")
	p.Client().Get("/l", "Accept-Language: fr;q=0.5, de").Expect(200, "deutsch")
	o.ExpectCount("/l", 1)
	for range 2 {
		p.Client().Get("/x", "X-V: a,b").Expect(200, "for a,b")
		p.Client().Get("/x", "X-V: a , b").Expect(200, "for a,b")
		p.Client().Get("/x", "X-V: a", "X-V: b").Expect(200, "for a,b")
		p.Client().Get("/x", "X-V: a,,b").Expect(200, "for a,,b")
		p.Client().Get("/x", "X-V: ,a,b").Expect(200, "for ,a,b")
		p.Client().Get("/x", "X-V: a,b,").Expect(200, "for a,b,")
	}
	o.ExpectCount("/x", 4)
}

// A client that asks whether what it has is still good learns it from the origin, when nothing can be stored.
func TestConditionsOfWhatIsNotStored(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"/c": func(e *harness.Exchange) {
		if e.Header.Get("If-None-Match") == `"v1"` {
			e.Reply(304, "", noStore, `ETag: "v1"`)
			return
		}
		e.Reply(200, "v1", noStore, `ETag: "v1"`)
	}})
	p.Client().Get("/c").Expect(200, "v1")
	p.Client().Get("/c", `If-None-Match: "v1"`).Expect(304, "").Header("ETag", `"v1"`)
	p.Client().Get("/c", `If-None-Match: "v0"`).Expect(200, "v1")
}

// A stale answer that the origin does not confirm, and whose successor must not be stored, is not used any
// more, not even in place of an error.
func TestOutdatedIsGone(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/a": versions("Cache-Control: max-age=60", harness.Reply(200, "v2", "Cache-Control: private"))})
	p.Client().Get("/a").Expect(200, "v1")
	p.Client().Get("/a").Expect(200, "v2")
	o.Down()
	p.Client().Get("/a").ExpectStatus(502)
}

// RFC 9211.
func TestCacheStatus(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{
		"/a":  harness.Reply(200, "v", freshLong+", must-revalidate", "Age: 500"),
		"/s":  versions("Cache-Control: max-age=60", harness.Reply(304, "", "Cache-Control: max-age=600, must-revalidate", `ETag: "v1"`, "Age: 500")),
		"/no": harness.Reply(200, "v", noStore, "Cache-Status: other; hit"),
		"/v":  harness.Reply(200, "v", freshLong, "Vary: X-A"),
		"/w":  versions(staleSoon, harness.Reply(503, "")),
		"/e":  versions("Cache-Control: max-age=60", harness.Reply(503, "")),
	})
	status := func(want string, r *harness.Response) {
		t.Helper()
		got := r.Get("Cache-Status")
		if base, _, found := strings.Cut(want, "TTL"); found { // a second may have passed
			if !strings.HasPrefix(got, base) {
				t.Errorf("Cache-Status: got %q, want %q", got, want)
			}
		} else if got != want {
			t.Errorf("Cache-Status: got %q, want %q", got, want)
		}
	}
	c := p.Client()
	status("trafficd; fwd=uri-miss; stored; ttl=TTL", c.Get("/a"))
	status("trafficd; hit; ttl=TTL", c.Get("/a"))
	status("trafficd; hit; ttl=TTL", c.Get("/a", "Range: bytes=0-0").Expect(206, "v"))
	status("trafficd; fwd=request; stored; ttl=TTL", c.Get("/a", "Cache-Control: no-cache"))
	status("trafficd; fwd=method", c.Post("/a", "x"))
	status("trafficd; fwd=uri-miss; stored; ttl=-TTL", c.Get("/s"))
	status("trafficd; fwd=stale; fwd-status=304; ttl=TTL", c.Get("/s"))
	status("other; hit, trafficd; fwd=uri-miss", c.Get("/no"))
	c.Get("/v", "X-A: 1")
	status("trafficd; fwd=vary-miss; stored; ttl=TTL", c.Get("/v", "X-A: 2"))
	c.Get("/w")
	r := c.Get("/w")
	status("trafficd; hit; ttl=-TTL", r)
	if !strings.HasSuffix(r.Get("Cache-Status"), "; detail=stale-while-revalidate") {
		t.Errorf("got %q", r.Get("Cache-Status"))
	}
	c.Get("/e")
	r = c.Get("/e")
	status("trafficd; fwd=stale; fwd-status=503; ttl=-TTL", r)
	if !strings.HasSuffix(r.Get("Cache-Status"), "; detail=stale-if-error") {
		t.Errorf("got %q", r.Get("Cache-Status"))
	}
	status("", c.Get("/x", "Cache-Control: only-if-cached").ExpectStatus(504))
	o.Down()
	status("trafficd; fwd=uri-miss", c.Get("/y").ExpectStatus(502))

	off, _ := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "v", freshLong)}, harness.Set("cache.status_header", "false"))
	status("", off.Client().Get("/a"))
	bypass, _ := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "v", freshLong)}, harness.Set("cache.size", "0"), harness.Set("proxy.via_name", "9th"))
	status(`"9th"; fwd=bypass`, bypass.Client().Get("/a"))
}

// A lifetime is guessed from Date and Last-Modified, and bounded.
func TestHeuristicIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	changed := "Last-Modified: " + now.Add(-10*time.Hour).Format(http.TimeFormat)
	p, o := proxy(t, map[string]harness.Handler{
		"/hour":  harness.Reply(200, "v", changed, "Age: 3500"), // of 3600 seconds
		"/stale": harness.Reply(200, "v", changed, "Age: 3700"),
	})
	for range 2 {
		p.Client().Get("/hour").Expect(200, "v")
		p.Client().Get("/stale").Expect(200, "v")
	}
	o.ExpectCount("/hour", 1)
	o.ExpectCount("/stale", 2)
}

// The access log tells stale answers from others. Nobody asked for what is fetched behind a client's back: it has
// no line.
func TestAccessLogOfStaleAnswers(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%m %U %s %{cache}x", map[string]harness.Handler{
		"/behind": versions(staleSoon, harness.Reply(503, "")),
		"/error":  versions("Cache-Control: max-age=60", harness.Reply(503, "")),
	})
	for _, target := range []string{"/behind", "/behind", "/error", "/error"} {
		p.Client().Get(target).Expect(200, "v1")
	}
	want := []string{"GET /behind 200 TCP_MISS", "GET /behind 200 TCP_STALE_HIT", "GET /error 200 TCP_MISS", "GET /error 200 TCP_REF_FAIL_HIT"}
	if got := lines(t, path, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The server dies while the origin thinks about what is stale. Its successor, which does not know whom it asks, learns that the
// question was of no use and asks again.
func TestAValidationIsBegunAnewAfterADeath(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/s": versions("Cache-Control: max-age=60", func(e *harness.Exchange) {
		if e.Header.Get("If-None-Match") == "" {
			e.Reply(200, "v3", freshLong, `ETag: "v3"`)
			return
		}
		gate.Wait(e)
		e.Reply(304, "", `ETag: "v2"`)
	})})
	p.Client().Get("/s").Expect(200, "v1")
	c := p.Client().Dial().Send(harness.Request("GET", "/s", ""))
	o.WaitCount("/s", 2)
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	gate.Open()
	c.Read("GET").Expect(200, "v3")
	o.ExpectCount("/s", 3)
}

// RFC 5861 section 3: what is stale is validated behind the clients' backs although the responses to others for the same
// URI cannot be stored.
func TestStaleWhileRevalidateAmongUncacheables(t *testing.T) {
	t.Parallel()
	const vary = "Vary: Cookie"
	var asked atomic.Int64
	p, _ := proxy(t, map[string]harness.Handler{"/s": func(e *harness.Exchange) {
		switch {
		case e.Header.Get("Cookie") != "":
			e.Reply(200, "mine", "Cache-Control: private", vary)
		case asked.Add(1) == 1:
			e.Reply(200, "v1", staleSoon, staleByNow, vary)
		default:
			e.Reply(200, "v2", freshLong, vary)
		}
	}})
	p.Client().Get("/s").Expect(200, "v1")
	harness.WaitFor(t, "the validation", func() bool {
		p.Client().Get("/s", "Cookie: a=b").Expect(200, "mine")
		return string(p.Client().Get("/s").Body) == "v2"
	})
	p.Expect("trafficd_cache_background_total", 1)
}

// Each alternate is validated on its own, though another one's validation takes its time; and who may not have what is
// stale waits for the one that is his.
func TestStaleWhileRevalidateOfAlternates(t *testing.T) {
	t.Parallel()
	slow, quick := harness.NewGate(), harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/s": func(e *harness.Exchange) {
		l := e.Header.Get("Accept-Language")
		switch {
		case e.Header.Get("If-None-Match") == "":
			e.Reply(200, "v1 "+l, staleSoon, staleByNow, "Vary: Accept-Language", `ETag: "`+l+`"`)
			return
		case l == "de":
			slow.Wait(e)
		default:
			quick.Wait(e)
		}
		e.Reply(200, "v2 "+l, freshLong, "Vary: Accept-Language")
	}})
	for range 2 {
		p.Client().Get("/s", "Accept-Language: de").Expect(200, "v1 de")
		p.Client().Get("/s", "Accept-Language: fr").Expect(200, "v1 fr")
	}
	o.WaitCount("/s", 4)
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/s", "", "Accept-Language: fr", "Cache-Control: max-age=60"))
	harness.WaitFor(t, "one to wait for the validation", func() bool { return p.Metrics()["trafficd_cache_collapsed_total"] == 1 })
	quick.Open()
	c.Read("GET").Expect(200, "v2 fr")
	p.Client().Get("/s", "Accept-Language: de").Expect(200, "v1 de")
	slow.Open()
	harness.WaitFor(t, "the slow one", func() bool { return string(p.Client().Get("/s", "Accept-Language: de").Body) == "v2 de" })
	o.ExpectCount("/s", 4)
	p.Expect("trafficd_cache_background_total", 2)
}
