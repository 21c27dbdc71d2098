package http1

import "trafficd/roles/server/header"

// Span is a part of the caller's buffer: offsets relative to the beginning of
// the head that was parsed. It stays true when the head is copied elsewhere.
type Span struct{ Off, Len uint32 }

// In returns the bytes of s within the head it was parsed from, sharing memory.
func (s Span) In(head []byte) []byte { return head[s.Off : s.Off+s.Len : s.Off+s.Len] }

// End returns the offset after the last byte of s.
func (s Span) End() uint32 { return s.Off + s.Len }

func span(from, to int) Span { return Span{uint32(from), uint32(to - from)} }

// Field is one field line. Value has no blanks at its ends.
type Field struct {
	Name, Value Span
	ID          header.ID
}

// Limits bounds what a head may cost. A zero member takes its default.
type Limits struct {
	// RequestLine is the greatest length of a request line in bytes, CRLF not
	// counted; beyond it 414. For a response it bounds the status line.
	RequestLine int
	// Head is the greatest length of a whole head in bytes, empty line included;
	// beyond it 431.
	Head int
	// Fields is the greatest number of field lines; beyond it 431.
	Fields int
}

// DefaultLimits is what a zero member of Limits, or a nil *Limits, stands for.
var DefaultLimits = Limits{RequestLine: 8 << 10, Head: 32 << 10, Fields: 128}

// maxFields keeps field numbers within the index of FieldSet.
const maxFields = 1<<16 - 1

func (l *Limits) requestLine() int {
	if l == nil || l.RequestLine <= 0 {
		return DefaultLimits.RequestLine
	}
	return l.RequestLine
}

func (l *Limits) head() int {
	if l == nil || l.Head <= 0 {
		return DefaultLimits.Head
	}
	return l.Head
}

func (l *Limits) fields() int {
	if l == nil || l.Fields <= 0 {
		return DefaultLimits.Fields
	}
	return min(l.Fields, maxFields)
}

// Method is a request method that the engine knows.
type Method uint8

// The methods. Any other valid token is Other: look at Request.MethodName.
const (
	Other Method = iota
	GET
	HEAD
	POST
	PUT
	DELETE
	OPTIONS
	TRACE
	CONNECT
	PATCH
	PURGE
	numMethods
)

var methodNames = [numMethods]string{
	Other: "other", GET: "GET", HEAD: "HEAD", POST: "POST", PUT: "PUT", DELETE: "DELETE",
	OPTIONS: "OPTIONS", TRACE: "TRACE", CONNECT: "CONNECT", PATCH: "PATCH", PURGE: "PURGE",
}

// String returns the method's name, "other" for Other.
func (m Method) String() string {
	if m >= numMethods {
		return methodNames[Other]
	}
	return methodNames[m]
}

// Safe reports whether the method asks for no change (RFC 9110 §9.2.1).
func (m Method) Safe() bool { return m == GET || m == HEAD || m == OPTIONS || m == TRACE }

// Idempotent reports whether a request may be sent again when it is not known
// whether it was carried out (RFC 9110 §9.2.2). Other and PURGE may not.
func (m Method) Idempotent() bool { return m.Safe() || m == PUT || m == DELETE }

// LookupMethod returns the method of that name; methods are case-sensitive
// (RFC 9110 §9.1).
func LookupMethod(name []byte) Method {
	switch string(name) {
	case "GET":
		return GET
	case "HEAD":
		return HEAD
	case "POST":
		return POST
	case "PUT":
		return PUT
	case "DELETE":
		return DELETE
	case "OPTIONS":
		return OPTIONS
	case "TRACE":
		return TRACE
	case "CONNECT":
		return CONNECT
	case "PATCH":
		return PATCH
	case "PURGE":
		return PURGE
	}
	return Other
}

// Form is the form of a request target (RFC 9112 §3.2).
type Form uint8

// The four forms.
const (
	OriginForm Form = iota
	AbsoluteForm
	AuthorityForm
	AsteriskForm
)

// Framing is how the body of a response is delimited (RFC 9112 §6.3).
type Framing uint8

// The ways a body ends.
const (
	// None: there is no body, whatever the fields say.
	None Framing = iota
	// Length: ContentLength bytes.
	Length
	// ChunkedBody: a chunked body; use Chunked.
	ChunkedBody
	// UntilClose: all that comes until the connection is closed.
	UntilClose
	// Tunnel: the connection is no longer HTTP.
	Tunnel
)

var framingNames = [...]string{"none", "length", "chunked", "until close", "tunnel"}

// String returns a short name for logs.
func (f Framing) String() string { return framingNames[f] }
