package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxName is TASK_COMM_LEN of the kernel less the NUL at the end.
const maxName = 15

// ErrNotMainThread: without /proc the name can only be set from the main thread.
var ErrNotMainThread = errors.New("not on the main thread")

// SetName sets the name that ps -o comm, top and /proc/PID/comm show for this process: that of its main thread. Threads
// the runtime makes later get the name of the thread that makes them. At most 15 bytes, none of them NUL; the command line that
// ps -f shows is argv and stays as the parent gave it (Spec.Argv0).
//
// With /proc any goroutine can do it. Without, prctl(PR_SET_NAME) names only the calling thread, so SetName must run on
// the main thread: call runtime.LockOSThread in an init function of package main and SetName (then
// runtime.UnlockOSThread) at the top of main. Otherwise the error matches ErrNotMainThread.
func SetName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("set process name %q: want 1 to %d bytes", name, maxName)
	}
	// Written through /proc/self, the main thread is named from any thread of the process (comm_write in fs/proc/base.c).
	if f, err := os.OpenFile("/proc/self/comm", os.O_WRONLY, 0); err == nil {
		_, err = f.WriteString(name)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("set process name: %w", err)
		}
		return nil
	}
	return setThreadName(name)
}

func setThreadName(name string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() != os.Getpid() {
		return fmt.Errorf("set process name %q: %w", name, ErrNotMainThread)
	}
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return fmt.Errorf("set process name %q: %w", name, err)
	}
	if err := unix.Prctl(unix.PR_SET_NAME, addr(p), 0, 0, 0); err != nil {
		return fmt.Errorf("set process name %q: %w", name, err)
	}
	runtime.KeepAlive(p)
	return nil
}
