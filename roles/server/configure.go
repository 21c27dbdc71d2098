package server

import (
	"encoding/json"
	"reflect"
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/remap"
	"trafficd/roles/server/transaction"
)

// use makes a configuration the one that new requests begin with.
func (s *Server) use(c *config.Config) error {
	table, err := remap.New(rules(c))
	if err != nil {
		return exitcode.With(exitcode.Config, err)
	}
	s.configureResolver(c)
	s.parents.Configure(parentSettings(c), groups(c)) // before the rules that name them
	s.countDown()
	var status *transaction.Status
	if c.Cache.StatusHeader {
		status = transaction.NewStatus(c.Proxy.ViaName)
	}
	if c.Forward.Enabled() {
		s.machine.look()
	}
	s.settings.Store(&transaction.Settings{
		Remap: table, Via: c.Proxy.ViaName, PreserveHost: c.Proxy.PreserveHost, Forward: forward(c, s.machine.has), Attempts: c.Origin.Attempts,
		PurgeAllow: c.Purge.Allow,
		Freshness: freshness.Rules{
			StoreCookies: c.Cache.StoreCookies, HeuristicMax: int64(c.Cache.HeuristicMax),
			NegativeTTL: int64(c.Cache.NegativeTTL), StaleIfError: int64(c.Cache.StaleIfError),
		},
		Status:  status,
		Partial: c.Cache.Partial, ResumeAttempts: c.Origin.ResumeAttempts,
	})
	s.config.Store(c)
	return s.useAccessLog(c)
}

// rules are the remap rules of a configuration; without any there is the
// built-in page, unless it is a proxy for other hosts: the page would be for all of them.
func rules(c *config.Config) []remap.Spec {
	if len(c.Map) == 0 && !c.Forward.Enabled() {
		return []remap.Spec{{Prefix: "/", Origin: remap.Builtin}}
	}
	var rs []remap.Spec
	for _, m := range c.Map {
		rs = append(rs, remap.Spec{
			Type: m.Type, Prefix: m.Prefix, Path: m.Path, Origin: m.Origin, Policy: policy(&m.RuleOptions), Reverse: m.Reverse,
		})
	}
	return rs
}

// policy is what a rule wants otherwise; nil if it wants nothing.
func policy(o *config.RuleOptions) *remap.Policy {
	p := &remap.Policy{
		Cache: toggle(o.Cache), TTL: o.TTL, DefaultTTL: o.DefaultTTL, Heuristic: toggle(o.Heuristic),
		IgnoreClientNoCache: o.IgnoreClientNoCache, IgnoreQuery: o.IgnoreQuery,
		MaxObject: o.MaxObjectSize, StoreCookies: toggle(o.StoreCookies),
		StaleIfError: window(o.StaleIfError), StaleWhileRevalidate: window(o.StaleWhileRevalidate),
		ConnectTimeout: o.ConnectTimeout, ResponseTimeout: o.ResponseTimeout,
		PreserveHost: toggle(o.PreserveHost), Allow: o.Allow,
	}
	if reflect.ValueOf(*p).IsZero() {
		return nil
	}
	return p
}

func toggle(on *bool) remap.Toggle {
	switch {
	case on == nil:
		return remap.Unset
	case *on:
		return remap.On
	}
	return remap.Off
}

// window is a time of a rule, of which 0 means never.
func window(d *time.Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case *d == 0:
		return remap.Never
	}
	return *d
}

// reload takes a new configuration over on all loops. Requests under way go on
// with the old one.
func (s *Server) reload(body json.RawMessage) error {
	c, err := config.Decode(body)
	if err != nil {
		return err
	}
	if err := s.use(c); err != nil {
		return err
	}
	if err := s.log.SetLevel(c.Log.Level); err != nil {
		return err
	}
	s.each(func(w *worker) { w.configure(c) })
	s.log.Info().Uint64("config", c.Generation).Msg("reload")
	return nil
}

// connectionsPerLoop is a loop's share of what descriptors and configuration
// allow. A proxied connection takes two descriptors, and some are for other use.
func (s *Server) connectionsPerLoop(c *config.Config) int {
	n := c.Limits.Connections
	if n == 0 {
		n = descriptors()
	}
	return max(n/len(s.workers), 1)
}
