package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemonEnv tells a process that it is part of a Daemonize: "announce" in the daemon, otherwise "UMASK FILES" in the
// middle process, with the umask in octal and the number of descriptors to pass on.
const daemonEnv = "TRAFFICD_DAEMON"

const announce = "announce"

// DaemonSpec says what to run as a daemon.
type DaemonSpec struct {
	Exe   *Executable // what to run, which calls DaemonStage first thing in main; usually OpenSelf's
	Argv0 string
	Args  []string // without argv[0]. Paths must be absolute: the working directory changes
	Env   []string // nil: this process's environment
	Dir   string   // working directory; empty: "/", so that the daemon keeps no file system from being unmounted

	// Umask of the daemon; 0: 022. So a log or a socket directory can be read by the monitoring of the host, and written
	// by nobody else, however the umask of the shell it was started from was; what is secret gets its mode explicitly.
	Umask int

	Output *os.File   // standard output and error: a log, opened with O_APPEND; nil: /dev/null
	Files  []*os.File // descriptors 3, 4, … of the daemon
}

// Daemonize starts a daemon and waits until it says that it is ready (NotifyReady): then it returns who that is. Otherwise it
// returns why not: a *RefusedError with what the daemon said (NotifyError), a *DiedError if it died without a word, or the cause
// of ctx's end, in which case the daemon has been sent TERM.
//
// The daemon is not our child. As it is done by tradition (daemon(7)), a middle process makes a new session, sets umask and
// working directory, starts the daemon and exits; so the daemon has no controlling terminal, can get none because it leads no
// session, and has init (or a subreaper) as its parent. Input is /dev/null.
//
// Go cannot fork without exec: both are made by executing Exe, which must call DaemonStage.
func Daemonize(ctx context.Context, d DaemonSpec) (Identity, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return Identity{}, fmt.Errorf("daemonize: make notify pipe: %w", err)
	}
	n := newNoticeReader(r)
	middle, err := Start(d.middle(w))
	w.Close()
	if err != nil {
		r.Close()
		return Identity{}, fmt.Errorf("daemonize: %w", err)
	}
	defer middle.Release()
	go n.run()
	return awaitDaemon(ctx, n, middle)
}

func (d *DaemonSpec) middle(w *os.File) Spec {
	env := d.Env
	if env == nil {
		env = os.Environ()
	}
	umask := d.Umask
	if umask == 0 {
		umask = 0o022
	}
	dir := d.Dir
	if dir == "" {
		dir = "/"
	}
	stage := daemonEnv + "=" + strconv.FormatInt(int64(umask), 8) + " " + strconv.Itoa(len(d.Files))
	return Spec{
		Exe: d.Exe, Argv0: d.Argv0, Args: d.Args, Dir: dir,
		Env:    append(env[:len(env):len(env)], stage),
		Stdout: d.Output, Stderr: d.Output, Files: d.Files,
		Setsid: true, notifyTo: w,
	}
}

func awaitDaemon(ctx context.Context, n *noticeReader, middle *Process) (Identity, error) {
	defer func() {
		// It has nothing to do any more, and it must not stay a zombie.
		middle.Signal(syscall.SIGKILL)
		<-middle.Done()
	}()
	defer n.stop()
	select {
	case <-n.over: // it reads no further once the daemon has decided, or nobody is left to
	case <-ctx.Done():
		id := endDaemon(n, middle)
		return id, fmt.Errorf("daemonize: %w", context.Cause(ctx))
	}
	id := n.who()
	if err := n.refusal(id.PID); err != nil {
		return id, err
	}
	select {
	case <-n.ready:
	default:
		if id.PID != 0 {
			return id, &DiedError{PID: id.PID}
		}
		<-middle.Done() // it never came to start the daemon
		return id, &DiedError{PID: middle.PID(), Exit: middle.Exit()}
	}
	if id.PID == 0 {
		return id, errNoStage
	}
	return id, nil
}

// errNoStage: the middle process went on as if it were the daemon. It is killed.
var errNoStage = errors.New("daemonize: the program does not call proc.DaemonStage")

// introduction bounds how long endDaemon waits for a daemon to say who it is, which is the first thing it does.
const introduction = 10 * time.Second

// endDaemon ends a daemon that nobody will wait for. Once the middle process is dead, the daemon either exists, and will
// introduce itself, or never will, and the pipe ends. It may be in the middle of starting: it gets TERM, not KILL.
func endDaemon(n *noticeReader, middle *Process) Identity {
	middle.Signal(syscall.SIGKILL)
	<-middle.Done()
	limit := time.NewTimer(introduction)
	defer limit.Stop()
	select {
	case <-n.known:
	case <-n.over:
	case <-limit.C: // stopped, presumably; NotifyReady will tell it that nobody waits
	}
	id := n.who()
	if id.PID == 0 {
		return id
	}
	if p, err := Adopt(id.PID, id.StartTime); err == nil {
		p.Signal(syscall.SIGTERM)
		p.Release()
	}
	return id
}

// who returns the daemon as it has introduced itself; zero if it has not.
func (n *noticeReader) who() Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.named
}

// stop ends run and waits for it.
func (n *noticeReader) stop() {
	n.close()
	<-n.over
}

// DaemonStage does the child's side of Daemonize; call it first thing in main. In the middle process it does not return.
// In the daemon, and in a process that has nothing to do with Daemonize, it returns at once.
func DaemonStage() {
	stage, ok := os.LookupEnv(daemonEnv)
	if !ok {
		return
	}
	os.Unsetenv(daemonEnv)
	if stage == announce {
		announceSelf()
		return
	}
	if err := startDaemon(stage); err != nil {
		NotifyError(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// announceSelf is the daemon's first word to the process that waits for it.
func announceSelf() {
	fd, err := claimNotify()
	if err != nil || fd < 0 {
		return
	}
	self := Self()
	// Nobody there to read it is no reason not to start; NotifyReady will tell.
	writeLine(fd, fmt.Sprintf("PID %d %d\n", self.PID, self.StartTime))
}

// startDaemon is the middle process: leader of the new session, it makes the daemon, which is not.
func startDaemon(stage string) error {
	umask, files, err := parseStage(stage)
	if err != nil {
		return err
	}
	fd, err := claimNotify()
	if err != nil {
		return err
	}
	if fd < 0 {
		return errors.New("start daemon: nobody to notify")
	}
	syscall.Umask(umask)
	exe, err := OpenSelf()
	if err != nil {
		return err
	}
	s := Spec{
		Exe: exe, Argv0: os.Args[0], Args: os.Args[1:], Env: append(os.Environ(), daemonEnv+"="+announce),
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
	for i := range files {
		s.Files = append(s.Files, os.NewFile(uintptr(3+i), "inherited:"+strconv.Itoa(3+i)))
	}
	// A copy, as the descriptor itself is NotifyError's.
	to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start daemon: duplicate notify pipe: %w", err)
	}
	s.notifyTo = os.NewFile(uintptr(to), "notify")
	_, err = Start(s)
	return err
}

// parseStage parses what middle has put into daemonEnv.
func parseStage(s string) (umask, files int, err error) {
	u, n, ok := strings.Cut(s, " ")
	mask, uerr := strconv.ParseUint(u, 8, 9)
	count, nerr := strconv.ParseUint(n, 10, 16)
	if !ok || uerr != nil || nerr != nil {
		return 0, 0, fmt.Errorf("start daemon: malformed %s=%q", daemonEnv, s)
	}
	return int(mask), int(count), nil
}
