package server

import (
	"context"
	"time"

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
	if r.Suspect() == nil {
		return nil
	}
	who := &suspect{server: a.k.server, worker: a.workers[l.loop], r: r, peer: sock.Peer(l.fd).String()}
	a.suspects = append(a.suspects, who)
	return who
}

// causePatience is how long the manager may take to learn why a server died.
const causePatience = 2 * time.Second

// judge finds out why the servers died, and goes on with the request or fails it.
func (p *suspect) judge() {
	ctx, cancel := context.WithTimeout(context.Background(), causePatience)
	defer cancel()
	generations := p.r.Suspect()
	var innocent []uint64
	guilty := 0
	for _, g := range generations {
		switch fault, err := p.server.link.cause(ctx, g); {
		case err != nil, fault == supervise.FaultUnknown:
			// Nobody can say. A third time will be one too many.
		case fault == supervise.FaultOwn, fault == supervise.FaultHang:
			guilty++
		default:
			innocent = append(innocent, g)
		}
	}
	poison := guilty > 1 || len(generations) > 2 && len(innocent) == 0
	if poison {
		p.server.log.Error().Str("peer", p.peer).Str("request", p.r.Fate.Request).Uints64("generations", generations).
			Msg("request has killed servers, and fails")
	}
	p.worker.loop.Post(func() {
		if poison {
			p.r.Condemn()
			return
		}
		p.r.Acquit(innocent)
		p.r.Start() // before its origin's connection, whose response it might miss
		for _, start := range p.starts {
			start()
		}
	})
}
