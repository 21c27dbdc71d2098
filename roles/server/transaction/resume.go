package transaction

import (
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
)

// A response of known length with a strong validator that breaks off is gone on with: the rest of it is asked for, on the
// condition that it is still the same (RFC 9110 §13.1.5, §14.2). The clients that have had a
// part of it notice nothing. If it is another by now there is no way to go on.

// resume asks for the rest of a body that has broken off. It reports whether it did. A request with content
// is not sent again: the content is not at hand any more.
func (f *fetch) resume(why origin.Failure) bool {
	if f.progress != open || f.x.Method != http1.GET || f.x.Body != nil || why.Timeout || why.Err == origin.ErrNoBuffers || f.resumeTag() == nil {
		return false
	}
	if r, _ := f.remaining(); r.len() <= 0 || f.resumes >= f.env.Settings.Load().ResumeAttempts || !f.findLead() || f.lead.homeless() || !f.chooseAgain(why) {
		return false
	}
	f.env.Stats.Inc(stats.OriginResumes)
	f.resumes++
	f.resuming = true
	f.base = f.at
	f.stale.Release()
	f.x.Fresh = true
	f.send()
	f.tell() // of what came last
	return true
}

// findLead sees to it that there is a request to be sent again: the leader's, or that of another
// follower of this loop, which the same response answers.
func (f *fetch) findLead() bool {
	if f.lead != nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.followers {
		if p.t.env == f.env && p.t.req != nil {
			f.lead = p.t
			p.t.leading = true
			if p.t.homeless() { // its reply was begun by a server that is dead, and nobody has asked since where it goes
				p.t.findRoute()
			}
			f.describeRequest(p.t)
			return true
		}
	}
	return false
}

// chooseAgain finds the server that is asked for the rest: the same, unless it could not be reached. False: there is none.
func (f *fetch) chooseAgain(why origin.Failure) bool {
	if f.group == nil {
		if f.group = f.env.Parents.Of(f.x.Origin); f.group == nil {
			return false
		}
	}
	if f.x.Server != nil && (why.Connected || !f.group.Others(f.tried)) {
		return true
	}
	if f.x.Server == nil { // the fetch comes from a server that is dead
		f.tried, f.refused = 0, 0
	}
	s, probe := f.pick()
	if s != nil {
		f.ask(s, probe)
	}
	return f.x.Server != nil
}

// resumeTag is the strong entity tag of what is being fetched; nil: it has none.
func (f *fetch) resumeTag() []byte {
	if f.head.status != 200 && f.head.status != 206 {
		return nil
	}
	return freshness.FindETag(f.head.lines)
}

// remaining is what has not come yet of what was asked for, and the size of the representation.
func (f *fetch) remaining() (r span, size int64) {
	if f.w == nil && f.head.status == 206 {
		c, ok := freshness.FindContentRange(f.head.lines)
		if !ok || c.Total < 0 || c.To-c.From != f.head.length {
			return span{}, 0
		}
		return span{c.From + f.at, c.To}, c.Total
	}
	if f.w == nil {
		return span{f.at, f.head.length}, f.head.length
	}
	have, size := spanOf(&f.head.meta, f.head.length)
	if f.w.Declared() < 0 {
		return span{}, size
	}
	from := have.from + f.pieces.ahead()
	return span{from + f.at, from + f.w.Declared()}, size
}

// appendResume appends the field lines that ask for the rest.
func (f *fetch) appendResume(b []byte) []byte {
	r, size := f.remaining()
	b = appendRangeLine(b, r, size)
	return http1.AppendFieldID(b, header.IfRange, f.resumeTag())
}

// resumed takes the head of the response to a request for the rest.
func (f *fetch) resumed(r *http1.Response, head []byte) origin.Sink {
	want, size := f.remaining()
	p, several, ok := f.enclosed(r, head)
	if r.Status != 206 || !ok || several || p.bent || p.span != want || p.size != size ||
		r.Repeated(header.ETag) || !header.StrongMatch(r.Value(head, header.ETag), f.resumeTag()) {
		f.finish(failed, torn)
		return nil
	}
	f.resuming = false
	f.note(custody.StepOpened)
	return f
}
