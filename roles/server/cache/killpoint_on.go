//go:build killpoints

package cache

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// killAfter counts down at every kill point; the process kills itself when it
// reaches zero. It starts from the environment, so that a test can make its own
// child die at each store in turn. Zero or unset: never.
var killAfter atomic.Int64

func init() {
	n, err := strconv.ParseInt(os.Getenv("TRAFFICD_CACHE_KILL_AFTER"), 10, 64)
	if err == nil {
		killAfter.Store(n)
	}
}

// killpoint dies here by SIGKILL when its turn has come: no deferred call, no
// flush, exactly what the kernel does to a process that is killed between these
// two stores.
func killpoint() {
	if killAfter.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
