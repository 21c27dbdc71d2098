package proc

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec replaces this process's program by e (execve(2)): same PID, same parent, same children, same
// locks; every descriptor that has close-on-exec is closed. argv has argv[0]. It returns only
// when it failed, and then nothing has happened. Call it from any goroutine.
func (e *Executable) Exec(argv, env []string) error {
	path := e.path
	if procMounted() {
		fd, err := rawFD(e.file)
		if err != nil {
			return err
		}
		path = "/proc/self/fd/" + strconv.Itoa(fd)
	} else {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("examine %s: %w", path, err)
		}
		if fileID(&st) != e.id {
			return fmt.Errorf("%s: %w", path, ErrReplaced)
		}
	}
	err := syscall.Exec(path, argv, env)
	runtime.KeepAlive(e)
	return os.NewSyscallError("execve", err)
}
