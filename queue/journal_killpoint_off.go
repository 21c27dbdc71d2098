//go:build !killpoints

package queue

// killpoint marks the gap behind one store of the journal protocol. It is
// empty, and inlined to nothing, unless the build tag killpoints is set.
func killpoint(killStep) {}
