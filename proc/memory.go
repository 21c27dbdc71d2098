package proc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Values of si_code for SIGCHLD (sigaction(2)).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// childInfo is siginfo_t as waitid(2) fills it in. unix.Siginfo has the three numbers of the head; then comes a union that
// package unix leaves opaque, on 64-bit machines aligned to 8 bytes.
type childInfo struct {
	Signo, Errno, Code int32
	_                  [unionPad]byte
	pid                int32
	uid                uint32
	status             int32
	_                  [sizeofSiginfo - 12 - unionPad - 12]byte
}

const (
	sizeofSiginfo = int(unsafe.Sizeof(unix.Siginfo{}))
	unionPad      = int(unsafe.Sizeof(uintptr(0))) - 4
)

func (c *childInfo) siginfo() *unix.Siginfo { return (*unix.Siginfo)(unsafe.Pointer(c)) }

// cString copies a NUL-terminated string the kernel has put in this process's memory for good (getauxval(3)).
func cString(at uintptr) string {
	// The address is not one of Go's memory: it lies in the initial stack, which is never moved or freed.
	return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&at)))
}

// addr is for system calls that take an address as a plain number. The caller keeps p alive; the heap does not move.
func addr(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }
