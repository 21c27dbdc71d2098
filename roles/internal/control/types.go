package control

import (
	"time"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/program"
)

// Paths of version 1.
const (
	PathStatus       = "/v1/status"
	PathStats        = "/v1/stats"
	PathConfig       = "/v1/config"
	PathConfigCheck  = "/v1/config/check"
	PathConfigReload = "/v1/config/reload"
	PathRestart      = "/v1/restart"
	PathDrain        = "/v1/drain"
	PathStop         = "/v1/stop"
	PathLogReopen    = "/v1/log/reopen"
	PathCrashes      = "/v1/crashes" // and below it, one record each
	PathUpgrade      = "/v1/upgrade"
	PathCache        = "/v1/cache"
	PathCacheLookup  = "/v1/cache/lookup"
	PathCachePurge   = "/v1/cache/purge"
)

// Survival is what the deaths of servers have cost the clients, since the instance began.
type Survival struct {
	CrashesMasked   uint64 `json:"crashes_masked"`
	RequestsResumed uint64 `json:"requests_resumed"`
	RequestsLost    uint64 `json:"requests_lost"`
}

// Status is an instance at one instant.
type Status struct {
	*Survival // first of all; nil: nobody can tell

	RunRoot string `json:"run_root"`
	Phase   string `json:"phase"` // running, stopping

	Cop     Process `json:"cop"`
	Manager Process `json:"manager"`
	Server  Process `json:"server"` // the one that serves; while there is none, the one that starts

	OldServers []Process      `json:"old_servers"` // replaced, and finishing what they began
	NextServer *Process       `json:"next_server,omitempty"`
	Custody    string         `json:"custody"`           // what becomes of connections when the server dies
	Upgrade    *UpgradeReport `json:"upgrade,omitempty"` // the last one
	Traffic    Traffic        `json:"traffic"`
	Queue      Queue          `json:"queue"`
	Listeners  []Listener     `json:"listeners"`
	Autoconf   string         `json:"autoconf"` // address, or "off"
	Config     Config         `json:"config"`
	Trouble    []Trouble      `json:"trouble,omitempty"` // what does not work in the server that serves
	Alarms     []string       `json:"alarms"`            // what an operator must see to
}

// Trouble is something that does not work while everything else does.
type Trouble struct {
	What   string    `json:"what"`  // cache on disk, access log
	State  string    `json:"state"` // off, failing, not written
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Process is one process of a Status.
type Process struct {
	State         string    `json:"state"` // starting, standby, ready, draining, stopped
	PID           int       `json:"pid"`   // 0: none
	Generation    uint64    `json:"generation"`
	Started       time.Time `json:"started,omitzero"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Restarts      uint64    `json:"restarts"`         // processes of this role after the first
	Deaths        uint64    `json:"deaths"`           // of these, how many were not asked for
	Reason        string    `json:"reason,omitempty"` // of a server: why there is none, or if it is ready or draining no standby
	Retry         *Retry    `json:"retry,omitempty"`
}

// Retry is when, and why not yet, the next process is started.
type Retry struct {
	InSeconds    float64 `json:"in_seconds"`
	DelaySeconds float64 `json:"delay_seconds"`
	Attempt      int     `json:"attempt"`   // delays in a row
	LastExit     string  `json:"last_exit"` // how the last one ended
}

// Traffic is the sum over all servers the instance has had.
type Traffic struct {
	Connections      uint64  `json:"connections"` // open now
	ConnectionsTotal uint64  `json:"connections_total"`
	Requests         uint64  `json:"requests"`
	Hits             uint64  `json:"hits"`
	Misses           uint64  `json:"misses"`
	HitRatio         float64 `json:"hit_ratio"`    // 0 to 1; 0 if there was nothing to look up
	OriginsDown      uint64  `json:"origins_down"` // servers of origins that are out
}

// Queue is the manager's own queue of accepted connections.
type Queue struct {
	Depth   int    `json:"depth"`
	Limit   int    `json:"limit"`
	State   string `json:"state"`   // why it does what it does, a queue.Reason
	Expired uint64 `json:"expired"` // answered 503 after waiting too long
}

// Listener is one address that clients connect to.
type Listener struct {
	Name    string `json:"name"`    // as configured
	Address string `json:"address"` // with the port that the kernel gave
	Queued  int    `json:"queued"`  // connections that wait in the kernel
	Backlog int    `json:"backlog"`
}

// Config is which configuration is in force.
type Config struct {
	Generation   uint64    `json:"generation"`
	File         string    `json:"file"` // "": none
	Published    time.Time `json:"published,omitzero"`
	NeedsRestart []string  `json:"needs_restart"` // settings published, but not in force in the running server
}

// Configuration is the configuration in force, in both forms.
type Configuration struct {
	Generation uint64         `json:"generation"`
	Config     *config.Config `json:"config"`
	Effective  string         `json:"effective"` // a configuration file that would have the same effect
}

// Verdict is what came, or would come, of a reload that was not refused. A refusal is an
// Error with the exit code of a bad configuration.
type Verdict struct {
	Generation uint64   `json:"generation"` // in force afterwards
	Changes    []Change `json:"changes"`
	File       string   `json:"file"`               // "": there is none
	Warnings   []string `json:"warnings,omitempty"` // of a check: what is ignored and was hardly meant to be
}

// Change is one setting that differs, as the operator would write it; of a long list, how many entries it has, and the
// first of those that differ.
type Change struct {
	Name         string   `json:"name"`
	Old          string   `json:"old"`
	New          string   `json:"new"`
	Entries      []string `json:"entries,omitempty"` // a line each
	NeedsRestart bool     `json:"needs_restart"`     // in force only with a new process
}

// Crashes are the records of deaths, the newest first.
type Crashes struct {
	Crashes []crash.Summary `json:"crashes"`
}

// Restart asks for a new process.
type Restart struct {
	Role string `json:"role"` // server (also ""), manager
	Now  bool   `json:"now"`  // the server: the old one is ended first, without a drain
}

// Restarted answers Restart. For the server the new one is ready; the manager that
// answers is about to go, and the next one has a higher generation.
type Restarted struct {
	PID        int    `json:"pid"`        // of the server that is ready, or of the manager that goes
	Generation uint64 `json:"generation"` // likewise

	OldPID        int    `json:"old_pid,omitempty"` // of the server that is gone for it; 0: it finishes what it began
	OldGeneration uint64 `json:"old_generation,omitempty"`
}

// Upgrade asks for another executable.
type Upgrade struct {
	Binary string `json:"binary"` // path; "": the one the instance was started from, as it is on disk now
}

// UpgradeReport is an upgrade as far as it has come. It stands until the next one begins.
type UpgradeReport = program.Report

// Drain asks the server to take leave of its clients, or to take that back.
type Drain struct {
	Undo bool `json:"undo"`
}

// Stop asks the whole instance to stop.
type Stop struct {
	Now bool `json:"now"` // without finishing what was begun
}

// Error is an answer that is not a success.
type Error struct {
	Text     string        `json:"text"`
	Exit     exitcode.Code `json:"exit"`               // what the command should exit with
	Problems []string      `json:"problems,omitempty"` // of a configuration, each with its position

	Status int `json:"-"` // of the HTTP response
}

// Error implements error: the problems, one a line, if there are any, since these
// are what an editor can jump to.
func (e *Error) Error() string {
	text := e.Text
	for _, p := range e.Problems {
		text += "\n" + p
	}
	return text
}

// ExitCode makes Error an exitcode.Coder.
func (e *Error) ExitCode() exitcode.Code { return e.Exit }

type errorBody struct {
	Error *Error `json:"error"`
}
