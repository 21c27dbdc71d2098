package ctl

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"trafficd/roles/internal/cacheview"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
)

// cached is an instance whose manager answers questions about the cache.
func cached(t *testing.T, asked *control.CachePurge) *instance {
	i := newInstance(t)
	i.answers(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == control.PathCache:
			w.Write([]byte(`{"memory":{"objects":3,"bytes":2048,"capacity":4194304,"protected":1024,"evictions":5,"segments":62},"disk":{"objects":9},"hits":3,"misses":1,"hit_ratio":0.75}`))
		case r.URL.Path == control.PathCacheLookup && r.URL.Query().Get("url") == "http://h/a?b":
			w.Write([]byte(`{"uri":"h/a?b","alternates":[
				{"status":200,"age_seconds":61.5,"lifetime_seconds":600,"fresh":true,"size":1500,"tier":"memory","protected":true,"tags":["a","b"],"vary":["accept-encoding: gzip"]},
				{"status":404,"soft_purged":true,"size":0,"tier":"memory and disk","part":"0-9/20","tags":["\u001b[31m"]}],"disk":true}`))
		case r.URL.Path == control.PathCacheLookup:
			w.Write([]byte(`{"uri":"h/none","alternates":[]}`))
		case r.URL.Path == control.PathCachePurge:
			if err := control.Read(w, r, asked); err != nil {
				control.Refuse(w, err)
				return
			}
			a := control.CachePurged{Purged: 2, Memory: 1, Disk: 1, Soft: asked.Soft}
			b, _ := json.Marshal(a)
			w.Write(b)
		}
	})
	return i
}

func TestCacheStat(t *testing.T) {
	i := cached(t, new(control.CachePurge))
	out, code, err := i.run("cache", "stat")
	for _, want := range []string{"75.0 %", "2.0 KiB of 4.0 MiB", "3 objects", "1.0 KiB protected", "5 of 62 segments", "9 objects"} {
		if !strings.Contains(out, want) || code != exitcode.OK {
			t.Errorf("%q is missing: exit code %v, %v\n%s", want, code, err, out)
		}
	}
	if out, _, err := i.run("cache", "stat", "--json"); err != nil || !json.Valid([]byte(out)) || !strings.Contains(out, `"hit_ratio": 0.75`) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCacheStatOfADisk: that there is none and that it has failed are two things.
func TestCacheStatOfADisk(t *testing.T) {
	for _, c := range []struct {
		disk *cacheview.Disk
		want string
	}{
		{nil, "disk         none"},
		{&cacheview.Disk{Trouble: &cacheview.Trouble{Off: true, Since: time.Date(2026, 11, 23, 1, 2, 3, 0, time.Local), Reason: "no\tindex"}},
			"disk         off since 2026-11-23 01:02:03: no index"},
		{&cacheview.Disk{Objects: 7, Trouble: &cacheview.Trouble{Reason: "slow"}}, "7 objects"},
		{&cacheview.Disk{Trouble: &cacheview.Trouble{Reason: "slow"}}, "  failing    since 0001-"},
	} {
		var b strings.Builder
		if err := writeCacheStats(&b, &control.CacheStats{Disk: c.disk}); err != nil || !strings.Contains(b.String(), c.want) {
			t.Errorf("%q is missing: %v\n%s", c.want, err, b.String())
		}
	}
}

func TestCacheLookup(t *testing.T) {
	i := cached(t, new(control.CachePurge))
	out, code, err := i.run("cache", "lookup", "http://h/a?b")
	for _, want := range []string{"h/a?b", "200", "1.5 KiB", "1m1s", "10m0s", "fresh", "a b", "accept-encoding: gzip", "stale (purged)", "bytes 0-9/20", "memory and disk", "on disk that is not in memory"} {
		if !strings.Contains(out, want) || code != exitcode.OK {
			t.Errorf("%q is missing: exit code %v, %v\n%s", want, code, err, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("a tag moves the cursor: %q", out)
	}
	if out, code, err := i.run("cache", "lookup", "http://h/none", "--json"); code != exitcode.Failed || !strings.Contains(err.Error(), "nothing is stored") || !strings.Contains(out, `"alternates": []`) {
		t.Errorf("exit code %v, %v\n%s", code, err, out)
	}
}

func TestCachePurge(t *testing.T) {
	var asked control.CachePurge
	i := cached(t, &asked)
	for _, c := range []struct{ args, url, prefix, tags, want string }{
		{"http://h/a", "http://h/a", "", "", "2 responses purged, 1 of them on disk only"},
		{"--soft http://h/a", "http://h/a", "", "", "1 response marked stale, 1 on disk only removed"},
		{"--prefix http://h/a", "", "http://h/a", "", "2 responses purged"},
		{"http://h/a/*", "", "http://h/a/*", "", "2 responses purged"},
		{"--prefix http://h/a/*", "", "http://h/a/*", "", "2 responses purged"},
		{"http://h/a?b*", "http://h/a?b*", "", "", "2 responses purged"},
		{"--tag a --tag b", "", "", "a b", "2 responses purged"},
		{"--json --tag a", "", "", "a", `"purged": 2`},
	} {
		asked = control.CachePurge{}
		out, code, err := i.run(append([]string{"cache", "purge"}, strings.Fields(c.args)...)...)
		if code != exitcode.OK || !strings.Contains(out, c.want) || asked.URL != c.url || asked.Prefix != c.prefix || strings.Join(asked.Tags, " ") != c.tags {
			t.Errorf("%s: exit code %v, %v; asked %+v\n%s", c.args, code, err, asked, out)
		}
	}
}
