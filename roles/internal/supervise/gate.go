package supervise

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// Role is a role that can be signalled.
type Role uint8

// The roles that have a supervisor.
const (
	Manager Role = iota
	Server
)

func (r Role) String() string {
	switch r {
	case Manager:
		return "manager"
	case Server:
		return "server"
	}
	return "role(" + strconv.Itoa(int(r)) + ")"
}

// Policy is the setting health.kill: who may be killed for bad health.
type Policy uint8

// The policies. The zero value forbids nothing, as the default of the setting.
const (
	KillAll Policy = iota
	KillManager
	KillServer
	KillNone
)

func (p Policy) String() string {
	switch p {
	case KillAll:
		return "all"
	case KillManager:
		return "manager"
	case KillServer:
		return "server"
	case KillNone:
		return "none"
	}
	return "policy(" + strconv.Itoa(int(p)) + ")"
}

// ParsePolicy reads a value of health.kill.
func ParsePolicy(s string) (Policy, error) {
	for _, p := range []Policy{KillAll, KillManager, KillServer, KillNone} {
		if p.String() == s {
			return p, nil
		}
	}
	return KillAll, fmt.Errorf("health.kill: %q is none of none, manager, server, all", s)
}

// Allows reports whether p lets r be killed for bad health.
func (p Policy) Allows(r Role) bool {
	switch p {
	case KillAll:
		return true
	case KillManager:
		return r == Manager
	case KillServer:
		return r == Server
	}
	return false
}

// Cause is why somebody is to be signalled.
type Cause uint8

// The causes. Policy speaks about health; an operator who asks for a stop has decided.
const (
	Unhealthy   Cause = iota // wedged: two strikes and no progress
	StartFailed              // start deadline passed
	Orphaned                 // "making sure server is dead" before the next manager
	Requested                // the operator, or a planned replacement, asked for it
	numCauses
)

func (c Cause) String() string {
	switch c {
	case Unhealthy:
		return "unhealthy"
	case StartFailed:
		return "start deadline passed"
	case Orphaned:
		return "orphaned"
	case Requested:
		return "requested"
	}
	return "cause(" + strconv.Itoa(int(c)) + ")"
}

// health reports whether the policy decides.
func (c Cause) health() bool { return c != Requested }

// Identity is what distinguishes a process from another one that got its PID later,
// or from a stranger that came to hold our lock. A field that the system does not
// tell (no /proc in the container) is empty and then decides nothing.
type Identity struct {
	PID       int
	StartTime uint64 // field 22 of /proc/PID/stat, in clock ticks since boot; 0: unknown
	Exe       string // what /proc/PID/exe is: device and inode, or path; "": unknown
}

// differs says in what b is certainly not a, or "" if nothing speaks against it.
func (a Identity) differs(b Identity) string {
	switch {
	case a.PID != b.PID:
		return fmt.Sprintf("pid %d is not %d", b.PID, a.PID)
	case a.StartTime != 0 && b.StartTime != 0 && a.StartTime != b.StartTime:
		return fmt.Sprintf("pid %d was recycled: started at %d, not %d", b.PID, b.StartTime, a.StartTime)
	case a.Exe != "" && b.Exe != "" && a.Exe != b.Exe:
		return fmt.Sprintf("pid %d runs %s, not %s", b.PID, b.Exe, a.Exe)
	}
	return ""
}

// Target is one process that might be signalled.
type Target struct {
	Role Role
	// Known is who the process was when the supervisor met it.
	Known Identity
	// Child: an unreaped child of ours. Its PID cannot be recycled before we reap it, and
	// it may die before it takes its lock, so the lock is not asked.
	Child bool
	// Vouched: the kernel named the process in another way than by its lock, as the peer of
	// a link it opened itself; so the lock, which a standby does not hold, is not asked.
	// Start time and executable are.
	Vouched bool
	// Terminate escalates: TERM, after grace the core signal if there is one, then KILL,
	// through a pidfd, and returns when the process is gone, or with ctx's error. It calls
	// warn about every 60 s while the process withstands KILL. Called from one goroutine.
	Terminate func(ctx context.Context, e Escalation) error
}

// Escalation is how a process is made to go.
type Escalation struct {
	Grace time.Duration // between TERM and the next step; 0: KILL at once
	Core  int           // signal that leaves a dump of the goroutines behind, sent after Grace; 0: none
	Warn  func(since time.Duration)
}

// Unread is e without the signals that a process reads, and stops as it was asked to: for a manager, and for a server with
// custody. What these have when they are killed passes to another. A signal they may read when they have come round, or have
// just taken over, and what is ended in order is ended for the clients, too.
func (e Escalation) Unread() Escalation {
	e.Grace = 0
	if e.Core == int(syscall.SIGQUIT) {
		e.Core = 0
	}
	return e
}

// Outcome is what the gate decided, and what came of it.
type Outcome uint8

// The outcomes.
const (
	Killed    Outcome = iota // signalled and gone
	Gone                     // nothing to do: it had died by itself
	Forbidden                // the policy said no: "would have killed"
	Stranger                 // it is not who we thought: nobody was signalled
	Unkilled                 // signalled, but still there when ctx ended
	numOutcomes
)

func (o Outcome) String() string {
	switch o {
	case Killed:
		return "killed"
	case Gone:
		return "gone"
	case Forbidden:
		return "forbidden"
	case Stranger:
		return "stranger"
	case Unkilled:
		return "unkilled"
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}

// ErrGone is what a Target's Terminate and GateEnv.Inspect return for a process that
// does not exist any more.
var ErrGone = errors.New("process is gone")

// GateEnv is the gate's door to the world. All functions are called from the
// goroutine that calls [Gate.Kill].
type GateEnv struct {
	// Holder asks the kernel who holds the role's lock file. 0: nobody.
	Holder func(Role) (pid int, err error)
	// Inspect returns who runs under pid now.
	Inspect func(pid int) (Identity, error)
	// Report counts and logs a decision: every one, also the forbidden.
	Report func(Decision)
	// Now is the clock.
	Now func() time.Time
}

// Decision is one use of the gate, for the log and for the counters.
type Decision struct {
	Role    Role
	PID     int
	Cause   Cause
	Reason  string // in the caller's words
	Outcome Outcome
	// Final is false for the note that the target is being signalled, and for each warning
	// about one that withstands KILL; Outcome means nothing then.
	Final bool
	Since time.Duration // since the first signal
	Err   error         // why a Stranger, or how Terminate failed
}

// Gate is the only place in trafficd from which a signal is sent.
//
// The original had five, two of which ignored the setting that was to stop them, and
// one that signalled whatever PID a file named. Every kill passes the same three
// questions here, in this order: is it allowed, is it still the process we mean, did
// it go. And each leaves a trace, the kill that was not allowed too: it is what an
// operator who switches killing off wants to see.
//
// Safe for use from several goroutines if env's functions are; one target should be
// in one goroutine's hands at a time.
type Gate struct {
	policy Policy
	env    GateEnv
}

// NewGate returns a gate that follows p.
func NewGate(p Policy, env GateEnv) *Gate { return &Gate{policy: p, env: env} }

// WithPolicy returns a gate with the same env that follows p.
func (g *Gate) WithPolicy(p Policy) *Gate { return &Gate{policy: p, env: g.env} }

// Kill makes t go, if it may. It blocks until t is gone or ctx ends, so callers whose
// loop must go on call it from a goroutine.
func (g *Gate) Kill(ctx context.Context, t Target, c Cause, reason string, e Escalation) Outcome {
	d := Decision{Role: t.Role, PID: t.Known.PID, Cause: c, Reason: reason}
	start := g.env.Now()
	done := func(o Outcome, err error) Outcome {
		d.Outcome, d.Err, d.Final, d.Since = o, err, true, g.env.Now().Sub(start)
		g.env.Report(d)
		return o
	}

	if c.health() && !g.policy.Allows(t.Role) {
		return done(Forbidden, nil)
	}
	if err := g.identify(t); err != nil {
		if errors.Is(err, ErrGone) {
			return done(Gone, nil)
		}
		return done(Stranger, err)
	}

	g.env.Report(d)
	e.Warn = func(since time.Duration) {
		w := d
		w.Since, w.Err = since, errUnkillable
		g.env.Report(w)
	}
	switch err := t.Terminate(ctx, e); {
	case err == nil:
		return done(Killed, nil)
	case errors.Is(err, ErrGone):
		return done(Gone, nil)
	default:
		return done(Unkilled, err)
	}
}

var errUnkillable = errors.New("process withstands KILL")

// identify makes sure that t is still the process the supervisor met.
func (g *Gate) identify(t Target) error {
	if !t.Child && !t.Vouched {
		pid, err := g.env.Holder(t.Role)
		if err != nil {
			return fmt.Errorf("ask who holds %s.lock: %w", t.Role, err)
		}
		if pid == 0 {
			// Its lock goes with it, so it is dying or dead. If it let the lock go on
			// purpose it is no longer in its role, and not ours to kill.
			return ErrGone
		}
		if pid != t.Known.PID {
			return fmt.Errorf("%s.lock is held by pid %d, not by %d", t.Role, pid, t.Known.PID)
		}
	}
	now, err := g.env.Inspect(t.Known.PID)
	if err != nil {
		if errors.Is(err, ErrGone) {
			return ErrGone
		}
		return fmt.Errorf("identify pid %d: %w", t.Known.PID, err)
	}
	if diff := t.Known.differs(now); diff != "" {
		return errors.New(diff)
	}
	return nil
}
