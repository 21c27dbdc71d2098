package witness

import (
	"context"
	"time"
)

// pacer says how long to wait so that bytes go at a rate.
type pacer struct {
	rate  int // bytes a second; 0: no limit
	begun time.Time
	bytes int64
}

func newPacer(rate int) *pacer { return &pacer{rate: rate, begun: time.Now()} }

// owed is how much too early it is after n bytes more.
func (p *pacer) owed(n int64) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	p.bytes += n
	due := time.Duration(float64(p.bytes) / float64(p.rate) * float64(time.Second))
	return due - time.Since(p.begun)
}

// pieceSize is how much to send at a time: what the rate gives in some 10 ms,
// and never more than a buffer.
func pieceSize(rate int) int {
	if rate <= 0 {
		return 16 << 10
	}
	return min(max(rate/100, 1), 16<<10)
}

// pause waits, or not if ctx is over: at the end everybody hurries.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 || ctx.Err() != nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
