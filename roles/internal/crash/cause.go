package crash

import (
	"slices"
	"strings"
	"syscall"
)

// authority orders the causes by how much whoever states one must know: of two witnesses the better is believed.
var authority = []Cause{Gate, Asked, Fault, Outside, Exit, Unknown}

// better reports whether a is to be believed rather than b.
func better(a, b Cause) bool {
	rank := func(c Cause) int {
		if i := slices.Index(authority, c); i >= 0 {
			return i
		}
		return len(authority)
	}
	return rank(a) < rank(b)
}

// cause finds out why a process ended. What the instance did itself comes first; then what the runtime wrote, which is
// told apart from a dump that somebody asked for by a signal; then the exit status.
func (d *Death) cause() Cause {
	switch {
	case d.Gate != "":
		return Gate
	case d.Asked != "":
		return Asked
	}
	if c := causeOfStacks(d.Stacks); c != Unknown {
		return c
	}
	switch {
	case !d.Status.Known:
		return Unknown
	case d.Status.Signal == 0:
		return Exit
	case ownSignal(d.Status.Signal):
		return Fault
	}
	return Outside
}

// causeOfStacks reads what the runtime wrote. Before the goroutines of a panic stands "panic: …"; of a throw there are
// the goroutines only, as its message is printed to standard error before the runtime counts itself as crashing; of a
// signal "SIGABRT: abort", and on the next line the siginfo's code, which is 0 (SI_USER) or negative if a process sent
// it (sigaction(2)).
func causeOfStacks(stacks string) Cause {
	if stacks == "" {
		return Unknown
	}
	for line := range strings.Lines(stacks) {
		switch {
		case strings.HasPrefix(line, "goroutine "), strings.HasPrefix(line, "panic:"):
			return Fault
		case strings.HasPrefix(line, "SIGQUIT:"), strings.HasPrefix(line, "SIGABRT:"):
			return Outside
		case strings.HasPrefix(line, "PC="):
			if _, code, ok := strings.Cut(line, "sigcode="); ok && (strings.HasPrefix(code, "0") || strings.HasPrefix(code, "-")) {
				return Outside
			}
			return Fault
		}
	}
	return Fault
}

// lastWord is what the runtime said before the stacks: their first line, or of a throw what it printed in the log.
func lastWord(stacks string, log []string) string {
	line, _, _ := strings.Cut(stacks, "\n")
	if line != "" && !strings.HasPrefix(line, "goroutine ") {
		return line
	}
	for _, l := range slices.Backward(log) {
		if strings.HasPrefix(l, throwPrefix) {
			return l
		}
	}
	return ""
}

// ownSignal reports whether a signal is one that a process brings upon itself.
func ownSignal(sig int) bool {
	switch syscall.Signal(sig) {
	case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGSYS, syscall.SIGTRAP:
		return true
	}
	return false
}
