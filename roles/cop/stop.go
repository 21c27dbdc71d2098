package cop

import (
	"os"
	"syscall"
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// The order at stop is that of the start, backwards: the manager is asked to go and takes
// the server along, in its own time; a server that is left over goes next; then whatever
// has become our child meanwhile; then cop.

// lingerLimit is how long cop waits for processes that are not its wards, and that it
// inherited as their subreaper.
const lingerLimit = 2 * time.Second

// signal acts on a signal to cop itself.
func (c *cop) signal(sig os.Signal) {
	c.log.Info().Str("signal", sig.String()).Msg("signal")
	switch sig {
	case syscall.SIGTERM, syscall.SIGQUIT:
		c.stop(draining)
	case syscall.SIGINT:
		c.stop(stopping)
	case syscall.SIGHUP:
		c.reload()
	case syscall.SIGUSR1:
		if err := c.env.rotate(); err != nil {
			c.log.Error().Err(err).Msg("log not reopened")
		}
		c.pass("reopen")
	case syscall.SIGUSR2:
		// The manager tries the executable, and then asks cop to conduct.
		if !c.env.tell(opWanted, nil) {
			c.log.Error().Msg("no upgrade: no link to a manager")
		}
	}
}

// reload reads the configuration again, lets a manager that was given up be tried
// again, and has a living one do the same. A bad file changes nothing.
func (c *cop) reload() {
	if cfg, err := c.env.load(); err != nil {
		c.log.Error().Err(err).Msg("configuration refused")
	} else {
		c.apply(cfg)
		c.log.Info().Msg("configuration reloaded")
	}
	c.clearAlarm()
	c.pass("reload")
}

// pass has the manager do op; if there is no link to it just now, as soon as there is.
// "reopen" is not kept: the next manager opens the log anew anyhow.
func (c *cop) pass(op string) {
	delete(c.unheard, op)
	if !c.env.tell(op, nil) && op == "reload" && c.manager.p != nil {
		c.unheard[op] = true
	}
}

// linked is called when the link to a manager is up.
func (c *cop) linked(pid int, generation uint64) {
	c.log.Info().Int("manager_pid", pid).Uint64("generation", generation).Msg("link to manager is up")
	c.generation = max(c.generation, generation)
	if c.manager.p != nil && c.manager.p.PID() == pid {
		c.manager.generation = generation
	}
	c.publishUpgrade()
	if c.upgrade.step == upManager && pid == c.upgrade.oldPID {
		c.askLeave()
	}
	for op := range c.unheard {
		c.pass(op)
	}
	if c.phase == stopping {
		c.env.tell(opStop, stopBody{Now: true})
	}
}

// stop begins to stop the instance, or hurries a stop that has begun.
func (c *cop) stop(p phase) {
	if p <= c.phase {
		return
	}
	c.phase, c.replacing = p, false
	c.log.Info().Stringer("phase", p).Msg("stopping")
	c.env.say("STOPPING=1")
	if c.region != nil {
		c.region.Role(stats.RoleCop).State.Store(uint64(stats.Draining))
	}
	for _, w := range []*ward{&c.manager, &c.server} {
		if w.killing {
			w.stopKill() // its patience is another one; proceed begins anew
		}
	}
	if p == stopping {
		c.env.tell(opStop, stopBody{Now: true})
	}
}

// proceed takes a stop one step further. It is called at every turn.
func (c *cop) proceed() {
	if c.manager.p != nil {
		c.retire(&c.manager)
		return
	}
	if c.server.p != nil {
		c.retire(&c.server)
		return
	}
	now := c.env.now()
	if c.linger.IsZero() {
		c.linger = now.Add(lingerLimit)
	}
	if c.env.alone() || now.After(c.linger) {
		c.done = true
		c.log.Info().Msg("stopped")
	}
}

// retire asks the ward's process to stop, and sees to it that it does.
func (c *cop) retire(w *ward) {
	if w.killing {
		return
	}
	w.enter(supervise.Stop, c.env.now())
	c.kill(w, supervise.Requested, "stop of the instance: "+c.phase.String(), supervise.Escalation{Grace: c.patience(w)})
}

// patience is the time between TERM and KILL at a stop. The manager needs what the
// server has for its drain, and then the time to end it by force.
func (c *cop) patience(w *ward) time.Duration {
	grace := max(c.cfg.Supervision.StopGrace, time.Millisecond)
	switch {
	case c.phase == stopping && w.role == supervise.Manager:
		return grace
	case c.phase == stopping:
		return 0
	case w.role == supervise.Manager:
		return c.cfg.Timeouts.Drain + 2*grace
	}
	return c.cfg.Timeouts.Drain + grace
}
