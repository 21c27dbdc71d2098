// Trafficd is an HTTP cache and proxy that survives its own crashes.
package main

import (
	"os"
	"runtime"

	"trafficd/proc"
	"trafficd/roles"
)

// A process's name is its main thread's name; see proc.SetName.
func init() { runtime.LockOSThread() }

func main() {
	proc.DaemonStage()
	os.Exit(roles.Main(os.Args))
}
