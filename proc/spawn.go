package proc

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// NotifyEnv is the environment variable that tells a child started with Spec.Notify on which descriptor to say that it is ready.
const NotifyEnv = "TRAFFICD_NOTIFY_FD"

// Spec says what to start and what it inherits. The zero value of each field means the least: no arguments, no descriptors, no bond.
type Spec struct {
	Exe   *Executable // what to run; Start does not close it
	Path  string      // what to run if Exe is nil: a path, not searched in PATH
	Argv0 string      // what ps shows; empty: the executable's path
	Args  []string    // without argv[0]
	Env   []string    // nil: this process's environment. NotifyEnv is taken out and set anew if Notify
	Dir   string      // working directory; empty: this process's

	// The child's descriptors 0, 1, 2; nil: /dev/null. Start closes none of them.
	Stdin, Stdout, Stderr *os.File
	// Files become the child's descriptors 3, 4, …, without close-on-exec; nil: that number stays closed. Start
	// closes none of them and does not change their blocking mode.
	Files []*os.File

	// Notify gives the child the write end of a pipe (after Files), on which NotifyReady and NotifyError speak.
	Notify bool
	// notifyTo is such an end made by somebody else, who also reads the other one. Not with Notify.
	notifyTo *os.File

	Setsid  bool // new session and group, no controlling terminal
	Setpgid bool // new process group, led by the child, in the same session

	// DeathSig is sent by the kernel when the parent THREAD that forked dies (PR_SET_PDEATHSIG(2const)), which in Go
	// may be long before the process does. Start therefore forks from a thread that it keeps to the end if DeathSig is
	// set. 0: none; a child then survives its parent, which is what custody and adoption need.
	DeathSig syscall.Signal

	// Sys gives what is not named above (namespaces, credentials, chroot). Start copies it; the fields above and PidFD win.
	Sys *syscall.SysProcAttr
}

// Start starts a process and watches it. It returns when the child has executed its program; whether it is ready is another
// matter, see Process.Ready. Start marks every descriptor of this process above 2 close-on-exec, so the child has those
// of the Spec and no others.
func Start(s Spec) (*Process, error) {
	claimNotify() // our own notice pipe must not leak into the child and keep it open there
	p, err := s.start()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name(), err)
	}
	return p, nil
}

func (s *Spec) name() string {
	if s.Exe != nil {
		return s.Exe.path
	}
	return s.Path
}

func (s *Spec) start() (*Process, error) {
	null, err := openNull()
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{s.Stdin, s.Stdout, s.Stderr}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	files = append(files, s.Files...)
	env := s.environ()

	var notice *noticeReader
	to := s.notifyTo
	if s.Notify {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make notify pipe: %w", err)
		}
		defer w.Close()
		notice, to = newNoticeReader(r), w
	}
	if to != nil {
		env = append(env, NotifyEnv+"="+strconv.Itoa(len(files)))
		files = append(files, to)
	}
	id, pidfd, err := s.fork(files, env)
	if err != nil {
		notice.close()
		return nil, err
	}
	return id.watch(pidfd, notice), nil
}

// unregistered is a child that children does not know yet; its lock is held.
type unregistered struct{ Identity }

func (s *Spec) environ() []string {
	from := s.Env
	if from == nil {
		from = os.Environ()
	}
	env := make([]string, 0, len(from)+1)
	for _, kv := range from {
		if !strings.HasPrefix(kv, NotifyEnv+"=") {
			env = append(env, kv)
		}
	}
	return env
}

// fork makes the child. On success children.mu is held until the caller has registered it, so that no reaper sees a
// child that it could take for an orphan.
func (s *Spec) fork(files []*os.File, env []string) (unregistered, int, error) {
	none := unregistered{}
	fds := make([]uintptr, len(files))
	maxFD := 0
	for i, f := range files {
		fds[i] = ^uintptr(0)
		if f == nil {
			continue
		}
		fd, err := rawFD(f)
		if err != nil {
			return none, -1, fmt.Errorf("descriptor %d: %w", i, err)
		}
		fds[i] = uintptr(fd)
		maxFD = max(maxFD, fd)
	}
	path, argv0, done := s.Path, s.Argv0, func() {}
	if s.Exe != nil {
		var err error
		if path, done, err = s.Exe.launchPath(len(fds), maxFD); err != nil {
			return none, -1, err
		}
	}
	defer done()
	if argv0 == "" {
		argv0 = s.name()
	}

	sys := syscall.SysProcAttr{}
	if s.Sys != nil {
		sys = *s.Sys
	}
	pidfd := -1
	sys.PidFD = &pidfd
	sys.Setsid = sys.Setsid || s.Setsid
	sys.Setpgid = sys.Setpgid || s.Setpgid
	if s.DeathSig != 0 {
		sys.Pdeathsig = s.DeathSig
	}
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: env, Files: fds, Sys: &sys}
	argv := append([]string{argv0}, s.Args...)

	// What this process itself inherited from a careless parent is not passed on. Descriptors the child is to have lose
	// the flag when it moves them into place. Where the kernel knows no such call (before 5.11), they do pass.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)

	children.mu.Lock()
	pid, err := forkExec(path, argv, attr)
	runtime.KeepAlive(files)
	if err == nil && pidfd < 0 {
		// A kernel without CLONE_PIDFD. The child is ours and not reaped, so its PID cannot be anybody else's.
		pidfd, err = unix.PidfdOpen(pid, 0)
		if err != nil {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, 0, nil)
			err = fmt.Errorf("open pidfd: %w", err)
		}
	}
	if err != nil {
		children.mu.Unlock()
		return none, -1, err
	}
	id, err := Identify(pid)
	if err != nil {
		id = Identity{PID: pid} // no /proc
	}
	return unregistered{id}, pidfd, nil
}

func (u unregistered) watch(pidfd int, notice *noticeReader) *Process {
	p := newProcess(u.Identity, pidfd, notice)
	children.add(p)
	children.mu.Unlock()
	p.start()
	return p
}

// forkExec forks from a thread that lives as long as the process if the child is to have a parent-death signal.
func forkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if attr.Sys.Pdeathsig == 0 {
		return syscall.ForkExec(path, argv, attr)
	}
	forkerOnce.Do(func() {
		go func() {
			runtime.LockOSThread()
			for f := range forker {
				f()
			}
		}()
	})
	ended := make(chan struct{})
	forker <- func() {
		pid, err = syscall.ForkExec(path, argv, attr)
		close(ended)
	}
	<-ended
	return pid, err
}

// The forker is the one goroutine of this package that nobody can end: its thread is the parent its children's death
// signal is bound to, so it must not end before the process.
var (
	forkerOnce sync.Once
	forker     = make(chan func())
)

// rawFD returns a file's descriptor without setting it to blocking mode, which (*os.File).Fd may do to everyone who shares
// the open file. The caller keeps f alive and open.
func rawFD(f *os.File) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if err := c.Control(func(raw uintptr) { fd = int(raw) }); err != nil {
		return -1, err
	}
	return fd, nil
}

// openNull opens /dev/null, or where there is none (a bare chroot) something that is as empty and takes as little: a sealed memfd.
func openNull() (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		return f, nil
	}
	fd, merr := unix.MemfdCreate("null", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if merr != nil {
		return nil, errors.Join(err, merr)
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, merr := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); merr != nil {
		unix.Close(fd)
		return nil, errors.Join(err, merr)
	}
	return os.NewFile(uintptr(fd), os.DevNull), nil
}
