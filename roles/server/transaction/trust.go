package transaction

import (
	"bytes"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// What is believed of a client's fields. An origin sees every request come from
// here, so a field that it takes for the word of a proxy must not be the word of
// whoever sent it:
//
//   - Fields that name another target than the request line does, which rules and
//     cache have gone by, are not passed on (header.OtherTarget). Nor is Proxy, which becomes
//     HTTP_PROXY in the environment of a CGI program.
//   - Fields that name another method (header.OtherMethod) are passed on with unsafe methods only: a GET
//     is a GET for all.
//   - X-Forwarded-For goes on as one list with the client's address at its end, and nothing in it that
//     is no address. Nor is anything else that tells who came (header.ClientAddress) passed on with a value that is none:
//     these are no part of the key, so what an origin makes of them must not be whatever a client likes.
//   - A field whose name becomes one of those known here when underscores are read as
//     hyphens, as CGI-like origins read them (RFC 3875 §4.1.18), is not passed on.
//     For those that decide about framing the request is refused (package http1).
//   - What else tells an origin how it was reached is passed on, since a proxy in front
//     of this one may have said it, and is part of the cache's key (header.Reached): what it
//     makes of a response is for requests that say the same.

// forged reports whether a field of the request is withheld for what an origin would
// take it for.
func (t *Transaction) forged(f *http1.Field) bool {
	if f.ID == header.Unknown {
		return looksKnown(f.Name.In(t.head))
	}
	if f.ID == header.Proxy || f.ID == header.XForwardedFor { // which is written anew
		return true
	}
	return header.OtherTarget.Has(f.ID) || header.OtherMethod.Has(f.ID) && t.req.Method.Safe() ||
		header.ClientAddress.Has(f.ID) && !isAddress(f.Value.In(t.head))
}

// isAddress reports whether a value is made of what addresses and ports are made of, or says that there is none.
func isAddress(v []byte) bool {
	if string(v) == "unknown" {
		return true
	}
	for _, c := range v {
		if !isAddressByte[c] {
			return false
		}
	}
	return len(v) > 0 && len(v) <= maxAddress
}

// maxAddress is more than the longest, an IPv6 address in brackets with a port, has.
const maxAddress = 64

var isAddressByte = func() (t [256]bool) {
	for _, c := range []byte("0123456789abcdefABCDEF.:[]") {
		t[c] = true
	}
	return t
}()

// looksKnown reports whether an unknown name becomes a known one when its underscores
// are read as hyphens.
func looksKnown(name []byte) bool { return header.LookupDashed(name) != header.Unknown }

// appendForwardedFor writes X-Forwarded-For anew: what the client said, then who it is.
// An origin that looks at the first or the last line only sees the same as one that
// reads all of them.
func (t *Transaction) appendForwardedFor(b []byte) []byte {
	peer := t.client.Peer()
	if !peer.IsValid() && !t.req.Has(header.XForwardedFor) {
		return b
	}
	b = append(b, "X-Forwarded-For: "...)
	joint := ""
	for i := range t.req.Fields {
		f := &t.req.Fields[i]
		if f.ID != header.XForwardedFor {
			continue
		}
		l := header.Members(f.Value.In(t.head))
		for m, ok := l.Next(); ok; m, ok = l.Next() {
			if isAddress(m) {
				b = append(append(b, joint...), m...)
				joint = ", "
			}
		}
	}
	if peer.IsValid() {
		b = peer.Addr().AppendTo(append(b, joint...))
	}
	return append(b, "\r\n"...)
}

// appendHost writes the value of Host as it is in the cache's key: in small letters
// and without the default port (RFC 9110 §4.2.3). Were it passed on as it came, an origin
// could make of it what others, who spelt it otherwise, get from the cache.
func (t *Transaction) appendHost(b []byte) []byte {
	if host := t.req.Host.In(t.head); len(host) > 0 && t.preservesHost() {
		return cache.AppendURI(b, schemeHTTP, host, nil, nil)
	}
	return append(b, t.match.Origin.Authority...)
}

// told is what the key has behind the path: the query, and behind that the fields of the request that tell
// how we were reached. No query of another request is the same, since none holds a NUL.
func (t *Transaction) told(query []byte) []byte {
	if !t.req.HasAny(&header.Reached) {
		return query
	}
	b := append(t.env.keyed[:0], query...)
	for i := range t.req.Fields {
		f := &t.req.Fields[i]
		if !header.Reached.Has(f.ID) {
			continue
		}
		b = append(append(append(b, 0), f.ID.String()...), 0)
		if f.ID == header.Forwarded {
			b = appendReached(b, f.Value.In(t.head))
		} else {
			b = append(b, f.Value.In(t.head)...)
		}
	}
	t.env.keyed = b
	return b
}

// appendReached appends a value of Forwarded (RFC 7239 §4) without its pairs for= and by=,
// which tell who came and not how the origin was reached, as long as they tell that and nothing else.
func appendReached(b, value []byte) []byte {
	for len(value) > 0 {
		end, quoted := 0, false
		for end < len(value) && (quoted || value[end] != ',' && value[end] != ';') {
			switch {
			case value[end] == '"':
				quoted = !quoted
			case value[end] == '\\' && quoted && end+1 < len(value):
				end++
			}
			end++
		}
		pair := header.Trim(value[:end])
		if name, node, _ := bytes.Cut(pair, []byte("=")); !header.EqualFold(name, "for") && !header.EqualFold(name, "by") || !isNode(node) {
			b = append(append(b, pair...), ';')
		}
		value = value[min(end+1, len(value)):]
	}
	return b
}

// isNode reports whether a value is a node of RFC 7239 §6: an address, or an identifier that hides one.
func isNode(v []byte) bool {
	if n := len(v); n > 1 && v[0] == '"' && v[n-1] == '"' {
		v = v[1 : n-1]
	}
	if len(v) > 0 && v[0] == '_' {
		return len(v) <= maxAddress && header.IsToken(v)
	}
	return isAddress(v)
}
