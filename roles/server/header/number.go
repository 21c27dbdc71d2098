package header

import "math"

// MaxDelta is what a greater number of delta-seconds is taken for: 2^31
// (RFC 9111 §1.2.2).
const MaxDelta = 1 << 31

// ParseUint parses one decimal digit or more, and nothing else: no sign, no
// blank. It reports false for anything else, and above 2^63-1. Leading zeros are
// digits as any other (RFC 9110 §8.6 is 1*DIGIT), up to 19 digits in all.
func ParseUint(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64 // 19 nines fit
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 {
			return 0, false
		}
		n = n*10 + d
	}
	if n > math.MaxInt64 {
		return 0, false
	}
	return int64(n), true
}

// ParseDelta parses delta-seconds: decimal digits only, any number of them. What
// is greater than MaxDelta is MaxDelta (RFC 9111 §1.2.2).
func ParseDelta(b []byte) (int64, bool) {
	var n int64
	for _, c := range b {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		n = min(n*10+int64(d), MaxDelta)
	}
	return n, len(b) > 0
}

// AppendUint appends n in decimal.
func AppendUint(dst []byte, n uint64) []byte {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = '0' + byte(n%10)
		if n /= 10; n == 0 {
			return append(dst, b[i:]...)
		}
	}
}
