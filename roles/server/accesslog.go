package server

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/accesslog"
)

// openAccessLog makes the access log, over the memory of the heritage: what the loops log outlives this process
// there, as their connections do. Without custody it is memory of its own.
func (s *Server) openAccessLog() error {
	mem, err := s.mapAccessLog()
	if err != nil {
		return err
	}
	out, err := accesslog.New(accesslog.Options{
		Loops: s.threads, Memory: mem,
		Self: func() (int, uint64) {
			self := proc.Self()
			return self.PID, self.StartTime
		},
		Report:  s.tellAccessLog,
		Written: func(lines int) { s.bank.Row(0).Add(stats.AccessLogWritten, uint64(lines)) },
		Failed:  func() { s.bank.Row(0).Inc(stats.AccessLogFailures) },
		Dropped: func(loop int) { s.bank.Row(loop).Inc(stats.AccessLogDropped) },
	})
	if err == nil {
		s.accessLog.Store(out)
	}
	return err
}

func (s *Server) mapAccessLog() ([]byte, error) {
	fd, ok := s.heritage.Get(heritage.AccessLog)
	if !ok || s.custody == nil {
		return accesslog.NewMemory(s.threads)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("size of the access log's memory: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the access log's memory: %w", err)
	}
	if err := keepFromKeeper(mem); err != nil {
		return nil, fmt.Errorf("keep the access log's memory from the keeper: %w", err)
	}
	return mem, nil
}

// tellAccessLog tells of trouble with the access log, and of its end.
func (s *Server) tellAccessLog(err error) {
	if err != nil {
		s.log.Error().Err(err).Msg("access log is not written")
		return
	}
	s.log.Info().Msg("access log is written again")
}

// takeAccessLog makes the log this server's. The loops of the one before are dead; its writer may still be in
// the midst of a write, and is waited for in the background.
func (s *Server) takeAccessLog() {
	out := s.accessLog.Load()
	pid, start := out.Predecessor()
	if err := out.Claim(); err != nil {
		s.log.Error().Err(err).Msg("access log")
	}
	gone := make(chan struct{})
	if before, err := proc.Adopt(pid, start); pid != 0 && err == nil {
		go func() {
			<-before.Done()
			close(gone)
		}()
	} else {
		close(gone)
	}
	out.Start(gone)
}

// useAccessLog takes over what a configuration says of the log.
func (s *Server) useAccessLog(c *config.Config) error {
	if c.AccessLog.Path == "" {
		s.lines.Store(nil)
	} else {
		f, err := accesslog.NewFormat(c.AccessLog.Format, c.AccessLog.Custom)
		if err != nil {
			return exitcode.With(exitcode.Config, err)
		}
		s.lines.Store(f)
	}
	if out := s.accessLog.Load(); out != nil { // nil: a test without loops
		out.Use(c.AccessLog.Path)
	}
	return nil
}

// useAccessLog has the loop log in the form of now, or not at all. It runs on the loop, or before it runs.
func (w *worker) useAccessLog() {
	w.host.Log = nil
	if f := w.server.lines.Load(); f != nil {
		w.host.Log = w.server.accessLog.Load().Log(w.index)
		w.host.Log.Use(f)
	}
}

// logPatience is how long the last lines may take to be written, and a log to be reopened.
const logPatience = 2 * time.Second

func (s *Server) reopenAccessLog() error {
	out := s.accessLog.Load()
	if out == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), logPatience)
	defer cancel()
	return out.Reopen(ctx)
}

// closeAccessLog writes what is left.
func (s *Server) closeAccessLog() {
	ctx, cancel := context.WithTimeout(context.Background(), logPatience)
	defer cancel()
	s.accessLog.Load().Close(ctx)
}
