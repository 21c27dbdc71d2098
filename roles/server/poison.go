package server

import (
	"context"
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
	"trafficd/roles/server/session"
	"trafficd/roles/server/sock"
)

// A suspect is a request of which more than one server may have died: each died while it worked
// on it. It waits until it is known why they died; everything else goes on meanwhile. One
// that has killed two fails alone; one that was there by accident when somebody killed the server goes on.
type suspect struct {
	server *Server
	worker *worker
	r      *session.Resumed
	starts []func() // of what it waits with: its connection to the origin
	peer   string

	generations []uint64 // that died while they worked on it

	judged chan struct{} // closed once poison is decided
	poison bool
}

// blame is the generation that died while it worked on the request of l; 0: it did not.
func (a *adoption) blame(l *leftover) uint64 {
	if l.cookie != a.accused[l.loop] {
		return 0
	}
	return a.k.before.Generation
}

// suspect reports a request that is to wait for its judgement; nil: it goes on.
func (a *adoption) suspect(l *leftover, r *session.Resumed) *suspect {
	generations := r.Suspect()
	if generations == nil {
		return nil
	}
	who := &suspect{
		server: a.k.server, worker: a.workers[l.loop], r: r, peer: sock.Peer(l.fd).String(),
		generations: generations, judged: make(chan struct{}),
	}
	a.suspects = append(a.suspects, who)
	return who
}

// judged enters in the record what became of the suspects, once that is known.
func (a *adoption) judged() {
	for _, who := range a.suspects {
		<-who.judged
		if !who.poison {
			continue
		}
		for i := range a.told.Connections {
			if c := &a.told.Connections[i]; c.Peer == who.peer {
				c.Outcome, c.Why = crash.Refused, "its request has killed servers before"
			}
		}
	}
}

// causePatience is how long the manager may take to learn why a server died.
const causePatience = 2 * time.Second

// judge finds out why the servers died, and goes on with the request or fails it.
func (p *suspect) judge() {
	ctx, cancel := context.WithTimeout(context.Background(), causePatience)
	defer cancel()
	var innocent []uint64
	guilty := 0
	for _, g := range p.generations {
		switch fault, err := p.server.link.cause(ctx, g); {
		case err != nil, fault == supervise.FaultUnknown:
			// Nobody can say, as when the manager died as well: no proof, and no acquittal.
		case fault == supervise.FaultOwn, fault == supervise.FaultHang:
			guilty++
		default:
			innocent = append(innocent, g)
		}
	}
	p.poison = guilty > 1
	close(p.judged)
	if p.poison {
		p.server.log.Error().Str("peer", p.peer).Str("request", p.r.Fate.Request).Uints64("generations", p.generations).
			Msg("request has killed servers, and fails")
	}
	p.worker.loop.Post(func() {
		if p.poison {
			p.worker.row.Inc(stats.RequestsLost)
			p.r.Condemn()
		} else {
			p.r.Acquit(innocent)
			p.r.Start() // before its origin's connection, whose response it might miss
		}
		for _, start := range p.starts {
			start()
		}
	})
}
