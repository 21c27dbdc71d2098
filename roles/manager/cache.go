package manager

import (
	"context"
	"errors"
	"net/http"

	"trafficd/roles/internal/cacheview"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/stats"
)

// What is asked of the cache is asked of the server that serves: nobody else has it open.

func (c *controller) cacheStats(w http.ResponseWriter, r *http.Request) error {
	a, err := c.askCache(r, cacheview.Question{Ask: cacheview.Stat})
	if err != nil {
		return err
	}
	var snap *stats.Snapshot
	if err := c.do(r, func() { snap = c.m.estate.region.Snapshot() }); err != nil {
		return err
	}
	control.Write(w, withCounters(a.Stats, snap.Metrics))
	return nil
}

// withCounters adds what the instance counts, over all servers it has had.
func withCounters(s *cacheview.Stats, n map[string]uint64) *cacheview.Stats {
	s.Hits, s.Misses, s.Stale = n["cache_lookups_total.hit"], n["cache_lookups_total.miss"], n["cache_lookups_total.stale"]
	if all := s.Hits + s.Misses + s.Stale; all > 0 {
		s.HitRatio = float64(s.Hits) / float64(all)
	}
	if d := s.Disk; d != nil {
		d.Objects, d.Hits, d.Misses = n["cache_disk_objects"], n["cache_disk_lookups_total.hit"], n["cache_disk_lookups_total.miss"]
		d.Reads, d.Writes, d.Errors = n["cache_disk_reads_total"], n["cache_disk_writes_total"], n["cache_disk_errors_total"]
	}
	return s
}

func (c *controller) cacheLookup(w http.ResponseWriter, r *http.Request) error {
	url := r.URL.Query().Get("url")
	if url == "" {
		return control.Errorf(http.StatusBadRequest, exitcode.Usage, "url is missing")
	}
	a, err := c.askCache(r, cacheview.Question{Ask: cacheview.Lookup, URL: url})
	if err != nil {
		return err
	}
	control.Write(w, a.Stored)
	return nil
}

func (c *controller) cachePurge(w http.ResponseWriter, r *http.Request) error {
	var b control.CachePurge
	if err := control.Read(w, r, &b); err != nil {
		return err
	}
	q := cacheview.Question{Ask: cacheview.Purge, URL: b.URL, Prefix: b.Prefix, Tags: b.Tags, Soft: b.Soft}
	if err := q.Check(); err != nil {
		return control.Errorf(http.StatusBadRequest, exitcode.Usage, "%v", err)
	}
	a, err := c.askCache(r, q)
	if err != nil {
		return err
	}
	control.Write(w, a.Purged)
	return nil
}

// askCache asks the active server until it has the answer.
func (c *controller) askCache(r *http.Request, q cacheview.Question) (cacheview.Answer, error) {
	var none cacheview.Answer
	var l line
	if err := c.do(r, func() {
		if u := c.m.active; u.serves() {
			l = u.line
		}
	}); err != nil {
		return none, err
	}
	if l == nil {
		return none, control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "no server is ready")
	}
	for ask := q.Ask; ; {
		a, err := askOnce(r.Context(), l, q)
		if err != nil {
			return none, err
		}
		switch {
		case a.Error != nil && a.Error.Usage:
			return none, control.Errorf(http.StatusBadRequest, exitcode.Usage, "%s", a.Error.Text)
		case a.Error != nil:
			return none, control.Errorf(http.StatusConflict, exitcode.Failed, "%s", a.Error.Text)
		case a.Answers(ask):
			return a, nil
		case a.Ticket == 0:
			return none, control.Errorf(http.StatusBadGateway, exitcode.Bug, "the server's answer is none to %s", ask)
		}
		q = cacheview.Question{Ask: cacheview.Result, Ticket: a.Ticket}
	}
}

// askOnce is one message there and back. What a server that dies has begun is begun again by whoever asked: a purge may
// be done twice.
func askOnce(ctx context.Context, l line, q cacheview.Question) (a cacheview.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	reply, err := l.Call(ctx, opCache, q)
	if err != nil {
		var refused *link.RemoteError
		if errors.As(err, &refused) {
			return a, control.Errorf(http.StatusConflict, exitcode.Failed, "the server refused: %s", refused.Text)
		}
		return a, control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "the server went away before it had answered")
	}
	defer reply.Close()
	return a, reply.Decode(&a)
}
