package queue

import "fmt"

// Condition is how a connection was left by the process that died.
type Condition uint8

const (
	// Idle: everything received has been answered. Wait for the next request.
	Idle Condition = iota
	// AcceptGap: accepted, and nothing more. Open a slot and serve it.
	AcceptGap
	// HalfRequest: Pending bytes of a request lie in the page. Parse them;
	// they may be a whole one, if the death came before Complete.
	HalfRequest
	// Unanswered: the request is whole, and not a byte of its answer is sent.
	// Answer it, with the head that is committed if there is one.
	Unanswered
	// PartlyAnswered: Sent bytes of head and body are. Go on from there.
	PartlyAnswered
	// Answered: all of it is sent; Finish was not reached. Finish it.
	Answered
	// Closing: it was being closed. Close it.
	Closing
	// Lost: it cannot go on; see Verdict.Reason.
	Lost

	conditions
)

var conditionNames = [conditions]string{
	"idle", "accept gap", "half a request", "unanswered", "partly answered", "answered", "closing", "lost",
}

// String returns the condition's name.
func (c Condition) String() string {
	if c < conditions {
		return conditionNames[c]
	}
	return fmt.Sprintf("condition %d", uint8(c))
}

// LossReason is why a connection is Lost.
type LossReason uint8

// The reasons. Gone is the client's doing. The others cannot happen as long as
// the protocol of Slot is kept, and are bugs of ours: the connection is closed
// rather than continued with wrong bytes.
const (
	NotLost LossReason = iota
	// Gone: reset, or closed by both sides.
	Gone
	// ConsumedTooFew: the socket was read less far than the request's beginning.
	ConsumedTooFew
	// WrittenTooFew: the socket was written less far than the answer's beginning.
	WrittenTooFew
	// SentWithoutHead: bytes were sent that no head was committed for.
	SentWithoutHead
	// SentTooMany: more was sent than head and body have.
	SentTooMany
	// NoPage: bytes were consumed and no page is named.
	NoPage
	// OutsidePage: the bytes consumed lie before or behind the page.
	OutsidePage
	// ShortRequest: fewer bytes were consumed than the request has.
	ShortRequest

	reasons
)

var reasonNames = [reasons]string{
	"not lost", "connection is gone", "consumed less than the journal says", "written less than the journal says",
	"sent without a head", "sent more than the answer has", "consumed without a page", "consumed bytes lie outside of the page",
	"request is shorter than the journal says",
}

// String returns the reason's text.
func (r LossReason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Verdict is what is to be done with an adopted connection.
type Verdict struct {
	Condition Condition
	Reason    LossReason // of Lost
	// Pending is the number of bytes received since the request's beginning:
	// this request and what was pipelined behind it. Those from Base on are in
	// the page; the ones before, of a long body, were passed on already.
	Pending uint64
	// Sent is the number of bytes of the answer, head first, that are sent.
	Sent uint64
}

// Classify says how a connection was left, from its slot and the kernel's
// counters. A slot with cookie 0 stands for no slot. A pure function: what the
// counters cannot have been read from (ErrConnectionOver) comes in as a
// Progress with the state TCPClose.
//
// An idle connection needs no counters: it has neither page nor head. Given
// all the same, they are checked.
func Classify(s SlotState, p Progress) Verdict {
	switch {
	case p.State == TCPClose:
		return lost(Gone)
	case s.Cookie == 0 && p.Written == 0 && p.Consumed == 0 && !p.State.WeDone():
		return Verdict{Condition: AcceptGap}
	case s.Cookie == 0:
		return Verdict{Condition: Closing}
	case p.Consumed < s.Rx:
		return lost(ConsumedTooFew)
	case p.Written < s.Tx:
		return lost(WrittenTooFew)
	}
	v := Verdict{Pending: p.Consumed - s.Rx, Sent: p.Written - s.Tx}
	if r := pendingReason(s, p.Consumed, v.Pending); r != NotLost {
		return lost(r)
	}
	if s.Head.Length == 0 {
		return v.withoutHead(s)
	}
	return v.withHead(s)
}

func lost(r LossReason) Verdict { return Verdict{Condition: Lost, Reason: r} }

// pendingReason checks that the bytes received since Rx are where the slot
// says.
func pendingReason(s SlotState, consumed, pending uint64) LossReason {
	switch {
	case pending < s.Request:
		return ShortRequest
	case pending == 0:
		return NotLost
	case s.Page == 0:
		return NoPage
	case s.Behind(consumed) > uint64(s.Page.Len()):
		return OutsidePage
	}
	return NotLost
}

func (v Verdict) withoutHead(s SlotState) Verdict {
	switch {
	case v.Sent > 0:
		return lost(SentWithoutHead)
	case v.Pending == 0:
		v.Condition = Idle
	case s.Request == 0:
		v.Condition = HalfRequest
	default:
		v.Condition = Unanswered
	}
	return v
}

func (v Verdict) withHead(s SlotState) Verdict {
	head := uint64(s.Head.Length)
	switch {
	case v.Sent == 0:
		v.Condition = Unanswered
	case s.Body == UnknownBody:
		v.Condition = PartlyAnswered
	case v.Sent > head+s.Body:
		return lost(SentTooMany)
	case v.Sent == head+s.Body:
		v.Condition = Answered
	default:
		v.Condition = PartlyAnswered
	}
	return v
}
