package harness

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Status is what `trafficd ctl status --json` says, as far as stories ask.
type Status struct {
	Cop     ProcessStatus `json:"cop"`
	Manager ProcessStatus `json:"manager"`
	Server  ProcessStatus `json:"server"`
	Next    ProcessStatus `json:"next_server"` // the standby; PID 0: there is none
	Custody string        `json:"custody"`

	Text string `json:"-"` // the whole answer
}

// ProcessStatus is one process in a Status.
type ProcessStatus struct {
	State      string `json:"state"` // starting, standby, ready, draining, stopped
	PID        int    `json:"pid"`
	Generation int    `json:"generation"`
	Restarts   int    `json:"restarts"`
	Retry      struct {
		InSeconds float64 `json:"in_seconds"` // until the next one is started
	} `json:"retry"`
}

func parseStatus(text string) (Status, error) {
	s := Status{Text: text}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("ctl status --json: %w in %q", err, text)
	}
	for _, role := range []Role{Cop, Manager, Server} {
		if s.Of(role).State == "" {
			return s, fmt.Errorf("ctl status --json says nothing of the %s: %s", role, text)
		}
	}
	return s, nil
}

// Of is the part of one role.
func (s Status) Of(role Role) ProcessStatus {
	return map[Role]ProcessStatus{Cop: s.Cop, Manager: s.Manager, Server: s.Server}[role]
}

// Standby waits until a server stands by, other than those named, and returns its PID.
func (p *Trafficd) Standby(others ...int) int {
	p.t.Helper()
	s := p.WaitStatus("a standby", func(s Status) bool {
		return s.Server.State == "ready" && s.Next.State == "standby" && s.Next.PID != s.Server.PID && !slices.Contains(others, s.Next.PID)
	})
	p.note()
	return s.Next.PID
}

// WaitServing waits until the manager knows of a ready server that is none of the others. A server answers clients some instants before
// that, and what an operator asks of the cache is refused until then.
func (p *Trafficd) WaitServing(others ...int) {
	p.t.Helper()
	p.WaitStatus("a server known as ready", func(s Status) bool {
		return s.Server.State == "ready" && !slices.Contains(others, s.Server.PID)
	})
}

// Status asks the instance and fails unless it answers.
func (p *Trafficd) Status() Status {
	p.t.Helper()
	s, err := p.status(p.t)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// WaitStatus waits until the status is as cond wants it; a refusal to answer counts as not yet.
func (p *Trafficd) WaitStatus(what string, cond func(Status) bool) Status {
	p.t.Helper()
	var s Status
	var err error
	if !poll(Patience, func() bool {
		s, err = p.status(p.t)
		return err == nil && cond(s)
	}) {
		p.t.Fatalf("status never showed %s; last: %s (%v)\n%s", what, s.Text, err, p.Log.Tail(0, 60))
	}
	return s
}

func (p *Trafficd) status(t testing.TB) (Status, error) {
	t.Helper()
	r := p.Ctl("status", "--json")
	if r.Code != 0 {
		return Status{}, fmt.Errorf("ctl status --json exited with %d: %s", r.Code, strings.TrimSpace(r.Stderr))
	}
	return parseStatus(r.Stdout)
}
