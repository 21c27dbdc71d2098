package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
)

// This file is the production side of the seams of gate.go: real processes, real locks.

// ErrUnidentified: a lock is held, and its holder is not a process that may be taken
// for ours: invisible from here, or a stranger that happens to lock the file.
var ErrUnidentified = errors.New("lock holder cannot be identified")

// Peer is a process together with who it was when it was met.
type Peer struct {
	*proc.Process
	Role    Role
	Known   Identity
	Child   bool // started here: its exit status will be known
	Vouched bool // see Target.Vouched
}

// Child makes a Peer of a process that was just started here from exe.
func Child(r Role, p *proc.Process, exe *proc.Executable) *Peer {
	return &Peer{Process: p, Role: r, Child: true, Known: Identity{
		PID: p.PID(), StartTime: p.Identity().StartTime, Exe: ExeText(exe.ID()),
	}}
}

// Meet adopts the process that holds the lock file at path. It returns nil without an
// error if nobody does, or a process that is dead already. The error matches
// [ErrUnidentified] if somebody does who must not be taken for a trafficd process.
//
// The order is what makes it safe: the kernel names the holder, a pidfd is opened for
// that PID, and the kernel is asked again. If it still names the same one, the pidfd
// cannot be for a stranger that got the PID in between. Start time and executable are
// asked through the pidfd's process after that. The text of the file is believed for
// one thing only: a holder that wrote its own PID and start time there runs trafficd's
// code, even if its executable is an older file than self.
func Meet(r Role, path string, self *proc.Executable) (*Peer, error) {
	owner, held, err := lockfile.Holder(path)
	if err != nil {
		return nil, fmt.Errorf("look for the %s: %w", r, err)
	}
	if !held {
		return nil, nil
	}
	if owner.PID == 0 || !owner.FromKernel {
		return nil, fmt.Errorf("%w: %s is held, and the kernel does not say by whom", ErrUnidentified, path)
	}
	if owner.PID == os.Getpid() {
		return nil, fmt.Errorf("%w: %s is held by this process", ErrUnidentified, path)
	}
	p, err := proc.Adopt(owner.PID, owner.StartTime)
	switch {
	case errors.Is(err, proc.ErrNoProcess), errors.Is(err, proc.ErrStranger):
		// It died after it was named, or whoever shares its descriptors still keeps the lock.
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("meet the %s: %w", r, err)
	}
	known, err := identifyHolder(p, path, owner, self)
	if err != nil || known.PID == 0 {
		p.Release()
		return nil, err
	}
	return &Peer{Process: p, Role: r, Known: known}, nil
}

// identifyHolder returns the identity of the adopted p, with PID 0 if it is no longer
// the holder.
func identifyHolder(p *proc.Process, path string, owner lockfile.Owner, self *proc.Executable) (Identity, error) {
	again, held, err := lockfile.Holder(path)
	if err != nil {
		return Identity{}, fmt.Errorf("look again at %s: %w", path, err)
	}
	if !held || again.PID != owner.PID {
		return Identity{}, nil
	}
	known := Identity{PID: p.PID(), StartTime: p.Identity().StartTime}
	exe, err := p.Exe()
	switch {
	case errors.Is(err, proc.ErrNoProc):
		return known, nil
	case errors.Is(err, proc.ErrNoProcess):
		return Identity{}, nil
	case errors.Is(err, os.ErrPermission):
		// Another user's process: we could not signal it anyhow.
		return Identity{}, fmt.Errorf("%w: %s is held by pid %d of another user", ErrUnidentified, path, p.PID())
	case err != nil:
		return Identity{}, fmt.Errorf("identify pid %d: %w", p.PID(), err)
	}
	if exe != self.ID() && owner.StartTime == 0 {
		return Identity{}, fmt.Errorf("%w: %s is held by pid %d, which does not run trafficd", ErrUnidentified, path, p.PID())
	}
	known.Exe = ExeText(exe)
	return known, nil
}

// Target is the peer as the gate wants it.
func (p *Peer) Target() Target {
	return Target{Role: p.Role, Known: p.Known, Child: p.Child, Vouched: p.Vouched, Terminate: p.terminate}
}

func (p *Peer) terminate(ctx context.Context, e Escalation) error {
	return p.Process.Terminate(ctx, proc.Escalation{
		Grace:      e.Grace,
		CoreSignal: syscall.Signal(e.Core),
		CoreGrace:  max(e.Grace, minCoreGrace),
		Warn:       e.Warn,
	})
}

// minCoreGrace is time enough to print the stacks of a large process.
const minCoreGrace = time.Second

// Status is how the peer ended, once Done is closed.
func (p *Peer) Status() Status {
	e := p.Exit()
	return Status{Known: e.Known, Code: e.Code, Signal: e.Signal}
}

// LiveEnv is the gate's door to the real world. lockPath names a role's lock file;
// report gets every decision.
func LiveEnv(lockPath func(Role) string, report func(Decision)) GateEnv {
	return GateEnv{
		Holder: func(r Role) (int, error) {
			owner, held, err := lockfile.Holder(lockPath(r))
			if err != nil || !held {
				return 0, err
			}
			if !owner.FromKernel {
				return 0, ErrUnidentified
			}
			return owner.PID, nil
		},
		Inspect: inspect,
		Report:  report,
		Now:     time.Now,
	}
}

// inspect returns who runs under pid; what /proc does not tell stays unknown.
func inspect(pid int) (Identity, error) {
	id := Identity{PID: pid}
	got, err := proc.Identify(pid)
	switch {
	case errors.Is(err, proc.ErrNoProc):
		return id, nil
	case errors.Is(err, proc.ErrNoProcess):
		return id, ErrGone
	case err != nil:
		return id, err
	}
	id.StartTime = got.StartTime
	// A zombie has no executable any more; its start time has identified it.
	if exe, err := proc.ExeOf(pid); err == nil {
		id.Exe = ExeText(exe)
	}
	return id, nil
}

// ExeText is a program file as Identity says it.
func ExeText(id proc.FileID) string { return fmt.Sprintf("%d:%d", id.Dev, id.Ino) }

// CoreSignal reads a value of health.core_signal; 0: none.
func CoreSignal(s string) int {
	switch s {
	case "QUIT":
		return int(syscall.SIGQUIT)
	case "ABRT":
		return int(syscall.SIGABRT)
	}
	return 0
}
