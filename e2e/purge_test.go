package e2e

import (
	"fmt"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// counted answers with a body that names the target and how often it was asked for.
func counted(o **harness.Origin, headers ...string) harness.Handler {
	return func(e *harness.Exchange) {
		e.Reply(200, fmt.Sprintf("%s %d", e.Target, (*o).Count(e.Target)), append([]string{"Cache-Control: max-age=600"}, headers...)...)
	}
}

// purge asks for a purge and expects it to find n responses.
func purge(t *testing.T, p *harness.Trafficd, n int, target string, headers ...string) {
	t.Helper()
	r := p.Client().Do("PURGE", target, "", headers...).ExpectStatus(200).Header("Content-Type", "application/json").
		Header("Purged", fmt.Sprint(n))
	if !strings.HasPrefix(string(r.Body), fmt.Sprintf(`{"purged":%d,`, n)) {
		t.Errorf("PURGE %s: got %s, want %d", target, r.Body, n)
	}
}

// By URL: every alternate of it goes, and nothing else.
func TestPurgeURL(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{
		"/v": func(e *harness.Exchange) {
			e.Reply(200, e.Header.Get("Accept-Language"), "Cache-Control: max-age=600", "Vary: Accept-Language")
		},
		"": func(e *harness.Exchange) { counted(&o)(e) },
	})
	o = o2
	for range 2 {
		p.Client().Get("/a").Expect(200, "/a 1")
		p.Client().Get("/a?q").Expect(200, "/a?q 1")
		p.Client().Get("/v", "Accept-Language: de").Expect(200, "de")
		p.Client().Get("/v", "Accept-Language: fr").Expect(200, "fr")
	}
	purge(t, p, 1, "/a")
	purge(t, p, 0, "/a")
	purge(t, p, 2, "/v")
	purge(t, p, 0, "/none")
	p.Client().Get("/a").Expect(200, "/a 2")
	p.Client().Get("/a?q").Expect(200, "/a?q 1")
	p.Client().Get("/v", "Accept-Language: de").Expect(200, "de")
	o.ExpectCount("/v", 3)
	p.Expect("trafficd_cache_purges_total", 4)
	p.Expect("trafficd_cache_purged_total", 3)
	if n := o.Count("/none"); n != 0 {
		t.Errorf("the origin was asked for a purge %d times", n)
	}
}

// A URL is one however its percent-encodings are written (RFC 3986 §6.2.2): it is stored once, and found by who looks it up,
// purges or changes it. The query is left as it is.
func TestPercentEncodingsAreNormal(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) { counted(&o)(e) }})
	o = o2
	c := p.Client()
	spellings := []string{"/x%2f%c3%bC", "/x%2F%C3%BC", "/%78%2F%c3%Bc"}
	times := 0
	expect := func() { // asked for once more, by the first of them
		t.Helper()
		times++
		for _, s := range spellings {
			c.Get(s).Expect(200, fmt.Sprintf("/x%%2F%%C3%%BC %d", times))
		}
	}
	p.WaitServing() // before anything is asked of it by ctl
	expect()
	c.Get("/x/%C3%BC").Expect(200, "/x/%C3%BC 1") // an encoded slash is none
	c.Get("/q?%2f").Expect(200, "/q?%2f 1")
	c.Get("/q?%2F").Expect(200, "/q?%2F 1")
	for _, s := range spellings {
		if r := p.Ctl("cache", "lookup", "http://localhost"+s); r.Code != 0 || !strings.Contains(r.Stdout, "/x%2F%C3%BC") {
			t.Errorf("lookup of %s exits with %d and says %s%s", s, r.Code, r.Stdout, r.Stderr)
		}
		purge(t, p, 1, s)
		expect()
		if r := p.Ctl("cache", "purge", "http://localhost"+s); r.Code != 0 {
			t.Errorf("purge of %s exits with %d and says %s%s", s, r.Code, r.Stdout, r.Stderr)
		}
		expect()
		times++
		c.Do("DELETE", s, "").ExpectStatus(200)
		expect()
	}
	purge(t, p, 1, "/x%2f*")
	expect()
}

// By prefix, with the field and with the star, and by tag, of both fields and of any loop.
func TestPurgePrefixAndTag(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	o = harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/red":  func(e *harness.Exchange) { counted(&o, "Surrogate-Key: red all")(e) },
		"/blue": func(e *harness.Exchange) { counted(&o, "Cache-Tag: blue, all")(e) },
		"":      func(e *harness.Exchange) { counted(&o)(e) },
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "3"))
	targets := []string{"/d/1", "/d/2", "/d/e/3", "/dx", "/red", "/blue", "/*"}
	times := map[string]int{}
	expect := func(again ...string) {
		t.Helper()
		for _, target := range again {
			times[target]++
		}
		for range 4 { // connections, for several loops to have their say
			for _, target := range targets {
				p.Client().Get(target).Expect(200, fmt.Sprintf("%s %d", target, times[target]))
			}
		}
	}
	expect(targets...)
	purge(t, p, 3, "/d/*")
	expect("/d/1", "/d/2", "/d/e/3")
	purge(t, p, 4, "/d", "Purge-Prefix: 1")
	expect("/d/1", "/d/2", "/d/e/3", "/dx")
	purge(t, p, 1, "/*", "Purge-Prefix: 0")
	expect("/*")
	purge(t, p, 1, "/", "Surrogate-Key: red none")
	expect("/red")
	purge(t, p, 1, "/", "Cache-Tag: blue,none")
	expect("/blue")
	purge(t, p, 2, "/", "Surrogate-Key: all")
	expect("/red", "/blue")
	purge(t, p, 7, "/*")
	expect(targets...)
	p.Client().Do("PURGE", "/", "", "Surrogate-Key: red", "Purge-Prefix: 1").ExpectStatus(400)
	p.Client().Do("PURGE", "/", "", "Soft-Purge: perhaps").ExpectStatus(400)
}

// A soft purge leaves the response: the next request validates it, and while the origin is down it may do.
func TestSoftPurge(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/a": func(e *harness.Exchange) {
		if e.Header.Get("If-None-Match") == `"1"` {
			e.Reply(304, "", `ETag: "1"`, "Cache-Control: max-age=600, stale-if-error=600")
			return
		}
		e.Reply(200, "body", `ETag: "1"`, "Cache-Control: max-age=600, stale-if-error=600")
	}})
	for range 2 {
		p.Client().Get("/a").Expect(200, "body")
	}
	o.ExpectCount("/a", 1)
	purge(t, p, 1, "/a", "Soft-Purge: 1")
	p.Client().Get("/a").Expect(200, "body")
	if o.Last("/a").Header.Get("If-None-Match") == "" {
		t.Error("it was not validated")
	}
	p.Client().Get("/a").Expect(200, "body")
	o.ExpectCount("/a", 2)
	purge(t, p, 1, "/a", "Fastly-Soft-Purge: 1")
	o.Down()
	p.Client().Get("/a").Expect(200, "body")
	purge(t, p, 1, "/a")
	p.Client().Get("/a").ExpectStatus(502)
}

// Who is not permitted gets 403, and nothing is purged.
func TestPurgeIsForSome(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) { counted(&o)(e) }}, harness.Set("purge.allow", "192.0.2.0/24,::1"))
	o = o2
	p.Client().Get("/a").Expect(200, "/a 1")
	p.Client().Do("PURGE", "/a", "").ExpectStatus(403)
	p.Client().Do("PURGE", "/", "", "Surrogate-Key: a").ExpectStatus(403)
	p.Client().Get("/a").Expect(200, "/a 1")
	p.Expect("trafficd_cache_purges_total", 0)
}

// A purge wins against what is on its way: who asks after it gets what the origin says after it, and the old
// response is not stored when it comes at last, by URL, by prefix and by tag.
func TestPurgeOutrunsFetch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, target string
		headers      []string
	}{
		{"url", "/a", nil}, {"prefix", "/*", nil}, {"tag", "/", []string{"Surrogate-Key: red"}},
	} {
		for _, begun := range []bool{false, true} { // the response has begun
			t.Run(fmt.Sprint(c.name, " begun ", begun), func(t *testing.T) {
				t.Parallel()
				gate := harness.NewGate()
				var o *harness.Origin
				p, o2 := proxy(t, map[string]harness.Handler{"/a": func(e *harness.Exchange) {
					n := o.Count("/a")
					if n > 1 {
						e.Reply(200, "new", "Cache-Control: max-age=600", "Surrogate-Key: red")
						return
					}
					if begun {
						e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nSurrogate-Key: red\r\nContent-Length: 3\r\n\r\no")
						gate.Wait(e)
						e.Raw("ld")
						return
					}
					gate.Wait(e)
					e.Reply(200, "old", "Cache-Control: max-age=600", "Surrogate-Key: red")
				}})
				o = o2
				first := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
				if gate.WaitReached(t); begun {
					first.ReadHead()
				}
				purge(t, p, 0, c.target, c.headers...)
				p.Client().Get("/a").Expect(200, "new")
				p.Client().Get("/a").Expect(200, "new")
				gate.Open()
				if begun {
					if got := first.ReadRaw(3); got != "old" {
						t.Errorf("who asked before the purge got %q", got)
					}
				} else {
					first.Read("GET").Expect(200, "old")
				}
				p.Client().Get("/a").Expect(200, "new")
				o.ExpectCount("/a", 2)
			})
		}
	}
}

// What a purge has answered holds, whoever dies the moment after it; and of a fetch that goes on in the next server, too.
func TestPurgeSurvivesKill(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{
		"/slow": func(e *harness.Exchange) {
			n := o.Count("/slow")
			if n == 1 {
				gate.Wait(e)
			}
			e.Reply(200, fmt.Sprintf("slow %d", n), "Cache-Control: max-age=600")
		},
		"": func(e *harness.Exchange) { counted(&o, "Cache-Tag: t")(e) },
	})
	o = o2
	for n := range 20 {
		p.Client().Get(fmt.Sprintf("/%d", n)).ExpectStatus(200)
	}
	slow := p.Client().Dial().Send(harness.Request("GET", "/slow", ""))
	o.WaitCount("/slow", 1)
	purge(t, p, 20, "/", "Cache-Tag: t")
	purge(t, p, 0, "/slow")
	old := p.PID(harness.Server)
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old)
	for n := range 20 {
		target := fmt.Sprintf("/%d", n)
		p.Client().Get(target).Expect(200, target+" 2")
	}
	gate.Open()
	slow.Read("GET").Expect(200, "slow 1")
	p.Client().Get("/slow").Expect(200, "slow 2")
	o.ExpectCount("/slow", 2)
}

// What an operator asks: how the cache is, what there is for a URL, and to be rid of it.
func TestCtlCache(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{
		"/v": func(e *harness.Exchange) {
			e.Reply(200, e.Header.Get("Accept-Language"), "Cache-Control: max-age=600", "Vary: Accept-Language", "Surrogate-Key: red blue")
		},
		"": func(e *harness.Exchange) { counted(&o)(e) },
	})
	o = o2
	host := "Host: www.example"
	for _, language := range []string{"de", "fr"} {
		p.Client().Get("/v", host, "Accept-Language: "+language).Expect(200, language)
	}
	for range 3 {
		p.Client().Get("/a?b", host).Expect(200, "/a?b 1")
	}
	ctl := func(exit int, wants []string, args ...string) {
		t.Helper()
		r := p.Ctl(append([]string{"cache"}, args...)...)
		for _, want := range wants {
			if all := r.Stdout + r.Stderr; r.Code != exit || !strings.Contains(all, want) {
				t.Errorf("ctl cache %v: exit code %d, want %d, and %q in\n%s", args, r.Code, exit, want, all)
			}
		}
	}
	p.WaitServing()
	ctl(0, []string{"(3 objects", "2 hits, 3 misses", "hit ratio"}, "stat")
	ctl(0, []string{`"objects": 3`, `"hits": 2`}, "stat", "--json")
	ctl(0, []string{"www.example/v", "red blue", "accept-language", "fresh", "10m0s", "memory"}, "lookup", "http://www.example/v")
	ctl(0, []string{`"uri": "www.example/a?b"`, `"hits": 2`}, "lookup", "HTTP://WWW.example:80/a?b", "--json")
	ctl(1, []string{"nothing is stored"}, "lookup", "http://www.example/a")
	ctl(64, []string{"only http is cached"}, "lookup", "https://www.example/a")
	ctl(64, []string{"a URL is http://host"}, "lookup", "www.example/a?b")
	ctl(64, []string{"a URL is http://host"}, "purge", "www.example/a?b")
	ctl(0, []string{"0 responses purged"}, "purge", "http://www.example/a")
	ctl(0, []string{"0 responses purged"}, "purge", "http://www.example/a?*") // a query may have a *
	ctl(0, []string{"2 responses marked stale"}, "purge", "--soft", "--tag", "red", "--tag", "green")
	ctl(0, []string{"stale (purged)"}, "lookup", "http://www.example/v")
	ctl(0, []string{"1 response purged"}, "purge", "http://www.example/a?b")
	p.Client().Get("/a?b", host).Expect(200, "/a?b 2")
	ctl(0, []string{"3 responses purged"}, "purge", "--prefix", "http://www.example/")
	p.Client().Get("/a?b", host).Expect(200, "/a?b 3")
	ctl(64, []string{"what is to be purged"}, "purge", "http://www.example/a", "--tag", "red")
	ctl(64, []string{"a tag has no blank"}, "purge", "--tag", "a b")
	p.WaitServing(p.Kill(harness.Server).PID) // the one that answers next has the same cache
	ctl(0, []string{"www.example/a?b", "fresh"}, "lookup", "http://www.example/a?b")
}

// What is on disk only is purged, too, by URL, with each of its alternates, by prefix and by tag; and what was purged does not come back when
// everything has died.
func TestPurgeReachesDisk(t *testing.T) {
	t.Parallel()
	var o *harness.Origin
	p, o2 := proxy(t, map[string]harness.Handler{"/v": harness.Reply(200, "v", "Cache-Control: max-age=600", "Vary: Accept"), "": func(e *harness.Exchange) {
		var size int
		fmt.Sscanf(e.Target, "/filler/%d", &size)
		if size == 0 {
			counted(&o, "Cache-Tag: t"+e.Target[1:2])(e)
			return
		}
		e.Reply(200, strings.Repeat("f", 60_000), "Cache-Control: max-age=600")
	}}, harness.Set("cache.size", "4MiB"), harness.Set("cache.disk_size", "64MiB"))
	o = o2
	targets := []string{"/a/1", "/a/2", "/b/1", "/c/1", "/d/1"}
	for _, target := range targets {
		p.Client().Get(target).Expect(200, target+" 1")
	}
	for n := range 3 {
		p.Client().Get("/v", fmt.Sprint("Accept: a/", n)).Expect(200, "v")
	}
	onDisk(p, 8)
	c := p.Client().Dial()
	for n := range 200 { // three times what memory takes
		c.Send(harness.Request("GET", fmt.Sprintf("/filler/%d", n+1), "")).Read("GET").ExpectStatus(200)
	}
	p.WaitServing()
	if r := p.Ctl("cache", "lookup", "http://localhost/a/1"); !strings.Contains(r.Stdout, "on disk that is not in memory") {
		t.Errorf("before the purge: %s%s", r.Stdout, r.Stderr)
	}
	purge(t, p, 1, "/b/1")
	purge(t, p, 3, "/v")
	purge(t, p, 0, "/v")
	if r := p.Ctl("cache", "purge", "--soft", "http://localhost/a/1"); r.Stdout != "0 responses marked stale, 1 on disk only removed\n" {
		t.Errorf("soft purge of what is on disk only: %s%s", r.Stdout, r.Stderr)
	}
	purge(t, p, 1, "/a/*")
	purge(t, p, 1, "/", "Cache-Tag: tc")
	for _, target := range targets[:4] {
		p.Client().Get(target).Expect(200, target+" 2")
	}
	p.Client().Get("/d/1").Expect(200, "/d/1 1")
	purge(t, p, 4, "/", "Cache-Tag: ta, tb, tc")
	p.Kill(harness.Server)
	p.WaitReady()
	for _, target := range targets[:4] {
		p.Client().Get(target).Expect(200, target+" 3")
	}
	p.Client().Get("/d/1").Expect(200, "/d/1 1")
}
