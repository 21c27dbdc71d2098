package cop

import (
	"context"
	"errors"
	"os"
	"time"

	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// look brings the wards up to date: meets who holds the locks and starts the probes
// that are due. What happens by itself (deaths, answers) is posted.
func (c *cop) look() {
	now := c.env.now()
	for _, w := range []*ward{&c.manager, &c.server} {
		if w.p != nil && !w.child && !w.killing {
			c.succession(w)
		}
		if w.p == nil {
			c.meet(w, now)
		}
	}
	c.readServer(now)
	// The manager says over the link, or in shared memory, that it is ready; one that
	// was adopted by this cop said so to another.
	if w := &c.manager; w.p != nil && w.state == supervise.Starting && c.stateOf(w) == stats.Ready {
		c.becameReady(w, w.p)
	}
	if c.phase == running {
		c.probe(&c.manager, now)
		c.probe(&c.server, now)
	}
}

// succession drops a process whose lock another one holds by now: it has been replaced
// while it drains, and the role is the other's.
func (c *cop) succession(w *ward) {
	if pid := c.env.holder(w.role); pid != 0 && pid != w.p.PID() {
		c.about(c.log.Info(), w).Int("successor_pid", pid).Msg(w.role.String() + " has a successor")
		w.drop()
	}
}

// meet adopts the holder of the ward's lock, if there is one.
func (c *cop) meet(w *ward, now time.Time) {
	p, err := c.env.meet(w.role)
	if err != nil {
		// A lock that somebody holds whom we do not know is an operator's matter. The
		// text is logged once, not at every look.
		if w.unmet != err.Error() {
			w.unmet = err.Error()
			c.log.Error().Err(err).Stringer("process", w.role).Msg("lock holder not met")
		}
		return
	}
	if p == nil {
		w.unmet = ""
		return
	}
	w.take(p, supervise.Started, now)
	c.watch(w)
	if w.role == supervise.Server {
		c.readServer(now)
		if !c.started {
			c.fresh, c.first = false, false // of a manager that only starts it is not known that anything was ever up
		}
	}
	if w.role == supervise.Manager {
		w.generation = c.generationOf(w)
		c.generation = max(c.generation, w.generation)
		if c.alarm != "" {
			c.clearAlarm()
		}
	}
	c.about(c.log.Info(), w).Msg("adopt " + w.role.String())
}

// watch waits for the ward's process and posts what becomes of it.
func (c *cop) watch(w *ward) {
	p := w.p
	c.wg.Go(func() {
		select {
		case <-p.Ready():
			c.post(func() { c.becameReady(w, p) })
		case <-p.Done():
		case <-c.over:
			return
		}
		select {
		case <-p.Done():
			c.post(func() { c.died(w, p) })
		case <-c.over:
		}
	})
}

// record returns the process's own record in shared memory; nil if there is none, or
// if it is another process's.
func (c *cop) record(w *ward) *stats.Role {
	if c.region == nil || w.p == nil {
		return nil
	}
	r := c.region.Role(roleID(w.role))
	if r.PID.Load() != uint64(w.p.PID()) {
		return nil
	}
	return r
}

func roleID(r supervise.Role) stats.RoleID {
	if r == supervise.Manager {
		return stats.RoleManager
	}
	return stats.RoleServer
}

// stateOf returns what the ward's process says of itself; Starting if it says nothing.
func (c *cop) stateOf(w *ward) stats.State {
	if r := c.record(w); r != nil {
		return stats.State(r.State.Load())
	}
	return stats.Starting
}

// readServer notes what the server says of itself. It is not cop who moves it from state to state.
func (c *cop) readServer(now time.Time) {
	w := &c.server
	if w.p == nil {
		return
	}
	if w.generation == 0 && c.region != nil {
		w.generation = c.region.GenerationOf(w.p.PID()) // it stands there before the server enters itself in its role's record
	}
	r := c.record(w)
	if r == nil {
		return
	}
	w.generation, w.said = r.Generation.Load(), stats.State(r.State.Load())
	if w.said == stats.Ready {
		w.enter(supervise.NowReady, now)
	}
}

func (c *cop) generationOf(w *ward) uint64 {
	if r := c.record(w); r != nil {
		return r.Generation.Load()
	}
	return 0
}

// progress reads the counters that speak for a process that does not answer.
func (c *cop) progress(w *ward) []uint64 {
	r := c.record(w)
	switch {
	case r == nil:
		return nil
	case w.role == supervise.Server:
		return c.region.Bank(r.Generation.Load()).Progress(nil)
	}
	return []uint64{r.Progress.Load()}
}

// attach maps the statistics that cop holds, and enters cop's own record.
func (c *cop) attach() {
	fd, err := c.heritage.GetDup(heritage.Stats)
	if err != nil {
		return // not made yet
	}
	f := os.NewFile(uintptr(fd), heritage.Stats)
	region, err := stats.Attach(f)
	if err != nil {
		f.Close()
		c.log.Warn().Err(err).Msg("statistics not readable")
		return
	}
	if c.region != nil {
		c.region.Close()
	}
	c.region = region
	me := region.Role(stats.RoleCop)
	if me.PID.Load() != uint64(c.self.PID) || me.Generation.Load() != c.ownGen {
		me.Enter(c.self.PID, c.self.StartTime, c.ownGen)
	}
	me.State.Store(uint64(stats.Ready))
	c.generation = max(c.generation, region.Role(stats.RoleManager).Generation.Load())
}

// managerView is the manager as the table wants it.
func (c *cop) managerView(now time.Time) managerView {
	w := &c.manager
	switch {
	case w.p == nil && (c.alarm != "" || c.dueAt(now).After(now)):
		return managerHeld
	case w.p == nil:
		return managerDown
	case w.state == supervise.Draining:
		return managerStopping
	case w.state == supervise.Starting && now.Sub(w.since) > c.cfg.Supervision.StartDeadline:
		return managerOverdue
	case w.state == supervise.Starting:
		return managerStarting
	}
	return judged(w.verdict, managerUp, managerStruck, managerWedged)
}

// serverView is the server as the table wants it.
func (c *cop) serverView() serverView {
	w := &c.server
	if w.p == nil {
		return serverDown
	}
	switch c.stateOf(w) {
	case stats.Ready:
		return judged(w.verdict, serverUp, serverStruck, serverWedged)
	case stats.Draining:
		return serverDraining
	}
	return serverStarting
}

// probeable reports whether the ward's process may be judged by its answers. A manager
// that was adopted while starting is asked as well: its answer says that it is ready.
func (c *cop) probeable(w *ward) bool {
	switch {
	case w.p == nil || w.killing:
		return false
	case w.role == supervise.Server:
		return c.stateOf(w) == stats.Ready
	}
	return w.state == supervise.Ready || w.state == supervise.Starting && !w.child
}

// probe starts a heartbeat if one is due.
func (c *cop) probe(w *ward, now time.Time) {
	if w.probing || !c.probeable(w) || now.Sub(w.probed) < c.cfg.Health.Interval {
		return
	}
	w.probing, w.probed = true, now
	p, timeout := w.p, c.cfg.Health.Timeout
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.work, timeout)
		defer cancel()
		err := c.env.probe(ctx, w.role)
		c.post(func() { c.probed(w, p, err) })
	})
}

// probed takes in the result of a heartbeat of p.
func (c *cop) probed(w *ward, p process, err error) {
	if w.p != p {
		return // of a predecessor
	}
	w.probing = false
	if r := c.record(w); r != nil {
		r.Probes.Add(1)
		if err != nil {
			r.ProbeFailures.Add(1)
		}
	}
	if err == nil {
		c.passed(w)
		return
	}
	// A process that went into its start or its drain since it was asked is not judged.
	if !c.probeable(w) || w.role == supervise.Manager && w.state != supervise.Ready {
		return
	}
	w.verdict = w.strikes.Failed(c.env.now(), c.progress(w))
	e := c.about(c.log.Warn(), w).Int("strike", w.strikes.Count()).Stringer("verdict", w.verdict).Err(err)
	var f *heartbeat.Failure
	if errors.As(err, &f) {
		e = e.Stringer("kind", f.Kind)
	}
	e.Msg(w.role.String() + " heartbeat failed")
}

func (c *cop) passed(w *ward) {
	if n := w.strikes.Count(); n > 0 {
		c.about(c.log.Info(), w).Int("strikes", n).Msg(w.role.String() + " heartbeat succeeded")
	}
	w.clear()
	if w.role == supervise.Manager && w.state == supervise.Starting {
		c.becameReady(w, w.p)
	}
}
