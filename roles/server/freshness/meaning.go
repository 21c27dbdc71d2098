package freshness

import (
	"bytes"

	"trafficd/roles/server/header"
)

// Two values of a request field that differ in their bytes may still ask for the same
// (§4.1: "normalizing … in ways that are known to have identical semantics"):
//
//   - lists: the lines of a field joined, empty members and the blanks around commas dropped; a comma in quotes is no comma.
//   - What is unknown is taken for a list, as fields usually are, but its empty members count: only of a list is it known that
//     they mean nothing (RFC 9110 §5.6.1.2).
//   - Accept-Encoding and Accept-Language: sets of words without case, each with
//     a weight; their order means nothing (RFC 9110 §12.4.2).
//   - Accept-Language beside a response that is in the one language which the request prefers to
//     all others: nothing could suit it better.
//
// Fields known to be no lists must be the same to the byte.

// members are the members of the values of a field, one after the other.
type members struct {
	list header.List
	s    *Selection // nil: the list is all
	id   header.ID
	name []byte
	next int // number of the next field line
}

func (m *members) each() ([]byte, bool) {
	for {
		if v, ok := m.list.Next(); ok {
			return v, true
		}
		if m.s == nil || !m.line() {
			return nil, false
		}
	}
}

// line goes to the next field line.
func (m *members) line() bool {
	fields := m.s.Request.Fields
	for !m.list.Malformed() && m.next < len(fields) {
		f := &fields[m.next]
		m.next++
		if hasName(f, m.s.Head, m.id, m.name) {
			m.list = listOf(m.id, f.Value.In(m.s.Head))
			return true
		}
	}
	return false
}

// meansSame tells whether what the request says in a field means what is in a line of a
// vary block.
func (s *Selection) meansSame(id header.ID, name, value, chosen []byte) bool {
	mine := members{s: s, id: id, name: name}
	theirs := members{list: listOf(id, value)}
	switch id {
	case header.AcceptEncoding, header.AcceptLanguage:
		var a, b preferences
		if !a.read(&mine) {
			return false
		}
		return b.read(&theirs) && a.equal(&b) || len(chosen) > 0 && a.prefers(chosen)
	}
	return isList(id) && sameMembers(&mine, &theirs)
}

// isList: of the known fields those that a response is likely to vary by.
func isList(id header.ID) bool {
	switch id {
	case header.Unknown, header.Accept, header.AcceptCharset, header.CacheControl, header.Forwarded, header.Via:
		return true
	}
	return false
}

// listOf is a value of a field as its members, of an unknown one with those that are empty.
func listOf(id header.ID, value []byte) header.List {
	if id == header.Unknown {
		return header.AllMembers(value)
	}
	return header.Members(value)
}

func sameMembers(a, b *members) bool {
	for {
		x, more := a.each()
		y, most := b.each()
		if more != most || !bytes.Equal(x, y) {
			return false
		}
		if !more {
			return !a.list.Malformed() && !b.list.Malformed()
		}
	}
}

// maxPreferences bounds what is compared without regard to order.
const maxPreferences = 24

// preferences are the words of a field with their weights in thousandths.
type preferences struct {
	n     int
	words [maxPreferences][]byte
	q     [maxPreferences]int
}

// read takes the members. False: they are not a list of words with weights, or too many.
func (p *preferences) read(m *members) bool {
	for v, ok := m.each(); ok; v, ok = m.each() {
		word, parameters, weighted := bytes.Cut(v, []byte(";"))
		word = header.Trim(word)
		q := 1000
		if weighted {
			if q, ok = weight(header.Trim(parameters)); !ok {
				return false
			}
		}
		if p.n == maxPreferences || !header.IsToken(word) {
			return false
		}
		p.words[p.n], p.q[p.n] = word, q
		p.n++
	}
	return !m.list.Malformed()
}

// weight reads "q=0.5" (RFC 9110 §12.4.2).
func weight(b []byte) (thousandths int, ok bool) {
	if len(b) < 3 || len(b) > 7 || header.Lower(b[0]) != 'q' || b[1] != '=' || b[2] > '1' || b[2] < '0' {
		return 0, false
	}
	q := int(b[2]-'0') * 1000
	if len(b) > 3 && b[3] != '.' {
		return 0, false
	}
	for i, unit := 4, 100; i < len(b); i, unit = i+1, unit/10 {
		if b[i] < '0' || b[i] > '9' {
			return 0, false
		}
		q += int(b[i]-'0') * unit
	}
	return q, q <= 1000
}

// find returns the number of a word, the first if it is there twice; -1: it is not there.
func (p *preferences) find(word []byte) int {
	for i := range p.n {
		if header.EqualFoldBytes(p.words[i], word) {
			return i
		}
	}
	return -1
}

// equal: the same words with the same weights.
func (p *preferences) equal(o *preferences) bool { return p.within(o) && o.within(p) }

func (p *preferences) within(o *preferences) bool {
	for i := range p.n {
		j := o.find(p.words[i])
		if j < 0 || o.q[j] != p.q[i] {
			return false
		}
	}
	return true
}

// prefers tells whether a word has a greater weight than every other.
func (p *preferences) prefers(word []byte) bool {
	at := p.find(word)
	if at < 0 || p.q[at] == 0 {
		return false
	}
	for i := range p.n {
		if i != at && p.q[i] >= p.q[at] {
			return false
		}
	}
	return true
}

// SameAlternate tells whether two vary blocks are selected by the same requests: the fields and their meaning
// are the same. What replaces a stored response takes over its block then, and its place.
func SameAlternate(a, b []byte) bool {
	for len(a) > 0 && len(b) > 0 {
		i, j := bytes.IndexByte(a, '\n'), bytes.IndexByte(b, '\n')
		if i < 0 || j < 0 || !sameLine(a[:i], b[:j]) {
			return false
		}
		a, b = a[i+1:], b[j+1:]
	}
	return len(a) == len(b)
}

func sameLine(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	name, x, chosen, had := splitLine(a)
	other, y, also, has := splitLine(b)
	if !bytes.Equal(name, other) || had != has || !bytes.Equal(chosen, also) {
		return false
	}
	id := header.Lookup(name)
	mine, theirs := members{list: listOf(id, x)}, members{list: listOf(id, y)}
	switch id {
	case header.AcceptEncoding, header.AcceptLanguage:
		var p, q preferences
		return p.read(&mine) && q.read(&theirs) && p.equal(&q)
	}
	return isList(id) && sameMembers(&mine, &theirs)
}
