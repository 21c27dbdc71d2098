package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/supervise"
)

// The operations on the link; doc.go has the contracts.
const (
	opConfig   = "config"   // server → manager, manager → cop
	opReady    = "ready"    // server → manager
	opState    = "state"    // server → manager, an event
	opReload   = "reload"   // cop → manager (an event), manager → server
	opReopen   = "reopen"   // cop → manager (an event), manager → server
	opStop     = "stop"     // cop → manager (an event), manager → server, manager → cop
	opDrain    = "drain"    // manager → server
	opRetire   = "retire"   // manager → server
	opYield    = "yield"    // manager → server
	opPing     = "ping"     // manager → server
	opOrigins  = "origins"  // manager → server
	opTrouble  = "trouble"  // manager → server
	opCause    = "cause"    // server → manager, manager → server
	opHeritage = "heritage" // manager → server
	opCache    = "cache"    // manager → server
	opDeposit  = "deposit"  // manager → cop
	opRefused  = "refused"  // manager → cop
	opUpgrade  = "upgrade"  // manager → cop, cop → manager
	opUpgraded = "upgraded" // manager → cop
	opLeave    = "leave"    // cop → manager
	opReport   = "report"   // cop → manager, an event
	opWanted   = "wanted"   // cop → manager, an event
)

const (
	roleCop    = "cop"
	roleServer = "server"
)

// Bodies of messages.
type (
	stateBody struct {
		State   string `json:"state"`
		Journal uint64 `json:"journal"`
	}
	readyBody struct {
		Generation uint64 `json:"generation"`
		Took       bool   `json:"took"` // it holds server.lock already, and serves what it found
		Journal    uint64 `json:"journal"`
	}
	causeBody struct {
		Generation uint64          `json:"generation"`
		Fault      supervise.Fault `json:"fault"` // "": not known yet
	}
	drainBody struct {
		Undo bool `json:"undo"`
	}
	serverStop struct {
		Fast    bool `json:"fast"`
		Standby bool `json:"standby"` // only if it stands by: one that has taken over refuses
	}
	copStop struct {
		Now bool `json:"now"`
	}
	refusedBody struct {
		Code   int    `json:"code"`   // what the server exited with
		Reason string `json:"reason"` // in its words, or its supervisor's
	}
)

// errNotWanted is what a server is told that another one has come before. It ends then.
var errNotWanted = errors.New("another server is in its place")

// linkOptions serve manager.sock. The handlers run on the goroutines of the link.
func (m *manager) linkOptions() link.ServerOptions {
	x := link.NewMux()
	x.Handle(opConfig, m.onConfig)
	x.Handle(opReady, m.onReady)
	x.Handle(opState, m.onState)
	x.Handle(opCause, m.onCause)
	for op, f := range map[string]func(){
		opReload: func() { m.reload(func(reloaded) {}) },
		opReopen: func() { m.reopen(func(error) {}) },
	} {
		x.Handle(op, m.fromCop(func(*link.Message) error { m.post(f); return nil }))
	}
	x.Handle(opStop, m.fromCop(func(msg *link.Message) error {
		var b copStop
		if msg.Body != nil {
			if err := msg.Decode(&b); err != nil {
				return err
			}
		}
		p := draining
		if b.Now {
			p = stopping
		}
		m.post(func() { m.stop(p) })
		return nil
	}))
	m.handleUpgrade(x)
	return link.ServerOptions{
		Self: func() link.Hello {
			return link.Hello{Role: "manager", PID: m.self.id.PID, StartTime: m.self.id.StartTime, Generation: m.self.generation, State: "ready"}
		},
		Mux: x,
		Admit: func(_ link.Peer, h link.Hello) error {
			if h.Role != roleCop && h.Role != roleServer {
				return fmt.Errorf("role %q has no business here", h.Role)
			}
			return nil
		},
		OnConnect: func(c *link.Conn) { m.do(m.work, func() { m.connected(c) }) },
		OnClose:   func(c *link.Conn, err error) { m.post(func() { m.disconnected(c, err) }) },
	}
}

// fromCop is a handler of what only cop may ask.
func (m *manager) fromCop(f func(*link.Message) error) link.Handler {
	return func(_ context.Context, c *link.Conn, msg *link.Message) (link.Reply, error) {
		if c.Hello().Role != roleCop {
			return link.Reply{}, fmt.Errorf("%s is not for a %s to ask", msg.Op, c.Hello().Role)
		}
		return link.Reply{}, f(msg)
	}
}

// onConfig gives a server the configuration. What it was given is noted, to tell what
// needs a restart.
func (m *manager) onConfig(ctx context.Context, c *link.Conn, _ *link.Message) (link.Reply, error) {
	var body any
	if !m.do(ctx, func() {
		cfg := m.estate.standing(m.cfg)
		body = cfg
		if u := m.byLine(c); u != nil {
			u.born, u.cfg = cfg, m.cfg
		}
	}) {
		return noAnswer(ctx)
	}
	return link.Reply{Body: body}, nil
}

// onReady keeps a server waiting until it is its turn.
func (m *manager) onReady(ctx context.Context, c *link.Conn, msg *link.Message) (link.Reply, error) {
	var b readyBody
	if err := msg.Decode(&b); err != nil {
		return link.Reply{}, err
	}
	turn := make(chan error, 1)
	if !m.do(ctx, func() { m.saysReady(c, b, func(err error) { turn <- err }) }) {
		return noAnswer(ctx)
	}
	select {
	case err := <-turn:
		return link.Reply{}, err
	case <-ctx.Done():
		return link.Reply{}, ctx.Err()
	}
}

// noAnswer waits for the end of the link. A manager that ends must not answer a server's
// question with an error, which would be the end of the server; to one that is left without an
// answer the next manager will give it.
func noAnswer(ctx context.Context) (link.Reply, error) {
	<-ctx.Done()
	return link.Reply{}, ctx.Err()
}

func (m *manager) onState(_ context.Context, c *link.Conn, msg *link.Message) (link.Reply, error) {
	var b stateBody
	if err := msg.Decode(&b); err != nil {
		return link.Reply{}, err
	}
	m.post(func() {
		if u := m.byLine(c); u != nil {
			u.journal = b.Journal
			m.saysState(u, b.State)
		}
	})
	return link.Reply{}, nil
}

// onCause tells a server why another one died. If that is not known yet the answer is empty, and
// follows when it is (tellCause): the questions of a server are answered in turn, and what it
// asks next must not wait for the kernel to take a process apart.
func (m *manager) onCause(ctx context.Context, _ *link.Conn, msg *link.Message) (link.Reply, error) {
	var b causeBody
	if err := msg.Decode(&b); err != nil {
		return link.Reply{}, err
	}
	if !m.do(ctx, func() { b.Fault = m.causeOf(b.Generation) }) {
		return noAnswer(ctx)
	}
	return link.Reply{Body: b}, nil
}

// byLine finds the server at the other end of a connection.
func (m *manager) byLine(l line) *unit {
	for _, u := range m.units() {
		if u.line == l {
			return u
		}
	}
	return nil
}

func (m *manager) byPID(pid int) *unit {
	for _, u := range m.units() {
		if u.p.PID() == pid {
			return u
		}
	}
	return nil
}

// connected takes in that a peer has dialled in.
func (m *manager) connected(l line) {
	h := l.Hello()
	if h.Role == roleCop {
		m.copConnected(l)
		return
	}
	u := m.byPID(h.PID)
	if u == nil {
		if u = m.adopt(h); u == nil {
			return
		}
	}
	// A server met while it drains: an operator has wanted it so, and it goes on accepting.
	if !u.child && !u.met && u == m.active && h.State == supervise.Draining.String() && !h.Leaves {
		u.parked = true
	}
	u.line, u.met = l, true
	u.journal = h.Journal
	if m.old[u] && u.state == supervise.Starting && (h.State == supervise.Ready.String() || h.State == supervise.Draining.String()) &&
		m.env.holder() != h.PID {
		// It has served, and let go of the lock: what it says of itself is from then.
		u.served = true
		u.enter(supervise.Stop, m.env.now())
	}
	u.generation = max(u.generation, h.Generation)
	m.last = max(m.last, h.Generation)
	m.log.Debug().Int("process_pid", h.PID).Uint64("generation", h.Generation).Str("state", h.State).Msg("server dialled in")
	m.saysState(u, h.State)
	if u == m.active && u.cfg != m.cfg {
		m.publish(u)
	}
	if m.estate.lacks(m.cfg) || m.estranged(u) {
		m.inheritFrom(u)
	}
}

// estranged reports whether the server that serves has another journal than the one that the next would get: the last
// manager died in the middle of a planned restart. In the middle of one of ours that is as it should be.
func (m *manager) estranged(u *unit) bool {
	return u == m.active && m.estate.former == nil && u.journal != 0 && u.journal != m.estate.journal()
}

// adopt takes over a server that nobody here knows: it belongs to an earlier manager. It is
// nil if it cannot be told that this is a server of ours.
func (m *manager) adopt(h link.Hello) *unit {
	p, err := m.env.adopt(h.PID, h.StartTime, m.listed(h))
	if err != nil {
		m.log.Error().Err(err).Int("process_pid", h.PID).Msg("server not adopted")
		return nil
	}
	now := m.env.now()
	u := &unit{p: p, generation: h.Generation, started: now, exe: p.Target().Known.Exe}
	follows := m.next == nil && (m.active == nil && !m.burying || m.estate.custody())
	switch {
	case h.State == supervise.Standby.String() && follows:
		u.enter(supervise.Started, now)
		m.next = u
	case h.State == supervise.Standby.String():
		u.enter(supervise.Started, now)
		u.asked = true // and told so when its link is up
		m.old[u] = true
	case h.State == supervise.Starting.String() && follows:
		// Its manager died before it became ready. It is as good as one of ours.
		u.enter(supervise.Started, now)
		m.next = u
	case h.State == supervise.Starting.String():
		// One too many. It is told so when it says that it is ready; if it had the word to go
		// from its manager, it will be the one that serves.
		u.enter(supervise.Started, now)
		u.asked = true
		m.old[u] = true
	case m.active == nil && !m.burying && m.env.holder() == h.PID:
		u.enter(supervise.Adopted, now)
		u.served = true
		m.active = u
	default:
		// It let go of the lock: an earlier manager has replaced it, and it finishes what it began.
		u.asked, u.served = true, true
		u.enter(supervise.Adopted, now)
		u.enter(supervise.Stop, now)
		m.old[u] = true
		m.escort(u)
	}
	m.about(m.log.Info(), u).Msg("adopt_server")
	m.watch(u)
	return u
}

// listed reports whether shared memory names the process as a server of this instance.
func (m *manager) listed(h link.Hello) bool {
	pid, start := m.estate.region.Bank(h.Generation).Process()
	return pid == h.PID && start != 0 && start == h.StartTime
}

// saysReady takes in that a server waits for its turn.
func (m *manager) saysReady(l line, b readyBody, turn func(error)) {
	u := m.byLine(l)
	if u != nil {
		u.journal = b.Journal
		if b.Took && !u.took {
			u.took, u.since = true, m.env.now()
		}
		if u.took && m.old[u] && !u.state.Ends() {
			m.overtakes(u)
		}
	}
	switch {
	case u == nil || m.phase > leaving:
		turn(errNotWanted)
	case u == m.next:
		u.answer(errors.New("asked again"))
		u.turn = turn
		if u.told {
			u.answer(nil) // the word to go is repeated to who did not hear it
		}
	case u == m.active:
		turn(nil)
	default:
		turn(errNotWanted)
	}
}

// saysState takes in what a server says of itself.
func (m *manager) saysState(u *unit, state string) {
	switch state {
	case supervise.Ready.String():
		if u == m.active {
			u.parked = false
		}
		if m.old[u] && u.state == supervise.Starting {
			m.overtakes(u)
		}
		m.becameReady(u)
	case supervise.Standby.String():
		if u.enter(supervise.NowStandby, m.env.now()); u.state != supervise.Standby {
			return
		}
		first := u.stood.IsZero()
		if first {
			u.stood = m.env.now()
		}
		if m.old[u] {
			m.discard(u, "another server stands by")
			return
		}
		if first {
			if m.active.serves() {
				m.lastExit = "" // nobody is missing any more
			}
			m.about(m.log.Info(), u).Msg("server stands by")
		}
		if u.line != nil && u.cfg != m.cfg {
			m.publish(u)
		}
	case supervise.Draining.String():
		if u == m.active && !u.parked && u.state == supervise.Ready {
			m.leaves(u)
		}
	}
}

// overtakes takes in that a server serves, or has taken over, which was one too many here: an
// earlier manager gave it the word to go, or it was faster than another standby. It has the
// lock, so the other one is not wanted, or has had the lock before it and is dead.
func (m *manager) overtakes(u *unit) {
	n := m.next
	dead := n != nil && n.took && u.took && m.env.holder() == u.p.PID()
	if n != nil && n.told && !dead || m.active != nil && !u.took {
		return
	}
	delete(m.old, u)
	u.asked, u.reason = false, ""
	m.next = u
	switch {
	case dead:
		m.overtaken(n)
	case n != nil:
		m.old[n] = true
		m.discard(n, "another server has taken over")
	}
}

// leaves takes in that the active server goes by itself: somebody sent it a signal.
func (m *manager) leaves(u *unit) {
	m.about(m.log.Warn(), u).Msg("server leaves unasked")
	u.reason = "the server itself was asked to stop"
	u.enter(supervise.Stop, m.env.now())
	m.due = m.env.now()
}

// disconnected takes in that a link has ended. A server without a link goes on serving;
// its pidfd says when it is dead.
func (m *manager) disconnected(l line, err error) {
	if l == m.cop.line {
		m.copDisconnected(err)
		return
	}
	if u := m.byLine(l); u != nil {
		u.line, u.turn = nil, nil
		m.log.Debug().AnErr("reason", err).Int("process_pid", u.p.PID()).Msg("link to server is down")
	}
}

// publish gives a server what is in force: an adopted one, since its last manager may have
// died in the middle of a reload; one that was starting during a reload; one whose link
// was down at that time.
func (m *manager) publish(u *unit) {
	cfg := m.cfg
	m.call(u.line, opReload, cfg, reloadLimit, func(err error) {
		if err != nil {
			m.about(m.log.Error(), u).Err(err).Msg("server keeps its configuration")
			return
		}
		u.cfg = cfg
	})
}

// inheritFrom asks a server for what it inherited and this manager did not.
func (m *manager) inheritFrom(u *unit) {
	l := u.line
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.work, heritageLimit)
		defer cancel()
		set, err := askHeritage(ctx, l)
		ok := m.post(func() {
			if err != nil {
				m.about(m.log.Error(), u).Err(err).Msg("heritage not handed back")
				return
			}
			if m.estranged(u) && journalOf(set) == u.journal {
				err = m.estate.forsake()
			}
			added, mergeErr := m.estate.merge(set)
			err = errors.Join(err, mergeErr)
			m.about(m.log.Info(), u).Strs("heritage", added).AnErr("error", err).Msg("heritage handed back")
		})
		if !ok && err == nil {
			set.Close()
		}
	})
}

const heritageLimit = 5 * time.Second

func askHeritage(ctx context.Context, l line) (*heritage.Set, error) {
	reply, err := l.Call(ctx, opHeritage, nil)
	if err != nil {
		return nil, err
	}
	defer reply.Close()
	return heritage.Unmarshal(reply.Body, reply.TakeFDs())
}

// deposit has cop hold what this manager holds, whenever that is not the same.
func (m *manager) deposit(now time.Time) {
	c := &m.cop
	if c.line == nil || c.depositing || c.retryAt.After(now) || !m.estate.changed {
		return
	}
	set, err := m.estate.set.Dup()
	if err != nil {
		m.log.Error().Err(err).Msg("heritage not deposited")
		c.retryAt = now.Add(depositRetry)
		return
	}
	m.estate.changed, c.depositing = false, true
	l := c.line
	m.wg.Go(func() {
		defer set.Close()
		err := depositWith(m.work, l, set)
		m.post(func() {
			c.depositing = false
			if err != nil {
				m.estate.changed = true
				c.retryAt = m.env.now().Add(depositRetry)
				m.log.Warn().Err(err).Msg("heritage not deposited")
			}
		})
	})
}

const (
	depositLimit = 5 * time.Second
	depositRetry = time.Second
)

func depositWith(ctx context.Context, l line, set *heritage.Set) error {
	ctx, cancel := context.WithTimeout(ctx, depositLimit)
	defer cancel()
	body, fds, err := set.Marshal()
	if err != nil {
		return err
	}
	reply, err := l.Call(ctx, opDeposit, json.RawMessage(body), fds...)
	if err != nil {
		return err
	}
	reply.Close()
	return nil
}
