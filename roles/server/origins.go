package server

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/resolve"
)

// parentSettings are what a configuration says of all origin servers.
func parentSettings(c *config.Config) parent.Settings {
	return parent.Settings{
		FailThreshold: c.Origin.FailThreshold, DownTime: c.Origin.DownTime, RetryBudget: c.Origin.RetryBudget,
		MaxConnections: c.Origin.MaxConnections, MaxWaiting: c.Origin.MaxWaiting,
	}
}

// configureResolver takes over what a configuration says of names.
func (s *Server) configureResolver(c *config.Config) {
	var servers []netip.AddrPort
	for _, text := range c.Resolver.Servers {
		a, err := netip.ParseAddrPort(text)
		if err != nil { // of every address
			a = netip.MustParseAddrPort("127.0.0.1" + text)
		}
		servers = append(servers, a)
	}
	s.names.SetServers(servers)
	s.resolver.SetLimits(resolve.Limits{Min: c.Resolver.MinTTL, Max: c.Resolver.MaxTTL})
}

// groups are the groups of servers of a configuration.
func groups(c *config.Config) []parent.Spec {
	var specs []parent.Spec
	for _, g := range c.Origins {
		spec := parent.Spec{Name: g.Name, Policy: parent.Policies[g.Policy], RetryStatus: g.RetryStatus}
		for _, s := range g.Servers {
			spec.Servers = append(spec.Servers, parent.ServerSpec{Host: s.Host, Port: uint16(s.Port), Weight: s.Weight})
		}
		if h := g.Health; h.Path != "" {
			expect, err := config.ParseStatuses(h.Expect)
			if err != nil {
				panic("server: a checked configuration: " + err.Error())
			}
			spec.Check = &parent.Check{
				Path: h.Path, Host: h.Host, Interval: h.Interval, Timeout: h.Timeout,
				Expect: (*[600]bool)(expect), Rise: h.Rise, Fall: h.Fall,
			}
		}
		specs = append(specs, spec)
	}
	return specs
}

// serverChanged tells log and counters that an origin server has gone out or is back. What a request finds
// out in between is not worth a line for each. It is called from any goroutine.
func (s *Server) serverChanged(c parent.Change) {
	origin := "http://" + c.Server // as rules name it
	if c.Group != "" {
		origin = "group:" + c.Group
	}
	switch {
	case c.To == parent.Up:
		s.log.Info().Str("origin", origin).Str("server", c.Server).Str("was", c.From.String()).Msg("origin server up")
	case c.From == parent.Up || c.To == parent.Sick:
		s.workers[0].row.Inc(stats.OriginMarkedDown)
		s.log.Warn().Str("origin", origin).Str("server", c.Server).Str("state", c.To.String()).Str("reason", c.Why).
			Msg("origin server down")
	default:
		return
	}
	s.countDown()
}

// countDown sets the gauge of the servers that are out.
func (s *Server) countDown() {
	if len(s.workers) > 0 {
		s.workers[0].row.Set(stats.OriginServersDown, uint64(s.parents.CountDown()))
	}
}

// dialServer connects to an origin server for a health check. It blocks.
func (s *Server) dialServer(ctx context.Context, host string, port uint16) (net.Conn, error) {
	type answer struct {
		addrs []netip.Addr
		err   error
	}
	addrs, ok := s.resolver.Cached(host)
	if !ok {
		told := make(chan answer, 1)
		here := func(f func()) bool { f(); return true }
		s.resolver.Resolve(host, here, func(a []netip.Addr, err error) { told <- answer{a, err} })
		select {
		case a := <-told:
			if a.err != nil {
				return nil, a.err
			}
			addrs = a.addrs
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var d net.Dialer
	var failures []error
	for _, a := range addrs {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, resolve.OneLine(failures)
}
