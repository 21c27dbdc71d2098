package session

import (
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/transaction"
	"trafficd/roles/server/tunnel"
)

// turning is a body that another loop completes between two looks.
type turning struct {
	p     []byte
	state origin.BodyState
}

func (b *turning) Bytes(int64) ([]byte, origin.BodyState) { return b.p, b.state }
func (b *turning) Release(int64)                          {}

// Nothing was at hand a moment ago. What settled finds now may have come since,
// and must then be sent, not be taken for a failure.
func TestABodyMayMoveBetweenTwoLooks(t *testing.T) {
	for name, c := range map[string]struct {
		work
		body turning
	}{
		"more":            {work{end: 100}, turning{[]byte("x"), origin.BodyWait}},
		"end of chunks":   {work{chunked: true}, turning{nil, origin.BodyEnd}},
		"end of the rest": {work{untilClose: true, end: -1, outHi: 1}, turning{nil, origin.BodyEnd}},
	} {
		t.Run(name, func(t *testing.T) {
			c.work.reply = &transaction.Reply{Body: &c.body}
			s := &Session{phase: phaseAnswering, work: &c.work}
			if !s.settled() || s.phase != phaseAnswering {
				t.Errorf("the session does not look again; it is %v", s.phase)
			}
		})
	}
}

// An interim response that went out in part only must be the last thing that the
// client gets.
func TestWhatIsCutShortEndsTheSession(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	counts := &counter{}
	h := &Host{Loop: l, Stats: counts, Closed: func() { counts.closed++ }}
	s := h.takeSession()
	s.fd, s.phase, s.work = fds[0], phaseAnswering, &work{}
	h.sessions.push(s)
	s.sendNow(make([]byte, 8<<20))
	if s.phase != phaseAnswering || !s.work.cut {
		t.Errorf("the session is %v within the call, cut: %v", s.phase, s.work.cut)
	}
	s.work.reply = &transaction.Reply{Status: 200}
	l.Post(func() { l.Close() })
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if s.phase != phaseClosed || counts.aborted != 1 || counts.closed != 1 || h.Sessions() != 0 {
		t.Errorf("the session is %v; %+v", s.phase, counts)
	}
}

// counter counts what the tests of this package look at.
type counter struct{ aborted, closed int }

func (c *counter) Request()                    {}
func (c *counter) Response(int)                {}
func (c *counter) Received(int)                {}
func (c *counter) Sent(int)                    {}
func (c *counter) Malformed()                  {}
func (c *counter) Aborted()                    { c.aborted++ }
func (c *counter) Timeout(Timeout)             {}
func (c *counter) NoBuffers()                  {}
func (c *counter) Evicted()                    {}
func (c *counter) TunnelOpened()               {}
func (c *counter) TunnelClosed(tunnel.Summary) {}
