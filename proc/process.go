package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit says how a process ended.
type Exit struct {
	Code       int            // exit code, if Signal is 0
	Signal     syscall.Signal // what killed it; 0: it exited by itself
	CoreDumped bool           // with Signal
	Known      bool           // false: it has not ended, or it was not our child and the kernel did not tell
}

// String is like os.ProcessState's: "exit status 1", "signal: killed (core dumped)", "exit status unknown".
func (e Exit) String() string {
	switch {
	case !e.Known:
		return "exit status unknown"
	case e.Signal != 0 && e.CoreDumped:
		return "signal: " + e.Signal.String() + " (core dumped)"
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	}
	return "exit status " + strconv.Itoa(e.Code)
}

// Process is a process that is watched through a pidfd: one started here, or one adopted. Its methods may be called from any
// goroutine. A goroutine watches it until it has ended or Release is called.
type Process struct {
	id   Identity // immutable
	file *os.File // the pidfd, non-blocking; immutable, closed by Release

	notice *noticeReader // nil without Spec.Notify

	ready chan struct{} // closed by notice; never without one
	done  chan struct{} // closed by the watching goroutine, last
	ended sync.WaitGroup

	mu   sync.Mutex
	exit Exit // complete before done is closed, or found out later by Exit
}

// newProcess takes ownership of pidfd and notice.
func newProcess(id Identity, pidfd int, notice *noticeReader) *Process {
	unix.SetNonblock(pidfd, true) // so that os.NewFile hands it to the runtime's poller; PIDFD_NONBLOCK, Linux 5.10
	p := &Process{
		id: id, notice: notice,
		file: os.NewFile(uintptr(pidfd), "pidfd:"+strconv.Itoa(id.PID)),
		done: make(chan struct{}),
	}
	if notice != nil {
		p.ready = notice.ready
	} else {
		p.ready = make(chan struct{})
	}
	return p
}

// start begins to watch. The process is registered with children.
func (p *Process) start() {
	if p.notice != nil {
		p.ended.Add(1)
		go func() {
			defer p.ended.Done()
			p.notice.run()
		}()
	}
	p.ended.Add(1)
	go func() {
		defer p.ended.Done()
		p.watch()
	}()
}

// watch waits for the end. It owns the closing of done.
func (p *Process) watch() {
	defer children.remove(p)
	if !p.awaitExit() {
		return // released
	}
	children.collect(p)
	p.notice.finish() // what the process said before it died is known before done is closed
	close(p.done)
}

// awaitExit waits until the pidfd is readable, which it is when every thread has ended (pidfd_open(2)). It returns false
// if it was closed before.
func (p *Process) awaitExit() bool {
	c, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	exited := false
	err = c.Read(func(fd uintptr) bool {
		exited = readable(int(fd))
		return exited
	})
	if err == nil || errors.Is(err, os.ErrClosed) {
		return exited
	}
	// The runtime's poller did not take the descriptor (a kernel before 5.10): spend a thread.
	for !exited {
		cerr := c.Control(func(fd uintptr) {
			_, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
			exited = perr == nil && readable(int(fd))
		})
		if cerr != nil {
			return false
		}
	}
	return true
}

func readable(fd int) bool {
	pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(pfd, 0)
	return err == nil && n == 1 && pfd[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
}

// Adopt watches a process that somebody else started. startTime is what is known of it (from a lock file, a hello message): the
// error matches ErrStranger if the process with this PID started at another time, and ErrNoProcess if there is none.
//
// With startTime 0 whoever has the PID now is adopted; then the caller must make sure afterwards, with the pidfd already
// open, that this is the process it means (that it still holds the lock, runs the executable).
//
// The end of an adopted process is seen, its exit status usually not (see Exit). It needs no permission to adopt a process,
// only to signal it.
func Adopt(pid int, startTime uint64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = ErrNoProcess
		}
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	return adopt(Identity{pid, startTime}, fd)
}

// AdoptFD is Adopt for a process whose pidfd has been received already, say over a socket or by inheritance. It takes
// ownership of pidfd, also when it fails. id.PID 0 means: whatever process the pidfd is for; the PID is found out.
func AdoptFD(pidfd *os.File, id Identity) (*Process, error) {
	raw, err := rawFD(pidfd)
	if err != nil {
		return nil, fmt.Errorf("adopt by pidfd: %w", err)
	}
	fd, err := unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, 0)
	pidfd.Close()
	if err != nil {
		return nil, fmt.Errorf("adopt by pidfd: %w", err)
	}
	pid, err := pidOf(fd)
	switch {
	case err == nil && id.PID != 0 && pid != id.PID:
		err = fmt.Errorf("%w: process %d", ErrStranger, pid)
	case err == nil:
		id.PID = pid
	case errors.Is(err, ErrNoProc) && id.PID != 0:
		err = nil // nobody can tell; take the caller's word
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("adopt by pidfd: %w", err)
	}
	return adopt(id, fd)
}

// pidOf asks the kernel whose pidfd this is.
func pidOf(fd int) (int, error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID} // Linux 6.13
	switch err := unix.IoctlPidfdInfo(fd, &info); err {
	case nil:
		return int(info.Pid), nil
	case unix.ESRCH:
		return 0, ErrNoProcess
	case unix.EBADF:
		return 0, err
	}
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, ErrNoProc
	}
	return parseFdinfoPID(b)
}

// parseFdinfoPID finds the line "Pid:" of a pidfd's fdinfo (pidfd_open(2)); -1 there means that it has been reaped.
func parseFdinfoPID(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		v, ok := bytes.CutPrefix(line, []byte("Pid:"))
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(string(bytes.TrimSpace(v)))
		if err != nil {
			return 0, fmt.Errorf("malformed fdinfo: %w", err)
		}
		if pid <= 0 {
			return 0, ErrNoProcess
		}
		return pid, nil
	}
	return 0, errors.New("not a pidfd")
}

// adopt owns fd.
func adopt(id Identity, fd int) (*Process, error) {
	found, err := Identify(id.PID)
	switch {
	case errors.Is(err, ErrNoProc):
		found, err = id, nil // unknown stays unknown
	case err == nil && id.StartTime != 0 && found.StartTime != id.StartTime:
		err = fmt.Errorf("%w: it started at tick %d, not %d", ErrStranger, found.StartTime, id.StartTime)
	case err == nil && !exists(fd):
		// What Identify saw is the pidfd's process only if that one still has its PID now.
		err = ErrNoProcess
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, err)
	}
	p := newProcess(found, fd, nil)
	children.mu.Lock()
	children.add(p)
	children.mu.Unlock()
	p.start()
	return p, nil
}

// exists reports whether the pidfd's process still has its PID: it lives or is a zombie.
func exists(fd int) bool {
	err := unix.PidfdSendSignal(fd, 0, nil, 0)
	return err == nil || err == unix.EPERM
}

// PID returns the process ID. It is for messages and for questions; to signal the process use Signal.
func (p *Process) PID() int { return p.id.PID }

// Identity returns PID and start time. StartTime is 0 if /proc was not mounted.
func (p *Process) Identity() Identity { return p.id }

// Ready is closed when the process has said that it is ready (NotifyReady). It is never closed for an adopted process or
// one started without Notify, or when the process reports an error or dies instead; select on Done too.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Done is closed when the process has ended and, if it is our child, has been reaped. After that Exit and Refusal are final.
// It is not closed by Release.
func (p *Process) Done() <-chan struct{} { return p.done }

// Refusal is what the process said with NotifyError, nil if it did not (yet). It matches *RefusedError.
func (p *Process) Refusal() error {
	return p.notice.refusal(p.id.PID)
}

// WaitReady waits until the process is ready: nil. Otherwise it says why that will not happen: a *RefusedError with the
// reason the process gave, a *DiedError if it died without giving one, or the cause of ctx's end.
func (p *Process) WaitReady(ctx context.Context) error {
	var refused <-chan struct{}
	if p.notice != nil {
		refused = p.notice.refused
	}
	select {
	case <-p.ready:
		return nil
	case <-refused:
		return p.Refusal()
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for process %d: %w", p.id.PID, context.Cause(ctx))
	}
	select {
	case <-p.ready: // it was ready, and then died
		return nil
	default:
	}
	if err := p.Refusal(); err != nil {
		return err
	}
	return &DiedError{PID: p.id.PID, Exit: p.Exit()}
}

// DiedError: a process died before it was ready, and gave no reason.
type DiedError struct {
	PID  int
	Exit Exit
}

func (e *DiedError) Error() string {
	return fmt.Sprintf("process %d died before it was ready: %v", e.PID, e.Exit)
}

// Exit says how the process ended; before Done is closed Known is false. The status of one that is not our child is known
// if the kernel keeps it in the pidfd (Linux 6.15), and only from the moment its parent has reaped it.
func (p *Process) Exit() Exit {
	select {
	case <-p.done:
	default:
		return Exit{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.exit.Known {
		p.exit = p.askExit()
	}
	return p.exit
}

func (p *Process) askExit() (e Exit) {
	c, err := p.file.SyscallConn()
	if err != nil {
		return Exit{}
	}
	c.Control(func(fd uintptr) {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if unix.IoctlPidfdInfo(int(fd), &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			e = exitOf(syscall.WaitStatus(info.Exit_code))
		}
	})
	return e
}

func exitOf(ws syscall.WaitStatus) Exit {
	if ws.Signaled() {
		return Exit{Signal: ws.Signal(), CoreDumped: ws.CoreDump(), Known: true}
	}
	return Exit{Code: ws.ExitStatus(), Known: true}
}

// Signal sends sig through the pidfd, so it reaches this process or nobody. The error matches ErrNoProcess if it has ended and
// has been reaped; signalling a zombie succeeds, as it does for kill(2). Signal 0 only asks.
func (p *Process) Signal(sig syscall.Signal) error { return p.send(sig, 0) }

// SignalGroup sends sig to the process group that this process leads (Spec.Setpgid or Setsid). The error matches
// ErrNoProcess if it leads none, so that no group somebody else made is ever hit, and errors.ErrUnsupported
// before Linux 6.9.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	return p.send(sig, unix.PIDFD_SIGNAL_PROCESS_GROUP)
}

func (p *Process) send(sig syscall.Signal, flags int) error {
	c, err := p.file.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, flags) })
		err = errors.Join(err, cerr)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		err = ErrNoProcess
	case errors.Is(err, unix.EINVAL) && flags != 0:
		err = errors.ErrUnsupported
	}
	return fmt.Errorf("signal process %d with %v: %w", p.id.PID, sig, err)
}

// Exe returns the executable the process runs now. The answer is about this process and not about one that has taken over its PID.
func (p *Process) Exe() (FileID, error) {
	id, err := ExeOf(p.id.PID)
	if err != nil {
		return FileID{}, err
	}
	return id, p.stillThere()
}

// Stat returns what /proc says about the process now. As for Exe, it is about no other one.
func (p *Process) Stat() (Stat, error) {
	st, err := ReadStat(p.id.PID)
	if err != nil {
		return Stat{}, err
	}
	return st, p.stillThere()
}

// stillThere is asked after a question by PID: if the process has its PID now, it had it then.
func (p *Process) stillThere() error {
	err := p.Signal(0)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// File returns a duplicate of the pidfd, close-on-exec, to be passed to another process. The caller closes it.
func (p *Process) File() (*os.File, error) {
	raw, err := rawFD(p.file)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd of %d: %w", p.id.PID, err)
	}
	fd, err := unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd of %d: %w", p.id.PID, err)
	}
	return os.NewFile(uintptr(fd), p.file.Name()), nil
}

// Release stops watching, without harm to the process, and waits for the goroutines to end. Done is not closed by it, and Signal
// fails afterwards. A child of ours that ends after Release stays a zombie until a Reaper or the end of this process.
func (p *Process) Release() {
	p.file.Close()
	p.notice.close()
	p.ended.Wait()
}

// Escalation says how Terminate ends a process.
type Escalation struct {
	Grace      time.Duration  // between TERM and the next step; 0 or less: no TERM at all
	CoreSignal syscall.Signal // sent after Grace to leave stacks or a core behind (QUIT, ABRT); 0: none
	CoreGrace  time.Duration  // between CoreSignal and KILL: time to write them

	// Sent, if set, is called after each signal sent, on the goroutine of Terminate.
	Sent func(sig syscall.Signal)
	// Warn, if set, is called each WarnEvery (0: 60 s) that KILL has not helped yet, with the time since KILL:
	// the process hangs in the kernel, and all that is left is to tell somebody.
	Warn      func(since time.Duration)
	WarnEvery time.Duration
}

// Terminate ends the process: TERM, grace, core signal if any, KILL; and then waits until it is gone. It works on a stopped process,
// which takes no notice of TERM but dies of KILL; it is not continued, for it might do harm if it ran again.
//
// It returns nil when the process has ended (Done is closed), the cause of ctx's end if that comes first, in which case
// no further signal is sent, or the error of a signal that could not be sent (permission).
func (p *Process) Terminate(ctx context.Context, e Escalation) error {
	if e.Grace > 0 {
		if over, err := p.step(ctx, &e, syscall.SIGTERM, e.Grace); over {
			return err
		}
	}
	if e.CoreSignal != 0 {
		if over, err := p.step(ctx, &e, e.CoreSignal, e.CoreGrace); over {
			return err
		}
	}
	every := e.WarnEvery
	if every <= 0 {
		every = 60 * time.Second
	}
	began := time.Now()
	for sig := syscall.SIGKILL; ; sig = 0 {
		if over, err := p.step(ctx, &e, sig, every); over {
			return err
		}
		if e.Warn != nil {
			e.Warn(time.Since(began))
		}
	}
}

// step sends a signal (0: none) and waits. over: there is nothing more to do.
func (p *Process) step(ctx context.Context, e *Escalation, sig syscall.Signal, wait time.Duration) (over bool, err error) {
	if err := ctx.Err(); err != nil {
		return true, fmt.Errorf("terminate process %d: %w", p.id.PID, context.Cause(ctx))
	}
	if sig != 0 {
		switch err := p.Signal(sig); {
		case err == nil:
			if e.Sent != nil {
				e.Sent(sig)
			}
		case !errors.Is(err, ErrNoProcess): // gone is what we want; done will be closed
			return true, err
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-p.done:
		return true, nil
	case <-ctx.Done():
		return true, fmt.Errorf("terminate process %d: %w", p.id.PID, context.Cause(ctx))
	case <-t.C:
		return false, nil
	}
}
