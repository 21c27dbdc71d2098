package transaction

import (
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/remap"
)

// route finds where the request goes. It reports false when the request goes
// nowhere, and has its answer.
func (t *Transaction) route() bool {
	if status, text := t.findRoute(); status != 0 {
		if status == 404 {
			t.env.Stats.Inc(stats.RemapUnmatched)
		}
		t.fail(status, text)
		return false
	}
	if p := t.match.Policy(); len(p.Allow) > 0 && !p.Allows(t.client.Peer().Addr()) {
		t.env.Stats.Inc(stats.RemapDenied)
		t.fail(403, "this is not for you")
		return false
	}
	if t.match.Rule == nil {
		t.env.Stats.Inc(stats.ForwardRequests)
	}
	if status := t.match.Redirect(); status != 0 {
		t.env.Stats.Inc(stats.RemapRedirects)
		t.redirect(status)
		return false
	}
	return true
}

// findRoute finds the remap rule of the request, or, for a client that may name hosts itself, the origin
// that it names. A status says that the request goes nowhere.
func (t *Transaction) findRoute() (status int, text string) {
	switch f := t.settings.Forward; {
	case t.findRule():
		return 0, ""
	case t.req.Form == http1.AbsoluteForm && f.Enabled():
		return t.forward(f, false)
	}
	return 404, "no remap rule applies to this request"
}

// forward makes the host that the request names its origin (RFC 9112 §3.2.2). It has no rule then.
func (t *Transaction) forward(f *remap.Forward, connect bool) (status int, text string) {
	if !f.Allows(t.client.Peer().Addr()) {
		t.env.Stats.Inc(stats.ForwardRefused)
		return 403, "this proxy is not for you"
	}
	o, err := f.Origin(t.req.Host.In(t.head), connect)
	if err != nil {
		t.env.Stats.Inc(stats.ForwardRefused)
		return 403, err.Error()
	}
	t.match = remap.Match{Origin: o}
	if t.asksServer() {
		t.path = asterisk // the last proxy asks so (RFC 9112 §3.2.4)
	}
	return 0, ""
}

// connect opens a tunnel to where the client wants (RFC 9110 §9.3.6). Rules have no say in it: they are about
// requests, and what goes through a tunnel is not seen.
func (t *Transaction) connect() {
	f := t.settings.Forward
	if !f.Enabled() {
		t.fail(405, "CONNECT is not allowed here")
		return
	}
	if status, text := t.forward(f, true); status != 0 {
		t.fail(status, text)
		return
	}
	t.env.Stats.Inc(stats.ForwardTunnels)
	t.fetch(plan{})
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

var slash, asterisk = []byte("/"), []byte("*")

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
	if r := t.reply.Lines; !t.reply.Local && t.settings.Remap.Reverses(&t.match) && remap.Speaks(r) {
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
