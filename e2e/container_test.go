package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "Container and init duties of cop: as PID 1 it reaps every zombie, forwards signals, exits 0 on
// TERM with nothing left behind … PID namespace, chroot with only the binary, read-only root, PID 1."
//
// With /proc and without: a scratch image has one only because the runtime mounts it.
func TestContainer(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this story makes namespaces and must be run as root")
	}
	for _, proc := range []bool{true, false} {
		t.Run(fmt.Sprintf("proc=%v", proc), func(t *testing.T) {
			t.Parallel()
			c := startContainer(t, proc)
			client := harness.NewClient(t, c.addr)
			client.Get("/").ExpectStatus(200)
			c.expectReaped()

			// Each role's death is healed here too.
			for _, comm := range []string{"traffic_server", "traffic_manager"} {
				old := c.process(comm)
				c.kill(old)
				harness.WaitFor(t, "a new "+comm, func() bool { pid := c.find(comm); return pid != 0 && pid != old })
				harness.WaitFor(t, "an answer", c.answers)
			}

			c.signal(unix.SIGTERM)
			if err := c.wait(); err != nil {
				t.Errorf("cop as PID 1 ended with %v after TERM, want exit 0\n%s", err, c.log())
			}
			if left := c.members(); len(left) > 0 {
				t.Errorf("processes are left in the container: %v", left)
			}
		})
	}
}

// container is a trafficd that is PID 1 of its own PID namespace, in a read-only root directory
// that holds nothing but the executable, the empty directories to mount on, and the run root.
type container struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string
	pidns  string // the namespace as /proc/PID/ns/pid names it
	output *os.File
	waited chan error
}

// containerSpec is what the helper child needs; JSON in its environment.
type containerSpec struct {
	Root string
	Proc bool
	Args []string
}

const (
	containerEnv = "E2E_CONTAINER"
	orphanEnv    = "E2E_ORPHAN"
)

// beContainer makes the test binary the helper that this file has started, if it has.
func beContainer() bool {
	switch {
	case os.Getenv(containerEnv) != "":
		fmt.Fprintln(os.Stderr, "enter container:", enterContainer(os.Getenv(containerEnv)))
		os.Exit(1)
	case os.Getenv(orphanEnv) == "parent":
		leaveOrphan()
	case os.Getenv(orphanEnv) == "child":
		io.Copy(io.Discard, os.Stdin)
	default:
		return false
	}
	return true
}

// enterContainer runs as PID 1 of the new PID namespace and becomes trafficd. It returns only
// when it could not.
func enterContainer(text string) error {
	var spec containerSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		skip                 bool
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, false},
		{spec.Root, spec.Root, "", unix.MS_BIND, false},
		{"run", spec.Root + "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, false},
		{"proc", spec.Root + "/proc", "proc", 0, !spec.Proc},
		{"", spec.Root, "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, false},
	} {
		if m.skip {
			continue
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := unix.Chroot(spec.Root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	return unix.Exec("/trafficd", append([]string{"/trafficd"}, spec.Args...), []string{"GODEBUG="})
}

func startContainer(t *testing.T, proc bool) *container {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"run", "proc"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(harness.StaticBinary(t), filepath.Join(root, "trafficd")); err != nil {
		copyExecutable(t, filepath.Join(root, "trafficd"), harness.StaticBinary(t))
	}
	c := &container{t: t, addr: harness.FreeAddr(t), waited: make(chan error, 1)}
	spec, err := json.Marshal(containerSpec{Root: root, Proc: proc, Args: []string{
		"cop", "--foreground", "--run-root", "/run/trafficd", "--listen", c.addr, "--autoconf", harness.FreeAddr(t),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c.output, err = os.CreateTemp(t.TempDir(), "log"); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(executable(t))
	c.cmd.Env = append(os.Environ(), containerEnv+"="+string(spec))
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	c.cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if c.pidns, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	go func() { c.waited <- c.cmd.Wait() }()
	t.Cleanup(c.end)
	harness.WaitFor(t, "an answer from the container", func() bool { return c.ended() || c.answers() })
	if c.ended() {
		t.Fatalf("the container has ended before it answered: %v\n%s", c.wait(), c.log())
	}
	return c
}

func executable(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func copyExecutable(t *testing.T, to, from string) {
	t.Helper()
	if err := harness.CopyProgram(to, from); err != nil {
		t.Fatal(err)
	}
}

func (c *container) answers() bool {
	r, err := harness.Fetch(c.addr, harness.Request("GET", "/", "", "Connection: close"))
	return err == nil && r.Status == 200
}

func (c *container) log() string {
	text, err := os.ReadFile(c.output.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (c *container) ended() bool { return !harness.Alive(c.cmd.Process.Pid) }

// members are the PIDs, as seen from here, of the processes in the namespace.
func (c *container) members() []int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	var pids []int
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == c.pidns {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *container) find(comm string) int {
	for _, pid := range c.members() {
		if harness.Comm(pid) == comm && harness.Alive(pid) {
			return pid
		}
	}
	return 0
}

func (c *container) process(comm string) int {
	c.t.Helper()
	pid := 0
	harness.WaitFor(c.t, comm+" in the container", func() bool { pid = c.find(comm); return pid != 0 })
	return pid
}

// kill kills a process that has just been found in the namespace.
func (c *container) kill(pid int) {
	c.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer unix.Close(fd)
	if target, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); target != c.pidns {
		c.t.Fatalf("process %d is not in the container", pid)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) signal(sig unix.Signal) { c.cmd.Process.Signal(sig) }

func (c *container) wait() error {
	c.t.Helper()
	harness.WaitFor(c.t, "the container's end", c.ended)
	err := <-c.waited
	c.waited <- err
	return err
}

// end kills PID 1, and the kernel all others with it.
func (c *container) end() {
	if len(c.waited) == 0 {
		c.cmd.Process.Kill()
	}
	err := <-c.waited
	c.waited <- err
	c.output.Close()
	if c.t.Failed() {
		c.t.Logf("log of the container:\n%s", c.log())
	}
}

// expectReaped leaves an orphan in the namespace, lets it end, and waits until PID 1 has
// collected it. The orphan's parent comes in from outside, so PID 1 has never heard of either.
func (c *container) expectReaped() {
	c.t.Helper()
	in, hold, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer hold.Close()
	orphan, err := c.orphan(in)
	in.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	pid := c.outside(orphan)
	harness.WaitFor(c.t, "the orphan to be PID 1's child", func() bool { return harness.ParentPID(pid) == c.cmd.Process.Pid })
	hold.Close() // now it ends
	harness.WaitFor(c.t, "the orphan to be reaped", func() bool { return harness.State(pid) == 0 })
}

// orphan runs the helper that leaves one behind, inside the namespace, and returns the
// orphan's PID there.
func (c *container) orphan(in *os.File) (int, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Setns moves the children of this thread only; never unlocked, it ends with the goroutine.
		runtime.LockOSThread()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", c.cmd.Process.Pid))
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
			done <- result{nil, fmt.Errorf("enter PID namespace: %w", err)}
			return
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), orphanEnv+"=parent")
		cmd.Stdin = in
		var out bytes.Buffer
		cmd.Stdout = &out
		err = cmd.Run()
		done <- result{out.Bytes(), err}
	}()
	r := <-done
	if r.err != nil {
		return 0, fmt.Errorf("leave an orphan: %w", r.err)
	}
	return strconv.Atoi(strings.TrimSpace(string(r.text)))
}

// leaveOrphan starts a child that lives until its standard input ends, says its PID and ends.
func leaveOrphan() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), orphanEnv+"=child")
	cmd.Stdin = os.Stdin
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(cmd.Process.Pid)
}

// outside is the PID here of a process that has the given PID in the namespace.
func (c *container) outside(inside int) int {
	c.t.Helper()
	for _, pid := range c.members() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == strconv.Itoa(inside) {
				return pid
			}
		}
	}
	c.t.Fatalf("no process has PID %d in the container", inside)
	return 0
}
