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

	mu    sync.Mutex     // guards below
	kills map[string]int // by victim
	total int            // processes
	last  []kill         // the latest ones, the newest last
	err   error          // what is wrong with the killing itself
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

// errGone is the end of a demo that has nobody left to kill.
var errGone = errors.New("not one process of the instance is left")

// run kills until ctx is over, or everybody is dead for good. The times between are those of a Poisson process; what
// the kill before has left is hit as well unless that is to be waited for.
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
		if !k.strike(k.opts.victims[k.rng.IntN(len(k.opts.victims))]) && k.i.count() == 0 {
			k.wrong(errGone)
			return
		}
	}
	<-ctx.Done()
}

// strike kills all of a victim, or nobody if one of them is not there: false. If everybody is to be back before the next
// strike it returns when they are dead: until then they would be taken for those who are back.
func (k *killer) strike(v victim) bool {
	var all []*proc.Process
	defer func() {
		for _, p := range all {
			p.Release()
		}
	}()
	for _, target := range v {
		p, err := k.i.find(target)
		if err != nil {
			if !errors.Is(err, errNobody) {
				k.wrong(err)
			}
			return false
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
	if len(done.pids) == 0 {
		return false
	}
	k.note(done)
	for _, p := range all {
		if k.opts.waitReady {
			<-p.Done() // nothing survives SIGKILL
		}
	}
	return true
}

func (k *killer) wrong(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func (k *killer) note(d kill) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kills[d.victim]++
	k.total += len(d.pids)
	k.last = append(k.last, d)
	k.last = k.last[max(0, len(k.last)-lastKills):]
}
