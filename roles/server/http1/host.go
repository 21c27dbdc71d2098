package http1

import "bytes"

// ValidHost reports whether b is host or host:port, and whether it has a port.
// The host is a registered name (letters, digits, "-._~"), an IPv4 address, or
// an IPv6 address in brackets; not empty, at most 255 bytes. The port is 1 to
// 65535, without leading zeros. User information is refused (RFC 9110 §4.2.4).
func ValidHost(b []byte) (port, ok bool) {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		i = bytes.IndexByte(b, ']')
		if i < 0 || !validIPv6(b[1:i]) {
			return false, false
		}
		i++
	} else {
		for i < len(b) && classes[b[i]]&isHost != 0 {
			i++
		}
	}
	if i == 0 || i > 255 {
		return false, false
	}
	if i == len(b) {
		return false, true
	}
	return true, b[i] == ':' && validPort(b[i+1:])
}

func validPort(b []byte) bool {
	if len(b) == 0 || len(b) > 5 || b[0] == '0' {
		return false
	}
	n := 0
	for _, c := range b {
		if classes[c]&isDigit == 0 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

// validIPv6 checks the text form of RFC 4291 §2.2, without a zone: eight groups
// of up to four hex digits, at most one "::" in place of one group or more, and
// possibly an IPv4 address in place of the last two.
func validIPv6(b []byte) bool {
	groups, gap := 0, false
	i := 0
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap = true
		i = 2
	}
	for i < len(b) {
		start := i
		for i < len(b) && classes[b[i]]&isHex != 0 {
			i++
		}
		if i < len(b) && b[i] == '.' {
			if !validIPv4(b[start:]) {
				return false
			}
			groups += 2
			break
		}
		if i == start || i-start > 4 {
			return false
		}
		groups++
		if i == len(b) {
			break
		}
		if b[i] != ':' || i+1 == len(b) {
			return false
		}
		i++
		if b[i] == ':' {
			if gap {
				return false
			}
			gap = true
			i++
		}
	}
	return groups == 8 && !gap || groups < 8 && gap
}

func validIPv4(b []byte) bool {
	parts, n, digits := 1, 0, 0
	for _, c := range b {
		if c == '.' {
			if digits == 0 {
				return false
			}
			parts, n, digits = parts+1, 0, 0
			continue
		}
		if classes[c]&isDigit == 0 || digits > 0 && n == 0 {
			return false
		}
		if n, digits = n*10+int(c-'0'), digits+1; n > 255 {
			return false
		}
	}
	return parts == 4 && digits > 0
}
