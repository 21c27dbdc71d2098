package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
)

// controller serves control.sock. It has no state: every request goes through the loop.
type controller struct{ m *manager }

// route is what is served at a path.
type route struct {
	method string
	serve  func(*controller, http.ResponseWriter, *http.Request) error
}

var routes = map[string]route{
	control.PathStatus:       {http.MethodGet, (*controller).status},
	control.PathStats:        {http.MethodGet, (*controller).stats},
	control.PathConfig:       {http.MethodGet, (*controller).config},
	control.PathConfigCheck:  {http.MethodPost, (*controller).configCheck},
	control.PathConfigReload: {http.MethodPost, (*controller).configReload},
	control.PathRestart:      {http.MethodPost, (*controller).restart},
	control.PathDrain:        {http.MethodPost, (*controller).drain},
	control.PathStop:         {http.MethodPost, (*controller).stop},
	control.PathLogReopen:    {http.MethodPost, (*controller).logReopen},
	control.PathCrashes:      {http.MethodGet, (*controller).crashList},
	control.PathUpgrade:      {http.MethodPost, (*controller).upgrade},
	control.PathCache:        {http.MethodGet, (*controller).cacheStats},
	control.PathCacheLookup:  {http.MethodGet, (*controller).cacheLookup},
	control.PathCachePurge:   {http.MethodPost, (*controller).cachePurge},
	control.PathOrigins:      {http.MethodGet, (*controller).origins},
	heartbeat.Path:           {http.MethodGet, (*controller).heartbeat},
}

// ServeHTTP implements http.Handler.
func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to, ok := routeOf(r.URL.Path)
	if r.URL.Path != heartbeat.Path {
		c.m.do(r.Context(), func() { c.m.estate.region.Manager().Inc(stats.ControlRequests) })
	}
	var err error
	switch {
	case !ok:
		err = control.Errorf(http.StatusNotFound, exitcode.Usage, "nothing is served at %.100q", r.URL.Path)
	case r.Method != to.method && !(r.Method == http.MethodHead && to.method == http.MethodGet):
		w.Header().Set("Allow", to.method)
		err = control.Errorf(http.StatusMethodNotAllowed, exitcode.Usage, "%s is asked for by %s", r.URL.Path, to.method)
	default:
		err = to.serve(c, w, r)
	}
	if err != nil {
		control.Refuse(w, err)
	}
}

// do runs f on the loop.
func (c *controller) do(r *http.Request, f func()) error {
	if !c.m.do(r.Context(), f) {
		return control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "the manager is ending")
	}
	return nil
}

// await runs f on the loop and waits for what it sends, which is one value at most.
func await[T any](c *controller, r *http.Request, f func(chan<- T)) (T, error) {
	var none T
	answer := make(chan T, 1)
	if err := c.do(r, func() { f(answer) }); err != nil {
		return none, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-r.Context().Done():
		return none, r.Context().Err()
	case <-c.m.over:
	}
	select {
	case a := <-answer: // its last word
		return a, nil
	default:
		return none, errEnded
	}
}

var errEnded = control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "the manager has ended")

// heartbeat answers only if the loop turns.
func (c *controller) heartbeat(w http.ResponseWriter, r *http.Request) error {
	if err := c.do(r, func() {}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(heartbeat.Page)))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close")
	// To HEAD the body is not sent, and a prober that went away is told nothing.
	_, _ = w.Write([]byte(heartbeat.Page))
	return nil
}

func (c *controller) status(w http.ResponseWriter, r *http.Request) error {
	var s control.Status
	trouble := make(chan asked, 1)
	if err := c.do(r, func() {
		s = c.m.status()
		c.m.ask(opTrouble, nil, trouble)
	}); err != nil {
		return err
	}
	select {
	case a := <-trouble:
		if a.err != nil || json.Unmarshal(a.body, &s.Trouble) != nil {
			s.Trouble = nil // there is no server, or one that does not know the question
		}
	case <-time.After(troubleLimit):
	case <-r.Context().Done():
	}
	control.Write(w, s)
	return nil
}

// troubleLimit is the time a server has to tell of its troubles for a status, which can do without.
const troubleLimit = 500 * time.Millisecond

func (c *controller) stats(w http.ResponseWriter, r *http.Request) error {
	pattern := r.URL.Query().Get("match")
	if _, err := path.Match(pattern, ""); err != nil {
		return control.Errorf(http.StatusBadRequest, exitcode.Usage, "pattern %.100q: %v", pattern, err)
	}
	var snap *stats.Snapshot
	if err := c.do(r, func() { snap = c.m.estate.region.Snapshot() }); err != nil {
		return err
	}
	if pattern != "" {
		for metric := range snap.Metrics {
			if ok, _ := path.Match(pattern, metric); !ok {
				delete(snap.Metrics, metric)
			}
		}
	}
	control.Write(w, snap)
	return nil
}

func (c *controller) config(w http.ResponseWriter, r *http.Request) error {
	var a control.Configuration
	if err := c.do(r, func() { a.Generation, a.Config = c.m.cfg.Generation, c.m.cfg }); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := a.Config.Effective(&b); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	a.Effective = b.String()
	control.Write(w, a)
	return nil
}

func (c *controller) configCheck(w http.ResponseWriter, r *http.Request) error {
	return c.verdict(w, r, c.m.check)
}

func (c *controller) configReload(w http.ResponseWriter, r *http.Request) error {
	return c.verdict(w, r, c.m.reload)
}

func (c *controller) verdict(w http.ResponseWriter, r *http.Request, ask func(func(reloaded))) error {
	a, err := await(c, r, func(answer chan<- reloaded) { ask(func(v reloaded) { answer <- v }) })
	if err == nil {
		err = a.err
	}
	if err != nil {
		return err
	}
	control.Write(w, a.verdict)
	return nil
}

func (c *controller) restart(w http.ResponseWriter, r *http.Request) error {
	var b control.Restart
	if err := control.Read(w, r, &b); err != nil {
		return err
	}
	switch {
	case b.Role == "" || b.Role == roleServer:
		return c.restartServer(w, r, b.Now)
	case b.Role == "manager" && !b.Now:
		return c.restartManager(w, r)
	case b.Role == "manager":
		return control.Errorf(http.StatusBadRequest, exitcode.Usage, "a manager has nothing to drain: now means nothing to it")
	}
	return control.Errorf(http.StatusBadRequest, exitcode.Usage, "role %.100q cannot be restarted: it is server or manager", b.Role)
}

func (c *controller) restartServer(w http.ResponseWriter, r *http.Request, now bool) error {
	a, err := await(c, r, func(answer chan<- restarts) { c.m.restart(now, answer) })
	if err == nil {
		err = a.err
	}
	if err != nil {
		return err
	}
	control.Write(w, control.Restarted{PID: a.pid, Generation: a.generation, OldPID: a.oldPID, OldGeneration: a.oldGeneration})
	return nil
}

// restartManager has this manager replaced. The answer is on its way before it goes:
// its end waits for the answers under way.
func (c *controller) restartManager(w http.ResponseWriter, r *http.Request) error {
	var refused error
	if err := c.do(r, func() { refused = c.m.leave() }); err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	control.Write(w, control.Restarted{PID: os.Getpid(), Generation: c.m.self.generation})
	return nil
}

func (c *controller) drain(w http.ResponseWriter, r *http.Request) error {
	var b control.Drain
	if err := control.Read(w, r, &b); err != nil {
		return err
	}
	refused, err := await(c, r, func(answer chan<- error) { c.m.drain(b.Undo, answer) })
	if err == nil {
		err = refused
	}
	if err != nil {
		return err
	}
	control.Write(w, struct{}{})
	return nil
}

func (c *controller) stop(w http.ResponseWriter, r *http.Request) error {
	var b control.Stop
	if err := control.Read(w, r, &b); err != nil {
		return err
	}
	refused, err := await(c, r, func(answer chan<- error) { c.m.stopInstance(b.Now, answer) })
	if err == nil {
		err = refused
	}
	if errors.Is(err, errEnded) {
		err = nil // cop was faster to stop it than to answer
	}
	if err != nil {
		return err
	}
	control.Write(w, struct{}{})
	return nil
}

func (c *controller) logReopen(w http.ResponseWriter, r *http.Request) error {
	failed, err := await(c, r, func(answer chan<- error) { c.m.reopen(func(err error) { answer <- err }) })
	if err != nil {
		return err
	}
	if failed != nil {
		return control.Errorf(http.StatusConflict, exitcode.Failed, "not all logs were reopened: %v", failed)
	}
	control.Write(w, struct{}{})
	return nil
}

// upgrade begins an upgrade: what comes of it is in the status.
func (c *controller) upgrade(w http.ResponseWriter, r *http.Request) error {
	var b control.Upgrade
	if err := control.Read(w, r, &b); err != nil {
		return err
	}
	a, err := await(c, r, func(answer chan<- ordered) { c.m.upgrade(b.Binary, func(o ordered) { answer <- o }) })
	if err == nil {
		err = a.err
	}
	if err != nil {
		return err
	}
	control.Write(w, a.report)
	return nil
}

// The limits of a connection to control.sock. An answer may take as long as a drain.
const (
	controlHead  = 5 * time.Second
	controlRead  = 10 * time.Second
	controlIdle  = 60 * time.Second
	controlBytes = 16 << 10
	controlConns = 128
)

func newControlServer(c *controller) *http.Server {
	return &http.Server{
		Handler: c, ReadHeaderTimeout: controlHead, ReadTimeout: controlRead, IdleTimeout: controlIdle,
		MaxHeaderBytes: controlBytes,
	}
}

// trusting accepts connections of this user and of root; everybody else is disconnected.
// The mode of the socket says the same, but only to whoever finds it by its name.
type trusting struct{ *net.UnixListener }

// Accept implements net.Listener.
func (l trusting) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if trusted(c) {
			return c, nil
		}
		c.Close()
	}
}

func trusted(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid()
}

// The acts behind the requests; on the loop.

// restart replaces the server; answer gets what came of it.
func (m *manager) restart(now bool, answer chan<- restarts) {
	if m.phase != running {
		answer <- restarts{err: errIsStopping}
		return
	}
	m.waiters = append(m.waiters, answer)
	m.clearAlarm()
	switch n := m.next; {
	case n == nil, n.asked: // the one after it
		m.wanted = true
	case n.told || !m.active.serves():
		// It is on its way to where it is wanted.
	case m.estate.custody() && m.outdated():
		m.discard(n, "the configuration asks for another server")
		m.wanted = true
	case m.planned.IsZero():
		m.planned = m.env.now()
	}
	if now && m.active != nil {
		m.active.asked, m.active.reason = true, "restart without drain"
		m.relief = relief{old: m.active}
		m.kill(m.active, supervise.Requested, "restart without drain", supervise.Escalation{}, nil)
	}
}

// outdated reports whether servers of the present shape are not what the configuration says.
func (m *manager) outdated() bool {
	for _, c := range config.NeedRestart(config.Diff(m.estate.standing(m.cfg), m.cfg)) {
		if !managersOwn(c.Name) {
			return true
		}
	}
	return false
}

var errIsStopping = control.Errorf(http.StatusConflict, exitcode.TryAgain, "the instance is stopping")

// leave ends this manager and nothing else, if there is a cop to start the next one.
func (m *manager) leave() error {
	switch {
	case m.phase != running:
		return errIsStopping
	case m.cop.line == nil:
		return control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "no cop is there to start the next manager")
	case m.estate.changed || m.cop.depositing:
		return control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "cop does not hold everything yet")
	}
	m.stop(leaving)
	return nil
}

// drain has the active server take leave of its clients, or go on.
func (m *manager) drain(undo bool, answer chan<- error) {
	u := m.active
	if m.phase != running || !u.serves() || u.line == nil {
		answer <- control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "no server is ready")
		return
	}
	before := u.parked
	u.parked = true // before it says that it drains: it does not leave
	m.call(u.line, opDrain, drainBody{Undo: undo}, reloadLimit, func(err error) {
		u.parked = !undo
		if err != nil {
			u.parked = before
			answer <- fmt.Errorf("drain: %w", err)
			return
		}
		m.about(m.log.Info(), u).Bool("undo", undo).Msg("drain")
		answer <- nil
	})
}

// stopInstance has cop stop everything; without a cop the manager stops what it has.
func (m *manager) stopInstance(now bool, answer chan<- error) {
	if m.cop.line == nil {
		p := draining
		if now {
			p = stopping
		}
		m.stop(p)
		answer <- nil
		return
	}
	m.call(m.cop.line, opStop, copStop{Now: now}, depositLimit, func(err error) {
		if err != nil {
			err = fmt.Errorf("ask cop to stop: %w", err)
		}
		answer <- err
	})
}

// pulse passes through the loop: it is the proof that the loop turns.
func (m *manager) pulse(ctx context.Context) bool { return m.do(ctx, func() {}) }
