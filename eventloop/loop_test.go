package eventloop_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

func TestPostKeepsTheOrderOfEachPoster(t *testing.T) {
	const posters, each = 8, 1500
	l := start(t, eventloop.Options{})
	var next [posters]int // owned by the loop
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				l.Post(func() {
					if next[p] != i {
						t.Errorf("poster %d: post %d ran, want %d", p, i, next[p])
					}
					next[p] = i + 1
				})
			}
		})
	}
	wg.Wait()
	on(t, l, func() {
		for p, n := range next {
			if n != each {
				t.Errorf("poster %d: %d posts ran, want %d", p, n, each)
			}
		}
	})
}

// What Post accepted runs, though Close comes in the middle; what it refused does not.
func TestCloseLosesNoPost(t *testing.T) {
	const posters = 4
	for range 5 {
		l, err := eventloop.New(eventloop.Options{})
		must(t, err)
		done := run(t, l)
		var ran [posters]int // owned by the loop
		var accepted [posters]int
		var wg sync.WaitGroup
		var begun sync.WaitGroup
		begun.Add(posters)
		for p := range posters {
			wg.Go(func() {
				for i := 0; l.Post(func() {
					if ran[p] != i {
						t.Errorf("poster %d: post %d ran, want %d", p, i, ran[p])
					}
					ran[p]++
				}); i++ {
					if accepted[p]++; accepted[p] == 50 {
						begun.Done()
					}
				}
				if l.Post(func() { t.Error("a post ran that was refused") }) {
					t.Error("accepted after it was refused")
				}
			})
		}
		begun.Wait()
		must(t, l.Close())
		wg.Wait()
		await(t, done, "Run to return")
		if ran != accepted {
			t.Errorf("ran %v, accepted %v", ran, accepted)
		}
	}
}

// A post from a post, after Close, is refused; posts before Run are run first, on the loop's thread.
func TestPostsAtBothEnds(t *testing.T) {
	l, err := eventloop.New(eventloop.Options{})
	must(t, err)
	var order []string
	l.Post(func() {
		order = append(order, "first")
		if got := int(l.Cell().Thread.Load()); got != unix.Gettid() {
			t.Errorf("runs on thread %d, the loop is on %d", unix.Gettid(), got)
		}
		l.Post(func() {
			order = append(order, "third")
			check(t, l.Close())
			check(t, l.Close())
			if l.Post(func() {}) {
				t.Error("accepted after Close")
			}
		})
	})
	l.Post(func() { order = append(order, "second") })
	must(t, l.Run())
	if len(order) != 3 || order[0] != "first" || order[1] != "second" || order[2] != "third" {
		t.Errorf("order %q", order)
	}
	if err := l.Run(); !errors.Is(err, eventloop.ErrRunning) {
		t.Errorf("second Run: %v, want ErrRunning", err)
	}
}

func TestCloseBeforeRun(t *testing.T) {
	l, err := eventloop.New(eventloop.Options{})
	must(t, err)
	ran := 0
	l.Post(func() { ran++ })
	must(t, l.Close())
	l.AfterFunc(0, func() { t.Error("timer of a closed loop fired") }) // arming it does no harm
	must(t, l.Run())
	if ran != 1 {
		t.Errorf("accepted post ran %d times, want once", ran)
	}
	var w eventloop.Watch
	if err := l.Watch(&w, silent(t), eventloop.Readable, nil); !errors.Is(err, eventloop.ErrClosed) {
		t.Errorf("Watch on a closed loop: %v, want ErrClosed", err)
	}
	check(t, l.Remove(&w))
}

// After Run a watch can be removed and a timer stopped, since owners tidy up in any order.
func TestTidyingUpAfterRun(t *testing.T) {
	l, err := eventloop.New(eventloop.Options{})
	must(t, err)
	var w eventloop.Watch
	check(t, l.Watch(&w, silent(t), eventloop.Readable, onEvent(func(*eventloop.Watch, eventloop.Event) {})))
	timer := l.AfterFunc(time.Hour, func() {})
	must(t, errors.Join(l.Close(), l.Run()))
	check(t, l.Remove(&w))
	if w.Active() || !timer.Stop() {
		t.Error("watch still active, or timer was not armed")
	}
}

// A sleeping loop is woken, every time: two loops throw a ball.
func TestNoWakeUpIsLost(t *testing.T) {
	const throws = 5_000
	a, b := start(t, eventloop.Options{Name: "a"}), start(t, eventloop.Options{Name: "b"})
	done := make(chan struct{})
	var throw func(n int, to, from *eventloop.Loop)
	throw = func(n int, to, from *eventloop.Loop) {
		if n == throws {
			close(done)
			return
		}
		to.Post(func() { throw(n+1, from, to) })
	}
	throw(0, a, b)
	await(t, done, "the last throw") // the idle tick makes good a lost wake-up, but only one a second
	until(t, "a sleeps", a.Asleep)
	on(t, a, func() {})
}

// The instant that a wake-up could be lost in: a post that comes between the loop's last look at its mailbox
// and its saying that it sleeps does not wake it, so the loop has to look once more.
func TestPostJustBeforeTheSleep(t *testing.T) {
	d := drive(t, 0)
	d.PostTask(new(task))
	if slept := eventloop.Sleep(d, ms); slept {
		t.Error("slept with a post in the mailbox")
	}
	d.Turn()
	if slept := eventloop.Sleep(d, ms); !slept || d.Asleep() {
		t.Errorf("slept %v, still asleep %v; want true, false", slept, d.Asleep())
	}
}

// task counts its runs.
type task struct{ runs int }

func (k *task) RunTask() { k.runs++ }

func TestPostTask(t *testing.T) {
	l := start(t, eventloop.Options{})
	k := new(task)
	for range 3 {
		if !l.PostTask(k) {
			t.Error("not accepted")
		}
	}
	on(t, l, func() {
		if k.runs != 3 {
			t.Errorf("%d runs, want 3", k.runs)
		}
	})
}

// Data and its time limit that arrive together: the data wins.
func TestEventsComeBeforeTimers(t *testing.T) {
	l := start(t, eventloop.Options{})
	var w eventloop.Watch
	var limit *eventloop.Timer
	got := make(chan struct{})
	fd := ready(t)
	turns(t, l, 1) // what is posted before Run has a turn of its own
	on(t, l, func() {
		begin := l.Now()
		limit = l.AfterFunc(0, func() { t.Error("time limit hit though data was there") })
		check(t, l.Watch(&w, fd, eventloop.Readable, onEvent(func(w *eventloop.Watch, _ eventloop.Event) {
			limit.Stop()
			check(t, l.Remove(w))
			close(got)
		})))
		for time.Duration(monotonic()-begin) < 5*ms { // hold the loop up until the limit has passed
			runtime.Gosched()
		}
	})
	await(t, got, "the event")
	turns(t, l, 3)
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

func TestClocks(t *testing.T) {
	l := start(t, eventloop.Options{})
	on(t, l, func() {
		before, now, after := l.Cell().Since.Load(), l.Now(), monotonic()
		if now > after || int64(before) > now {
			t.Errorf("Now %d, want between %d and CLOCK_MONOTONIC %d", now, before, after)
		}
		unixBefore := time.Now().Add(-time.Minute).UnixNano()
		if wall := l.Wall(); wall < unixBefore || wall > time.Now().Add(time.Minute).UnixNano() {
			t.Errorf("Wall %d is not near the time of day", wall)
		}
		if l.Now() != now {
			t.Error("Now moved within a handler")
		}
		l.Post(func() {
			if l.Now() < now {
				t.Error("Now went back")
			}
		})
	})
	turns(t, l, 2)
}

// A step of the wall clock is seen, though not at once.
func TestWallFollowsASteppedClock(t *testing.T) {
	d := drive(t, time.Hour)
	steps := eventloop.StepWall(d, 5000)
	if got := d.Wall() - d.Now(); got != 5000 {
		t.Errorf("wall is %d ahead, want 5000", got)
	}
	*steps = 9000
	if got := d.Wall() - d.Now(); got != 5000 {
		t.Errorf("wall is %d ahead in the same instant, want 5000", got)
	}
	d.Advance(150 * ms)
	if got := d.Wall() - d.Now(); got != 9000 {
		t.Errorf("wall is %d ahead later, want 9000", got)
	}
}

// A panic of a handler reaches whoever called Run, in which the process normally dies.
func TestPanicIsNotSwallowed(t *testing.T) {
	cause := errors.New("broken state machine")
	fd := ready(t)
	tests := []struct {
		name  string
		place func(l *eventloop.Loop)
	}{
		{"event", func(l *eventloop.Loop) {
			check(t, l.Watch(new(eventloop.Watch), fd, eventloop.Readable, onEvent(func(*eventloop.Watch, eventloop.Event) { panic(cause) })))
		}},
		{"post", func(l *eventloop.Loop) { l.Post(func() { panic(cause) }) }},
		{"timer", func(l *eventloop.Loop) { l.AfterFunc(0, func() { panic(cause) }) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := eventloop.New(eventloop.Options{})
			must(t, err)
			tt.place(l)
			caught := make(chan any)
			go func() {
				defer func() { caught <- recover() }()
				t.Errorf("Run returned %v", l.Run())
			}()
			if got := await(t, caught, "the panic"); got != cause {
				t.Errorf("recovered %v, want %v", got, cause)
			}
			if l.Post(func() {}) {
				t.Error("Post accepted by a dead loop")
			}
			if got := eventloop.State(l.Cell().State.Load()); got != eventloop.StateClosed {
				t.Errorf("state %v, want closed", got)
			}
		})
	}
}

// Loops that sleep in the kernel do not keep the garbage collector from stopping the world.
func TestGarbageCollectorIsNotHeldUp(t *testing.T) {
	for range 4 {
		l := start(t, eventloop.Options{})
		until(t, "the loop sleeps", func() bool {
			return eventloop.State(l.Cell().State.Load()) == eventloop.StateWaiting
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m) // stops the world too
	}()
	await(t, done, "the collector")
}

// So does a loop that never sleeps, since its watch is always ready.
func TestGarbageCollectorBesideABusyLoop(t *testing.T) {
	l := start(t, eventloop.Options{})
	on(t, l, func() {
		check(t, l.Watch(new(eventloop.Watch), ready(t), eventloop.Readable, onEvent(func(*eventloop.Watch, eventloop.Event) {})))
	})
	done := make(chan struct{})
	go func() { defer close(done); runtime.GC() }()
	await(t, done, "the collector")
}

// An idle loop turns by itself, so that it can be told from a wedged one.
func TestIdleLoopTicks(t *testing.T) {
	t.Parallel()
	l := start(t, eventloop.Options{})
	before := l.Cell().Iterations.Load()
	until(t, "an idle loop has turned", func() bool {
		return l.Cell().Iterations.Load() > before
	})
}

func TestIdleSleepIsOneSecond(t *testing.T) {
	d := drive(t, 0)
	if got := eventloop.UntilNext(d); got != time.Second {
		t.Errorf("no timer: sleeps %v, want 1s", got)
	}
	d.AfterFunc(time.Hour, func() {})
	if got := eventloop.UntilNext(d); got != time.Second {
		t.Errorf("far timer: sleeps %v, want 1s", got)
	}
	d.AfterFunc(5*ms, func() {})
	if got := eventloop.UntilNext(d); got != 5*ms {
		t.Errorf("near timer: sleeps %v, want 5ms", got)
	}
	d.Advance(5 * ms)
	if got := eventloop.UntilNext(d); got != time.Second {
		t.Errorf("near timer fired: sleeps %v, want 1s", got)
	}
}

func TestGroup(t *testing.T) {
	const n = 3
	g, err := eventloop.NewGroup(n, func(i int) eventloop.Options {
		return eventloop.Options{Name: string(rune('a' + i))}
	})
	must(t, err)
	var ran atomic.Int32
	threads := make([]uint64, n)
	g.Start()
	g.Start()
	for i, l := range g.Loops() {
		if want := string(rune('a' + i)); l.Name() != want {
			t.Errorf("loop %d is called %q, want %q", i, l.Name(), want)
		}
		on(t, l, func() { threads[i] = l.Cell().Thread.Load() })
		l.Post(func() { ran.Add(1) })
	}
	must(t, g.Close())
	if ran.Load() != n {
		t.Errorf("%d of %d posts ran before Close returned", ran.Load(), n)
	}
	if threads[0] == threads[1] || threads[1] == threads[2] {
		t.Errorf("loops share a thread: %v", threads)
	}
	must(t, g.Close())
	g.Start()
}

func TestGroupByDefaultHasALoopForEachProcessor(t *testing.T) {
	g, err := eventloop.NewGroup(0, nil)
	must(t, err)
	if got, want := len(g.Loops()), runtime.GOMAXPROCS(0); got != want {
		t.Errorf("%d loops, want %d", got, want)
	}
	must(t, g.Close()) // never started
}
