//go:build killpoints

package queue

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// killAt and killAfter come from the environment, so that a test can make its
// own child die at each step in turn: TRAFFICD_QUEUE_KILL=STEP:N is the N-th
// time step STEP is passed, *:N the N-th step whichever it is.
var (
	killAt    = killStep(-1)
	killAfter atomic.Int64
)

func init() {
	step, n, ok := strings.Cut(os.Getenv("TRAFFICD_QUEUE_KILL"), ":")
	if !ok {
		return
	}
	if s, err := strconv.Atoi(step); err == nil {
		killAt = killStep(s)
	}
	if count, err := strconv.ParseInt(n, 10, 64); err == nil {
		killAfter.Store(count)
	}
}

// killpoint dies here by SIGKILL when its turn has come: no deferred call, no
// flush, just what the kernel does to a process that is killed between two
// stores.
func killpoint(s killStep) {
	if killAt >= 0 && s != killAt {
		return
	}
	if killAfter.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}
