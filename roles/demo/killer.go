package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"trafficd/proc"
)

// killer kills at random.
type killer struct {
	i    *instance  // immutable
	opts options    // immutable
	rng  *rand.Rand // of run's goroutine

	mu     sync.Mutex     // guards below
	kills  map[string]int // by victim
	total  int            // processes
	misses int            // times that nobody was there
	last   []kill         // the latest ones, the newest last
	err    error          // why one could not be killed, for another reason than that
}

// kill is one that happened.
type kill struct {
	at     time.Time
	victim string
	pids   []int
}

// lastKills is how many are remembered.
const lastKills = 5

func newKiller(i *instance, o options) *killer {
	return &killer{i: i, opts: o, rng: rand.New(rand.NewPCG(o.seed, 1)), kills: map[string]int{}}
}

// run kills until ctx is over. The times between are those of a Poisson process:
// a kill does not know of the one before, and may well hit what that has left.
func (k *killer) run(ctx context.Context) {
	for len(k.opts.victims) > 0 {
		t := time.NewTimer(time.Duration(k.rng.ExpFloat64() * float64(k.opts.every)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		if k.opts.waitReady && k.i.waitReady(ctx) != nil {
			return
		}
		k.strike(k.opts.victims[k.rng.IntN(len(k.opts.victims))])
	}
}

// strike kills all of a victim, or nobody if one of them is not there.
func (k *killer) strike(v victim) {
	var all []*proc.Process
	defer func() {
		for _, p := range all {
			p.Release()
		}
	}()
	for _, target := range v {
		p, err := k.i.find(target)
		if err != nil {
			k.missed(err)
			return
		}
		all = append(all, p)
	}
	done := kill{at: time.Now(), victim: v.String()}
	for _, p := range all {
		// First all signals, then everything else: they are to die together.
		if err := p.Signal(syscall.SIGKILL); err == nil {
			done.pids = append(done.pids, p.PID())
		}
	}
	k.done(done)
}

func (k *killer) missed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.misses++
	if !errors.Is(err, errNobody) {
		k.err = err
	}
}

func (k *killer) done(d kill) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(d.pids) == 0 {
		k.misses++
		return
	}
	k.kills[d.victim]++
	k.total += len(d.pids)
	k.last = append(k.last, d)
	k.last = k.last[max(0, len(k.last)-lastKills):]
}
