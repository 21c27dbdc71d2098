package session

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/transaction"
)

// newHost is a host without custody.
func newHost(t *testing.T) *Host {
	t.Helper()
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a, err := buffer.New(buffer.Shape{Records: 8, Smalls: 64, Larges: 4})
	if err != nil {
		t.Fatal(err)
	}
	var settings atomic.Pointer[transaction.Settings]
	settings.Store(&transaction.Settings{Via: "t"})
	return &Host{
		Loop: l, Arena: a, Env: &transaction.Env{Loop: l, Arena: a, Settings: &settings, Stats: &stats.Row{}},
		Limits: &Limits{Header: time.Minute, Idle: time.Minute}, Stats: &counter{}, Closed: func() {},
	}
}

// pair is a connection: the session's end, and the client's.
func pair(t *testing.T) (fd, client int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// A client that sends requests faster than they are answered gets its turn, and no more.
func TestATurnEnds(t *testing.T) {
	h := newHost(t)
	fd, client := pair(t)
	const n = 1000
	if _, err := unix.Write(client, []byte(strings.Repeat("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", n))); err != nil {
		t.Fatal(err)
	}
	s := h.takeSession()
	s.fd, s.readable, s.counted = fd, true, true
	h.sessions.push(s)
	s.run()
	if s.served == 0 || s.served > maxSteps || !s.turn {
		t.Errorf("%d requests in one turn, another is to come: %v", s.served, s.turn)
	}
	for turns := 0; s.served < n && turns < n; turns++ {
		if !s.turn {
			t.Fatalf("it waits after %d requests", s.served)
		}
		for b := make([]byte, 64<<10); ; {
			if k, _ := unix.Read(client, b); k <= 0 {
				break
			}
		}
		s.RunTask()
	}
	if s.served != n {
		t.Errorf("%d requests served", s.served)
	}
	s.abort()
}

// Who makes room: first those between two requests, oldest first, then those whose request does not
// come, then those that stall in the middle of one; and nobody else.
func TestWhoMakesRoom(t *testing.T) {
	h := newHost(t)
	now := h.Loop.Now()
	ago := func(d time.Duration) int64 { return now - int64(d) }
	add := func(p phase, served int, since int64, limit time.Duration) *Session {
		s := h.takeSession()
		s.fd, _ = pair(t)
		s.phase, s.served = p, served
		h.sessions.push(s)
		s.limit.Set(limit - time.Duration(now-since))
		return s
	}
	busy := func(up, down int64, reply bool) *Session {
		s := add(phaseAnswering, 1, now, time.Minute)
		s.work = h.takeWork()
		s.work.up.since, s.work.down.since = up, down
		if reply {
			s.work.reply = &transaction.Reply{}
		}
		return s
	}
	want := []*Session{
		add(phaseIdle, 1, ago(50*time.Second), time.Minute),
		add(phaseIdle, 7, ago(time.Second), time.Minute),
		add(phaseIdle, 0, ago(9*time.Second), time.Minute),
		add(phaseHead, 3, ago(8*time.Second), time.Minute),
		add(phaseHead, 0, ago(7*time.Second), time.Minute),
		busy(ago(30*time.Second), 0, false),
		busy(ago(10*time.Second), ago(20*time.Second), true),
	}
	pipelined := add(phaseIdle, 3, ago(50*time.Second), time.Minute)
	pipelined.turn = true
	stays := []*Session{
		pipelined,
		add(phaseHead, 0, ago(time.Second), time.Minute),
		add(phaseIdle, 0, ago(time.Second), time.Minute),
		busy(0, 0, false), busy(0, 0, true), busy(ago(time.Second), 0, false), busy(0, ago(time.Second), true),
	}
	for i, s := range want {
		if n := h.MakeRoom(1); n != 1 {
			t.Fatalf("victim %d: %d closed", i, n)
		}
		if s.phase != phaseClosed {
			t.Errorf("victim %d is %v", i, s.phase)
		}
	}
	if n := h.MakeRoom(10); n != 0 {
		t.Errorf("%d more were closed", n)
	}
	for _, s := range stays {
		s.work = nil
		s.abort()
	}
}

// The heap keeps those who go first, in whatever order they are found.
func TestVictimsAreTheFirst(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := 1 + random.IntN(20)
		var all []victim
		var h victims
		for range random.IntN(60) {
			v := victim{rank: random.IntN(3), since: random.Int64N(1000)}
			all = append(all, v)
			h.add(v, n)
		}
		order := func(a, b victim) int {
			return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.since, b.since))
		}
		slices.SortFunc(all, order)
		got := slices.SortedFunc(slices.Values(h), order)
		if want := all[:min(n, len(all))]; !slices.Equal(got, want) {
			t.Fatalf("%d of %v: %v", n, all, got)
		}
	}
}
