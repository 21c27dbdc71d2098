package server

import "syscall"

// transientAcceptError reports whether an error of accept concerns the one
// connection only, which is gone, or a network error that was pending on it
// (accept(2), "Error handling").
func transientAcceptError(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENOPROTOOPT,
		syscall.EHOSTDOWN, syscall.ENONET, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH:
		return true
	}
	return false
}
