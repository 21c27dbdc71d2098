package manager

import (
	"trafficd/proc"
)

// program is an executable that servers are started from. Immutable.
type program struct {
	exe *proc.Executable // nil in a test
	id  string           // as supervise.Identity says it; "": not known
}

// nextProgram is what the next server is started from.
func (m *manager) nextProgram() *program { return m.program }
