package eventloop

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// CellSize is the size of a [Cell] in bytes: six cache lines.
const CellSize = 384

// A Cell is a loop's progress as others see it. Only the loop writes, anybody may read, in
// another process too: the layout is fixed, words of 64 bits in native byte
// order at the offsets given, and a segment of memory shared between processes may hold it.
// A loop that is given a used cell goes on counting where its predecessor stopped.
//
// How to tell a wedged loop from a busy one: read Iterations twice, two seconds apart. A
// loop that is alive has moved it, however idle it is, and however busy unless one handler is. If it stands still, State
// says whether the thread is stuck in a handler ([StateRunning], since Since) or the
// kernel has not given it a processor or is stopping it ([StateWaiting]).
//
// The loop publishes once per turn, and Max words when they grow: a reader may see words of
// different turns side by side.
type Cell struct {
	Iterations atomic.Uint64 // 0: turns of the loop, at least one a second
	Events     atomic.Uint64 // 8: calls of event handlers
	Posts      atomic.Uint64 // 16: tasks run
	Timers     atomic.Uint64 // 24: calls of timer handlers
	Sleeps     atomic.Uint64 // 32: times the loop slept in the kernel; Events/Sleeps is the batching
	Busy       atomic.Uint64 // 40: ns spent in handlers, all turns
	Lag        atomic.Uint64 // 48: ns the last turn with work took: how late the next event was noticed
	MaxLag     atomic.Uint64 // 56: ns, longest Lag so far
	MaxHandler atomic.Uint64 // 64: ns, longest single handler, task or timer handler so far
	State      atomic.Uint64 // 72: a State
	Since      atomic.Uint64 // 80: CLOCK_MONOTONIC ns at which State was entered
	Thread     atomic.Uint64 // 88: thread id, gettid(2), of the loop; 0: not running
	Watches    atomic.Uint64 // 96: active watches
	Armed      atomic.Uint64 // 104: armed timers
	Stale      atomic.Uint64 // 112: events dropped because their watch had ended; growing fast: see Forget
	Layout     atomic.Uint64 // 120: CellLayout, written by New; 0: never used

	took [Buckets]atomic.Uint64 // 128: see Handlers
	_    [32 - Buckets]uint64
}

// Handlers is how long handlers, tasks and timer handlers took, all turns.
func (c *Cell) Handlers() (h Histogram) {
	for i := range c.took {
		h[i] = c.took[i].Load()
	}
	return h
}

// CellLayout is the version of the layout of [Cell].
const CellLayout = 2

// CellAt returns the cell that lies at the beginning of mem, without changing it. mem must be
// aligned to 8 bytes and stay mapped as long as the cell is used; mapped memory is aligned.
func CellAt(mem []byte) (*Cell, error) {
	if len(mem) < CellSize {
		return nil, fmt.Errorf("place cell: %d bytes of memory, want %d", len(mem), CellSize)
	}
	p := unsafe.Pointer(unsafe.SliceData(mem))
	if uintptr(p)%8 != 0 {
		return nil, fmt.Errorf("place cell: memory at %#x is not aligned to 8 bytes", uintptr(p))
	}
	return (*Cell)(p), nil
}

// A State is what the thread of a loop is doing, in [Cell.State].
type State uint64

const (
	// StateNew: Run has not been called.
	StateNew State = iota
	// StateWaiting: asleep in the kernel, for a second at most.
	StateWaiting
	// StateRunning: in handlers, or between them.
	StateRunning
	// StateClosed: Run has returned, or panicked.
	StateClosed
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case StateNew:
		return "new"
	case StateWaiting:
		return "waiting"
	case StateRunning:
		return "running"
	case StateClosed:
		return "closed"
	default:
		return fmt.Sprintf("state(%d)", uint64(s))
	}
}

// enter publishes a state and since when.
func (c *Cell) enter(s State, now int64) {
	c.Since.Store(uint64(now))
	c.State.Store(uint64(s))
}

// set stores v where it differs. An atomic store is a locked instruction, a load is not,
// and most words do not change on most turns.
func set(word *atomic.Uint64, v uint64) {
	if word.Load() != v {
		word.Store(v)
	}
}
