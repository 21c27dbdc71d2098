package queue

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runMortal registers threads for their death notices and holds much memory.
// 3: memory for the notices, 4: where to say ready.
func runMortal() error {
	threads := max(envInt("THREADS"), 1)
	mem, err := mapShared(3, threads*NoticeSize)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for i := range threads {
		go func() {
			runtime.LockOSThread()
			n, err := NoticeAt(mem[i*NoticeSize:])
			if err == nil {
				_, err = n.Register()
			}
			errs <- err
			_ = hang()
		}()
	}
	for range threads {
		if err := <-errs; err != nil {
			return err
		}
	}
	if mb := envInt("MEGABYTES"); mb > 0 {
		m, err := unix.Mmap(-1, 0, mb<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		// Small pages: the slow case of tearing down.
		_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE)
		for i := 0; i < len(m); i += 4096 {
			m[i] = 1
		}
	}
	fmt.Fprintln(os.NewFile(4, "ready"), "ready")
	return hang()
}

func startMortal(t testing.TB, threads int, more ...string) (*child, []*Notice) {
	t.Helper()
	file, mem := memory(t, threads*NoticeSize)
	var ns []*Notice
	for i := range threads {
		n, err := NoticeAt(mem[i*NoticeSize:])
		if err != nil {
			t.Fatal(err)
		}
		ns = append(ns, n)
	}
	r, w := pipe(t)
	c := startRole(t, "mortal", nil, []*os.File{file, w}, append(more, env("THREADS", threads))...)
	w.Close()
	ready(t, r)
	return c, ns
}

func TestDeathIsNoticed(t *testing.T) {
	c, ns := startMortal(t, 3)
	for _, n := range ns {
		if n.Died() || n.Thread() == 0 {
			t.Fatal("noticed before it happened")
		}
		if err := n.Wait(WatcherStandby, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Wait of a living thread = %v", err)
		}
	}
	// Every watcher gets it, each by a word of its own.
	got := make(chan error)
	for w := range NoticeWatchers {
		go func() { got <- WaitAllNotices(ns, w, 30*time.Second) }()
	}
	c.signalKill()
	for range NoticeWatchers {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	for _, n := range ns {
		if !n.Died() || n.Thread() != 0 {
			t.Error("the thread is not reported dead")
		}
		if err := n.Wait(WatcherCop, 0); err != nil {
			t.Errorf("Wait behind the death = %v", err)
		}
	}
}

// TestNoticeComesBeforeThePidfd is about the order, which is what this is for.
// The kernel's part of it is certain; that this process is woken up, runs and
// looks before the other has gone is not, on a busy machine, so some of the
// deaths must show it and none may show the opposite.
func TestNoticeComesBeforeThePidfd(t *testing.T) {
	const wanted, most = 3, 15
	first, behind := 0, 0
	var ratios []string
	for i := 0; i < most && first < wanted; i++ {
		c, ns := startMortal(t, 1, "MEGABYTES=192")
		start := time.Now()
		c.signalKill()
		if err := ns[0].Wait(WatcherManager, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		notice := time.Since(start)
		if c.gone() {
			behind++ // this process got no processor in between
		} else {
			first++
		}
		if _, err := pollFor([]unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}, 30*time.Second, false); err != nil {
			t.Fatal(err)
		}
		ratios = append(ratios, fmt.Sprintf("%v/%v", notice.Round(time.Microsecond), time.Since(start).Round(time.Microsecond)))
		c.kill()
	}
	t.Logf("the notice came first %d times of %d; notice/pidfd: %s", first, first+behind, strings.Join(ratios, " "))
	if first < wanted {
		t.Errorf("the notice came before the pidfd %d times of %d", first, first+behind)
	}
}

// TestPidfdNeverComesBeforeTheNotice is the other half: whoever sees the
// process gone finds the notice there.
func TestPidfdNeverComesBeforeTheNotice(t *testing.T) {
	for range 20 {
		c, ns := startMortal(t, 2)
		c.signalKill()
		if err := c.wait(); err == nil {
			t.Fatal("killed, and ended well")
		}
		for _, n := range ns {
			if !n.Died() {
				t.Fatal("the process is gone, and its threads are not")
			}
		}
	}
}

func TestOneThreadOfSeveral(t *testing.T) {
	for name, wait := range map[string]waitFunc{"futex_waitv": waitvOnce, "a goroutine each": waitEach} {
		t.Run(name, func(t *testing.T) {
			file, mem := memory(t, 5*NoticeSize)
			_ = file
			ns := make([]*Notice, 5)
			die := make([]chan struct{}, 5)
			for i := range ns {
				ns[i], die[i] = mortalThread(t, mem[i*NoticeSize:])
			}
			if _, err := waitNotices(ns, WatcherStandby, 5*time.Millisecond, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("nobody has died, and got %v", err)
			}
			got := make(chan int)
			go func() {
				i, err := waitNotices(ns, WatcherStandby, 30*time.Second, wait)
				if err != nil {
					i = -1
				}
				got <- i
			}()
			close(die[3])
			if i := <-got; i != 3 {
				t.Errorf("thread %d was reported, want 3", i)
			}
			for i, d := range die {
				if i != 3 {
					close(d)
				}
			}
			if err := WaitAllNotices(ns, WatcherCop, 30*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

// mortalThread is a thread of this process that registers and ends when the
// channel is closed: a goroutine that ends locked takes its thread along.
func mortalThread(t *testing.T, mem []byte) (*Notice, chan struct{}) {
	t.Helper()
	n, err := NoticeAt(mem)
	if err != nil {
		t.Fatal(err)
	}
	die := make(chan struct{})
	registered := make(chan error)
	// The main thread does not end with its goroutine: keep off it.
	go offMainThread(func() {
		_, err := n.Register()
		registered <- err
		<-die
	})
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	return n, die
}

func offMainThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		done := make(chan struct{})
		go func() { offMainThread(f); close(done) }() // this one occupies the main thread
		<-done
		runtime.UnlockOSThread()
		return
	}
	f()
}

func TestReleaseIsNoDeath(t *testing.T) {
	_, mem := memory(t, NoticeSize)
	n, err := NoticeAt(mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Wait(WatcherCop, 0); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("Wait for nobody = %v", err)
	}
	for range 100 {
		waiting, release := make(chan error), make(chan struct{})
		go offMainThread(func() {
			undo, err := n.Register()
			if err != nil {
				waiting <- err
				return
			}
			if _, err := n.Register(); !errors.Is(err, ErrNoticeHeld) {
				t.Errorf("registered twice: %v", err)
			}
			go func() { waiting <- n.Wait(WatcherKeeper, 30*time.Second) }()
			<-release
			if err := undo(); err != nil {
				t.Error(err)
			}
		}) // and here the thread ends
		close(release)
		if err := <-waiting; !errors.Is(err, ErrNotRegistered) {
			t.Fatalf("Wait for a thread that released = %v", err)
		}
	}
}

func TestReleaseOnAnotherThreadIsRefused(t *testing.T) {
	_, mem := memory(t, NoticeSize)
	n, die := mortalThread(t, mem)
	defer close(die)
	if err := n.release(n.Thread(), 0); err == nil {
		t.Error("another thread released it")
	}
}

// TestALivingThreadIsNeverReportedDead has threads die all around one that
// lives.
func TestALivingThreadIsNeverReportedDead(t *testing.T) {
	_, mem := memory(t, 2*NoticeSize)
	living, die := mortalThread(t, mem)
	defer close(die)
	for range 200 {
		n, end := mortalThread(t, mem[NoticeSize:])
		close(end)
		if err := n.Wait(WatcherManager, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		if living.Died() {
			t.Fatal("a living thread is reported dead")
		}
	}
	if err := living.Wait(WatcherManager, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Wait = %v", err)
	}
}

func TestNoticeNeedsItsMemory(t *testing.T) {
	_, mem := memory(t, 4096)
	for _, bad := range [][]byte{nil, mem[:NoticeSize-1], mem[4:]} {
		if _, err := NoticeAt(bad); err == nil {
			t.Errorf("%d bytes at offset were taken", len(bad))
		}
	}
	if _, err := WaitNotices(nil, 0, 0); err == nil {
		t.Error("waited for nobody")
	}
}
