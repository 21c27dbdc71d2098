package server

import (
	"bufio"
	"net/http"
	"sync/atomic"
	"testing"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// bog is a tier below the cache in which every purge by URL is stuck.
type bog struct {
	in   atomic.Int32
	most atomic.Int32
	out  chan struct{}
}

func (*bog) Published(cache.Key, []byte, cache.ID, int64)    {}
func (*bog) Expect(cache.Key)                                {}
func (*bog) Has(cache.Key) bool                              { return false }
func (*bog) Count(cache.Key) int                             { return 0 }
func (*bog) Settle() bool                                    { return true }
func (*bog) Purge(func(cache.Key, []byte, []byte) bool) bool { return true }
func (b *bog) Removed(cache.Key) {
	b.most.Store(max(b.most.Load(), b.in.Add(1)))
	<-b.out
	b.in.Add(-1)
}

// As many purges as somebody asks for: few are under way, some wait, the others are to come again, and requests are served
// meanwhile.
func TestPurgesAreBounded(t *testing.T) {
	e := startEngine(t, 1, nil)
	b := &bog{out: make(chan struct{})}
	e.store.SetLower(b)
	const request = "PURGE / HTTP/1.1\r\nHost: h\r\n\r\n"
	var ins []*bufio.Reader
	refused := 0
	for refused == 0 && len(ins) < 1000 {
		c := e.dial()
		e.say(c, request)
		ins = append(ins, bufio.NewReader(c))
		waitFor(t, "the purge to wait or be refused", func() bool {
			refused = e.count(stats.Responses5xx)
			return refused > 0 || e.count(stats.CachePurges) == len(ins)
		})
	}
	resp, err := http.ReadResponse(ins[len(ins)-1], nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("purge %d: got %v, %v", len(ins), resp, err)
	}
	if resp, _ := e.get(e.client(), "/"); resp.StatusCode != 200 {
		t.Errorf("a request meanwhile: got %d", resp.StatusCode)
	}
	close(b.out)
	for i, in := range ins[:len(ins)-1] {
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("purge %d: got %v, %v", i, resp, err)
		}
	}
	if n := b.most.Load(); n > 4 {
		t.Errorf("%d were under way at a time", n)
	}
}
