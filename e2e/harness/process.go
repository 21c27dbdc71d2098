package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Role is one of the three processes of an instance, or one of those who stand behind the server.
type Role string

// The roles, named as in the lock files.
const (
	Cop     Role = "cop"
	Manager Role = "manager"
	Server  Role = "server"
)

// Roles are the three roles in the order in which they start.
var Roles = []Role{Cop, Manager, Server}

// Comm is the name that a process of the role shows to the kernel.
func (r Role) Comm() string { return "traffic_" + string(r) }

// Process is a handle of one process, which it goes on naming after the PID has
// been given to somebody else.
type Process struct {
	PID  int
	Comm string

	fd *os.File // the pidfd
}

// openProcess opens a pidfd and then reads what the PID names: since the pidfd
// was open before and is still alive after, all belongs to one process.
func openProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	p := &Process{PID: pid, fd: os.NewFile(uintptr(fd), "pidfd")}
	p.Comm = Comm(pid)
	if p.Gone() {
		p.fd.Close()
		return nil, fmt.Errorf("process %d ended while it was looked at", pid)
	}
	return p, nil
}

// Signal sends sig to exactly this process.
func (p *Process) Signal(t testing.TB, sig unix.Signal) {
	t.Helper()
	if err := p.signal(sig); err != nil {
		t.Fatalf("send %v to %s %d: %v", sig, p.Comm, p.PID, err)
	}
}

func (p *Process) signal(sig unix.Signal) error {
	return unix.PidfdSendSignal(int(p.fd.Fd()), sig, nil, 0)
}

// Gone says that the process has ended. A zombie has ended.
func (p *Process) Gone() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0
	}
}

// WaitGone blocks until the process has ended.
func (p *Process) WaitGone(t testing.TB) {
	t.Helper()
	if !p.waitGone(Patience) {
		t.Fatalf("%s %d has not ended after %v (state %c)", p.Comm, p.PID, Patience, State(p.PID))
	}
}

func (p *Process) waitGone(limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.fd.Fd()), Events: unix.POLLIN}}
	deadline := time.Now().Add(limit)
	for {
		n, err := unix.Poll(fds, int(max(time.Until(deadline), 0)/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

// Alive says that pid is a process that has not ended, zombies excluded.
func Alive(pid int) bool {
	s := State(pid)
	return s != 0 && s != 'Z' && s != 'X'
}

// State is the process state letter of proc(5), 0 when there is no such process.
func State(pid int) byte {
	f := statFields(pid)
	if len(f) == 0 {
		return 0
	}
	return f[0][0]
}

// StartTime is field 22 of proc(5) stat, in clock ticks since boot; together with the
// PID it names a process for as long as the machine runs. 0: no such process.
func StartTime(pid int) uint64 {
	f := statFields(pid)
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64)
	return n
}

// ParentPID is the PID of the parent, 0 when there is no such process.
func ParentPID(pid int) int {
	f := statFields(pid)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// statFields are the fields of /proc/PID/stat from the third (state) on. The second is
// the name in parentheses, which may itself hold spaces and parentheses.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	if !ok {
		return nil
	}
	return strings.Fields(rest)
}

// Comm is the name that the kernel shows for pid, "" when there is no such process.
func Comm(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}

// ResidentBytes is the anonymous memory of pid plus its file-backed private pages: what
// a process costs beyond memory it shares, which the cache is.
func ResidentBytes(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// CPUTime is how long the threads of pid have been running: what work has cost, whatever else ran meanwhile.
func CPUTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	// clock_getcpuclockid(3): the clock of another process is made of its PID.
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		t.Fatalf("CPU time of %d: %v", pid, err)
	}
	return time.Duration(ts.Nano())
}

// processesOf lists every process, other than this one, that belongs to the instance with
// that run root: its command line or its environment names the run root.
func processesOf(runRoot string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if mentions(dir+"/cmdline", runRoot) || mentions(dir+"/environ", runRoot) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mentions says that a NUL-separated list of strings has one that contains path as a whole
// path: "/tmp/td1" is not a mention in "/tmp/td12".
func mentions(file, path string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for word := range bytes.SplitSeq(text, []byte{0}) {
		_, after, ok := bytes.Cut(word, []byte(path))
		if ok && (len(after) == 0 || after[0] == '/' || after[0] == ' ') {
			return true
		}
	}
	return false
}

// reapOrphan collects the zombie of a process that was reparented to the test process. It
// waits for that PID alone, so that no other child's status is taken away.
func reapOrphan(pid int) {
	if ParentPID(pid) != os.Getpid() || State(pid) != 'Z' {
		return
	}
	for {
		_, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
