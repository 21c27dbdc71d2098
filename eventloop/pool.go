package eventloop

import (
	"errors"
	"sync"
)

// ErrPoolFull is returned by [Pool.Submit] when the queue is full: the caller sheds the load or
// tries again later, since to wait would block its loop.
var ErrPoolFull = errors.New("pool is full")

// defaultQueue is how much work can wait, for each worker of [NewPool].
const defaultQueue = 128

// A Pool runs what can block (disk, name lookup), so that no loop does: a fixed number
// of goroutines, a bounded queue before them, results back to a loop by Post.
type Pool struct {
	jobs    chan job // closed by Close
	workers sync.WaitGroup

	mu     sync.RWMutex // orders sends on jobs before its close; guards closed
	closed bool
}

// A job is work and where its end is reported.
type job struct {
	loop *Loop
	work func()
	done func()
}

// NewPool starts n workers (at least one) with room for 128 waiting jobs each.
func NewPool(n int) *Pool {
	n = max(n, 1)
	return NewPoolSize(n, n*defaultQueue)
}

// NewPoolSize starts n workers (at least one) with room for queue waiting jobs.
func NewPoolSize(n, queue int) *Pool {
	p := &Pool{jobs: make(chan job, max(queue, 0))}
	for range max(n, 1) {
		p.workers.Go(p.run)
	}
	return p
}

// Submit has a worker run work, and then l run done. Either l or done may be nil: nobody
// is told. It never blocks: it returns [ErrPoolFull] if the queue is full and
// [ErrClosed] once the pool is closed. What it accepted is run; done is dropped only if l
// has been closed by then. Jobs start in order, but end in any. Any goroutine.
func (p *Pool) Submit(l *Loop, work func(), done func()) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return ErrClosed
	}
	select {
	case p.jobs <- job{loop: l, work: work, done: done}:
		return nil
	default:
		return ErrPoolFull
	}
}

// Close accepts nothing more and waits until every accepted job has been worked off and
// posted. It must not be called from a worker, and closing the pool before its loops
// loses no result. Further calls only wait.
func (p *Pool) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.jobs)
	}
	p.mu.Unlock()
	p.workers.Wait()
}

// run is a worker. A panic of the work is not recovered, as on a loop.
func (p *Pool) run() {
	for j := range p.jobs {
		j.work()
		if j.loop != nil && j.done != nil {
			j.loop.Post(j.done)
		}
	}
}
