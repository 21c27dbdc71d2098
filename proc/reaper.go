package proc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetSubreaper makes this process the parent of every descendant whose own parent dies (PR_SET_CHILD_SUBREAPER(2const)), as
// PID 1 is without asking, or ends that. Run a Reaper with it, or the zombies pile up. Children do not inherit it.
func SetSubreaper(on bool) error {
	var arg uintptr
	if on {
		arg = 1
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, arg, 0, 0, 0); err != nil {
		return fmt.Errorf("set child subreaper: %w", err)
	}
	return nil
}

// Reaper does the duty of PID 1 and of a subreaper: it reaps every zombie among the children of this process, also those that were not
// started here but left behind by a descendant. The exit status of a Process is never lost to it.
//
// It does not know children that were started by other means than this package, os/exec for one: it
// would reap them first, and their Wait would fail. Do not use such means in a process that runs a Reaper.
type Reaper struct {
	onReap func(pid int, e Exit) // immutable
	chld   chan os.Signal
	stop   chan struct{} // closed by Close
	once   sync.Once
	ended  sync.WaitGroup
	orphan atomic.Uint64
}

// StartReaper starts to reap; zombies that are there already included. onReap, if not nil, is told of each orphan reaped, on the
// reaper's goroutine; it is not told of a Process. One Reaper a program is enough; Close ends it.
func StartReaper(onReap func(pid int, e Exit)) *Reaper {
	r := &Reaper{onReap: onReap, chld: make(chan os.Signal, 1), stop: make(chan struct{})}
	signal.Notify(r.chld, syscall.SIGCHLD)
	r.ended.Add(1)
	go func() {
		defer r.ended.Done()
		r.run()
	}()
	return r
}

// run sweeps at each SIGCHLD. Signals of one number merge while pending, so one of them means one child or many; and one that
// arrives during a sweep waits in the channel.
func (r *Reaper) run() {
	for {
		for r.reapOne() {
		}
		select {
		case <-r.chld:
		case <-r.stop:
			return
		}
	}
}

// reapOne reaps one zombie, and reports whether there was one. It looks first, without reaping (WNOWAIT), whose it is. As
// waitid shows the same zombie until it is reaped, that of a Process is reaped here too, on the Process's behalf.
func (r *Reaper) reapOne() bool {
	pid, ws, orphan, found := children.reapAny()
	if orphan {
		r.orphan.Add(1)
		if r.onReap != nil {
			r.onReap(pid, exitOf(ws))
		}
	}
	return found
}

// reapAny reaps one zombie. orphan: it belongs to no Process.
func (reg *registry) reapAny() (pid int, ws syscall.WaitStatus, orphan, found bool) {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	pid, _, err := waitInfo(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
	if err != nil {
		return 0, 0, false, false
	}
	for _, p := range reg.byPID[pid] {
		if reg.reap(p) {
			return pid, 0, false, true
		}
	}
	ws, orphan = waitID(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG)
	return pid, ws, orphan, orphan
}

// Orphans is the number of zombies reaped that were no Process.
func (r *Reaper) Orphans() uint64 { return r.orphan.Load() }

// Close stops reaping and waits for the goroutine to end. The Processes go on reaping their own.
func (r *Reaper) Close() {
	r.once.Do(func() {
		signal.Stop(r.chld)
		close(r.stop)
	})
	r.ended.Wait()
}

// HasChildren reports whether this process has any child, living or zombie: what PID 1 asks before it exits with nothing left behind.
func HasChildren() bool {
	_, _, err := waitInfo(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
	return !errors.Is(err, unix.ECHILD)
}
