package session

import (
	"trafficd/queue"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
)

// maxTurn bounds the bytes that one turn of a session writes, so that a fast
// reader of a large body does not keep the loop from the others.
const maxTurn = 1 << 20

// answer takes the reply as far as it goes. It reports whether the session may
// go on to something else.
func (s *Session) answer() bool {
	w := s.work
	if w.cut {
		s.abort()
		return false
	}
	if w.reply == nil {
		if w.txn.Tunnelled() {
			s.openTunnel()
			return false
		}
		if w.reply = w.txn.Reply(); w.reply == nil {
			return false
		}
		if !s.render() {
			s.abort()
			return false
		}
		s.note(custody.StepReply)
	}
	sent := 0
	for {
		n, all := s.gather()
		if n == 0 {
			return s.settled()
		}
		did, errno := sock.SendV(s.fd, w.iov[:n], all && w.close)
		if errno == sock.Again {
			s.awaitReader()
			return false
		}
		if errno != 0 {
			s.abort()
			return false
		}
		if w.down.running() {
			w.down.move(s.host.Loop.Now(), did, s.host.Limits.Write)
			if !w.down.running() {
				s.holds(0)
			}
		}
		queue.Killpoint(custody.StepSent)
		s.tx += uint64(did)
		s.host.Stats.Sent(did)
		s.consume(did)
		if sent += did; sent >= maxTurn {
			s.limit.Set(s.host.Limits.Write.Window)
			s.holds(int64(sock.Unsent(s.fd)))
			s.fit()
			s.anotherTurn()
			return false
		}
	}
}

// settled decides what follows when there is nothing to send now.
func (s *Session) settled() bool {
	w := s.work
	if w.finished() {
		s.nextRequest()
		return s.phase != phaseClosed
	}
	p, state := w.reply.Body.Bytes(w.off)
	switch {
	case len(p) > 0, state == origin.BodyEnd && w.open():
		return true // since we looked: another loop fills it
	case state == origin.BodyWait:
		s.awaitOthers()
		return false
	}
	// The body has failed, or ended short of its length. The client must not
	// take what it has for the whole (RFC 9112 §8).
	s.abort()
	return false
}

// finished reports whether the whole reply has been sent.
func (w *work) finished() bool {
	switch {
	case w.outLo < w.outHi || w.tail > 0:
		return false
	case w.reply.Body == nil:
		return true
	case w.chunked:
		return w.lastSent
	case w.end >= 0:
		return w.off == w.end
	}
	_, state := w.reply.Body.Bytes(w.off)
	return state == origin.BodyEnd
}

// open reports whether only the end of the body says how long it is.
func (w *work) open() bool { return w.chunked || w.untilClose }

var crlf = []byte("\r\n")

// gather fills the vector with what can be sent now and returns its length, and
// whether that is all that is left of the reply.
func (s *Session) gather() (n int, all bool) {
	w := s.work
	if w.chunked && w.outLo == w.outHi && w.off == w.end && w.tail == 0 {
		s.nextChunk()
	}
	if w.outLo < w.outHi {
		w.iov[0] = sock.Piece(s.host.Arena.Bytes(w.out)[w.outLo:w.outHi])
		n = 1
	}
	if w.reply.Body == nil {
		return n, true
	}
	off, room := w.off, maxTurn
	for n < len(w.iov)-1 && room > 0 && off != w.end {
		p, _ := w.reply.Body.Bytes(off)
		if w.end >= 0 && int64(len(p)) > w.end-off {
			p = p[:w.end-off]
		}
		if len(p) > room {
			p = p[:room]
		}
		if len(p) == 0 {
			break
		}
		w.iov[n] = sock.Piece(p)
		n++
		off += int64(len(p))
		room -= len(p)
	}
	if w.chunked && w.tail > 0 && off == w.end {
		w.iov[n] = sock.Piece(crlf[len(crlf)-w.tail:])
		n++
	}
	return n, off == w.end && (!w.chunked || w.lastSent)
}

// nextChunk makes a chunk of what the body has now, or the last chunk.
func (s *Session) nextChunk() {
	w := s.work
	if w.lastSent {
		return
	}
	p, state := w.reply.Body.Bytes(w.off)
	buf := s.host.Arena.Bytes(w.out)
	switch {
	case len(p) > 0:
		n := min(len(p), maxTurn)
		w.outLo, w.outHi = 0, len(http1.AppendChunkHeader(buf[:0], int64(n)))
		w.end = w.off + int64(n)
		w.tail = len(crlf)
	case state == origin.BodyEnd:
		w.outLo, w.outHi = 0, copy(buf, http1.LastChunk)
		w.lastSent = true
	default:
		return
	}
	w.outTx, w.from = s.tx, w.off
	s.note(custody.StepChunk)
}

// consume accounts for n bytes sent: first those of out, then of the body, then
// of the tail.
func (s *Session) consume(n int) {
	w := s.work
	k := min(n, w.outHi-w.outLo)
	w.outLo += k
	n -= k
	if n == 0 {
		return
	}
	k = n
	if w.end >= 0 {
		k = int(min(int64(n), w.end-w.off))
	}
	w.off += int64(k)
	w.tail -= n - k
	w.reply.Body.Release(w.off)
}

// render writes the head of the reply into a page. It reports whether there was
// one.
func (s *Session) render() bool {
	w, r := s.work, s.work.reply
	const framing = 512 // more than status line, Age, Via, framing and end take
	local, atHand := r.Body.(*transaction.Memory)
	size := len(r.Lines) + len(r.Extra) + framing
	if atHand {
		size += len(*local)
	}
	ref, ok := s.host.Arena.Get(size)
	if !ok {
		s.host.Stats.NoBuffers()
		return false
	}
	w.out = ref
	b := s.host.Arena.Bytes(ref)[:0]
	b = http1.AppendStatusLine(b, r.Status)
	b = append(b, r.Lines...)
	b = append(b, r.Extra...)
	if r.Age >= 0 {
		b = http1.AppendAge(b, r.Age)
	}
	if r.Local {
		b = append(b, s.host.Env.DateLine()...)
	} else {
		b = append(b, s.host.Env.ViaLine()...)
	}
	b = s.appendFraming(b)
	b = append(b, "\r\n"...)
	w.tale.first, w.tale.headLen, w.tale.offset = s.tx, uint32(len(b)), r.Offset
	if atHand {
		b = append(b, *local...)
		r.Body = nil
	}
	w.outLo, w.outHi, w.outTx = 0, len(b), s.tx
	w.off = r.Offset
	if r.Body == nil {
		w.off, w.end = 0, 0
	}
	w.from = w.off
	w.rendered = true
	s.fit()
	return true
}

// appendFraming decides how the end of the body will be known (RFC 9112 §6) and
// whether the connection goes on.
func (s *Session) appendFraming(b []byte) []byte {
	w, r := s.work, s.work.reply
	if r.Local && !w.expect {
		s.discardBody()
	}
	// What is left of the request's body, or waits for our word to be sent,
	// would be taken for the next request.
	w.close = w.close || r.Local && !w.bodyConsumed()
	w.close = w.close || r.Close || s.host.Draining || w.expect
	w.end = -1
	switch {
	case r.Status == 204 || r.Status < 200:
	case r.Length >= 0:
		b = http1.AppendContentLength(b, r.Length)
		w.end = r.Offset + r.Length
	case r.Body == nil: // HEAD or 304, and no length is known
	case w.req.Minor >= 1:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		w.chunked, w.end = true, r.Offset
	default:
		w.close, w.untilClose = true, true
	}
	switch {
	case w.close:
		b = append(b, "Connection: close\r\n"...)
	case w.req.Minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return b
}

// Interim implements transaction.Client (RFC 9110 §15.2): an HTTP/1.0 client
// gets none, and neither does one whose final reply has begun.
func (s *Session) Interim(n, status int, lines []byte) {
	w := s.work
	if w.req.Minor == 0 || w.reply != nil || n <= w.interims {
		return
	}
	w.interims = n
	ref, ok := s.host.Arena.Get(len(lines) + 128)
	if !ok {
		return
	}
	b := http1.AppendStatusLine(s.host.Arena.Bytes(ref)[:0], status)
	b = append(b, lines...)
	b = append(b, "\r\n"...)
	s.sendNow(b)
	s.host.Arena.Put(ref)
}

// sendNow sends a few bytes ahead of the reply. A client that has no room for
// them has not read for a long time: it is given up, in the next turn, since
// whoever calls is at work for the transaction.
func (s *Session) sendNow(b []byte) {
	w := s.work
	if w.cut {
		return
	}
	s.noteAhead(b)
	n, errno := sock.Send(s.fd, b)
	if errno != 0 || n < len(b) {
		w.cut, w.failed = true, true
		s.anotherTurn()
		return
	}
	queue.Killpoint(custody.StepSent)
	s.tx += uint64(n)
	s.host.Stats.Sent(n)
	s.sentAhead()
}

// noteAhead notes what is about to be sent ahead of the reply.
func (s *Session) noteAhead(b []byte) {
	if !s.entry.Kept() {
		return
	}
	w, a := s.work, s.host.Arena
	ref, ok := a.Get(len(b))
	if !ok {
		return // a death in between tears the connection
	}
	w.out, w.outHi, w.outTx = ref, copy(a.Bytes(ref), b), s.tx
	s.note(custody.StepInterim)
}

// sentAhead notes that all of it is sent.
func (s *Session) sentAhead() {
	w := s.work
	if w.out == 0 {
		return
	}
	ref := w.out
	w.out, w.outHi = 0, 0
	s.note(custody.StepInterim)
	s.host.Arena.Put(ref)
}
