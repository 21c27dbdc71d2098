package supervise

import (
	"strconv"
	"syscall"
)

// Class is what an exit status tells the supervisor to do.
type Class uint8

// The classes.
const (
	Retry     Class = iota // start it again, by the rules of Backoff
	Done                   // it was asked to stop and did
	Permanent              // starting it again cannot help: raise an alarm, stay controllable
)

// Status is how a process ended, as far as its supervisor can know.
type Status struct {
	Known  bool           // false for an adopted process: only its parent learns the status
	Code   int            // meaningful when Known and Signal is 0
	Signal syscall.Signal // 0: it exited by itself
}

func (s Status) String() string {
	switch {
	case !s.Known:
		return "unknown"
	case s.Signal != 0:
		return "signal " + strconv.Itoa(int(s.Signal)) + " (" + s.Signal.String() + ")"
	}
	return "exit " + strconv.Itoa(s.Code)
}

// The exit codes of sysexits(3) that a supervisor must not answer with a restart.
const (
	exitUsage      = 64 // EX_USAGE
	exitPermission = 77 // EX_NOPERM
	exitConfig     = 78 // EX_CONFIG
)

// Classify reads the supervisor's orders out of an exit status. A death by signal
// and an unknown status are retried: what killed the process came from outside.
func Classify(s Status) Class {
	if !s.Known || s.Signal != 0 {
		return Retry
	}
	switch s.Code {
	case 0:
		return Done
	case exitUsage, exitPermission, exitConfig:
		return Permanent
	}
	return Retry
}
