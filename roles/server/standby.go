package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"trafficd/lockfile"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"

	"golang.org/x/sys/unix"
)

// A server with custody begins as a standby: it has done everything but accept. What makes
// it the server is server.lock, which it takes by itself as soon as the threads of the one
// that serves are dead; it needs nobody's word for that, so that it works with every other
// process of the instance dead. The very first server goes the same way, and meets nobody.
//
//	stand by ── the loop threads of the server are dead ──▶ server.lock ──▶ take over
//	   ▲                                                        │
//	   └──────────── another standby was faster ────────────────┘
//
// Without custody it is the manager's word first, and the lock after it.

// become makes this process the server when it is its turn. It returns when it accepts.
func (s *Server) become(ctx context.Context) error {
	take := s.standBy
	if s.custody == nil {
		take = s.waitTurn
	}
	lock, err := take(ctx)
	if err != nil {
		return err
	}
	return s.begin(ctx, lock)
}

// waitTurn is how a server without custody comes to its lock.
func (s *Server) waitTurn(ctx context.Context) (*lockfile.Lock, error) {
	if err := s.link.ready(ctx, false); err != nil {
		return nil, err
	}
	lock, err := s.takeLock()
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, exitcode.With(exitcode.TryAgain, err)
	}
	return lock, err
}

// The dead server's descriptors are closed some microseconds after its threads have died,
// by its keeper, the lock's first. Until then the lock is asked for again and again. If
// that takes longer, it is another standby's by now, whose death will be waited for as soon
// as it has entered itself in the journal, or that of a server that retires and is not in this
// journal at all.
const (
	lockRetry = 500 * time.Microsecond
	lockHurry = time.Second
	lockPause = 10 * time.Millisecond // once lockHurry is over
)

// standBy waits for the end of the server that serves, and takes server.lock.
func (s *Server) standBy(ctx context.Context) (*lockfile.Lock, error) {
	s.say(stats.Standby)
	s.log.Info().Uint64("generation", s.generation).Msg("server stands by")
	for since := time.Now(); ; {
		asked := time.Now()
		if err := s.custody.await(ctx); err != nil {
			return nil, fmt.Errorf("stand by: %w", err)
		}
		if time.Since(asked) > lockHurry {
			since = time.Now() // it was a wait for a death, and this is the death
		}
		lock, err := s.takeLock()
		if !errors.Is(err, lockfile.ErrHeld) {
			return lock, err
		}
		pause := lockRetry
		if time.Since(since) > lockHurry {
			pause = lockPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// errEnding is why a server that was asked to end takes no lock.
var errEnding = errors.New("this server was asked to end")

// takeLock makes this process the server, unless it was asked to end. Whether the one or the other was first is
// decided here and in discard: who has the lock has the connections, and does not end for another's sake.
func (s *Server) takeLock() (*lockfile.Lock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends() {
		return nil, errEnding
	}
	lock, err := lockfile.Acquire(s.root.ServerLock())
	if err == nil {
		s.lock = lock
	}
	return lock, err
}

// discard ends a server that stands by, and refuses when it has taken over.
func (s *Server) discard() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		return errors.New("this server has taken over")
	}
	s.shut(true)
	return nil
}

// goPoll is how often a server that waits for the manager's word looks whether there is a
// manager at all, once its link is down.
const goPoll = 2 * time.Millisecond

// turn waits for the word to go. Without a manager nobody else can be at the queue: one
// that is started later takes manager.lock and then looks at server.lock, which this
// server holds by now. So a free manager.lock is as good as the word.
func (m *manager) turn(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	granted := make(chan error, 1)
	go func() { granted <- m.ready(ctx, true) }()
	look := time.NewTicker(goPoll)
	defer look.Stop()
	for {
		select {
		case err := <-granted:
			return err
		case <-look.C:
			if m.tether.Conn() == nil && free(m.server.root.ManagerLock()) {
				m.server.log.Warn().Msg("no manager is there, server goes on without")
				return nil
			}
		}
	}
}

// yield leaves the connections to the standby, at the end of each loop's turn: the planned
// form of a death.
func (s *Server) yield() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.custody == nil || s.lock == nil {
		return errors.New("this server has no custody to leave")
	}
	select {
	case <-s.yields:
	default:
		close(s.yields)
	}
	return nil
}

// leave ends the process without touching anything: what it has is its keeper's to pass on,
// and every deed from here on could be one too many.
func (s *Server) leave() {
	s.log.Info().Uint64("generation", s.generation).Msg("server yields")
	s.custody.journal.Owner()[3].Store(yielded)
	s.park()
	os.Exit(int(exitcode.OK))
}

// journalID tells the journal that this server's connections are in from any other; 0: none.
func (s *Server) journalID() uint64 {
	s.mu.Lock()
	kept := s.kept
	s.mu.Unlock()
	if !kept {
		return 0
	}
	fd, ok := s.heritage.Get(heritage.Journal)
	var st unix.Stat_t
	if !ok || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
