//go:build !killpoints

package server

// armKillpoints does nothing without the build tag killpoints.
func armKillpoints() {}
