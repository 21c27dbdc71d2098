package queue

import "time"

// Action is what the manager does next about waiting connections.
type Action uint8

const (
	// Leave: they wait where they are.
	Leave Action = iota
	// Accept: move one round from the kernel's queue into the FIFO (Collect).
	Accept
	// Refuse: answer the oldest of the FIFO with 503, then decide again.
	Refuse
	// Stop: a ready server is there. Accept and refuse nothing more; it has,
	// or now gets, the word to go.
	Stop
)

// String is the action's name as it stands in logs.
func (a Action) String() string {
	switch a {
	case Leave:
		return "leave"
	case Accept:
		return "accept"
	case Refuse:
		return "refuse"
	case Stop:
		return "stop"
	}
	return "unknown"
}

// Reason says why an Action was chosen; one word for logs and metrics.
type Reason string

// The reasons of Decide.
const (
	ServerReady Reason = "server_ready" // Stop
	Expired     Reason = "expired"      // Refuse: the oldest has waited MaxWait
	NearlyFull  Reason = "nearly_full"  // Accept: a kernel queue is
	NoServer    Reason = "no_server"    // Accept: none ready for AcceptAfter
	Overflow    Reason = "overflow"     // Leave: would accept, but the FIFO is full
	Waiting     Reason = "waiting"      // Leave: nothing to do yet
)

// Policy is when the manager steps in between clients and an absent server.
type Policy struct {
	// AcceptAfter is how long there must have been no ready server before
	// connections are moved into the FIFO although the kernel has room. Until
	// then the kernel's queue is the better place: it has no process that can
	// die with it. Never longer than MaxWait in effect, or the age limit could
	// not be kept.
	AcceptAfter time.Duration
	// MaxWait is how long a client waits at most before it is told 503.
	MaxWait time.Duration
}

// DefaultPolicy suits clients that give up after 30 s or more.
var DefaultPolicy = Policy{AcceptAfter: 2 * time.Second, MaxWait: 10 * time.Second}

// State is what the Gate decides on.
type State struct {
	ServerReady bool          // a server is ready to take connections
	Without     time.Duration // since when no server has been ready
	Backlog     Backlog       // of the fullest listener (Backlog.Fuller)
	Len, Limit  int           // of the FIFO
	Oldest      time.Duration // age of the FIFO's oldest; unused when Len is 0
}

// Decide is the policy, a pure function. Its rules, first match wins:
//
//	server ready                                 → stop    server_ready
//	FIFO not empty, oldest waited MaxWait        → refuse  expired
//	kernel nearly full,            FIFO full     → leave   overflow
//	no server for AcceptAfter,     FIFO full     → leave   overflow
//	kernel nearly full                           → accept  nearly_full
//	no server for AcceptAfter, somebody waiting  → accept  no_server
//	else                                         → leave   waiting
//
// A full FIFO refuses nobody before his time: the kernel then drops
// handshakes, which clients repeat unnoticed, and every refusal by age makes
// room for one who comes after.
func (p Policy) Decide(s State) (Action, Reason) {
	if s.ServerReady {
		return Stop, ServerReady
	}
	if s.Len > 0 && s.Oldest >= p.MaxWait {
		return Refuse, Expired
	}
	var why Reason
	switch {
	case s.Backlog.NearlyFull():
		why = NearlyFull
	case s.Backlog.Queued > 0 && s.Without >= min(p.AcceptAfter, p.MaxWait):
		why = NoServer
	default:
		return Leave, Waiting
	}
	if s.Len >= s.Limit {
		return Leave, Overflow
	}
	return Accept, why
}
