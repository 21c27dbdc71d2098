package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/supervise"
)

// The manager's part of an upgrade. Cop conducts it (see there): first the server, which is the
// affair of this file, then the manager, then cop itself.
//
//	tried ──▶ ordered of cop ──▶ order for the server ──▶ standby from the new executable
//	                                                          │ ready, the old one yields
//	   told cop: done ◀── probation over ◀── standby from the OLD executable
//	   told cop: rolled back ◀── the new server dies: that standby takes over by itself

// trial is the probation of another executable as a server. Owned by the loop.
type trial struct {
	x      *program.Program
	gen    uint64 // of the server that runs it; 0: it is on its way
	oldPID int
	failed string // why it is rolled back; "": it is not
}

// nextProgram is what the next server is started from. While a new executable serves on
// probation, its standby runs the old one.
func (m *manager) nextProgram() *program.Program {
	if m.trial != nil && m.trial.gen == 0 && m.trial.failed == "" {
		return m.trial.x
	}
	return m.program
}

// handleUpgrade serves what cop asks.
func (m *manager) handleUpgrade(x *link.Mux) {
	x.Handle(opUpgrade, m.fromCop(func(msg *link.Message) error {
		var o program.Order
		if err := msg.Decode(&o); err != nil {
			return err
		}
		p, err := m.env.open(o.Path, o.ID)
		if err != nil {
			return err
		}
		return m.asked(func() error { return m.tryServer(p) })
	}))
	x.Handle(opLeave, m.fromCop(func(*link.Message) error { return m.asked(m.leave) }))
	x.Handle(opReport, m.fromCop(func(msg *link.Message) error {
		var r program.Report
		if err := msg.Decode(&r); err != nil {
			return err
		}
		m.post(func() { m.lastUpgrade = &r })
		return nil
	}))
	x.Handle(opWanted, m.fromCop(func(*link.Message) error {
		m.post(m.upgradeByItself)
		return nil
	}))
}

// asked runs f on the loop and returns what it says.
func (m *manager) asked(f func() error) error {
	var err error
	if !m.do(m.work, func() { err = f() }) {
		return errEnding
	}
	return err
}

// ordered is what came of asking for an upgrade.
type ordered struct {
	report *program.Report
	err    error
}

// upgrade tries the executable at path, "" for the one that this manager was started from as it is
// on disk now, and has cop begin. then is called once, on the loop.
func (m *manager) upgrade(path string, then func(ordered)) {
	if m.phase != running {
		then(ordered{err: errIsStopping})
		return
	}
	if path == "" {
		path = m.program.Path
	}
	m.wg.Go(func() {
		p, err := m.env.try(m.work, path)
		m.post(func() {
			if err != nil {
				then(ordered{err: control.Errorf(http.StatusUnprocessableEntity, exitcode.Of(err), "nothing has been changed: %v", err)})
				return
			}
			m.order(program.Order{Path: p.Path, ID: p.ID, Version: p.Version}, then)
		})
	})
}

// order asks cop to begin.
func (m *manager) order(o program.Order, then func(ordered)) {
	l := m.cop.line
	if l == nil {
		then(ordered{err: control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "no cop is there to conduct an upgrade")})
		return
	}
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.work, depositLimit)
		defer cancel()
		var r program.Report
		reply, err := l.Call(ctx, opUpgrade, o)
		if err == nil {
			err = reply.Decode(&r)
			reply.Close()
		}
		m.post(func() {
			if err != nil {
				then(ordered{err: control.Errorf(http.StatusConflict, exitcode.TryAgain, "nothing has been changed: %v", err)})
				return
			}
			m.lastUpgrade = &r
			then(ordered{report: &r})
		})
	})
}

// upgradeByItself is an upgrade that a signal asked for: the log says what comes of it.
func (m *manager) upgradeByItself() {
	m.upgrade("", func(o ordered) {
		if o.err != nil {
			m.log.Error().Err(o.err).Msg("no upgrade")
		}
	})
}

// tryServer begins to replace the server by one from x.
func (m *manager) tryServer(x *program.Program) error {
	switch {
	case m.phase != running:
		return errIsStopping
	case m.trial != nil:
		return errors.New("another executable is on trial")
	case !m.active.serves():
		return errors.New("no server is ready to be replaced")
	case m.active.yielding || m.active.retiring:
		return errors.New("the server is being replaced")
	}
	m.log.Info().Str("binary", x.Path).Msg("server is upgraded")
	m.trial = &trial{x: x, oldPID: pidOf(m.active)}
	if m.next != nil {
		m.discard(m.next, "standby runs another executable")
	}
	m.wanted = true
	m.clearAlarm()
	return nil
}

// tried takes in that a server serves, which may be the one on trial, or the one that it is rolled
// back to.
func (m *manager) tried(u *unit) {
	switch t := m.trial; {
	case t == nil:
	case t.failed != "":
		m.endTrial(false, u.p.PID(), "rolled back: "+t.failed)
	case t.gen == 0 && u.exe != t.x.ID:
		m.wanted = true // a standby from the old executable was faster, when the server died: now this one is to be replaced
	case t.gen == 0:
		t.gen = u.generation
		m.after(m.cfg.Upgrade.Probation, func() {
			switch {
			case m.trial != t || t.failed != "":
			case m.active != u:
				m.endTrial(false, pidOf(m.active), "the new server was replaced within its probation")
			default:
				m.program = t.x
				m.endTrial(true, u.p.PID(), "upgraded")
			}
		})
	}
}

// triedInVain takes in that the server on trial has not come to serve.
func (m *manager) triedInVain(err error) {
	if m.trial != nil && m.trial.gen == 0 {
		m.endTrial(false, pidOf(m.active), "the old one serves on: "+err.Error())
	}
}

// failedTrial takes in a death, which may be that of the server on trial. Its standby runs the old
// executable and takes over by itself.
func (m *manager) failedTrial(u *unit, d supervise.Death) {
	t := m.trial
	if t == nil || t.gen != u.generation || d.Fault == supervise.FaultAsked || m.phase != running {
		return
	}
	t.failed = fmt.Sprintf("the new server (pid %d) died within its probation: %s", d.PID, d.Why())
	m.log.Error().Str("reason", t.failed).Msg("server is rolled back")
	if m.active != nil && m.active != u {
		m.tried(m.active) // it was faster than the kernel
	}
}

// endTrial tells cop what came of it.
func (m *manager) endTrial(ok bool, pid int, text string) {
	t := m.trial
	if t == nil {
		return
	}
	m.trial = nil
	m.log.Info().Bool("ok", ok).Str("result", text).Msg("server upgrade ended")
	m.tellUpgraded(program.Step{Role: roleServer, OK: ok, OldPID: t.oldPID, PID: pid, Text: text}, m.env.now())
}

// tellUpgraded tells cop, again if its link is down for the moment.
func (m *manager) tellUpgraded(s program.Step, since time.Time) {
	again := func() {
		if m.env.now().Sub(since) < m.cfg.Supervision.StartDeadline {
			m.after(depositRetry, func() { m.tellUpgraded(s, since) })
		}
	}
	if m.cop.line == nil {
		again()
		return
	}
	m.call(m.cop.line, opUpgraded, s, depositLimit, func(err error) {
		if err != nil {
			m.log.Warn().Err(err).Msg("cop not told of the upgrade")
			again()
		}
	})
}
