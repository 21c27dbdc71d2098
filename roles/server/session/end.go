package session

import (
	"time"

	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
)

// lingerTime is how long a connection that we have ended may take to be closed
// by the client, so that our last reply is not lost to a reset (RFC 9112 §9.6).
const lingerTime = 3 * time.Second

// nextRequest ends the transaction and goes on to the next request.
func (s *Session) nextRequest() {
	w := s.work
	s.host.Stats.Response(w.reply.Status)
	asked := w.req.Close && w.bodyConsumed()
	last := w.close || s.host.Draining || !w.bodyConsumed()
	s.log(false, !last)
	if w.pageLo < w.pageHi {
		// The next request has come behind this one's body.
		s.in, w.page = w.page, s.in
		s.lo, s.hi, s.base = w.pageLo, w.pageHi, w.pageBase
	}
	s.served++
	s.blamed, s.looked = blame{}, false
	if last {
		s.shutdown(asked)
		return
	}
	s.phase = phaseIdle
	if s.lo == s.hi {
		s.entry.Rest(s.host.Book)
		s.limit.Set(s.host.Limits.Idle)
	} else {
		s.note(custody.StepNext)
		s.limit.Set(s.host.Limits.Header)
	}
	s.endWork()
	s.releaseIn()
	if s.in == 0 {
		s.host.idled(s)
	}
}

// endWork gives back what only a request in progress needs, once nothing notes it
// any more.
func (s *Session) endWork() {
	w := s.work
	w.txn.End()
	s.holds(0)
	s.work = nil
	s.host.Arena.Put(w.out)
	s.host.Arena.Put(w.page)
	s.host.putWork(w)
}

// shutdown ends the connection after its last reply. asked says that the client
// wants that, too.
func (s *Session) shutdown(asked bool) {
	quiet := s.lo == s.hi && !s.readable
	if s.lo == s.hi && s.eof || quiet && asked {
		s.close()
		return
	}
	// Bytes of the client that we have not read would turn our close into a
	// reset, and the reset could overtake the reply (RFC 9112 §9.6).
	sock.ShutdownWrite(s.fd)
	s.phase = phaseLingering
	s.note(custody.StepLinger)
	s.endWork()
	s.limit.Set(lingerTime)
	s.lo = s.hi
	s.releaseIn()
}

// linger throws away what the client still sends until it closes, or the time
// for that is over.
func (s *Session) linger() {
	if !s.readable {
		return
	}
	if !s.makeRoom() {
		s.close()
		return
	}
	buf := s.host.Arena.Bytes(s.in)
	for range maxTurn / buffer.Small {
		n, errno := sock.Recv(s.fd, buf)
		if errno == sock.Again {
			s.readable = false
			s.releaseIn()
			return
		}
		if errno != 0 || n == 0 {
			s.close()
			return
		}
	}
	s.anotherTurn()
}

// abort ends everything at once: the client is gone or cannot be served on.
func (s *Session) abort() {
	if s.tun != nil {
		s.tun.Close() // and with it the session
		return
	}
	if s.work != nil {
		s.host.Stats.Aborted()
		if s.work.untilClose && s.fd >= 0 {
			// Only a reset tells this end from the end of the body.
			sock.ResetOnClose(s.fd)
		}
	}
	s.close()
}

// close closes the connection. No transaction is under way.
func (s *Session) close() {
	if s.phase == phaseClosed {
		return
	}
	if s.work != nil {
		s.log(true, false)
	}
	s.entry.Close(s.host.Book)
	if s.work != nil {
		s.endWork()
	}
	s.phase = phaseClosed
	s.limit.Stop()
	s.host.Arena.Put(s.in)
	s.in = 0
	s.host.sessions.remove(s)
	if s.among {
		s.among = false
		s.host.Left(s.peer.Addr())
	}
	if s.fd >= 0 {
		if s.watch.Active() {
			s.host.Loop.Forget(&s.watch)
		}
		sock.Close(s.fd)
	}
	s.host.putSession(s)
	s.host.Closed()
}

// expired is called when a time limit passes.
func (s *Session) expired() {
	switch s.phase {
	case phaseHead:
		s.host.Stats.Timeout(HeaderTimeout)
		s.refuse(&http1.Error{Status: 408, Reason: "the request took too long to arrive"})
		s.run()
	case phaseAnswering:
		if s.work.reply != nil {
			s.replyExpired()
			return
		}
		s.host.Stats.Timeout(BodyTimeout)
		s.giveUp()
		s.refuse(&http1.Error{Status: 408, Reason: "the request's body took too long to arrive"})
		s.run()
	default:
		if s.leaves() {
			s.host.Stats.Timeout(IdleTimeout)
			s.close()
		}
	}
}

// giveUp ends a transaction that has no reply; refuse follows. It is noted before: of a request with neither reply nor
// fetch a successor knows nothing, and would begin it anew.
func (s *Session) giveUp() {
	s.work.refused, s.work.close = true, true
	s.note(custody.StepReply)
	s.work.txn.End()
}

// replyExpired is called when a time limit passes while a reply is being sent.
func (s *Session) replyExpired() {
	w := s.work
	switch {
	case w.down.since != 0 && s.keepsUp():
		w.down.settle(s.host.Loop.Now())
		s.awaitReader()
		return
	case w.down.since != 0:
		s.host.Stats.Timeout(WriteTimeout)
		sock.ResetOnClose(s.fd) // what lies in the kernel is not offered any longer either
	default:
		s.host.Stats.Timeout(BodyTimeout)
	}
	s.abort()
}
