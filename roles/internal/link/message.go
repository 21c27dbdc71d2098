package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"trafficd/queue"
)

// Version is the version of the protocol. A peer of another is refused: two
// generations that must work together agree on it or are not started together.
const Version = 1

const (
	maxInline   = 32 << 10 // longer bodies travel in a memfd
	maxDatagram = 64 << 10
	maxOp       = 64
	maxText     = 4 << 10 // of an error
	// MaxBody is the longest body that can be sent.
	MaxBody = 16 << 20
)

// ErrMalformed reports that the peer sent what is no message of this protocol.
var ErrMalformed = errors.New("malformed message")

type kind string

const (
	kindCall  kind = "call"
	kindReply kind = "reply"
	kindEvent kind = "event"
)

// envelope is a message on the wire.
type envelope struct {
	V      int             `json:"v"`
	Kind   kind            `json:"kind"`
	ID     uint64          `json:"id,omitempty"` // of a call, and of its reply
	Op     string          `json:"op,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Memory int64           `json:"memory,omitempty"` // length of the body in the last descriptor
	Error  *RemoteError    `json:"error,omitempty"`  // replies only
}

// The codes of a RemoteError.
const (
	CodeVersion   = "version"    // the peers speak different versions
	CodeRefused   = "refused"    // hello was not accepted
	CodeUnknownOp = "unknown_op" // no handler
	CodeFailed    = "failed"     // the handler returned an error
)

// RemoteError is what the peer answered instead of a result. A handler may
// return one to choose the code.
type RemoteError struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Error implements error.
func (e *RemoteError) Error() string { return "peer answered " + e.Code + ": " + e.Text }

// VersionError reports a message of another protocol version.
type VersionError struct{ Got int }

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("link version %d is not spoken here, only %d", e.Got, Version)
}

// decode reads one datagram. It refuses whatever this version would not send,
// but for additional fields, which are ignored.
func decode(payload []byte, fds int) (*envelope, error) {
	var e envelope
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if e.V != Version {
		// Told apart even where the rest makes no sense to us.
		return &e, &VersionError{Got: e.V}
	}
	if why := e.fault(fds); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, why)
	}
	return &e, nil
}

func (e *envelope) fault(fds int) string {
	switch {
	case e.Kind != kindCall && e.Kind != kindReply && e.Kind != kindEvent:
		return fmt.Sprintf("kind %.20q", e.Kind)
	case (e.Kind == kindEvent) != (e.ID == 0):
		return "calls and replies have an id, events have none"
	case (e.Kind == kindReply) != (e.Op == ""):
		return "calls and events have an op, replies have none"
	case len(e.Op) > maxOp:
		return "op too long"
	case e.Kind != kindReply && e.Error != nil:
		return "error outside a reply"
	case e.Memory < 0 || e.Memory > MaxBody:
		return fmt.Sprintf("body of %d bytes", e.Memory)
	case e.Memory > 0 && (fds == 0 || len(e.Body) > 0):
		return "body in memory without descriptor, or twice"
	}
	return ""
}

// encode writes one datagram.
func (e *envelope) encode() ([]byte, error) {
	e.V = Version
	if e.Error != nil && len(e.Error.Text) > maxText {
		e.Error = &RemoteError{Code: e.Error.Code, Text: e.Error.Text[:maxText]}
	}
	if len(e.Op) > maxOp {
		return nil, fmt.Errorf("link: op %.20q… is too long", e.Op)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("link: encode %s: %w", e.Op, err)
	}
	if len(b) > maxDatagram {
		return nil, fmt.Errorf("link: encode %s: message of %d bytes, at most %d", e.Op, len(b), maxDatagram)
	}
	return b, nil
}

// Message is a call or event for a handler, or the reply to a Call. It owns
// its descriptors until they are taken.
type Message struct {
	// Op is the operation; empty in a reply.
	Op string
	// Body is the JSON text of the body; nil if there is none.
	Body json.RawMessage

	id uint64 // of a call; 0: event

	mu  sync.Mutex
	fds []int // guarded by mu
}

// Decode unmarshals the body into v.
func (m *Message) Decode(v any) error {
	if m.Body == nil {
		return fmt.Errorf("link: %s has no body", m.what())
	}
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("link: body of %s: %w", m.what(), err)
	}
	return nil
}

func (m *Message) what() string {
	if m.Op == "" {
		return "reply"
	}
	return m.Op
}

// TakeFDs gives all descriptors to the caller.
func (m *Message) TakeFDs() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	fds := m.fds
	m.fds = nil
	return fds
}

// Close closes the descriptors that were not taken. The link does it for a
// message given to a handler; who gets a reply from Call does it himself.
func (m *Message) Close() { queue.CloseAll(m.TakeFDs()) }
