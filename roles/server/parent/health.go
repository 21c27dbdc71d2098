package parent

// State is what is known of a server.
type State uint8

// The states.
const (
	Up      State = iota // it answers, as far as is known
	Down                 // requests failed in a row
	Probing              // it was down; a request is under way that finds out
	Sick                 // its health checks fail
	numStates
)

func (s State) String() string { return [...]string{"up", "down", "probing", "sick"}[s] }

// event is what happens to a server.
type event uint8

const (
	evPass    event = iota // a response has begun
	evFail                 // a request got none
	evProbe                // a request would find out how it is
	evAbandon              // the request that was to find out is not wanted any more
	evGood                 // a health check was answered well
	evBad                  // a health check was not
	numEvents
)

func (e event) String() string {
	return [...]string{"pass", "fail", "probe", "abandon", "good", "bad"}[e]
}

// health is the state machine of one server. It knows no clock: rules has the time.
type health struct {
	state     State
	fails     int   // requests in a row
	good, bad int   // health checks in a row
	until     int64 // Down: no requests before that, while others are up
}

// rules is what a step goes by.
type rules struct {
	threshold  int   // failed requests in a row that mark a server down; 0: never
	downTime   int64 // ns
	rise, fall int   // health checks in a row
	now        int64 // monotonic ns
}

// A step is one cell of the table: the next state, if do agrees.
type step struct {
	next State
	do   func(*health, *rules) bool
}

// steps is the state machine. Every event can happen in every state: requests that were sent before a change
// end after it.
var steps = [numStates][numEvents]step{
	Up: {
		evPass:    {Up, (*health).clear},
		evFail:    {Down, (*health).failed},
		evProbe:   {Up, refuse}, // nothing is to be found out
		evAbandon: {Up, accept},
		evGood:    {Up, (*health).risen},
		evBad:     {Sick, (*health).fallen},
	},
	Down: {
		evPass:    {Up, (*health).clear}, // sent before, and proof all the same
		evFail:    {Down, accept},        // sent before: its time is not prolonged
		evProbe:   {Probing, accept},
		evAbandon: {Down, accept},
		evGood:    {Up, (*health).risen},
		evBad:     {Sick, (*health).fallen},
	},
	Probing: {
		evPass:    {Up, (*health).clear},
		evFail:    {Down, (*health).rest},
		evProbe:   {Probing, refuse}, // one at a time
		evAbandon: {Down, (*health).due},
		evGood:    {Up, (*health).risen},
		evBad:     {Sick, (*health).fallen},
	},
	Sick: {
		evPass:    {Sick, accept}, // it may answer requests and still say that it is not well
		evFail:    {Sick, accept},
		evProbe:   {Sick, refuse}, // the checks find out
		evAbandon: {Sick, accept},
		evGood:    {Up, (*health).risen},
		evBad:     {Sick, (*health).fallen},
	},
}

// on takes the step for ev and reports whether it was taken.
func (h *health) on(ev event, r *rules) bool {
	s := &steps[h.state][ev]
	if !s.do(h, r) {
		return false
	}
	h.state = s.next
	return true
}

func accept(*health, *rules) bool { return true }
func refuse(*health, *rules) bool { return false }

func (h *health) clear(*rules) bool {
	h.fails = 0
	return true
}

func (h *health) failed(r *rules) bool {
	h.fails++
	if r.threshold == 0 || h.fails < r.threshold {
		return false
	}
	return h.rest(r)
}

func (h *health) rest(r *rules) bool {
	h.until = r.now + r.downTime
	return true
}

func (h *health) due(r *rules) bool {
	h.until = r.now
	return true
}

func (h *health) risen(r *rules) bool {
	h.bad = 0
	if h.state == Up {
		return true // a check does not excuse failed requests
	}
	if h.good++; h.good < r.rise {
		return false
	}
	h.good, h.fails = 0, 0
	return true
}

func (h *health) fallen(r *rules) bool {
	h.good = 0
	if h.bad++; h.bad < r.fall {
		return false
	}
	h.bad = 0
	return true
}
