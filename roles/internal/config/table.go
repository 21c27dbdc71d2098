package config

import (
	"math"
	"slices"
	"time"
)

// A Setting is one row of the table.
type Setting struct {
	Name       string   // dotted; the part before the dot is the section in the file
	Kind       Kind     // how it is written
	Unit       string   // what a number counts; "" where the kind says it all
	Default    string   // as the operator would write it; "" for none
	Min, Max   int64    // inclusive, for numbers (bytes, nanoseconds); Max 0: no upper limit
	Zero       string   // what 0 means when 0 is allowed below Min; "" if it is not special
	Choices    []string // the words of a Choice
	Reloadable bool     // false: needs a new process
	Help       string   // one line

	field func(*Config) any // pointer to the field; *bool, *int, *int64, *time.Duration, *string, *[]string, *[]Mapping, *[]netip.Prefix, *[]Ports, *[]OriginGroup
}

// Settings returns a copy of the table, in the order of the reference.
func Settings() []Setting { return slices.Clone(table) }

const (
	ms   = int64(time.Millisecond)
	sec  = int64(time.Second)
	hour = int64(time.Hour)
	day  = 24 * hour
	kib  = int64(1) << 10
	mib  = int64(1) << 20
)

// table is the only list of settings there is.
var table = []Setting{
	{Name: "listen", Kind: Addresses, Default: "127.0.0.1:8080", Max: 64,
		Help:  "addresses that clients connect to",
		field: func(c *Config) any { return &c.Listen }},
	{Name: "map", Kind: Mappings, Max: 100_000, Reloadable: true,
		Help:  "what is fetched from where: a list of {prefix, origin, …}, ctl config describe map lists the keys; none: the built-in page at /, unless forward.allow is set",
		field: func(c *Config) any { return &c.Map }},
	{Name: "origins", Kind: Groups, Max: 1000, Reloadable: true,
		Help:  "groups of servers that rules name as group:NAME: a list of {name, servers, policy, retry_status, health}",
		field: func(c *Config) any { return &c.Origins }},
	{Name: "threads", Kind: Count, Unit: "event loops", Default: "0", Min: 1, Max: 64, Zero: "one per CPU",
		Help:  "event-loop threads of the server",
		field: func(c *Config) any { return &c.Threads }},
	{Name: "listen_backlog", Kind: Count, Unit: "connections", Default: "4096", Min: 1, Max: 1 << 20,
		Help:  "connections that the kernel queues per listener; the kernel caps it at net.core.somaxconn",
		field: func(c *Config) any { return &c.ListenBacklog }},
	{Name: "listen_defer", Kind: Duration, Default: "1s", Min: sec, Max: hour, Zero: "accepted at once",
		Help:  "how long the kernel keeps a connection that has sent nothing yet, in whole seconds",
		field: func(c *Config) any { return &c.ListenDefer }},

	{Name: "autoconf.listen", Kind: AddressOrOff, Default: "127.0.0.1:8083",
		Help:  "address of the autoconfiguration port (/proxy.pac, /wpad.dat, /synthetic.txt, /metrics)",
		field: func(c *Config) any { return &c.Autoconf.Listen }},
	{Name: "autoconf.pac_file", Kind: Path, Reloadable: true,
		Help:  "file served as /proxy.pac and /wpad.dat instead of the generated one",
		field: func(c *Config) any { return &c.Autoconf.PACFile }},

	{Name: "supervision.on_manager_death", Kind: Choice, Choices: []string{Adopt, Restart}, Default: Adopt, Reloadable: true,
		Help:  "what becomes of a running server when the manager dies",
		field: func(c *Config) any { return &c.Supervision.OnManagerDeath }},
	{Name: "supervision.start_deadline", Kind: Duration, Default: "30s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time a process has to become ready",
		field: func(c *Config) any { return &c.Supervision.StartDeadline }},
	{Name: "supervision.stop_grace", Kind: Duration, Default: "5s", Max: hour, Reloadable: true,
		Help:  "time between TERM and KILL when a process is asked to stop, after its drain",
		field: func(c *Config) any { return &c.Supervision.StopGrace }},
	{Name: "supervision.restart_budget", Kind: Count, Unit: "restarts a minute", Default: "30", Min: 1, Max: 6000, Reloadable: true,
		Help:  "restarts without delay of a process that had been ready and died by itself; 20 times as many if it was killed",
		field: func(c *Config) any { return &c.Supervision.RestartBudget }},
	{Name: "supervision.backoff_max", Kind: Duration, Default: "60s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "longest delay between two tries to start a process",
		field: func(c *Config) any { return &c.Supervision.BackoffMax }},
	{Name: "supervision.flap_limit", Kind: Count, Unit: "failed starts", Default: "3", Min: 1, Max: 1000, Reloadable: true,
		Help:  "failed starts of the manager within flap_window that begin a hold",
		field: func(c *Config) any { return &c.Supervision.FlapLimit }},
	{Name: "supervision.flap_window", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time within which failed starts are counted",
		field: func(c *Config) any { return &c.Supervision.FlapWindow }},
	{Name: "supervision.flap_hold", Kind: Duration, Default: "60s", Max: day, Reloadable: true,
		Help:  "time without a new try once the manager flaps",
		field: func(c *Config) any { return &c.Supervision.FlapHold }},
	{Name: "supervision.sustained_ready", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time a process must be ready before its delay is forgotten",
		field: func(c *Config) any { return &c.Supervision.SustainedReady }},

	{Name: "health.interval", Kind: Duration, Default: "2s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time between two heartbeats",
		field: func(c *Config) any { return &c.Health.Interval }},
	{Name: "health.timeout", Kind: Duration, Default: "4s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time a heartbeat may take in all",
		field: func(c *Config) any { return &c.Health.Timeout }},
	{Name: "health.strikes", Kind: Count, Unit: "failures in a row", Default: "2", Min: 1, Max: 100, Reloadable: true,
		Help:  "failed heartbeats in a row that let a process be killed",
		field: func(c *Config) any { return &c.Health.Strikes }},
	{Name: "health.kill", Kind: Choice, Choices: []string{KillNone, KillManager, KillServer, KillAll}, Default: KillAll, Reloadable: true,
		Help:  "which processes may be killed for failed heartbeats",
		field: func(c *Config) any { return &c.Health.Kill }},
	{Name: "health.core_signal", Kind: Choice, Choices: []string{"none", "QUIT", "ABRT"}, Default: "QUIT", Reloadable: true,
		Help:  "signal sent before KILL so that the process leaves its stacks behind",
		field: func(c *Config) any { return &c.Health.CoreSignal }},
	{Name: "health.kill_grace", Kind: Duration, Default: "2s", Max: hour, Reloadable: true,
		Help:  "time between the steps of a kill: TERM, core_signal, KILL",
		field: func(c *Config) any { return &c.Health.KillGrace }},

	{Name: "queue.limit", Kind: Count, Unit: "connections", Default: "1024", Min: 1, Max: 65536, Reloadable: true,
		Help:  "connections the manager holds while no server is ready",
		field: func(c *Config) any { return &c.Queue.Limit }},
	{Name: "queue.max_wait", Kind: Duration, Default: "10s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time a connection waits for a server before it is answered 503",
		field: func(c *Config) any { return &c.Queue.MaxWait }},
	{Name: "queue.accept_after", Kind: Duration, Default: "2s", Max: hour, Reloadable: true,
		Help:  "time without a ready server after which the manager accepts connections itself",
		field: func(c *Config) any { return &c.Queue.AcceptAfter }},
	{Name: "queue.retry_after", Kind: Duration, Default: "5s", Min: sec, Max: day, Reloadable: true,
		Help:  "Retry-After of a 503, in whole seconds",
		field: func(c *Config) any { return &c.Queue.RetryAfter }},

	{Name: "custody.enabled", Kind: Switch, Default: "true",
		Help:  "a standby takes the connections of a dead server over; false: they break, and no standby is kept",
		field: func(c *Config) any { return &c.Custody.Enabled }},
	{Name: "upgrade.probation", Kind: Duration, Default: "10s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time a process from a new executable has to live before the old executable is given up",
		field: func(c *Config) any { return &c.Upgrade.Probation }},

	{Name: "cache.size", Kind: Size, Unit: "bytes", Default: "256MiB", Min: 2 * mib, Max: 1 << 44, Zero: "no cache",
		Help:  "memory for stored responses",
		field: func(c *Config) any { return &c.Cache.Size }},
	{Name: "cache.max_object_size", Kind: Size, Unit: "bytes", Default: "0", Min: 1, Max: 1 << 44, Zero: "a quarter of cache.size", Reloadable: true,
		Help:  "largest response body that is stored",
		field: func(c *Config) any { return &c.Cache.MaxObjectSize }},
	{Name: "cache.disk_path", Kind: PathOrOff,
		Help:  "directory where responses outlive all processes, or off; none: cache in the run root, or in the system's directory for caches",
		field: func(c *Config) any { return &c.Cache.DiskPath }},
	{Name: "cache.disk_size", Kind: Size, Unit: "bytes", Default: "1GiB", Min: 4 * mib, Max: 1 << 46, Zero: "nothing is kept on disk",
		Help:  "size of the file there, which is made at once; a store of another size begins anew",
		field: func(c *Config) any { return &c.Cache.DiskSize }},
	{Name: "cache.disk_threads", Kind: Count, Unit: "threads", Default: "4", Min: 1, Max: 256, Zero: "4",
		Help:  "threads that read from there",
		field: func(c *Config) any { return &c.Cache.DiskThreads }},
	{Name: "cache.store_cookies", Kind: Switch, Default: "true", Reloadable: true,
		Help:  "responses with Set-Cookie are stored if they say how long they are fresh (RFC 9111 section 7.3); false: only if they say public",
		field: func(c *Config) any { return &c.Cache.StoreCookies }},
	{Name: "cache.heuristic_max", Kind: Duration, Default: "24h", Max: 366 * day, Zero: "nothing is guessed", Reloadable: true,
		Help:  "longest lifetime of a response that says none, guessed as a tenth of the time since its Last-Modified",
		field: func(c *Config) any { return &c.Cache.HeuristicMax }},
	{Name: "cache.negative_ttl", Kind: Duration, Default: "0s", Max: 366 * day, Zero: "not stored", Reloadable: true,
		Help:  "lifetime of a 404, a 410 or a 5xx that says none",
		field: func(c *Config) any { return &c.Cache.NegativeTTL }},
	{Name: "cache.stale_if_error", Kind: Duration, Default: "24h", Max: 366 * day, Zero: "only if the response says so", Reloadable: true,
		Help:  "time for which a stale response stands in for an origin that cannot be reached or answers 500, 502, 503 or 504",
		field: func(c *Config) any { return &c.Cache.StaleIfError }},
	{Name: "cache.status_header", Kind: Switch, Default: "true", Reloadable: true,
		Help:  "responses say in Cache-Status what the cache did (RFC 9211)",
		field: func(c *Config) any { return &c.Cache.StatusHeader }},
	{Name: "cache.partial", Kind: Switch, Default: "true", Reloadable: true,
		Help:  "parts of responses are stored, reused and completed; false: a range that is not stored is only passed on",
		field: func(c *Config) any { return &c.Cache.Partial }},

	{Name: "limits.request_line", Kind: Size, Unit: "bytes", Default: "8KiB", Min: 64, Max: mib, Reloadable: true,
		Help:  "longest request line; longer: 414",
		field: func(c *Config) any { return &c.Limits.RequestLine }},
	{Name: "limits.header_size", Kind: Size, Unit: "bytes", Default: "32KiB", Min: 512, Max: mib, Reloadable: true,
		Help:  "largest message head, request line included; larger: 431",
		field: func(c *Config) any { return &c.Limits.HeaderSize }},
	{Name: "limits.header_fields", Kind: Count, Unit: "fields", Default: "128", Min: 8, Max: 10_000, Reloadable: true,
		Help:  "most header fields in one message; more: 431",
		field: func(c *Config) any { return &c.Limits.HeaderFields }},
	{Name: "limits.connections", Kind: Count, Unit: "connections", Default: "0", Min: 1, Max: math.MaxInt32, Zero: "from RLIMIT_NOFILE", Reloadable: true,
		Help:  "most client connections at a time",
		field: func(c *Config) any { return &c.Limits.Connections }},
	{Name: "limits.connections_per_client", Kind: Count, Unit: "connections", Default: "0", Min: 1, Max: math.MaxInt32, Zero: "half of all; loopback is not counted", Reloadable: true,
		Help:  "most connections at a time of one client address (of IPv6: of one /64)",
		field: func(c *Config) any { return &c.Limits.PerClient }},
	{Name: "limits.min_body_rate", Kind: Size, Unit: "bytes a second", Default: "240", Min: 1, Max: 1 << 30, Zero: "any rate", Reloadable: true,
		Help:  "least rate of a request body, on average over timeouts.client_body of waiting for it",
		field: func(c *Config) any { return &c.Limits.MinBodyRate }},
	{Name: "limits.min_send_rate", Kind: Size, Unit: "bytes a second", Default: "240", Min: 1, Max: 1 << 30, Zero: "any rate", Reloadable: true,
		Help:  "least rate at which a client takes a response, on average over timeouts.client_write of waiting for it",
		field: func(c *Config) any { return &c.Limits.MinSendRate }},
	{Name: "limits.untaken", Kind: Size, Unit: "bytes", Default: "64MiB", Min: 64 * kib, Max: 1 << 40, Zero: "no limit", Reloadable: true,
		Help:  "bytes of responses that may lie in the kernel, untaken by clients that are waited for, before every client is given little at a time",
		field: func(c *Config) any { return &c.Limits.Untaken }},
	{Name: "limits.body_buffer", Kind: Size, Unit: "bytes", Default: "64KiB", Min: 4 * kib, Max: 64 * mib, Reloadable: true,
		Help:  "most bytes of a body held for one connection before its sender is made to wait",
		field: func(c *Config) any { return &c.Limits.BodyBuffer }},

	{Name: "timeouts.client_header", Kind: Duration, Default: "30s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time a client has to send a complete request head",
		field: func(c *Config) any { return &c.Timeouts.ClientHeader }},
	{Name: "timeouts.client_idle", Kind: Duration, Default: "120s", Min: 10 * ms, Max: 30 * day, Reloadable: true,
		Help:  "time a client connection may be idle between requests",
		field: func(c *Config) any { return &c.Timeouts.ClientIdle }},
	{Name: "timeouts.client_body", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time a client may keep a request body waited for, all waits since it was last up to limits.min_body_rate together",
		field: func(c *Config) any { return &c.Timeouts.ClientBody }},
	{Name: "timeouts.client_write", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time a client may keep a response waiting to be taken, all waits since it was last up to limits.min_send_rate together",
		field: func(c *Config) any { return &c.Timeouts.ClientWrite }},
	{Name: "timeouts.origin_connect", Kind: Duration, Default: "10s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time to connect to an origin",
		field: func(c *Config) any { return &c.Timeouts.OriginConnect }},
	{Name: "timeouts.origin_response", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time an origin has to begin its answer once it has the request",
		field: func(c *Config) any { return &c.Timeouts.OriginResponse }},
	{Name: "timeouts.origin_idle", Kind: Duration, Default: "60s", Min: 10 * ms, Max: 30 * day, Reloadable: true,
		Help:  "time an unused origin connection is kept",
		field: func(c *Config) any { return &c.Timeouts.OriginIdle }},
	{Name: "timeouts.origin_body", Kind: Duration, Default: "60s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time without a byte of a response body from an origin, or of a request body taken by it",
		field: func(c *Config) any { return &c.Timeouts.OriginBody }},
	{Name: "timeouts.origin_total", Kind: Duration, Default: "0s", Min: 10 * ms, Max: 30 * day, Zero: "no limit", Reloadable: true,
		Help:  "time an origin has for one answer from beginning to end, however steadily it comes",
		field: func(c *Config) any { return &c.Timeouts.OriginTotal }},
	{Name: "timeouts.tunnel_idle", Kind: Duration, Default: "1h", Min: 10 * ms, Max: 30 * day, Reloadable: true,
		Help:  "time without a byte in either direction of a tunnel",
		field: func(c *Config) any { return &c.Timeouts.TunnelIdle }},
	{Name: "timeouts.drain", Kind: Duration, Default: "30s", Max: day, Reloadable: true,
		Help:  "time a server that stops has to finish what it began",
		field: func(c *Config) any { return &c.Timeouts.Drain }},

	{Name: "origin.max_idle", Kind: Count, Unit: "connections", Default: "128", Min: 1, Max: 65536, Zero: "none is kept", Reloadable: true,
		Help:  "unused connections kept per origin server and event loop",
		field: func(c *Config) any { return &c.Origin.MaxIdle }},
	{Name: "origin.resume_attempts", Kind: Count, Unit: "requests", Default: "2", Min: 1, Max: 200, Zero: "none", Reloadable: true,
		Help:  "requests for the rest of a response that breaks off, if it has a length and a strong ETag",
		field: func(c *Config) any { return &c.Origin.ResumeAttempts }},
	{Name: "origin.attempts", Kind: Count, Unit: "attempts", Default: "3", Min: 1, Max: 64, Reloadable: true,
		Help:  "most times one request is sent, the first included; only what is safe to repeat is",
		field: func(c *Config) any { return &c.Origin.Attempts }},
	{Name: "origin.retry_budget", Kind: Count, Unit: "per cent", Default: "20", Min: 1, Max: 100, Zero: "none", Reloadable: true,
		Help:  "repeated requests that an origin may get within 10 s, of those sent to it, beyond the first ten",
		field: func(c *Config) any { return &c.Origin.RetryBudget }},
	{Name: "origin.fail_threshold", Kind: Count, Unit: "failures in a row", Default: "5", Min: 1, Max: 1000, Zero: "never", Reloadable: true,
		Help:  "failures after which an origin server is marked down",
		field: func(c *Config) any { return &c.Origin.FailThreshold }},
	{Name: "origin.down_time", Kind: Duration, Default: "30s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "time a server that is marked down gets no request while others of its group are up",
		field: func(c *Config) any { return &c.Origin.DownTime }},
	{Name: "origin.max_connections", Kind: Count, Unit: "connections", Default: "0", Min: 1, Max: 1 << 20, Zero: "no limit", Reloadable: true,
		Help:  "connections to one origin server, idle ones included",
		field: func(c *Config) any { return &c.Origin.MaxConnections }},
	{Name: "origin.max_waiting", Kind: Count, Unit: "requests", Default: "1000", Max: 1 << 20, Reloadable: true,
		Help:  "requests that wait while a server has max_connections; more: 503",
		field: func(c *Config) any { return &c.Origin.MaxWaiting }},
	{Name: "origin.max_wait", Kind: Duration, Default: "5s", Min: 10 * ms, Max: hour, Reloadable: true,
		Help:  "time a request waits for a connection to a server that has max_connections, before it is answered 503",
		field: func(c *Config) any { return &c.Origin.MaxWait }},
	{Name: "resolver.servers", Kind: Addresses, Max: 16, Reloadable: true,
		Help:  "name servers that are asked in place of those in /etc/resolv.conf",
		field: func(c *Config) any { return &c.Resolver.Servers }},
	{Name: "resolver.min_ttl", Kind: Duration, Default: "1s", Min: 10 * ms, Max: day, Reloadable: true,
		Help:  "shortest time the answer of a name server is believed, whatever it says",
		field: func(c *Config) any { return &c.Resolver.MinTTL }},
	{Name: "resolver.max_ttl", Kind: Duration, Default: "1h", Min: 10 * ms, Max: 7 * day, Reloadable: true,
		Help:  "longest time the answer of a name server is believed, whatever it says",
		field: func(c *Config) any { return &c.Resolver.MaxTTL }},
	{Name: "proxy.via_name", Kind: Token, Default: "trafficd", Max: 64, Reloadable: true,
		Help:  "name of this proxy in Via fields",
		field: func(c *Config) any { return &c.Proxy.ViaName }},
	{Name: "proxy.preserve_host", Kind: Switch, Default: "true", Reloadable: true,
		Help:  "origins see the Host that the client asked for; false: their own name",
		field: func(c *Config) any { return &c.Proxy.PreserveHost }},

	{Name: "purge.allow", Kind: Networks, Default: "127.0.0.0/8,::1", Max: 1000, Reloadable: true,
		Help:  "clients that may remove responses from the cache by the method PURGE; others get 403",
		field: func(c *Config) any { return &c.Purge.Allow }},

	{Name: "forward.allow", Kind: Networks, Max: 1000, Reloadable: true,
		Help:  "clients that may use this proxy for hosts that no rule is for, and for CONNECT; none: nobody may, not even from loopback",
		field: func(c *Config) any { return &c.Forward.Allow }},
	{Name: "forward.to", Kind: Networks, Max: 1000, Reloadable: true,
		Help:  "addresses that are not public (loopback, private, link-local) and yet may be asked for so",
		field: func(c *Config) any { return &c.Forward.To }},
	{Name: "forward.ports", Kind: PortRanges, Default: "80,443,1025-65535", Max: 100, Reloadable: true,
		Help:  "ports of the hosts that may be asked for so",
		field: func(c *Config) any { return &c.Forward.Ports }},
	{Name: "forward.connect_ports", Kind: PortRanges, Default: "443", Max: 100, Reloadable: true,
		Help:  "ports that CONNECT may open a tunnel to",
		field: func(c *Config) any { return &c.Forward.ConnectPorts }},

	{Name: "log.level", Kind: Choice, Choices: []string{"trace", "debug", "info", "warn", "error"}, Default: "info", Reloadable: true,
		Help:  "least severe events that are logged",
		field: func(c *Config) any { return &c.Log.Level }},
	{Name: "log.format", Kind: Choice, Choices: []string{"auto", "json", "human"}, Default: "auto",
		Help:  "form of the log; auto: human on a terminal, JSON elsewhere",
		field: func(c *Config) any { return &c.Log.Format }},

	{Name: "access_log.path", Kind: Path, Reloadable: true,
		Help:  "file that gets a line for each request; none: there is no access log",
		field: func(c *Config) any { return &c.AccessLog.Path }},
	{Name: "access_log.format", Kind: Choice, Choices: []string{"squid", "common", "combined", "json", "custom"}, Default: "squid", Reloadable: true,
		Help:  "form of its lines",
		field: func(c *Config) any { return &c.AccessLog.Format }},
	{Name: "access_log.custom", Kind: LineFormat, Default: `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %{cache}x %D`, Reloadable: true,
		Help:  "the line of the format custom, in the language of Apache's LogFormat",
		field: func(c *Config) any { return &c.AccessLog.Custom }},
}

// byName finds rows; made from the table once, never written.
var byName = func() map[string]*Setting {
	m := make(map[string]*Setting, len(table))
	for i := range table {
		m[table[i].Name] = &table[i]
	}
	return m
}()

func lookup(name string) *Setting { return byName[name] }
