package harness

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Status is what `trafficd ctl status --json` says.
type Status struct {
	Cop, Manager, Server ProcessStatus

	Text string // the whole answer
}

// ProcessStatus is one process in a Status.
type ProcessStatus struct {
	State      string `json:"state"` // starting, ready, draining, stopped
	PID        int    `json:"pid"`
	Generation int    `json:"generation"`
	Restarts   int    `json:"restarts"`
}

// parseStatus finds the object of each role, under its name at the top or one level below, or in
// a list by its field "role". Where exactly the answer has it is not the stories' concern.
func parseStatus(text string) (Status, error) {
	s := Status{Text: text}
	var top map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &top); err != nil {
		return s, fmt.Errorf("ctl status --json: %w in %q", err, text)
	}
	for role, into := range map[Role]*ProcessStatus{Cop: &s.Cop, Manager: &s.Manager, Server: &s.Server} {
		if !findStatus(top, role, into) {
			return s, fmt.Errorf("ctl status --json says nothing of the %s: %s", role, text)
		}
	}
	return s, nil
}

func findStatus(top map[string]json.RawMessage, role Role, into *ProcessStatus) bool {
	if raw, ok := top[string(role)]; ok && json.Unmarshal(raw, into) == nil {
		return true
	}
	for _, raw := range top {
		var inner map[string]json.RawMessage
		if json.Unmarshal(raw, &inner) == nil {
			if r, ok := inner[string(role)]; ok && json.Unmarshal(r, into) == nil {
				return true
			}
		}
		var list []struct {
			Role Role `json:"role"`
			ProcessStatus
		}
		if json.Unmarshal(raw, &list) == nil {
			for _, e := range list {
				if e.Role == role {
					*into = e.ProcessStatus
					return true
				}
			}
		}
	}
	return false
}

// Of is the part of one role.
func (s Status) Of(role Role) ProcessStatus {
	return map[Role]ProcessStatus{Cop: s.Cop, Manager: s.Manager, Server: s.Server}[role]
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
