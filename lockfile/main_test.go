package lockfile

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also every other process of the tests.
func TestMain(m *testing.M) {
	switch os.Getenv("LOCKFILE_TEST_ROLE") {
	case "":
		os.Exit(m.Run())
	case "hold":
		roleHold()
	case "race":
		roleRace()
	case "full":
		roleFull()
	}
}

// roleHold takes the lock, says so, and holds it until its input ends.
func roleHold() {
	l, err := Acquire(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	l.Release()
	fmt.Println("released")
}

// roleRace waits for its input to end and then tries once.
func roleRace() {
	fmt.Println("waiting")
	io.Copy(io.Discard, os.Stdin)
	if _, err := Acquire(os.Args[1]); err != nil {
		fmt.Println("lost:", err)
		return
	}
	fmt.Println("won")
	unix.Pause()
}

// roleFull takes the lock where nothing can be written to a file, says whether that was noticed, and holds it until its
// input ends. The limit is of the whole process, so this is not one that has a test log to write.
func roleFull() {
	// The kernel refuses to write beyond the limit and sends SIGXFSZ, which Go ignores by handling it.
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	l, err := Acquire(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held, text error", l.TextError() != nil)
	io.Copy(io.Discard, os.Stdin)
}

// child is a process of the tests. It is killed and reaped when the test ends.
type child struct {
	*exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

func start(t *testing.T, role, path string, more ...func(*exec.Cmd)) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: exec.Command(exe, path)}
	c.Env = append(os.Environ(), "LOCKFILE_TEST_ROLE="+role, "GORACE=atexit_sleep_ms=0") // -race sleeps a second before exit
	c.Stderr = os.Stderr
	for _, f := range more {
		f(c.Cmd)
	}
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	if c.ProcessState == nil {
		c.Process.Kill()
		c.Wait()
	}
}

// says returns the next line the child prints.
func (c *child) says(t *testing.T) string {
	t.Helper()
	line, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("child %d: got %q, %v", c.Process.Pid, line, err)
	}
	return strings.TrimSpace(line)
}

// holder starts a process that holds path.
func holder(t *testing.T, path string, more ...func(*exec.Cmd)) *child {
	t.Helper()
	c := start(t, "hold", path, more...)
	if got := c.says(t); got != "held" {
		t.Fatalf("child says %q, want held", got)
	}
	return c
}
