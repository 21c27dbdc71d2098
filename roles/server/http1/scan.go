package http1

import "bytes"

// emptyLine reports whether the last line of b, which ends with LF, is empty.
func emptyLine(b []byte) bool {
	b = b[:len(b)-1]
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return len(b) == 0 || b[len(b)-1] == '\n'
}

// MaxEmptyLines bounds what a client may send before a request line. RFC 9112
// §2.2 asks to ignore at least one.
const MaxEmptyLines = 4

// SkipEmptyLines returns the length of the empty lines (CRLF only) that buf
// begins with, at most four. Call it where a request is to begin, and count from
// there again when more bytes have arrived, so that the bound holds.
func SkipEmptyLines(buf []byte) int {
	n := 0
	for n < 2*MaxEmptyLines && len(buf) >= n+2 && buf[n] == '\r' && buf[n+1] == '\n' {
		n += 2
	}
	return n
}

// HeadScan watches a head while it arrives. It finds the end, looking at each byte once
// however they drip in, and refuses early what Parse would refuse in the end: what
// does not begin as HTTP (such as a TLS ClientHello), a bare LF, and a head
// beyond its limits. The zero value is the beginning of a head; after an end or
// an error it has served its time. It holds no pointer (12 bytes), so that it may
// lie in shared memory.
type HeadScan struct {
	// seen is the number of bytes already looked at.
	seen uint32
	// fields is the number of complete lines, the first line not counted.
	fields uint32
	part   scanPart
}

type scanPart uint8

const (
	inMethod scanPart = iota // before the first space
	inLine                   // in the rest of the first line
	inFields
)

// Request looks at buf, which begins with the head of a request and is what it
// was at the last call with more bytes after it. It returns the length of the
// head, 0 if it is not complete, or an *Error with the status to answer with.
func (s *HeadScan) Request(buf []byte, lim *Limits) (int, error) {
	if s.part != inFields {
		if e := s.requestLine(buf, lim); e != nil {
			return 0, e
		}
	}
	return s.rest(buf, lim)
}

// Response is Request for the head of a response. Its errors have Status 502.
func (s *HeadScan) Response(buf []byte, lim *Limits) (int, error) {
	if s.part != inFields {
		if e := s.statusLine(buf, lim); e != nil {
			return 0, e
		}
	}
	end, err := s.rest(buf, lim)
	if err != nil {
		return 0, originFault(err.(*Error))
	}
	return end, nil
}

func (s *HeadScan) requestLine(buf []byte, lim *Limits) *Error {
	i := int(s.seen)
	if len(buf) == 1 && buf[0] == '\r' {
		return nil // half an empty line; see SkipEmptyLines
	}
	for limit := min(len(buf), lim.requestLine()+2, lim.head()); i < limit; i++ {
		c := buf[i]
		switch {
		case c == '\n':
			return s.lineEnd(buf, i)
		case s.part == inMethod && c == ' ' && i > 0:
			s.part = inLine
		case s.part == inMethod && classes[c]&isToken == 0:
			return errMethod
		case s.part == inMethod && i >= maxMethod:
			return errMethodLong
		case i > 0 && buf[i-1] == '\r':
			return errBareCR
		case c != '\r' && (c < ' ' || c > '~'):
			return errTarget
		}
	}
	s.seen = uint32(i)
	if i >= lim.requestLine()+2 {
		return errLineTooLong
	}
	return nil
}

func (s *HeadScan) lineEnd(buf []byte, i int) *Error {
	if i == 0 || buf[i-1] != '\r' {
		return errBareLF
	}
	s.seen, s.part = uint32(i+1), inFields
	return nil
}

func (s *HeadScan) statusLine(buf []byte, lim *Limits) *Error {
	const start = "HTTP/1."
	for i := int(s.seen); i < min(len(buf), len(start)); i++ {
		if buf[i] != start[i] {
			return errStatusLine
		}
	}
	limit := lim.requestLine() + 2
	line := buf[:min(len(buf), limit, lim.head())]
	k := bytes.IndexByte(line[s.seen:], '\n')
	if k >= 0 {
		return originFaultOrNil(s.lineEnd(buf, int(s.seen)+k))
	}
	s.seen = uint32(len(line))
	if len(line) == limit {
		return errStatusTooLong
	}
	return nil
}

func originFaultOrNil(e *Error) *Error {
	if e == nil {
		return nil
	}
	return originFault(e)
}

// rest looks for the end of the fields.
func (s *HeadScan) rest(buf []byte, lim *Limits) (int, error) {
	limit := lim.head()
	b := buf[:min(len(buf), limit)]
	for s.part == inFields {
		i := int(s.seen)
		k := bytes.IndexByte(b[i:], '\n')
		if k < 0 {
			s.seen = uint32(len(b))
			break
		}
		i += k
		if i == 0 || b[i-1] != '\r' {
			return 0, errBareLF
		}
		s.seen = uint32(i + 1)
		if emptyLine(b[:i+1]) {
			return i + 1, nil
		}
		if s.fields++; int(s.fields) > lim.fields() {
			return 0, errTooManyFields
		}
	}
	if len(b) == limit {
		return 0, errHeadTooLarge
	}
	return 0, nil
}
