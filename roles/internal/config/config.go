package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// Config is one complete, checked configuration. It is immutable after Load; share it freely. Its JSON form is what the
// manager publishes to the server; durations are nanoseconds in it and sizes bytes.
type Config struct {
	Generation uint64 `json:"generation"`     // given by the manager, counts up from 1; 0: never published
	File       string `json:"file,omitempty"` // the file's name as the operator wrote it; "": there is none

	Listen        []string      `json:"listen"`            // canonical addresses, see ParseAddress
	Map           []Mapping     `json:"map"`               // in the order given; empty: the built-in page at /
	Origins       []OriginGroup `json:"origins,omitempty"` // what rules name as group:NAME
	Threads       int           `json:"threads"`           // event loops; 0: one per CPU
	ListenBacklog int           `json:"listen_backlog"`    // connections the kernel queues per listener
	ListenDefer   time.Duration `json:"listen_defer"`      // how long the kernel keeps a connection that is silent; 0: not at all

	Autoconf    Autoconf    `json:"autoconf"`
	Supervision Supervision `json:"supervision"`
	Health      Health      `json:"health"`
	Queue       Queue       `json:"queue"`
	Custody     Custody     `json:"custody"`
	Upgrade     Upgrade     `json:"upgrade"`
	Cache       Cache       `json:"cache"`
	Limits      Limits      `json:"limits"`
	Timeouts    Timeouts    `json:"timeouts"`
	Origin      Origin      `json:"origin"`
	Resolver    Resolver    `json:"resolver"`
	Proxy       Proxy       `json:"proxy"`
	Forward     Forward     `json:"forward"`
	Purge       Purge       `json:"purge"`
	Log         Log         `json:"log"`
	AccessLog   AccessLog   `json:"access_log"`

	Sources map[string]Source `json:"sources"` // by setting name; a setting that is absent has its default
}

// Autoconf is the port that browsers and health checks use. Listen is an address or Off.
type Autoconf struct {
	Listen  string `json:"listen"`
	PACFile string `json:"pac_file"` // absolute; "": proxy.pac is generated
}

// Off is the text that switches a listener off.
const Off = "off"

// Enabled reports whether there is an autoconfiguration port at all.
func (a Autoconf) Enabled() bool { return a.Listen != Off }

// Supervision says when a process is started, given up for the moment, and started again (design §2.2.4-7).
type Supervision struct {
	OnManagerDeath string        `json:"on_manager_death"` // Adopt or Restart
	StartDeadline  time.Duration `json:"start_deadline"`
	StopGrace      time.Duration `json:"stop_grace"`
	RestartBudget  int           `json:"restart_budget"` // restarts at once, per minute
	BackoffMax     time.Duration `json:"backoff_max"`
	FlapLimit      int           `json:"flap_limit"`
	FlapWindow     time.Duration `json:"flap_window"`
	FlapHold       time.Duration `json:"flap_hold"`
	SustainedReady time.Duration `json:"sustained_ready"`
}

// Values of Supervision.OnManagerDeath.
const (
	Adopt   = "adopt"   // a new manager takes over the running server
	Restart = "restart" // the server is made dead first, as traffic_cop did it
)

// Health is the heartbeat and the kill gate (design §2.2.2-5).
type Health struct {
	Interval   time.Duration `json:"interval"`
	Timeout    time.Duration `json:"timeout"`
	Strikes    int           `json:"strikes"`
	Kill       string        `json:"kill"`        // KillNone, KillManager, KillServer, KillAll
	CoreSignal string        `json:"core_signal"` // "none", "QUIT", "ABRT"
	KillGrace  time.Duration `json:"kill_grace"`
}

// Values of Health.Kill: who may be killed for not answering.
const (
	KillNone    = "none"
	KillManager = "manager"
	KillServer  = "server"
	KillAll     = "all"
)

// Queue is the manager's own queue of accepted connections (design §5, Listeners).
type Queue struct {
	Limit       int           `json:"limit"` // connections
	MaxWait     time.Duration `json:"max_wait"`
	AcceptAfter time.Duration `json:"accept_after"`
	RetryAfter  time.Duration `json:"retry_after"` // whole seconds on the wire
}

// Custody is whether connections outlive the server that serves them (design §5).
type Custody struct {
	Enabled bool `json:"enabled"` // a standby and a keeper; false: a death breaks what the server had
}

// Upgrade is the change to another executable.
type Upgrade struct {
	Probation time.Duration `json:"probation"` // time for which the old executable stands by
}

// Cache is the store of responses. Sizes in bytes.
type Cache struct {
	Size          int64 `json:"size"`            // 0: no cache
	MaxObjectSize int64 `json:"max_object_size"` // 0: a quarter of Size

	DiskPath    string `json:"disk_path"`    // directory; "": below the run root or where the system keeps caches; Off: none
	DiskSize    int64  `json:"disk_size"`    // 0: nothing is kept on disk
	DiskThreads int    `json:"disk_threads"` // 0: four

	StoreCookies bool          `json:"store_cookies"`  // false: what has Set-Cookie only if it is public
	HeuristicMax time.Duration `json:"heuristic_max"`  // 0: no lifetime is guessed
	NegativeTTL  time.Duration `json:"negative_ttl"`   // 0: none
	StaleIfError time.Duration `json:"stale_if_error"` // 0: only if the response says so
	StatusHeader bool          `json:"status_header"`  // Cache-Status (RFC 9211)
	Partial      bool          `json:"partial"`
}

// MaxObject is the largest body stored, in bytes, with the default worked out.
func (c Cache) MaxObject() int64 {
	if c.MaxObjectSize != 0 {
		return c.MaxObjectSize
	}
	return c.Size / 4
}

// Limits bounds what one client can make the server hold. Sizes in bytes.
type Limits struct {
	RequestLine  int64 `json:"request_line"`
	HeaderSize   int64 `json:"header_size"`
	HeaderFields int   `json:"header_fields"`
	Connections  int   `json:"connections"` // 0: from RLIMIT_NOFILE
	BodyBuffer   int64 `json:"body_buffer"`
	PerClient    int   `json:"connections_per_client"` // 0: half of all, but for loopback
	MinBodyRate  int64 `json:"min_body_rate"`          // bytes a second; 0: none
	MinSendRate  int64 `json:"min_send_rate"`          // likewise
	Untaken      int64 `json:"untaken"`                // bytes of each event loop; 0: no limit
}

// Timeouts are all maximum times without the named progress.
type Timeouts struct {
	ClientHeader   time.Duration `json:"client_header"`
	ClientIdle     time.Duration `json:"client_idle"`
	ClientBody     time.Duration `json:"client_body"`
	ClientWrite    time.Duration `json:"client_write"`
	OriginConnect  time.Duration `json:"origin_connect"`
	OriginResponse time.Duration `json:"origin_response"`
	OriginIdle     time.Duration `json:"origin_idle"`
	OriginBody     time.Duration `json:"origin_body"`
	OriginTotal    time.Duration `json:"origin_total"` // 0: no limit
	TunnelIdle     time.Duration `json:"tunnel_idle"`
	Drain          time.Duration `json:"drain"`
}

// Origin is how origins are asked: the pools of connections to them, what is tried again, and when one is left alone
// for a while.
type Origin struct {
	MaxIdle        int           `json:"max_idle"`        // per server and loop
	ResumeAttempts int           `json:"resume_attempts"` // per response
	Attempts       int           `json:"attempts"`        // of sending one request, in all
	RetryBudget    int           `json:"retry_budget"`    // per cent of the requests to an origin
	FailThreshold  int           `json:"fail_threshold"`  // failures in a row; 0: never marked down
	DownTime       time.Duration `json:"down_time"`       // without requests, while others are up
	MaxConnections int           `json:"max_connections"` // per server; 0: unlimited
	MaxWaiting     int           `json:"max_waiting"`     // requests that wait for one, per server
	MaxWait        time.Duration `json:"max_wait"`        // for one
}

// Resolver bounds how long the answers of name servers are believed.
type Resolver struct {
	Servers []string      `json:"servers"` // addresses; none: those of the machine
	MinTTL  time.Duration `json:"min_ttl"`
	MaxTTL  time.Duration `json:"max_ttl"`
}

// Proxy is what the proxy says of itself and of its clients in messages.
type Proxy struct {
	ViaName      string `json:"via_name"`      // a token (RFC 9110 §7.6.3, pseudonym)
	PreserveHost bool   `json:"preserve_host"` // origins see the client's Host
}

// Purge is who may ask for purges by the method PURGE.
type Purge struct {
	Allow []netip.Prefix `json:"allow"` // clients; empty: nobody
}

// Forward is the proxy for hosts that no rule is for (RFC 9112 §3.2.2) and for CONNECT.
type Forward struct {
	Allow        []netip.Prefix `json:"allow"` // clients; empty: nobody
	To           []netip.Prefix `json:"to"`    // addresses beside the public ones
	Ports        []Ports        `json:"ports"`
	ConnectPorts []Ports        `json:"connect_ports"`
}

// Enabled tells whether there are clients that may use it.
func (f Forward) Enabled() bool { return len(f.Allow) > 0 }

// Log is what is written and how.
type Log struct {
	Level  string `json:"level"`
	Format string `json:"format"` // auto, json, human
}

// AccessLog is the log of requests.
type AccessLog struct {
	Path   string `json:"path"`   // absolute; "": there is none
	Format string `json:"format"` // squid, common, combined, json, custom
	Custom string `json:"custom"` // the line of the format custom, in the language of package logformat
}

// A Source says where a value was taken from.
type Source struct {
	From  From   `json:"from"`
	Where string `json:"where,omitempty"` // "trafficd.yaml:12:5", "TRAFFICD_THREADS", "--threads"
}

// String is "default", or the layer with the place.
func (s Source) String() string {
	if s.Where == "" {
		return string(s.From)
	}
	return string(s.From) + " " + s.Where
}

// From is a layer of the configuration.
type From string

// The layers, weakest first.
const (
	FromDefault From = "default"
	FromFile    From = "file"
	FromEnv     From = "environment"
	FromFlag    From = "flag"
)

// SourceOf says where the value of a setting came from; FromDefault for one that nothing set.
func (c *Config) SourceOf(name string) Source {
	if s, ok := c.Sources[name]; ok {
		return s
	}
	return Source{From: FromDefault}
}

// Value is the value of the setting as the operator would write it, "" for a name that is none.
func (c *Config) Value(name string) string {
	s := lookup(name)
	if s == nil {
		return ""
	}
	return s.format(c)
}

// WithGeneration returns a copy that carries the generation g. The lists are shared: both copies are immutable.
func (c *Config) WithGeneration(g uint64) *Config {
	n := *c
	n.Generation = g
	return &n
}

// Default is the configuration of an instance that was told nothing.
func Default() *Config {
	c := &Config{Sources: map[string]Source{}}
	for i := range table {
		s := &table[i]
		if ps := s.assign(c, s.defaults()); len(ps) != 0 {
			panic("config: default of " + s.Name + ": " + ps[0].Msg)
		}
	}
	return c
}

// Decode reads the JSON form of a Config and checks every value, so that a server does not run on a message that was
// damaged or that another version wrote. An unknown field is an error.
func Decode(b []byte) (*Config, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	c := &Config{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	return c, nil
}
