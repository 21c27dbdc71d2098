package server

import (
	"os"
	"sync/atomic"
	"time"

	"trafficd/roles/internal/stats"
)

// retire hands the listeners and the lock over to a successor; what is under
// way is finished here. It returns when the successor may begin.
func (s *Server) retire() error {
	s.each((*worker).stopAccepting)
	s.mu.Lock()
	lock := s.lock
	s.lock = nil
	s.mu.Unlock()
	s.closeDisk() // before anybody else can want it
	if lock != nil {
		if err := lock.Release(); err != nil {
			return err
		}
	}
	s.shutdown(false)
	return nil
}

// end finishes what is under way, as long as it may take.
func (s *Server) end() {
	s.each((*worker).stopAccepting)
	s.mu.Lock()
	held := s.lock != nil
	fast := s.fast
	s.mu.Unlock()
	if held {
		s.enter(stats.Draining)
	}
	if !fast {
		s.drainSessions()
	}
	s.parents.Close()
	s.each(func(w *worker) { w.host.CloseAll() })
	s.closeDisk()
	s.closeAccessLog()
	if held && s.custody != nil {
		s.custody.release()
	}
	if held {
		s.role.Leave(os.Getpid())
	}
	if err := s.group.Close(); err != nil {
		s.log.Error().Err(err).Msg("event loops")
	}
	s.link.close()
	s.log.Info().Msg("server stopped")
}

// drainPoll is how often the end of a drain is looked for.
const drainPoll = 10 * time.Millisecond

// drainSessions waits until no session is left, or the time for it is over. The
// idle ones are closed at once; the others end with their reply.
func (s *Server) drainSessions() {
	deadline := time.NewTimer(s.config.Load().Timeouts.Drain)
	defer deadline.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	s.each(func(w *worker) { w.host.Drain() })
	for s.sessions() > 0 {
		select {
		case <-deadline.C:
			s.log.Warn().Int("sessions", s.sessions()).Msg("drain deadline passed")
			return
		case <-s.yields:
			s.leave() // the standby finishes the rest
		case <-poll.C:
		}
	}
}

func (s *Server) sessions() int {
	var n atomic.Int64
	s.each(func(w *worker) { n.Add(int64(w.host.Sessions())) })
	return int(n.Load())
}

// drain makes every reply end its connection, or takes that back; the server
// goes on accepting.
func (s *Server) drain(undo bool) {
	if undo {
		s.each(func(w *worker) { w.host.Draining = false })
		s.enter(stats.Ready)
		return
	}
	s.each(func(w *worker) { w.host.Drain() })
	s.enter(stats.Draining)
}
