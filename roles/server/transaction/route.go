package transaction

import (
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
)

// route finds where the request goes. It reports false when the request goes
// nowhere, and has its answer.
func (t *Transaction) route() bool {
	if !t.findRule() {
		t.fail(404, "no remap rule applies to this request")
		return false
	}
	if p := t.match.Policy(); len(p.Allow) > 0 && !p.Allows(t.client.Peer().Addr()) {
		t.fail(403, "this is not for you")
		return false
	}
	if status := t.match.Redirect(); status != 0 {
		t.redirect(status)
		return false
	}
	return true
}

// findRule finds the remap rule of the request. False: there is none.
func (t *Transaction) findRule() (ok bool) {
	t.findPath()
	t.match, ok = t.settings.Remap.Lookup(t.req.Host.In(t.head), t.path)
	return ok
}

// findPath finds the path that rules are about, that is part of the key and that
// the origin is asked for: the client's, unless it has another form in which it would mean the same.
func (t *Transaction) findPath() {
	t.path = t.req.Path.In(t.head)
	switch {
	case len(t.path) == 0:
		t.path = slash
	case !remap.Normal(t.path):
		t.normal = remap.AppendNormal(t.normal[:0], t.path)
		t.path = t.normal
	}
}

var slash = []byte("/")

// redirect answers with where else the client shall ask.
func (t *Transaction) redirect(status int) {
	t.lines = append(t.lines[:0], redirectLines...)
	t.lines = append(t.lines, "Location: "...)
	to := len(t.lines)
	t.lines = t.match.AppendLocation(t.lines, t.path, t.query())
	t.text = header.AppendUint(t.text[:0], uint64(status))
	t.text = append(t.text, ' ')
	t.text = append(t.text, http1.StatusText(status)...)
	t.text = append(t.text, ": "...)
	t.text = append(t.text, t.lines[to:]...)
	t.text = append(t.text, '\n')
	t.lines = append(t.lines, "\r\n"...)
	t.local = Memory(t.text)
	t.reply = Reply{Status: status, Lines: t.lines, Age: -1, Length: int64(len(t.text)), Local: true}
	if t.req.Method != http1.HEAD {
		t.reply.Body = &t.local
	}
	t.give()
}

var redirectLines = []byte("Server: trafficd\r\nContent-Type: text/plain; charset=utf-8\r\n")

// reverse makes what a response says of where things are lead back here. The
// cache keeps what the origin said: what it means here depends on the rule that finds it.
func (t *Transaction) reverse() {
	if r := t.reply.Lines; !t.reply.Local && t.settings.Remap.Reverses(&t.match) {
		t.reversed = t.settings.Remap.AppendReversed(t.reversed[:0], r, &t.match, t.req.Host.In(t.head))
		if len(t.reversed) <= maxLines {
			t.reply.Lines = t.reversed
		}
	}
}

// reverseURL is reverse for one URL.
func (t *Transaction) reverseURL(v []byte) []byte {
	if !t.settings.Remap.Reverses(&t.match) {
		return v
	}
	return t.settings.Remap.AppendReversedURL(nil, v, &t.match, t.req.Host.In(t.head))
}

// preservesHost reports whether the origin sees the Host that the client asked for.
func (t *Transaction) preservesHost() bool {
	return t.match.Policy().PreserveHost.Or(t.settings.PreserveHost)
}
