// Package sock is the few socket calls that event loops make, in one place.
//
// Every call here is on a non-blocking descriptor and therefore goes to the
// kernel by syscall.RawSyscall: it cannot block, so Go's scheduler need not be
// told, which saves about a tenth of the cost of a small request. EINTR is
// retried here and nowhere else. EAGAIN is not an error but a result: the
// calls return Again.
//
// It is not a connection type: descriptors are the caller's to count, to watch
// and to close.
package sock
