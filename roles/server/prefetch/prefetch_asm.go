//go:build amd64 || arm64

package prefetch

import "unsafe"

// Lines asks for the cache lines of the n bytes at p, one at least.
//
//go:noescape
func Lines(p unsafe.Pointer, n uintptr)
