package session

import (
	"trafficd/queue"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/sock"
)

// RequestBody implements transaction.Client.
func (s *Session) RequestBody() origin.RequestBody {
	if s.work.framing == noBody {
		return nil
	}
	return s
}

// Next implements origin.RequestBody: bytes of the body, decoded. It receives
// from the client only when it is asked, so a slow origin slows the client down
// and memory stays what one page holds.
func (s *Session) Next() (p []byte, state origin.BodyState) {
	w := s.work
	for {
		if w.data > 0 {
			buf, lo, _ := s.bodyBytes()
			return buf[lo : lo+w.data], origin.BodyWait
		}
		switch {
		case w.framing == endedBody:
			return nil, origin.BodyEnd
		case w.failed:
			return nil, origin.BodyFailed
		}
		if !s.decode() && !s.receiveBody() {
			if w.failed {
				return nil, origin.BodyFailed
			}
			return nil, origin.BodyWait
		}
	}
}

// Advance implements origin.RequestBody.
func (s *Session) Advance(n int) {
	w := s.work
	w.data -= n
	w.taken += uint64(n)
	s.skipBody(n)
	if w.framing == lengthBody {
		if w.left -= int64(n); w.left == 0 {
			w.framing = endedBody
		}
	}
}

// Taken implements origin.RequestBody.
func (s *Session) Taken() uint64 { return s.work.taken }

// bodyBytes returns the page that the body is read from: what came behind the
// head first, then a page of its own, since the head must stay where it is.
func (s *Session) bodyBytes() (buf []byte, lo, hi int) {
	if s.lo < s.hi {
		return s.host.Arena.Bytes(s.in), s.lo, s.hi
	}
	w := s.work
	return s.host.Arena.Bytes(w.page), w.pageLo, w.pageHi
}

// skipBody moves past n bytes of the current page.
func (s *Session) skipBody(n int) {
	if s.lo < s.hi {
		s.lo += n
		return
	}
	s.work.pageLo += n
}

// decode finds the next run of body bytes in what has been received. It reports
// whether the state of the body has moved on.
func (s *Session) decode() bool {
	w := s.work
	buf, lo, hi := s.bodyBytes()
	if lo == hi {
		return false
	}
	w.expect = false // it has not waited, or no longer does
	if w.framing == lengthBody {
		w.data = int(min(int64(hi-lo), w.left))
		return true
	}
	data, n, err := w.chunks.Next(buf[lo:hi])
	if err != nil {
		w.failed, w.close = true, true
		s.host.Stats.Malformed()
		return true
	}
	if data.Len > 0 {
		// What lies before the data is framing; what lies behind it is looked
		// at when the data has been taken.
		s.skipBody(int(data.Off))
		w.data = int(data.Len)
		return true
	}
	s.skipBody(n)
	if w.chunks.Done() {
		w.framing = endedBody
	}
	return n > 0
}

// receiveBody receives more of the body. It reports whether anything came.
func (s *Session) receiveBody() bool {
	w := s.work
	if !s.readable {
		s.askForBody()
		return false
	}
	if !s.makeBodyRoom() {
		s.host.Stats.NoBuffers()
		w.failed, w.close = true, true
		return false
	}
	buf := s.host.Arena.Bytes(w.page)[w.pageHi:]
	n, errno := sock.Recv(s.fd, buf)
	if errno == sock.Again {
		s.readable = false
		s.askForBody()
		return false
	}
	if errno != 0 || n == 0 {
		s.readable, s.eof = false, true
		w.failed, w.close = true, true
		return false
	}
	queue.Killpoint(custody.StepReceived)
	s.readable = n == len(buf) || s.hangup
	w.pageHi += n
	s.rx += uint64(n)
	s.host.Stats.Received(n)
	w.up.move(s.host.Loop.Now(), n, s.host.Limits.Body)
	if w.down.since == 0 {
		s.limit.Clear()
	}
	return true
}

// makeBodyRoom sees to it that the body's page has room. What is not decoded yet,
// at most a part of a trailer line, is never moved within a page, only to
// another one. It reports false when there is none.
func (s *Session) makeBodyRoom() bool {
	w, a := s.work, s.host.Arena
	buf, lo, hi := s.bodyBytes()
	if w.page != 0 && s.lo == s.hi && hi < len(buf) {
		return true
	}
	old, ref := w.page, w.page
	if ref == 0 || lo < hi {
		var ok bool
		if ref, ok = a.GetLarge(); !ok {
			return false
		}
	} else {
		old = 0 // all of it is taken: used again from its beginning
	}
	rest := copy(a.Bytes(ref), buf[lo:hi])
	s.lo = s.hi
	w.page, w.pageLo, w.pageHi, w.pageBase = ref, 0, rest, s.rx-uint64(rest)
	s.note(custody.StepBody)
	a.Put(old)
	return true
}

// maxDiscard bounds how much of a body that nobody wants is read so that the
// connection can go on.
const maxDiscard = 64 << 10

// discardBody takes what has come of the body, up to a bound.
func (s *Session) discardBody() {
	for taken := 0; taken < maxDiscard && !s.work.bodyConsumed(); {
		p, _ := s.Next()
		if len(p) == 0 {
			return
		}
		s.Advance(len(p))
		s.work.dropped += uint64(len(p))
		taken += len(p)
	}
}

// askForBody sends 100 (Continue) to a client that waits for it, once somebody
// wants the body (RFC 9110 §10.1.1), and limits the time until it comes.
func (s *Session) askForBody() {
	w := s.work
	if w.down.since == 0 {
		s.awaitBody()
	}
	if !w.expect || w.reply != nil {
		return
	}
	w.expect = false
	s.sendNow([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}
