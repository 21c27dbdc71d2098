package eventloop

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrClosed is returned for what a loop that has ended cannot do any more.
	ErrClosed = errors.New("closed")
	// ErrRunning is returned by [Loop.Run] when it has been called before.
	ErrRunning = errors.New("loop is running or has run")
)

const (
	// idleTick is the longest sleep, so that Iterations moves.
	idleTick = time.Second
	// defaultMaxEvents bounds a batch: large enough that the system call is spread
	// thin, small enough that a turn stays short.
	defaultMaxEvents = 256
	// wallAge is how long the distance from monotonic to wall time is trusted.
	wallAge = int64(100 * time.Millisecond)
)

// Options configure a [Loop]. The zero value works.
type Options struct {
	// Name is for errors and for whoever asks for [Loop.Name]. It may be empty.
	Name string
	// Cell is where progress is published; it may lie in shared memory, which must then
	// stay mapped until Run has returned. Nil: the loop makes its own.
	Cell *Cell
	// MaxEvents is the largest batch of events fetched at once. 0: 256.
	MaxEvents int
}

// A Loop is a thread's worth of state machines. See the package documentation.
type Loop struct {
	name string // immutable
	cell *Cell  // immutable; written by the loop only

	clock func() int64 // immutable; CLOCK_MONOTONIC in ns
	epoch func() int64 // immutable; wall minus monotonic in ns

	// Owned by the loop; before Run by the goroutine that sets it up.
	now      int64 // ns; see Now
	turnFrom int64 // ns; when the batch of this turn was fetched
	epoll    epoll
	fetched  int     // events of the batch in epoll.events
	turn     int     // how many of them have had their turn, or have it now
	places   []place // by descriptor number
	wheel    wheel
	running  bool  // Run has taken over and has not ended
	ended    bool  // the kernel's objects are closed
	closing  bool  // the mailbox is closed and empty
	more     bool  // due timers were left for the next turn
	worked   bool  // the last turn ran something
	wallFrom int64 // ns; reading of now at which wallOff was taken; 0: never
	wallOff  int64 // ns; wall minus monotonic

	// Owned by the loop: the words of cell, which gets copies of them once a turn. Kept apart, since
	// memory that others can write to is not to be trusted with the loop's own books.
	iterations, events, posts, fired, sleeps, stale uint64
	busy, maxLag, maxHandler                        uint64
	took                                            Histogram
	tookMore                                        uint32 // classes in which the cell lacks something
	watches                                         int

	// Written by posters: on a cache line of their own, away from the loop's.
	_       [64]byte
	mailbox mailbox
	waker   waker
	_       [64]byte

	owner owner // atomic

	life  sync.Mutex // guards phase
	phase phase
}

// A phase is how far a loop is in its life. It is run once or, closed before that, only
// runs what was posted.
type phase uint8

const (
	phaseNew    phase = iota
	phaseRan          // Run owns the kernel's objects, or did
	phaseUnused       // closed before Run
)

// New makes a loop. It holds two descriptors until Run returns, or until Close if it is
// never run.
func New(o Options) (*Loop, error) {
	if o.MaxEvents <= 0 {
		o.MaxEvents = defaultMaxEvents
	}
	if o.Cell == nil {
		o.Cell = new(Cell)
	}
	c := processClock()
	l := &Loop{name: o.Name, cell: o.Cell, clock: c.monotonic, epoch: c.epoch}
	if err := l.open(o.MaxEvents); err != nil {
		return nil, fmt.Errorf("make loop %q: %w", o.Name, err)
	}
	l.now = l.clock()
	l.wheel.now = l.now / int64(Tick)
	l.resumeCell()
	return l, nil
}

// open gets what the loop needs of the kernel.
func (l *Loop) open(maxEvents int) (err error) {
	if l.epoll, err = newEpoll(maxEvents); err != nil {
		return err
	}
	if l.waker.fd, err = newWaker(); err != nil {
		return errors.Join(err, l.epoll.close())
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeFD}
	if err = l.epoll.controlRaw(unix.EPOLL_CTL_ADD, l.waker.fd, &ev); err != nil {
		return errors.Join(fmt.Errorf("add wake-up descriptor to epoll: %w", err), l.waker.close(), l.epoll.close())
	}
	return nil
}

// Name returns the name given in [Options]. Any goroutine.
func (l *Loop) Name() string { return l.name }

// Cell returns the loop's progress counters. Any goroutine.
func (l *Loop) Cell() *Cell { return l.cell }

// Run makes the calling goroutine the loop: it locks it to its OS thread and returns
// after Close, nil if nothing went wrong. A loop is run once.
//
// After Close the event handlers of the present turn are still called, then every task that
// was accepted is run, then Run returns. On a loop that was closed before, Run only
// runs the tasks. A panic of a handler passes through Run, and what was accepted by
// then is not run.
//
// The thread is unlocked when Run returns. A caller that changed the thread itself (in a
// task) locks it before Run and lets its goroutine end, and the runtime ends the thread.
func (l *Loop) Run() error {
	switch l.startRun() {
	case phaseRan:
		return fmt.Errorf("run loop %q: %w", l.name, ErrRunning)
	case phaseUnused:
		l.runPosts()
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.begin()
	defer l.end()
	l.runPosts()
	l.account()
	for !l.closing {
		n, err := l.fetch()
		if err != nil {
			return fmt.Errorf("run loop %q: %w", l.name, err)
		}
		l.dispatch(n)
		l.runPosts()
		if !l.closing {
			l.runTimers()
		}
		l.account()
	}
	return nil
}

// startRun enters phaseRan and returns the phase before it.
func (l *Loop) startRun() phase {
	l.life.Lock()
	defer l.life.Unlock()
	before := l.phase
	l.phase = phaseRan
	return before
}

// Close ends the loop: Post accepts nothing more, and Run returns when what was accepted has
// run. It does not wait, and may be called from a handler. Further calls do nothing. A
// loop that is not running gives its descriptors back at once. Any goroutine.
func (l *Loop) Close() error {
	if !l.mailbox.close() {
		return nil
	}
	l.life.Lock()
	defer l.life.Unlock()
	if l.phase == phaseNew {
		l.phase = phaseUnused
		return l.closeKernel()
	}
	return l.waker.wake()
}

// Post runs f on the loop, after everything this goroutine has posted before and not from
// within this call. It reports whether f was accepted: false once the loop is closed. What was
// accepted is run (if Run is ever called). It never blocks. Any goroutine.
func (l *Loop) Post(f func()) bool { return l.PostTask(taskFunc(f)) }

// PostTask is Post without a closure. Any goroutine.
func (l *Loop) PostTask(t Task) bool {
	accepted, first := l.mailbox.push(t)
	if first {
		// Only the first has to: with another in the mailbox somebody else
		// did, or the loop has not gone to sleep since. A wake-up that cannot be
		// written would leave the loop asleep for up to an idle tick, no longer.
		_ = l.waker.wake()
	}
	return accepted
}

// Now returns the loop's clock: CLOCK_MONOTONIC in ns, read when the batch was
// fetched and again after each handler, so it stands still within a handler. Before Run
// it is the present. Loop only.
func (l *Loop) Now() int64 {
	l.checkOwner("Now")
	if !l.running {
		l.now = l.clock()
	}
	return l.now
}

// Wall returns Unix time in ns at the instant of Now. A step of the system's clock shows after
// 100 ms at most. Loop only.
func (l *Loop) Wall() int64 {
	now := l.Now()
	if l.wallFrom == 0 || now-l.wallFrom > wallAge {
		l.wallFrom, l.wallOff = now, l.epoch()
	}
	return now + l.wallOff
}

// begin makes the present thread the owner.
func (l *Loop) begin() {
	l.owner.enter()
	l.running = true
	l.beginTurn()
	l.cell.Thread.Store(uint64(unix.Gettid()))
	l.cell.enter(StateRunning, l.now)
}

// end gives back what New got. It also runs when a handler panics.
func (l *Loop) end() {
	l.mailbox.close()
	l.account()
	l.running = false
	l.cell.Thread.Store(0)
	l.cell.enter(StateClosed, l.clock())
	l.owner.leave()
	_ = l.closeKernel() // nothing is lost with a descriptor that cannot be closed
}

// fetch gets the next batch of events, sleeping if there is nothing to do, and
// begins a turn.
//
// A turn that had work is followed by a look that does not sleep: on a busy loop more is
// ready by then, and the scheduler is left out of it altogether.
func (l *Loop) fetch() (n int, err error) {
	d := l.untilNext()
	if l.more || l.mailbox.pending() {
		d = 0
	}
	if d == 0 || l.worked {
		if n, err = l.epoll.poll(); err != nil {
			return 0, err
		}
		if n > 0 || d == 0 {
			l.beginTurn()
			return n, nil
		}
	}
	return l.sleep(d)
}

// sleep waits for an event, a post or the time limit, and begins a turn.
func (l *Loop) sleep(d time.Duration) (n int, err error) {
	l.waker.prepare()
	if l.mailbox.pending() {
		l.waker.resume()
		l.beginTurn()
		return 0, nil
	}
	l.sleeps++
	l.cell.enter(StateWaiting, l.now)
	n, err = l.epoll.wait(d)
	l.waker.resume()
	l.beginTurn()
	l.cell.enter(StateRunning, l.now)
	return n, err
}

// beginTurn reads the clock for the batch.
func (l *Loop) beginTurn() {
	l.now = l.clock()
	l.turnFrom = l.now
}

// runPosts runs what was posted up to now.
func (l *Loop) runPosts() {
	n, closed := l.mailbox.take()
	for n != nil {
		var task Task
		task, n = n.spend()
		l.posts++
		task.RunTask()
		l.ran()
	}
	if closed {
		l.closing = true
	}
}

// ran takes the time after a handler.
func (l *Loop) ran() {
	now := l.clock()
	took := uint64(now - l.now)
	i := class(took)
	l.took[i]++
	l.tookMore |= 1 << i
	if took > l.maxHandler {
		l.maxHandler = took
		l.cell.MaxHandler.Store(took)
	}
	l.now = now
}

// account publishes the turn that ends here.
func (l *Loop) account() {
	c := l.cell
	l.iterations++
	c.Iterations.Store(l.iterations)
	set(&c.Events, l.events)
	set(&c.Posts, l.posts)
	set(&c.Timers, l.fired)
	set(&c.Sleeps, l.sleeps)
	set(&c.Stale, l.stale)
	set(&c.Watches, uint64(l.watches))
	set(&c.Armed, uint64(l.wheel.armed))
	for ; l.tookMore != 0; l.tookMore &= l.tookMore - 1 {
		i := bits.TrailingZeros32(l.tookMore)
		c.took[i].Store(l.took[i])
	}
	lag := uint64(l.now - l.turnFrom)
	l.worked = lag > 0
	if !l.worked {
		return
	}
	l.busy += lag
	c.Busy.Store(l.busy)
	c.Lag.Store(lag)
	if lag > l.maxLag {
		l.maxLag = lag
		c.MaxLag.Store(lag)
	}
}

// resumeCell goes on from the counters of the cell's last user. Gauges start anew.
func (l *Loop) resumeCell() {
	c := l.cell
	c.Layout.Store(CellLayout)
	c.enter(StateNew, l.now)
	c.Thread.Store(0)
	l.iterations, l.events, l.posts, l.fired = c.Iterations.Load(), c.Events.Load(), c.Posts.Load(), c.Timers.Load()
	l.sleeps, l.stale, l.busy = c.Sleeps.Load(), c.Stale.Load(), c.Busy.Load()
	l.maxLag, l.maxHandler = c.MaxLag.Load(), c.MaxHandler.Load()
	l.took = c.Handlers()
}

// closeKernel closes the kernel's objects.
func (l *Loop) closeKernel() error {
	l.ended = true
	return errors.Join(l.waker.close(), l.epoll.close())
}
