package session

import "time"

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

// before reports whether v goes before w.
func (v *victim) before(w *victim) bool {
	return v.rank < w.rank || v.rank == w.rank && v.since < w.since
}

// victims are some of those found so far, a heap with the one that would go last on top.
type victims []victim

// add takes v among the n that go first.
func (h *victims) add(v victim, n int) {
	switch a := *h; {
	case len(a) < n:
		a = append(a, v)
		for i := len(a) - 1; i > 0 && a[(i-1)/2].before(&a[i]); i = (i - 1) / 2 {
			a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
		}
		*h = a
	case v.before(&a[0]):
		a[0] = v
		for i := 0; ; {
			last := i
			for k := 2*i + 1; k <= 2*i+2 && k < len(a); k++ {
				if a[last].before(&a[k]) {
					last = k
				}
			}
			if last == i {
				return
			}
			a[i], a[last] = a[last], a[i]
			i = last
		}
	}
}

// MakeRoom closes up to n sessions that hold their places without using them, and reports how many.
// Those that sleep are the oldest of the idle ones. It looks at all of the others, so it is meant for when there is
// none left: what it costs is shared by the n that come in their places.
func (h *Host) MakeRoom(n int) (closed int) {
	for _, s := range h.wakeOldest(n) {
		s.abort()
		h.Stats.Evicted()
		closed++
	}
	if n -= closed; n == 0 {
		return closed
	}
	first := make(victims, 0, n)
	now := h.Loop.Now()
	for s := h.sessions.head; s != nil; s = s.next {
		if v, ok := s.unused(now); ok {
			first.add(v, n)
		}
	}
	for _, v := range first {
		v.s.abort()
		h.Stats.Evicted()
	}
	return closed + len(first)
}

// unused reports whether a session holds its place for nothing.
func (s *Session) unused(now int64) (v victim, ok bool) {
	v.s = s
	switch {
	case s.waits != nil, s.turn:
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
