package http1

import (
	"encoding/binary"

	"trafficd/roles/server/header"
)

// Request is a parsed request head. All spans are relative to the head given to
// Parse. It keeps no reference to it. The zero value is ready; use one again and
// again, so that the memory of Fields is.
type Request struct {
	FieldSet

	Method     Method
	MethodName Span
	// Target is the request target as received.
	Target Span
	Form   Form
	// Scheme and Authority are set for absolute-form, Authority for
	// authority-form too. Path and Query (without its "?") are set for
	// origin-form and absolute-form. An absolute-form without a path has an empty
	// one: it means "/", or "*" for OPTIONS (RFC 9112 §3.2.4).
	Scheme, Authority, Path, Query Span
	// HasQuery tells "/a?" from "/a".
	HasQuery bool
	// HTTPS: the scheme of an absolute-form is https.
	HTTPS bool
	// Minor is 0 or 1. Higher minor versions count as 1 (RFC 9110 §2.5).
	Minor uint8
	// Host is host[:port] of what is asked for: the authority of the target if it
	// has one, which overrides the Host field (RFC 9112 §3.2.2), else the Host
	// field. It is empty only for HTTP/1.0 without either.
	Host Span
	// ContentLength is the length of the content, -1 if not given. It must be
	// written anew from this number when the request is forwarded.
	ContentLength int64
	// Chunked: the content is chunked. Never together with a ContentLength.
	Chunked bool
	// Close: the connection ends after this exchange (RFC 9112 §9.3): asked for,
	// or HTTP/1.0 without keep-alive.
	Close bool
	// KeepAlive: the client sent the option keep-alive. An HTTP/1.0 client must
	// be told so in return when Close is false.
	KeepAlive bool
	// Expect100: the client waits for 100 (Continue) before it sends content. Only
	// set in HTTP/1.1, and only if there is content (RFC 9110 §10.1.1).
	Expect100 bool
	// Upgrade: there is an Upgrade field, of not too many protocols, and Connection nominates
	// it, in HTTP/1.1 (RFC 9110 §7.8). Which protocols to let through is for the caller to decide.
	Upgrade bool
	// HeadLen is the number of bytes of the head, empty line included.
	HeadLen int
}

// maxMethod is longer than any registered method. A longer one is answered with
// 501 (RFC 9112 §3).
const maxMethod = 32

// Parse parses the head that b begins with; b may hold more. The error is nil,
// ErrIncomplete, or another *Error with the status to answer with, after which
// the connection must be closed: where the next request begins is not known.
// Empty lines before the request line are a fault here; see SkipEmptyLines.
//
// Parse takes time linear in the head. Do not call it again for each byte that
// arrives: after ErrIncomplete wait with HeadScan until the head is complete.
func (r *Request) Parse(b []byte, lim *Limits) error {
	if e := r.parse(b, lim); e != nil {
		return e
	}
	return nil
}

func (r *Request) parse(b []byte, lim *Limits) *Error {
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
		return errLineTooLong
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

const http11 = "HTTP/1.1"

// parseLine parses the request line with its CRLF (RFC 9112 §3): exactly one
// space between the parts. It returns the offset after it.
func (r *Request) parseLine(b []byte) (int, *Error) {
	i := 0
	for i < len(b) && classes[b[i]]&isToken != 0 {
		i++
	}
	if i > maxMethod {
		return 0, errMethodLong
	}
	if i == len(b) || len(b) == 1 && b[0] == '\r' { // or half an empty line
		return 0, ErrIncomplete
	}
	if b[i] != ' ' || i == 0 {
		return 0, errMethod
	}
	r.MethodName = span(0, i)
	r.Method = LookupMethod(b[:i])
	i, e := r.parseTarget(b, i+1)
	if e != nil {
		return 0, e
	}
	if i == len(b) {
		return 0, ErrIncomplete
	}
	if b[i] != ' ' {
		return 0, targetFault(b, i)
	}
	if i, e = r.parseVersion(b, i+1); e != nil {
		return 0, e
	}
	return i, r.checkForm()
}

// checkForm holds the form of the target against the method (RFC 9112 §3.2).
func (r *Request) checkForm() *Error {
	if r.Form == AsteriskForm && r.Method != OPTIONS || (r.Form == AuthorityForm) != (r.Method == CONNECT) {
		return errForm
	}
	return nil
}

// parseVersion parses "HTTP/1.1" CRLF at i.
func (r *Request) parseVersion(b []byte, i int) (int, *Error) {
	if len(b)-i < len(http11)+2 {
		return 0, versionFault(b[i:])
	}
	v := binary.LittleEndian.Uint64(b[i:])
	if b[i+8] != '\r' || b[i+9] != '\n' {
		return 0, versionFault(b[i : i+10])
	}
	switch v {
	case 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48 | '1'<<56:
		r.Minor = 1
	case 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48 | '0'<<56:
		r.Minor = 0
	default:
		if e := versionFault(b[i : i+10]); e != ErrIncomplete {
			return 0, e
		}
		r.Minor = 1 // HTTP/1.2 to HTTP/1.9
	}
	return i + 10, nil
}

// versionFault checks what there is of "HTTP/d.d" CRLF: ErrIncomplete if it is
// a version 1 so far, 505 if it is another version (RFC 9110 §15.6.6).
func versionFault(b []byte) *Error {
	const form = "HTTP/d.d\r\n"
	for i, c := range b {
		if i == len(http11) && b[5] != '1' {
			break // what follows says nothing: it is the same however it is cut
		}
		if matches(form[i], c) {
			continue
		}
		if i >= len(http11) && c == '\n' {
			return errBareLF
		}
		return errVersion
	}
	if len(b) >= len(http11) && b[5] != '1' {
		return errVersionUnknown
	}
	return ErrIncomplete
}

// matches reports whether c may stand where a form has want: 'd' stands for a
// digit, anything else for itself.
func matches(want, c byte) bool {
	if want == 'd' {
		return classes[c]&isDigit != 0
	}
	return c == want
}

// parseTarget parses the request target at i and returns the offset after the
// last byte that belongs to it.
func (r *Request) parseTarget(b []byte, i int) (int, *Error) {
	start := i
	r.Scheme, r.Authority, r.Path, r.Query = Span{}, Span{}, Span{}, Span{}
	r.HasQuery, r.HTTPS = false, false
	if i == len(b) {
		return i, nil
	}
	var e *Error
	switch {
	case b[i] == '/':
		r.Form = OriginForm
		i, e = r.parsePath(b, i)
	case b[i] == '*':
		r.Form = AsteriskForm
		i++
	case r.Method == CONNECT:
		r.Form = AuthorityForm
		i, e = r.parseAuthority(b, i, true)
	default:
		r.Form = AbsoluteForm
		i, e = r.parseAbsolute(b, i)
	}
	r.Target = span(start, i)
	return i, e
}

// parsePath parses path and query at i.
func (r *Request) parsePath(b []byte, i int) (int, *Error) {
	start := i
	for i < len(b) {
		if classes[b[i]]&isPath != 0 {
			i++
			continue
		}
		if b[i] != '%' {
			break
		}
		for k := 1; k <= 2; k++ {
			if i+k == len(b) {
				return len(b), nil
			}
			if classes[b[i+k]]&isHex == 0 {
				return 0, errPercent
			}
		}
		i += 3
	}
	r.Path = span(start, i)
	if i < len(b) && b[i] == '?' {
		i++
		start = i
		for i < len(b) && classes[b[i]]&isQuery != 0 {
			i++
		}
		r.Query, r.HasQuery = span(start, i), true
	}
	return i, nil
}

// parseAbsolute parses an absolute-form at i (RFC 9112 §3.2.2).
func (r *Request) parseAbsolute(b []byte, i int) (int, *Error) {
	const https = "https"
	start := i
	for k := 0; ; k++ {
		if i == len(b) {
			return i, nil
		}
		if b[i] == ':' && k >= len("http") {
			break
		}
		if k == len(https) || header.Lower(b[i]) != https[k] {
			return 0, targetOrScheme(b[i])
		}
		i++
	}
	r.Scheme, r.HTTPS = span(start, i), i-start == len(https)
	for _, c := range []byte("://") {
		if i == len(b) {
			return i, nil
		}
		if b[i] != c {
			return 0, errScheme
		}
		i++
	}
	i, e := r.parseAuthority(b, i, false)
	if e != nil || i == len(b) {
		return i, e
	}
	r.Path = span(i, i)
	if b[i] == '/' || b[i] == '?' {
		return r.parsePath(b, i)
	}
	return i, nil
}

func targetOrScheme(c byte) *Error {
	if classes[c]&isToken != 0 || c == ':' || c == '/' {
		return errScheme
	}
	return errTarget
}

// parseAuthority parses host[:port] at i, up to a byte that ends an authority or
// the target.
func (r *Request) parseAuthority(b []byte, i int, needPort bool) (int, *Error) {
	start := i
	for i < len(b) && b[i] > ' ' && b[i] <= '~' && b[i] != '/' && b[i] != '?' {
		i++
	}
	if i == len(b) {
		return i, nil
	}
	r.Authority = span(start, i)
	if port, ok := ValidHost(b[start:i]); !ok || needPort && !port {
		return 0, errHost
	}
	return i, nil
}

// targetFault says why the target does not end at i with a space.
func targetFault(b []byte, i int) *Error {
	switch b[i] {
	case '\r', '\n':
		return errRequestLine // HTTP/0.9, or no version
	}
	return errTarget
}

// interpret draws the consequences of the fields.
func (r *Request) interpret(b []byte) *Error {
	if e := r.host(b); e != nil {
		return e
	}
	r.ContentLength, r.Chunked = -1, false
	r.Close, r.KeepAlive, r.Expect100, r.Upgrade = r.Minor == 0, false, false, false
	if r.present.Has(header.ContentLength) || r.present.Has(header.TransferEncoding) {
		if e := r.content(b); e != nil {
			return e
		}
	}
	if r.present.Has(header.Connection) {
		c, e := r.connectionOptions(b)
		switch {
		case e != nil:
			return e
		case c.malformed:
			return errConnection
		}
		r.KeepAlive = c.keepAlive
		r.Close = c.close || r.Minor == 0 && !c.keepAlive
		r.Upgrade = c.upgrade && r.Minor == 1 && r.upgrades(b)
	}
	if r.present.Has(header.Expect) {
		return r.expect(b)
	}
	return nil
}

// host finds what host is asked for. HTTP/1.1 must have exactly one Host field
// whatever the target says (RFC 9112 §3.2).
func (r *Request) host(b []byte) *Error {
	f, ok := r.Get(header.Host)
	switch {
	case !ok && r.Minor != 0:
		return errNoHost
	case r.repeated.Has(header.Host):
		return errHosts
	}
	if ok {
		if _, valid := ValidHost(f.Value.In(b)); !valid {
			return errHost
		}
	}
	r.Host = f.Value
	if r.Form == AbsoluteForm || r.Form == AuthorityForm {
		r.Host = r.Authority
	}
	return nil
}

// content finds how the content is delimited (RFC 9112 §6.1 to §6.3).
func (r *Request) content(b []byte) *Error {
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
	// A TRACE must not have content (RFC 9110 §9.3.8); after a CONNECT nobody
	// knows whether such bytes are content or the tunnel's (RFC 9110 §9.3.6).
	if (r.Method == TRACE || r.Method == CONNECT) && (r.Chunked || r.ContentLength > 0) {
		return errContent
	}
	return nil
}

// HasContent reports whether content follows the head.
func (r *Request) HasContent() bool { return r.Chunked || r.ContentLength > 0 }

// expect reads Expect (RFC 9110 §10.1.1).
func (r *Request) expect(b []byte) *Error {
	for i := range r.Fields {
		if r.Fields[i].ID == header.Expect && !header.EqualFold(r.Fields[i].Value.In(b), "100-continue") {
			return errExpect
		}
	}
	r.Expect100 = r.Minor == 1 && r.HasContent()
	return nil
}
