package manager

import (
	"context"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/supervise"
)

// process is what the manager needs of a process: *supervise.Peer, or a test's own.
type process interface {
	PID() int
	Ready() <-chan struct{}
	Done() <-chan struct{}
	Refusal() error
	Status() supervise.Status
	Target() supervise.Target
	Release()
}

// line is a connection to a peer: *link.Conn, or a test's own.
type line interface {
	Hello() link.Hello
	Call(ctx context.Context, op string, body any, fds ...int) (*link.Message, error)
	Emit(op string, body any, fds ...int) error
}

// unit is one server process. Owned by the loop; a goroutine that waits for it has the
// unit as its name for it, and posts news of it, late or not.
type unit struct {
	p          process
	child      bool // started by this manager: it says when it is ready, and how it ended
	generation uint64
	started    time.Time
	exe        string // what it runs, as supervise.Identity says it; "": not known

	state  supervise.State
	since  time.Time // when state began
	asked  bool      // its end was asked for
	cold   bool      // started while nobody served
	served bool      // it has been the server
	reason string    // why its end was asked for or decided
	// parked: it drains because the operator said so, and goes on accepting.
	parked bool

	line line           // nil: it has not dialled in, or its link is down
	met  bool           // it has dialled in once
	born *config.Config // what it was given at its start; nil: not known
	cfg  *config.Config // what it was given last; nil: not known

	// Custody. journal is the one its connections are in, by inode; 0: none, or not said yet.
	journal uint64
	stood   time.Time // when it began to stand by; zero: it has not
	took    bool      // it has server.lock, by its own doing
	// overtaken: its standby has taken over, unasked, and its death has not been seen yet.
	overtaken   bool
	overtakenAt time.Time // when its standby said so, asked or not; zero: it has not
	yielding    bool      // a "yield" is under way
	strikes     supervise.Strikes
	verdict     supervise.Verdict
	probing     bool
	probed      time.Time

	// The hand-over. turn answers its "ready" call; nil: it has not called, or was answered.
	turn     func(error)
	told     bool // it has the "go"
	retiring bool // a "retire" is under way

	killing  bool
	kills    int                // begun so far, to tell the news of an earlier one
	stopKill context.CancelFunc // valid while killing
}

// enter takes the unit to the state that follows e and says what the manager owes it.
func (u *unit) enter(e supervise.Event, now time.Time) supervise.Action {
	next, do := supervise.Next(u.state, e)
	if next != u.state {
		u.state, u.since = next, now
	}
	return do
}

// readyFor returns how long the unit had been ready, be it to stand by, at now; 0: it is not.
func (u *unit) readyFor(now time.Time) time.Duration {
	switch {
	case u.state == supervise.Ready:
		return max(now.Sub(u.since), 1)
	case u.state == supervise.Standby:
		return max(now.Sub(u.stood), 1)
	}
	return 0
}

// answer gives the reply to a "ready" that waits, if there is one.
func (u *unit) answer(err error) {
	if u.turn != nil {
		u.turn(err)
		u.turn = nil
	}
}

// serves reports whether clients are in this unit's hands: it accepts, or has the word to.
func (u *unit) serves() bool {
	return u != nil && (u.state == supervise.Ready || u.parked || u.told && !u.state.Ends())
}

// placed reports whether the unit has, had or was to have the server's place, as far as we have been told. A unit that is
// not is a standby, or on its way to be one.
func (u *unit) placed() bool { return u.served || u.took || u.told || u.cold }

// stands reports whether the unit could take the active one's place: it waits for that one's
// death, or for our word.
func (u *unit) stands() bool {
	return !u.took && !u.told && (u.state == supervise.Standby || u.turn != nil)
}

func pidOf(u *unit) int {
	if u == nil {
		return 0
	}
	return u.p.PID()
}
