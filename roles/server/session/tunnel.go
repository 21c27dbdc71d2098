package session

import (
	"trafficd/roles/server/http1"
	"trafficd/roles/server/tunnel"
)

// openTunnel passes the origin's 101 on, or answers a CONNECT (RFC 9110 §9.3.6), and joins the two connections. What the
// client has sent behind its request belongs to the new protocol.
func (s *Session) openTunnel() {
	w := s.work
	ref, ok := s.host.Arena.GetLarge()
	if !ok {
		s.host.Stats.NoBuffers()
		s.abort()
		return
	}
	to, status, lines, early := w.txn.TakeTunnel()
	b := http1.AppendStatusLine(s.host.Arena.Bytes(ref)[:0], status)
	b = append(b, lines...)
	b = append(b, "\r\n"...)
	head := len(b)
	b = append(b, early...)
	if s.watch.Active() {
		if err := s.host.Loop.Remove(&s.watch); err != nil {
			panic("session: remove a watch: " + err.Error())
		}
	}
	slot, page := s.entry.Yield()
	client := tunnel.End{FD: s.fd, Slot: slot, Rx: s.rx, Tx: s.tx}
	s.fd = -1
	s.phase = phaseTunnel
	s.limit.Clear()
	s.host.Stats.TunnelOpened()
	var pending []byte
	if s.lo < s.hi {
		pending = s.host.Arena.Bytes(s.in)[s.lo:s.hi]
	}
	s.served++
	o := s.tunnelOptions()
	o.Keep = s.keepTale(status, head, slot)
	s.tun = tunnel.Join(o, client, tunnel.End{FD: to.FD, Slot: to.Slot, Rx: to.Rx, Tx: to.Tx}, b, pending)
	for _, r := range append(to.Pages, page, ref) {
		s.host.Arena.Put(r)
	}
	if s.phase != phaseTunnel {
		return
	}
	s.endWork()
	s.host.Arena.Put(s.in)
	s.in, s.lo, s.hi = 0, 0, 0
	s.tun.Start()
}

func (s *Session) tunnelOptions() tunnel.Options {
	return tunnel.Options{
		Loop: s.host.Loop, Arena: s.host.Arena, Book: s.host.Book,
		Idle: s.host.Limits.Tunnel, Closed: s.tunnelClosed, Ending: s.host.tunnelEnds,
	}
}

// tunnelClosed ends the session with its tunnel.
func (s *Session) tunnelClosed(sum tunnel.Summary) {
	s.host.Stats.TunnelClosed(sum)
	s.tun = nil
	s.close()
}
