package eventloop_test

import (
	"testing"
	"time"

	"trafficd/eventloop"
)

// A loop counts its handlers by how long they took.
func TestHandlersAreCountedByDuration(t *testing.T) {
	cell := &eventloop.Cell{}
	l := start(t, eventloop.Options{Cell: cell})
	before := cell.Handlers()
	on(t, l, func() {
		for end := time.Now().Add(3 * time.Millisecond); time.Now().Before(end); {
		}
	})
	turns(t, l, 2) // it is told at the end of the turn
	h := cell.Handlers()
	long := uint64(0)
	for i, n := range h {
		if i > 0 && eventloop.Bounds[min(i, eventloop.Buckets-1)-1] >= 2e6 {
			long += n - before[i]
		}
	}
	if long < 1 || h.Count() <= before.Count() {
		t.Errorf("%d handlers of more than 2 ms, of %d", long, h.Count())
	}
	if q := h.Quantile(1); q < 2*time.Millisecond {
		t.Errorf("the longest took %v", q)
	}
}

func TestQuantile(t *testing.T) {
	var none eventloop.Histogram
	if q := none.Quantile(0.5); q != 0 {
		t.Errorf("of none: %v", q)
	}
	h := eventloop.Histogram{0: 990, 9: 10} // up to 1 µs, and between 500 µs and 1 ms
	for q, want := range map[float64]time.Duration{
		0.495: 500 * time.Nanosecond, 0.99: time.Microsecond, 0.995: 750 * time.Microsecond, 1: time.Millisecond,
	} {
		if got := h.Quantile(q); got < want-10 || got > want+10 {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	h.Add(eventloop.Histogram{eventloop.Buckets - 1: 1000})
	if got := h.Quantile(0.999); got != 100*time.Millisecond {
		t.Errorf("in the class without a bound: %v", got)
	}
}
