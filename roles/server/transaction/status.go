package transaction

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
)

// forward is why a request went to the origin (RFC 9211 §2.2).
type forward uint8

const (
	notForwarded forward = iota
	fwdBypass            // nothing of the rule is cached, or nothing at all
	fwdMethod            // the request is not one that a cache may answer
	fwdURIMiss           // nothing is stored for the URI
	fwdVaryMiss          // what is stored is for other requests
	fwdMiss              // one of the two
	fwdRequest           // it is fresh, and the client wants it fresher
	fwdStale             // it is stale
	fwdPartial           // a part of it is stored
	numForwards
)

// forwards are the parameters that say so. Immutable.
var forwards = [numForwards]string{
	"; hit", "; fwd=bypass", "; fwd=method", "; fwd=uri-miss", "; fwd=vary-miss", "; fwd=miss", "; fwd=request", "; fwd=stale", "; fwd=partial",
}

// detail is what else there is to say (RFC 9211 §2.8).
type detail uint8

const (
	noDetail detail = iota
	whileRevalidating
	onError
)

// details are the parameters that say so. Immutable.
var details = [...]string{"", "; detail=stale-while-revalidate", "; detail=stale-if-error"}

// Status is what the Cache-Status field says of a cache, made once. Immutable.
type Status struct {
	line string // up to the name
	hit  string // up to the lifetime of a hit
}

// NewStatus makes that of a cache of this name: a token of Structured Fields if it is one, else a string.
func NewStatus(name string) *Status {
	d := header.DictionaryMembers([]byte("a=" + name))
	if !d.Next() || d.Kind != header.Token || len(d.Value) != len(name) {
		name = `"` + name + `"`
	}
	line := header.CacheStatus.String() + ": " + name
	return &Status{line, line + forwards[notForwarded] + "; ttl="}
}

// missed notes why what is in the cache, if anything is, does not do.
func (t *Transaction) missed() {
	if t.fwd != notForwarded {
		return // it looks for the second time
	}
	switch {
	case t.pieces.valid():
		t.fwd = fwdPartial
	case !t.obj.Valid() && t.sel.Missed:
		t.fwd = fwdVaryMiss
	case !t.obj.Valid():
		t.fwd = fwdURIMiss
	case t.obj.Meta().Flags&cache.NoCache == 0 && freshness.TTL(t.obj.Meta(), t.env.Loop.Wall()) > 0:
		t.fwd = fwdRequest
	default:
		t.fwd = fwdStale
	}
}

// lives notes for how long the response that is stored is fresh.
func (t *Transaction) lives(m *cache.Meta) {
	t.ttl, t.stored = freshness.TTL(m, t.env.Loop.Wall()), true
}

// appendStatus appends the Cache-Status of the reply (RFC 9211). It is part of every hit, so it
// allocates nothing as long as b has room.
func (t *Transaction) appendStatus(b []byte) []byte {
	if t.reply.Local && t.fwd == notForwarded {
		return b // the cache had no part in it
	}
	if t.fwd == notForwarded && t.stored && t.ttl >= 0 && t.detail == noDetail { // nearly all of them
		b = header.AppendUint(append(b, t.settings.Status.hit...), uint64(t.ttl))
		return append(b, "\r\n"...)
	}
	b = append(append(b, t.settings.Status.line...), forwards[t.fwd]...)
	if t.fwdStatus != 0 {
		b = append(b, "; fwd-status="...)
		b = header.AppendUint(b, uint64(t.fwdStatus))
	}
	if t.fills {
		b = append(b, "; stored"...)
	}
	if t.follows {
		b = append(b, "; collapsed"...)
	}
	if t.stored {
		b = append(b, "; ttl="...)
		n := t.ttl
		if n < 0 {
			b, n = append(b, '-'), -n
		}
		b = header.AppendUint(b, uint64(n))
	}
	b = append(b, details[t.detail]...)
	return append(b, "\r\n"...)
}
