package eventloop_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"trafficd/eventloop"
)

const ms = time.Millisecond

func drive(t *testing.T, at time.Duration) *eventloop.Drive {
	t.Helper()
	d, err := eventloop.NewDrive(at)
	must(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

// log is a handler that notes which timer fired and when.
type log struct {
	d     *eventloop.Drive
	fired []string
	at    []time.Duration
}

func (g *log) timer(name string) *eventloop.Timer {
	t := new(eventloop.Timer)
	t.Init(g.d.Loop, eventloop.TimerFunc(func(*eventloop.Timer) { g.note(name) }))
	return t
}

func (g *log) note(name string) {
	g.fired = append(g.fired, name)
	g.at = append(g.at, time.Duration(g.d.Now()))
}

func (g *log) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(g.fired, want) {
		t.Errorf("fired %q, want %q", g.fired, want)
	}
}

// Wherever within a tick the clock stands, a timer is never early and less than a tick late.
func TestExactToOneTick(t *testing.T) {
	for _, start := range []time.Duration{0, 1, 999_999, 5*ms + 1, 77*ms + 500_000} {
		for _, wait := range []time.Duration{0, 1, ms - 1, ms, ms + 1, 64 * ms, 65*ms - 1, 4096 * ms, time.Hour} {
			d := drive(t, start)
			g := &log{d: d}
			d.Turn()
			g.timer("x").Reset(wait)
			tick := (start + wait + ms - 1) / ms * ms
			if wait == 0 && start%ms == 0 {
				tick += ms // on a tick already: the next one
			}
			d.Advance(tick - start - 1)
			g.expect(t)
			d.Advance(1)
			g.expect(t, "x")
		}
	}
}

func TestOrder(t *testing.T) {
	d := drive(t, 10*ms)
	g := &log{d: d}
	late, a, b, c := g.timer("late"), g.timer("a"), g.timer("b"), g.timer("c")
	late.Reset(300 * ms)
	a.Reset(200 * ms) // armed from afar: it will have cascaded
	d.Advance(190 * ms)
	b.Reset(10 * ms)
	c.Reset(10 * ms)
	b.Reset(10 * ms) // armed again: behind c
	d.Advance(time.Second)
	g.expect(t, "a", "c", "b", "late")
}

func TestStopAndReset(t *testing.T) {
	d := drive(t, 0)
	g := &log{d: d}
	x := g.timer("x")
	if x.Armed() || x.Stop() {
		t.Error("new timer is armed")
	}
	x.Reset(5 * ms)
	if !x.Armed() || !x.Stop() || x.Armed() || x.Stop() {
		t.Error("Stop does not disarm, once")
	}
	d.Advance(10 * ms)
	g.expect(t)
	x.Reset(5 * ms)
	x.Reset(50 * ms) // moved, not doubled
	d.Advance(20 * ms)
	g.expect(t)
	d.Advance(30 * ms)
	g.expect(t, "x")
	if x.Armed() {
		t.Error("armed after it fired")
	}
	var zero eventloop.Timer
	if zero.Armed() || zero.Stop() {
		t.Error("zero timer is armed")
	}
}

// A handler stops a timer of its own tick, moves one, and arms itself: none runs in this tick.
func TestHandlersMeddleWithTheirTick(t *testing.T) {
	d := drive(t, 0)
	g := &log{d: d}
	stopped, moved := g.timer("stopped"), g.timer("moved")
	again := new(eventloop.Timer)
	again.Init(d.Loop, eventloop.TimerFunc(func(me *eventloop.Timer) {
		g.note("again")
		if me != again || me.Armed() {
			t.Error("handler got a timer that is armed or another")
		}
		stopped.Stop()
		moved.Reset(5 * ms)
		me.Reset(0)
		if !me.Armed() {
			t.Error("not armed after Reset in its handler")
		}
	}))
	again.Reset(10 * ms)
	stopped.Reset(10 * ms)
	moved.Reset(10 * ms)
	d.Advance(10 * ms)
	g.expect(t, "again")
	d.Advance(ms)
	g.expect(t, "again", "again")
	again.Stop()
	d.Advance(4 * ms)
	g.expect(t, "again", "again")
	d.Advance(ms)
	g.expect(t, "again", "again", "moved")
}

// A loop that was held up runs each timer once, in order, and a periodic one does not catch up.
func TestAfterAStall(t *testing.T) {
	d := drive(t, 0)
	g := &log{d: d}
	var every eventloop.Timer
	every.Init(d.Loop, eventloop.TimerFunc(func(me *eventloop.Timer) { g.note("every"); me.Reset(10 * ms) }))
	every.Reset(10 * ms)
	g.timer("b").Reset(500 * ms)
	g.timer("a").Reset(400 * ms)
	d.Advance(5 * time.Second)
	g.expect(t, "every", "a", "b")
	d.Advance(10 * ms)
	g.expect(t, "every", "a", "b", "every")
}

func TestHugeDurations(t *testing.T) {
	const day = 24 * time.Hour
	for _, wait := range []time.Duration{24 * day, 25 * day, 50 * day, 365 * day, 100 * 365 * day} {
		for _, step := range []time.Duration{wait / 7, wait} {
			d := drive(t, 3*day+7*ms)
			g := &log{d: d}
			g.timer("x").Reset(wait)
			passed := time.Duration(0)
			for ; passed+step < wait; passed += step {
				d.Advance(step)
			}
			d.Advance(wait - passed - ms)
			g.expect(t)
			d.Advance(ms)
			g.expect(t, "x")
		}
	}
}

func TestEndOfTime(t *testing.T) {
	d := drive(t, 1000*time.Hour)
	g := &log{d: d}
	x := g.timer("x")
	x.Reset(math.MaxInt64)
	d.Advance(200 * 365 * 24 * time.Hour)
	g.expect(t)
	if !x.Stop() {
		t.Error("not armed")
	}
	x.Reset(math.MinInt64)
	d.Advance(ms)
	g.expect(t, "x")
}

// More timers than a turn touches wait for the next turn, so that events are not kept waiting; none is lost,
// and the order holds.
func TestManyDueTimersTakeTurns(t *testing.T) {
	const n = 5000
	d := drive(t, 0)
	timers := make([]eventloop.Timer, n)
	next := 0
	for i := range timers {
		timers[i].Init(d.Loop, eventloop.TimerFunc(func(*eventloop.Timer) {
			if next != i {
				t.Errorf("timer %d fired, want %d", i, next)
			}
			next++
		}))
		timers[i].Reset(time.Hour)
	}
	d.Advance(time.Hour)
	if next == n || !d.More() {
		t.Errorf("%d of %d fired in one turn, more %v; want some left", next, n, d.More())
	}
	for range n {
		if d.Turn(); !d.More() {
			break
		}
	}
	if next != n {
		t.Errorf("%d fired, want %d", next, n)
	}
	if got := d.Cell().Timers.Load(); got != n {
		t.Errorf("cell counts %d, want %d", got, n)
	}
}

func TestInitOfAnArmedTimerPanics(t *testing.T) {
	d := drive(t, 0)
	x := d.AfterFunc(time.Second, func() {})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	x.Init(d.Loop, nil)
}

// On a real loop, with and without epoll_pwait2.
func TestTimersOfARunningLoop(t *testing.T) {
	for _, coarse := range []bool{false, true} {
		l, err := eventloop.New(eventloop.Options{})
		must(t, err)
		if coarse {
			l.Coarse()
		}
		fired := make(chan time.Duration, 1)
		begin := l.Now()
		l.AfterFunc(20*ms, func() { fired <- time.Duration(l.Now() - begin) }) // before Run
		run(t, l)
		if after := await(t, fired, "the timer"); after < 20*ms {
			t.Errorf("coarse %v: fired after %v, want not before 20ms", coarse, after)
		}
		for range 5 {
			on(t, l, func() {
				begin := l.Now()
				l.AfterFunc(3*ms, func() { fired <- time.Duration(l.Now() - begin) })
			})
			if after := await(t, fired, "the timer"); after < 3*ms {
				t.Errorf("coarse %v: fired after %v, want not before 3ms", coarse, after)
			}
		}
	}
}
