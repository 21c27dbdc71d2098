package http1

import "trafficd/roles/server/header"

// Response is a parsed response head. As with Request, spans are relative to
// the head given to Parse, no reference is kept, and the value is used again.
type Response struct {
	FieldSet

	// Status is 100 to 999.
	Status int
	// Reason is the reason phrase, possibly empty.
	Reason Span
	// Minor is 0 or 1. Higher minor versions count as 1 (RFC 9110 §2.5).
	Minor uint8
	// ContentLength is what the origin said, -1 if it did not. Whether there is
	// a body is for Body to say. It must be written anew from this number when
	// the response is forwarded or stored.
	ContentLength int64
	// Chunked: the body, if there is one, is chunked. Never together with a
	// ContentLength.
	Chunked bool
	// Close: the connection must not be used for another request: the origin
	// said so, it speaks HTTP/1.0 without keep-alive, what Connection says is
	// malformed, or the head promises content where there can be none, so that
	// stray bytes could be taken for the next response. A body that ends with the
	// connection (UntilClose) is not counted here.
	Close bool
	// KeepAlive: the origin sent the option keep-alive.
	KeepAlive bool
	// Upgrade: there is an Upgrade field and Connection nominates it, in HTTP/1.1.
	Upgrade bool
	// HeadLen is the number of bytes of the head, empty line included.
	HeadLen int
}

// Parse parses the head that b begins with; b may hold more. The error is nil,
// ErrIncomplete, or another *Error, always with Status 502: the response is not
// to be forwarded and the connection to be closed.
//
// Each interim response (see Interim) is a head of its own: parse the next one
// after it.
func (r *Response) Parse(b []byte, lim *Limits) error {
	if e := r.parse(b, lim); e != nil {
		return originFault(e)
	}
	return nil
}

func (r *Response) parse(b []byte, lim *Limits) *Error {
	r.reset()
	if limit := lim.head(); len(b) > limit {
		b = b[:limit]
	}
	line := b
	if limit := lim.requestLine() + 2; len(line) > limit {
		line = line[:limit]
	}
	i, e := r.parseLine(line)
	if e == nil {
		i, e = r.FieldSet.parse(b, i, lim.fields())
	} else if e == ErrIncomplete && len(line) == lim.requestLine()+2 {
		return errStatusTooLong
	}
	if e != nil {
		if e == ErrIncomplete && len(b) == lim.head() {
			return errHeadTooLarge
		}
		return e
	}
	r.HeadLen = i
	return r.interpret(b)
}

// parseLine parses the status line with its CRLF (RFC 9112 §4). The reason
// phrase may be missing, with or without the space before it: many origins leave
// it out, and it decides nothing.
func (r *Response) parseLine(b []byte) (int, *Error) {
	const form = http11 + " ddd"
	for i := range min(len(b), len(form)) {
		c := b[i]
		switch {
		case matches(form[i], c):
		case i == 5 && classes[c]&isDigit != 0:
			return 0, errVersionUnknown
		case i == 7 && classes[c]&isDigit != 0:
		case i >= 9:
			return 0, errStatusCode
		default:
			return 0, errStatusLine
		}
	}
	if len(b) <= len(form) {
		return 0, ErrIncomplete
	}
	if b[9] == '0' {
		return 0, errStatusCode
	}
	r.Minor = min(b[7]-'0', 1)
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	i := len(form)
	switch b[i] {
	case ' ':
		i++
	case '\r':
	default:
		return 0, errStatusCode
	}
	start := i
	i = header.ScanText(b, i)
	if i+1 >= len(b) || b[i] != '\r' || b[i+1] != '\n' {
		return 0, valueFault(b, i)
	}
	r.Reason = span(start, i)
	return i + 2, nil
}

// interpret draws the consequences of the fields.
func (r *Response) interpret(b []byte) *Error {
	r.Close, r.KeepAlive, r.Upgrade = r.Minor == 0, false, false
	if r.present.Has(header.Connection) {
		c, e := r.connectionOptions(b)
		if e != nil {
			return e
		}
		r.KeepAlive = c.keepAlive
		r.Close = c.close || c.malformed || r.Minor == 0 && !c.keepAlive
		r.Upgrade = c.upgrade && r.Minor == 1 && r.upgrades(b)
	}
	return r.content(b)
}

// content finds what the fields say about the body. A response with both
// Transfer-Encoding and Content-Length, or Transfer-Encoding in HTTP/1.0, is
// refused: RFC 9112 §6.3 rule 3 and §6.1 let a client repair it, but a gateway
// that does passes on what may be an attempt at response splitting.
func (r *Response) content(b []byte) *Error {
	coded := r.present.Has(header.TransferEncoding)
	switch {
	case coded && r.Minor == 0:
		return errCoding10
	case coded && r.present.Has(header.ContentLength):
		return errLengthCoding
	}
	var e *Error
	if r.Chunked, e = r.chunked(b); e != nil {
		return e
	}
	if r.ContentLength, e = r.length(b); e != nil {
		return e
	}
	if !r.Chunked && r.ContentLength <= 0 {
		return nil
	}
	// RFC 9112 §6.1, RFC 9110 §8.6: neither field may stand in 1xx and 204.
	switch {
	case r.Status < 200:
		return errInterimContent
	case r.Status == 204:
		r.Close = true
	}
	return nil
}

// Body returns how the body is delimited, given the method of the request
// (RFC 9112 §6.3, rules 1 to 8 in their order).
func (r *Response) Body(method Method) Framing {
	switch {
	case r.Status == 101 || method == CONNECT && r.Status/100 == 2:
		return Tunnel
	case method == HEAD || r.Status < 200 || r.Status == 204 || r.Status == 304:
		return None
	case r.Chunked:
		return ChunkedBody
	case r.ContentLength >= 0:
		return Length
	}
	return UntilClose
}
