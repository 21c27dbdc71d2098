package session

import (
	"trafficd/roles/server/http1"
	"trafficd/roles/server/tunnel"
)

// openTunnel passes the origin's 101 on and joins the two connections. What the
// client has sent behind its request belongs to the new protocol.
func (s *Session) openTunnel() {
	w := s.work
	ref, ok := s.host.Arena.GetLarge()
	if !ok {
		s.host.Stats.NoBuffers()
		s.abort()
		return
	}
	fd, lines, early := w.txn.TakeTunnel()
	b := http1.AppendStatusLine(s.host.Arena.Bytes(ref)[:0], 101)
	b = append(b, lines...)
	b = append(b, "\r\n"...)
	b = append(b, early...)
	if s.watch.Active() {
		if err := s.host.Loop.Remove(&s.watch); err != nil {
			panic("session: remove a watch: " + err.Error())
		}
	}
	client := s.fd
	s.fd = -1
	s.phase = phaseTunnel
	s.limit.Clear()
	s.host.Stats.TunnelOpened()
	var pending []byte
	if s.lo < s.hi {
		pending = s.host.Arena.Bytes(s.in)[s.lo:s.hi]
	}
	s.served++
	t, err := tunnel.Start(tunnel.Options{
		Loop: s.host.Loop, Arena: s.host.Arena, Idle: s.host.Limits.Tunnel, Closed: s.tunnelClosed,
	}, client, fd, b, pending)
	s.host.Arena.Put(ref)
	if err != nil {
		s.host.Stats.TunnelClosed(tunnel.Summary{})
		s.close()
		return
	}
	if s.phase == phaseTunnel {
		s.tun = t
		s.endWork()
		s.host.Arena.Put(s.in)
		s.in, s.lo, s.hi = 0, 0, 0
	}
}

// tunnelClosed ends the session with its tunnel.
func (s *Session) tunnelClosed(sum tunnel.Summary) {
	s.host.Stats.TunnelClosed(sum)
	s.tun = nil
	s.close()
}
