package supervise

import "strconv"

// State is where a supervised process stands.
type State uint8

// The states, in the order in which a process passes through them.
const (
	Stopped  State = iota // no process
	Starting              // a process that has not said it is ready; it has a start deadline
	Ready                 // serving; it is probed
	Draining              // asked to stop; it has a drain deadline
	Standby               // it has done everything but begin, and waits to take over
	numStates
)

func (s State) String() string {
	switch s {
	case Stopped:
		return "stopped"
	case Starting:
		return "starting"
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	case Standby:
		return "standby"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Ends reports whether a process in this state is on its way out, or gone.
func (s State) Ends() bool { return s == Draining || s == Stopped }

// Event is what happened to a supervised process.
type Event uint8

// The events.
const (
	Started    Event = iota // the supervisor spawned it
	Adopted                 // the supervisor found it running and ready
	NowReady                // it said that it is ready
	Stop                    // the operator, or a hand-over, wants it to stop
	Exit                    // it is gone (its pidfd became readable)
	Deadline                // the time allowed for the present state is over
	Wedged                  // two probes in a row failed and its progress counter stands still
	NowStandby              // it said that it waits to take over
	numEvents
)

func (e Event) String() string {
	switch e {
	case Started:
		return "started"
	case Adopted:
		return "adopted"
	case NowReady:
		return "ready"
	case Stop:
		return "stop"
	case Exit:
		return "exit"
	case Deadline:
		return "deadline"
	case Wedged:
		return "wedged"
	case NowStandby:
		return "standby"
	}
	return "event(" + strconv.Itoa(int(e)) + ")"
}

// Action is what a supervisor owes a process after an event.
type Action uint8

// The actions.
const (
	Nothing       Action = iota // the event is late or says nothing new
	AwaitReady                  // arm the start deadline
	Announce                    // it is ready: probe it, tell who waits for it
	Drain                       // ask it to stop and arm the drain deadline
	Kill                        // through the Gate
	RestartFailed               // it died before it was ready: back off
	Restart                     // it died although it had been ready: at once, out of the budget
	Finish                      // it stopped because it was asked to
	numActions
)

func (a Action) String() string {
	switch a {
	case Nothing:
		return "nothing"
	case AwaitReady:
		return "await ready"
	case Announce:
		return "announce"
	case Drain:
		return "drain"
	case Kill:
		return "kill"
	case RestartFailed:
		return "restart failed start"
	case Restart:
		return "restart"
	case Finish:
		return "finish"
	}
	return "action(" + strconv.Itoa(int(a)) + ")"
}

type step struct {
	next State
	do   Action
}

// table is the whole of a supervised process's life.
//
// A standby has no time limit of its own, since it waits for another's death; the
// limit begins with that death, and is the supervisor's to set. One that dies is
// replaced like a server that was ready, since it had come as far.
//
// Two cells carry the lessons of the original. Wedged while starting does nothing:
// probing a server that is still loading its configuration killed it every 20 s
// (apache/trafficserver#4821); a start has a deadline of its own. And Exit while
// draining is not a failure, whatever the exit status says.
var table = [numStates][numEvents]step{
	Stopped: {
		Started:    {Starting, AwaitReady},
		Adopted:    {Ready, Announce},
		NowReady:   {Stopped, Nothing},
		Stop:       {Stopped, Nothing},
		Exit:       {Stopped, Nothing},
		Deadline:   {Stopped, Nothing},
		Wedged:     {Stopped, Nothing},
		NowStandby: {Stopped, Nothing},
	},
	Starting: {
		Started:    {Starting, Nothing},
		Adopted:    {Ready, Announce},
		NowReady:   {Ready, Announce},
		Stop:       {Draining, Drain},
		Exit:       {Stopped, RestartFailed},
		Deadline:   {Starting, Kill},
		Wedged:     {Starting, Nothing},
		NowStandby: {Standby, Nothing},
	},
	Ready: {
		Started:    {Ready, Nothing},
		Adopted:    {Ready, Nothing},
		NowReady:   {Ready, Nothing},
		Stop:       {Draining, Drain},
		Exit:       {Stopped, Restart},
		Deadline:   {Ready, Nothing},
		Wedged:     {Ready, Kill},
		NowStandby: {Ready, Nothing},
	},
	Draining: {
		Started:    {Draining, Nothing},
		Adopted:    {Draining, Nothing},
		NowReady:   {Draining, Nothing},
		Stop:       {Draining, Nothing},
		Exit:       {Stopped, Finish},
		Deadline:   {Draining, Kill},
		Wedged:     {Draining, Nothing},
		NowStandby: {Draining, Nothing},
	},
	Standby: {
		Started:    {Standby, Nothing},
		Adopted:    {Ready, Announce},
		NowReady:   {Ready, Announce},
		Stop:       {Draining, Drain},
		Exit:       {Stopped, Restart},
		Deadline:   {Standby, Kill},
		Wedged:     {Standby, Kill},
		NowStandby: {Standby, Nothing},
	},
}

// Next returns the state that follows s on e, and what the supervisor must do.
// It is total: every pair has an answer. A value outside the enumerations is a
// bug and panics.
func Next(s State, e Event) (State, Action) {
	if s >= numStates || e >= numEvents {
		panic("supervise: no cell for " + s.String() + " × " + e.String())
	}
	c := table[s][e]
	return c.next, c.do
}
