package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// A fresh answer is stored and served again, with its Age.
func TestMissThenHit(t *testing.T) {
	t.Parallel()
	// Age on arrival, so that the hit's Age says that it was counted on.
	p, o := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "v1", "Cache-Control: max-age=600", "Age: 50", "X-Kept: yes")})
	p.Client().Get("/a").Expect(200, "v1").AtLeast("Age", 50)
	p.Client().Get("/a").Expect(200, "v1").AtLeast("Age", 50).Header("X-Kept", "yes")
	c := p.Client().Dial()
	for range 5 {
		c.Send(harness.Request("GET", "/a", "")).Read("GET").Expect(200, "v1")
	}
	o.ExpectCount("/a", 1)
	p.Expect(`trafficd_cache_lookups_total{result="miss"}`, 1)
	p.Expect(`trafficd_cache_lookups_total{result="hit"}`, 6)
	p.Expect("trafficd_cache_stores_total", 1)
}

// The key is the whole target, and the host.
func TestKeyHasQueryAndHost(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Host+e.Target, "Cache-Control: max-age=600")
	}})
	for range 2 {
		p.Client().Get("/a", "Host: one.example").Expect(200, "one.example/a")
		p.Client().Get("/a", "Host: two.example").Expect(200, "two.example/a")
		p.Client().Get("/a?x=1", "Host: one.example").Expect(200, "one.example/a?x=1")
		p.Client().Get("/a?x=2", "Host: one.example").Expect(200, "one.example/a?x=2")
		p.Client().Get("/A", "Host: one.example").Expect(200, "one.example/A")
	}
}

// "explicit freshness … conservative (when in doubt, do not store)": what must not be stored
// goes to the origin each time.
func TestNotStored(t *testing.T) {
	t.Parallel()
	answers := map[string][]string{
		"/no-store":      {"Cache-Control: no-store"},
		"/private":       {"Cache-Control: private, max-age=600"},
		"/no-freshness":  nil,
		"/max-age-0":     {"Cache-Control: max-age=0"},
		"/vary-star":     {"Cache-Control: max-age=600", "Vary: *"},
		"/s-maxage-0":    {"Cache-Control: s-maxage=0, max-age=600"},
		"/expired":       {"Expires: Thu, 01 Jan 1970 00:00:00 GMT"},
		"/expires-0":     {"Expires: 0"},
		"/stale-arrival": {"Cache-Control: max-age=60", "Age: 60"},
	}
	routes := map[string]harness.Handler{
		"/post":  harness.Reply(200, "body", "Cache-Control: max-age=600"),
		"/error": harness.Reply(500, "body", "Cache-Control: no-store"),
		"/range": harness.Reply(206, "bo", "Cache-Control: max-age=600", "Content-Range: bytes 0-1/*"),
		"/auth":  harness.Reply(200, "body", "Cache-Control: max-age=600"),
	}
	for target, headers := range answers {
		routes[target] = harness.Reply(200, "body", headers...)
	}
	p, o := proxy(t, routes)
	for target := range answers {
		for range 3 {
			p.Client().Get(target).Expect(200, "body")
		}
		o.ExpectCount(target, 3)
	}
	for range 3 {
		p.Client().Post("/post", "x").Expect(200, "body")
		p.Client().Get("/error").Expect(500, "body")
		p.Client().Get("/range", "Range: bytes=0-1").Expect(206, "bo")
		p.Client().Get("/auth", "Authorization: Basic eDp5").Expect(200, "body")
	}
	for _, target := range []string{"/post", "/error", "/range", "/auth"} {
		o.ExpectCount(target, 3)
	}
}

// A request's own no-store and no-cache are honoured.
func TestClientAsksForTheOrigin(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "v1", "Cache-Control: max-age=600")})
	p.Client().Get("/a").Expect(200, "v1")
	p.Client().Get("/a", "Cache-Control: no-cache").Expect(200, "v1")
	o.ExpectCount("/a", 2)
}

// "Vary": each alternate is stored beside the others.
func TestVaryAlternates(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/v": func(e *harness.Exchange) {
		e.Reply(200, "in "+e.Header.Get("Accept-Language"), "Cache-Control: max-age=600", "Vary: Accept-Language")
	}})
	for range 2 {
		for _, language := range []string{"de", "fr", "zh"} {
			p.Client().Get("/v", "Accept-Language: "+language).Expect(200, "in "+language)
		}
		p.Client().Get("/v").Expect(200, "in ")
	}
	o.ExpectCount("/v", 4)
}

// A dozen alternates of one URL are kept; a flood of values that are asked for once leaves those alone that are hit.
func TestManyAlternates(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/v": func(e *harness.Exchange) {
		e.Reply(200, "as "+e.Header.Get("Accept-Encoding"), "Cache-Control: max-age=600", "Vary: Accept-Encoding")
	}}, harness.Set("cache.disk_path", "off")) // it would bring back what memory has lost
	c := p.Client().Dial()
	ask := func(encoding string) {
		t.Helper()
		c.Send(harness.Request("GET", "/v", "", "Accept-Encoding: "+encoding)).Read("GET").Expect(200, "as "+encoding)
	}
	for range 3 {
		for i := range 12 {
			ask(fmt.Sprint("e", i))
		}
	}
	o.ExpectCount("/v", 12)
	for i := range 100 {
		ask(fmt.Sprint("bogus", i))
	}
	for i := 4; i < 12; i++ {
		ask(fmt.Sprint("e", i))
	}
	o.ExpectCount("/v", 112)
}

// RFC 9111 section 4.1: what varies by a field that says who asks is for the one who asked, though no client
// sends that field: it is the proxy that writes it.
func TestVaryByWhoAsks(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	answer := func(e *harness.Exchange) {
		e.Reply(200, "for "+e.Header.Get("X-Forwarded-For"), "Cache-Control: max-age=60", "Vary: Accept, X-Forwarded-For")
	}
	p, o := proxy(t, map[string]harness.Handler{"/v": answer, "/together": func(e *harness.Exchange) { gate.Wait(e); answer(e) }})
	for range 2 {
		p.Client().Get("/v").Expect(200, "for 127.0.0.1")
		p.Client().From("127.0.0.2").Get("/v").Expect(200, "for 127.0.0.2")
		p.Client().From("127.0.0.2").Get("/v", "X-Forwarded-For: 127.0.0.1").Expect(200, "for 127.0.0.1, 127.0.0.2")
	}
	o.ExpectCount("/v", 6)
	p.Expect("trafficd_cache_stores_total", 0)

	one := p.Client().Dial().Send(harness.Request("GET", "/together", ""))
	o.WaitCount("/together", 1)
	other := p.Client().From("127.0.0.2").Dial().Send(harness.Request("GET", "/together", ""))
	p.ExpectMetric("trafficd_cache_collapsed_total", "the one who waits", func(n float64) bool { return n == 1 })
	gate.Open()
	one.Read("GET").Expect(200, "for 127.0.0.1")
	other.Read("GET").Expect(200, "for 127.0.0.2")
}

// "304 revalidation": a stale answer is asked about with its validator; a 304 freshens it and
// the client gets the whole answer. Age makes the answer stale on arrival, so nobody sleeps.
func TestRevalidation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, validator, conditional, value string }{
		{"ETag", `ETag: "v1"`, "If-None-Match", `"v1"`},
		{"Last-Modified", "Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT", "If-Modified-Since", "Mon, 02 Nov 2026 10:00:00 GMT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, o := proxy(t, map[string]harness.Handler{"/r": func(e *harness.Exchange) {
				if e.Header.Get(c.conditional) == c.value {
					e.Reply(304, "", c.validator, "Cache-Control: max-age=600", "X-Round: second")
					return
				}
				e.Reply(200, "v1", c.validator, "Cache-Control: max-age=60", "Age: 60", "X-Round: first")
			}})
			p.Client().Get("/r").Expect(200, "v1").Header("X-Round", "first")
			p.Client().Get("/r").Expect(200, "v1").Header("X-Round", "second")
			p.Client().Get("/r").Expect(200, "v1").Header("X-Round", "second") // fresh again
			o.ExpectCount("/r", 2)
			p.Expect("trafficd_cache_revalidated_total", 1)
		})
	}
}

// A stale answer that has changed is replaced.
func TestRevalidationFindsAChange(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/r": func(e *harness.Exchange) {
		if e.Header.Get("If-None-Match") == "" {
			e.Reply(200, "v1", `ETag: "v1"`, "Cache-Control: max-age=60", "Age: 60")
			return
		}
		e.Reply(200, "v2", `ETag: "v2"`, "Cache-Control: max-age=600")
	}})
	p.Client().Get("/r").Expect(200, "v1")
	p.Client().Get("/r").Expect(200, "v2")
	p.Client().Get("/r").Expect(200, "v2").Header("ETag", `"v2"`)
	o.ExpectCount("/r", 2)
}

// "conditional client requests": answered 304 from the cache when the client has what we have.
func TestConditionalRequestOfTheClient(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/c": harness.Reply(200, "v1", "Cache-Control: max-age=600",
		`ETag: "v1"`, "Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT")})
	p.Client().Get("/c").Expect(200, "v1")
	for _, match := range []string{`"v1"`, `"v0", "v1"`, `W/"v1"`, "*"} {
		p.Client().Get("/c", "If-None-Match: "+match).Expect(304, "").Header("ETag", `"v1"`)
	}
	p.Client().Get("/c", `If-None-Match: "v2"`).Expect(200, "v1")
	p.Client().Get("/c", "If-Modified-Since: Mon, 02 Nov 2026 10:00:00 GMT").Expect(304, "")
	p.Client().Get("/c", "If-Modified-Since: Mon, 02 Nov 2026 09:59:59 GMT").Expect(200, "v1")
	// If-None-Match wins over If-Modified-Since (RFC 9110 section 13.2.2).
	p.Client().Get("/c", `If-None-Match: "v2"`, "If-Modified-Since: Mon, 02 Nov 2026 10:00:00 GMT").Expect(200, "v1")
	o.ExpectCount("/c", 1)
}

// A HEAD is answered from what a GET has stored.
func TestHeadFromStoredGet(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/h": harness.Reply(200, "twelve bytes", "Cache-Control: max-age=600")})
	p.Client().Get("/h").Expect(200, "twelve bytes")
	p.Client().Head("/h").Expect(200, "").Header("Content-Length", "12").Has("Age")
	o.ExpectCount("/h", 1)
	// The other way round a HEAD has no body to store.
	p2, o2 := proxy(t, map[string]harness.Handler{"/h": harness.Reply(200, "twelve bytes", "Cache-Control: max-age=600")})
	p2.Client().Head("/h").Expect(200, "")
	p2.Client().Get("/h").Expect(200, "twelve bytes")
	o2.ExpectCount("/h", 2)
}

// "collapsed misses": fifty clients at once, one request at the origin.
func TestCollapsedMisses(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]harness.Handler{
		"length": harness.Reply(200, letters(100_000), "Cache-Control: max-age=600"),
		"chunked": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n")
			for body := letters(100_000); len(body) > 0; body = body[10_000:] {
				e.Chunk(body[:10_000])
			}
			e.Raw("0\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := harness.NewGate()
			o := harness.NewOrigin(t, func(e *harness.Exchange) {
				gate.Wait(e)
				reply(e)
			})
			// More than one event loop, so that clients of one miss sit on several.
			p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"), harness.NotReady())
			harness.WaitFor(t, "a server", func() bool { return p.Ready() })
			for _, r := range p.Client().Concurrently(50, harness.Request("GET", "/one", ""), func() {
				o.WaitCount("/one", 1)
				gate.Open()
			}) {
				if r != nil {
					r.Expect(200, letters(100_000))
				}
			}
			o.ExpectCount("/one", 1)
		})
	}
}

// "never serialise uncacheables": clients of an answer that turns out not to be storable get
// one each, at the same time. The origin lets nobody go before all five are there.
func TestUncacheablesAreNotSerialised(t *testing.T) {
	t.Parallel()
	const n = 5
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/nc": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n")
		gate.Wait(e)
		e.Chunk("each its own")
		e.Raw("0\r\n\r\n")
	}})
	for _, r := range p.Client().Concurrently(n, harness.Request("GET", "/nc", ""), func() {
		o.WaitCount("/nc", n)
		gate.Open()
	}) {
		if r != nil {
			r.Expect(200, "each its own")
		}
	}
	o.ExpectCount("/nc", n)
}

// POSTs are not collapsed with one another.
func TestPostsAreNotCollapsed(t *testing.T) {
	t.Parallel()
	const n = 5
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/post": func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, e.ReadBody(), "Cache-Control: max-age=600")
	}})
	for _, r := range p.Client().Concurrently(n, harness.Request("POST", "/post", "body"), func() {
		o.WaitCount("/post", n)
		gate.Open()
	}) {
		if r != nil {
			r.Expect(200, "body")
		}
	}
}

// The first of several clients that wait for one answer leaves: the others get theirs.
func TestCollapsedWriterLeaves(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	p, o := proxy(t, map[string]harness.Handler{"/one": func(e *harness.Exchange) {
		gate.Wait(e)
		e.Reply(200, "for the others", "Cache-Control: max-age=600")
	}})
	first := p.Client().Dial()
	first.Send(harness.Request("GET", "/one", ""))
	o.WaitCount("/one", 1)
	for _, r := range p.Client().Concurrently(10, harness.Request("GET", "/one", ""), func() {
		first.Reset()
		gate.Open()
	}) {
		if r != nil {
			r.Expect(200, "for the others")
		}
	}
	if n := o.Count("/one"); n > 11 {
		t.Errorf("origin saw %d requests", n)
	}
}

// The origin breaks off while several wait: each of them learns it, none gets half an answer as
// a whole one, and the next client gets a good one.
func TestCollapsedFetchFails(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	var good harness.Switch
	p, _ := proxy(t, map[string]harness.Handler{"/one": func(e *harness.Exchange) {
		if good.On() {
			e.Reply(200, "whole", "Cache-Control: max-age=600")
			return
		}
		gate.Wait(e)
		e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 1000\r\n\r\nhalf")
		e.Close()
	}})
	conns := make([]*harness.Conn, 10)
	for i := range conns {
		conns[i] = p.Client().Dial().Send(harness.Request("GET", "/one", ""))
	}
	gate.Open()
	for i, c := range conns {
		if r, err := c.Try("GET"); err == nil && r.Status == 200 {
			t.Errorf("client %d: a clean end after %d bytes", i, len(r.Body))
		}
	}
	good.Set()
	p.Client().Get("/one").Expect(200, "whole")
}

// An unsafe method that succeeds makes the stored answer unusable (RFC 9111 section 4.4).
func TestUnsafeMethodInvalidates(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/i": harness.Reply(200, "v", "Cache-Control: max-age=600")})
	p.Client().Get("/i").Expect(200, "v")
	p.Client().Post("/i", "change").Expect(200, "v")
	p.Client().Get("/i").Expect(200, "v")
	o.ExpectCount("/i", 3)
}

// "A cache in shared memory": kill -9 of the server, of the manager, of both loses nothing.
func TestCacheSurvivesKills(t *testing.T) {
	t.Parallel()
	big := letters(3 << 20)
	p, o := proxy(t, map[string]harness.Handler{
		"/small": harness.Reply(200, "small", "Cache-Control: max-age=600"),
		"/big":   harness.Reply(200, big, "Cache-Control: max-age=600"),
		"/vary": func(e *harness.Exchange) {
			e.Reply(200, e.Header.Get("Accept"), "Cache-Control: max-age=600", "Vary: Accept")
		},
	})
	ask := func() {
		t.Helper()
		p.Client().Get("/small").Expect(200, "small")
		p.Client().Get("/big").Expect(200, big)
		p.Client().Get("/vary", "Accept: a/b").Expect(200, "a/b")
		p.Client().Get("/vary", "Accept: c/d").Expect(200, "c/d")
	}
	ask()
	for _, roles := range [][]harness.Role{{harness.Server}, {harness.Manager}, {harness.Manager, harness.Server}, {harness.Server}} {
		for _, role := range roles {
			old := p.Kill(role)
			old.WaitGone(t)
		}
		p.WaitReady()
		ask()
	}
	o.ExpectCount("/small", 1)
	o.ExpectCount("/big", 1)
	o.ExpectCount("/vary", 2)
}

// More is stored than there is room for: the oldest go, every answer stays right.
func TestEviction(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(60_000), "Cache-Control: max-age=600")
	}}, harness.Set("cache.size", "2MiB"))
	c := p.Client().Dial()
	for round := range 2 {
		for i := range 100 {
			target := fmt.Sprintf("/e/%d", i)
			c.Send(harness.Request("GET", target, "")).Read("GET").Expect(200, target+letters(60_000))
			if t.Failed() {
				t.Fatalf("round %d, object %d", round, i)
			}
		}
	}
}

// An object larger than the cache takes passes through whole.
func TestLargerThanTheCache(t *testing.T) {
	t.Parallel()
	big := letters(3 << 20)
	p, o := proxy(t, map[string]harness.Handler{"/big": harness.Reply(200, big, "Cache-Control: max-age=600"),
		"/big-chunked": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n")
			e.Chunk(big)
			e.Raw("0\r\n\r\n")
		}}, harness.Set("cache.size", "2MiB"))
	for range 2 {
		p.Client().Get("/big").Expect(200, big)
		p.Client().Get("/big-chunked").Expect(200, big)
	}
	o.ExpectCount("/big", 2)
	o.ExpectCount("/big-chunked", 2)
}

// Expires, without Cache-Control, is a freshness lifetime from Date.
func TestExpires(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	p, o := proxy(t, map[string]harness.Handler{"/e": harness.Reply(200, "v",
		"Date: "+now.Format(http.TimeFormat), "Expires: "+now.Add(time.Hour).Format(http.TimeFormat))})
	for range 3 {
		p.Client().Get("/e").Expect(200, "v")
	}
	o.ExpectCount("/e", 1)
}

// only-if-cached without a stored answer is a 504 (RFC 9111 section 5.2.1.7).
func TestOnlyIfCached(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/o": harness.Reply(200, "v", "Cache-Control: max-age=600")})
	p.Client().Get("/o", "Cache-Control: only-if-cached").ExpectStatus(504)
	o.ExpectCount("/o", 0)
	p.Client().Get("/o").Expect(200, "v")
	p.Client().Get("/o", "Cache-Control: only-if-cached").Expect(200, "v")
}

// Set-Cookie of a stored answer: stored only because the origin has said so, and whole.
func TestFieldsOfAHitAreThoseOfTheMiss(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"/f": harness.Reply(200, "v", "Cache-Control: max-age=600",
		"Content-Type: text/plain; charset=utf-8", "Link: </a>; rel=x", "Link: </b>; rel=y", "X-Empty:", `ETag: W/"x"`)})
	miss := p.Client().Get("/f").Expect(200, "v")
	hit := p.Client().Get("/f").Expect(200, "v").Has("Age")
	for _, name := range []string{"Content-Type", "Link", "X-Empty", "ETag", "Date", "Cache-Control", "Content-Length", "Via"} {
		if got, want := strings.Join(hit.Values(name), "|"), strings.Join(miss.Values(name), "|"); got != want {
			t.Errorf("%s: the hit has %q, the miss had %q", name, got, want)
		}
	}
}
