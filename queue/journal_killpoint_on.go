//go:build killpoints

package queue

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// killAt is the step to die at, -1 for any; killAfter counts down to it.
var (
	killAt    atomic.Int64
	killAfter atomic.Int64
)

func init() { ArmKill(os.Getenv("TRAFFICD_QUEUE_KILL")) }

// ArmKill says where to die: STEP:N is the N-th time that step STEP is passed, *:N
// the N-th step whichever it is. Anything else: nowhere.
func ArmKill(spec string) {
	step, n, _ := strings.Cut(spec, ":")
	killAt.Store(-1)
	if s, err := strconv.ParseInt(step, 10, 64); err == nil {
		killAt.Store(s)
	}
	count, _ := strconv.ParseInt(n, 10, 64)
	killAfter.Store(count)
}

// Killpoint dies here by SIGKILL when its turn has come: no deferred call, no
// flush, just what the kernel does to a process that is killed between two
// stores.
func Killpoint(s Step) {
	if at := killAt.Load(); at >= 0 && Step(at) != s {
		return
	}
	if killAfter.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}
