package queue

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the other process of some tests.
func TestMain(m *testing.M) {
	switch os.Getenv("QUEUE_TEST_CHILD") {
	case "collect-and-die":
		childCollectAndDie()
	case "unprivileged":
		childUnprivileged()
	default:
		os.Exit(m.Run())
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 64)
	var clients []net.Conn
	for range 5 {
		clients = append(clients, dial(t, l))
	}
	n, err := Collect(f, []*Listener{l}, 100, nil)
	if n != 5 || err != nil {
		t.Fatalf("Collect = %d, %v", n, err)
	}
	for range 3 { // newer ones stay in the kernel
		clients = append(clients, dial(t, l))
	}
	// The next server's rule: the FIFO first, the listeners after.
	for i := range clients {
		e, fd, err := f.Take()
		if i >= 5 {
			if !errors.Is(err, ErrEmpty) {
				t.Fatalf("Take %d: %v, want ErrEmpty", i, err)
			}
			fd = mustAccept(t, l)
		} else if err != nil || e.Listener != l.ID() || e.Cookie == 0 || e.Queued < e.Arrived {
			t.Fatalf("Take %d: %+v, %v", i, e, err)
		}
		writeByte(t, fd, byte(i))
		unix.Close(fd)
		if got := readByte(t, clients[i]); got != byte(i) {
			t.Errorf("client %d was served as number %d", i, got)
		}
	}
}

func TestListenersTakeTurns(t *testing.T) {
	a, b, f := mustBind(t, "127.0.0.1:0", 64), mustBind(t, "127.0.0.2:0", 64), mustFIFO(t, 64)
	for range 3 {
		dial(t, a)
	}
	dial(t, b)
	if n, err := Collect(f, []*Listener{a, b}, 3, nil); n != 3 || err != nil {
		t.Fatalf("Collect at most 3 = %d, %v", n, err)
	}
	for i, want := range []*Listener{a, b, a} {
		e, fd, err := f.Take()
		if err != nil || e.Listener != want.ID() {
			t.Errorf("Take %d: listener %d, %v; want %s", i, e.Listener, err, want.Name())
		}
		unix.Close(fd)
	}
}

func TestLimitLeavesTheRestInTheKernel(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 2)
	for range 3 {
		dial(t, l)
	}
	n, err := Collect(f, []*Listener{l}, 100, nil)
	if n != 2 || !errors.Is(err, ErrFull) {
		t.Fatalf("Collect = %d, %v; want 2, ErrFull", n, err)
	}
	if b, _ := l.Backlog(); b.Queued != 1 {
		t.Errorf("%d left in the kernel, want 1", b.Queued)
	}
	if got, _ := f.Len(); got != 2 || f.Overflows() != 1 {
		t.Errorf("length %d, overflows %d", got, f.Overflows())
	}
	_, fd, err := f.Take()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if n, err := Collect(f, []*Listener{l}, 1, nil); n != 1 || err != nil {
		t.Errorf("after a Take: Collect = %d, %v", n, err)
	}
}

func TestSocketBufferIsALimitToo(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 1000)
	if err := unix.SetsockoptInt(f.In(), unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	dial(t, l)
	fd := mustAccept(t, l)
	defer unix.Close(fd)
	put := 0
	for ; put < 1000; put++ {
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Put(dup, Entry{}); err != nil {
			unix.Close(dup)
			if !errors.Is(err, ErrFull) || !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("Put %d: %v, want ErrFull by EAGAIN", put, err)
			}
			break
		}
	}
	if put == 0 || put == 1000 {
		t.Errorf("%d fitted", put)
	}
	// Told before a connection is accepted in vain.
	dial(t, l)
	if n, err := Collect(f, []*Listener{l}, 1, nil); n != 0 || !errors.Is(err, ErrFull) {
		t.Errorf("Collect = %d, %v", n, err)
	}
	if b, _ := l.Backlog(); b.Queued != 1 {
		t.Errorf("%d in the kernel, want 1", b.Queued)
	}
	if bytes, err := f.Bytes(); err != nil || bytes < put*recordLen {
		t.Errorf("Bytes = %d, %v for %d connections", bytes, err, put)
	}
}

func TestPeekMakesNoDescriptorAndRemovesNothing(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 8)
	if _, err := f.Peek(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("Peek of empty = %v", err)
	}
	dial(t, l)
	if _, err := Collect(f, []*Listener{l}, 1, nil); err != nil {
		t.Fatal(err)
	}
	before := openFDs(t)
	first, err := f.Peek()
	second, err2 := f.Peek()
	if err != nil || err2 != nil || first != second || first.Listener != l.ID() {
		t.Errorf("Peek = %+v, %v, then %+v, %v", first, err, second, err2)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	if n, _ := f.Len(); n != 1 {
		t.Errorf("length %d after Peek", n)
	}
}

func TestTakeLeaksNothing(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 8)
	before := openFDs(t)
	for range 4 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fd := mustAccept(t, l)
		if err := f.Put(fd, Entry{Listener: 1}); err != nil {
			t.Fatal(err)
		}
		_, fd, err = f.Take()
		if err != nil {
			t.Fatal(err)
		}
		if fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
			t.Error("taken connection would be inherited by exec")
		}
		unix.Close(fd)
		c.Close()
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestTimeInTheKernelCounts(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 8)
	client := dial(t, l)
	born := Monotonic() // no earlier than the handshake
	const waited = 30 * time.Millisecond
	eventually(t, "time passes", func() bool { return Monotonic() > born+int64(waited) })
	// Talking must not make the client look younger.
	if _, err := client.Write([]byte("GET")); err != nil {
		t.Fatal(err)
	}
	began := Monotonic()
	if _, err := Collect(f, []*Listener{l}, 1, nil); err != nil {
		t.Fatal(err)
	}
	held := Monotonic() - began // between asking the kernel and looking at the clock, at worst
	e, err := f.Peek()
	// The kernel counts in jiffies, of 10 ms at worst.
	if err != nil || e.Arrived > born+int64(11*time.Millisecond)+held {
		t.Errorf("arrived %v after the handshake, %v", time.Duration(e.Arrived-born), err)
	}
	if _, _, err := f.TakeOlder(e.Arrived - 1); !errors.Is(err, ErrEmpty) {
		t.Errorf("TakeOlder than it is: %v", err)
	}
	_, fd, err := f.TakeOlder(e.Arrived)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

func TestTwoConsumersGetDifferentConnections(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 512), mustFIFO(t, 512)
	in, _ := unix.Dup(f.In())
	out, _ := unix.Dup(f.Out())
	other, err := AdoptFIFO(in, out, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const n = 200
	for range n {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := f.Put(mustAccept(t, l), Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	seen := map[uint64]int{}
	var wg sync.WaitGroup
	for _, q := range []*FIFO{f, other} {
		wg.Go(func() {
			for {
				e, fd, err := q.Take()
				if err != nil {
					return
				}
				cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
				unix.Close(fd)
				mu.Lock()
				seen[cookie]++
				if cookie != e.Cookie {
					t.Errorf("entry of %d with the socket %d", e.Cookie, cookie)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != n {
		t.Errorf("%d different connections taken, want %d", len(seen), n)
	}
	for c, times := range seen {
		if times != 1 {
			t.Errorf("connection %d taken %d times", c, times)
		}
	}
}

func TestForeignMessagesAreDropped(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 8)
	before := openFDs(t)
	pipe, w, _ := os.Pipe()
	good := Entry{Listener: 1, Arrived: 1, Queued: 2}.append(nil)
	future := bytes.Clone(good)
	future[3] = '2'
	for _, m := range []struct {
		payload []byte
		fds     []int
	}{
		{[]byte("x"), nil},
		{[]byte("x"), []int{int(pipe.Fd())}},
		{bytes.Repeat(good, 2), []int{int(pipe.Fd())}},
		{future, []int{int(pipe.Fd())}},
		{good, nil},
		{good, []int{int(pipe.Fd()), int(w.Fd())}},
	} {
		if err := SendFD(f.In(), m.payload, m.fds...); err != nil {
			t.Fatal(err)
		}
	}
	pipe.Close()
	w.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Put(mustAccept(t, l), Entry{Listener: 7}); err != nil {
		t.Fatal(err)
	}
	e, fd, err := f.Take()
	if err != nil || e.Listener != 7 {
		t.Fatalf("Take = %+v, %v; want the one real connection", e, err)
	}
	unix.Close(fd)
	c.Close()
	if f.Malformed() != 6 {
		t.Errorf("%d malformed, want 6", f.Malformed())
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	// Peek gets past them as well.
	_ = SendFD(f.In(), []byte("x"))
	if _, err := f.Peek(); !errors.Is(err, ErrEmpty) {
		t.Errorf("Peek past a foreign message: %v", err)
	}
}

func TestOnlyAFIFOIsAdopted(t *testing.T) {
	f := mustFIFO(t, 8)
	pipe, w, _ := os.Pipe()
	defer pipe.Close()
	defer w.Close()
	stream, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	defer CloseAll(stream[:])
	if _, err := AdoptFIFO(int(pipe.Fd()), int(w.Fd()), 8); err == nil {
		t.Error("adopted a pipe")
	}
	if _, err := AdoptFIFO(stream[0], stream[1], 8); err == nil {
		t.Error("adopted a stream")
	}
	if err := SendFD(f.In(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := AdoptFIFO(f.Out(), f.In(), 8); err == nil {
		t.Error("adopted with the ends exchanged")
	}
}

// childCollectAndDie is a manager that dies with connections in its FIFO.
func childCollectAndDie() {
	l, err := FromFD(3, "")
	if err != nil {
		panic(err)
	}
	f, err := AdoptFIFO(4, 5, 100)
	if err != nil {
		panic(err)
	}
	n, err := Collect(f, []*Listener{l}, 100, nil)
	fmt.Println(n, err)
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func TestQueuedConnectionsOutliveTheirManager(t *testing.T) {
	l, f := mustBind(t, "127.0.0.1:0", 64), mustFIFO(t, 100)
	clients := []net.Conn{dial(t, l), dial(t, l), dial(t, l)}
	lf, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUEUE_TEST_CHILD=collect-and-die")
	in, _ := unix.Dup(f.In())
	out, _ := unix.Dup(f.Out())
	inf, outf := os.NewFile(uintptr(in), "in"), os.NewFile(uintptr(out), "out")
	defer inf.Close()
	defer outf.Close()
	cmd.ExtraFiles = []*os.File{lf, inf, outf}
	said, err := cmd.Output()
	if string(said) != "3 <nil>\n" {
		t.Fatalf("manager said %q, %v", said, err)
	}
	for i, c := range clients {
		_, fd, err := f.Take()
		if err != nil {
			t.Fatalf("Take %d after the manager's death: %v", i, err)
		}
		writeByte(t, fd, byte(i))
		unix.Close(fd)
		if got := readByte(t, c); got != byte(i) {
			t.Errorf("client %d was served as number %d", i, got)
		}
	}
}

// childUnprivileged puts connections into a FIFO until the kernel refuses to
// have more descriptors in flight, and then makes one descriptor too few.
func childUnprivileged() {
	if os.Getuid() == 0 {
		must(syscall.Setgroups(nil))
		must(syscall.Setgid(65534))
		must(syscall.Setuid(65534))
	}
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 40, Max: 40}))
	l, err := Bind("127.0.0.1:0", 8)
	must(err)
	f, err := NewFIFO(500)
	must(err)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(err)
	must(unix.Connect(c, sockaddr(l.Addr())))
	var fd int
	for fd, err = l.Accept(); errors.Is(err, ErrEmpty); fd, err = l.Accept() {
	}
	must(err)
	n := 0
	for ; err == nil; n++ {
		var dup int
		dup, err = unix.Dup(fd)
		must(err)
		if err = f.Put(dup, Entry{}); err != nil {
			unix.Close(dup)
			n--
		}
	}
	fmt.Println("in flight:", errors.Is(err, ErrFull), errors.Is(err, unix.ETOOMANYREFS), f.Limit() == n)

	var used []int
	for d, err := unix.Dup(fd); err == nil; d, err = unix.Dup(fd) {
		used = append(used, d)
	}
	_, _, err = f.Take()
	left, _ := f.Len()
	fmt.Println("no descriptor:", errors.Is(err, ErrNoDescriptors), left == n)
	unix.Close(used[0])
	_, _, err = f.Take()
	left, _ = f.Len()
	fmt.Println("one descriptor:", err == nil, left == n-1)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func TestLimitsOfTheUnprivileged(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUEUE_TEST_CHILD=unprivileged", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	want := "in flight: true true true\nno descriptor: true true\none descriptor: true true\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, said\n%swant\n%s", err, out, want)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(Entry{Listener: 1, Arrived: 2, Queued: 3, Cookie: 4}.append(nil))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, recordLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseRecord(b)
		if err == nil && !bytes.Equal(e.append(nil), b) {
			t.Errorf("%x became %+v", b, e)
		}
		if e.Age(0) < 0 {
			t.Errorf("age %v", e.Age(0))
		}
	})
}
