package transaction

import (
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
)

// A request that got no response is sent again where that is safe: nothing of a response has been given to the
// client, all of the request is still at hand, and either no byte of it can have reached an origin, or acting on it
// twice is acting once (RFC 9110 §9.2.2).
//
//	what happened                        any method        idempotent
//	no connection, no room for one       next server       next server
//	a kept connection was closed         no                same server, new connection
//	no answer, or not one of HTTP        no                next server, out of the budget
//	a status that the group asks for     no                next server, out of the budget
//
// What may have been sent is repeated out of the group's budget, so that an outage is not made worse; the first two
// rows cost no origin anything. A successor of this process begins with the number of the attempt that is in the
// fetch's record, which is noted before each.

// repeat is what may be done about an attempt that failed.
type repeat uint8

const (
	giveUp     repeat = iota
	sameServer        // on a new connection
	nextServer
	nextCostly // nextServer, out of the budget
)

func (a repeat) String() string {
	return [...]string{"give up", "same server", "next server", "next server, out of the budget"}[a]
}

// retryable decides by the failure and the method alone.
func retryable(why origin.Failure, idempotent bool) repeat {
	switch {
	case why.BodyTaken || why.Begun || why.Err == origin.ErrBody || why.Err == origin.ErrNoBuffers || why.Err == origin.ErrForbidden:
		return giveUp
	case !why.Connected:
		return nextServer
	case !idempotent:
		return giveUp
	case why.Idle:
		return sameServer
	}
	return nextCostly
}

// choose finds the server for the first attempt. False: there is none, and the fetch is over.
func (f *fetch) choose() bool {
	if f.x.Origin.Builtin {
		return true
	}
	if f.group = f.env.parents(f.x.Origin); f.group == nil {
		f.finish(failed, nowhere)
		return false
	}
	s, probe := f.pick()
	if s == nil {
		f.env.Stats.Inc(stats.OriginNoneUp)
		f.finish(failed, reason{503, "no server of the origin is up"})
		return false
	}
	f.ask(s, probe)
	f.group.Sent(f.loop.Now())
	return true
}

// maxGroups bounds the groups that a loop has at hand: rules have few origins, clients of a forward proxy as many as they
// like.
const maxGroups = 256

// parents finds the group of an origin, for most without a look into what all loops share (BenchmarkMiss in package parent:
// a third of what a miss pays for its server).
func (e *Env) parents(o *remap.Origin) *parent.Group {
	if s := e.Settings.Load(); s != e.groupsOf || len(e.groups) >= maxGroups {
		e.groupsOf, e.groups = s, map[*remap.Origin]*parent.Group{}
	}
	g := e.groups[o]
	if g == nil {
		if g = e.Parents.Of(o); g != nil {
			e.groups[o] = g
		}
	}
	return g
}

// pick finds a server that this request has not been sent to; nil: there is none.
func (f *fetch) pick() (s *parent.Server, probe bool) {
	var hash uint64
	if f.group.Hashes() {
		t := f.lead
		hash = parent.Hash(t.req.Host.In(t.head), t.path, t.query())
	}
	return f.group.Pick(hash, f.tried, f.loop.Now())
}

// ask makes s the server of the next attempt.
func (f *fetch) ask(s *parent.Server, probe bool) {
	f.tried.Add(s.Index())
	f.x.Server, f.x.Probe = s, probe
}

// OriginFail implements origin.Handler.
func (f *fetch) OriginFail(why origin.Failure) {
	if why.Err == origin.ErrForbidden {
		f.env.Stats.Inc(stats.ForwardRefused)
	}
	if !f.resume(why) && !f.retry(retryable(why, f.x.Method.Idempotent())) {
		f.finish(failed, failureReason(why))
	}
}

// passOver reports whether a response of that status is passed over for another server's; then that one has been
// asked.
func (f *fetch) passOver(status int) bool {
	if f.group == nil {
		return false
	}
	if !f.group.RetryStatus(status) {
		f.group.Outdone(f.refused, f.loop.Now())
		f.refused = 0
		return false
	}
	if f.x.BodyTaken() || !f.x.Method.Idempotent() {
		return false
	}
	before := f.refused
	if s := f.x.Server; s != nil {
		f.refused.Add(s.Index())
	}
	if f.retry(nextCostly) {
		return true
	}
	f.refused = before
	return false
}

// retry sends the request once more, if there is somebody to send it to.
func (f *fetch) retry(how repeat) bool {
	if how == giveUp || f.progress != pending || f.lead == nil || int(f.x.Attempt) >= f.lead.settings.Attempts {
		return false
	}
	if f.group == nil { // it comes from a server that is dead
		if f.group = f.env.Parents.Of(f.x.Origin); f.group == nil {
			return false
		}
	}
	if how == nextCostly {
		if !f.group.Others(f.tried) {
			return false
		}
		if !f.group.Again(f.loop.Now()) {
			f.env.Stats.Inc(stats.OriginRetriesRefused)
			return false
		}
	}
	s, probe := f.x.Server, false
	if how != sameServer || s == nil {
		s, probe = f.pick()
	}
	if s == nil {
		return false
	}
	f.x.Cancel() // of a response that is passed over
	f.ask(s, probe)
	f.x.Fresh = true
	f.env.Stats.Inc(statRetried)
	f.send()
	return true
}
