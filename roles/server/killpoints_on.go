//go:build killpoints

package server

import (
	"os"

	"trafficd/queue"
)

// armKillpoints takes the place to die at from the file that a test names, once for each file.
func armKillpoints() {
	name := os.Getenv("TRAFFICD_KILL_FILE")
	spec, err := os.ReadFile(name)
	if err != nil {
		return
	}
	if os.Remove(name) == nil {
		queue.ArmKill(string(spec))
	}
}
