package eventloop

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// A Group is a fixed number of loops, each on its own thread, made once and ended together.
type Group struct {
	loops []*Loop // immutable

	mu      sync.Mutex // guards started; orders Start before the wait of Close
	started bool
	running sync.WaitGroup
}

// NewGroup makes n loops, the i-th with opts(i); opts may be nil. n <= 0: one for each
// processor that Go code may use (runtime.GOMAXPROCS).
func NewGroup(n int, opts func(i int) Options) (*Group, error) {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	g := &Group{loops: make([]*Loop, 0, n)}
	for i := range n {
		o := Options{}
		if opts != nil {
			o = opts(i)
		}
		l, err := New(o)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make loop %d of %d: %w", i, n, err), g.Close())
		}
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Loops returns the loops, in order. The slice is the group's: do not change it.
func (g *Group) Loops() []*Loop { return g.loops }

// Start runs every loop. Further calls, and calls after Close, do nothing.
//
// A loop that ends by itself, with an error, is a broken invariant, and its sockets
// would be served by nobody: it panics.
func (g *Group) Start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started {
		return
	}
	g.started = true
	for _, l := range g.loops {
		g.running.Go(func() {
			runtime.LockOSThread() // never undone: the thread ends with the loop, see Run
			if err := l.Run(); err != nil {
				panic("eventloop: " + err.Error())
			}
		})
	}
}

// Close closes every loop and waits until all have run what they accepted. It must not be
// called from one of them. Further calls only wait.
func (g *Group) Close() error {
	g.mu.Lock()
	g.started = true
	g.mu.Unlock()
	var errs []error
	for _, l := range g.loops {
		errs = append(errs, l.Close())
	}
	g.running.Wait()
	return errors.Join(errs...)
}
