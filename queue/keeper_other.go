//go:build !amd64 && !arm64

package queue

import "syscall"

// cloneKeeper cannot make a keeper here: clone's arguments come in another
// order, and nobody has tried. The fallback is to hand over duplicates of each
// connection with Send.
func cloneKeeper(*keeperPage, *uint32) (uintptr, syscall.Errno) { return 0, syscall.ENOSYS }
