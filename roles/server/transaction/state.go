package transaction

// state is where a transaction stands.
type state uint8

const (
	idle       state = iota // no request
	looking                 // deciding how to answer
	waiting                 // following a fetch that has no head yet
	answering               // the session sends the reply
	tunnelling              // the connections are joined; HTTP is over
	numStates
)

func (s state) String() string {
	return [...]string{"idle", "looking", "waiting", "answering", "tunnelling"}[s]
}

// event is what happens to a transaction.
type event uint8

const (
	evBegin    event = iota // a request has come
	evAnswer                // a reply is at hand
	evFetch                 // a fetch is followed
	evAgain                 // the fetch was for nothing: look again
	evApart                 // the fetch's response is for others only
	evMoved                 // the body has grown, ended or failed
	evSwitched              // the origin has left HTTP
	evEnd                   // the session is done with it, or gives it up
	numEvents
)

func (e event) String() string {
	return [...]string{"begin", "answer", "fetch", "again", "apart", "moved", "switched", "end"}[e]
}

// A step is one cell of the table: what to do, once in the next state.
type step struct {
	next state
	do   func(*Transaction)
}

// steps is the state machine. A cell without an action cannot happen; taking it
// is a bug.
var steps [numStates][numEvents]step

func init() {
	steps = [numStates][numEvents]step{
		idle: {
			evBegin: {looking, (*Transaction).look},
			evEnd:   {idle, (*Transaction).nothing},
		},
		looking: {
			evAnswer: {answering, (*Transaction).wake},
			evFetch:  {waiting, (*Transaction).nothing},
		},
		waiting: {
			evAnswer:   {answering, (*Transaction).wake},
			evAgain:    {looking, (*Transaction).lookAgain},
			evApart:    {looking, (*Transaction).fetchApart},
			evSwitched: {tunnelling, (*Transaction).wake},
			evEnd:      {idle, (*Transaction).release},
		},
		answering: {
			evMoved: {answering, (*Transaction).wake},
			evEnd:   {idle, (*Transaction).release},
		},
		tunnelling: {
			evEnd: {idle, (*Transaction).release},
		},
	}
}

// on takes the step for ev.
func (t *Transaction) on(ev event) {
	s := &steps[t.state][ev]
	if s.do == nil {
		panic("transaction: " + ev.String() + " while " + t.state.String())
	}
	t.state = s.next
	s.do(t)
}

func (t *Transaction) nothing() {}
