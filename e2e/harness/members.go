package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Those who stand behind the server. They hold no lock.
const (
	Standby Role = "standby" // the server that waits
	Keeper  Role = "keeper"  // of the server that serves
)

// member is a living process of an instance.
type member struct {
	pid, ppid int
	comm      string
}

// members are the living processes of the instance that have given themselves a name of trafficd's.
func (p *Trafficd) members() []member {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var all []member
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		m, state := lookAt(pid)
		if strings.HasPrefix(m.comm, "traffic_") && state != 'Z' && state != 'X' && mentions(dir+"/cmdline", p.RunRoot) {
			all = append(all, m)
		}
	}
	return all
}

// lookAt reads what proc(5) stat says of a process.
func lookAt(pid int) (m member, state byte) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return member{}, 'X'
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || end < open {
		return member{}, 'X'
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 2 {
		return member{}, 'X'
	}
	ppid, _ := strconv.Atoi(f[1])
	return member{pid: pid, ppid: ppid, comm: string(text[open+1 : end])}, f[0][0]
}

// Find opens a handle of the process that has the role now; nil: there is none. Who is to be
// killed together is found first and killed then. The caller releases it.
//
// A standby is one that has said that it stands by, a keeper is the child of the server that the
// lock names. One that has been killed is not found again, though it takes the kernel a moment
// to do away with it.
func (p *Trafficd) Find(role Role) *Process {
	server := p.lockPID(Server)
	var pid int
	switch role {
	case Standby:
		for _, m := range p.members() {
			if m.comm == Server.Comm() && m.pid != server && !p.wasKilled(m.pid) && p.Log.Said(Server, "server stands by", m.pid) {
				pid = m.pid
			}
		}
	case Keeper:
		for _, m := range p.members() {
			if m.comm == Keeper.Comm() && m.ppid == server && !p.wasKilled(m.pid) {
				pid = m.pid
			}
		}
	default:
		pid = p.lockPID(role)
	}
	if pid == 0 || p.wasKilled(pid) {
		return nil
	}
	h, err := openProcess(pid)
	if err != nil {
		return nil
	}
	comm := role.Comm()
	if role == Standby {
		comm = Server.Comm()
	}
	again := p.lockPID(Server) == server
	if role != Standby && role != Keeper {
		again = p.lockPID(role) == pid
	}
	if !again || h.Comm != comm || !sameExecutable(pid, p.opts.binary) {
		h.Release()
		return nil
	}
	return h
}

// Release lets go of the handle.
func (p *Process) Release() { p.fd.Close() }

// GoneWithin reports whether the process ends within the time.
func (p *Process) GoneWithin(limit time.Duration) bool { return p.waitGone(limit) }

// Strike sends SIGKILL to all of them at one instant and returns how many it reached.
func (p *Trafficd) Strike(all ...*Process) int {
	n := 0
	p.mu.Lock()
	for _, h := range all {
		p.killed[h.PID] = StartTime(h.PID)
	}
	p.mu.Unlock()
	for _, h := range all {
		if h.signal(unix.SIGKILL) == nil {
			n++
		}
	}
	return n
}

// wasKilled reports whether a process is one that the story has killed. A number comes again after some ten thousand others.
func (p *Trafficd) wasKilled(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	start, ok := p.killed[pid]
	return ok && start == StartTime(pid)
}

// WaitTaken waits until the lock of the server names another than old, or the time is over,
// and returns who it is; 0: nobody. It looks often: a story wants to kill a server that has only
// just begun.
func (p *Trafficd) WaitTaken(old int, limit time.Duration) int {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if pid := p.lockPID(Server); pid != 0 && pid != old {
			return pid
		}
	}
	return 0
}

// started are the commands that some story waits for by itself.
var started sync.Map // of PID

// Collect collects the zombies of processes that were reparented to the test: of an instance
// that loses its processes by the hundred there would be too many of them.
func Collect() {
	self := os.Getpid()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		m, state := lookAt(pid)
		if _, own := started.Load(pid); own || m.ppid != self || state != 'Z' || !strings.HasPrefix(m.comm, "traffic_") {
			continue
		}
		reapOrphan(pid)
	}
}
