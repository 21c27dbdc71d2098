package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupEnv = "E2E_CGROUP"

// A Fence is a control group whose processes share a limited amount of memory.
type Fence struct {
	t   testing.TB
	dir string
	v1  bool
}

// NewFence makes a control group that may have so many bytes, of whichever version the machine has. Where this user
// may make none the story is skipped: nothing can be shown there. Root may where there are any.
func NewFence(t testing.TB, limit int64) *Fence {
	t.Helper()
	if raceEnabled {
		limit *= 8 // what the race detector takes beside each byte (its manual: 5 to 10 times the memory)
	}
	var why []error
	for _, v1 := range []bool{false, true} {
		f, err := newFence(t, limit, v1)
		if err == nil {
			t.Cleanup(f.remove)
			return f
		}
		why = append(why, err)
	}
	t.Skipf("no control group can be made to limit memory: %v", errors.Join(why...))
	return nil
}

func newFence(t testing.TB, limit int64, v1 bool) (*Fence, error) {
	base, err := memoryController(v1)
	if err != nil {
		return nil, err
	}
	if !v1 {
		// It is an error where the controller is on already and cannot be written, too: Mkdir and the limit decide.
		_ = os.WriteFile(filepath.Join(base, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	f := &Fence{t: t, v1: v1, dir: filepath.Join(base, fmt.Sprintf("trafficd-e2e-%d-%d", os.Getpid(), time.Now().UnixNano()))}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.dir, f.name("memory.max", "memory.limit_in_bytes")), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		_ = os.Remove(f.dir)
		return nil, err
	}
	// Without this what is too much would go to swap, where there is one.
	_ = os.WriteFile(filepath.Join(f.dir, f.name("memory.swap.max", "memory.memsw.limit_in_bytes")), []byte(f.name("0", strconv.FormatInt(limit, 10))), 0)
	return f, nil
}

func (f *Fence) name(v2, v1 string) string {
	if f.v1 {
		return v1
	}
	return v2
}

// memoryController is where control groups for memory are made.
func memoryController(v1 bool) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		m := strings.Fields(line)
		switch {
		case len(m) < 4:
		case v1 && m[2] == "cgroup" && strings.Contains(","+m[3]+",", ",memory,"):
			return m[1], nil
		case !v1 && m[2] == "cgroup2":
			controllers, err := os.ReadFile(filepath.Join(m[1], "cgroup.controllers"))
			if err == nil && !bytes.Contains(controllers, []byte("memory")) {
				err = errors.New("cgroup2 has not the memory controller")
			}
			return m[1], err
		}
	}
	return "", fs.ErrNotExist
}

// Within starts the instance in the control group.
func (f *Fence) Within() Option { return func(o *options) { o.cgroup = f.dir } }

// BeFenced makes the test binary the launcher of an instance in a control group when that is what it was started for.
// A TestMain calls it first.
func BeFenced() bool {
	dir := os.Getenv(cgroupEnv)
	if dir == "" {
		return false
	}
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	if err == nil {
		_ = os.Unsetenv(cgroupEnv)
		err = unix.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "start an instance in a control group:", err)
	os.Exit(1)
	return true
}

// Killed is how many processes in it the kernel has killed for want of memory.
func (f *Fence) Killed() int {
	f.t.Helper()
	text := f.read(f.name("memory.events", "memory.oom_control"))
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, err := strconv.Atoi(value)
			if err != nil {
				f.t.Fatal(err)
			}
			return n
		}
	}
	f.t.Fatalf("no count of kills in %q", text)
	return 0
}

// Peak is the most memory that its processes have had at a time, in bytes; 0 where the kernel does not tell.
func (f *Fence) Peak() int64 {
	b, err := os.ReadFile(filepath.Join(f.dir, f.name("memory.peak", "memory.max_usage_in_bytes")))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// Holds reports whether a process is in it.
func (f *Fence) Holds(pid int) bool {
	f.t.Helper()
	for _, p := range strings.Fields(f.read("cgroup.procs")) {
		if p == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}

func (f *Fence) read(name string) string {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

// remove takes the group away. Its last processes may still be on their way out.
func (f *Fence) remove() {
	if !poll(Patience, func() bool { return os.Remove(f.dir) == nil }) {
		f.t.Errorf("control group %s cannot be removed", f.dir)
	}
}
