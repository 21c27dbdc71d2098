package accesslog

import (
	"encoding/binary"
	"unicode/utf8"
)

// What clients send is untrusted: no byte of it may end a line, end a quoted value, or reach the
// terminal of whoever reads the log.

const hexDigits = "0123456789abcdef"

// maxValue bounds the bytes of one value, and with maxPieces what a line can come to.
const maxValue = 8 << 10

// plain reports whether a byte stands for itself: printable, and neither the quotation mark nor the
// backslash.
func plain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

const (
	ones  = 0x0101010101010101
	highs = ones << 7
)

// plainRun returns how many bytes at the beginning of p are plain, eight at a time.
func plainRun(p []byte) int {
	i := 0
	for ; i+8 <= len(p); i += 8 {
		x := binary.LittleEndian.Uint64(p[i:])
		quote, slash, del := x^ones*'"', x^ones*'\\', x^ones*0x7f
		// The borrow of one byte can make a mark in the next above it only: a wrong mark is looked at
		// below, byte by byte.
		bad := x | (x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash | (del-ones)&^del
		if bad&highs != 0 {
			break
		}
	}
	for i < len(p) && plain(p[i]) {
		i++
	}
	return i
}

func clip(p []byte) []byte { return p[:min(len(p), maxValue)] }

// appendText appends a value for a quoted or bare place in a text format: what is not plain is \xHH,
// and quotation marks and backslashes have a backslash before them, as in Apache's logs.
func appendText(dst, p []byte) []byte {
	p = clip(p)
	for {
		n := plainRun(p)
		dst = append(dst, p[:n]...)
		if n == len(p) {
			return dst
		}
		switch c := p[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		}
		p = p[n+1:]
	}
}

// appendWord is appendText for a column of a format whose columns end at blanks.
func appendWord(dst, p []byte) []byte {
	from := len(dst)
	dst = appendText(dst, p)
	for i := from; i < len(dst); i++ {
		if dst[i] == ' ' {
			dst[i] = '+'
		}
	}
	if len(dst) == from {
		dst = append(dst, '-')
	}
	return dst
}

// appendString appends a value as a string of JSON (RFC 8259 §7). What is no UTF-8 becomes U+FFFD.
func appendString(dst, p []byte) []byte {
	dst = append(dst, '"')
	p = clip(p)
	for {
		n := plainRun(p)
		dst = append(dst, p[:n]...)
		if n == len(p) {
			return append(dst, '"')
		}
		c := p[n]
		switch {
		case c == '"', c == '\\':
			dst = append(dst, '\\', c)
		case c < utf8.RuneSelf:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			r, size := utf8.DecodeRune(p[n:])
			dst = utf8.AppendRune(dst, r)
			n += size - 1
		}
		p = p[n+1:]
	}
}
