package program

import (
	"encoding/json"
	"fmt"
	"time"
)

// The states of a Report.
const (
	Running = "running"
	Done    = "done"
	Failed  = "failed"
)

// Report is an upgrade as far as it has come. Cop, which outlives the others, keeps it and is the
// only one who writes; it passes it on to the manager, and through its own exec.
type Report struct {
	ID      string    `json:"id"` // tells it from any other of the instance
	State   string    `json:"state"`
	Binary  string    `json:"binary"`
	Version string    `json:"version"` // as the executable says it
	Began   time.Time `json:"began"`
	Steps   []Step    `json:"steps"` // in the order in which they ended
}

// Step is what became of one role.
type Step struct {
	Role   string `json:"role"`
	OK     bool   `json:"ok"`
	OldPID int    `json:"old_pid,omitempty"`
	PID    int    `json:"pid,omitempty"` // of the process that is there now
	Text   string `json:"text"`          // in words
}

// With returns a copy of r with one step more, in another state.
func (r Report) With(s Step, state string) Report {
	r.Steps = append(r.Steps[:len(r.Steps):len(r.Steps)], s)
	r.State = state
	return r
}

// Order asks for an upgrade to the executable at Path, whose ID is known since it was tried.
type Order struct {
	Path    string `json:"path"`
	ID      string `json:"id"`
	Version string `json:"version"`
}

// Text is the report in one line, for another program of ours.
func (r Report) Text() (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode upgrade report: %w", err)
	}
	return string(b), nil
}

// ParseReport reads Text.
func ParseReport(text string) (Report, error) {
	var r Report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Report{}, fmt.Errorf("decode upgrade report: %w", err)
	}
	return r, nil
}
