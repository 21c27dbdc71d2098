package eventloop_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

// BenchmarkDispatch is the loop's own price of an event: 256 descriptors that are always
// ready, and a handler that does nothing. Its share of epoll_wait is in it.
func BenchmarkDispatch(b *testing.B) {
	l := start(b, eventloop.Options{})
	done := make(chan struct{})
	left := b.N
	h := onEvent(func(*eventloop.Watch, eventloop.Event) {
		if left--; left == 0 {
			close(done)
		}
	})
	watches := make([]eventloop.Watch, 256)
	on(b, l, func() {
		for i := range watches {
			check(b, l.Watch(&watches[i], ready(b), eventloop.Readable, h))
		}
	})
	await(b, done, "the events")
	on(b, l, func() {
		for i := range watches {
			check(b, l.Remove(&watches[i]))
		}
	})
}

// BenchmarkPingPong sends a byte to and fro on one loop: per event one read, one write and,
// as nothing else is ready, one epoll_wait to itself.
func BenchmarkPingPong(b *testing.B) {
	l := start(b, eventloop.Options{})
	x, y := pair(b)
	done := make(chan struct{})
	left := b.N
	var buf [1]byte
	h := onEvent(func(w *eventloop.Watch, _ eventloop.Event) {
		if left--; left == 0 {
			close(done)
			return
		}
		if left < 0 {
			return
		}
		_, _ = unix.Read(w.FD(), buf[:])
		_, _ = unix.Write(w.FD(), buf[:])
	})
	var wx, wy eventloop.Watch
	on(b, l, func() {
		check(b, l.Watch(&wx, x, eventloop.Readable|eventloop.Edge, h))
		check(b, l.Watch(&wy, y, eventloop.Readable|eventloop.Edge, h))
		_, _ = unix.Write(x, buf[:])
	})
	await(b, done, "the last event")
}

// BenchmarkClock is one reading of the loop's clock: what each handler costs beside its call.
func BenchmarkClock(b *testing.B) {
	l, err := eventloop.New(eventloop.Options{})
	must(b, err)
	defer l.Close()
	for range b.N {
		l.Now() // a loop that does not run reads it each time
	}
}

// BenchmarkPostAndRun is a task posted and run, 64 in a batch, without contention or wake-up.
func BenchmarkPostAndRun(b *testing.B) {
	d, _ := crowd(b, 0)
	k := new(task)
	b.ReportAllocs()
	for i := range b.N {
		d.PostTask(k)
		if i%64 == 63 {
			d.Turn()
		}
	}
	d.Turn()
}

// BenchmarkPost is posters that flood a loop from other threads. They are faster than it, so what is in
// flight, and with it memory, grows.
func BenchmarkPost(b *testing.B) {
	for _, posters := range []int{1, 4} {
		b.Run(fmt.Sprintf("posters=%d", posters), func(b *testing.B) {
			l := start(b, eventloop.Options{})
			b.ReportAllocs()
			var wg sync.WaitGroup
			for p := range posters {
				wg.Go(func() {
					k := new(task)
					for range (b.N + p) / posters {
						l.PostTask(k)
					}
				})
			}
			wg.Wait()
			on(b, l, func() {})
		})
	}
}

// BenchmarkPostRoundTrip posts to and fro between two loops: with the wake-up of a sleeping thread.
func BenchmarkPostRoundTrip(b *testing.B) {
	x, y := start(b, eventloop.Options{}), start(b, eventloop.Options{})
	done := make(chan struct{})
	left := b.N
	var there, back func()
	there = func() { y.Post(back) }
	back = func() {
		if left--; left == 0 {
			close(done)
			return
		}
		x.Post(there)
	}
	x.Post(there)
	await(b, done, "the last post")
}

// BenchmarkTimer arms and stops a timer among a number of idle ones.
func BenchmarkTimer(b *testing.B) {
	for _, idle := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("reset+stop/idle=%d", idle), func(b *testing.B) {
			d, x := crowd(b, idle)
			b.ReportAllocs()
			for i := range b.N {
				d.Time += 1000
				x.Reset(time.Duration(i%60) * time.Second)
				x.Stop()
			}
		})
		b.Run(fmt.Sprintf("reset/idle=%d", idle), func(b *testing.B) {
			_, x := crowd(b, idle)
			b.ReportAllocs()
			for i := range b.N {
				x.Reset(time.Duration(60+i%2) * time.Second)
			}
		})
	}
}

// BenchmarkTurn is one turn of the loop with nothing to do, beside a number of idle
// timers: they must not be felt.
func BenchmarkTurn(b *testing.B) {
	for _, idle := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("idle=%d", idle), func(b *testing.B) {
			d, _ := crowd(b, idle)
			b.ReportAllocs()
			for range b.N {
				d.Time += 10_000
				d.Turn()
			}
		})
	}
}

// BenchmarkFire arms a timer for the next tick and lets it fire.
func BenchmarkFire(b *testing.B) {
	d, x := crowd(b, 0)
	b.ReportAllocs()
	for range b.N {
		x.Reset(time.Millisecond)
		d.Advance(time.Millisecond)
	}
}

// crowd returns a loop with many timers armed for times from ten days on, and one that is not.
func crowd(b *testing.B, idle int) (*eventloop.Drive, *eventloop.Timer) {
	b.Helper()
	d, err := eventloop.NewDrive(time.Hour)
	must(b, err)
	b.Cleanup(func() { check(b, d.Close()) })
	timers := make([]eventloop.Timer, idle+1)
	for i := range timers {
		timers[i].Init(d.Loop, eventloop.TimerFunc(func(*eventloop.Timer) {}))
		if i < idle {
			timers[i].Reset(240*time.Hour + time.Duration(i)*time.Millisecond)
		}
	}
	b.ResetTimer()
	return d, &timers[idle]
}
