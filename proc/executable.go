package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrReplaced: /proc is not mounted, so the executable can only be started by its path, and the path names another file now.
var ErrReplaced = errors.New("executable was replaced")

// Executable is a program file, opened once, so that it can be started for ever after: also when the file on disk has been
// replaced by another version, or removed.
//
// With /proc mounted it is executed through the descriptor (/proc/self/fd/N). Without /proc it is executed by the path
// remembered at the time of opening, after a check that the path still names the same file. execveat(2) with
// AT_EMPTY_PATH would need no path, but Go's fork cannot call it, and a fork of our own would depend on the internals of the runtime.
//
// An Executable is immutable; its methods may be called from any goroutine.
type Executable struct {
	file *os.File // O_PATH|O_CLOEXEC
	path string   // absolute, where the file was when it was opened
	id   FileID
}

// OpenSelf opens the executable this process runs: /proc/self/exe, or without /proc what the kernel or the caller of
// exec said it was (AT_EXECFN, see getauxval(3), and argv[0]). Call it early in main, before a change of the working
// directory, and before the file can have been replaced: only /proc/self/exe cannot be mistaken.
func OpenSelf() (*Executable, error) {
	if e, err := OpenExecutable("/proc/self/exe"); err == nil {
		if to, err := os.Readlink("/proc/self/exe"); err == nil {
			e.path = strings.TrimSuffix(to, " (deleted)")
		}
		return e, nil
	}
	path, err := selfPath()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	return OpenExecutable(path)
}

// selfPath finds the path of this process's executable without /proc.
func selfPath() (string, error) {
	for _, name := range []string{execfn(), os.Args[0]} {
		// A parent that executed us through a descriptor leaves a name that means nothing here.
		if name == "" || strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/dev/fd/") {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w and argv[0] %q is no path", ErrNoProc, os.Args[0])
}

// atExecfn is AT_EXECFN of linux/auxvec.h.
const atExecfn = 31

// execfn returns the path given to the execve(2) that made this process, empty if unknown.
func execfn() string {
	vec, err := unix.Auxv()
	if err != nil {
		return ""
	}
	for _, kv := range vec {
		if kv[0] == atExecfn {
			return cString(kv[1])
		}
	}
	return ""
}

// OpenExecutable opens a program file to be started later, following symbolic links.
func OpenExecutable(path string) (*Executable, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open executable %s: %w", path, err)
	}
	fd, err := unix.Open(abs, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open executable %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), abs)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, fmt.Errorf("examine executable %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		file.Close()
		return nil, fmt.Errorf("open executable %s: not a regular file", path)
	}
	return &Executable{file: file, path: abs, id: fileID(&st)}, nil
}

// ID identifies the file; compare it with ExeOf.
func (e *Executable) ID() FileID { return e.id }

// Path is where the file was when it was opened. Another file may be there now.
func (e *Executable) Path() string { return e.path }

// Close closes the descriptor. Processes started from it go on.
func (e *Executable) Close() error { return e.file.Close() }

// launchPath returns the path to hand to execve(2) in a child whose descriptors 0…n-1 will come from parent descriptors of at
// most maxFD, and a function to be called after the fork.
//
// The path is resolved in the child after it has moved its descriptors into place. The child uses the numbers below n
// for that, and, to get descriptors out of the way first, up to n+1 numbers above maxFD (forkAndExecInChild in package
// syscall). So the copy it is started from must lie above all these.
func (e *Executable) launchPath(n, maxFD int) (path string, done func(), err error) {
	raw, err := rawFD(e.file)
	if err != nil {
		return "", nil, err
	}
	if !procMounted() {
		var st unix.Stat_t
		if err := unix.Stat(e.path, &st); err != nil {
			return "", nil, fmt.Errorf("examine %s: %w", e.path, err)
		}
		if fileID(&st) != e.id {
			return "", nil, fmt.Errorf("%s: %w", e.path, ErrReplaced)
		}
		return e.path, func() {}, nil
	}
	fd, err := unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, max(n, maxFD+1)+n+2)
	if err != nil {
		return "", nil, fmt.Errorf("duplicate descriptor of %s: %w", e.path, err)
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), func() { unix.Close(fd) }, nil
}
