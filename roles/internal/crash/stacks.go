package crash

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"trafficd/proc"
)

const stacksPrefix = "stacks-"

// dirMode and fileMode are the log's: what is recorded names clients and what they asked for.
const (
	dirMode  = 0o750
	fileMode = 0o640
)

// caught is where this process's runtime writes.
var caught struct {
	mu   sync.Mutex
	path string // "": nowhere
}

// CatchOutput has the Go runtime write the stacks to a file in dir as well, should this process crash. It costs a
// file and a descriptor (close-on-exec), and nothing while the process lives. On error the process is as it was.
func CatchOutput(dir, role string) error {
	self := proc.Self()
	path := filepath.Join(dir, stacksPrefix+Process{Role: role, PID: self.PID, StartTime: self.StartTime}.ID())
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("catch stacks: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return fmt.Errorf("catch stacks: %w", err)
	}
	defer f.Close() // the runtime has its own duplicate
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		os.Remove(path)
		return fmt.Errorf("catch stacks: %w", err)
	}
	caught.mu.Lock()
	defer caught.mu.Unlock()
	caught.path = path
	return nil
}

// ReleaseOutput takes CatchOutput back and removes the file: the process ends in good order. It must not be deferred: a
// deferred function runs before the runtime writes the panic that made it run.
func ReleaseOutput() {
	caught.mu.Lock()
	defer caught.mu.Unlock()
	if caught.path == "" {
		return
	}
	// Neither can fail in a way that matters: a file that stays is removed by the supervisor.
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
	_ = os.Remove(caught.path)
	caught.path = ""
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// readStacks reads what a dead process has left. The first bytes are what matters: the reason, and the goroutine that
// failed. No file is no error.
func readStacks(dir string, p Process) (text string, cut bool, err error) {
	b, err := readFile(filepath.Join(dir, stacksPrefix+p.ID()), MaxStacks+1)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if len(b) > MaxStacks {
		b, cut = b[:MaxStacks], true
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), cut, err
}

// readFile reads the first limit bytes of a regular file. Anything else could block or never end.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// unclaimed is how old stacks must be before it is clear that nobody who saw the death is about to take them.
const unclaimed = time.Minute

// sweep takes care of the stacks of processes whose death nobody recorded, say because its supervisor died with it: what
// was written becomes a record, empty files go.
func (s Store) sweep(now time.Time, witness Process) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), stacksPrefix)
		p, valid := parseID(id)
		if !ok || !valid || lives(p) {
			continue
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < unclaimed {
			continue
		}
		if info.Size() > 0 {
			d := Death{When: info.ModTime(), Dead: p, Witness: witness}
			if s.complete(&d) != nil || s.WriteDeath(d) != nil {
				continue
			}
		}
		os.Remove(filepath.Join(s.Dir, e.Name()))
	}
}

// lives reports whether a process is there, or may be.
func lives(p Process) bool {
	now, err := proc.Identify(p.PID)
	if errors.Is(err, proc.ErrNoProcess) {
		return false
	}
	return err != nil || p.StartTime == 0 || now.StartTime == p.StartTime
}
