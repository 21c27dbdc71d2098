package proc

import (
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children knows every Process of this program that has not ended, so that its exit status goes to it, whoever
// happens to reap it.
//
// The trap: an exit status can be collected once. When two wait for the same child (a watcher and a reaper, or one who has
// started the process and one who has adopted it), one gets the status and the other ECHILD; and a
// reaper that waits for "any child" takes statuses others wait for. So there is one place that reaps, under one lock,
// and it hands the status to everyone it concerns.
var children = registry{byPID: map[int][]*Process{}}

type registry struct {
	// mu is also held from fork to registration (Spec.fork), so every child is known here before anyone can reap it.
	mu    sync.Mutex
	byPID map[int][]*Process // several: started here and adopted as well
}

// add registers p. mu is held.
func (r *registry) add(p *Process) { r.byPID[p.id.PID] = append(r.byPID[p.id.PID], p) }

func (r *registry) remove(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := slices.DeleteFunc(r.byPID[p.id.PID], func(q *Process) bool { return q == p })
	if len(rest) == 0 {
		delete(r.byPID, p.id.PID)
		return
	}
	r.byPID[p.id.PID] = rest
}

// collect reaps p, which has ended, if it is our child and has not been reaped yet.
func (r *registry) collect(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reap(p)
}

// reap waits for p without blocking, and gives the status to every Process that is the same process: one
// may have been started here and adopted as well. It reports whether p was reaped by this call. mu is held.
func (r *registry) reap(p *Process) bool {
	ws, ok := p.wait()
	if !ok {
		return false
	}
	for _, q := range r.byPID[p.id.PID] {
		if q == p || q.id == p.id && q.over() {
			q.setExit(ws)
		}
	}
	return true
}

// wait reaps the process by its pidfd. It fails if it is not our child, has not ended, or was reaped before.
func (p *Process) wait() (ws syscall.WaitStatus, ok bool) {
	c, err := p.file.SyscallConn()
	if err != nil {
		return 0, false
	}
	c.Control(func(fd uintptr) { ws, ok = waitID(unix.P_PIDFD, int(fd), unix.WEXITED|unix.WNOHANG) })
	return ws, ok
}

// over reports whether the process has ended, reaped or not.
func (p *Process) over() (yes bool) {
	c, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	c.Control(func(fd uintptr) { yes = readable(int(fd)) })
	return yes
}

func (p *Process) setExit(ws syscall.WaitStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.exit.Known {
		p.exit = exitOf(ws)
	}
}

// waitID is waitid(2) for children that have ended. ok is false if there is none.
func waitID(idType, id, options int) (ws syscall.WaitStatus, ok bool) {
	_, ws, err := waitInfo(idType, id, options)
	return ws, err == nil
}

// waitInfo is waitid(2); err is EAGAIN if no child has ended and ECHILD if there is none. The status is put together as wait4(2)
// gives it, because that is what package syscall can read.
func waitInfo(idType, id, options int) (pid int, ws syscall.WaitStatus, err error) {
	var si childInfo
	for {
		err = unix.Waitid(idType, id, si.siginfo(), options, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, err
	}
	if si.pid == 0 {
		return 0, 0, unix.EAGAIN
	}
	switch si.Code {
	case cldExited:
		ws = syscall.WaitStatus(si.status&0xff) << 8
	case cldKilled:
		ws = syscall.WaitStatus(si.status & 0x7f)
	case cldDumped:
		ws = syscall.WaitStatus(si.status&0x7f) | 0x80
	}
	return int(si.pid), ws, nil
}
