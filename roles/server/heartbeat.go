package server

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
)

// heartbeats answers cop on a socket of its own, which no limit for clients
// applies to. A probe passes through every event loop before it is answered, so
// the answer says of each that it turns.
type heartbeats struct {
	server *Server
	fd     int // listening
	watch  eventloop.Watch
	probes int // under way; owned by the first loop
}

// probeTime bounds how long a prober may take to ask.
const probeTime = 5 * time.Second

// maxProbes bounds the probes under way; there is one cop.
const maxProbes = 16

// listenHeartbeats takes the name of the socket over from a predecessor.
func (s *Server) listenHeartbeats() error {
	fd, err := runroot.Listen(s.root.ServerSocket(), runroot.Stream)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	h := &heartbeats{server: s, fd: fd}
	s.workers[0].run(func() {
		if err := s.workers[0].loop.Watch(&h.watch, fd, eventloop.Readable, h); err != nil {
			s.log.Error().Err(err).Msg("heartbeat listener")
		}
	})
	return nil
}

// HandleEvent implements eventloop.Handler: it accepts probes, on the first
// loop.
func (h *heartbeats) HandleEvent(*eventloop.Watch, eventloop.Event) {
	for {
		fd, _, errno := sock.Accept(h.fd)
		if errno != 0 {
			return
		}
		if h.probes == maxProbes {
			sock.Close(fd)
			continue
		}
		p := &probe{heartbeats: h, fd: fd, loop: h.server.workers[0].loop}
		p.limit.Init(p.loop, p)
		if p.loop.Watch(&p.watch, fd, eventloop.Readable|eventloop.Hangup, p) != nil {
			sock.Close(fd)
			continue
		}
		h.probes++
		p.limit.Reset(probeTime)
	}
}

// A probe is one heartbeat. Owned by the first loop, but for the time it
// travels.
type probe struct {
	heartbeats *heartbeats
	loop       *eventloop.Loop
	fd         int
	watch      eventloop.Watch
	limit      eventloop.Timer
	buf        [512]byte
	n          int
	req        http1.Request
	asked      bool
}

// HandleEvent implements eventloop.Handler: it reads the request.
func (p *probe) HandleEvent(*eventloop.Watch, eventloop.Event) {
	n, errno := sock.Recv(p.fd, p.buf[p.n:])
	if errno == sock.Again {
		return
	}
	if errno != 0 || n == 0 || p.asked {
		p.close()
		return
	}
	p.n += n
	err := p.req.Parse(p.buf[:p.n], nil)
	switch {
	case err == http1.ErrIncomplete && p.n < len(p.buf):
	case err != nil || !bytes.Equal(p.req.Path.In(p.buf[:p.n]), []byte(heartbeat.Path)):
		p.reply(http1.AppendError(nil, 404, nil, nil, true))
	default:
		p.asked = true
		p.visit(1)
	}
}

// visit sends the probe through loop i and all after it, and home.
func (p *probe) visit(i int) {
	if i >= len(p.heartbeats.server.workers) {
		p.loop.Post(p.answer)
		return
	}
	w := p.heartbeats.server.workers[i]
	w.loop.Post(func() { p.visit(i + 1) })
}

func (p *probe) answer() {
	if !p.watch.Active() {
		return // given up meanwhile
	}
	p.heartbeats.server.workers[0].row.Inc(stats.Heartbeats)
	p.reply(heartbeat.AppendResponse(nil, p.req.Method.String()))
}

// reply sends the answer, which a fresh socket has room for, and closes.
func (p *probe) reply(b []byte) {
	_, _ = sock.Send(p.fd, b)
	p.close()
}

// HandleTimer implements eventloop.TimerHandler.
func (p *probe) HandleTimer(*eventloop.Timer) { p.close() }

func (p *probe) close() {
	if !p.watch.Active() {
		return
	}
	p.heartbeats.probes--
	p.limit.Stop()
	p.loop.Forget(&p.watch)
	sock.Close(p.fd)
}
