package queue

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is what a descriptor in custody is. Kinds are bits, so that they can be
// asked for together.
type Kind uint32

const (
	// KindTCP is a TCP socket that does not listen.
	KindTCP Kind = 1 << iota
	// KindPipe is either end of a pipe or FIFO.
	KindPipe
	// KindUnix is a Unix socket of any type.
	KindUnix
	// KindListener is a TCP socket that listens. Listeners are usually held
	// elsewhere and need no custody.
	KindListener
	// KindListed is a descriptor of none of the kinds above that was named in
	// KeeperOptions.Extra.
	KindListed
)

// maxListed bounds each list of descriptors of KeeperOptions. The keeper
// cannot allocate, and looks through them for every descriptor it finds.
const maxListed = 64

// maxThreads bounds KeeperOptions.Threads: those of a journal's Notices.
const maxThreads = MaxLoops + 1

// KeeperOptions says what a Keeper holds for whom.
type KeeperOptions struct {
	// End is the socket that the descriptors are sent into: an end of a Unix
	// socketpair (SOCK_SEQPACKET or SOCK_STREAM) whose other end a standby
	// receives from. Borrowed: it must stay open, under this number, until the
	// Keeper is Done. It is never sent itself.
	End int
	// Generation is the number of the process that is kept, in every message.
	Generation uint64
	// Kinds is what is sent. Zero: KindTCP | KindPipe.
	Kinds Kind
	// CloseFirst are descriptors that must not outlive the process, lock files
	// above all: while the keeper has the table, a lock in it stays held (see
	// package lockfile). On the death they are closed before anything else.
	// They must be open now; one whose number means another file by then is
	// left alone.
	CloseFirst []int
	// Never are descriptors that are not sent though they are of a kind that
	// is: pipes and sockets that somebody else holds. 0, 1 and 2 always are.
	Never []int
	// Extra are descriptors that are sent whatever they are.
	Extra []int
	// First says which descriptors are sent before all others: those whose byte, by
	// number, is not 0 when the process dies. Their end is marked (Custody.First), so that a
	// successor can go on with what is in progress before it has what is idle. The memory must be
	// inherited by a child and shared with it (MAP_SHARED, not MADV_DONTFORK). Empty: in the order of their
	// numbers.
	First []byte
	// Threads are the death notices of the threads that use descriptors: the
	// keeper sends only after the last of them has died, so that nothing that
	// was accepted in a last system call is missed. Their memory must be
	// inherited by a child (not MADV_DONTFORK). None: the keeper trusts the
	// death of one thread of the process, and waits for that of the process.
	Threads []*Notice
	// Name is the keeper's name as ps -o comm shows it, at most 15 bytes.
	// Empty: traffic_keeper.
	Name string
	// OOMScoreAdj, if not nil, is written to the keeper's oom_score_adj: the
	// server should go first. A wish: without CAP_SYS_RESOURCE it cannot be
	// lowered. See Keeper.OOMError.
	OOMScoreAdj *int
	// Journal, if not nil, names the keeper to a successor from the instant of the clone on: its END is awaited then
	// (Outstanding).
	Journal *Journal
	// Replaced, if not nil, has a keeper that is gone without Stop replaced at once, by the thread that
	// sees it go: each goroutine and each lock on that way would be a time in which nobody keeps anything,
	// and on a busy machine a long one. It is called on that thread, when the other is there.
	Replaced func(gone Sender, why error)
}

// A Keeper is a process that shares this process's descriptor table and does
// nothing but wait for its death, to send what is in the table to a successor.
//
// It is made by a raw clone(2) with CLONE_FILES and without CLONE_VM, and
// never executes a program: exec would give it a table of its own. So it
// holds every socket from the instant this process has it, close is a real
// close, and neither costs anything. What it costs is one clone, some hundred
// kilobytes, and one thread of this process (tend), whose robust futex is the
// keeper's alarm.
//
//	                  ┌─killed: the next one, with Replaced
//	                  ▼ │
//	StartKeeper ─▶ waiting ──Stop──▶ gone (nothing sent)
//	                  │ this process dies, or calls exec
//	                  ▼
//	      close CloseFirst ─▶ wait for Threads ─▶ send kinds, ≤ 253 a message ─▶ END ─▶ gone
//
// The keeper has an own process group and blocks all signals that can be
// blocked, so neither a signal to the server's group nor a mistaken one takes
// it along; SIGKILL to it, cgroup.kill, and the OOM killer under
// memory.oom.group do. Then there must be another (KeeperOptions.Replaced, or
// whoever sees Done without having called Stop starts it). From the death to the
// clone nobody keeps anything: about a millisecond.
//
// What to know of a shared table: a descriptor the server forgot is kept as
// well, until the keeper exits right behind END. Memory is shared copy-on-write
// as after fork: make the keeper early, before the heap is large, and keep
// large mappings out of it (MADV_DONTFORK). No other process may be the
// keeper's reaper while this one lives.
type Keeper struct {
	generation uint64              // immutable
	journal    *Journal            // immutable; nil: none
	replaced   func(Sender, error) // immutable; nil: it is not replaced
	done       chan struct{}

	// Written by tend before done is closed, read after; tend's own before.
	status unix.WaitStatus
	reaped bool
	failed error // why there is no other one

	mu      sync.Mutex  // guards below
	pid     int         // of the present one, or the last
	start   uint64      // likewise
	oomErr  error       // likewise
	stopped bool        // Stop was called
	page    *keeperPage // shared with the keeper; nil once unmapped
}

// StartKeeper makes a Keeper of the calling process.
func StartKeeper(o KeeperOptions) (*Keeper, error) {
	page, err := newKeeperPage(&o)
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	k := &Keeper{generation: o.Generation, journal: o.Journal, replaced: o.Replaced, page: page, done: make(chan struct{})}
	started := make(chan error)
	go k.tend(started, o.OOMScoreAdj)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	return k, nil
}

// tend clones the keeper and waits for its end, on a thread of its own: this
// thread's death is what the keeper listens for, so it must end with the
// process and not before.
func (k *Keeper) tend(started chan<- error, oomScoreAdj *int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	release, err := k.page.own.Register()
	if err != nil {
		k.unmap()
		started <- err
		return
	}
	if err := k.clone(oomScoreAdj); err != nil {
		_ = release()
		k.unmap()
		started <- err
		return
	}
	started <- nil
	k.reap()
	for k.replaced != nil && !k.isStopped() {
		gone, why := k.sender(), k.fate()
		if k.failed = k.clone(oomScoreAdj); k.failed != nil {
			break
		}
		born := time.Now()
		k.replaced(gone, why)
		k.reap()
		if time.Since(born) < shortLife {
			time.Sleep(shortLife)
		}
	}
	_ = release() // on the registering thread it cannot fail
	k.unmap()
	close(k.done)
}

// shortLife is how soon a keeper dies of something that will happen to the next one as well. Then the next one has
// to wait for as long, so that they do not keep a processor busy.
const shortLife = 2 * time.Millisecond

// clone makes the process. Whoever kills this one at any instant finds that there is none, or who it is.
func (k *Keeper) clone(oomScoreAdj *int) error {
	var mark *keptRecord
	at := &k.page.tid
	if k.journal != nil {
		mark = k.journal.prepareKept(k.generation)
		at = mark.tid()
	}
	tid, errno := cloneKeeper(k.page, at)
	if errno != 0 {
		if mark != nil {
			mark.generation.Store(0)
		}
		return fmt.Errorf("clone: %w", errno)
	}
	pid := int(tid)
	start := startTime(pid)
	k.page.start = start
	if mark != nil {
		mark.start.Store(start)
		k.journal.onlyKept(mark)
	}
	var oomErr error
	if oomScoreAdj != nil {
		oomErr = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(*oomScoreAdj)), 0)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pid, k.start, k.oomErr = pid, start, oomErr
	return nil
}

func (k *Keeper) reap() {
	pid := k.PID()
	for {
		_, err := unix.Wait4(pid, &k.status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		// ECHILD: somebody reaps whatever dies here, and was faster.
		k.reaped = err == nil
		return
	}
}

func (k *Keeper) isStopped() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stopped
}

func (k *Keeper) unmap() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.page.unmap()
	k.page = nil
}

// PID is the keeper's process ID, valid until it is gone.
func (k *Keeper) PID() int { return k.sender().PID }

// StartTime is the keeper's start in clock ticks since boot, 0 if /proc does
// not tell. With PID it names the keeper for ever.
func (k *Keeper) StartTime() uint64 { return k.sender().StartTime }

func (k *Keeper) sender() Sender {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Sender{Generation: k.generation, PID: k.pid, StartTime: k.start}
}

// Generation is KeeperOptions.Generation.
func (k *Keeper) Generation() uint64 { return k.generation }

// Done is closed when the keeper is gone, and there is no other in its place.
func (k *Keeper) Done() <-chan struct{} { return k.done }

// Err says why the keeper is gone, once Done is closed: nil after Stop, else
// how it ended, and why there is no other if there should be.
func (k *Keeper) Err() error {
	<-k.done
	return errors.Join(k.fate(), k.failed)
}

// fate is how the last one ended.
func (k *Keeper) fate() error {
	switch {
	case !k.reaped:
		return errors.New("keeper is gone; somebody else reaped it")
	case k.status.Signaled():
		return fmt.Errorf("keeper was killed by signal %d", k.status.Signal())
	case k.status.ExitStatus() != 0:
		return fmt.Errorf("keeper ended with %v", syscall.Errno(k.status.ExitStatus()))
	}
	return nil
}

// OOMError says why KeeperOptions.OOMScoreAdj had no effect, nil if it had.
func (k *Keeper) OOMError() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.oomErr
}

// Stop has the keeper exit without sending anything, and waits until it has.
// For a planned end, when the connections were handed over by other means or
// are done. After Stop this process's death takes its connections along.
func (k *Keeper) Stop() {
	k.mu.Lock()
	k.stopped = true
	if k.page != nil {
		k.page.own.withdraw(WatcherKeeper)
	}
	k.mu.Unlock()
	<-k.done
}

// keeperPage is everything the keeper knows and everything it writes to: one
// shared mapping, made before the clone, so that the keeper needs neither heap
// nor a large stack.
type keeperPage struct {
	own Notice // of tend's thread; the keeper waits for WatcherKeeper

	// Written by the parent before the clone (start: right after it).
	parent     int32
	end        int32
	kinds      Kind
	chunk      int32 // descriptors asked for with one poll
	limit      int32 // no descriptor has this number or a higher one
	nclose     int32
	nnever     int32
	nextra     int32
	nthreads   int32
	nfirst     int32  // bytes of first
	tid        uint32 // of the keeper, from the kernel, when no journal takes it
	generation uint64
	start      uint64
	name       [16]byte
	close      [maxListed]fileIdentity
	never      [maxListed]int32
	extra      [maxListed]int32
	threads    [maxThreads]*uint32 // their keeper's words, in the caller's shared memory
	first      *byte               // in the caller's shared memory

	// Owned by the keeper.
	deadline unix.Timespec
	poll     [1024]unix.PollFd
	stat     syscall.Stat_t
	opt      uint64
	optLen   uint32
	message  custodyMessage
	control  custodyControl
	iov      unix.Iovec
	hdr      unix.Msghdr
}

// fileIdentity is a descriptor and the file it meant when it was listed.
type fileIdentity struct {
	fd       int32
	dev, ino uint64
}

const keeperPageSize = int(unsafe.Sizeof(keeperPage{}))

func newKeeperPage(o *KeeperOptions) (*keeperPage, error) {
	if err := checkKeeperOptions(o); err != nil {
		return nil, err
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	mem, err := unix.MmapPtr(-1, 0, nil, uintptr(keeperPageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	p := (*keeperPage)(mem)
	p.parent, p.end, p.kinds, p.generation = int32(os.Getpid()), int32(o.End), o.Kinds, o.Generation
	if p.kinds == 0 {
		p.kinds = KindTCP | KindPipe
	}
	p.limit = int32(min(lim.Cur, 1<<30))
	p.chunk = min(p.limit, int32(len(p.poll)))
	copy(p.name[:15], o.Name)
	if o.Name == "" {
		copy(p.name[:15], "traffic_keeper")
	}
	p.nnever = listFDs(&p.never, append([]int{0, 1, 2, o.End}, o.Never...))
	p.nextra = listFDs(&p.extra, o.Extra)
	for i, n := range o.Threads {
		p.threads[i] = &n.nodes[WatcherKeeper].word
	}
	p.nthreads = int32(len(o.Threads))
	if n := min(len(o.First), int(p.limit)); n > 0 {
		p.first, p.nfirst = &o.First[0], int32(n)
	}
	if err := p.identify(o.CloseFirst); err != nil {
		p.unmap()
		return nil, err
	}
	return p, nil
}

func checkKeeperOptions(o *KeeperOptions) error {
	for _, l := range []struct {
		what     string
		len, max int
	}{
		{"CloseFirst", len(o.CloseFirst), maxListed}, {"Never", len(o.Never) + 4, maxListed}, {"Extra", len(o.Extra), maxListed},
		{"Threads", len(o.Threads), maxThreads},
	} {
		if l.len > l.max {
			return fmt.Errorf("%s lists too many", l.what)
		}
	}
	if len(o.Name) > 15 {
		return fmt.Errorf("name %q is longer than 15 bytes", o.Name)
	}
	domain, err := unix.GetsockoptInt(o.End, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("socket to send into: %w", err)
	}
	typ, err := unix.GetsockoptInt(o.End, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("socket to send into: %w", err)
	}
	if domain != unix.AF_UNIX || typ == unix.SOCK_DGRAM {
		return fmt.Errorf("socket to send into: domain %d, type %d: not a Unix SOCK_SEQPACKET or SOCK_STREAM", domain, typ)
	}
	return nil
}

func listFDs(to *[maxListed]int32, fds []int) int32 {
	for i, fd := range fds {
		to[i] = int32(fd)
	}
	return int32(len(fds))
}

func (p *keeperPage) identify(fds []int) error {
	for i, fd := range fds {
		var st syscall.Stat_t
		if err := syscall.Fstat(fd, &st); err != nil {
			return fmt.Errorf("descriptor %d to close first: %w", fd, err)
		}
		p.close[i] = fileIdentity{fd: int32(fd), dev: uint64(st.Dev), ino: st.Ino}
	}
	p.nclose = int32(len(fds))
	return nil
}

func (p *keeperPage) unmap() {
	_ = unix.MunmapPtr(unsafe.Pointer(p), uintptr(keeperPageSize)) // it is a mapping of just that size
}

// startTime is field 22 of /proc/PID/stat, 0 if it cannot be read.
func startTime(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name, field 2, may contain anything; the last parenthesis ends it.
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	f := strings.Fields(rest)
	if len(f) < 20 {
		return 0
	}
	t, _ := strconv.ParseUint(f[19], 10, 64)
	return t
}

// GrowTable makes this process's descriptor table large enough for n
// descriptors at once. A table that several tasks share (threads, or a keeper)
// grows only after synchronize_rcu (expand_fdtable, fs/file.c): 5 to 20 ms in
// which an accept or the receiving of descriptors stands still. So do it once,
// at start. n is cut to the limit of open files.
func GrowTable(n int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("grow descriptor table: %w", err)
	}
	n = int(min(uint64(max(n, 1)), lim.Cur))
	tmp, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("grow descriptor table: %w", err)
	}
	defer unix.Close(tmp)
	// F_DUPFD takes the first free number from n-1 on, unlike dup3, which
	// would close whatever has it.
	top, err := unix.FcntlInt(uintptr(tmp), unix.F_DUPFD_CLOEXEC, n-1)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.EINVAL) {
		return nil // the last number is in use: the table is that large
	}
	if err != nil {
		return fmt.Errorf("grow descriptor table to %d: %w", n, err)
	}
	return unix.Close(top)
}

// KeepLimit sets the soft limit of open files to the hard one for this
// process and, unlike what the Go runtime does at start, for those it will
// execute: os raises the limit silently and lowers it again in children,
// unless syscall.Setrlimit (not the one of x/sys) was called. Returns the
// limit. A standby that may open fewer files than the server has open loses
// connections when it adopts.
func KeepLimit() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("raise limit of open files to %d: %w", lim.Max, err)
	}
	return lim.Cur, nil
}
