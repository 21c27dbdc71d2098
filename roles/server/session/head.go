package session

import (
	"bytes"
	"errors"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
)

// receiveHead receives and, once a head is complete, begins its transaction.
func (s *Session) receiveHead() bool {
	if s.lo == s.hi {
		if !s.readable {
			return false
		}
		if !s.receive() {
			return false
		}
	}
	s.phase = phaseHead
	buf := s.host.Arena.Bytes(s.in)
	if s.scan == (http1.HeadScan{}) {
		// Nearly every head comes in one piece: parse first, and look for its
		// end only when that fails.
		if s.blanks < http1.MaxEmptyLines {
			s.skipEmptyLines(buf[s.lo:s.hi])
			if s.lo == s.hi {
				s.phase = phaseIdle // no request yet
				return true
			}
			if s.hi-s.lo == 1 && buf[s.lo] == '\r' {
				return s.receiveMore() // half an empty line
			}
		}
		if s.begin(buf[s.lo:s.hi]) {
			return true
		}
	}
	part := buf[s.lo:s.hi]
	end, err := s.scan.Request(part, &s.host.Limits.Head)
	if err == nil && end > 0 {
		s.begin(part)
		return true
	}
	if err != nil {
		s.refuse(err)
		return true
	}
	return s.receiveMore()
}

// skipEmptyLines goes past the empty lines that b begins with, as far as they may stand before a
// request, in however many pieces they come.
func (s *Session) skipEmptyLines(b []byte) {
	n := min(http1.SkipEmptyLines(b), 2*int(http1.MaxEmptyLines-s.blanks))
	s.lo += n
	s.blanks += uint8(n / 2)
}

// receiveMore receives what a head lacks. It reports whether something came.
func (s *Session) receiveMore() bool {
	if s.eof {
		s.close()
		return false
	}
	return s.readable && s.receive()
}

// receive takes what the kernel has into the page. It reports whether a byte or
// the end of the stream has come; without either the session waits, or is
// closed.
func (s *Session) receive() bool {
	if !s.makeRoom() {
		s.host.Stats.NoBuffers()
		s.close()
		return false
	}
	buf := s.host.Arena.Bytes(s.in)[s.hi:]
	n, errno := sock.Recv(s.fd, buf)
	switch {
	case errno == sock.Again:
		s.readable = false
		s.releaseIn()
		return false
	case errno != 0:
		s.close()
		return false
	case n == 0:
		s.eof, s.readable = true, false
		if s.phase == phaseIdle || s.lo == s.hi {
			s.close()
			return false
		}
		return true
	}
	if s.phase == phaseIdle {
		s.limit.Set(s.host.Limits.Header)
	}
	// A short read has emptied the socket, unless its end is still in it; what
	// comes later makes an event.
	s.readable = n == len(buf) || s.hangup
	queue.Killpoint(custody.StepReceived)
	s.hi += n
	s.rx += uint64(n)
	s.host.Stats.Received(n)
	return true
}

// makeRoom sees to it that the page has room for more. Bytes are never moved
// within a page, only to another one: what lies in a page stays where it is
// said to be until the page is given back.
func (s *Session) makeRoom() bool {
	a := s.host.Arena
	if s.in == 0 {
		ref, ok := a.GetSmall()
		if !ok {
			return false
		}
		s.count()
		s.in, s.lo, s.hi, s.base = ref, 0, 0, s.rx
		s.note(custody.StepHead)
		return true
	}
	buf := a.Bytes(s.in)
	if s.hi < len(buf) {
		return true
	}
	ref, ok := a.Get(max(2*(s.hi-s.lo), buffer.Small))
	if !ok {
		if ref, ok = a.GetLarge(); !ok {
			return false
		}
	}
	n := copy(a.Bytes(ref), buf[s.lo:s.hi])
	old := s.in
	s.base += uint64(s.lo)
	s.in, s.lo, s.hi = ref, 0, n
	s.note(custody.StepHead)
	a.Put(old)
	return n < len(a.Bytes(ref))
}

// releaseIn gives the page back if there is nothing in it.
func (s *Session) releaseIn() {
	if s.lo == s.hi && s.in != 0 {
		if s.phase != phaseLingering {
			s.entry.Rest(s.host.Book)
		}
		s.host.Arena.Put(s.in)
		s.in, s.lo, s.hi = 0, 0, 0
	}
}

// begin starts the transaction of the request that b begins with. It reports
// false when the head is not complete yet.
func (s *Session) begin(b []byte) bool {
	w := s.host.takeWork()
	err := w.req.Parse(b, &s.host.Limits.Head)
	if err == http1.ErrIncomplete {
		s.host.putWork(w)
		return false
	}
	s.work = w
	s.remember(s.host.Env.Loop.Wall())
	s.scan, s.blanks = http1.HeadScan{}, 0
	if err == nil && w.req.Chunked {
		err = framingFault(b[w.req.HeadLen:])
	}
	if err != nil {
		s.refuse(err)
		return true
	}
	s.phase = phaseAnswering
	s.limit.Clear()
	w.at = s.lo
	s.lo += w.req.HeadLen
	s.host.Stats.Request()
	s.startBody()
	w.txn.Begin(s.host.Env, s, &w.req, b[:w.req.HeadLen])
	return true
}

// startBody takes what the head says of the request's body, and of the connection.
func (s *Session) startBody() {
	w := s.work
	w.close = w.req.Close
	switch {
	case w.req.Chunked:
		w.framing = chunkedBody
	case w.req.ContentLength > 0:
		w.framing, w.left = lengthBody, w.req.ContentLength
	}
	w.expect = w.req.Expect100
}

// framingFault looks for a fault in what has come of a chunked body with the head: an origin that is not
// asked cannot answer before it has read that the request is none.
func framingFault(b []byte) error {
	var c http1.Chunked
	for {
		data, n, err := c.Next(b)
		if err != nil || data.Len == 0 && n == 0 || c.Done() {
			return err
		}
		b = b[n:]
	}
}

// refuse answers a request that cannot be understood and closes: where the next
// request would begin is not known.
func (s *Session) refuse(err error) {
	if s.work == nil {
		s.work = s.host.takeWork()
		s.remember(s.host.Env.Loop.Wall())
	}
	status, reason := 400, err.Error()
	var fault *http1.Error
	if errors.As(err, &fault) {
		status = fault.Status
	}
	s.phase = phaseAnswering
	s.limit.Clear()
	s.host.Stats.Malformed()
	s.work.framing = noBody
	s.work.close, s.work.refused = true, true
	s.work.at = s.lo
	head := s.host.Arena.Bytes(s.in)[s.lo:s.hi]
	s.work.txn.Refuse(s.host.Env, s, status, reason, bytes.HasPrefix(head, []byte("HEAD ")))
}
