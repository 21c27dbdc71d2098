package cop

import (
	"strconv"

	"trafficd/roles/internal/config"
)

// managerView is the manager as cop sees it at one look.
type managerView uint8

const (
	managerDown     managerView = iota // none, and the next may be started
	managerHeld                        // none, and the back-off or flap control says not yet
	managerStarting                    // not ready, within its start deadline
	managerOverdue                     // not ready, and its start deadline has passed
	managerUp                          // ready and answering, or not asked yet
	managerStruck                      // ready; failed its last probe, or several while it was busy
	managerWedged                      // ready; failed too often while a loop stood still
	managerStopping                    // asked to stop
	numManagerViews
)

func (v managerView) String() string {
	return name(v, "down", "held", "starting", "overdue", "up", "struck", "wedged", "stopping")
}

// serverView is the server as cop sees it at one look.
type serverView uint8

const (
	serverDown     serverView = iota // nobody holds server.lock
	serverStarting                   // alive and not ready: not probed
	serverUp                         // ready and answering, or not asked yet
	serverStruck                     // ready; failed its last probe, or several while it was busy
	serverWedged                     // ready; failed too often while a loop stood still
	serverDraining                   // alive and on its way out: not probed
	numServerViews
)

func (v serverView) String() string {
	return name(v, "down", "starting", "up", "struck", "wedged", "draining")
}

// action is what cop does about what it saw.
type action uint8

const (
	wait         action = iota // nothing, or it is somebody else's business
	spawn                      // start a manager; it adopts the server that there is
	replace                    // make sure the server is dead, then start a manager
	killManager                // through the gate
	abortManager               // through the gate: it never became ready
	killServer                 // through the gate; the manager starts the next
	numActions
)

func (a action) String() string {
	return name(a, "wait", "spawn", "replace", "kill manager", "abort manager", "kill server")
}

func name[E ~uint8](e E, names ...string) string {
	if int(e) < len(names) {
		return names[e]
	}
	return strconv.Itoa(int(e))
}

type row [numServerViews]action

// always is a row in which the server does not matter.
func always(a action) row { return row{a, a, a, a, a, a} }

// unlessWedged waits, but for a server that is wedged.
var unlessWedged = row{serverWedged: killServer}

// tables hold cop's every decision: what is seen of the manager × what is seen of the
// server → what to do, for each value of supervision.on_manager_death. They are the
// check_programs of the original, with its lessons:
//
//   - A manager that has died takes no healthy server along (adopt). The original killed
//     the server first; that is the row of restart, and of a server that is not healthy.
//     "Replace" with no server at all is the first start, and costs one look at a lock.
//   - One strike is not a verdict, for the server neither: a struck server is adopted.
//   - A server that starts or drains is not judged by its answers. The manager has a
//     deadline for either.
//   - A server that is down is the manager's to start. The original killed the manager
//     when server.lock was free twice; that was a race with every restart.
//   - Server and manager are judged apart. A sick manager never gets a healthy server
//     killed, and a wedged server is killed also while the manager is not well.
//   - While the manager starts it alone acts on the server: it may be adopting it.
var tables = map[string]*[numManagerViews]row{
	config.Adopt: {
		managerDown: {
			serverDown: replace, serverStarting: spawn, serverUp: spawn,
			serverStruck: spawn, serverWedged: replace, serverDraining: spawn,
		},
		managerHeld:     unlessWedged,
		managerStarting: always(wait),
		managerOverdue:  always(abortManager),
		managerUp:       unlessWedged,
		managerStruck:   unlessWedged,
		managerWedged:   always(killManager),
		managerStopping: always(wait),
	},
	config.Restart: {
		managerDown:     always(replace),
		managerHeld:     unlessWedged,
		managerStarting: always(wait),
		managerOverdue:  always(abortManager),
		managerUp:       unlessWedged,
		managerStruck:   unlessWedged,
		managerWedged:   always(killManager),
		managerStopping: always(wait),
	},
}

// decide is the whole of cop's judgement. onManagerDeath is a value of the setting of
// that name; another one is a bug.
func decide(onManagerDeath string, m managerView, s serverView) action {
	t := tables[onManagerDeath]
	if t == nil {
		panic("cop: no decision table for on_manager_death: " + onManagerDeath)
	}
	return t[m][s]
}
