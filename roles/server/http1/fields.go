package http1

import (
	"bytes"

	"trafficd/roles/server/header"
)

// FieldSet is the field section of a head, with an index of the known fields.
// The zero value is ready for use; its memory is used again by each Parse.
type FieldSet struct {
	// Fields holds the field lines in the order received.
	Fields []Field

	present  header.Set
	repeated header.Set
	// first is the number of the first field line of an ID; only those in
	// present mean anything, so it need not be cleared.
	first [header.NumIDs]uint16
	// nominates: Connection names at least one field unknown to package header.
	nominates bool
}

// Has reports whether a field is present.
func (s *FieldSet) Has(id header.ID) bool { return s.present.Has(id) }

// HasAny reports whether any field of a set is present.
func (s *FieldSet) HasAny(ids *header.Set) bool { return s.present.Meets(ids) }

// Repeated reports whether a field has more than one field line.
func (s *FieldSet) Repeated(id header.ID) bool { return s.repeated.Has(id) }

// Get returns the first field line of id. Those of a repeated field are found by
// walking Fields.
func (s *FieldSet) Get(id header.ID) (Field, bool) {
	if !s.present.Has(id) {
		return Field{}, false
	}
	return s.Fields[s.first[id]], true
}

// Value returns the value of the first field line of id, or nil. head is what
// was parsed.
func (s *FieldSet) Value(head []byte, id header.ID) []byte {
	if !s.present.Has(id) {
		return nil
	}
	return s.Fields[s.first[id]].Value.In(head)
}

// HopByHop reports whether f must not be forwarded: it is hop-by-hop by its
// nature or nominated by Connection (RFC 9110 §7.6.1). Nominations of known
// end-to-end fields are ignored: the same section forbids them, and a client that makes
// one wants the origin to miss what it trusts (Host, Cookie, X-Forwarded-For, …).
func (s *FieldSet) HopByHop(head []byte, f *Field) bool {
	if f.ID != header.Unknown {
		return header.HopByHop(f.ID)
	}
	return s.nominates && s.nominated(head, f.Name.In(head))
}

// Nominates reports whether Connection names a field that is unknown to package header, so that it
// is not passed on. An origin then answers less than what was asked.
func (s *FieldSet) Nominates() bool { return s.nominates }

func (s *FieldSet) nominated(head, name []byte) bool {
	for i := range s.Fields {
		if s.Fields[i].ID != header.Connection {
			continue
		}
		l := header.Members(s.Fields[i].Value.In(head))
		for m, ok := l.Next(); ok; m, ok = l.Next() {
			if header.EqualFoldBytes(m, name) {
				return true
			}
		}
	}
	return false
}

func (s *FieldSet) reset() {
	s.Fields = s.Fields[:0]
	s.present, s.repeated = header.Set{}, header.Set{}
	s.nominates = false
}

// parse reads field lines from b[i:] up to and including the empty line, and
// returns the offset after it (RFC 9112 §5). It refuses what RFC 9112 allows a
// lenient recipient to repair: bare CR or LF, obs-fold, a blank before the colon.
func (s *FieldSet) parse(b []byte, i, limit int) (int, *Error) {
	for {
		f, next, e := fieldLine(b, i)
		if e != nil {
			return 0, e
		}
		if f.Name.Len == 0 {
			return next, nil
		}
		i = next
		if len(s.Fields) >= limit {
			return 0, errTooManyFields
		}
		if id := f.ID; id != header.Unknown {
			if s.present.Has(id) {
				s.repeated.Add(id)
			} else {
				s.present.Add(id)
				s.first[id] = uint16(len(s.Fields))
			}
		}
		s.Fields = append(s.Fields, f)
	}
}

// fieldLine parses the field line at i with its CRLF and returns the offset
// after it. For the empty line the field has no name.
func fieldLine(b []byte, i int) (f Field, next int, e *Error) {
	start := i
	for i < len(b) && classes[b[i]]&isToken != 0 {
		i++
	}
	if i == len(b) {
		return f, 0, ErrIncomplete
	}
	if b[i] != ':' || i == start {
		next, e = endOrFault(b, start, i)
		return f, next, e
	}
	name := i
	for i++; i < len(b) && classes[b[i]]&isBlank != 0; i++ {
	}
	value := i
	i = header.ScanText(b, i)
	if i+1 >= len(b) || b[i] != '\r' || b[i+1] != '\n' {
		return f, 0, valueFault(b, i)
	}
	end := i
	for end > value && classes[b[end-1]]&isBlank != 0 {
		end--
	}
	f = Field{span(start, name), span(value, end), header.Lookup(b[start:name])}
	if f.ID == header.Unknown && looksLikeFraming(b[start:name]) {
		return f, 0, errLookAlike
	}
	return f, i + 2, nil
}

// endOrFault handles a line that is no field line: name ended at i without a
// colon. That is the empty line, or a fault.
func endOrFault(b []byte, start, i int) (int, *Error) {
	switch c := b[i]; {
	case c == '\r' && i == start:
		switch {
		case i+1 == len(b):
			return 0, ErrIncomplete
		case b[i+1] == '\n':
			return i + 2, nil
		}
		return 0, errBareCR
	case c == '\n':
		return 0, errBareLF
	case i == start && classes[c]&isBlank != 0:
		return 0, errObsFold
	case i == start && c == ':':
		return 0, errNoName
	case classes[c]&isBlank != 0:
		return 0, errNameBlank
	}
	return 0, errNameByte
}

// valueFault says why a value does not end at i with CRLF.
func valueFault(b []byte, i int) *Error {
	switch {
	case i == len(b) || b[i] == '\r' && i+1 == len(b):
		return ErrIncomplete
	case b[i] == '\n':
		return errBareLF
	case b[i] == '\r':
		return errBareCR
	}
	return errControl
}

// looksLikeFraming reports whether an unknown name becomes that of a framing
// field when underscores are read as hyphens.
func looksLikeFraming(name []byte) bool {
	id := header.LookupDashed(name)
	return id == header.ContentLength || id == header.TransferEncoding
}

// length returns the value of Content-Length, -1 if there is none. More than one
// field line or list member is refused even if they agree (RFC 9112 §6.3 rule 5
// would allow to repair it): nobody sends that in good faith.
func (s *FieldSet) length(b []byte) (int64, *Error) {
	if !s.present.Has(header.ContentLength) {
		return -1, nil
	}
	if s.repeated.Has(header.ContentLength) {
		return 0, errLengths
	}
	v := s.Value(b, header.ContentLength)
	n, ok := header.ParseUint(v)
	if !ok {
		if bytes.IndexByte(v, ',') >= 0 {
			return 0, errLengths
		}
		return 0, errLength
	}
	return n, nil
}

// chunked reports whether Transfer-Encoding is "chunked". Anything else that
// stands in Transfer-Encoding is an error (RFC 9112 §6.1, §6.3, §7).
func (s *FieldSet) chunked(b []byte) (bool, *Error) {
	if !s.present.Has(header.TransferEncoding) {
		return false, nil
	}
	v := s.Value(b, header.TransferEncoding)
	if s.repeated.Has(header.TransferEncoding) {
		return false, errCodingOrder
	}
	if header.EqualFold(v, "chunked") {
		return true, nil
	}
	return false, codingFault(v)
}

// codingFault says what is wrong with a Transfer-Encoding other than "chunked".
// Codings unknown to HTTP, and known ones properly before chunked, are not
// implemented (501); everything else has no meaning (400).
func codingFault(v []byte) *Error {
	last, unknown := false, false
	for more := true; more; {
		m := v
		i := bytes.IndexByte(v, ',')
		if more = i >= 0; more {
			m, v = v[:i], v[i+1:]
		}
		m = header.Trim(m)
		if !header.IsToken(m) {
			return errCodingSyntax
		}
		if last {
			return errCodingOrder
		}
		last = header.EqualFold(m, "chunked")
		unknown = unknown || !last && !knownCoding(m)
	}
	if last || unknown {
		return errCodingUnknown
	}
	return errCodingOrder
}

func knownCoding(m []byte) bool {
	for _, c := range [...]string{"gzip", "x-gzip", "deflate", "compress", "x-compress"} {
		if header.EqualFold(m, c) {
			return true
		}
	}
	return false
}

// connection is what the Connection fields of a head say.
type connection struct {
	close, keepAlive, upgrade bool

	malformed bool // something in them is no token
	options   int  // how many members they have
}

// maxOptions bounds what the Connection of one head may name. Each field that may be passed on is held against all
// of it (nominated), so that a head full of options would cost its length times the number of its fields. Nobody has a reason
// to nominate more than a few; this is half of the fields that a head has at most by default.
const maxOptions = 64

// connectionOptions reads all Connection fields (RFC 9110 §7.6.1).
func (s *FieldSet) connectionOptions(b []byte) (c connection, e *Error) {
	if !s.repeated.Has(header.Connection) {
		s.connectionValue(s.Value(b, header.Connection), &c)
	} else {
		for i := range s.Fields {
			if s.Fields[i].ID == header.Connection {
				s.connectionValue(s.Fields[i].Value.In(b), &c)
			}
		}
	}
	if c.options > maxOptions {
		return c, errOptions
	}
	return c, nil
}

// upgrades reports whether Upgrade names protocols, and no more than Connection may have options: an answer of 101 is held
// against all of them. A wish that is not heard does no harm (RFC 9110 §7.8).
func (s *FieldSet) upgrades(b []byte) bool {
	if !s.present.Has(header.Upgrade) {
		return false
	}
	n := 0
	l := header.Members(s.Value(b, header.Upgrade))
	for _, more := l.Next(); more && n <= maxOptions; _, more = l.Next() {
		n++
	}
	return n <= maxOptions
}

func (s *FieldSet) connectionValue(v []byte, c *connection) {
	// What nearly all of them say, without walking a list.
	switch {
	case header.EqualFold(v, "keep-alive"):
		c.options++
		c.keepAlive = true
		return
	case header.EqualFold(v, "close"):
		c.options++
		c.close = true
		return
	}
	l := header.Members(v)
	for m, more := l.Next(); more; m, more = l.Next() {
		c.options++
		switch {
		case header.EqualFold(m, "close"):
			c.close = true
		case header.EqualFold(m, "keep-alive"):
			c.keepAlive = true
		case header.EqualFold(m, "upgrade"):
			c.upgrade = true
		case !header.IsToken(m):
			c.malformed = true
		case header.Lookup(m) == header.Unknown:
			s.nominates = true
		}
	}
}
