package manager

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"trafficd/roles/internal/cacheview"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/link"
)

// What the server says of its cache is passed on; an answer that takes time is asked for again by its ticket.
func TestCacheOverControl(t *testing.T) {
	story(t, "", func(w *world) {
		if r := w.ask("GET", "/v1/cache", ""); r.Code != 503 {
			t.Errorf("without a server: status %d", r.Code)
		}
		w.server(1).serves()
		var asked []cacheview.Question
		w.server(1).cache = func(q cacheview.Question) (a cacheview.Answer) {
			asked = append(asked, q)
			switch {
			case q.Ask == cacheview.Stat:
				a.Stats = &cacheview.Stats{Memory: cacheview.Memory{Objects: 7}, Disk: &cacheview.Disk{}}
			case q.Ask == cacheview.Lookup && q.URL == "h/a":
				a.Stored = &cacheview.Stored{URI: "h/a"}
			case q.Ask == cacheview.Lookup:
				a.Error = &cacheview.Problem{Text: "no such URL", Usage: true}
			case q.Ask == cacheview.Purge && q.URL == "lost":
			case q.Ask == cacheview.Purge && q.URL == "never":
				a.Error = &cacheview.Problem{Text: "another has it"}
			case q.Ask == cacheview.Purge, q.Ask == cacheview.Result && q.Ticket < 3:
				a.Ticket = q.Ticket + 1
			default:
				a.Purged = &cacheview.Purged{Purged: 5}
			}
			return a
		}
		for _, tt := range []struct {
			method, target, body string
			status               int
			contains             string
		}{
			{"GET", "/v1/cache", "", 200, `"objects":7`},
			{"GET", "/v1/cache/lookup?url=h%2Fa", "", 200, `"uri":"h/a"`},
			{"GET", "/v1/cache/lookup?url=x", "", 400, "no such URL"},
			{"GET", "/v1/cache/lookup", "", 400, "url is missing"},
			{"POST", "/v1/cache/purge", `{"tags":["a","b"],"soft":true}`, 200, `"purged":5`},
			{"POST", "/v1/cache/purge", `{"url":"never"}`, 409, "another has it"},
			{"POST", "/v1/cache/purge", `{"url":"lost"}`, 502, "none to purge"},
			{"POST", "/v1/cache/purge", `{}`, 400, "a purge is by one URL"},
			{"POST", "/v1/cache/purge", `{"url":"a","tags":["b"]}`, 400, "a purge is by one URL"},
			{"POST", "/v1/cache/purge", `{"uri":"a"}`, 400, "unknown field"},
			{"GET", "/v1/cache/purge", "", 405, "by POST"},
		} {
			r := w.ask(tt.method, tt.target, tt.body)
			if r.Code != tt.status || !strings.Contains(r.Body.String(), tt.contains) {
				t.Errorf("%s %s %s: status %d, want %d; %s", tt.method, tt.target, tt.body, r.Code, tt.status, r.Body)
			}
		}
		tickets := 0
		for _, q := range asked {
			if q.Ask == cacheview.Result {
				tickets++
			}
			if q.Ask == cacheview.Purge && len(q.Tags) > 0 && (strings.Join(q.Tags, " ") != "a b" || !q.Soft) {
				t.Errorf("the server was asked for %+v", q)
			}
		}
		if tickets != 3 {
			t.Errorf("the server was asked for a result %d times, want 3", tickets)
		}
		for _, tt := range []struct {
			err  error
			exit exitcode.Code
		}{{io.EOF, exitcode.TryAgain}, {&link.RemoteError{Text: "too many"}, exitcode.Failed}} {
			w.server(1).answers = map[string]error{opCache: tt.err}
			r := w.ask("POST", "/v1/cache/purge", `{"url":"a"}`)
			var e struct{ Error control.Error }
			if err := json.Unmarshal(r.Body.Bytes(), &e); err != nil || e.Error.Exit != tt.exit || r.Code < 400 {
				t.Errorf("%v: %d %s", tt.err, r.Code, r.Body)
			}
		}
	})
}

func TestWithCounters(t *testing.T) {
	s := withCounters(&cacheview.Stats{Disk: &cacheview.Disk{}}, map[string]uint64{
		"cache_lookups_total.hit": 6, "cache_lookups_total.miss": 3, "cache_lookups_total.stale": 3, "cache_disk_objects": 9,
	})
	if s.HitRatio != 0.5 || s.Disk.Objects != 9 {
		t.Errorf("got %+v", s)
	}
	if s := withCounters(&cacheview.Stats{}, nil); s.HitRatio != 0 {
		t.Errorf("got %+v", s)
	}
}
