package server

import (
	"time"

	"trafficd/proc"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/session"
	"trafficd/roles/server/sock"
)

// What an adoption tells: each connection once, to the counters, the crash record and, if it is lost, the log.

// note enters a connection that goes on.
func (a *adoption) note(l *leftover, fate session.Fate) {
	kind := crash.Client
	if fate.State == crash.Tunnelling {
		kind = crash.Tunnel
	}
	a.tell(l, crash.Connection{
		Kind: kind, Peer: sock.Peer(l.fd).String(), Local: sock.Local(l.fd).String(), Request: fate.Request, State: fate.State, Outcome: crash.Resumed,
		ResponseByte: int64(fate.Sent), RequestByte: int64(fate.Taken),
	})
}

// lose gives a connection up that should have gone on.
func (a *adoption) lose(l *leftover, why string) {
	c := crash.Connection{Kind: crash.Client, State: crash.Nowhere, Outcome: crash.Lost, Why: why}
	if l.slot.Kind() == custody.Origin {
		c.Kind = crash.Origin
	}
	if l.fd >= 0 {
		c.Peer = sock.Peer(l.fd).String()
	}
	a.tell(l, c)
	a.gone(l)
	if l.fd >= 0 {
		sock.ResetOnClose(l.fd) // where the end of the stream ends a body, it must not look like that
	}
	if l.tag == custody.Exchange {
		a.dropLater(l, nil)
		return
	}
	a.drop(l)
}

// tell enters what became of a connection in the crash record, and counts it. The loops stand still.
func (a *adoption) tell(l *leftover, c crash.Connection) {
	a.told.Add(c)
	lost := c.Outcome == crash.Lost
	if lost {
		a.k.server.log.Error().Str("kind", string(c.Kind)).Str("peer", c.Peer).Str("reason", c.Why).Msg("connection lost")
	}
	if c.Kind == crash.Origin {
		return
	}
	row := a.workers[l.loop].row
	inProgress := l.tag != custody.Nothing && c.State != crash.Idle && c.State != crash.Closing
	switch {
	case lost && inProgress:
		row.Inc(stats.RequestsLost)
		row.Inc(stats.ConnectionsLost)
	case lost:
		row.Inc(stats.ConnectionsLost)
	case inProgress:
		row.Inc(stats.RequestsResumed)
		row.Inc(stats.ConnectionsAdopted)
	default:
		row.Inc(stats.ConnectionsAdopted)
	}
}

// stateKeys name the states in the log.
var stateKeys = map[crash.State]string{
	crash.Idle: "idle", crash.AcceptGap: "accepted", crash.PartialHead: "head", crash.Upload: "upload",
	crash.Waiting: "waiting", crash.PartlyAnswered: "reply", crash.Answered: "answered", crash.Tunnelling: "tunnel",
	crash.Closing: "closing",
}

// report says what has become of the connections: in the log, and in the crash record.
func (a *adoption) report(began time.Time) {
	s := a.k.server
	if a.k.before.PID == 0 {
		return
	}
	took := time.Since(began)
	if a.idles > 0 {
		a.told.Rest = append(a.told.Rest, crash.Count{State: crash.Idle, Outcome: crash.Resumed, N: a.idles})
	}
	e := s.log.Info().Dur("took", took).Int("lost", a.told.Total(crash.Lost))
	for state, key := range stateKeys {
		if n := a.resumed(state); n > 0 {
			e = e.Int(key, n)
		}
	}
	e.Msg("connections adopted")
	self := proc.Self()
	a.told.When = began
	a.told.Dead = crash.Process{Role: "server", PID: a.k.before.PID, StartTime: a.k.before.StartTime, Generation: a.k.before.Generation}
	a.told.Successor = crash.Process{Role: "server", PID: self.PID, StartTime: self.StartTime, Generation: s.generation}
	a.told.TookMS = crash.Milliseconds(took)
	go func() {
		a.judged()
		if err := (&crash.Store{Dir: s.root.Crashes(), Log: s.root.LogFile()}).WriteAdoption(a.told); err != nil {
			s.log.Error().Err(err).Msg("crash record incomplete")
		}
	}()
}

// resumed counts the connections in a state that go on.
func (a *adoption) resumed(state crash.State) int {
	n := 0
	for _, c := range a.told.Connections {
		if c.State == state && c.Outcome == crash.Resumed {
			n++
		}
	}
	for _, c := range a.told.Rest {
		if c.State == state && c.Outcome == crash.Resumed {
			n += c.N
		}
	}
	return n
}
