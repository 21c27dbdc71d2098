//go:build !killpoints

package cache

// killpoint marks the gap between two stores into the shared mapping. It is
// empty, and inlined to nothing, unless the build tag killpoints is set.
func killpoint() {}
