package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"trafficd/roles/internal/link"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// spawn starts the next server with the whole heritage. One that is to stand by, or to go on
// where another has died, is of the shape that custody has; a planned one is what the
// configuration says.
func (m *manager) spawn(now time.Time) {
	planned := m.wanted
	m.wanted = false
	cfg := m.cfg
	if !planned {
		cfg = m.estate.standing(cfg)
	}
	if err := m.estate.provide(cfg, m.log); err != nil {
		m.log.Error().Err(err).Msg("listeners incomplete")
		if planned && m.active != nil {
			m.giveUpPlan(fmt.Errorf("server not restarted: %w", err))
			return
		}
		if !m.estate.usable() {
			m.lastExit = err.Error()
			m.failed(now, 0, supervise.FaultOwn)
			return
		}
	}
	if err := m.pump.configure(m.cfg.Queue, m.estate); err != nil {
		m.log.Error().Err(err).Msg("connection queue not reconfigured")
	}
	m.showAutoconf()
	m.last = m.nextGeneration()
	bank, x := m.estate.region.Bank(m.last), m.nextProgram()
	bank.Begin(m.last, loops(cfg))
	p, err := m.env.start(x, m.last, m.estate.set)
	if err != nil {
		m.log.Error().Err(err).Uint64("generation", m.last).Msg("server could not be started")
		bank.End()
		m.lastExit = err.Error()
		m.giveUpPlan(fmt.Errorf("server could not be started: %w", err))
		m.failed(now, 0, supervise.FaultOwn)
		return
	}
	id := p.Target().Known
	bank.Enter(id.PID, id.StartTime)
	u := &unit{p: p, child: true, generation: m.last, started: now, exe: x.ID, cold: !m.active.serves()}
	u.enter(supervise.Started, now)
	m.next = u
	if planned {
		m.planned = now
	}
	if m.last > 1 && u.cold {
		m.serverRecord().Restarts.Add(1)
	}
	m.about(m.log.Info(), u).Bool("planned", planned).Bool("standby", m.estate.custody()).
		Strs("heritage", m.estate.set.Names()).Msg("spawn_server")
	m.watch(u)
}

// nextGeneration is that of the next server. Its bank of shared memory is nobody's who lives, if there is such a one: by the
// progress that stands there each is judged, and a server that hangs must not be taken for busy because a standby turns.
func (m *manager) nextGeneration() uint64 {
	g := m.last + 1
	for range stats.Banks - 1 {
		if !slices.ContainsFunc(m.units(), func(u *unit) bool { return u.generation != 0 && u.generation%stats.Banks == g%stats.Banks }) {
			return g
		}
		g++
	}
	return g
}

// watch waits for the unit's process and posts what becomes of it.
func (m *manager) watch(u *unit) {
	p := u.p
	m.wg.Go(func() {
		select {
		case <-p.Ready():
			m.post(func() { m.becameReady(u) })
		case <-p.Done():
		case <-m.over:
			return
		}
		select {
		case <-p.Done():
			m.post(func() { m.died(u) })
		case <-m.over:
		}
	})
}

// becameReady takes in that a server serves.
func (m *manager) becameReady(u *unit) {
	if u.enter(supervise.NowReady, m.env.now()) != supervise.Announce || u != m.next {
		return
	}
	if m.active != nil {
		m.replaced(m.active)
	}
	m.active, m.next = u, nil
	u.served = true
	if !u.cold {
		m.serverRecord().Restarts.Add(1) // it was started as a standby, and counts from now on
	}
	m.lastExit = ""
	m.about(m.log.Info(), u).Bool("took_over", u.took).Msg("server ready")
	m.tried(u)
	m.recordSuccessor(roleServer, u.p.PID(), u.generation, u.since)
	if u.line != nil && u.cfg != m.cfg {
		m.publish(u)
	}
	if err := m.estate.settle(); err != nil {
		m.log.Warn().Err(err).Msg("former heritage not closed")
	}
	if u.line != nil && m.estranged(u) {
		m.inheritFrom(u)
	}
	m.planned = time.Time{}
	m.relief.won = true
	m.relief.done = restarts{pid: u.p.PID(), generation: u.generation, oldPID: pidOf(m.relief.old)}
	if m.relief.old != nil {
		m.relief.done.oldGeneration = m.relief.old.generation
	}
	m.relieved()
}

// relieved tells those who wait for a restart, once the server that made way is gone.
func (m *manager) relieved() {
	if !m.relief.won || m.relief.old != nil && m.relief.old.state != supervise.Stopped {
		return
	}
	done := m.relief.done
	m.relief = relief{}
	m.settle(done)
}

// giveUpPlan ends a planned restart that has come to nothing: what the present server goes
// on with is put back.
func (m *manager) giveUpPlan(err error) {
	m.planned, m.relief = time.Time{}, relief{}
	if m.active != nil {
		if err := m.estate.restore(); err != nil {
			m.log.Error().Err(err).Msg("heritage not restored")
		}
	}
	m.settle(restarts{err: err})
	m.triedInVain(err)
}

// replaced moves the active server among the old ones.
func (m *manager) replaced(u *unit) {
	u.asked = true
	u.enter(supervise.Stop, m.env.now())
	u.parked, u.retiring = false, false
	m.old[u] = true
	m.active = nil
	if m.next != nil {
		m.next.since = m.env.now() // it need not wait any more
	}
	m.escort(u)
}

// escort sees to it that a server that finishes what it began does not do so for ever. One of which that is not known gets no TERM:
// it may take over before it reads it.
func (m *manager) escort(u *unit) {
	limit := m.cfg.Timeouts.Drain + m.cfg.Supervision.StopGrace
	p := u.p
	m.wg.Go(func() {
		t := time.NewTimer(limit)
		defer t.Stop()
		select {
		case <-t.C:
			m.post(func() {
				if !m.old[u] || u.enter(supervise.Deadline, m.env.now()) != supervise.Kill {
					return // it serves
				}
				var e supervise.Escalation
				if u.state == supervise.Draining {
					e.Grace = m.cfg.Supervision.StopGrace
				}
				m.kill(u, supervise.Requested, "drain deadline passed", e, nil)
			})
		case <-p.Done():
		case <-m.over:
		}
	})
}

// giveTurn lets the next server go when it is its turn: it has taken over, or nobody is in
// its way.
func (m *manager) giveTurn() {
	n := m.next
	switch {
	case n == nil || n.turn == nil || n.told:
	case n.took:
		if m.active != nil {
			m.overtaken(m.active)
		}
		m.grant(n)
	case m.active == nil && !m.burying:
		m.grant(n)
	}
}

// grant gives a server the word to go. From before it until that server is gone, the
// manager's side of the queue is at rest.
func (m *manager) grant(u *unit) {
	m.pump.serving(true, m.env.now())
	u.told = true
	u.answer(nil)
}

// retireLimit is how long the old server may take to let go of listeners and lock, which
// takes it one turn of each of its loops.
const retireLimit = 5 * time.Second

// retire asks the active server to let go, for the one that is to follow.
func (m *manager) retire(a *unit) {
	a.retiring = true
	m.call(a.line, opRetire, nil, retireLimit, func(err error) {
		if !a.retiring || m.active != a {
			return // it died meanwhile
		}
		a.retiring = false
		if err == nil {
			m.about(m.log.Info(), a).Msg("server retires")
			m.replaced(a)
			return
		}
		m.staysOn(a, fmt.Errorf("server %d does not let go: %w", a.p.PID(), err))
	})
}

// call asks a peer and posts what came of it.
func (m *manager) call(l line, op string, body any, limit time.Duration, then func(error)) {
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.work, limit)
		defer cancel()
		reply, err := l.Call(ctx, op, body)
		if err == nil {
			reply.Close()
		}
		m.post(func() { then(err) })
	})
}

// abandon gives up a server that has not become ready in time, or a standby that is unfit.
func (m *manager) abandon(now time.Time) {
	u := m.next
	health := supervise.Escalation{Grace: m.cfg.Health.KillGrace, Core: supervise.CoreSignal(m.cfg.Health.CoreSignal)}
	if m.estate.custody() {
		health = health.Unread()
	}
	if why := m.unfit(u); u.stands() && why != "" {
		if u.verdict == supervise.Dead {
			m.kill(u, supervise.Unhealthy, why, health, nil)
			return
		}
		m.discard(u, why)
		return
	}
	if u.enter(supervise.Deadline, now) != supervise.Kill {
		return
	}
	u.answer(errors.New("start deadline passed"))
	m.kill(u, supervise.StartFailed, "not ready within its start deadline", health, nil)
}

// discard has a standby stopped that is not needed. It may take over at any time before it is told, and then says no. So it
// gets no TERM, which it could read when it serves, and obey: who does not answer is killed, and what it has by then
// passes to another like at every death.
func (m *manager) discard(u *unit, why string) {
	m.about(m.log.Info(), u).Str("reason", why).Msg("standby is not needed")
	u.asked, u.reason = true, why
	if u == m.next && !m.planned.IsZero() {
		m.planned, m.wanted = time.Time{}, true // the one after it is to replace the server
	}
	u.answer(errNotWanted)
	if u.line == nil {
		m.kill(u, supervise.Requested, why, supervise.Escalation{}, nil)
		return
	}
	grace := max(m.cfg.Supervision.StopGrace, time.Millisecond)
	m.call(u.line, opStop, serverStop{Fast: true, Standby: true}, grace, func(err error) {
		var refusal *link.RemoteError
		switch {
		case !m.has(u):
		case errors.As(err, &refusal):
			m.about(m.log.Info(), u).Err(err).Msg("standby is needed after all")
			u.asked, u.reason = false, ""
			if !u.took { // as it will say itself
				u.took, u.since = true, m.env.now()
			}
		case err != nil:
			m.endWithin(u, 0, why)
		default:
			m.endWithin(u, grace, why)
		}
	})
}

// died takes in that a server is gone.
func (m *manager) died(u *unit) {
	d := m.deathOf(u)
	u.enter(supervise.Exit, m.env.now())
	unasked := d.Fault != supervise.FaultAsked
	level := zerolog.InfoLevel
	if unasked {
		level = zerolog.WarnLevel
	}
	e := m.about(m.log.WithLevel(level), u).Stringer("status", d.Status).Dur("ready_for_ms", d.Ready).
		Bool("asked", !unasked).Bool("standby", d.Standby).Str("fault", string(d.Fault))
	if d.Refusal != "" {
		e = e.Str("reason", d.Refusal)
	}
	e.Msg("server died")
	m.bury(u, unasked)
	m.recordDeath(d)
	m.failedTrial(u, d)
	switch {
	case u == m.active || u.overtaken:
		m.lost(u, d)
	case u == m.next:
		m.next = nil
		m.stillborn(u, d)
	default:
		u.p.Release()
	}
	m.relieved()
}

// bury keeps the books of a death.
func (m *manager) bury(u *unit, unasked bool) {
	u.answer(errors.New("server is gone"))
	u.line = nil
	delete(m.old, u)
	r := m.serverRecord()
	if unasked {
		r.Deaths.Add(1)
	}
	r.Leave(u.p.PID())
	if b := m.estate.region.Bank(u.generation); b.Generation() == u.generation {
		b.End()
	}
}

// lost takes in the death of the server that served. Before anything is started, it is made
// sure of: what the kernel has told about a process is then told by its lock as well. A standby
// does not wait for that.
func (m *manager) lost(u *unit, d supervise.Death) {
	now := m.env.now()
	if u == m.active {
		m.active = nil
		if m.next != nil {
			m.next.since = now // from now on it is waited for
		}
	}
	if m.phase != running {
		u.p.Release()
		m.burying = false
		return
	}
	if n := m.next; n != nil && m.active == nil && !n.took && d.Fault != supervise.FaultAsked && m.estate.reshaped() {
		// One of another shape is on its way, and would begin anew. What the dead one had comes first.
		if err := m.estate.restore(); err != nil {
			m.log.Error().Err(err).Msg("heritage not restored")
		}
		m.giveUpPlan(fmt.Errorf("server %d has died before another could follow: %s", d.PID, d.Why()))
		m.discard(n, "another one is to go on where the server has died")
	}
	m.burying = true
	m.about(m.log.Info(), u).Msg("making sure server is dead")
	u.killing = false
	m.kill(u, supervise.Requested, "server died", supervise.Escalation{}, func(supervise.Outcome) {
		m.burying = false
		u.p.Release()
		m.succeed(d)
	})
}

// stillborn takes in the death of a server that never was active.
func (m *manager) stillborn(u *unit, d supervise.Death) {
	u.p.Release()
	err := fmt.Errorf("the new server (pid %d) did not become ready: %s", u.p.PID(), d.Why())
	if m.active.serves() && m.active.yielding {
		// It cannot take that back: the next one follows, and who waits for that is told then.
		if m.succeed(d); m.alarm != "" {
			m.giveUpPlan(err)
		}
		return
	}
	if m.active.serves() {
		err = fmt.Errorf("%w; the old server serves on", err)
		if !m.planned.IsZero() {
			m.giveUpPlan(err)
		}
		if m.estate.custody() {
			m.succeed(d) // another one is to stand by
		}
		return
	}
	m.giveUpPlan(err)
	m.succeed(d)
}

// succeed decides when, and whether, the next server is started.
func (m *manager) succeed(d supervise.Death) {
	now := m.env.now()
	if d.Fault == supervise.FaultAsked {
		m.due, m.delay = now, 0
		return
	}
	m.lastExit = d.Why()
	if supervise.Classify(d.Status) == supervise.Permanent {
		m.alarm = "server is not started again: " + m.lastExit
		m.log.Error().Str("alarm", m.alarm).Stringer("status", d.Status).Msg("server is not started again")
		m.refusal = &refusedBody{Code: d.Status.Code, Reason: "trafficd server: " + m.lastExit}
		m.tellRefusal()
		return
	}
	m.failed(now, d.Ready, d.Fault)
}

// failed plans the next start after a death that nobody asked for.
func (m *manager) failed(now time.Time, ready time.Duration, f supervise.Fault) {
	died := m.backoff.Died
	if f.Outside() {
		died = m.backoff.DiedOutside
	}
	m.delay = died(now, ready)
	m.due = now.Add(m.delay)
	if m.delay > 0 {
		m.log.Warn().Dur("delay_ms", m.delay).Int("attempt", m.backoff.Step()).Str("last_exit", m.lastExit).
			Msg("server is started again later")
	}
}

// settle answers everybody who waits for a restart.
func (m *manager) settle(r restarts) {
	for _, w := range m.waiters {
		w <- r // has room for one
	}
	m.waiters = nil
}

// has reports whether the unit is one of the servers there are.
func (m *manager) has(u *unit) bool { return u == m.active || u == m.next || m.old[u] }

// units are all servers there are.
func (m *manager) units() []*unit {
	var all []*unit
	for _, u := range []*unit{m.active, m.next} {
		if u != nil {
			all = append(all, u)
		}
	}
	for u := range m.old {
		all = append(all, u)
	}
	return all
}

// clearAlarm lets servers be started again, at once: the operator asked.
func (m *manager) clearAlarm() {
	if m.alarm != "" {
		m.log.Info().Str("alarm", m.alarm).Msg("alarm cleared")
	}
	m.alarm, m.refusal = "", nil
	m.backoff.Reset()
	m.due, m.delay = time.Time{}, 0
}

// kill has the unit's process killed, through the gate, on a goroutine; then, if not nil, is
// called with what came of it.
func (m *manager) kill(u *unit, c supervise.Cause, reason string, e supervise.Escalation, then func(supervise.Outcome)) {
	if u.killing {
		return
	}
	ctx, cancel := context.WithCancel(m.work)
	u.killing, u.stopKill = true, cancel
	u.kills++
	nth := u.kills
	gate, target := m.gate, u.p.Target()
	m.wg.Go(func() {
		defer cancel()
		o := gate.Kill(ctx, target, c, reason, e)
		m.post(func() {
			if u.kills != nth {
				return // another one has begun since, with less patience
			}
			if o == supervise.Forbidden || o == supervise.Stranger {
				u.killing = false
				// Not again before another deadline has passed, or as many heartbeats have failed once more.
				u.since = m.env.now()
				u.verdict = u.strikes.Passed()
			}
			if then != nil {
				then(o)
			}
		})
	})
}

// report logs and counts a decision of the gate.
func (m *manager) report(d supervise.Decision) {
	level, msg := zerolog.WarnLevel, "safe_kill"
	switch {
	case !d.Final && d.Err != nil:
		level, msg = zerolog.ErrorLevel, "unable to kill"
	case d.Final && d.Outcome == supervise.Forbidden:
		msg = "would have killed"
	case d.Final && d.Outcome == supervise.Unkilled:
		level = zerolog.ErrorLevel
	case d.Cause == supervise.Requested || d.Final && d.Outcome == supervise.Gone:
		level = zerolog.InfoLevel
	}
	e := m.log.WithLevel(level).Stringer("process", d.Role).Int("process_pid", d.PID).
		Stringer("cause", d.Cause).Str("reason", d.Reason)
	if d.Final {
		e = e.Stringer("outcome", d.Outcome).Dur("took_ms", d.Since)
	}
	e.AnErr("error", d.Err).Msg(msg)
	m.crashes.Judged(d)
	r := m.serverRecord()
	condemned(r, d)
	switch {
	case !d.Final && d.Err == nil:
		r.KillsDecided.Add(1)
	case d.Final && d.Outcome == supervise.Forbidden:
		r.KillsForbidden.Add(1)
	}
}

// about puts who a unit is into an event.
func (m *manager) about(e *zerolog.Event, u *unit) *zerolog.Event {
	return e.Str("process", "server").Int("process_pid", pidOf(u)).Uint64("generation", u.generation).Stringer("state", u.state)
}
