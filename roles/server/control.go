package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// manager is the server's tether to whoever is the manager now.
type manager struct {
	server *Server
	tether *link.Tether
	first  chan *link.Conn // the first connection
}

const (
	dialTimeout  = 2 * time.Second
	askTimeout   = 20 * time.Second
	callPause    = 20 * time.Millisecond
	readyTimeout = 10 * time.Minute // the manager replies when it is our turn; after this it is asked again
)

// tether attaches the server to its manager, and to each that follows.
func (s *Server) tether(ctx context.Context) *manager {
	m := &manager{server: s, first: make(chan *link.Conn, 1)}
	path := s.root.ManagerSocket()
	m.tether = link.Keep(ctx, link.KeepOptions{
		Dial: func(context.Context) (net.Conn, error) {
			return runroot.DialUnix(path, runroot.Packet, dialTimeout)
		},
		Self: s.hello,
		Mux:  s.operations(),
		OnConnect: func(*link.Conn) {
			if st := s.current(); st != stats.Stopped {
				s.log.Info().Str("state", st.String()).Msg("attached to manager")
			}
		},
		OnRefused: func(err error) { s.log.Warn().Err(err).Msg("manager refused this server") },
		Dir:       filepath.Dir(path),
		Name:      filepath.Base(path),
	})
	return m
}

func (s *Server) hello() link.Hello {
	self := proc.Self()
	st := s.current()
	if st == stats.Stopped {
		st = stats.Starting
	}
	return link.Hello{
		Role: "server", PID: self.PID, StartTime: self.StartTime, Generation: s.generation, State: st.String(), Journal: s.journalID(),
		Leaves: s.ends(),
	}
}

// ends reports whether the server was asked to end.
func (s *Server) ends() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// operations are what a manager may ask of a server.
func (s *Server) operations() *link.Mux {
	x := link.NewMux()
	handle := func(op string, f func(m *link.Message) (link.Reply, error)) {
		x.Handle(op, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) { return f(m) })
	}
	handle("reload", func(m *link.Message) (link.Reply, error) { return link.Reply{}, s.reload(m.Body) })
	handle("drain", func(m *link.Message) (link.Reply, error) {
		var body struct {
			Undo bool `json:"undo"`
		}
		if err := m.Decode(&body); err != nil {
			return link.Reply{}, err
		}
		s.drain(body.Undo)
		return link.Reply{}, nil
	})
	handle("yield", func(*link.Message) (link.Reply, error) { return link.Reply{}, s.yield() })
	handle("ping", func(*link.Message) (link.Reply, error) {
		s.each(func(*worker) {}) // a loop that does not turn lets the caller wait
		return link.Reply{}, nil
	})
	handle("cause", func(m *link.Message) (link.Reply, error) {
		var body causeBody
		if err := m.Decode(&body); err != nil {
			return link.Reply{}, err
		}
		s.learn(body)
		return link.Reply{}, nil
	})
	handle("retire", func(*link.Message) (link.Reply, error) { return link.Reply{}, s.retire() })
	handle("stop", func(m *link.Message) (link.Reply, error) {
		var body struct {
			Fast    bool `json:"fast"`
			Standby bool `json:"standby"` // only if it stands by
		}
		if err := m.Decode(&body); err != nil {
			return link.Reply{}, err
		}
		if body.Standby {
			return link.Reply{}, s.discard()
		}
		s.shutdown(body.Fast)
		return link.Reply{}, nil
	})
	handle("heritage", func(*link.Message) (link.Reply, error) {
		body, fds, err := s.heritage.Marshal()
		return link.Reply{Body: json.RawMessage(body), FDs: fds}, err
	})
	handle("origins", func(*link.Message) (link.Reply, error) {
		return link.Reply{Body: map[string]any{"servers": s.parents.Reports()}}, nil
	})
	handle("trouble", func(*link.Message) (link.Reply, error) { return link.Reply{Body: s.troubles()}, nil })
	handle("cache", s.inspector.ask)
	handle("reopen", func(*link.Message) (link.Reply, error) {
		return link.Reply{}, s.reopen()
	})
	return x
}

// call asks whichever manager is there, again when one goes away meanwhile.
func (m *manager) call(ctx context.Context, op string, body any, limit time.Duration) (*link.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		c, err := m.tether.Wait(ctx)
		if err != nil {
			return nil, exitcode.Errorf(exitcode.TryAgain, "no manager answers on %s: %w", m.server.root.ManagerSocket(), err)
		}
		reply, err := c.Call(ctx, op, body)
		if err == nil {
			return reply, nil
		}
		var refusal *link.RemoteError
		if errors.As(err, &refusal) || ctx.Err() != nil {
			return nil, fmt.Errorf("ask the manager for %s: %w", op, err)
		}
		// Whatever else went wrong is the end of the connection, though it may not be known as that yet.
		select {
		case <-c.Done():
		case <-time.After(callPause):
		case <-ctx.Done():
		}
	}
}

// config asks for the configuration.
func (m *manager) config(ctx context.Context) (*config.Config, error) {
	reply, err := m.call(ctx, "config", struct{}{}, askTimeout)
	if err != nil {
		return nil, err
	}
	defer reply.Close()
	return config.Decode(reply.Body)
}

// readyBody says that this server is ready. Took: it holds server.lock and serves what its
// predecessor left; otherwise it holds nothing yet.
type readyBody struct {
	Generation uint64 `json:"generation"`
	Took       bool   `json:"took"`
	Journal    uint64 `json:"journal"`
}

// ready tells the manager that the server is, and waits for its turn, which may be that of
// another server's death.
func (m *manager) ready(ctx context.Context, took bool) error {
	for {
		reply, err := m.call(ctx, "ready", readyBody{m.server.generation, took, m.server.journalID()}, readyTimeout)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		reply.Close()
		return nil
	}
}

// stateBody is what is said of a state.
type stateBody struct {
	State   string `json:"state"`
	Journal uint64 `json:"journal"` // inode; 0: no custody
}

// tell reports a new state; a manager that is not there learns it by hello.
func (m *manager) tell(st stats.State) {
	if m == nil {
		return // a test without a manager
	}
	if c := m.tether.Conn(); c != nil {
		if err := c.Emit("state", stateBody{st.String(), m.server.journalID()}); err != nil {
			m.server.log.Debug().Err(err).Msg("report state")
		}
	}
}

// causeBody asks, or says, why the server of a generation died. Fault "": not known yet.
type causeBody struct {
	Generation uint64          `json:"generation"`
	Fault      supervise.Fault `json:"fault"`
}

// cause asks why the server of a generation died. The manager learns it when the kernel has
// taken that process apart, so the answer may come later than the successor begins; it
// is waited for until ctx ends. supervise.FaultUnknown: the manager will never know.
func (m *manager) cause(ctx context.Context, generation uint64) (supervise.Fault, error) {
	told := m.server.expectCause(generation)
	reply, err := m.call(ctx, "cause", causeBody{Generation: generation}, askTimeout)
	if err != nil {
		return supervise.FaultUnknown, err
	}
	defer reply.Close()
	var body causeBody
	if err := reply.Decode(&body); err != nil {
		return supervise.FaultUnknown, err
	}
	if body.Fault != "" {
		return body.Fault, nil
	}
	select {
	case f := <-told:
		return f, nil
	case <-ctx.Done():
		return supervise.FaultUnknown, fmt.Errorf("ask why generation %d died: %w", generation, ctx.Err())
	}
}

// expectCause is a channel on which the cause of a death will be said.
func (s *Server) expectCause(generation uint64) <-chan supervise.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.causes == nil {
		s.causes = map[uint64]chan supervise.Fault{}
	}
	if s.causes[generation] == nil {
		s.causes[generation] = make(chan supervise.Fault, 1)
	}
	return s.causes[generation]
}

// learn passes on what the manager says of a death.
func (s *Server) learn(b causeBody) {
	s.expectCause(b.Generation)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.causes[b.Generation] <- b.Fault:
	default: // said before
	}
}

func (m *manager) close() { m.tether.Close() }
