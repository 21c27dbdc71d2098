package session

import (
	"time"

	"trafficd/roles/server/sock"
)

// A Pace is what a client must keep up while it is waited for: Bytes in every Window of waiting, all
// waits taken together. A client that stands still is given up after one Window, as one that
// moves a byte now and then, whose aim is to hold a place for ever.
type Pace struct {
	Window time.Duration // 0: no limit at all
	Rate   int64         // bytes a second; 0: a byte in a Window will do
}

// bytes is what a Window must bring.
func (p Pace) bytes() uint64 {
	return uint64(max(1, p.Rate*int64(p.Window/time.Millisecond)/1000))
}

// account is how a client stands in one direction. Only time counts in which it is waited
// for: what an origin takes for its part is not the client's fault. The zero value is even.
// A successor begins with an even account: a client gains one Window by the death of a server.
type account struct {
	since  int64  // monotonic ns when the wait that is on began; 0: none is
	waited int64  // ns of the waits before it, since the account was even
	moved  uint64 // bytes since then
}

// wait begins a wait, or finds one under way. It returns how much longer it may last; 0 is no limit.
func (a *account) wait(now int64, p Pace) time.Duration {
	if a.since == 0 {
		a.since = now
	}
	if p.Window <= 0 {
		return 0
	}
	return max(p.Window-time.Duration(a.waited+now-a.since), 1)
}

// move ends a wait: n bytes have moved.
func (a *account) move(now int64, n int, p Pace) {
	if a.since != 0 {
		a.waited += now - a.since
		a.since = 0
	}
	if a.moved += uint64(n); a.moved >= p.bytes() {
		a.waited, a.moved = 0, 0
	}
}

// running reports whether there is anything on the account, so that it must be kept.
func (a *account) running() bool { return a.since|a.waited != 0 }

// settle makes the account even, and begins the wait that is on anew.
func (a *account) settle(now int64) {
	*a = account{since: now}
}

// awaitBody limits the time until the client sends more of its request's body.
func (s *Session) awaitBody() {
	s.limit.Set(s.work.up.wait(s.host.Loop.Now(), s.host.Limits.Body))
}

// awaitOthers is called when there is nothing to send for now. The time is the origin's, unless the
// origin waits for more of the request's body.
func (s *Session) awaitOthers() {
	if s.work.up.since != 0 {
		s.awaitBody()
	} else {
		s.limit.Clear()
	}
}

// awaitReader limits the time until the client takes more of its reply. What it has taken by now
// is looked up when it begins to be counted, and once more before it is given up: what the
// kernel takes from us and what the client takes from the kernel can be megabytes apart.
func (s *Session) awaitReader() {
	a := &s.work.down
	if !a.running() {
		unsent := sock.Unsent(s.fd)
		s.taken = s.tx - uint64(unsent)
		s.holds(int64(unsent))
		s.fit()
	}
	s.limit.Set(a.wait(s.host.Loop.Now(), s.host.Limits.Write))
}

// keepsUp reports whether the client has taken enough of what was sent since that was last looked at.
func (s *Session) keepsUp() bool {
	taken := s.tx - uint64(sock.Unsent(s.fd))
	ok := taken-s.taken >= s.host.Limits.Write.bytes()
	s.taken = taken
	return ok
}

// leaves decides, when a session is about to be closed because nothing is asked any more, what
// becomes of replies that lie in the kernel. A client that takes them is given the time; from
// one that does not they are taken away with a reset: closed in peace, the kernel would go on
// offering them for a long time. It reports whether the session is to be closed.
func (s *Session) leaves() bool {
	if s.fd < 0 || sock.Unsent(s.fd) == 0 {
		return true
	}
	if s.looked && !s.keepsUp() {
		sock.ResetOnClose(s.fd)
		return true
	}
	if !s.looked {
		s.looked = true
		s.keepsUp()
	}
	s.limit.Set(s.host.Limits.Write.Window)
	return s.host.Limits.Write.Window <= 0
}
