package demo

import (
	"context"
	"sync"
	"time"

	"trafficd/roles/internal/control"
)

// What the instance itself says of its custody. It is shown beside what the
// clients say, and decides nothing.
var shownCounters = []struct{ name, label string }{
	{"crashes_masked_total", "crashes masked"},
	{"requests_resumed_total", "requests resumed"},
	{"requests_lost_total", "requests lost"},
	{"connections_adopted_total", "connections adopted"},
	{"connections_lost_total", "connections lost"},
}

// counters are the instance's counters as they were last heard.
type counters struct {
	mu     sync.Mutex // guards below
	values map[string]uint64
}

// follow asks twice a second. Nobody may be there to answer: then the last values
// stand.
func (c *counters) follow(ctx context.Context, client *control.Client) {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		c.read(ctx, client)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *counters) read(ctx context.Context, client *control.Client) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := client.Stats(ctx, "")
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values = s.Metrics
}

// get is false for a counter that the instance does not have.
func (c *counters) get(name string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[name]
	return v, ok
}
