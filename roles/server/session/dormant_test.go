package session

import (
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/transaction"
)

// bedroom is a host whose loop runs, with sessions that are idle. Everything of it is done on its loop.
type bedroom struct {
	*Host
	t       *testing.T
	counts  *counter
	clients []int // the other ends
}

func newBedroom(t *testing.T, idle time.Duration) *bedroom {
	t.Helper()
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := buffer.New(buffer.Shape{Smalls: 8})
	if err != nil {
		t.Fatal(err)
	}
	b := &bedroom{t: t, counts: &counter{}}
	b.Host = &Host{
		Loop: l, Arena: a, Env: &transaction.Env{Loop: l}, Limits: &Limits{Idle: idle}, Stats: b.counts,
		Closed: func() { b.counts.closed++ }, Left: func(netip.Addr) {},
	}
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	t.Cleanup(func() {
		b.do(func() { b.CloseAll() })
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, fd := range b.clients {
			unix.Close(fd)
		}
	})
	return b
}

func (b *bedroom) do(f func()) {
	done := make(chan bool)
	if b.Loop.Post(func() { f(); close(done) }) {
		<-done
	}
}

// idle makes a session that has answered some requests and waits for the next.
func (b *bedroom) idle(served int) *Session {
	b.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.clients = append(b.clients, fds[1])
	s := b.takeSession()
	s.fd, s.served, s.counted, s.rx, s.tx, s.among = fds[0], served, true, 100, 200, true
	s.peer = netip.MustParseAddrPort("192.0.2.1:80")
	b.sessions.push(s)
	s.limit.Set(b.Limits.Idle)
	s.listen()
	return s
}

// Asleep a session is a little piece of memory; awake it is as it was.
func TestAnIdleSessionSleepsAndWakes(t *testing.T) {
	b := newBedroom(t, time.Hour)
	b.do(func() {
		s := b.idle(3)
		before := *s
		s.sleep()
		if b.asleep.n != 1 || b.sessions.n != 0 || b.Sessions() != 1 || len(b.spare) != 1 {
			t.Fatalf("%d asleep, %d awake, %d spare", b.asleep.n, b.sessions.n, len(b.spare))
		}
		s = b.asleep.head.wake()
		if s.fd != before.fd || s.served != 3 || s.rx != 100 || s.tx != 200 || !s.counted || !s.among || s.peer != before.peer ||
			s.phase != phaseIdle || !s.watch.Active() || s.limit.At() != before.limit.At() || b.Sessions() != 1 || b.asleep.n != 0 {
			t.Errorf("awake it is %+v, before it was %+v", s, before)
		}
	})
	if size := unsafe.Sizeof(dormant{}); size > 112 {
		t.Errorf("one that sleeps takes %d bytes", size)
	}
}

// What happens on the connection reaches the session that wakes.
func TestWhatComesWakesASession(t *testing.T) {
	b := newBedroom(t, time.Hour)
	var closed, asleep int
	b.do(func() {
		for range 3 {
			b.idle(1).sleep()
		}
		unix.Close(b.clients[1])
		b.clients = slices.Delete(b.clients, 1, 2)
	})
	for end := time.Now().Add(time.Minute); closed == 0 && time.Now().Before(end); {
		b.do(func() { closed, asleep = b.counts.closed, b.asleep.n })
	}
	if closed != 1 || asleep != 2 {
		t.Errorf("%d sessions ended with their client, %d sleep", closed, asleep)
	}
}

// The time limit between two requests holds for those that sleep, too.
func TestASleepingSessionExpires(t *testing.T) {
	b := newBedroom(t, 20*time.Millisecond)
	b.do(func() {
		for range 100 { // more than one turn's
			b.idle(1).sleep()
		}
	})
	n := 100
	for end := time.Now().Add(time.Minute); n > 0 && time.Now().Before(end); {
		b.do(func() { n = b.Sessions() })
	}
	b.do(func() {
		if n != 0 || b.counts.closed != 100 {
			t.Errorf("%d are still there, %d were closed", n, b.counts.closed)
		}
	})
}

// A session is not put to sleep while anything is going on there.
func TestWhoDoesNotSleep(t *testing.T) {
	b := newBedroom(t, time.Hour)
	for name, wake := range map[string]func(s *Session){
		"answering": func(s *Session) { s.phase = phaseAnswering },
		"new":       func(s *Session) { s.served = 0 },
		"running":   func(s *Session) { s.running = true },
		"posted":    func(s *Session) { s.turn = true },
		"readable":  func(s *Session) { s.readable = true },
		"ended":     func(s *Session) { s.eof = true },
		"hangup":    func(s *Session) { s.hangup = true },
		"waits":     func(s *Session) { s.waits = &Resumed{} },
		"looked":    func(s *Session) { s.looked = true },
		"blamed":    func(s *Session) { s.blamed.add(1) },
	} {
		b.do(func() {
			s := b.idle(1)
			was := *s
			wake(s)
			s.sleep()
			if b.asleep.n != 0 {
				t.Errorf("one that is %s sleeps", name)
				return
			}
			s.phase, s.running, s.turn, s.waits, s.eof = was.phase, false, false, nil, false
			s.close()
		})
	}
}

// Only who has been idle for longer than many others is put to sleep, and only if it still is.
func TestTheLastIdleOnesStayAwake(t *testing.T) {
	b := newBedroom(t, time.Hour)
	b.do(func() {
		var all []*Session
		for range awake + 10 {
			s := b.idle(1)
			all = append(all, s)
			b.idled(s)
			if len(all) == 5 {
				all[2].served++ // another request since
			}
		}
		if b.asleep.n != 9 || all[2].phase != phaseIdle || all[10].phase != phaseIdle {
			t.Errorf("%d sleep; the busy one is %v, the eleventh is %v", b.asleep.n, all[2].phase, all[10].phase)
		}
	})
}

// Those that sleep are there when sessions are counted, drained or make room for others.
func TestSleepersAreSessions(t *testing.T) {
	b := newBedroom(t, time.Hour)
	b.do(func() {
		for range 6 {
			b.idle(1).sleep()
		}
		if n := b.MakeRoom(2); n != 2 || b.Sessions() != 4 {
			t.Errorf("room for %d, %d are left", n, b.Sessions())
		}
		b.Drain()
		if b.Sessions() != 0 {
			t.Errorf("%d are left by a drain", b.Sessions())
		}
	})
}
