package remap

// Normal reports whether a path is as Normalise would make it, which nearly all
// are. It may say false of one that is.
func Normal(path []byte) bool {
	last := byte(0)
	for _, c := range path {
		if c == '%' || c == '.' && last == '/' {
			return false
		}
		last = c
	}
	return true
}

// AppendNormal appends a path as it is compared with rules, stored and sent on: the digits of
// percent-encodings are capitals (RFC 3986 §6.2.2.1), percent-encoded letters, digits and "-._~" are written out
// (RFC 3986 §6.2.2.2) and dot segments are removed (RFC 3986 §5.2.4). The origin would do the same, and so
// /a/%2e%2e/b must not be taken for something below /a, nor /a%2fb be another resource than /a%2Fb.
func AppendNormal(dst, path []byte) []byte {
	start := len(dst)
	dst = appendEncoded(dst, path)
	return dst[:start+removeDots(dst[start:])]
}

// appendEncoded appends a path with its percent-encodings in their normal form.
func appendEncoded(dst, path []byte) []byte {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' || i+2 >= len(path) {
			dst = append(dst, c)
			continue
		}
		switch d, ok := unhex(path[i+1], path[i+2]); {
		case !ok:
			dst = append(dst, c)
		case unreserved(d):
			dst = append(dst, d)
			i += 2
		default:
			dst = append(dst, c, capitals[d>>4], capitals[d&15])
			i += 2
		}
	}
	return dst
}

const capitals = "0123456789ABCDEF"

// removeDots removes the dot segments of a path in place and returns what is left of its length.
func removeDots(p []byte) int {
	if len(p) == 0 || p[0] != '/' {
		return len(p)
	}
	out := 0
	for i := 0; i < len(p); {
		end := i + 1
		for end < len(p) && p[end] != '/' {
			end++
		}
		last := end == len(p)
		switch string(p[i:end]) {
		case "/.":
		case "/..":
			for out > 0 {
				if out--; p[out] == '/' {
					break
				}
			}
		default:
			out += copy(p[out:], p[i:end])
			last = false
		}
		if last {
			p[out] = '/'
			out++
		}
		i = end
	}
	return out
}

// isDots reports whether a segment is one that AppendNormal removes: "." or "..", in any spelling.
func isDots(segment string) bool {
	dots := 0
	for ; segment != ""; dots++ {
		switch {
		case segment[0] == '.':
			segment = segment[1:]
		case len(segment) >= 3 && segment[0] == '%' && segment[1] == '2' && segment[2]|0x20 == 'e':
			segment = segment[3:]
		default:
			return false
		}
	}
	return dots == 1 || dots == 2
}

func unreserved(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
		return true
	}
	return false
}

func unhex(a, b byte) (c byte, ok bool) {
	x, okX := digit(a)
	y, okY := digit(b)
	return x<<4 | y, okX && okY
}

func digit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
