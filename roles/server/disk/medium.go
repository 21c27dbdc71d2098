package disk

import "sync/atomic"

// A medium knows how much of the log would outlive a power cut, and so what may be overwritten.
//
// Of two versions the older must not come back when the newer is gone. So before a segment is overwritten, all that is older
// than it, and the segment itself, must be dead on the medium. The header of each segment sees to that for those that are
// overwritten next, its runway: they lie below its floor. Once that header is on the medium, the runway may be overwritten
// in any order. So a writer that is faster than the medium does not wait for it before the end of the runway, and what it
// has written by then outlives all processes.
//
// No sequence number is used twice, or records of a segment whose header was lost would count in another one.
// So the writer is at most maxAhead numbers ahead of the medium, and a rebuild goes on above them.
type medium struct {
	written atomic.Pointer[waterline] // of the newest segment; the writer's
	solid   atomic.Pointer[waterline] // of one whose header is on the medium; nil: not known
	behind  chan struct{}             // of one: there is something to be flushed
}

// A waterline is what the header of a segment says.
type waterline struct{ seq, floor uint64 }

const (
	runwayShare = 16 // of the segments
	maxAhead    = 64
)

func (m *medium) init() { m.behind = make(chan struct{}, 1) }

// mayFollow reports whether a segment may be opened under the number seq, over what was written there under the number old (0: nothing).
func (m *medium) mayFollow(old, seq uint64) bool {
	solid := m.solid.Load()
	return solid != nil && seq-solid.seq <= maxAhead && old < max(solid.floor, 1)
}

// opened notes the header of a new segment.
func (m *medium) opened(w waterline) {
	m.written.Store(&w)
	select {
	case m.behind <- struct{}{}:
	default:
	}
}

// flush puts what was written on the medium.
func (s *Store) flush() error {
	s.dirty.Store(false)
	w := s.medium.written.Load()
	if err := s.dev.Sync(); err != nil {
		return err
	}
	if solid := s.medium.solid.Load(); w != nil && (solid == nil || solid.seq < w.seq) {
		s.medium.solid.CompareAndSwap(solid, w) // else another flush was as far
	}
	return nil
}
