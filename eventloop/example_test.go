package eventloop_test

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

// An echo serves one descriptor: its watch and its time limit are part of it.
type echo struct {
	loop  *eventloop.Loop
	watch eventloop.Watch
	idle  eventloop.Timer
}

func (e *echo) open(fd int) error {
	e.idle.Init(e.loop, e)
	e.idle.Reset(time.Minute)
	return e.loop.Watch(&e.watch, fd, eventloop.Readable|eventloop.Hangup|eventloop.Edge, e)
}

// HandleEvent copies what has come back to where it came from. The watch is
// edge-triggered: it reads until there is no more.
func (e *echo) HandleEvent(w *eventloop.Watch, ev eventloop.Event) {
	var buf [512]byte
	for {
		n, err := unix.Read(w.FD(), buf[:])
		if err == unix.EAGAIN {
			e.idle.Reset(time.Minute)
			return
		}
		if n <= 0 {
			e.close()
			return
		}
		_, _ = unix.Write(w.FD(), buf[:n])
	}
}

// HandleTimer is called when nothing has come for a minute.
func (e *echo) HandleTimer(*eventloop.Timer) { e.close() }

func (e *echo) close() {
	fd := e.watch.FD()
	e.idle.Stop()
	e.loop.Forget(&e.watch) // the kernel forgets it with the close
	_ = unix.Close(fd)
	_ = e.loop.Close()
}

func Example() {
	loop, err := eventloop.New(eventloop.Options{Name: "net0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	client := ends[1]

	// Everything of the loop happens on the loop; Post is the way in.
	e := &echo{loop: loop}
	loop.Post(func() {
		if err := e.open(ends[0]); err != nil {
			fmt.Println(err)
		}
		_, _ = unix.Write(client, []byte("hello"))
	})
	loop.Post(func() {
		loop.AfterFunc(10*time.Millisecond, func() { _ = unix.Shutdown(client, unix.SHUT_WR) })
	})
	if err := loop.Run(); err != nil {
		fmt.Println(err)
	}

	var buf [16]byte
	n, _ := unix.Read(client, buf[:])
	fmt.Printf("%s\n", buf[:n])
	_ = unix.Close(client)
	// Output: hello
}
