package transaction

import (
	"trafficd/roles/server/accesslog"
)

// What the access log is told of cache and origin. It is noted where it becomes true, and read once.

// went notes that the request goes to an origin, or waits for what another one brings.
func (t *Transaction) went() {
	switch {
	case t.obj.Valid():
		t.outcome.Result = accesslog.RefreshMiss // unless the origin says that it is good
	case t.control.NoCache:
		t.outcome.Result = accesslog.ClientRefresh
	default:
		t.outcome.Result = accesslog.Miss
	}
}

// found notes that the response is in the cache.
func (t *Transaction) found() {
	switch {
	case t.detail == whileRevalidating:
		t.outcome.Result = accesslog.StaleHit
	case t.detail == onError:
		t.outcome.Result = accesslog.RefFailHit
	case t.outcome.Result == accesslog.RefreshMiss:
		t.outcome.Result = accesslog.RefreshHit
	case t.asked:
		t.outcome.Result = accesslog.Hit
	default:
		t.outcome.Result = accesslog.MemHit
	}
}

// sentTo notes whom the request was sent to, before the fetch is left.
func (t *Transaction) sentTo() {
	f := t.place.f
	if !t.leading || f == nil || f.x.Origin == nil || f.x.Origin.Builtin {
		return
	}
	t.outcome.Origin, t.outcome.Host = f.x.Peer, f.x.Origin.Host
	if f.x.Server != nil {
		t.outcome.Host = f.x.Server.Host // of several
	}
}

// Outcome is the part that cache and origin had in the request. Until there is a reply it may
// change.
func (t *Transaction) Outcome() accesslog.Outcome {
	t.sentTo()
	o := t.outcome
	hit := o.Result == accesslog.MemHit || o.Result == accesslog.Hit
	switch status := t.reply.Status; {
	case t.state == tunnelling:
		o.Result = accesslog.Tunnelled
	case hit && status == 304:
		o.Result = accesslog.IMSHit
	case hit && status >= 400:
		o.Result = accesslog.NegativeHit
	case o.Result == accesslog.None && (status == 403 || status == 407):
		o.Result = accesslog.Denied
	}
	return o
}

// Recall takes over what a dead server has noted of the outcome.
func (t *Transaction) Recall(o accesslog.Outcome) { t.outcome = o }
