package custody

import (
	"trafficd/queue"
	"trafficd/roles/server/buffer"
)

// A Name is where the record of a fetch lies: it may be named from other loops
// than its own, and for a little longer than it is there. Serial tells whether it still
// is that fetch's. The zero Name names none.
type Name struct {
	Loop   uint32
	Page   buffer.Ref
	Serial uint64
}

// The steps of the server's records, for the tests that die at each of them.
const (
	StepHead     = queue.UserStep + iota // session: a page for a request head
	StepBody                             // session: a page for a request's body
	StepInterim                          // session: an interim response
	StepReply                            // session: the head of a reply
	StepChunk                            // session: a chunk of a reply
	StepNext                             // session: answered, more of the next request is there
	StepLinger                           // session: answered for the last time
	StepSent                             // session: something was sent, nothing is noted yet
	StepReceived                         // session: something was received, nothing is noted yet
	StepRequest                          // origin: the head of a request
	StepUpload                           // origin: a piece of a request's body
	StepResponse                         // origin: what was received is consumed
	StepOrigin                           // origin: a page to receive into
	StepTaken                            // origin: something was sent or received, nothing is noted yet
	StepFetch                            // fetch: begun
	StepOpened                           // fetch: the response's head is known
	StepWindow                           // fetch: the body goes on in the window
	StepEnded                            // fetch: over
	StepTunnel                           // tunnel: joined
	StepFlow                             // tunnel: a page for one direction
	StepMoved                            // tunnel: something was sent or received
	StepBlame                            // adoption: a request is blamed for the death
	StepAdopted                          // adoption: one more connection is restored
	StepServing                          // adoption: all of them are
	StepLine                             // access log: a line, before and after it is published
	StepBatch                            // access log: what is to be appended, and what is
	StepAppended                         // access log: something was appended, nothing is noted yet
	StepLogged                           // adoption: a request has its line already
	stepEnd
)

// Steps is how many steps there are, those of package queue included.
const Steps = int(stepEnd)
