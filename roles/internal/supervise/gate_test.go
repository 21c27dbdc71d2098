package supervise

import (
	"context"
	"errors"
	"testing"
	"time"
)

// world is a scripted kernel with one process of interest.
type world struct {
	holder    int // of the role's lock
	holderErr error
	now       Identity // what Inspect answers
	inspect   error
	terminate error
	warnings  int // how often the process withstands KILL

	signalled bool
	grace     time.Duration
	reports   []Decision
}

func (w *world) gate(p Policy) *Gate {
	return NewGate(p, GateEnv{
		Holder:  func(Role) (int, error) { return w.holder, w.holderErr },
		Inspect: func(int) (Identity, error) { return w.now, w.inspect },
		Report:  func(d Decision) { w.reports = append(w.reports, d) },
		Now:     func() time.Time { return t0 },
	})
}

func (w *world) target(r Role, id Identity, child bool) Target {
	return Target{Role: r, Known: id, Child: child, Terminate: func(_ context.Context, e Escalation) error {
		w.signalled, w.grace = true, e.Grace
		for i := range w.warnings {
			e.Warn(time.Duration(i+1) * time.Minute)
		}
		return w.terminate
	}}
}

func (w *world) last() Decision { return w.reports[len(w.reports)-1] }

var known = Identity{PID: 42, StartTime: 7, Exe: "8:1"}

func TestGateDecides(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		w      world
		policy Policy
		cause  Cause
		child  bool
		want   Outcome
		signal bool
	}{
		"the holder of the lock":                 {world{holder: 42, now: known}, KillAll, Unhealthy, false, Killed, true},
		"policy none":                            {world{holder: 42, now: known}, KillNone, Unhealthy, false, Forbidden, false},
		"policy none, orphan":                    {world{holder: 42, now: known}, KillNone, Orphaned, false, Forbidden, false},
		"policy none, start deadline":            {world{holder: 42, now: known}, KillNone, StartFailed, false, Forbidden, false},
		"policy of the other role":               {world{holder: 42, now: known}, KillManager, Unhealthy, false, Forbidden, false},
		"the operator asks; policy is not asked": {world{holder: 42, now: known}, KillNone, Requested, false, Killed, true},
		"lock free":                              {world{now: known}, KillAll, Unhealthy, false, Gone, false},
		"lock held by another":                   {world{holder: 43, now: known}, KillAll, Unhealthy, false, Stranger, false},
		"lock cannot be asked":                   {world{holderErr: boom, now: known}, KillAll, Unhealthy, false, Stranger, false},
		"pid recycled":                           {world{holder: 42, now: Identity{42, 8, "8:1"}}, KillAll, Unhealthy, false, Stranger, false},
		"another executable":                     {world{holder: 42, now: Identity{42, 7, "8:2"}}, KillAll, Unhealthy, false, Stranger, false},
		"no /proc: the lock decides":             {world{holder: 42, now: Identity{PID: 42}}, KillAll, Unhealthy, false, Killed, true},
		"gone before we look":                    {world{holder: 42, inspect: ErrGone}, KillAll, Unhealthy, false, Gone, false},
		"cannot be inspected":                    {world{holder: 42, inspect: boom}, KillAll, Unhealthy, false, Stranger, false},
		"gone before the signal":                 {world{holder: 42, now: known, terminate: ErrGone}, KillAll, Unhealthy, false, Gone, true},
		"withstands until we give up":            {world{holder: 42, now: known, terminate: boom}, KillAll, Unhealthy, false, Unkilled, true},
		"our child has no lock yet":              {world{now: known}, KillAll, StartFailed, true, Killed, true},
		"our child, another lock holder":         {world{holder: 43, now: known}, KillAll, StartFailed, true, Killed, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &c.w
			got := w.gate(c.policy).Kill(t.Context(), w.target(Server, known, c.child), c.cause, "reason", Escalation{Grace: time.Second})
			if got != c.want {
				t.Errorf("got %v, want %v (%v)", got, c.want, w.last().Err)
			}
			if w.signalled != c.signal {
				t.Errorf("signalled: %v, want %v", w.signalled, c.signal)
			}
			d := w.last()
			if !d.Final || d.Outcome != c.want || d.PID != 42 || d.Cause != c.cause || d.Reason != "reason" {
				t.Errorf("reported %+v", d)
			}
			if got == Stranger && d.Err == nil {
				t.Error("a stranger is reported without saying why")
			}
		})
	}
}

// Every policy × role × cause, since a bypass of this table was the original's bug.
func TestPolicyTable(t *testing.T) {
	allowed := map[Policy][]Role{KillAll: {Manager, Server}, KillManager: {Manager}, KillServer: {Server}, KillNone: nil}
	for p, roles := range allowed {
		for _, r := range []Role{Manager, Server} {
			want := false
			for _, a := range roles {
				want = want || a == r
			}
			if got := p.Allows(r); got != want {
				t.Errorf("%v allows %v: %v, want %v", p, r, got, want)
			}
			for c := Cause(0); c < numCauses; c++ {
				w := &world{holder: 42, now: known}
				w.gate(p).Kill(t.Context(), w.target(r, known, false), c, "", Escalation{})
				if want := want || c == Requested; w.signalled != want {
					t.Errorf("%v, %v, %v: signalled %v, want %v", p, r, c, w.signalled, want)
				}
			}
		}
	}
}

func TestGateReportsTheSignalAndEveryWarning(t *testing.T) {
	w := &world{holder: 42, now: known, warnings: 2}
	w.gate(KillAll).Kill(t.Context(), w.target(Server, known, false), Unhealthy, "wedged", Escalation{Grace: 3 * time.Second})
	if len(w.reports) != 4 {
		t.Fatalf("%d reports, want signal, two warnings, outcome", len(w.reports))
	}
	for i, r := range w.reports {
		if r.Final != (i == 3) {
			t.Errorf("report %d: final %v", i, r.Final)
		}
	}
	if got := w.reports[2].Since; got != 2*time.Minute {
		t.Errorf("second warning after %v, want 2m", got)
	}
	if w.grace != 3*time.Second {
		t.Errorf("grace %v, want 3s", w.grace)
	}
}

func TestParsePolicy(t *testing.T) {
	for _, p := range []Policy{KillAll, KillManager, KillServer, KillNone} {
		got, err := ParsePolicy(p.String())
		if got != p || err != nil {
			t.Errorf("%v: got %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("both"); err == nil {
		t.Error("both: no error")
	}
}
