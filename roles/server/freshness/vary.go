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
// response does not vary. The line of Accept-Language ends in NUL and the language that
// was chosen, if the response says one.
//
// A request selects the alternate if for every line it has the same bytes, which is one
// comparison, or else means the same (meaning.go).

// Bounds of what is worth keeping alternates for.
const (
	maxVaryFields = 16
	maxVaryBlock  = 4 << 10
)

// varyMatchable tells whether the Vary fields of r can ever be matched: no "*", nothing
// that is not a field name, no field that the origin sees otherwise than we do, not too many.
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
			if !header.IsToken(m) || string(m) == "*" || rewritten(header.Lookup(m)) { // "*" is a token too
				return 0, false
			}
			if n, ok = insertName(names, n, m); !ok {
				return 0, false
			}
		}
	}
	return n, true
}

// rewritten tells whether the origin gets a field with the address of who asks in it, written by this proxy. A response that
// varies by it is for that address, which the request as it came, and is held against later ones, does not say.
func rewritten(id header.ID) bool { return id == header.XForwardedFor }

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
		had := len(dst)
		dst = appendVaryValue(dst, x.Request, x.RequestHead, name)
		if len(dst) > had && header.Lookup(name) == header.AcceptLanguage {
			dst = x.appendChosen(dst)
		}
		dst = append(dst, '\n')
		if len(dst)-start > maxVaryBlock {
			return dst[:start], false
		}
	}
	return dst, true
}

// appendChosen appends the one language that the response is in.
func (x *Exchange) appendChosen(dst []byte) []byte {
	v := x.Response.Value(x.ResponseHead, header.ContentLanguage)
	if x.Response.Repeated(header.ContentLanguage) || !header.IsToken(v) {
		return dst
	}
	return append(append(dst, 0), v...)
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
	// Missed: an alternate was asked about that the request does not select.
	Missed bool
}

// MatchVary tells whether the request selects the alternate with this vary block (§4.1).
func (s *Selection) MatchVary(vary []byte) bool {
	for len(vary) > 0 {
		end := bytes.IndexByte(vary, '\n')
		if end < 0 || !s.matchLine(vary[:end]) {
			s.Missed = true
			return false
		}
		vary = vary[end+1:]
	}
	return true
}

// AppendSelecting appends what of the request decides whether it selects an alternate with this vary block: the same for
// requests that say the same in all the fields that are nominated there.
func (s *Selection) AppendSelecting(dst, vary []byte) []byte {
	for line := range bytes.Lines(vary) {
		name, _, _, _ := splitLine(line[:len(line)-1])
		dst = append(dst, name...)
		dst = appendVaryValue(dst, s.Request, s.Head, name)
		dst = append(dst, '\n')
	}
	return dst
}

// splitLine takes a line of a vary block apart. colon: there was such a field.
func splitLine(line []byte) (name, value, chosen []byte, colon bool) {
	name, value, colon = bytes.Cut(line, colonByte)
	value, chosen, _ = bytes.Cut(value, nulByte)
	return name, value, chosen, colon
}

var colonByte, nulByte = []byte{':'}, []byte{0}

func (s *Selection) matchLine(line []byte) bool {
	name, rest, had := bytes.Cut(line, colonByte)
	id := header.Lookup(name)
	if rewritten(id) { // no such block is made any more, but one may have been stored by an earlier version
		return false
	}
	if id != header.Unknown && !s.Request.Has(id) {
		return !had
	}
	joint, same, has := "", true, false
	for i := range s.Request.Fields {
		f := &s.Request.Fields[i]
		if !hasName(f, s.Head, id, name) {
			continue
		}
		has = true
		if rest, same = cutPrefix(rest, joint, f.Value.In(s.Head)); !same {
			break
		}
		joint = ", "
	}
	switch {
	case has != had:
		return false
	case !had || same && (len(rest) == 0 || rest[0] == 0):
		return true
	}
	name, value, chosen, _ := splitLine(line)
	return s.meansSame(id, name, value, chosen)
}

func cutPrefix(b []byte, joint string, value []byte) ([]byte, bool) {
	n := len(joint) + len(value)
	if len(b) < n || string(b[:len(joint)]) != joint || !bytes.Equal(b[len(joint):n], value) {
		return b, false
	}
	return b[n:], true
}
