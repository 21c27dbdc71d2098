package manager

import (
	"errors"
	"net/http"
	"os"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// reloadLimit is how long a server may take to adopt a configuration.
const reloadLimit = 10 * time.Second

// reloaded is what came of a reload.
type reloaded struct {
	verdict control.Verdict
	err     error // a *control.Error
}

// reload reads the configuration, and if it is good publishes it: to the server first,
// whose refusal is one, then to everybody else. then is called once, on the loop.
func (m *manager) reload(then func(reloaded)) {
	if m.reloading {
		then(reloaded{err: control.Errorf(http.StatusConflict, exitcode.TryAgain, "another reload is under way")})
		return
	}
	m.reloading = true
	end := func(r reloaded) {
		m.reloading = false
		m.recordReload(r)
		then(r)
	}
	inForce := m.cfg
	m.wg.Go(func() {
		cfg, err := m.loadAnew(inForce)
		m.post(func() {
			if err != nil {
				m.badFile = err.Error()
				end(reloaded{err: refusal(err)})
				return
			}
			m.badFile = ""
			m.propose(cfg.WithGeneration(m.cfg.Generation+1), end)
		})
	})
}

// loadAnew reads the configuration. Another path than the one in force must be one that can be used; that one may be gone, and
// everything else be changed all the same.
func (m *manager) loadAnew(inForce *config.Config) (*config.Config, error) {
	cfg, err := m.env.load()
	if err == nil {
		err = cfg.CheckPaths(inForce)
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// propose offers a good configuration to the server, and publishes it when it agrees.
func (m *manager) propose(cfg *config.Config, end func(reloaded)) {
	u := m.active
	if !u.serves() || u.line == nil {
		// Nobody to ask: the next server gets it when it asks.
		m.accept(cfg, nil, end)
		return
	}
	m.call(u.line, opReload, cfg, reloadLimit, func(err error) {
		if err != nil && u == m.active {
			end(reloaded{err: control.Errorf(http.StatusUnprocessableEntity, exitcode.Failed,
				"the server refuses the configuration: %v", err)})
			return
		}
		m.accept(cfg, u, end)
	})
}

// accept makes cfg the configuration that is in force. u, if not nil, has it already.
func (m *manager) accept(cfg *config.Config, u *unit, end func(reloaded)) {
	changes := config.Diff(m.cfg, cfg)
	if u != nil {
		u.cfg = cfg
	}
	m.apply(cfg)
	m.published = m.env.now()
	m.clearAlarm()
	m.tellCop()
	if n := m.next; n != nil && n.line != nil && n.state == supervise.Standby {
		m.publish(n)
	}
	m.wg.Go(func() {
		err := m.env.save(cfg)
		m.post(func() {
			if err != nil {
				m.log.Error().Err(err).Msg("last good configuration not saved")
			}
			end(reloaded{verdict: verdict(cfg, changes)})
		})
	})
}

// check says what a reload would do.
func (m *manager) check(then func(reloaded)) {
	inForce := m.cfg
	m.wg.Go(func() {
		cfg, err := m.loadAnew(inForce)
		m.post(func() {
			if err != nil {
				then(reloaded{err: refusal(err)})
				return
			}
			v := verdict(cfg.WithGeneration(m.cfg.Generation), config.Diff(m.cfg, cfg))
			v.Warnings = config.Misnamed(os.Environ())
			then(reloaded{verdict: v})
		})
	})
}

func verdict(cfg *config.Config, changes []config.Change) control.Verdict {
	v := control.Verdict{Generation: cfg.Generation, File: cfg.File, Changes: []control.Change{}}
	for _, c := range changes {
		v.Changes = append(v.Changes, control.Change{Name: c.Name, Old: c.Old, New: c.New, Entries: c.Entries, NeedsRestart: !c.Reloadable})
	}
	return v
}

// refusal is the error of a load as an answer, each problem with its position.
func refusal(err error) *control.Error {
	e := control.Errorf(http.StatusUnprocessableEntity, exitcode.Of(err), "configuration refused, the old one goes on")
	var ce *config.Error
	if !errors.As(err, &ce) {
		e.Problems = []string{err.Error()}
		return e
	}
	for _, p := range ce.Problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

func (m *manager) recordReload(r reloaded) {
	row := m.estate.region.Manager()
	if r.err != nil {
		row.Inc(stats.ReloadsRefused)
		m.log.Error().Err(r.err).Uint64("generation", m.cfg.Generation).Msg("reload refused")
		return
	}
	row.Inc(stats.Reloads)
	var names, restart []string
	for _, c := range r.verdict.Changes {
		names = append(names, c.Name)
		if c.NeedsRestart {
			restart = append(restart, c.Name)
		}
	}
	m.log.Info().Uint64("generation", r.verdict.Generation).Strs("changes", names).Strs("needs_restart", restart).Msg("reload")
}

// needsRestart names the settings that are published and not in force: in the server,
// or in this manager.
func (m *manager) needsRestart() []string {
	names := []string{}
	seen := map[string]bool{}
	add := func(old *config.Config, only func(name string) bool) {
		if old == nil {
			return
		}
		for _, c := range config.NeedRestart(config.Diff(old, m.cfg)) {
			if only(c.Name) && !seen[c.Name] {
				seen[c.Name] = true
				names = append(names, c.Name)
			}
		}
	}
	add(m.first, managersOwn)
	if m.active != nil {
		add(m.active.born, func(name string) bool { return !managersOwn(name) })
	}
	return names
}

// managersOwn tells the settings that come into force with a new manager.
func managersOwn(name string) bool { return name == "autoconf.listen" || name == "log.format" }
