//go:build !killpoints

package queue

// Killpoint marks a place between two stores, or between a store and a system
// call, for the tests that die there. It is empty, and inlined to nothing, unless
// the build tag killpoints is set.
func Killpoint(Step) {}

// ArmKill does nothing without the build tag killpoints.
func ArmKill(string) {}
