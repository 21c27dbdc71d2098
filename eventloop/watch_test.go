package eventloop_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

func TestReadableThenWritable(t *testing.T) {
	l := start(t, eventloop.Options{})
	a, b := pair(t)
	got := make(chan eventloop.Event, 2)
	var w eventloop.Watch
	if w.FD() != -1 || w.Active() {
		t.Fatalf("zero watch: FD %d, active %v; want -1, false", w.FD(), w.Active())
	}
	h := onEvent(func(w *eventloop.Watch, ev eventloop.Event) {
		got <- ev
		if ev&eventloop.Readable != 0 {
			check(t, l.Modify(w, eventloop.Writable))
		} else {
			check(t, l.Remove(w))
		}
	})
	on(t, l, func() { check(t, l.Watch(&w, a, eventloop.Readable, h)) })
	on(t, l, func() {
		if w.FD() != a || !w.Active() {
			t.Errorf("watch: FD %d, active %v; want %d, true", w.FD(), w.Active(), a)
		}
	})
	_, err := unix.Write(b, []byte("x"))
	must(t, err)
	if ev := await(t, got, "data"); ev != eventloop.Readable {
		t.Errorf("first event %b, want readable only", ev)
	}
	if ev := await(t, got, "room"); ev != eventloop.Writable {
		t.Errorf("second event %b, want writable only", ev)
	}
	turns(t, l, 3)
	on(t, l, func() {
		if w.FD() != a || w.Active() {
			t.Errorf("removed watch: FD %d, active %v; want %d, false", w.FD(), w.Active(), a)
		}
	})
}

// A level-triggered watch is told as long as a condition lasts, an edge-triggered one when it
// comes about, and again when it is modified.
func TestLevelAndEdge(t *testing.T) {
	l := start(t, eventloop.Options{})
	var level, edge int // owned by the loop
	var wl, we eventloop.Watch
	on(t, l, func() {
		check(t, l.Watch(&wl, ready(t), eventloop.Readable, onEvent(func(*eventloop.Watch, eventloop.Event) { level++ })))
		check(t, l.Watch(&we, ready(t), eventloop.Readable|eventloop.Edge, onEvent(func(*eventloop.Watch, eventloop.Event) { edge++ })))
	})
	turns(t, l, 5)
	on(t, l, func() {
		if level < 5 || edge != 1 {
			t.Errorf("level-triggered called %d times, want at least 5; edge-triggered %d times, want 1", level, edge)
		}
		check(t, l.Modify(&we, eventloop.Readable|eventloop.Edge))
	})
	turns(t, l, 2)
	on(t, l, func() {
		if edge != 2 {
			t.Errorf("after Modify: edge-triggered called %d times, want 2", edge)
		}
	})
}

// Two watches are ready in one batch; whichever is called first ends the other.
func TestRemovedByAnotherHandlerOfTheSameBatch(t *testing.T) {
	for _, end := range enders {
		t.Run(end.name, func(t *testing.T) {
			l := start(t, eventloop.Options{})
			var w [2]eventloop.Watch
			var calls int
			h := onEvent(func(me *eventloop.Watch, _ eventloop.Event) {
				calls++
				other := &w[0]
				if me == other {
					other = &w[1]
				}
				end.do(t, l, other)
				end.do(t, l, me)
			})
			on(t, l, func() {
				check(t, l.Watch(&w[0], ready(t), eventloop.Readable, h))
				check(t, l.Watch(&w[1], ready(t), eventloop.Readable, h))
			})
			turns(t, l, 3)
			on(t, l, func() {
				if calls != 1 {
					t.Errorf("%d calls, want 1", calls)
				}
			})
			if got := l.Cell().Stale.Load(); got == 0 {
				t.Errorf("no stale event counted: the two were not in one batch")
			}
		})
	}
}

// enders are the two ways to end a watch. Forget is followed by closing the descriptor, as it must be.
var enders = []struct {
	name string
	do   func(t *testing.T, l *eventloop.Loop, w *eventloop.Watch)
}{
	{"Remove", func(t *testing.T, l *eventloop.Loop, w *eventloop.Watch) { check(t, l.Remove(w)) }},
	{"Forget", func(t *testing.T, l *eventloop.Loop, w *eventloop.Watch) {
		l.Forget(w)
		// The number stays taken, by something that never is readable, so that nobody
		// else in the process gets it before the test closes it.
		check(t, unix.Dup3(silent(t), w.FD(), unix.O_CLOEXEC))
	}},
}

// The event of the old descriptor is already fetched when the number is closed, reused and watched
// again, all by an earlier handler of the same batch.
func TestDescriptorReusedInTheSameBatch(t *testing.T) {
	for _, end := range enders {
		t.Run(end.name, func(t *testing.T) {
			l := start(t, eventloop.Options{})
			var w [2]eventloop.Watch
			var second eventloop.Watch
			var calls, wrong int
			fresh := silent(t)
			h := onEvent(func(me *eventloop.Watch, _ eventloop.Event) {
				calls++
				other := &w[0]
				if me == other {
					other = &w[1]
				}
				end.do(t, l, me)
				end.do(t, l, other)
				check(t, unix.Dup3(fresh, other.FD(), unix.O_CLOEXEC)) // closes and reuses in one
				check(t, l.Watch(&second, other.FD(), eventloop.Readable,
					onEvent(func(*eventloop.Watch, eventloop.Event) { wrong++ })))
			})
			on(t, l, func() {
				check(t, l.Watch(&w[0], ready(t), eventloop.Readable, h))
				check(t, l.Watch(&w[1], ready(t), eventloop.Readable, h))
			})
			turns(t, l, 3)
			on(t, l, func() {
				if calls != 1 || wrong != 0 {
					t.Errorf("%d calls of the old watches, %d of the new; want 1, 0", calls, wrong)
				}
			})
			// The new watch is a real one all the same.
			_, err := unix.Write(fresh, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			must(t, err)
			turns(t, l, 2)
			on(t, l, func() {
				if wrong == 0 {
					t.Error("new watch of a reused number is not called")
				}
				check(t, l.Remove(&second))
			})
		})
	}
}

func TestRemoveFromAnywhere(t *testing.T) {
	type world struct {
		l     *eventloop.Loop
		w     eventloop.Watch
		calls int
	}
	tests := []struct {
		name  string
		begin func(t *testing.T, x *world) // on the loop, before the watch is made
		every func(t *testing.T, x *world) // in its handler
	}{
		{"own handler", func(*testing.T, *world) {}, func(t *testing.T, x *world) { check(t, x.l.Remove(&x.w)) }},
		{"timer", func(t *testing.T, x *world) {
			x.l.AfterFunc(0, func() { check(t, x.l.Remove(&x.w)) })
		}, func(*testing.T, *world) {}},
		{"post", func(*testing.T, *world) {}, func(t *testing.T, x *world) {
			x.l.Post(func() { check(t, x.l.Remove(&x.w)) })
		}},
		{"handler of another watch", func(t *testing.T, x *world) {
			other := new(eventloop.Watch)
			check(t, x.l.Watch(other, ready(t), eventloop.Readable, onEvent(func(w *eventloop.Watch, _ eventloop.Event) {
				if x.calls > 0 {
					check(t, x.l.Remove(&x.w))
					check(t, x.l.Remove(w))
				}
			})))
		}, func(*testing.T, *world) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := &world{l: start(t, eventloop.Options{})}
			fd := ready(t)
			on(t, x.l, func() {
				tt.begin(t, x)
				check(t, x.l.Watch(&x.w, fd, eventloop.Readable, onEvent(func(*eventloop.Watch, eventloop.Event) {
					if !x.w.Active() {
						t.Error("called after Remove")
					}
					x.calls++
					tt.every(t, x)
				})))
			})
			active := true
			until(t, "the watch is removed", func() bool {
				on(t, x.l, func() { active = x.w.Active() })
				return !active
			})
			var before int
			on(t, x.l, func() { before = x.calls })
			turns(t, x.l, 3)
			on(t, x.l, func() {
				if x.calls != before {
					t.Errorf("%d calls after Remove", x.calls-before)
				}
				check(t, x.l.Remove(&x.w)) // again: nothing
				// The same watch can serve again.
				check(t, x.l.Watch(&x.w, fd, eventloop.Readable, onEvent(func(w *eventloop.Watch, _ eventloop.Event) { check(t, x.l.Remove(w)) })))
			})
			turns(t, x.l, 2)
		})
	}
}

// A condition that Modify dropped is not delivered from an event fetched before.
func TestModifyMasksTheSameBatch(t *testing.T) {
	l := start(t, eventloop.Options{})
	var w [2]eventloop.Watch
	var calls int
	h := onEvent(func(me *eventloop.Watch, _ eventloop.Event) {
		calls++
		for i := range w {
			check(t, l.Modify(&w[i], 0))
		}
	})
	on(t, l, func() {
		for i := range w {
			check(t, l.Watch(&w[i], ready(t), eventloop.Readable, h))
		}
	})
	turns(t, l, 3)
	on(t, l, func() {
		if calls != 1 {
			t.Errorf("%d calls, want 1", calls)
		}
	})
}

func TestMisuseOfWatch(t *testing.T) {
	l := start(t, eventloop.Options{})
	other := start(t, eventloop.Options{})
	fd := silent(t)
	nothing := onEvent(func(*eventloop.Watch, eventloop.Event) {})
	on(t, l, func() {
		var w, w2, never eventloop.Watch
		check(t, l.Watch(&w, fd, eventloop.Readable, nothing))
		tests := []struct {
			name string
			err  error
			want error
		}{
			{"watch twice", l.Watch(&w, fd, eventloop.Readable, nothing), eventloop.ErrActive},
			{"second watch of a descriptor", l.Watch(&w2, fd, eventloop.Readable, nothing), unix.EEXIST},
			{"negative descriptor", l.Watch(&w2, -1, eventloop.Readable, nothing), unix.EBADF},
			{"descriptor that is not open", l.Watch(&w2, 1<<20, eventloop.Readable, nothing), unix.EBADF},
			{"modify what is not active", l.Modify(&never, eventloop.Readable), eventloop.ErrNotActive},
			{"remove what is not active", l.Remove(&never), nil},
		}
		for _, tt := range tests {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
			}
		}
		if w2.Active() {
			t.Error("a watch that failed is active")
		}
		l.Forget(&never)
		check(t, l.Remove(&w))
	})
	on(t, other, func() {
		var w eventloop.Watch
		check(t, other.Watch(&w, fd, eventloop.Readable, nothing))
		check(t, other.Remove(&w))
	})
}

// Closing a descriptor before Remove is a mistake of the caller that must not hurt others.
func TestClosedBeforeRemove(t *testing.T) {
	l := start(t, eventloop.Options{})
	on(t, l, func() {
		nothing := onEvent(func(*eventloop.Watch, eventloop.Event) {})
		var lost, next, gone eventloop.Watch
		fd := silent(t)
		check(t, l.Watch(&lost, fd, eventloop.Readable, nothing))
		check(t, unix.Dup3(silent(t), fd, unix.O_CLOEXEC))
		check(t, l.Watch(&next, fd, eventloop.Readable, nothing))
		if lost.Active() || !next.Active() {
			t.Errorf("lost watch active %v, next %v; want false, true", lost.Active(), next.Active())
		}
		check(t, l.Remove(&lost))
		if !next.Active() {
			t.Error("removing the lost watch ended the next")
		}
		check(t, l.Watch(&gone, silent(t), eventloop.Readable, nothing))
		check(t, unix.Dup3(silent(t), gone.FD(), unix.O_CLOEXEC))
		if err := l.Remove(&gone); !errors.Is(err, unix.ENOENT) {
			t.Errorf("remove after close: %v, want ENOENT", err)
		}
		if gone.Active() {
			t.Error("watch active after Remove")
		}
		check(t, l.Remove(&next))
	})
}

func TestHangup(t *testing.T) {
	const half, whole = eventloop.Hangup, eventloop.Hangup | eventloop.Broken
	tests := []struct {
		name string
		want eventloop.Event // of interest
		act  func(a, b int) error
		ev   eventloop.Event // expected
	}{
		{"half-close", eventloop.Readable | eventloop.Hangup, func(_, b int) error { return unix.Shutdown(b, unix.SHUT_WR) }, eventloop.Readable | half},
		{"half-close, not asked for", eventloop.Readable, func(_, b int) error { return unix.Shutdown(b, unix.SHUT_WR) }, eventloop.Readable},
		{"close", eventloop.Readable | eventloop.Hangup, func(_, b int) error { return unix.Shutdown(b, unix.SHUT_RDWR) }, eventloop.Readable | whole},
		{"close, not asked for", 0, func(_, b int) error { return unix.Shutdown(b, unix.SHUT_RDWR) }, whole},
		{"data, then half-close", eventloop.Readable | eventloop.Hangup, func(_, b int) error {
			_, err := unix.Write(b, []byte("last words"))
			return errors.Join(err, unix.Shutdown(b, unix.SHUT_WR))
		}, eventloop.Readable | half},
	}
	for _, mode := range []eventloop.Event{0, eventloop.Edge} {
		for _, tt := range tests {
			name := tt.name
			if mode != 0 {
				name += ", edge"
			}
			t.Run(name, func(t *testing.T) {
				l := start(t, eventloop.Options{})
				a, b := pair(t)
				var w eventloop.Watch
				got := make(chan eventloop.Event, 1)
				on(t, l, func() {
					check(t, tt.act(a, b))
					check(t, l.Watch(&w, a, tt.want|mode, onEvent(func(w *eventloop.Watch, ev eventloop.Event) {
						check(t, l.Remove(w))
						got <- ev
					})))
				})
				if ev := await(t, got, "an event"); ev != tt.ev {
					t.Errorf("got event %b, want %b", ev, tt.ev)
				}
			})
		}
	}
}

// The edge of a hangup that comes while the watch is established, and is left unread, comes once.
func TestHangupEdgeComesOnce(t *testing.T) {
	l := start(t, eventloop.Options{})
	a, b := pair(t)
	var w eventloop.Watch
	got := make(chan eventloop.Event, 8)
	on(t, l, func() {
		check(t, l.Watch(&w, a, eventloop.Readable|eventloop.Hangup|eventloop.Edge,
			onEvent(func(_ *eventloop.Watch, ev eventloop.Event) { got <- ev })))
	})
	must(t, unix.Shutdown(b, unix.SHUT_WR))
	if ev := await(t, got, "the hangup"); ev != eventloop.Readable|eventloop.Hangup {
		t.Errorf("got event %b, want readable and hangup", ev)
	}
	turns(t, l, 3)
	if len(got) != 0 {
		t.Errorf("told %d times more", len(got))
	}
	on(t, l, func() { check(t, l.Remove(&w)) })
}

func TestResetOfTCP(t *testing.T) {
	l := start(t, eventloop.Options{})
	ln, addr := listen(t)
	c := dial(t, addr)
	s := accept(t, ln)
	var w eventloop.Watch
	got := make(chan eventloop.Event, 1)
	on(t, l, func() {
		check(t, l.Watch(&w, s, eventloop.Readable|eventloop.Hangup|eventloop.Edge, onEvent(func(w *eventloop.Watch, ev eventloop.Event) {
			check(t, l.Remove(w))
			got <- ev
		})))
	})
	must(t, unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	must(t, unix.Dup3(silent(t), c, unix.O_CLOEXEC)) // closes, and with linger 0 a close resets
	if ev := await(t, got, "the reset"); ev&eventloop.Hangup == 0 || ev&eventloop.Broken == 0 {
		t.Errorf("got event %b, want hangup and broken in it", ev)
	}
}

// Several loops share a listener. Every connection is accepted by one of them.
func TestExclusive(t *testing.T) {
	const loops, conns = 3, 60
	ln, addr := listen(t)
	accepted := make(chan int, conns)
	for range loops {
		l := start(t, eventloop.Options{})
		w := new(eventloop.Watch)
		on(t, l, func() {
			check(t, l.Watch(w, ln, eventloop.Readable|eventloop.Hangup|eventloop.Exclusive, onEvent(func(*eventloop.Watch, eventloop.Event) {
				for {
					fd, _, err := unix.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
					if err != nil {
						if err != unix.EAGAIN {
							t.Error(err)
						}
						return
					}
					accepted <- fd
				}
			})))
			if err := l.Modify(w, eventloop.Readable); !errors.Is(err, unix.EINVAL) {
				t.Errorf("modify of an exclusive watch: %v, want EINVAL", err)
			}
		})
	}
	for range conns {
		dial(t, addr)
		fd := await(t, accepted, "a connection to be accepted")
		must(t, unix.Close(fd))
	}
}

func listen(t testing.TB) (fd int, addr unix.Sockaddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 128))
	addr, err = unix.Getsockname(fd)
	must(t, err)
	return fd, addr
}

func dial(t testing.TB, addr unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Connect(fd, addr))
	return fd
}

// accept takes the connection that has just been made: over loopback it is in the queue when connect returns.
func accept(t testing.TB, ln int) int {
	t.Helper()
	fd, _, err := unix.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// Pending knows of the events of a batch that have not had their turn, and supposes that there are some where more was ready
// than a batch holds.
func TestPending(t *testing.T) {
	for _, c := range []struct {
		name string
		max  int
		want [2]bool // in the first call, in the second
	}{
		{"all in one batch", 3, [2]bool{true, false}},
		{"as many as a batch holds", 2, [2]bool{true, true}},
		{"more", 1, [2]bool{true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := start(t, eventloop.Options{MaxEvents: c.max})
			var w [2]eventloop.Watch
			var third eventloop.Watch
			called := make(chan bool, 2)
			h := onEvent(func(me *eventloop.Watch, _ eventloop.Event) {
				other := &w[0]
				if me == other {
					other = &w[1]
				}
				if c.max == 3 && l.Pending(&third) {
					t.Error("nothing has happened to the third")
				}
				called <- l.Pending(other)
			})
			on(t, l, func() {
				check(t, l.Watch(&third, silent(t), eventloop.Readable, h))
				for i := range w {
					check(t, l.Watch(&w[i], ready(t), eventloop.Readable|eventloop.Edge, h))
				}
			})
			for i, want := range c.want {
				if got := await(t, called, "a call"); got != want {
					t.Errorf("call %d: pending is %v", i, got)
				}
			}
			if c.max == 1 {
				return // the post that asks fills a batch
			}
			turns(t, l, 2)
			on(t, l, func() {
				if l.Pending(&w[0]) || l.Pending(&w[1]) || l.Pending(&eventloop.Watch{}) {
					t.Error("something is pending after all")
				}
			})
		})
	}
}

// A watch can be passed on: the same descriptor and interest, another memory and handler.
func TestPass(t *testing.T) {
	l := start(t, eventloop.Options{})
	fd := silent(t)
	var from, to eventloop.Watch
	called := make(chan *eventloop.Watch, 1)
	on(t, l, func() {
		check(t, l.Watch(&from, fd, eventloop.Readable|eventloop.Edge, onEvent(func(*eventloop.Watch, eventloop.Event) {
			t.Error("the former handler was called")
		})))
		l.Pass(&from, &to, onEvent(func(w *eventloop.Watch, _ eventloop.Event) { called <- w }))
		if from.Active() || !to.Active() || to.FD() != fd {
			t.Errorf("from is active: %v, to is: %v, with descriptor %d", from.Active(), to.Active(), to.FD())
		}
	})
	must(t, raise(fd))
	if w := await(t, called, "the event"); w != &to {
		t.Error("the handler was called with another watch")
	}
	on(t, l, func() { check(t, l.Remove(&to)) })
}

// raise makes a counter readable.
func raise(fd int) error {
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}
