package http1

// Error says why a head or a body was refused. All values are package
// variables: making one costs nothing, and they may be compared.
type Error struct {
	// Status is the status code that answers it. Faults of an origin are 502.
	Status int
	// Reason names the fault, for logs. It never holds bytes from the peer.
	Reason string
}

// Error returns Reason.
func (e *Error) Error() string { return e.Reason }

// ErrIncomplete is returned by Parse for bytes that are good so far but do not
// hold the whole head. It is no fault: Status is 0.
var ErrIncomplete = &Error{0, "head is not complete"}

func bad(reason string) *Error { return &Error{400, reason} }

// Faults of any head.
var (
	errBareLF        = bad("bare line feed")
	errBareCR        = bad("bare carriage return")
	errControl       = bad("control character in field value")
	errObsFold       = bad("field line begins with a blank (obs-fold)")
	errNoName        = bad("field without a name")
	errNameBlank     = bad("blank before colon")
	errNameByte      = bad("invalid character in field name")
	errLookAlike     = bad("field name looks like one that decides about framing")
	errTooManyFields = &Error{431, "too many fields"}
	errHeadTooLarge  = &Error{431, "head too large"}
	errVersion       = bad("malformed protocol version")
	errLength        = bad("invalid content-length")
	errLengths       = bad("repeated content-length")
	errLengthCoding  = bad("both transfer-encoding and content-length")
	errCodingSyntax  = bad("malformed transfer-encoding")
	errCodingOrder   = bad("chunked is not the one and last transfer coding")
	errCodingUnknown = &Error{501, "transfer coding not implemented"}
	errCoding10      = bad("transfer-encoding in HTTP/1.0")
	errConnection    = bad("malformed connection field")
	errOptions       = &Error{431, "too many connection options"}
)

// Faults of a request.
var (
	errMethod         = bad("malformed method")
	errMethodLong     = &Error{501, "method too long"}
	errRequestLine    = bad("malformed request line")
	errLineTooLong    = &Error{414, "request line too long"}
	errTarget         = bad("invalid character in request target")
	errPercent        = bad("malformed percent-encoding in path")
	errForm           = bad("form of request target does not go with the method")
	errScheme         = bad("scheme of request target is not http or https")
	errVersionUnknown = &Error{505, "protocol version not supported"}
	errNoHost         = bad("no host field")
	errHosts          = bad("repeated host field")
	errHost           = bad("invalid host")
	errExpect         = &Error{417, "unknown expectation"}
	errContent        = bad("content where the method allows none")
)

// Faults of a response.
var (
	errStatusLine     = &Error{502, "malformed status line"}
	errStatusCode     = &Error{502, "malformed status code"}
	errStatusTooLong  = &Error{502, "status line too long"}
	errInterimContent = &Error{502, "interim response with content"}
)

// fromOrigin holds the faults of any head as faults of an origin. Immutable
// after init.
var fromOrigin = makeFromOrigin(errBareLF, errBareCR, errControl, errObsFold, errNoName, errNameBlank, errNameByte,
	errLookAlike, errTooManyFields, errHeadTooLarge, errVersion, errVersionUnknown, errLength, errLengths,
	errLengthCoding, errCodingSyntax, errCodingOrder, errCodingUnknown, errCoding10, errConnection, errOptions)

func makeFromOrigin(errs ...*Error) map[*Error]*Error {
	m := make(map[*Error]*Error, len(errs))
	for _, e := range errs {
		m[e] = &Error{502, e.Reason}
	}
	return m
}

// originFault returns e as a fault of an origin: Status 502.
func originFault(e *Error) *Error {
	if o := fromOrigin[e]; o != nil {
		return o
	}
	return e
}
