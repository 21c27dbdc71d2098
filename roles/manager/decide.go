package manager

import "strconv"

// activeView is the server that clients are served by, at one look.
type activeView uint8

const (
	activeNone    activeView = iota // there is none
	activeBurying                   // it died, and is being made sure of
	activeServing                   // it accepts; also while it drains because the operator said so
	activeLeaving                   // it goes, by itself: it no longer accepts
	numActiveViews
)

func (v activeView) String() string {
	return name(v, "none", "burying", "serving", "leaving")
}

// nextView is the server that is to follow, at one look.
type nextView uint8

const (
	nextHeld     nextView = iota // none, and the back-off or an alarm says not yet
	nextDue                      // none, and one may be started
	nextWanted                   // none, and the operator wants one
	nextStarting                 // on its way, within its start deadline
	nextOverdue                  // on its way, and its start deadline has passed
	numNextViews
)

func (v nextView) String() string {
	return name(v, "held", "due", "wanted", "starting", "overdue")
}

// action is what the manager does about what it saw.
type action uint8

const (
	wait  action = iota // nothing
	spawn               // start the next server
	abort               // give the next server up, through the gate
	numActions
)

func (a action) String() string { return name(a, "wait", "spawn", "abort") }

func name[E ~uint8](e E, names ...string) string {
	if int(e) < len(names) {
		return names[e]
	}
	return strconv.Itoa(int(e))
}

// table holds the manager's every decision about servers while the instance runs.
//
//   - One server serves and at most one is on its way: a next one is never started beside
//     another.
//   - A server that leaves unasked is followed while it finishes what it began.
//   - A dead server is made sure of before the next: two of them must never accept.
//   - What the operator wants does not wait for the back-off, but for the burial.
var table = [numActiveViews][numNextViews]action{
	activeNone:    {nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort},
	activeBurying: {nextHeld: wait, nextDue: wait, nextWanted: wait, nextStarting: wait, nextOverdue: abort},
	activeServing: {nextHeld: wait, nextDue: wait, nextWanted: spawn, nextStarting: wait, nextOverdue: abort},
	activeLeaving: {nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort},
}

// decide is the whole of the manager's judgement.
func decide(a activeView, n nextView) action { return table[a][n] }
