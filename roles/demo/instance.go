package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/roles/internal/control"
	"trafficd/roles/internal/runroot"
)

// Time limits for what happens at once on a machine that is well.
const (
	startTime = 20 * time.Second
	stopTime  = 15 * time.Second
	pollEvery = 20 * time.Millisecond
)

// instance is a trafficd of our own.
type instance struct {
	dir    string // temporary; everything is below
	addr   string // where clients connect
	root   runroot.Root
	exe    *proc.Executable // ours: the instance runs what we run
	client *control.Client
	reaper *proc.Reaper
}

// settings make the instance bear being killed all the time: see the package
// comment.
var settings = []string{
	"TRAFFICD_SUPERVISION_RESTART_BUDGET=6000",
	"TRAFFICD_SUPERVISION_BACKOFF_MAX=10ms",
	"TRAFFICD_SUPERVISION_FLAP_LIMIT=1000",
	"TRAFFICD_CACHE_DISK_SIZE=64MiB",
	"TRAFFICD_FORWARD_ALLOW=127.0.0.1",
	"TRAFFICD_FORWARD_TO=127.0.0.1",
	"TRAFFICD_FORWARD_CONNECT_PORTS=1-65535",
}

// startInstance starts an instance in front of the origin and waits until it
// serves. The caller calls stop, and remove, in any case.
func startInstance(ctx context.Context, origin string, threads int) (*instance, error) {
	dir, err := os.MkdirTemp("", "trafficd-demo-")
	if err != nil {
		return nil, err
	}
	i := &instance{dir: dir}
	if err := i.start(ctx, origin, threads); err != nil {
		return i, fmt.Errorf("start an instance: %w", err)
	}
	return i, nil
}

func (i *instance) start(ctx context.Context, origin string, threads int) error {
	var err error
	if i.root, err = runroot.New(filepath.Join(i.dir, "run")); err != nil {
		return err
	}
	i.client = control.Dial(i.root.ControlSocket())
	if i.exe, err = proc.OpenSelf(); err != nil {
		return err
	}
	if i.addr, err = freeAddr(); err != nil {
		return err
	}
	log, err := os.OpenFile(i.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := proc.SetSubreaper(true); err != nil {
		return err
	}
	i.reaper = proc.StartReaper(nil)
	p, err := proc.Start(proc.Spec{
		Exe: i.exe, Argv0: "trafficd-cop", Env: environment(), Stdout: log, Stderr: log, Notify: true,
		// Not in our process group: a Ctrl-C is for us alone.
		Setsid: true,
		// The first cop at least does not outlive us, whatever becomes of us.
		DeathSig: syscall.SIGTERM,
		Args: []string{"cop", "--foreground", i.mark(), "--listen=" + i.addr, "--map=/=" + origin,
			"--autoconf=off", "--threads=" + strconv.Itoa(threads)},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it is not ready after %v", startTime))
	defer cancel()
	if err := p.WaitReady(ctx); err != nil {
		return err
	}
	return i.waitReady(ctx)
}

// mark is the argument that each process of the instance has, and no other.
func (i *instance) mark() string { return "--run-root=" + i.root.Dir() }

func (i *instance) log() string { return filepath.Join(i.dir, "log") }

// environment is ours without what would configure or supervise an instance.
func environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "TRAFFICD_"), strings.HasPrefix(name, "LISTEN_"),
			name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == "WATCHDOG_PID":
		default:
			env = append(env, kv)
		}
	}
	return append(env, settings...)
}

// freeAddr is an address that nobody listens on. Clients' own ports are given to
// connections of the moment; the instance binds before there are any.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// waitReady waits until all roles are ready, and there is a spare for each.
func (i *instance) waitReady(ctx context.Context) error {
	return i.poll(ctx, func() bool {
		s, err := i.client.Status(ctx)
		return err == nil && s.Cop.State == "ready" && s.Manager.State == "ready" && s.Server.State == "ready" &&
			i.has(standby) && i.kept()
	})
}

// kept reports whether the server that serves has a keeper: that of a dead one may still be there.
func (i *instance) kept() bool {
	owner, held, err := lockfile.Holder(i.root.ServerLock())
	if err != nil || !held {
		return false
	}
	found, err := i.first(func(c *proc.Candidate) bool { return c.Comm == keeperComm && c.PPID == owner.PID })
	if err != nil {
		return false
	}
	found.Release()
	return true
}

const keeperComm = "traffic_keeper"

func (i *instance) has(target string) bool {
	p, err := i.find(target)
	if err != nil {
		return false
	}
	p.Release()
	return true
}

func (i *instance) poll(ctx context.Context, cond func() bool) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for !cond() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// errNobody: the target is not there now.
var errNobody = errors.New("nobody is there")

// find adopts a target that belongs to the instance. The caller releases it.
func (i *instance) find(target string) (*proc.Process, error) {
	switch target {
	case cop:
		return i.holder(i.root.CopLock())
	case manager:
		return i.holder(i.root.ManagerLock())
	case server:
		return i.holder(i.root.ServerLock())
	}
	return i.other(target)
}

// holder adopts whoever holds the lock, as the kernel says. It is the one if it
// runs our executable and still holds the lock when its pidfd is open.
func (i *instance) holder(lock string) (*proc.Process, error) {
	owner, held, err := lockfile.Holder(lock)
	if err != nil {
		return nil, err
	}
	if !held || !owner.FromKernel || owner.PID == 0 {
		return nil, errNobody
	}
	p, err := proc.Adopt(owner.PID, owner.StartTime)
	if errors.Is(err, proc.ErrNoProcess) || errors.Is(err, proc.ErrStranger) {
		return nil, errNobody
	}
	if err != nil {
		return nil, err
	}
	exe, err := p.Exe()
	again, held, err2 := lockfile.Holder(lock)
	if err != nil || err2 != nil || exe != i.exe.ID() || !held || again.PID != owner.PID {
		p.Release()
		return nil, errNobody
	}
	return p, nil
}

// other adopts a process of the instance that holds no lock: a standby or a
// keeper. Which of the two tells the name that it has given itself.
func (i *instance) other(target string) (*proc.Process, error) {
	comm, serving := "traffic_server", 0
	if target == keeper {
		comm = keeperComm
	} else if owner, held, err := lockfile.Holder(i.root.ServerLock()); err != nil {
		return nil, err
	} else if held {
		serving = owner.PID
	}
	return i.first(func(c *proc.Candidate) bool { return c.Comm == comm && c.PID != serving })
}

// first adopts the first process of the instance that matches.
func (i *instance) first(match func(*proc.Candidate) bool) (*proc.Process, error) {
	one := false
	found, err := proc.FindStrays(i.exe.ID(), func(c *proc.Candidate) bool {
		is := !one && match(c) && slices.Contains(c.Args, i.mark())
		one = one || is
		return is
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errNobody
	}
	return found[0], nil
}

// processes are all that belong to the instance.
func (i *instance) processes() ([]*proc.Process, error) {
	return proc.FindStrays(i.exe.ID(), func(c *proc.Candidate) bool { return slices.Contains(c.Args, i.mark()) })
}

// stop asks the instance to stop and returns when none of its processes is left;
// an error says that some had to be killed.
func (i *instance) stop() error {
	if i.reaper == nil {
		return nil // it never started
	}
	defer i.reaper.Close()
	defer i.exe.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), stopTime, fmt.Errorf("it has not stopped after %v", stopTime))
	defer cancel()
	asked := map[int]bool{}
	err := i.poll(ctx, func() bool {
		// A cop that has just died has a successor, who has to be asked, too.
		if p, err := i.holder(i.root.CopLock()); err == nil {
			if !asked[p.PID()] && p.Signal(syscall.SIGINT) == nil {
				asked[p.PID()] = true
			}
			p.Release()
		}
		return i.count() == 0
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; %d of its processes were killed", err, i.killAll())
}

func (i *instance) count() int {
	all, err := i.processes()
	if err != nil {
		return -1
	}
	for _, p := range all {
		p.Release()
	}
	return len(all)
}

// killAll kills whatever belongs to the instance until there is nothing left, and
// returns how many there were.
func (i *instance) killAll() int {
	killed := 0
	for {
		all, err := i.processes()
		if err != nil || len(all) == 0 {
			return killed
		}
		for _, p := range all {
			if p.Signal(syscall.SIGKILL) == nil {
				<-p.Done()
				killed++
			}
			p.Release()
		}
	}
}

// remove removes what is on disk.
func (i *instance) remove() error { return os.RemoveAll(i.dir) }
