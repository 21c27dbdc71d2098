package queue

import (
	"fmt"
	"testing"
	"time"
)

// Every combination of what Decide looks at, against its rules written out.
func TestDecideEveryCell(t *testing.T) {
	p := Policy{AcceptAfter: 2 * time.Second, MaxWait: 10 * time.Second}
	empty, some, nearly := Backlog{0, 100}, Backlog{1, 100}, Backlog{75, 100}
	const short, long = time.Second, 2 * time.Second
	const young, old = 9 * time.Second, 10 * time.Second
	type cell struct {
		fifo   string // empty, young, old, full (young), full old
		kernel Backlog
		absent time.Duration
	}
	want := map[cell]string{
		{"empty", empty, short}:  "leave waiting",
		{"empty", empty, long}:   "leave waiting",
		{"empty", some, short}:   "leave waiting",
		{"empty", some, long}:    "accept no_server",
		{"empty", nearly, short}: "accept nearly_full",
		{"empty", nearly, long}:  "accept nearly_full",

		{"young", empty, short}:  "leave waiting",
		{"young", empty, long}:   "leave waiting",
		{"young", some, short}:   "leave waiting",
		{"young", some, long}:    "accept no_server",
		{"young", nearly, short}: "accept nearly_full",
		{"young", nearly, long}:  "accept nearly_full",

		{"full", empty, short}:  "leave waiting",
		{"full", empty, long}:   "leave waiting",
		{"full", some, short}:   "leave waiting",
		{"full", some, long}:    "leave overflow",
		{"full", nearly, short}: "leave overflow",
		{"full", nearly, long}:  "leave overflow",
	}
	for _, b := range []Backlog{empty, some, nearly} {
		for _, d := range []time.Duration{short, long} {
			want[cell{"old", b, d}] = "refuse expired"
			want[cell{"full old", b, d}] = "refuse expired"
		}
	}
	fifo := map[string]State{
		"empty":    {Len: 0, Limit: 5, Oldest: old}, // Oldest means nothing here
		"young":    {Len: 4, Limit: 5, Oldest: young},
		"old":      {Len: 4, Limit: 5, Oldest: old},
		"full":     {Len: 5, Limit: 5, Oldest: young},
		"full old": {Len: 5, Limit: 5, Oldest: old},
	}
	if len(want) != len(fifo)*3*2 {
		t.Fatalf("%d cells, want %d", len(want), len(fifo)*3*2)
	}
	for c, w := range want {
		s := fifo[c.fifo]
		s.Backlog, s.Without = c.kernel, c.absent
		action, reason := p.Decide(s)
		if got := fmt.Sprint(action, " ", reason); got != w {
			t.Errorf("%+v: %s, want %s", c, got, w)
		}
		s.ServerReady = true
		if action, reason := p.Decide(s); action != Stop || reason != ServerReady {
			t.Errorf("%+v with a ready server: %v %v, want stop", c, action, reason)
		}
	}
}

func TestAgeLimitIsKeptWhateverAcceptAfterSays(t *testing.T) {
	p := Policy{AcceptAfter: time.Hour, MaxWait: time.Second}
	s := State{Without: time.Second, Backlog: Backlog{1, 100}, Limit: 5}
	if a, r := p.Decide(s); a != Accept || r != NoServer {
		t.Errorf("%v %v, want accept no_server", a, r)
	}
}

func TestActionNames(t *testing.T) {
	for a, want := range map[Action]string{Leave: "leave", Accept: "accept", Refuse: "refuse", Stop: "stop", 99: "unknown"} {
		if a.String() != want {
			t.Errorf("%d is %q, want %q", a, a, want)
		}
	}
}
