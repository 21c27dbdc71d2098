package server

import (
	"time"

	"trafficd/eventloop"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/session"
	"trafficd/roles/server/tunnel"
)

// clientCounters counts what the sessions of a loop do; its row is that loop's.
type clientCounters struct{ row *stats.Row }

func (c clientCounters) Request()            { c.row.Inc(stats.Requests) }
func (c clientCounters) Response(status int) { c.row.Response(status) }
func (c clientCounters) Received(n int)      { c.row.Add(stats.ClientBytesIn, uint64(n)) }
func (c clientCounters) Sent(n int)          { c.row.Add(stats.ClientBytesOut, uint64(n)) }
func (c clientCounters) Malformed()          { c.row.Inc(stats.ParseErrorsClient) }
func (c clientCounters) Aborted()            { c.row.Inc(stats.ClientAborts) }
func (c clientCounters) NoBuffers()          { c.row.Inc(stats.ClientRejected) }
func (c clientCounters) Evicted()            { c.row.Inc(stats.ClientEvicted) }

func (c clientCounters) Timeout(t session.Timeout) {
	c.row.Inc([...]stats.Metric{
		session.HeaderTimeout: stats.TimeoutClientHeader,
		session.IdleTimeout:   stats.TimeoutClientIdle,
		session.BodyTimeout:   stats.TimeoutClientBody,
		session.WriteTimeout:  stats.TimeoutClientWrite,
	}[t])
}

func (c clientCounters) TunnelOpened() {
	c.row.Inc(stats.Tunnels)
	c.row.Inc(stats.TunnelsCurrent)
}

func (c clientCounters) TunnelClosed(s tunnel.Summary) {
	c.row.Dec(stats.TunnelsCurrent)
	c.row.Add(stats.ClientBytesOut, uint64(s.ToClient))
	c.row.Add(stats.OriginBytesOut, uint64(s.ToOrigin))
	if s.TimedOut {
		c.row.Inc(stats.TimeoutTunnel)
	}
}

// originCounters counts what the origin pool of a loop does, and tells the log of
// origins that fail. Owned by the loop.
type originCounters struct {
	row  *stats.Row
	log  *logging.Log
	loop *eventloop.Loop

	muted  int   // failures since the last one that was logged
	unmute int64 // monotonic ns
}

// muteFor is how long failures are only counted after one has been logged: an
// origin that is down fails many requests a second, all in the same way.
const muteFor = int64(time.Second)

func (c *originCounters) Opened() {
	c.row.Inc(stats.OriginConnections)
	c.row.Inc(stats.OriginConnectionsCurrent)
}

func (c *originCounters) Reused()        { c.row.Inc(stats.OriginReused) }
func (c *originCounters) Closed()        { c.row.Dec(stats.OriginConnectionsCurrent) }
func (c *originCounters) Malformed()     { c.row.Inc(stats.ParseErrorsOrigin) }
func (c *originCounters) Sent(n int)     { c.row.Add(stats.OriginBytesOut, uint64(n)) }
func (c *originCounters) Received(n int) { c.row.Add(stats.OriginBytesIn, uint64(n)) }

func (c *originCounters) Busy() { c.row.Inc(stats.OriginBusy) }

func (c *originCounters) Failed(o *remap.Origin, s *parent.Server, f origin.Failure) {
	if f.Err == origin.ErrBody || f.Idle {
		return // the client's fault, or about to be tried again
	}
	if f.Begun {
		c.row.Inc(stats.OriginAborts)
	} else {
		c.row.Inc(stats.OriginFailures)
	}
	switch {
	case !f.Timeout:
	case !f.Connected:
		c.row.Inc(stats.TimeoutOriginConnect)
	case !f.Begun:
		c.row.Inc(stats.TimeoutOriginResponse)
	default:
		c.row.Inc(stats.TimeoutOriginBody)
	}
	if c.muted++; c.loop.Now() < c.unmute {
		return
	}
	server := ""
	if s != nil {
		server = s.Name()
	}
	c.log.Warn().Str("origin", o.Name).Str("server", server).Err(f.Err).Int("failures", c.muted).Msg("origin failed")
	c.muted, c.unmute = 0, c.loop.Now()+muteFor
}
