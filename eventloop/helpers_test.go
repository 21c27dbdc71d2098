package eventloop_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

// patience is how long a test waits for what must happen. It is a limit for broken
// code, not a measurement.
const patience = 30 * time.Second

// onEvent makes a function a handler.
type onEvent func(w *eventloop.Watch, ev eventloop.Event)

func (f onEvent) HandleEvent(w *eventloop.Watch, ev eventloop.Event) { f(w, ev) }

// start runs a loop until the test ends.
func start(t testing.TB, o eventloop.Options) *eventloop.Loop {
	t.Helper()
	l, err := eventloop.New(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, l)
	return l
}

// run runs l until the test ends and returns a channel that is closed when Run has returned.
func run(t testing.TB, l *eventloop.Loop) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		await(t, done, "Run to return")
	})
	return done
}

// await waits until c is closed or delivers.
func await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("no luck waiting for %s", what)
	}
	return v
}

// until polls a condition of another thread.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no luck waiting until %s", what)
		}
	}
}

// on runs f on the loop and waits for it.
func on(t testing.TB, l *eventloop.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { defer close(done); f() }) {
		t.Fatal("loop is closed")
	}
	await(t, done, "a post to run")
}

// turns lets the loop turn n times, each with a look for events.
func turns(t testing.TB, l *eventloop.Loop, n int) {
	t.Helper()
	for range n {
		on(t, l, func() {})
	}
}

// must stops the test at an error; for use off the loop.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check notes an error; for use on the loop, where a test cannot be stopped.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// pair returns two ends of a non-blocking stream, closed when the test ends.
func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// ready returns a descriptor that is and stays readable.
func ready(t testing.TB) int { return counter(t, 1) }

// silent returns a descriptor that is not readable.
func silent(t testing.TB) int { return counter(t, 0) }

func counter(t testing.TB, v uint) int {
	t.Helper()
	fd, err := unix.Eventfd(v, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
