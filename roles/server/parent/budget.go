package parent

import "sync"

// A budget bounds how many requests are sent more than once: in an outage every client would otherwise cost the origin
// as many requests as there are attempts, just when it can bear the least. Within ten seconds a share of the
// requests sent may be repeated, and a few always: a share of little is nothing.
type budget struct {
	mu      sync.Mutex // guards what follows
	seconds [windowSeconds]second
}

type second struct {
	at          int64 // since the clock's beginning
	sent, again int
}

const (
	windowSeconds = 10
	freeRepeats   = 10 // within the window, whatever was sent
)

// sent counts a request that is sent for the first time.
func (b *budget) sent(now int64) {
	b.mu.Lock()
	b.slotLocked(now).sent++
	b.mu.Unlock()
}

// spend takes one repeat out of the budget, or reports that there is none left. percent of the requests may be repeated.
func (b *budget) spend(now int64, percent int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	here := b.slotLocked(now)
	sent, again := 0, 0
	for i := range b.seconds {
		if s := &b.seconds[i]; s.at > here.at-windowSeconds && s.at <= here.at {
			sent, again = sent+s.sent, again+s.again
		}
	}
	if percent == 0 || again >= freeRepeats && again*100 >= sent*percent {
		return false
	}
	here.again++
	return true
}

func (b *budget) slotLocked(now int64) *second {
	at := now / 1e9
	s := &b.seconds[at%windowSeconds]
	if s.at != at {
		*s = second{at: at}
	}
	return s
}
