package manager

import "strconv"

// activeView is the server that clients are served by, at one look.
type activeView uint8

const (
	activeNone    activeView = iota // there is none
	activeBurying                   // it died, and is being made sure of; its successor may serve already
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
	nextStanding                 // it stands by
	nextCalled                   // it stands by, and is wanted in the active one's place
	nextUnfit                    // it stands by, and could not or should not take over: it hangs, or is not what is wanted
	numNextViews
)

func (v nextView) String() string {
	return name(v, "held", "due", "wanted", "starting", "overdue", "standing", "called", "unfit")
}

// action is what the manager does about what it saw.
type action uint8

const (
	wait    action = iota // nothing
	spawn                 // start the next server
	abort                 // give the next server up, through the gate
	relieve               // have the active server make way for the next
	numActions
)

func name[E ~uint8](e E, names ...string) string {
	if int(e) < len(names) {
		return names[e]
	}
	return strconv.Itoa(int(e))
}

type row [numNextViews]action

// tables hold the manager's every decision about servers while the instance runs: without
// custody, where a next server is started when there is need of one, and with it, where one
// always stands by.
//
//   - One server serves and at most one is on its way or stands by: a next one is never
//     started beside another.
//   - A server that leaves unasked is followed while it finishes what it began; one that
//     stands by finishes that in its place.
//   - A dead server is made sure of before the next is started. A standby does not wait for
//     that: the kernel has told it of the death, and the lock and the journal let it pass.
//     What it cannot do is wait for us.
//   - What the operator wants does not wait for the back-off, but for the burial.
//   - A standby that is unfit is replaced while there is time: not in the middle of a death.
var tables = map[bool]*[numActiveViews]row{
	false: {
		activeNone: {
			nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: wait, nextUnfit: abort,
		},
		activeBurying: {
			nextHeld: wait, nextDue: wait, nextWanted: wait, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: wait, nextUnfit: wait,
		},
		activeServing: {
			nextHeld: wait, nextDue: wait, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: relieve, nextUnfit: abort,
		},
		activeLeaving: {
			nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: relieve, nextCalled: relieve, nextUnfit: abort,
		},
	},
	true: {
		activeNone: {
			nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: wait, nextUnfit: abort,
		},
		activeBurying: {
			nextHeld: wait, nextDue: wait, nextWanted: wait, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: wait, nextUnfit: wait,
		},
		activeServing: {
			nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: wait, nextCalled: relieve, nextUnfit: abort,
		},
		activeLeaving: {
			nextHeld: wait, nextDue: spawn, nextWanted: spawn, nextStarting: wait, nextOverdue: abort,
			nextStanding: relieve, nextCalled: relieve, nextUnfit: abort,
		},
	},
}

// decide is the whole of the manager's judgement. custody: it is in force.
func decide(custody bool, a activeView, n nextView) action { return tables[custody][a][n] }
