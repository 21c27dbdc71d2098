package header

import "bytes"

// An entity tag is a quoted string without escapes, with W/ before it if weak
// (RFC 9110 §8.8.3). Since a backslash means nothing in it, lists of entity
// tags are not walked with List.

// ETagLen returns the length of the entity tag that b begins with, or 0.
func ETagLen(b []byte) int {
	i := 0
	if len(b) >= 2 && b[0] == 'W' && b[1] == '/' {
		i = 2
	}
	if i >= len(b) || b[i] != '"' {
		return 0
	}
	for i++; i < len(b); i++ {
		if b[i] == '"' {
			return i + 1
		}
		if classes[b[i]]&classEtag == 0 {
			return 0
		}
	}
	return 0
}

// ValidETag reports whether b is one entity tag and nothing else.
func ValidETag(b []byte) bool { return len(b) > 0 && ETagLen(b) == len(b) }

// WeakETag reports whether a valid entity tag is weak.
func WeakETag(tag []byte) bool { return len(tag) > 0 && tag[0] == 'W' }

// StrongMatch compares as RFC 9110 §8.8.3.2 does strongly: both are valid,
// neither is weak, and they are equal.
func StrongMatch(a, b []byte) bool {
	return bytes.Equal(a, b) && ValidETag(a) && !WeakETag(a)
}

// WeakMatch compares as RFC 9110 §8.8.3.2 does weakly: both are valid, and
// equal but for a W/. What is of another length costs nothing, so that a list
// of tags may be held against a long one.
func WeakMatch(a, b []byte) bool {
	x, y := opaque(a), opaque(b)
	// Lengths first, though Equal compares them itself: the race detector looks at every byte that Equal is given.
	return len(x) == len(y) && bytes.Equal(x, y) && ValidETag(a) && ValidETag(b)
}

func opaque(tag []byte) []byte {
	if WeakETag(tag) {
		return tag[2:]
	}
	return tag
}

// ETagCursor walks the entity tags of one If-Match or If-None-Match value
// (RFC 9110 §13.1.1, §13.1.2).
type ETagCursor struct {
	// Tag is the current entity tag, W/ and quotes included.
	Tag []byte

	rest []byte
	bad  bool
}

// ETags returns a cursor over the entity tags of value. A value of "*" is not a
// list of tags: look for it first with IsAny.
func ETags(value []byte) ETagCursor { return ETagCursor{rest: value} }

// IsAny reports whether value is "*".
func IsAny(value []byte) bool {
	value = Trim(value)
	return len(value) == 1 && value[0] == '*'
}

// Next goes to the next entity tag. It stops at the first thing that is none,
// and goes no further.
func (c *ETagCursor) Next() bool {
	c.Tag = nil
	if c.bad {
		return false
	}
	i := 0
	for i < len(c.rest) && (c.rest[i] == ' ' || c.rest[i] == '\t' || c.rest[i] == ',') {
		i++
	}
	c.rest = c.rest[i:]
	if len(c.rest) == 0 {
		return false
	}
	n := ETagLen(c.rest)
	after := Trim(c.rest[n:])
	if n == 0 || len(after) > 0 && after[0] != ',' {
		c.bad = true
		return false
	}
	c.Tag, c.rest = c.rest[:n], after
	return true
}
