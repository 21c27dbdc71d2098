package eventloop

import (
	"math"
	"time"
)

// Tick is the resolution of timers.
const Tick = time.Millisecond

// timerBudget is how many timers one turn of the loop touches before it looks for
// events again. Cascading costs some 10 ns each, so this bounds the wheel's own share of
// a turn to some 10 µs.
const timerBudget = 1024

// A TimerHandler is the continuation of a timer. It runs on the loop and must not block.
// The timer is not armed when its handler is called; the handler may Reset it.
type TimerHandler interface {
	HandleTimer(t *Timer)
}

// TimerFunc makes a function a [TimerHandler].
type TimerFunc func(t *Timer)

// HandleTimer calls f(t).
func (f TimerFunc) HandleTimer(t *Timer) { f(t) }

// plainFunc is the handler of AfterFunc.
type plainFunc func()

func (f plainFunc) HandleTimer(*Timer) { f() }

// A Timer calls its handler once, after a duration, on its loop. Embed it by value in what it
// serves and Init it once: it is linked into the loop's wheel itself, so arming
// allocates nothing. It must not be copied or moved while armed. All fields are
// owned by the loop.
//
// A timer fires on the first millisecond tick at or after its deadline: never before
// the deadline by [Loop.Now], and, on a loop that is not busy, less than a tick after it
// (two where the kernel has no epoll_pwait2). Timers run in the order of their ticks, and those of
// one tick in the order in which they were armed.
type Timer struct {
	next, prev *Timer // neighbours in the slot; nil: not armed
	when       int64  // tick
	loop       *Loop
	handler    TimerHandler
	slot       uint16 // index in wheel.slots
}

// Init gives t its loop and its handler. A timer that is armed panics.
func (t *Timer) Init(l *Loop, h TimerHandler) {
	if t.next != nil {
		panic("eventloop: Init of an armed timer")
	}
	t.loop, t.handler = l, h
}

// Reset arms t to fire d after [Loop.Now], whether it was armed or not. With d <= 0 it
// fires on the next tick, never from within this call. Loop only.
func (t *Timer) Reset(d time.Duration) {
	l := t.loop
	l.checkOwner("Timer.Reset")
	if t.next != nil {
		l.wheel.disarm(t)
	}
	t.when = ceilTick(later(l.Now(), d))
	l.wheel.arm(t)
}

// Stop disarms t and reports whether it was armed. The handler is not called
// afterwards, also if t was due in this very tick. Loop only.
func (t *Timer) Stop() bool {
	t.loop.checkOwner("Timer.Stop")
	if t.next == nil {
		return false
	}
	t.loop.wheel.disarm(t)
	return true
}

// Armed reports whether t will fire. Loop only.
func (t *Timer) Armed() bool {
	t.loop.checkOwner("Timer.Armed")
	return t.next != nil
}

// AfterFunc runs f on the loop after d. It allocates a timer, which may be Reset and
// Stopped like any other. Loop only.
func (l *Loop) AfterFunc(d time.Duration, f func()) *Timer {
	t := &Timer{loop: l, handler: plainFunc(f)}
	t.Reset(d)
	return t
}

// runTimers runs the timers that were due when the batch was fetched, up to the budget of a
// turn, and notes in l.more whether some are left. Those that became due since wait for the
// next batch: what arrived before their deadline may lie in it.
func (l *Loop) runTimers() {
	to := l.turnFrom / int64(Tick)
	budget := timerBudget
	for {
		t := l.wheel.expire(to, &budget)
		if t == nil {
			break
		}
		l.fired++
		t.handler.HandleTimer(t)
		l.ran()
	}
	l.more = budget == 0
}

// untilNext returns how long the loop may sleep: to the next slot of the wheel, but not
// longer than the idle tick.
func (l *Loop) untilNext() time.Duration {
	tick, _, ok := l.wheel.next()
	if !ok {
		return idleTick
	}
	return min(idleTick, max(0, time.Duration(tick*int64(Tick)-l.now)))
}

// later returns now + d, held at the end of time instead of overflowing.
func later(now int64, d time.Duration) int64 {
	if d <= 0 {
		return now
	}
	if int64(d) > math.MaxInt64-int64(Tick)-now {
		return math.MaxInt64 - int64(Tick)
	}
	return now + int64(d)
}

// ceilTick returns the first tick that is not before ns.
func ceilTick(ns int64) int64 { return (ns + int64(Tick) - 1) / int64(Tick) }
