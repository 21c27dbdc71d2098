package header

import (
	"encoding/binary"
	"math/bits"
)

// Classes of bytes, one bit each in classes.
const (
	classToken  = 1 << iota // tchar, RFC 9110 §5.6.2
	classText               // HTAB, SP, VCHAR, obs-text: what a value may hold, RFC 9110 §5.5
	classQuoted             // qdtext, RFC 9110 §5.6.4
	classEtag               // etagc, RFC 9110 §8.8.3
	classDigit
)

// classes maps a byte to its classes. Immutable after init.
var classes = makeClasses()

// lower maps ASCII capitals to small letters, and any other byte to itself.
// Immutable after init.
var lower = makeLower()

func makeClasses() (t [256]uint8) {
	for c := range 256 {
		if c == '\t' || c >= 0x20 && c != 0x7f {
			t[c] |= classText
			if c != '"' && c != '\\' {
				t[c] |= classQuoted
			}
		}
		if c == 0x21 || c >= 0x23 && c != 0x7f {
			t[c] |= classEtag
		}
		if c >= '0' && c <= '9' {
			t[c] |= classDigit | classToken
		}
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			t[c] |= classToken
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] |= classToken
	}
	return t
}

func makeLower() (t [256]byte) {
	for c := range 256 {
		t[c] = byte(c)
		if c >= 'A' && c <= 'Z' {
			t[c] = byte(c) | 0x20
		}
	}
	return t
}

// IsTokenByte reports whether c is a tchar (RFC 9110 §5.6.2).
func IsTokenByte(c byte) bool { return classes[c]&classToken != 0 }

// IsToken reports whether b is a token: one tchar or more (RFC 9110 §5.6.2).
func IsToken(b []byte) bool {
	for _, c := range b {
		if classes[c]&classToken == 0 {
			return false
		}
	}
	return len(b) > 0
}

// ScanText returns the index of the first byte of b at or after i that may not
// stand in a field value (a control byte other than HTAB), or len(b). It looks
// at eight bytes at a time, since values are most of a head.
func ScanText(b []byte, i int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		// The classic "has a byte less than" and "has a zero byte" tests. Their
		// borrow can only raise false alarms above the first true one, and only
		// the first is used.
		m := ((w-0x20*ones)&^w | (del-ones)&^del) & high
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for i < len(b) && classes[b[i]]&classText != 0 {
		i++
	}
	return i
}

// EqualFold reports whether a and b are equal when ASCII letters are compared
// without regard to case. Other bytes, those above 0x7f included, must be equal.
func EqualFold(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// EqualFoldBytes is EqualFold for two byte slices.
func EqualFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// Lower returns c, as a small letter if it is an ASCII capital.
func Lower(c byte) byte { return lower[c] }

// Trim returns b without blanks (SP, HTAB: OWS of RFC 9110 §5.6.3) at its ends.
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
