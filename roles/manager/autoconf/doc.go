// Package autoconf serves the autoconfiguration port, where browsers learn which proxy to
// use and health checks whether the instance lives:
//
//	/proxy.pac, /wpad.dat   application/x-ns-proxy-autoconfig, generated or from a file
//	/synthetic.txt          the heartbeat page, if the manager's loop turns
//	/metrics                Prometheus text
//	/                       an index
//
// GET and HEAD only; the connection of anything else, and of what has content, ends with its
// answer. The port is bound to loopback unless the operator says otherwise, and whoever can
// reach it may read all of it: there is nothing here that a client of the proxy could not find
// out, except the counters.
//
// # The generated file
//
// It names every listener, in the order of the configuration, and then DIRECT: a browser
// tries one after the other, so a proxy that is away costs a delay and not the web. Where
// no client may use them as forward proxies it is DIRECT for everything: the listeners would
// refuse what a browser asked them for, or take it for a request to a site of theirs.
// Plain host names and loopback are DIRECT at once. For a listener on every address (a
// wildcard) the host is the one by which the client reached this port, since that is a name of
// ours that works where the client is.
//
//	h := autoconf.New(autoconf.Options{Pulse: loopTurns, Metrics: region.WritePrometheus})
//	h.Set(autoconf.Settings{Proxies: []netip.AddrPort{addr}, Forward: true})
//	http.Serve(listener, h)
//
// It binds nothing, and it answers only for the proxy it is part of.
package autoconf
