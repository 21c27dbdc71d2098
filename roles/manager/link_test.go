package manager

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/supervise"
)

// dialled is the one peer of m on a real link. m ends with the test.
func dialled(t *testing.T, m *manager, h link.Hello, x *link.Mux) *link.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manager.sock")
	l, err := runroot.ListenUnix(path, runroot.Packet)
	if err != nil {
		t.Fatal(err)
	}
	hub := link.Serve(l, m.linkOptions())
	t.Cleanup(func() { hub.Close() })
	t.Cleanup(func() { m.never(nil) }) // before the hub, which waits for its handlers
	peer := link.Keep(t.Context(), link.KeepOptions{
		Dial: func(context.Context) (net.Conn, error) { return runroot.DialUnix(path, runroot.Packet, time.Minute) },
		Self: func() link.Hello { return h },
		Mux:  x,
	})
	t.Cleanup(peer.Close)
	c, err := peer.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newcomer is a manager that has inherited nothing, and whose loop does not run yet.
func newcomer(t *testing.T, c *config.Config) *manager {
	t.Helper()
	es := emptyEstate(t)
	m := newManager(env{
		now:    time.Now,
		tune:   func(*config.Config) {},
		holder: func() int { return proc.Self().PID },
		adopt: func(pid int, start uint64, _ bool) (process, error) {
			p, err := proc.Adopt(pid, start)
			if err != nil {
				return nil, err
			}
			return &supervise.Peer{Process: p, Role: supervise.Server}, nil
		},
	}, zerolog.Nop(), birth{id: proc.Self(), generation: 1}, c, es)
	return m
}

// Cop and manager have died: all that the instance is made of is in the server's hands, and
// the next manager gets it from there before it would bind or make anything.
func TestHeritageIsHandedBack(t *testing.T) {
	c := smallConfig("127.0.0.1:0")
	old := emptyEstate(t)
	provide(t, old, c)
	self := proc.Self()

	m := newcomer(t, c)
	x := link.NewMux()
	x.Handle(opHeritage, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) {
		body, fds, err := old.set.Marshal()
		return link.Reply{Body: json.RawMessage(body), FDs: fds}, err
	})
	x.Handle(opReload, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) { return link.Reply{}, nil })
	dialled(t, m, link.Hello{Role: roleServer, PID: self.PID, StartTime: self.StartTime, Generation: 6, State: "ready"}, x)
	m.await(time.Minute, func() bool { return !m.estate.lacks(c) })
	if err := m.provide(); err != nil {
		t.Fatal(err)
	}
	if got, want := m.estate.listeners[0].Addr(), old.listeners[0].Addr(); got != want {
		t.Errorf("listens on %v, want %v", got, want)
	}
	if got, want := m.estate.set.Names(), old.set.Names(); !slices.Equal(got, want) {
		t.Errorf("holds %v, want %v", got, want)
	}
	if m.active == nil || m.active.generation != 6 || m.last != 6 {
		t.Errorf("active server %+v, last generation %d", m.active, m.last)
	}
}

// The last manager died in the middle of a planned restart: what this one has inherited is of a journal that the server does
// not have, and the next server has to go on with the server's.
func TestJournalIsHandedBack(t *testing.T) {
	c := smallConfig("127.0.0.1:0")
	old := emptyEstate(t)
	provide(t, old, c)
	self := proc.Self()

	m := newcomer(t, c)
	provide(t, m.estate, c)
	if m.estate.journal() == 0 || m.estate.journal() == old.journal() {
		t.Fatal("not two journals")
	}
	x := link.NewMux()
	x.Handle(opHeritage, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) {
		body, fds, err := old.set.Marshal()
		return link.Reply{Body: json.RawMessage(body), FDs: fds}, err
	})
	x.Handle(opReload, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) { return link.Reply{}, nil })
	dialled(t, m, link.Hello{Role: roleServer, PID: self.PID, StartTime: self.StartTime, State: "ready", Journal: old.journal()}, x)
	m.await(time.Minute, func() bool { return m.estate.journal() == old.journal() })
	if got, want := m.estate.journal(), old.journal(); got != want {
		t.Errorf("the journal is %d, want %d", got, want)
	}
	if !m.estate.changed {
		t.Error("cop is not to hold it")
	}
}

// What a peer may not ask, and what it may send that is nonsense.
func TestLinkRefuses(t *testing.T) {
	m := newcomer(t, smallConfig("127.0.0.1:0"))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			select {
			case f := <-m.events:
				f()
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-served })
	self := proc.Self()
	server := dialled(t, m, link.Hello{Role: roleServer, PID: self.PID, StartTime: self.StartTime, State: "ready"}, nil)
	for _, tt := range []struct {
		op   string
		body any
	}{
		{opStop, copStop{Now: true}}, {opReload, nil}, {opReopen, nil}, {"nonsense", nil}, {opState, "nonsense"},
	} {
		if _, err := server.Call(t.Context(), tt.op, tt.body); err == nil {
			t.Errorf("a server may ask for %s %v", tt.op, tt.body)
		}
	}
	if m.phase != running {
		t.Error("a server has stopped the manager")
	}
	reply, err := server.Call(t.Context(), opConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Close()
	if _, err := config.Decode(reply.Body); err != nil {
		t.Error(err)
	}
	if err := m.linkOptions().Admit(link.Peer{}, link.Hello{Role: "guest"}); err == nil {
		t.Error("a guest is admitted")
	}
}

// A heritage that is none is refused, and whatever came with it is closed.
func TestHeritageThatIsNone(t *testing.T) {
	m := newcomer(t, smallConfig("127.0.0.1:0"))
	x := link.NewMux()
	asked := make(chan struct{}, 1)
	x.Handle(opHeritage, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) {
		asked <- struct{}{}
		return link.Reply{Body: []string{heritage.Stats}}, nil
	})
	x.Handle(opReload, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) { return link.Reply{}, nil })
	self := proc.Self()
	dialled(t, m, link.Hello{Role: roleServer, PID: self.PID, StartTime: self.StartTime, State: "ready"}, x)
	m.await(time.Minute, func() bool { return len(asked) > 0 })
	if err := m.provide(); err != nil {
		t.Fatal(err)
	}
	if !m.estate.lacks(smallConfig("127.0.0.1:1")) {
		t.Error("lacks nothing")
	}
}

var _ line = (*link.Conn)(nil)
var _ net.Listener = trusting{}
