package supervise

import (
	"os"

	"trafficd/proc"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
)

// firstFile is the first descriptor of a child behind its standard ones.
const firstFile = 3

// Start starts a process of this instance from the executable that the caller runs, and
// gives it a copy of h. notify: the child will say when it is ready (proc.NotifyReady).
//
// The child leads a process group of its own, so that a terminal's interrupt reaches the
// first cop alone, which decides in what order the instance stops.
func Start(role string, flags config.Overrides, exe *proc.Executable, generation uint64, h *heritage.Set, notify bool) (*proc.Process, error) {
	files, passed, err := h.Export(firstFile)
	if err != nil {
		return nil, err
	}
	defer heritage.CloseFiles(files)
	argv0, args := Command(role, flags)
	return proc.Start(proc.Spec{
		Exe: exe, Argv0: argv0, Args: args,
		Env:    append(Environ(generation), passed),
		Stdout: os.Stdout, Stderr: os.Stderr, Files: files,
		Notify: notify, Setpgid: true,
	})
}
