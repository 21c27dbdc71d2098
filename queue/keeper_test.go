package queue

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runKept is a process with a keeper and many descriptors. 3: the end to send
// into, 4: where to say ready, 5: a lock file, 6: memory for a death notice.
func runKept() error {
	o := KeeperOptions{End: 3, Generation: uint64(envInt("GENERATION")), CloseFirst: []int{5}, Never: []int{4}}
	if envInt("THREADS") > 0 {
		mem, err := mapShared(6, NoticeSize)
		if err != nil {
			return err
		}
		n, err := NoticeAt(mem)
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		if _, err := n.Register(); err != nil {
			return err
		}
		o.Threads = []*Notice{n}
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	if err := unix.FcntlFlock(5, unix.F_OFD_SETLK, &lock); err != nil {
		return err
	}
	posix := unix.Flock_t{Type: unix.F_WRLCK, Start: 1, Len: 1}
	if err := unix.FcntlFlock(5, unix.F_SETLK, &posix); err != nil {
		return err
	}
	if os.Getenv("GROW") != "" {
		if err := GrowTable(envInt("SOCKETS") + 100); err != nil {
			return err
		}
	}
	k, err := StartKeeper(o)
	if err != nil {
		return err
	}
	// Opened after the clone: the table is shared, not copied.
	for range envInt("SOCKETS") {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	unix.Write(p[1], []byte("in the pipe"))
	if os.Getenv("DUP") != "" {
		for fd := range 40 {
			if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && proto == unix.IPPROTO_TCP {
				unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				break
			}
		}
	}
	if envInt("STOP") > 0 {
		k.Stop()
		if err := k.Err(); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.NewFile(4, "ready"), "%d %d\n", k.PID(), k.StartTime())
	return hang()
}

// A keptProcess is a running "kept" and its keeper.
type keptProcess struct {
	*child
	keeper Sender
	lock   *os.File
	out    *os.File
	notice *Notice
}

func startKept(t testing.TB, kind, sockets int, more ...string) *keptProcess {
	t.Helper()
	in, out := socketpair(t, kind)
	return startKeptInto(t, in, out, 7, sockets, more...)
}

func startKeptInto(t testing.TB, in, out *os.File, generation uint64, sockets int, more ...string) *keptProcess {
	t.Helper()
	r, w := pipe(t)
	lock, err := os.CreateTemp(t.TempDir(), "server.lock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	// The child's own description: an OFD lock would be shared with ours.
	theirs, err := os.OpenFile(lock.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	file, mem := memory(t, NoticeSize)
	n, err := NoticeAt(mem)
	if err != nil {
		t.Fatal(err)
	}
	p := &keptProcess{lock: lock, out: out, notice: n}
	p.child = startRole(t, "kept", nil, []*os.File{in, w, theirs, file},
		append(more, env("SOCKETS", sockets), env("GENERATION", generation))...)
	w.Close()
	p.keeper.Generation = generation
	if _, err := fmt.Sscan(ready(t, r), &p.keeper.PID, &p.keeper.StartTime); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill(); endKeeper(t, p.keeper); reapOrphans() })
	return p
}

// endKeeper kills a keeper that is still there.
func endKeeper(t testing.TB, s Sender) {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if startTime(s.PID) != s.StartTime {
		return
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if _, err := pollFor([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience, false); err != nil {
		t.Error(err)
	}
}

func receiveAll(t testing.TB, end *os.File, o CustodyOptions) ([]Kept, *Custody) {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	c, err := ReceiveCustody(int(end.Fd()), o)
	if err != nil {
		t.Fatal(err)
	}
	var got []Kept
	for k := range c.All() {
		got = append(got, k)
	}
	t.Cleanup(func() {
		for _, k := range got {
			unix.Close(k.FD)
		}
	})
	return got, c
}

func TestKeeperSendsWhatADeadProcessHadOpen(t *testing.T) {
	for name, c := range map[string]struct {
		kind    int
		sockets int
		env     string
	}{
		"none":              {unix.SOCK_SEQPACKET, 0, ""},
		"one message":       {unix.SOCK_SEQPACKET, 10, ""},
		"just full":         {unix.SOCK_SEQPACKET, MaxFDs - 2, ""},
		"one more":          {unix.SOCK_SEQPACKET, MaxFDs - 1, ""},
		"three messages":    {unix.SOCK_SEQPACKET, 600, ""},
		"stream":            {unix.SOCK_STREAM, 600, ""},
		"non-blocking":      {unix.SOCK_SEQPACKET | unix.SOCK_NONBLOCK, 600, ""},
		"after its threads": {unix.SOCK_SEQPACKET, 10, "THREADS=1"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startKept(t, c.kind, c.sockets, c.env)
			p.kill()
			got, custody := receiveAll(t, p.out, CustodyOptions{Senders: []Sender{p.keeper}})
			if err := custody.Err(); err != nil {
				t.Fatal(err)
			}
			if !custody.Ended(7) || custody.Ended(8) {
				t.Error("END of generation 7 was not noted, or that of 8 was")
			}
			checkKept(t, got, c.sockets)
		})
	}
}

// checkKept: so many TCP sockets, each with its cookie, and the pipe with what
// was in it.
func checkKept(t *testing.T, got []Kept, sockets int) {
	t.Helper()
	tcp := 0
	var ends []int
	for _, k := range got {
		switch k.Kind {
		case KindTCP:
			tcp++
			cookie, err := unix.GetsockoptUint64(k.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
			if err != nil || cookie != k.Cookie {
				t.Errorf("descriptor %d: cookie %d, announced as %d, %v", k.FD, cookie, k.Cookie, err)
			}
		case KindPipe:
			ends = append(ends, k.FD)
		default:
			t.Errorf("kind %d was sent", k.Kind)
		}
		if fl, _ := unix.FcntlInt(uintptr(k.FD), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would be inherited", k.FD)
		}
	}
	if tcp != sockets || len(ends) != 2 {
		t.Fatalf("%d TCP sockets and %d ends of pipes, want %d and 2", tcp, len(ends), sockets)
	}
	var b [64]byte
	n, err := unix.Read(ends[0], b[:])
	if err != nil {
		n, err = unix.Read(ends[1], b[:])
	}
	if string(b[:max(n, 0)]) != "in the pipe" {
		t.Errorf("in the pipe: %q, %v", b[:max(n, 0)], err)
	}
}

func TestKeeperLooksLikeAKeeper(t *testing.T) {
	in, _ := socketpair(t, unix.SOCK_SEQPACKET)
	raised := 500
	k, err := StartKeeper(KeeperOptions{End: int(in.Fd()), OOMScoreAdj: &raised})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Stop()
	eventually(t, "name and process group", func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", k.PID()))
		group, _ := unix.Getpgid(k.PID())
		return string(comm) == "traffic_keeper\n" && group == k.PID()
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.PID()))
	if err != nil {
		t.Fatal(err)
	}
	const allButKillAndStop = "SigBlk:\tfffffffffffbfeff"
	if !strings.Contains(string(status), allButKillAndStop) {
		t.Errorf("signals are not blocked: %s", status)
	}
	if !strings.Contains(string(status), "Threads:\t1\n") {
		t.Error("more than one thread")
	}
	adj, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", k.PID()))
	if k.OOMError() != nil || strings.TrimSpace(string(adj)) != "500" {
		t.Errorf("oom_score_adj %s, %v", adj, k.OOMError())
	}
	if mem := fieldOf(string(status), "VmRSS:"); mem != "" {
		t.Logf("keeper of this test: resident %s", mem)
	}
}

func fieldOf(text, name string) string {
	_, rest, _ := strings.Cut(text, name)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func TestLocksAreFreeWhenTheProcessIsDead(t *testing.T) {
	p := startKept(t, unix.SOCK_SEQPACKET, 600)
	held := func() bool {
		ofd := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
		posix := unix.Flock_t{Type: unix.F_WRLCK, Start: 1, Len: 1}
		if err := unix.FcntlFlock(p.lock.Fd(), unix.F_OFD_GETLK, &ofd); err != nil {
			t.Fatal(err)
		}
		if err := unix.FcntlFlock(p.lock.Fd(), unix.F_GETLK, &posix); err != nil {
			t.Fatal(err)
		}
		return ofd.Type != unix.F_UNLCK || posix.Type != unix.F_UNLCK
	}
	if !held() {
		t.Fatal("the process holds no lock")
	}
	p.kill()
	// Nothing is received here: the keeper waits in its first messages or
	// before END, and has the table all the while.
	eventually(t, "locks released by the keeper", func() bool { return !held() })
}

func TestACloseFirstNumberThatMeansAnotherFileIsLeftAlone(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	page, err := newKeeperPage(&KeeperOptions{End: int(in.Fd()), CloseFirst: []int{int(out.Fd())}})
	if err != nil {
		t.Fatal(err)
	}
	defer page.unmap()
	page.close[0].ino++
	keeperCloseFirst(page)
	if _, err := unix.FcntlInt(out.Fd(), unix.F_GETFD, 0); err != nil {
		t.Error("a descriptor that was not meant was closed")
	}
	dup, err := unix.FcntlInt(out.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	page.close[0].ino--
	page.close[0].fd = int32(dup)
	keeperCloseFirst(page)
	if _, err := unix.FcntlInt(uintptr(dup), unix.F_GETFD, 0); err == nil {
		t.Error("a descriptor that was meant was not closed")
	}
}

func TestStoppedKeeperSendsNothing(t *testing.T) {
	p := startKept(t, unix.SOCK_SEQPACKET, 10, "STOP=1")
	p.kill()
	if _, _, err := RecvFD(int(p.out.Fd()), make([]byte, 8192)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after Stop something was sent, or the end is gone: %v", err)
	}
}

func TestStopAndKillOfAKeeper(t *testing.T) {
	in, _ := socketpair(t, unix.SOCK_SEQPACKET)
	before := openFDs(t)
	for range 20 {
		k, err := StartKeeper(KeeperOptions{End: int(in.Fd()), Generation: 3})
		if err != nil {
			t.Fatal(err)
		}
		if k.Generation() != 3 {
			t.Errorf("generation %d", k.Generation())
		}
		k.Stop()
		k.Stop()
		if err := k.Err(); err != nil {
			t.Error(err)
		}
	}
	k, err := StartKeeper(KeeperOptions{End: int(in.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(k.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGSEGV, unix.SIGHUP} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-k.Done():
		t.Fatalf("a signal that can be blocked ended the keeper: %v", k.Err())
	default:
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	<-k.Done()
	if k.Err() == nil {
		t.Error("a killed keeper is reported as stopped")
	}
	unix.Close(fd)
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// TestAKilledKeeperIsReplaced: the journal names the next one, which sends as the first would have; and Stop is the end of it.
func TestAKilledKeeperIsReplaced(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	generation, err := j.Claim()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := socketpair(t, unix.SOCK_SEQPACKET)
	type change struct {
		gone Sender
		why  error
	}
	changes := make(chan change, 1)
	k, err := StartKeeper(KeeperOptions{End: int(in.Fd()), Generation: generation, Journal: j, Replaced: func(gone Sender, why error) {
		changes <- change{gone, why}
	}})
	if err != nil {
		t.Fatal(err)
	}
	named := func() {
		t.Helper()
		now := Sender{Generation: generation, PID: k.PID(), StartTime: k.StartTime()}
		if got := reopen(t, fd).Outstanding(); len(got) != 1 || got[0] != now || now.StartTime == 0 {
			t.Errorf("awaits %v, the keeper is %v", got, now)
		}
	}
	named()
	for range 5 {
		was := k.sender()
		endKeeper(t, was)
		c := <-changes
		if c.gone != was || c.why == nil || k.PID() == was.PID {
			t.Errorf("%v was replaced because of %v, killed was %v", c.gone, c.why, was)
		}
		named()
	}
	k.Stop()
	if err := k.Err(); err != nil {
		t.Error(err)
	}
}

// TestAKeeperIsNamedFromItsFirstInstantOn: a process that dies between the clone and whatever it does then has a keeper that its
// successor awaits, and one that dies before the clone has none that would be awaited in vain.
func TestAKeeperIsNamedFromItsFirstInstantOn(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	generation, err := j.Claim()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := socketpair(t, unix.SOCK_SEQPACKET)
	page, err := newKeeperPage(&KeeperOptions{End: int(in.Fd()), Generation: generation})
	if err != nil {
		t.Fatal(err)
	}
	defer page.unmap()
	r := j.prepareKept(generation)
	if got := reopen(t, fd).Outstanding(); len(got) != 0 {
		t.Errorf("before there is a keeper %v is awaited", got)
	}
	// Its notice is not registered: it takes that for Stop, and exits.
	pid, errno := cloneKeeper(page, r.tid())
	if errno != 0 {
		t.Fatal(errno)
	}
	if got := reopen(t, fd).Outstanding(); len(got) != 1 || got[0].PID != int(pid) {
		t.Errorf("awaits %v, the keeper is process %d", got, pid)
	}
	if _, err := unix.Wait4(int(pid), nil, 0, nil); err != nil {
		t.Error(err)
	}
}

func TestKeeperOptionsAreChecked(t *testing.T) {
	in, _ := socketpair(t, unix.SOCK_SEQPACKET)
	dgram, _ := socketpair(t, unix.SOCK_DGRAM)
	r, _ := pipe(t)
	end := int(in.Fd())
	for what, o := range map[string]KeeperOptions{
		"a pipe as end":       {End: int(r.Fd())},
		"datagrams":           {End: int(dgram.Fd())},
		"a long name":         {End: end, Name: "sixteen bytes ..."},
		"a closed lock":       {End: end, CloseFirst: []int{1 << 20}},
		"too many exceptions": {End: end, Never: make([]int, maxListed)},
	} {
		if k, err := StartKeeper(o); err == nil {
			k.Stop()
			t.Errorf("%s was accepted", what)
		}
	}
}

func TestKindsAndLists(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK)
	l := mustBind(t, "127.0.0.1:0", 16)
	r, w := pipe(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	conn := dial(t, l)
	tcp := mustAccept(t, l)
	defer unix.Close(tcp)
	page, err := newKeeperPage(&KeeperOptions{
		End: int(in.Fd()), Kinds: KindTCP | KindPipe | KindUnix | KindListener,
		Extra: []int{int(null.Fd())}, Never: []int{int(w.Fd())},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer page.unmap()
	// In this process, which is its own keeper for once.
	if errno := keeperSendAll(page); errno != 0 {
		t.Fatal(errno)
	}
	got, c := receiveAll(t, out, CustodyOptions{})
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	sent := map[int]Kind{}
	for _, k := range got {
		sent[k.Number] = k.Kind
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if sent[int(fd)] != KindTCP {
			t.Error("our side of a connection was not sent")
		}
	})
	for fd, want := range map[int]Kind{
		tcp: KindTCP, int(r.Fd()): KindPipe, int(w.Fd()): 0, int(null.Fd()): KindListed, l.FD(): KindListener,
		int(in.Fd()): 0, int(out.Fd()): KindUnix, 0: 0, 1: 0, 2: 0,
	} {
		if sent[fd] != want {
			t.Errorf("descriptor %d: sent as %d, want %d", fd, sent[fd], want)
		}
	}
}

func TestTheSameSocketIsHandedOutOnce(t *testing.T) {
	p := startKept(t, unix.SOCK_SEQPACKET, 5, "DUP=1")
	p.kill()
	got, c := receiveAll(t, p.out, CustodyOptions{Senders: []Sender{p.keeper}})
	if c.Err() != nil || c.Duplicates() != 1 {
		t.Errorf("%v, %d duplicates, want 1", c.Err(), c.Duplicates())
	}
	checkKept(t, got, 5)
}

func TestAKeeperThatDiesWhileItSendsIsNoticed(t *testing.T) {
	for name, kind := range map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "stream": unix.SOCK_STREAM} {
		t.Run(name, func(t *testing.T) {
			in, out := socketpair(t, kind)
			// Room for one or two messages: it must wait in the middle.
			if err := unix.SetsockoptInt(int(in.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
				t.Fatal(err)
			}
			p := startKeptInto(t, in, out, 7, 1500)
			p.kill()
			eventually(t, "first message", func() bool {
				n, err := unix.IoctlGetInt(int(out.Fd()), unix.SIOCINQ)
				return err == nil && n >= custodyHeaderLen
			})
			endKeeper(t, p.keeper)
			got, c := receiveAll(t, out, CustodyOptions{Senders: []Sender{p.keeper}})
			var incomplete *IncompleteError
			if err := c.Err(); !errors.As(err, &incomplete) || incomplete.Missing[0] != p.keeper {
				t.Errorf("Err = %v, want that the keeper is missing", err)
			}
			if len(got) == 0 || len(got) >= 1502 {
				t.Errorf("%d descriptors arrived of 1502", len(got))
			}
		})
	}
}

func TestTwoKeepersSendIntoOneSocket(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	if err := unix.SetsockoptInt(int(in.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 16384); err != nil {
		t.Fatal(err)
	}
	a := startKeptInto(t, in, out, 7, 900)
	b := startKeptInto(t, in, out, 8, 700)
	a.kill()
	b.kill()
	got, c := receiveAll(t, out, CustodyOptions{Senders: []Sender{a.keeper, b.keeper}})
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	count := map[uint64]int{}
	for _, k := range got {
		count[k.Generation]++
	}
	if count[7] != 902 || count[8] != 702 {
		t.Errorf("got %v, want 902 of generation 7 and 702 of 8", count)
	}
}

func TestReceiverThatTakesOverFromADeadOne(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	if err := unix.SetsockoptInt(int(in.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	p := startKeptInto(t, in, out, 7, 1200)
	p.kill()
	first, err := ReceiveCustody(int(out.Fd()), CustodyOptions{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for k := range first.All() {
		unix.Close(k.FD)
		if taken++; taken == MaxFDs {
			break // and dies, as it were
		}
	}
	first.closePidfds()
	got, c := receiveAll(t, out, CustodyOptions{Senders: []Sender{p.keeper}})
	if c.Err() != nil || taken+len(got) != 1202 {
		t.Errorf("%d + %d descriptors, want 1202; %v", taken, len(got), c.Err())
	}
}

// TestMessagesBehindTheLastEnd: of a keeper that is over, and that nobody named
// because there were too many.
func TestMessagesBehindTheLastEnd(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	end := custodyMessage{magic: custodyMagic, op: custodyEnd, generation: 2}
	if _, err := in.Write(unsafe.Slice((*byte)(unsafe.Pointer(&end)), custodyHeaderLen)); err != nil {
		t.Fatal(err)
	}
	p := startKeptInto(t, in, out, 1, 300)
	p.kill()
	eventually(t, "end of the keeper", p.keeper.over)
	got, c := receiveAll(t, out, CustodyOptions{Senders: []Sender{{Generation: 2}}})
	if c.Err() != nil || len(got) != 302 || !c.Ended(1) || !c.Ended(2) {
		t.Errorf("%d descriptors, want 302; %v", len(got), c.Err())
	}
	_, c = receiveAll(t, out, CustodyOptions{Timeout: 10 * time.Millisecond})
	if !errors.Is(c.Err(), os.ErrDeadlineExceeded) {
		t.Errorf("something was left in the socket: %v", c.Err())
	}
}

func TestNobodySends(t *testing.T) {
	_, out := socketpair(t, unix.SOCK_SEQPACKET)
	_, c := receiveAll(t, out, CustodyOptions{Timeout: 10 * time.Millisecond})
	if !errors.Is(c.Err(), os.ErrDeadlineExceeded) {
		t.Errorf("Err = %v, want the deadline", c.Err())
	}
	// A PID that was this process's once, and is somebody's now.
	stranger := Sender{Generation: 1, PID: os.Getpid(), StartTime: 1}
	_, c = receiveAll(t, out, CustodyOptions{Senders: []Sender{stranger}})
	var incomplete *IncompleteError
	if !errors.As(c.Err(), &incomplete) {
		t.Errorf("Err = %v, want IncompleteError", c.Err())
	}
}

func TestForeignMessagesAreRefused(t *testing.T) {
	good := custodyMessage{magic: custodyMagic, op: custodyEnd, generation: 1}
	for what, spoil := range map[string]func(m *custodyMessage) int{
		"magic":           func(m *custodyMessage) int { m.magic++; return custodyHeaderLen },
		"operation":       func(m *custodyMessage) int { m.op = 9; return custodyHeaderLen },
		"count":           func(m *custodyMessage) int { m.op, m.count = 1, 2; return custodyHeaderLen },
		"short":           func(m *custodyMessage) int { return custodyHeaderLen - 1 },
		"end with things": func(m *custodyMessage) int { m.count = 1; return custodyHeaderLen + 16 },
	} {
		for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
			in, out := socketpair(t, kind)
			m := good
			n := spoil(&m)
			b := unsafe.Slice((*byte)(unsafe.Pointer(&m)), n)
			if _, err := in.Write(b); err != nil {
				t.Fatal(err)
			}
			in.Close()
			_, c := receiveAll(t, out, CustodyOptions{})
			if c.Err() == nil {
				t.Errorf("%s, socket type %d: accepted", what, kind)
			}
		}
	}
}

func FuzzCustodyMessage(f *testing.F) {
	m := custodyMessage{magic: custodyMagic, op: custodyDescriptors, generation: 1, count: 1}
	f.Add(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), custodyHeaderLen+16)))
	m.op, m.count = custodyEnd, 0
	f.Add(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), custodyHeaderLen)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > custodyMessageLen+8 {
			return
		}
		for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
			in, out := socketpair(t, kind)
			if _, err := in.Write(b); err != nil {
				t.Fatal(err)
			}
			in.Close()
			receiveAll(t, out, CustodyOptions{})
			out.Close()
		}
	})
}

func TestLayoutOfMessages(t *testing.T) {
	if custodyHeaderLen != 40 || unsafe.Sizeof(custodyEntry{}) != 16 || custodyMessageLen != 40+16*MaxFDs {
		t.Errorf("header %d, entry %d, message %d bytes", custodyHeaderLen, unsafe.Sizeof(custodyEntry{}), custodyMessageLen)
	}
	if custodyControlLen != unix.CmsgLen(0) || unsafe.Sizeof(Notice{}) != NoticeSize {
		t.Errorf("control header %d, want %d; notice %d", custodyControlLen, unix.CmsgLen(0), unsafe.Sizeof(Notice{}))
	}
}

func TestGrowTable(t *testing.T) {
	before := openFDs(t)
	for _, n := range []int{0, 1, 1 << 12, 1 << 30} {
		if err := GrowTable(n); err != nil {
			t.Errorf("GrowTable(%d): %v", n, err)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestKeepLimitReachesChildren(t *testing.T) {
	limit, err := KeepLimit()
	if err != nil {
		t.Fatal(err)
	}
	c := startRole(t, "forgetful", nil, nil)
	defer c.kill()
	var lim unix.Rlimit
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &lim); err != nil {
		t.Fatal(err)
	}
	if lim.Cur != limit {
		t.Errorf("a child may open %d files, want %d", lim.Cur, limit)
	}
}
