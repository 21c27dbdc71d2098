//go:build !race

package eventloop

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type idle struct{}

func (*idle) HandleEvent(*Watch, Event) {}
func (*idle) HandleTimer(*Timer)        {}
func (*idle) RunTask()                  {}

// One turn with an event, a timer and a post, and a watch made and removed: no garbage.
func TestNothingAllocates(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Eventfd(1, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var w Watch
	var x Timer
	h := new(idle)
	x.Init(l, h)
	l.running = true
	turn := func() {
		if err := l.Watch(&w, fd, Readable, h); err != nil {
			t.Fatal(err)
		}
		_ = l.Modify(&w, Readable|Edge)
		x.Reset(time.Millisecond)
		l.PostTask(h)
		n, err := l.epoll.poll()
		if n != 1 || err != nil {
			t.Fatalf("poll: %d, %v; want 1", n, err)
		}
		l.dispatch(n)
		l.runPosts()
		l.runTimers()
		l.account()
		if _, err := l.epoll.wait(0); err != nil {
			t.Fatal(err)
		}
		x.Stop()
		_ = l.Remove(&w)
	}
	if got := testing.AllocsPerRun(1000, turn); got != 0 {
		t.Errorf("%v allocations a turn, want 0", got)
	}
}
