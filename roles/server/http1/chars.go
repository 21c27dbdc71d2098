package http1

import "trafficd/roles/server/header"

// Classes of bytes, one bit each in classes.
const (
	isToken = 1 << iota // tchar
	isPath              // may stand in a path as it is; '%' is looked at apart
	isQuery             // may stand in a query
	isHost              // may stand in a registered name
	isHex
	isDigit
	isBlank
)

// classes maps a byte to its classes. Immutable after init.
var classes = makeClasses()

// RFC 3986 is widened in path and query by what browsers send unencoded (the
// WHATWG URL standard's percent-encode sets leave [ ] | ^ { } ` \ alone). None of
// them delimits anything in a request line. Never: controls, blanks, DEL, bytes
// above 0x7f, '#' (a fragment is not sent, RFC 9112 §3.2.1), '"', '<', '>'; nor a
// backslash in a path, which some origins take for a slash.
//
// A registered name is narrower than RFC 3986: no percent-encoding and no
// sub-delims. No name that DNS resolves has them, a comma there is a merged
// second Host, and a cache key must have one spelling.
func makeClasses() (t [256]uint8) {
	for c := range 256 {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if header.IsTokenByte(byte(c)) {
			t[c] |= isToken
		}
		if alnum {
			t[c] |= isPath | isQuery | isHost
		}
		if c >= '0' && c <= '9' {
			t[c] |= isDigit | isHex
		}
		if c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' {
			t[c] |= isHex
		}
	}
	for _, c := range []byte("-._~!$&'()*+,;=:@/[]|^{}`") {
		t[c] |= isPath | isQuery
	}
	for _, c := range []byte(`?%\`) {
		t[c] |= isQuery
	}
	for _, c := range []byte("-._~") {
		t[c] |= isHost
	}
	t[' '] |= isBlank
	t['\t'] |= isBlank
	return t
}
