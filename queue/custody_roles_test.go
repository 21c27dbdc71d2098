package queue

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also every process that the tests need beside
// themselves: the variable says which.
const roleEnv = "TRAFFICD_QUEUE_ROLE"

// roles are the processes. Arguments come in the environment, descriptors from
// 3 on.
var roles = map[string]func() error{
	"committer": runCommitter,
	"dier":      runDier,
	"kept":      runKept,
	"forgetful": hang,
	"locked":    runLocked,
	"lossy":     runLossy,
	"mortal":    runMortal,
	"server":    runServer,
}

// init, not TestMain: a role needs nothing of package testing.
func init() {
	role := os.Getenv(roleEnv)
	if role == "" {
		// Keepers outlive their parents, and come to this process then.
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		return
	}
	if err := roles[role](); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A child is a process of this test, held by pidfd and reaped at its end.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	pidfd int
	over  bool
}

// startRole starts the test binary as role, with files from descriptor 3 on.
func startRole(t testing.TB, role string, attr *unix.SysProcAttr, files []*os.File, env ...string) *child {
	t.Helper()
	// What this process itself was given must not show up in a role's table.
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, pidfd: -1}
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = append(os.Environ(), append(env, roleEnv+"="+role)...)
	c.cmd.Stderr = os.Stderr
	c.cmd.ExtraFiles = files
	c.cmd.SysProcAttr = &unix.SysProcAttr{}
	if attr != nil {
		*c.cmd.SysProcAttr = *attr
	}
	c.cmd.SysProcAttr.PidFD = &c.pidfd
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// signalKill sends SIGKILL, and does not wait.
func (c *child) signalKill() {
	if !c.over {
		_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	}
}

// wait waits for its end and returns how it ended.
func (c *child) wait() error {
	if c.over {
		return nil
	}
	err := c.cmd.Wait()
	unix.Close(c.pidfd)
	c.over = true
	return err
}

func (c *child) kill() {
	c.signalKill()
	_ = c.wait()
}

// gone tells whether the process has died as its pidfd tells it.
func (c *child) gone() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

// reapOrphans collects keepers that have ended. Only while no other child of
// this process is waited for.
func reapOrphans() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

func envInt(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

func env(name string, v any) string { return fmt.Sprintf("%s=%v", name, v) }

// memory is shared memory as a file, for this process and its children.
func memory(t testing.TB, size int) (*os.File, []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("queue-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err := mapShared(fd, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return f, mem
}

func mapShared(fd, size int) ([]byte, error) {
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// socketpair gives both ends of a Unix socketpair as files.
func socketpair(t testing.TB, kind int) (in, out *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	in, out = os.NewFile(uintptr(p[0]), "in"), os.NewFile(uintptr(p[1]), "out")
	t.Cleanup(func() { in.Close(); out.Close() })
	return in, out
}

// ready reads the line a child writes when it has done what it says.
func ready(t testing.TB, r *os.File) string {
	t.Helper()
	var b [256]byte
	n, err := r.Read(b[:])
	if err != nil {
		t.Fatalf("child does not get ready: %v", err)
	}
	return strings.TrimSpace(string(b[:n]))
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// hang blocks until the process is killed.
func hang() error {
	for {
		_ = unix.Pause()
	}
}
