package manager

import (
	"errors"
	"sync"
	"time"

	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
)

// pump is the manager's part of the connection queue: while no server serves, it does what
// queue.Policy decides. It has a goroutine of its own, since its work is done in small
// steps at a high rate; serving takes it off, and does not return while a step runs.
type pump struct {
	mu        sync.Mutex
	on        bool // guarded by mu: a server serves, so the pump is at rest
	since     time.Time
	fifo      *queue.FIFO
	listeners []*queue.Listener // the estate's, which closes no view before configure has replaced it here
	policy    queue.Policy
	refuser   *queue.Refuser
	refusers  []*queue.Refuser // all there ever were, one more for each change of Retry-After
	limits    config.Queue
	row       *stats.Row
	reason    queue.Reason
	expired   uint64 // since this process began

	wake chan struct{} // has room for one
	over chan struct{}
	done chan struct{}
}

// The pump's clock. Connections that come while nobody serves wait for milliseconds at most
// beyond what the policy says; a pump at rest looks only for the sake of the metrics.
const (
	pumpBusy = 10 * time.Millisecond
	pumpRest = time.Second
	batch    = 64 // connections moved in one step, a fraction of a millisecond each
)

func newPump() *pump {
	p := &pump{
		since: time.Now(), reason: queue.Waiting, row: new(stats.Row),
		wake: make(chan struct{}, 1), over: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	return p
}

// configure gives the pump its settings and what it works on.
func (p *pump) configure(c config.Queue, e *estate) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners, p.row = e.listeners, e.region.Manager()
	e.closeStale()
	p.policy = queue.Policy{AcceptAfter: c.AcceptAfter, MaxWait: c.MaxWait}
	if p.refuser == nil || p.limits.RetryAfter != c.RetryAfter {
		// The old ones finish their farewells.
		p.refuser = queue.NewRefuser(queue.RefuserOptions{RetryAfter: c.RetryAfter})
		p.refusers = append(p.refusers, p.refuser)
	}
	if p.fifo != nil && p.limits.Limit == c.Limit {
		p.limits = c
		return nil
	}
	p.limits = c
	if _, ok := e.set.Get(heritage.QueueIn); !ok {
		return nil // not made yet
	}
	f, err := e.fifo(c.Limit)
	if err != nil {
		return err
	}
	if p.fifo != nil {
		err = p.fifo.Close()
	}
	p.fifo = f
	return err
}

// serving says whether a server serves. When it returns the pump is at rest, or has been
// set going.
func (p *pump) serving(on bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on == on {
		return
	}
	p.on, p.since = on, now
	if on {
		p.reason = queue.ServerReady
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pump) run() {
	defer close(p.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.step(time.Now()))
	}
}

// step does one thing and returns how soon to look again.
func (p *pump) step(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fifo == nil {
		return pumpBusy
	}
	defer p.measure()
	s := p.state(now)
	do, reason := p.policy.Decide(s)
	p.reason = reason
	switch do {
	case queue.Stop:
		return pumpRest
	case queue.Accept:
		n, err := queue.Collect(p.fifo, p.listeners, batch, p.overflow)
		p.row.Add(stats.QueueAccepted, uint64(n))
		if n == batch && err == nil {
			return 0
		}
	case queue.Refuse:
		if p.refuseOldest() {
			return 0
		}
	}
	return pumpBusy
}

func (p *pump) state(now time.Time) queue.State {
	s := queue.State{ServerReady: p.on, Without: now.Sub(p.since), Limit: p.fifo.Limit()}
	if p.on {
		return s
	}
	for _, l := range p.listeners {
		if b, err := l.Backlog(); err == nil {
			s.Backlog = s.Backlog.Fuller(b)
		}
	}
	// An error is that nothing waits, or that nothing can be known.
	s.Len, _ = p.fifo.Len()
	if e, err := p.fifo.Peek(); err == nil {
		s.Oldest = e.Age(queue.Monotonic())
	}
	return s
}

// refuseOldest answers the connection that has waited longest, if it has for too long.
func (p *pump) refuseOldest() bool {
	now := queue.Monotonic()
	e, fd, err := p.fifo.TakeOlder(now - int64(p.policy.MaxWait))
	if err != nil {
		return false
	}
	p.row.Inc(stats.QueueExpired)
	p.row.Add(stats.QueueWait, uint64(e.Age(now)))
	p.expired++
	p.refuser.Refuse(fd)
	return true
}

// overflow gets a connection that was accepted and found no room after all.
func (p *pump) overflow(fd int) {
	p.row.Inc(stats.QueueOverflow)
	p.refuser.Refuse(fd)
}

func (p *pump) measure() {
	if n, err := p.fifo.Len(); err == nil {
		p.row.Set(stats.QueueDepth, uint64(n))
	}
}

// pumpStatus is the pump as an operator sees it.
type pumpStatus struct {
	depth, limit int
	reason       queue.Reason
	expired      uint64
}

func (p *pump) status() pumpStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := pumpStatus{limit: p.limits.Limit, reason: p.reason, expired: p.expired}
	if p.fifo != nil {
		s.depth, _ = p.fifo.Len()
	}
	return s
}

// close ends the pump. What waits in the FIFO waits on.
func (p *pump) close() error {
	close(p.over)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.refusers {
		r.Close()
	}
	var err error
	if p.fifo != nil {
		err = p.fifo.Close()
	}
	p.row.Set(stats.QueueDepth, 0)
	if err != nil {
		return errors.Join(errors.New("close connection queue"), err)
	}
	return nil
}
