package cop

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// act does what was decided.
func (c *cop) act(at sight) {
	health := supervise.Escalation{
		Grace: c.cfg.Health.KillGrace,
		Core:  supervise.CoreSignal(c.cfg.Health.CoreSignal),
	}
	switch at.a {
	case spawn:
		c.noManager(at)
		c.spawn()
	case replace:
		c.noManager(at)
		c.replace()
	case killManager: // a TERM it would read, if it came round, as the end of the instance
		c.kill(&c.manager, supervise.Unhealthy, "heartbeat failed and no progress", health.Unread())
	case abortManager:
		c.kill(&c.manager, supervise.StartFailed, "not ready within its start deadline", health.Unread())
	case killServer:
		c.kill(&c.server, supervise.Unhealthy, "heartbeat failed and a loop made no progress", c.forServer(health))
	}
}

// forServer is how a server is made to go, which depends on what it loses by a kill.
func (c *cop) forServer(e supervise.Escalation) supervise.Escalation {
	if _, custody := c.heritage.Get(heritage.Journal); custody {
		return e.Unread()
	}
	return e
}

// noManager says that there is none. It is as it should be until there has been one.
func (c *cop) noManager(at sight) {
	level := zerolog.WarnLevel
	if c.first {
		level = zerolog.InfoLevel
	}
	c.log.WithLevel(level).Stringer("server", at.s).Msg("manager not running")
}

// replaceLimit is how long the next manager waits for the old server's death. One that
// cannot be killed hangs in the kernel; the manager can at least answer for it.
const replaceLimit = 10 * time.Second

// replace makes sure that the server is dead and then starts a manager, as the original
// did. It also is the very first start: then there is nothing to be made dead.
func (c *cop) replace() {
	c.log.Info().Int("server_pid", pidOf(c.server.p)).Msg("making sure server is dead")
	if c.server.p == nil {
		c.log.Info().Stringer("process", supervise.Server).Int("process_pid", 0).
			Stringer("cause", supervise.Orphaned).Stringer("outcome", supervise.Gone).Msg("safe_kill")
		c.spawn()
		return
	}
	c.replacing = true
	next := func() {
		if c.replacing {
			c.replacing = false
			if c.phase == running && c.manager.p == nil {
				c.spawn()
			}
		}
	}
	c.killThen(&c.server, supervise.Orphaned, "manager not running", c.forServer(supervise.Escalation{Grace: c.cfg.Health.KillGrace}), next)
	c.wg.Go(func() {
		t := time.NewTimer(replaceLimit)
		defer t.Stop()
		select {
		case <-t.C:
			c.post(next)
		case <-c.over:
		}
	})
}

// spawn starts a manager with everything that cop holds.
func (c *cop) spawn() {
	now := c.env.now()
	c.generation++
	c.started = true
	p, err := c.env.start(c.program, c.generation, c.heritage)
	if err != nil {
		c.log.Error().Err(err).Uint64("generation", c.generation).Msg("manager could not be started")
		c.managerDied(0, err.Error())
		c.failed(now, 0, supervise.FaultOwn)
		return
	}
	w := &c.manager
	w.take(p, supervise.Started, now)
	w.child, w.generation = true, c.generation
	if c.region != nil && c.generation > 1 {
		c.region.Role(stats.RoleManager).Restarts.Add(1)
	}
	c.about(c.log.Info(), w).Strs("heritage", c.heritage.Names()).Int("server_pid", pidOf(c.server.p)).Msg("spawn_manager")
	c.watch(w)
}

// becameReady takes in that p is ready.
func (c *cop) becameReady(w *ward, p process) {
	if w.p != p || w.enter(supervise.NowReady, c.env.now()) != supervise.Announce {
		return
	}
	w.clear()
	c.first = false
	if !w.child {
		c.fresh = false // it had a cop before this one
	}
	c.about(c.log.Info(), w).Msg(w.role.String() + " is ready")
	c.recordSuccessor(w)
	if w.role == supervise.Manager {
		c.managerReady(p.PID())
	}
}

// died takes in that p is gone. While the gate is busy with it that waits for the
// gate's report, so that the log tells a kill before what follows from it.
func (c *cop) died(w *ward, p process) {
	if w.p != p {
		return
	}
	if w.inGate {
		w.dead = true
		return
	}
	now := c.env.now()
	d := c.deathOf(w)
	level := zerolog.WarnLevel
	if d.Fault == supervise.FaultAsked || w.role == supervise.Server && c.manager.state == supervise.Ready {
		level = zerolog.InfoLevel // the manager knows what it asked of a server, and warns of the rest
	}
	e := c.about(c.log.WithLevel(level), w).Stringer("status", d.Status).Dur("ready_for_ms", d.Ready)
	if d.Refusal != "" {
		e = e.Str("reason", d.Refusal)
	}
	e.Msg(w.role.String() + " died")
	c.recordDeath(d)
	c.buried(w, w.enter(supervise.Exit, now))
	// The plan for the next manager comes before what waited for this one's end.
	if w.role == supervise.Manager && c.phase == running {
		c.succeed(now, d)
		c.managerDied(d.PID, d.Why())
	}
	w.drop()
}

// buried keeps the books of a death. The server's are the manager's.
func (c *cop) buried(w *ward, do supervise.Action) {
	r := c.record(w)
	if r == nil || w.role != supervise.Manager {
		return
	}
	if do != supervise.Finish {
		r.Deaths.Add(1)
	}
	r.Leave(w.p.PID())
}

// succeed decides when, and whether, the next manager is started.
func (c *cop) succeed(now time.Time, d supervise.Death) {
	status, class := d.Status, supervise.Classify(d.Status)
	reason := d.Refusal
	if reason == "" {
		reason = "manager died: " + status.String()
	}
	switch {
	case c.first && (class == supervise.Permanent || d.Refusal != ""):
		// Nothing runs yet, and whoever started us should be told, not kept waiting.
		code := exitcode.Failed
		if status.Known && status.Signal == 0 && status.Code != 0 {
			code = exitcode.Code(status.Code)
		}
		c.quit(code, reason)
	case class == supervise.Permanent:
		c.alarm = reason
		c.log.Error().Str("alarm", reason).Stringer("status", status).Msg("manager is not started again")
	case class == supervise.Done:
		// Somebody asked this manager to go, not the instance: a planned restart. One
		// that was never ready is still a failed start, or two of them would chase each other.
		if d.Ready > 0 {
			c.due = now
			return
		}
		c.failed(now, 0, supervise.FaultOwn)
	default:
		c.failed(now, d.Ready, d.Fault)
	}
}

// failed plans the next start after a death that nobody asked for.
func (c *cop) failed(now time.Time, ready time.Duration, f supervise.Fault) {
	died := c.backoff.Died
	if f.Outside() {
		died = c.backoff.DiedOutside
	}
	delay := died(now, ready)
	c.due = now.Add(delay)
	held := ready == 0 && c.flap.Failed(now)
	switch {
	case held:
		c.log.Error().Dur("hold_ms", c.flap.Held(now)).Dur("delay_ms", delay).Msg("unable to start manager, holding")
	case delay > 0:
		c.log.Warn().Dur("delay_ms", delay).Int("step", c.backoff.Step()).Msg("manager is started again later")
	}
}

// dueAt says when the next manager may be started: the back-off's time, or the end of a
// hold if that is later and a server serves meanwhile. It is asked at every look, for
// the server may die in the middle of a hold.
func (c *cop) dueAt(now time.Time) time.Time {
	wait := max(0, c.due.Sub(now))
	return now.Add(c.flap.Delay(now, wait, c.server.p != nil))
}

// clearAlarm lets managers be started again, at once: the operator asked, or one is there.
func (c *cop) clearAlarm() {
	if c.alarm != "" {
		c.log.Info().Str("alarm", c.alarm).Msg("alarm cleared")
	}
	c.alarm = ""
	c.backoff.Reset()
	c.flap.Reset()
	c.due = time.Time{}
}

// refused takes in that the manager will start no server again. Later that is an alarm, and HUP or ctl may lift it;
// at a first start whoever started us should be told, not kept waiting.
func (c *cop) refused(b refusedBody) {
	if c.phase != running || !c.fresh || c.announced || !c.manager.child {
		return
	}
	code := b.Code
	if code == exitcode.OK {
		code = exitcode.Failed
	}
	c.quit(code, b.Reason)
}

// quit ends cop because a first start has failed, and the manager before it, if that lives.
func (c *cop) quit(code exitcode.Code, why string) {
	c.code, c.failure = code, why
	c.log.Error().Int("code", int(code)).Str("reason", why).Msg("cop gives up")
	if c.manager.state == supervise.Stopped {
		c.done = true
		return
	}
	c.stop(stopping)
}

// announce tells once that the instance is up: a first start when a server serves, a
// successor when a manager is ready, or while a server serves. A manager that starts may yet be
// refused what it needs.
func (c *cop) announce(at sight) {
	if c.announced {
		return
	}
	managed := c.manager.p != nil && c.manager.state == supervise.Ready
	served := at.s == serverUp || at.s == serverStruck
	up := managed || served
	if c.fresh {
		up = managed && served
	}
	if !up {
		return
	}
	c.announced = true
	c.env.ready()
	c.env.say("READY=1")
	c.log.Info().Int("manager_pid", pidOf(c.manager.p)).Int("server_pid", pidOf(c.server.p)).Msg("ready")
}

// kill has the ward's process killed, through the gate, on a goroutine.
func (c *cop) kill(w *ward, cause supervise.Cause, reason string, e supervise.Escalation) {
	c.killThen(w, cause, reason, e, func() {})
}

// killThen runs then on the loop once the kill is over, whatever came of it, or the
// process is gone. If a kill is under way already, then waits for that one.
func (c *cop) killThen(w *ward, cause supervise.Cause, reason string, e supervise.Escalation, then func()) {
	w.after = append(w.after, then)
	if w.killing {
		return
	}
	ctx, cancel := context.WithCancel(c.work)
	w.killing, w.inGate, w.stopKill = true, true, cancel
	p, gate := w.p, c.gate
	c.wg.Go(func() {
		defer cancel()
		o := gate.Kill(ctx, p.Target(), cause, reason, e)
		if o == supervise.Gone && !c.ends(p) {
			o = supervise.Stranger // it gave up the role and lives on, no ward of ours
		}
		c.post(func() { c.killed(w, p, o) })
	})
}

// goneLimit is how long a process may take from letting its lock go to its end.
const goneLimit = 5 * time.Second

// ends waits for the end of a process that no longer holds its lock.
func (c *cop) ends(p process) bool {
	t := time.NewTimer(goneLimit)
	defer t.Stop()
	select {
	case <-p.Done():
		return true
	case <-c.work.Done():
		return true // cop itself ends; it does not matter
	case <-t.C:
		return false
	}
}

// killed takes in what came of a kill of p.
func (c *cop) killed(w *ward, p process, o supervise.Outcome) {
	w.inGate = false
	if w.dead {
		c.died(w, p)
		return
	}
	switch o {
	case supervise.Killed, supervise.Gone:
		// Its pidfd says so too in a moment, and died does the rest. Until then it stays
		// marked, so that nobody decides about it again.
	case supervise.Stranger:
		w.drop()
	default:
		// It lives on: begin to count anew, so that the log is not filled with what the
		// policy forbids.
		w.killing = false
		w.clear()
		if w.state == supervise.Starting {
			w.since = c.env.now()
		}
		w.settle()
	}
}

// report logs and counts a decision of the gate.
func (c *cop) report(d supervise.Decision) {
	level, msg := zerolog.WarnLevel, "safe_kill"
	switch {
	case !d.Final && d.Err != nil:
		level, msg = zerolog.ErrorLevel, "unable to kill"
	case d.Final && d.Outcome == supervise.Forbidden:
		msg = "would have killed"
	case errors.Is(d.Err, context.Canceled):
		level = zerolog.InfoLevel // cop itself broke it off, to begin anew with less patience
	case d.Final && (d.Outcome == supervise.Stranger || d.Outcome == supervise.Unkilled):
		level = zerolog.ErrorLevel
	case d.Cause == supervise.Requested:
		level = zerolog.InfoLevel
	}
	e := c.log.WithLevel(level).Stringer("process", d.Role).Int("process_pid", d.PID).
		Stringer("cause", d.Cause).Str("reason", d.Reason)
	if d.Final {
		e = e.Stringer("outcome", d.Outcome).Dur("took_ms", d.Since)
	} else if d.Since > 0 {
		e = e.Dur("since_ms", d.Since)
	}
	e.AnErr("error", d.Err).Msg(msg)
	c.crashes.Judged(d)
	c.count(d)
}

func (c *cop) count(d supervise.Decision) {
	if c.region == nil {
		return
	}
	r := c.region.Role(roleID(d.Role))
	if !d.Final && d.Err == nil && d.Cause != supervise.Requested {
		r.Condemned.Store(uint64(d.PID)) // whoever finds it dead knows what of
	}
	switch {
	case !d.Final && d.Err == nil:
		r.KillsDecided.Add(1)
	case d.Final && d.Outcome == supervise.Forbidden:
		r.KillsForbidden.Add(1)
	}
}

// about puts who a ward's process is into an event, and what is known of it.
func (c *cop) about(e *zerolog.Event, w *ward) *zerolog.Event {
	e = e.Stringer("process", w.role).Int("process_pid", pidOf(w.p))
	if w.generation != 0 {
		e = e.Uint64("generation", w.generation)
	}
	switch {
	case w.role != supervise.Server:
		e = e.Stringer("state", w.state)
	case w.said != stats.Stopped:
		e = e.Stringer("state", w.said)
	}
	return e
}
