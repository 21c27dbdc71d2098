package transaction

import (
	"bytes"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// maxPasses is how often a request may come through proxies of our pseudonym.
// Several in a row often share one; a request that has met so many of them goes
// round in circles (RFC 9110 §7.6.3).
const maxPasses = 8

// passes counts our pseudonym in Via.
func (t *Transaction) passes() int {
	if !t.req.Has(header.Via) {
		return 0
	}
	n := 0
	for i := range t.req.Fields {
		f := &t.req.Fields[i]
		if f.ID != header.Via {
			continue
		}
		l := header.Members(f.Value.In(t.head))
		for m, ok := l.Next(); ok; m, ok = l.Next() {
			if header.EqualFold(receivedBy(m), t.settings.Via) {
				n++
			}
		}
	}
	return n
}

// mayFollow reports whether a request may wait for what leader fetches instead of f. One that has come through here more often may be
// leader's own, which goes round in circles: it would wait for itself, and never be counted once more.
func (f *fetch) mayFollow(leader *fetch) bool { return f.passes <= leader.passes }

// receivedBy returns the second word of a member of Via: who received.
func receivedBy(member []byte) []byte {
	_, by, _ := bytes.Cut(member, space)
	by, _, _ = bytes.Cut(header.Trim(by), space)
	return by
}

var space = []byte(" ")

// endsHere reports whether a TRACE or an OPTIONS is for us to answer: it must
// not be forwarded again (RFC 9110 §7.6.2), or it is about the server as a whole
// (RFC 9110 §9.3.7; an absolute form without a path means that, too, RFC 9112
// §3.2.4).
func (t *Transaction) endsHere() bool {
	switch t.req.Method {
	case http1.OPTIONS:
		if t.req.Form == http1.AsteriskForm || t.asksServer() && !t.beyond() {
			return true
		}
	case http1.TRACE:
	default:
		return false
	}
	n, ok := header.ParseUint(t.req.Value(t.head, header.MaxForwards))
	return ok && n == 0
}

// asksServer reports whether the request is about a server as a whole, and says so by an absolute form without a path.
func (t *Transaction) asksServer() bool {
	return t.req.Method == http1.OPTIONS && t.req.Form == http1.AbsoluteForm && t.req.Path.Len == 0 && !t.req.HasQuery
}

// beyond reports whether the request is for a host that no rule is for, while there is a proxy for such hosts.
func (t *Transaction) beyond() bool { return t.settings.Forward.Enabled() && !t.findRule() }

// describe answers an OPTIONS that ends here. A TRACE that does is refused: its
// answer would show the client what others have put into its request.
func (t *Transaction) describe() {
	t.reply = Reply{Status: 200, Lines: serverLine, Extra: allowLine, Age: -1, Length: 0, Local: true}
	t.give()
}

// appendMaxForwards counts Max-Forwards down (RFC 9110 §7.6.2); only TRACE and
// OPTIONS have it in that sense, others pass it on as it is.
func (t *Transaction) appendMaxForwards(b []byte) []byte {
	v := t.req.Value(t.head, header.MaxForwards)
	if v == nil {
		return b
	}
	n, ok := header.ParseUint(v)
	if m := t.req.Method; ok && n > 0 && (m == http1.TRACE || m == http1.OPTIONS) {
		b = append(b, "Max-Forwards: "...)
		b = header.AppendUint(b, uint64(n-1))
		return append(b, "\r\n"...)
	}
	return http1.AppendFieldID(b, header.MaxForwards, v)
}
