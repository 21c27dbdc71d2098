package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// binary is the executable under test. Set once by Main before any story runs.
var binary string

// Binary is the path of the executable under test.
func Binary() string { return binary }

// binaryEnv names the binary under test to a test process that another one has started.
const binaryEnv = "E2E_BINARY"

// Main builds the binary under test, with the race detector when the stories
// have it, runs the stories and removes what was built. It is all a TestMain
// has to call; it returns the exit code.
//
// The test process becomes a subreaper: a manager whose cop was killed, or a
// daemonised cop, is then reparented here and not to a stranger, so that its end
// can be seen and its zombie collected whatever this machine's init does.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "trafficd-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // a confined instance is nobody's
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "become a subreaper:", err)
		return 1
	}
	if binary = os.Getenv(binaryEnv); binary != "" {
		return m.Run()
	}
	binary = filepath.Join(dir, "trafficd")
	var flags []string
	if raceEnabled {
		flags = append(flags, "-race")
	}
	if err := build(binary, nil, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var (
	staticOnce sync.Once
	staticErr  error
)

// StaticBinary builds, once, the binary as the container image has it: without
// cgo, needing no file but itself. The race detector needs cgo, so this one
// never has it.
func StaticBinary(t testing.TB) string {
	t.Helper()
	path := binary + "-static"
	staticOnce.Do(func() {
		staticErr = build(path, []string{"CGO_ENABLED=0"}, "-trimpath", "-ldflags=-s -w")
	})
	if staticErr != nil {
		t.Fatal(staticErr)
	}
	return path
}

var (
	mortalOnce sync.Once
	mortalErr  error
)

// Mortal runs the binary in which a server can be told where to die (build tag killpoints): the next
// that takes over reads "STEP:N" from the file with this name, removes it, and dies when it
// passes that step for the N-th time.
func Mortal(t testing.TB, file string) Option {
	t.Helper()
	path := binary + "-mortal"
	mortalOnce.Do(func() {
		flags := []string{"-tags", "killpoints"}
		if raceEnabled {
			flags = append(flags, "-race")
		}
		mortalErr = build(path, nil, flags...)
	})
	if mortalErr != nil {
		t.Fatal(mortalErr)
	}
	return All(Executable(path), func(o *options) { o.env = append(o.env, "TRAFFICD_KILL_FILE="+file) })
}

// lookAtSources tells the go command what the stories depend on: a test's result is used again as long as the files are the same that it has
// looked at, and the binary under test is made of files that no test imports. Once in a process, and not before the first
// story, since nobody takes notice of it then.
var lookAtSources = sync.OnceValue(func() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root, d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) == ".go" || filepath.Ext(path) == ".mod":
			_, err = os.Stat(path)
		}
		return err
	})
})

// moduleRoot is asked of the go command, since tests run in their own directory.
var moduleRoot = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	return string(root[:len(root)-1]), nil
})

// build compiles the module's root package.
func build(out string, env []string, flags ...string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	args := append([]string{"build", "-o", out}, flags...)
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binary under test: %w\n%s", err, text)
	}
	return nil
}
