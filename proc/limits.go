package proc

import (
	"fmt"
	"syscall"
)

// RaiseNoFile raises the soft limit of open descriptors to the hard limit, for this process and those it starts, and returns it.
//
// Go does the first by itself but gives children the limit it found, for the sake of programs that use select(2); until the
// limit is set by syscall.Setrlimit, as here. (That of x/sys/unix does not count: package syscall would not know.)
func RaiseNoFile() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("get limit of open files: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("raise limit of open files to %d: %w", lim.Max, err)
	}
	return lim.Cur, nil
}
