package supervise

import "syscall"

// Fault says whose doing a death was: what killed the process, as far as its supervisor
// knows. It decides how soon the next is started, and whether a request that was being
// served may be blamed.
type Fault string

// The faults.
const (
	FaultUnknown Fault = "unknown" // nobody saw it
	FaultAsked   Fault = "asked"   // a stop, a replacement: the operator's doing
	FaultOutside Fault = "outside" // KILL from somebody else: an operator, the OOM killer
	FaultHang    Fault = "hang"    // the gate killed it: it did not answer and did not move
	FaultOwn     Fault = "own"     // it exited, or died of a signal that a program raises itself
)

// FaultOf judges a death. asked: its end was asked for. killed: the gate has killed it for its
// health, which here or elsewhere was decided. A status that is not known is that of a
// process that somebody else started: what it says nothing of is taken for outside.
func FaultOf(s Status, asked, killed bool) Fault {
	switch {
	case asked:
		return FaultAsked
	case killed:
		return FaultHang
	case !s.Known:
		return FaultUnknown
	case s.Signal == syscall.SIGKILL:
		return FaultOutside
	}
	return FaultOwn
}

// Outside reports whether a death says nothing against the process.
func (f Fault) Outside() bool { return f == FaultOutside || f == FaultUnknown }
