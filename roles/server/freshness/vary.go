package freshness

import (
	"bytes"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// The vary block of an alternate holds what its Vary fields nominate of the request that
// brought it (§4.1): one line a field, the names in lower case, sorted and without
// repetition: "name:value\n", where several field lines are joined by ", " and outer
// blanks are gone; "name\n" where the request had no such field. It is empty when the
// response does not vary. Two requests select the same alternate exactly if it is equal.

// Bounds of what is worth keeping alternates for.
const (
	maxVaryFields = 16
	maxVaryBlock  = 4 << 10
)

// varyMatchable tells whether the Vary fields of r can ever be matched: no "*", nothing
// that is not a field name, not too many.
func varyMatchable(r *http1.Response, head []byte) bool {
	var names [maxVaryFields][]byte
	_, ok := varyNames(r, head, &names)
	return ok
}

// varyNames collects the nominated names, sorted without case, each once.
func varyNames(r *http1.Response, head []byte, names *[maxVaryFields][]byte) (n int, ok bool) {
	if !r.Has(header.Vary) {
		return 0, true
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.ID != header.Vary {
			continue
		}
		l := header.Members(f.Value.In(head))
		for m, more := l.Next(); more; m, more = l.Next() {
			if !header.IsToken(m) || string(m) == "*" { // "*" is a token too
				return 0, false
			}
			if n, ok = insertName(names, n, m); !ok {
				return 0, false
			}
		}
	}
	return n, true
}

func insertName(names *[maxVaryFields][]byte, n int, name []byte) (int, bool) {
	at := 0
	for at < n {
		c := compareFold(names[at], name)
		if c == 0 {
			return n, true
		}
		if c > 0 {
			break
		}
		at++
	}
	if n == maxVaryFields {
		return n, false
	}
	copy(names[at+1:n+1], names[at:n])
	names[at] = name
	return n + 1, true
}

func compareFold(a, b []byte) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if x, y := header.Lower(a[i]), header.Lower(b[i]); x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// AppendVary appends the vary block of the exchange. False: the response cannot be
// stored, since no later request could be held against it.
func (x *Exchange) AppendVary(dst []byte) ([]byte, bool) {
	var names [maxVaryFields][]byte
	n, ok := varyNames(x.Response, x.ResponseHead, &names)
	if !ok {
		return dst, false
	}
	start := len(dst)
	for _, name := range names[:n] {
		for _, c := range name {
			dst = append(dst, header.Lower(c))
		}
		dst = appendVaryValue(dst, x.Request, x.RequestHead, name)
		dst = append(dst, '\n')
		if len(dst)-start > maxVaryBlock {
			return dst[:start], false
		}
	}
	return dst, true
}

func appendVaryValue(dst []byte, r *http1.Request, head, name []byte) []byte {
	joint := ":"
	id := header.Lookup(name)
	for i := range r.Fields {
		if f := &r.Fields[i]; hasName(f, head, id, name) {
			dst = append(dst, joint...)
			dst = append(dst, f.Value.In(head)...)
			joint = ", "
		}
	}
	return dst
}

func hasName(f *http1.Field, head []byte, id header.ID, name []byte) bool {
	if id != header.Unknown {
		return f.ID == id
	}
	return f.ID == header.Unknown && header.EqualFoldBytes(f.Name.In(head), name)
}

// A Selection matches requests against vary blocks; it is a cache.Matcher. A
// transaction holds one, so that a look-up allocates nothing.
type Selection struct {
	Request *http1.Request
	Head    []byte
}

// MatchVary tells whether the request selects the alternate with this vary block (§4.1).
func (s *Selection) MatchVary(vary []byte) bool {
	for len(vary) > 0 {
		end := bytes.IndexByte(vary, '\n')
		if end < 0 || !s.matchLine(vary[:end]) {
			return false
		}
		vary = vary[end+1:]
	}
	return true
}

func (s *Selection) matchLine(line []byte) bool {
	name, rest := line, line[len(line):]
	if colon := bytes.IndexByte(line, ':'); colon >= 0 {
		name, rest = line[:colon], line[colon:]
	}
	id := header.Lookup(name)
	if id != header.Unknown && !s.Request.Has(id) {
		return len(rest) == 0
	}
	joint := ":"
	for i := range s.Request.Fields {
		f := &s.Request.Fields[i]
		if !hasName(f, s.Head, id, name) {
			continue
		}
		var ok bool
		if rest, ok = cutPrefix(rest, joint, f.Value.In(s.Head)); !ok {
			return false
		}
		joint = ", "
	}
	return len(rest) == 0
}

func cutPrefix(b []byte, joint string, value []byte) ([]byte, bool) {
	n := len(joint) + len(value)
	if len(b) < n || string(b[:len(joint)]) != joint || !bytes.Equal(b[len(joint):n], value) {
		return b, false
	}
	return b[n:], true
}
