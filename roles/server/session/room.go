package session

import (
	"slices"
	"time"
)

// Ages from which a session that does not use its place may lose it to another. They are short, for
// it happens only when there is no place left at all.
const (
	mutterAge = 2 * time.Second // since it was to begin a request
	stallAge  = 5 * time.Second // of waiting for it
)

// A victim is a session that may be closed to make room.
type victim struct {
	s *Session
	// rank: sessions between two requests go first; they lose least, and a client has to expect it
	// (RFC 9112 §9.5). Then those whose request does not come, then those that do not send or take a body.
	rank int
	// since is when it began to be of no use, monotonic ns.
	since int64
}

// MakeRoom closes up to n sessions that hold their places without using them, and reports how many.
// Those that sleep are the oldest of the idle ones. It looks at all of the others, so it is meant for when there is none left: what it costs is
// shared by the n that come in their places.
func (h *Host) MakeRoom(n int) (closed int) {
	for _, s := range h.wakeOldest(n) {
		s.abort()
		h.Stats.Evicted()
		closed++
	}
	if n -= closed; n == 0 {
		return closed
	}
	var victims []victim
	now := h.Loop.Now()
	for s := h.sessions.head; s != nil; s = s.next {
		if v, ok := s.unused(now); ok {
			victims = append(victims, v)
		}
	}
	slices.SortFunc(victims, func(a, b victim) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return int(min(max(a.since-b.since, -1), 1))
	})
	for _, v := range victims[:min(n, len(victims))] {
		v.s.abort()
		h.Stats.Evicted()
		closed++
	}
	return closed
}

// unused reports whether a session holds its place for nothing.
func (s *Session) unused(now int64) (v victim, ok bool) {
	v.s = s
	switch {
	case s.waits != nil:
		return v, false // its turn has not come yet
	case s.phase == phaseIdle && s.served > 0:
		v.since = s.limit.At() - int64(s.host.Limits.Idle)
		return v, true
	case s.phase == phaseLingering:
		v.since = s.limit.At() - int64(lingerTime)
		return v, true
	case s.phase == phaseIdle, s.phase == phaseHead:
		v.rank, v.since = 1, s.limit.At()-int64(s.host.Limits.Header)
		return v, now-v.since >= int64(mutterAge)
	case s.phase == phaseAnswering:
		v.rank, v.since = 2, s.work.stalled()
		return v, v.since != 0 && now-v.since >= int64(stallAge)
	}
	return v, false
}

// stalled is since when the client is waited for; 0: it is not.
func (w *work) stalled() int64 {
	if w.reply != nil && w.down.since != 0 {
		return w.down.since
	}
	return w.up.since
}
