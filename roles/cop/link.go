package cop

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/runroot"
)

// The operations between cop and manager; doc.go has the contract.
const (
	opDeposit = "deposit" // manager → cop
	opConfig  = "config"  // manager → cop
	opStatus  = "status"  // manager → cop
	opStop    = "stop"    // both ways
	opRefused = "refused" // manager → cop

	opUpgrade  = "upgrade"  // both ways
	opUpgraded = "upgraded" // manager → cop
	opLeave    = "leave"    // cop → manager
	opReport   = "report"   // cop → manager, an event
	opWanted   = "wanted"   // cop → manager, an event
)

// stopBody is the body of opStop.
type stopBody struct {
	Now bool `json:"now"` // without drain
}

// refusedBody is the body of opRefused.
type refusedBody struct {
	Code   exitcode.Code `json:"code"`
	Reason string        `json:"reason"`
}

// depositReply is what cop answers to a deposit.
type depositReply struct {
	Held []string `json:"held"` // the names that cop holds now
}

// Status is what cop answers to "status": what only cop knows of the instance.
type Status struct {
	PID               int      `json:"pid"`
	Generation        uint64   `json:"generation"`
	Phase             string   `json:"phase"`              // running, draining, stopping
	ManagerPID        int      `json:"manager_pid"`        // 0: none
	ManagerGeneration uint64   `json:"manager_generation"` // of the last one
	Manager           string   `json:"manager"`            // as cop sees it: up, struck, …
	Server            string   `json:"server"`
	Alarm             string   `json:"alarm,omitempty"` // why no manager is started
	Held              []string `json:"held"`            // heritage
}

// mux serves what the manager asks of cop. The handlers run on the link's goroutine.
func (c *cop) mux() *link.Mux {
	gone := &link.RemoteError{Code: link.CodeFailed, Text: "cop is stopping"}
	x := link.NewMux()
	x.Handle(opDeposit, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		set, err := heritage.Unmarshal(m.Body, m.TakeFDs())
		if err != nil {
			return link.Reply{}, err
		}
		var held []string
		if !c.do(func() { held = c.deposit(set) }) {
			set.Close()
			return link.Reply{}, gone
		}
		return link.Reply{Body: depositReply{held}}, nil
	})
	x.Handle(opConfig, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		cfg, err := config.Decode(m.Body)
		if err != nil {
			return link.Reply{}, err
		}
		if !c.do(func() { c.apply(cfg) }) {
			return link.Reply{}, gone
		}
		return link.Reply{}, nil
	})
	x.Handle(opStatus, func(context.Context, *link.Conn, *link.Message) (link.Reply, error) {
		var s Status
		if !c.do(func() { s = c.status() }) {
			return link.Reply{}, gone
		}
		return link.Reply{Body: s}, nil
	})
	x.Handle(opUpgrade, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		var o program.Order
		if err := m.Decode(&o); err != nil {
			return link.Reply{}, err
		}
		var r program.Report
		err := error(gone)
		c.do(func() { r, err = c.beginUpgrade(o) })
		return link.Reply{Body: r}, err
	})
	x.Handle(opUpgraded, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		var s program.Step
		if err := m.Decode(&s); err != nil {
			return link.Reply{}, err
		}
		if !c.do(func() { c.stepped(s) }) {
			return link.Reply{}, gone
		}
		return link.Reply{}, nil
	})
	x.Handle(opRefused, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		var b refusedBody
		if err := m.Decode(&b); err != nil {
			return link.Reply{}, err
		}
		if !c.do(func() { c.refused(b) }) {
			return link.Reply{}, gone
		}
		return link.Reply{}, nil
	})
	x.Handle(opStop, func(_ context.Context, _ *link.Conn, m *link.Message) (link.Reply, error) {
		var b stopBody
		if m.Body != nil {
			if err := m.Decode(&b); err != nil {
				return link.Reply{}, err
			}
		}
		p := draining
		if b.Now {
			p = stopping
		}
		if !c.do(func() { c.stop(p) }) {
			return link.Reply{}, gone
		}
		return link.Reply{}, nil
	})
	return x
}

// deposit replaces what cop holds for the next manager. The new set is in place before
// the old one is closed, so there is no instant in which cop holds nothing.
func (c *cop) deposit(set *heritage.Set) []string {
	old := c.heritage
	c.heritage = set
	c.attach()
	if err := old.Close(); err != nil {
		c.log.Warn().Err(err).Msg("old heritage not closed")
	}
	c.log.Debug().Strs("heritage", set.Names()).Msg("deposit")
	return set.Names()
}

func (c *cop) status() Status {
	return Status{
		PID: c.self.PID, Generation: c.ownGen, Phase: c.phase.String(),
		ManagerPID: pidOf(c.manager.p), ManagerGeneration: c.generation,
		Manager: c.managerView(c.env.now()).String(), Server: c.serverView().String(),
		Alarm: c.alarm, Held: c.heritage.Names(),
	}
}

// tether keeps the link to whatever manager there is.
func (c *cop) tether(ctx context.Context, root runroot.Root) *link.Tether {
	return link.Keep(ctx, link.KeepOptions{
		Dial: func(context.Context) (net.Conn, error) {
			u, err := runroot.DialUnix(root.ManagerSocket(), runroot.Packet, time.Second)
			if err != nil {
				return nil, err
			}
			return u, nil
		},
		Self: func() link.Hello {
			return link.Hello{
				Role: "cop", PID: c.self.PID, StartTime: c.self.StartTime, Generation: c.ownGen,
				State: "ready", Want: []string{opDeposit, opConfig},
			}
		},
		Mux:       c.mux(),
		OnConnect: func(l *link.Conn) { c.post(func() { c.linked(l.Hello().PID, l.Hello().Generation) }) },
		OnLost: func(_ *link.Conn, err error) {
			c.post(func() { c.log.Info().AnErr("reason", err).Msg("link to manager is down") })
		},
		OnRefused: func(err error) {
			c.post(func() { c.log.Warn().Err(err).Msg("manager refused the link") })
		},
		Dir: root.Dir(), Name: filepath.Base(root.ManagerSocket()),
	})
}

// teller returns env.tell for a tether. The message is sent on a goroutine: a manager
// that does not read must not stop the loop.
func (c *cop) teller(t *link.Tether) func(op string, body any) bool {
	return func(op string, body any) bool {
		conn := t.Conn()
		if conn == nil {
			return false
		}
		c.wg.Go(func() {
			if err := conn.Emit(op, body); err != nil {
				c.log.Warn().Err(err).Str("op", op).Msg("manager not told")
			}
		})
		return true
	}
}

// askLimit is how long a manager may take to agree.
const askLimit = 10 * time.Second

// asker returns env.ask for a tether.
func (c *cop) asker(t *link.Tether) func(op string, body any, then func(error)) {
	return func(op string, body any, then func(error)) {
		conn := t.Conn()
		c.wg.Go(func() {
			err := errors.New("no link to a manager")
			if conn != nil {
				ctx, cancel := context.WithTimeout(c.work, askLimit)
				defer cancel()
				var reply *link.Message
				if reply, err = conn.Call(ctx, op, body); err == nil {
					reply.Close()
				}
			}
			c.post(func() { then(err) })
		})
	}
}

// failureError is a start that failed, with the code cop exits with.
func (c *cop) failureError() error {
	if c.failure == "" {
		return nil
	}
	return exitcode.Errorf(c.code, "%s", c.failure)
}
