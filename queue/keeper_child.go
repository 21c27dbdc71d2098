//go:build amd64 || arm64

package queue

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the keeper itself: the child of a clone without exec and
// without CLONE_VM, in what is left of a Go program after that. One thread, the
// one that cloned; no scheduler, no collector, all locks as they happened to
// be. So the rules of forkAndExecInChild (syscall/exec_linux.go) hold for
// everything that runs in the child, that is all functions but cloneKeeper:
//
//   - nosplit: growing the stack would call the runtime, which is why
//     BeforeFork has poisoned the guard;
//   - RawSyscall only: Syscall would tell the scheduler;
//   - no allocation, no write barrier: what is written lies in keeperPage,
//     which is not the heap's, and is written as numbers, also addresses;
//   - norace, nocheckptr: both instrument with calls into the runtime; and no
//     sync/atomic, whose functions are instrumented themselves with -race. A
//     plain load of a shared word behind a system call is a new load, since
//     the compiler knows nothing of what the call did to memory.
//
// AfterForkInChild, which os/exec's child calls, is not called here: it takes
// away the signal handlers and then unblocks signals. The keeper wants none
// delivered, ever, and keeps the full mask that BeforeFork set; a fault of its
// own kills it all the same (force_sig_fault resets the handler of a blocked
// signal).
//
// The calls are the same on amd64 and arm64 (ppoll, openat: arm64 has no older
// ones; flags and stack come first in both versions of clone). Others pass
// clone's arguments in another order.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// cloneKeeper makes the child and returns its PID, in the parent only. The kernel writes it to tid as well, before
// the child runs and before a signal can end the parent (CLONE_PARENT_SETTID, clone(2)). tid is not on the heap, nor
// on the stack.
//
//go:noinline
//go:norace
//go:nocheckptr
func cloneKeeper(p *keeperPage, tid *uint32) (pid uintptr, errno syscall.Errno) {
	runtimeBeforeFork()
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_FILES|unix.CLONE_PARENT_SETTID|uintptr(syscall.SIGCHLD), 0,
		uintptr(unsafe.Pointer(tid)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	keeperMain(p)
	return 0, 0 // not reached
}

//go:nosplit
//go:norace
//go:nocheckptr
func keeperMain(p *keeperPage) {
	syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&p.name[0])), 0, 0, 0, 0)
	syscall.RawSyscall(syscall.SYS_SETPGID, 0, 0, 0)
	if keeperAwait(p) {
		keeperCloseFirst(p)
		keeperAwaitThreads(p)
		keeperExit(keeperSendAll(p))
	}
	keeperExit(0)
}

//go:nosplit
//go:norace
func keeperExit(errno syscall.Errno) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno)&0x7f, 0, 0)
	}
}

// keeperOrphan tells whether the parent is gone for good. Late (behind the
// tear-down of its memory), but without any help of the parent.
//
//go:nosplit
//go:norace
func keeperOrphan(p *keeperPage) bool {
	ppid, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
	return int32(ppid) != p.parent
}

// keeperAwait waits for the parent's death (true) or for Stop (false).
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperAwait(p *keeperPage) bool {
	word := &p.own.nodes[WatcherKeeper].word
	for {
		seen := *word
		if seen == 0 {
			return false
		}
		if seen&futexOwnerDied != 0 || keeperOrphan(p) {
			return true
		}
		keeperFutexWait(p, word, seen, 1, 0)
	}
}

// keeperAwaitThreads waits until no thread that registered can issue another
// system call. Without any, until the process is gone.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperAwaitThreads(p *keeperPage) {
	const slice = 2_000_000 // ns
	for i := int32(0); i < p.nthreads; i++ {
		word := p.threads[i]
		for {
			seen := *word
			if seen == 0 || seen&futexOwnerDied != 0 || keeperOrphan(p) {
				break
			}
			keeperFutexWait(p, word, seen, 0, slice)
		}
	}
	for p.nthreads == 0 && !keeperOrphan(p) {
		keeperPoll(p, 0, slice)
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func keeperFutexWait(p *keeperPage, word *uint32, seen uint32, sec, nsec int64) {
	p.deadline.Sec, p.deadline.Nsec = sec, nsec
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(seen), uintptr(unsafe.Pointer(&p.deadline)), 0, 0)
}

// keeperPoll polls the first n of p.poll for at most nsec (< 0: for ever).
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperPoll(p *keeperPage, n int32, nsec int64) syscall.Errno {
	limit := uintptr(unsafe.Pointer(&p.deadline))
	p.deadline.Sec, p.deadline.Nsec = 0, nsec
	if nsec < 0 {
		limit = 0
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p.poll[0])), uintptr(n), limit, 0, 0, 0)
	return errno
}

//go:nosplit
//go:norace
//go:nocheckptr
func keeperFstat(p *keeperPage, fd int32) bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_FSTAT, uintptr(fd), uintptr(unsafe.Pointer(&p.stat)), 0)
	return errno == 0
}

//go:nosplit
//go:norace
//go:nocheckptr
func keeperCloseFirst(p *keeperPage) {
	for i := int32(0); i < p.nclose; i++ {
		f := &p.close[i]
		if keeperFstat(p, f.fd) && uint64(p.stat.Dev) == f.dev && p.stat.Ino == f.ino {
			syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(f.fd), 0, 0)
		}
	}
}

// keeperSendAll goes through the table and sends what is of a kind that was
// asked for.
//
// Which numbers are open is asked with poll, 1,024 at a time: a number that is
// not open gives POLLNVAL. /proc/self/fd would tell as well, where there is
// one, but makes an inode for each entry.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperSendAll(p *keeperPage) syscall.Errno {
	m := &p.message
	m.magic, m.generation, m.start, m.op = custodyMagic, p.generation, p.start, custodyDescriptors
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	m.pid = uint32(pid)
	if errno := keeperSendFirst(p); errno != 0 {
		return errno
	}
	for first := int32(0); first < p.limit; first += p.chunk {
		n := min(p.chunk, p.limit-first)
		for i := int32(0); i < n; i++ {
			p.poll[i].Fd, p.poll[i].Events, p.poll[i].Revents = first+i, 0, 0
		}
		if errno := keeperPoll(p, n, 0); errno != 0 {
			return errno
		}
		for i := int32(0); i < n; i++ {
			if p.poll[i].Revents&unix.POLLNVAL != 0 || keeperIsFirst(p, first+i) {
				continue
			}
			// keeperSend polls as well, but only slot 0, which is read by then
			// or, when i is 0, not needed again.
			if errno := keeperAdd(p, first+i); errno != 0 {
				return errno
			}
		}
	}
	if m.count > 0 {
		if errno := keeperSend(p); errno != 0 {
			return errno
		}
	}
	m.op = custodyEnd
	return keeperSend(p)
}

// keeperSendFirst sends what goes before all others, and the mark behind it.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperSendFirst(p *keeperPage) syscall.Errno {
	if p.nfirst == 0 {
		return 0
	}
	for fd := int32(0); fd < p.nfirst; fd++ {
		if !keeperIsFirst(p, fd) {
			continue
		}
		if errno := keeperAdd(p, fd); errno != 0 {
			return errno
		}
	}
	if p.message.count > 0 {
		if errno := keeperSend(p); errno != 0 {
			return errno
		}
	}
	p.message.op = custodyFirstEnd
	errno := keeperSend(p)
	p.message.op = custodyDescriptors
	return errno
}

//go:nosplit
//go:norace
//go:nocheckptr
func keeperIsFirst(p *keeperPage, fd int32) bool {
	return fd < p.nfirst && *(*byte)(unsafe.Add(unsafe.Pointer(p.first), fd)) != 0
}

// keeperAdd puts fd into the message if it is wanted, and sends the message
// if that makes it full.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperAdd(p *keeperPage, fd int32) syscall.Errno {
	for i := int32(0); i < p.nnever; i++ {
		if p.never[i] == fd {
			return 0
		}
	}
	kind := keeperKind(p, fd)
	wanted := kind&p.kinds != 0
	for i := int32(0); i < p.nextra && !wanted; i++ {
		if p.extra[i] == fd {
			wanted = true
			if kind == 0 {
				kind = KindListed
			}
		}
	}
	if !wanted {
		return 0
	}
	m := &p.message
	e := &m.entries[m.count]
	e.fd, e.kind, e.cookie = fd, kind, p.opt
	p.control.fds[m.count] = fd
	m.count++
	m.descriptors++
	if m.count < MaxFDs {
		return 0
	}
	return keeperSend(p)
}

// keeperKind says what fd is, and leaves its identity in p.opt: the cookie of
// a socket, the inode of anything else.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperKind(p *keeperPage, fd int32) Kind {
	if keeperOpt(p, fd, unix.SO_PROTOCOL) != 0 { // not a socket
		p.opt = 0
		if !keeperFstat(p, fd) {
			return 0
		}
		p.opt = p.stat.Ino
		if p.stat.Mode&syscall.S_IFMT == syscall.S_IFIFO {
			return KindPipe
		}
		return 0
	}
	kind := Kind(0)
	switch {
	case p.opt == unix.IPPROTO_TCP:
		kind = KindTCP
		if keeperOpt(p, fd, unix.SO_ACCEPTCONN) == 0 && p.opt != 0 {
			kind = KindListener
		}
	case keeperOpt(p, fd, unix.SO_DOMAIN) == 0 && p.opt == unix.AF_UNIX:
		kind = KindUnix
	}
	keeperOpt(p, fd, unix.SO_COOKIE)
	return kind
}

// keeperOpt reads a socket option into p.opt. An int takes half of it; both
// machines are little-endian.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperOpt(p *keeperPage, fd int32, name uintptr) syscall.Errno {
	p.opt, p.optLen = 0, uint32(unsafe.Sizeof(p.opt))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, name,
		uintptr(unsafe.Pointer(&p.opt)), uintptr(unsafe.Pointer(&p.optLen)), 0)
	return errno
}

// keeperSend sends the message as it stands, waiting for room for as long as
// it takes: there is nothing else to do, and nobody else holds what is in it.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperSend(p *keeperPage) syscall.Errno {
	m := &p.message
	length := uintptr(custodyHeaderLen) + uintptr(m.count)*unsafe.Sizeof(custodyEntry{})
	if m.count > 0 {
		p.control.level, p.control.typ = unix.SOL_SOCKET, unix.SCM_RIGHTS
		p.control.len = uint64(custodyControlLen) + 4*uint64(m.count)
	}
	for sent := uintptr(0); sent < length; {
		n, errno := keeperSendSome(p, sent, length)
		if errno != 0 {
			return errno
		}
		sent += n
	}
	m.index++
	m.count = 0
	return 0
}

// keeperSendSome sends from byte sent of the message on. The descriptors go
// with the first byte.
//
//go:nosplit
//go:norace
//go:nocheckptr
func keeperSendSome(p *keeperPage, sent, length uintptr) (uintptr, syscall.Errno) {
	const pause = 1_000_000 // ns
	at := uintptr(unsafe.Pointer(&p.message)) + sent
	*(*uintptr)(unsafe.Pointer(&p.iov.Base)) = at // as a number: no write barrier
	p.iov.Len = uint64(length - sent)
	*(*uintptr)(unsafe.Pointer(&p.hdr.Iov)) = uintptr(unsafe.Pointer(&p.iov))
	p.hdr.Iovlen = 1
	*(*uintptr)(unsafe.Pointer(&p.hdr.Control)) = 0
	p.hdr.Controllen = 0
	if sent == 0 && p.message.count > 0 {
		*(*uintptr)(unsafe.Pointer(&p.hdr.Control)) = uintptr(unsafe.Pointer(&p.control))
		p.hdr.Controllen = (p.control.len + 7) &^ 7
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(p.end), uintptr(unsafe.Pointer(&p.hdr)), unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return n, 0
		case syscall.EAGAIN:
			p.poll[0].Fd, p.poll[0].Events = p.end, unix.POLLOUT
			keeperPoll(p, 1, -1)
		case syscall.ETOOMANYREFS, syscall.ENOBUFS, syscall.ENOMEM:
			// Descriptors in flight are limited for a user (unix(7)), and
			// nothing tells when there are fewer.
			keeperPoll(p, 0, pause)
		case syscall.EINTR:
		default:
			return 0, errno // EPIPE: nobody will ever receive
		}
	}
}
