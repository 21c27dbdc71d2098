package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func lockPath(t *testing.T) string { return filepath.Join(t.TempDir(), "test.lock") }

func acquire(t *testing.T, path string) *Lock {
	t.Helper()
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Release() })
	return l
}

func wantHolder(t *testing.T, path string, pid int) Owner {
	t.Helper()
	o, locked, err := Holder(path)
	if err != nil || !locked || o.PID != pid || !o.FromKernel {
		t.Fatalf("Holder = %+v, %v, %v; want process %d from the kernel", o, locked, err, pid)
	}
	return o
}

func wantFree(t *testing.T, path string) {
	t.Helper()
	if o, locked, err := Holder(path); err != nil || locked || o != (Owner{}) {
		t.Fatalf("Holder = %+v, %v, %v; want nobody", o, locked, err)
	}
}

func wantHeldBy(t *testing.T, err error, path string, pid int) {
	t.Helper()
	var h *HeldError
	if !errors.As(err, &h) || !errors.Is(err, ErrHeld) || h.PID != pid || h.Path != path {
		t.Fatalf("got error %v, want %s held by %d", err, path, pid)
	}
}

func TestAcquireWritesWhoItIs(t *testing.T) {
	path := lockPath(t)
	wantFree(t, path)
	l := acquire(t, path)
	if err := l.TextError(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path) // a stray open and close by this process
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) != 3 || lines[0] != fmt.Sprint(os.Getpid()) || lines[2] != "" {
		t.Errorf("text is %q", b)
	}
	if want := fmt.Sprintf("%d %s", readStartTime(), readBootID()); lines[1] != want {
		t.Errorf("second line is %q, want %q", lines[1], want)
	}
	if l.Path() != path {
		t.Errorf("Path = %q, want %q", l.Path(), path)
	}
	wantHolder(t, path, os.Getpid())
}

func TestFileModeAndFlags(t *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	path := lockPath(t)
	l := acquire(t, path)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", fi.Mode(), err)
	}
	if flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v; want close-on-exec", flags, err)
	}
}

func TestReleaseLeavesTheFileEmptyAndFree(t *testing.T) {
	path := lockPath(t)
	l := acquire(t, path)
	for range 2 { // the second does nothing
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != 0 {
		t.Errorf("after Release: %v, %v; want an empty file", fi, err)
	}
	wantFree(t, path)
	if err := l.Check(); !errors.Is(err, ErrReleased) {
		t.Errorf("Check after Release = %v, want ErrReleased", err)
	}
	acquire(t, path)
}

func TestOtherProcessHolds(t *testing.T) {
	path := lockPath(t)
	c := holder(t, path)
	_, err := Acquire(path)
	wantHeldBy(t, err, path, c.Process.Pid)
	o := wantHolder(t, path, c.Process.Pid)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := parseStartTime(stat); want == 0 || o.StartTime != want || o.BootID != readBootID() || o.TextPID != o.PID {
		t.Errorf("Holder = %+v, want start time %d, boot %s", o, want, readBootID())
	}
	// The failed attempt and the questions have not disturbed it.
	wantHolder(t, path, c.Process.Pid)
	c.in.Close()
	if got := c.says(t); got != "released" {
		t.Fatalf("child says %q", got)
	}
	wantFree(t, path)
}

func TestKillFreesTheLockAndLeavesTheText(t *testing.T) {
	path := lockPath(t)
	c := holder(t, path)
	c.kill()
	wantFree(t, path)
	if b, _ := os.ReadFile(path); !strings.HasPrefix(string(b), fmt.Sprintln(c.Process.Pid)) {
		t.Errorf("text is %q, want the dead holder's", b)
	}
	acquire(t, path)
	wantHolder(t, path, os.Getpid())
}

func TestSameProcessHolds(t *testing.T) {
	path := lockPath(t)
	l := acquire(t, path)
	_, err := Acquire(path)
	wantHeldBy(t, err, path, os.Getpid())

	// By another name as well; and none of the questions drops the lock, which only another process can see.
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(link)
	wantHeldBy(t, err, link, os.Getpid())
	wantHolder(t, link, os.Getpid())
	wantStrangerSees(t, path, os.Getpid())
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

// wantStrangerSees lets another process try to take the lock and checks whom it is told about; 0: the kernel names nobody.
func wantStrangerSees(t *testing.T, path string, pid int) {
	t.Helper()
	c := start(t, "hold", path)
	want := (&HeldError{Path: path, PID: pid}).Error()
	if got := c.says(t); got != want {
		t.Errorf("another process is told %q, want %q", got, want)
	}
	c.Wait()
}

// closeDrops opens and closes the file, as a careless library might.
func closeDrops(t *testing.T, path string) {
	t.Helper()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

func TestStrayCloseDoesNotFreeTheLock(t *testing.T) {
	path := lockPath(t)
	l := acquire(t, path)
	closeDrops(t, path)
	fd := reopen(t, path)
	if lk, err := getLock(fd, unix.F_OFD_GETLK, whetherByte); err != nil || lk.Type == unix.F_UNLCK {
		t.Fatalf("the OFD lock is gone: %+v, %v", lk, err)
	}
	if lk, err := getLock(fd, unix.F_OFD_GETLK, whoByte); err != nil || lk.Type != unix.F_UNLCK {
		t.Fatalf("the POSIX lock survived a close, the premise of this test is wrong: %+v, %v", lk, err)
	}
	// Who it is, is only known by the text now.
	o, locked, err := ask(fd)
	if err != nil || !locked || o.FromKernel || o.PID != os.Getpid() {
		t.Errorf("ask = %+v, %v, %v; want this process by its text", o, locked, err)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	if lk, err := getLock(fd, unix.F_OFD_GETLK, whoByte); err != nil || int(lk.Pid) != os.Getpid() {
		t.Errorf("after Check: %+v, %v; want the POSIX lock back", lk, err)
	}
	wantStrangerSees(t, path, os.Getpid())
}

// reopen opens the file for the test; it is closed when everything is over.
func reopen(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestKernelIsBelievedBeforeTheText(t *testing.T) {
	boot := readBootID()
	const otherBoot = "00000000-0000-0000-0000-000000000000"
	for _, tt := range []struct{ name, text string }{
		{"empty", ""},
		{"another process", "1\n5 " + boot + "\n"},
		{"garbage", "\x00\xff\x1b[2Jtraffic_server\n"},
		{"negative", "-1\n"},
		{"zero", "0\n"},
		{"huge number", strings.Repeat("9", 60) + "\n"},
		{"huge file", strings.Repeat("1234\n", 1<<20)},
		{"no newline", "12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := lockPath(t)
			c := holder(t, path)
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			o := wantHolder(t, path, c.Process.Pid)
			if o.StartTime != 0 || o.BootID != "" {
				t.Errorf("start time from a foreign text: %+v", o)
			}
			_, err := Acquire(path)
			wantHeldBy(t, err, path, c.Process.Pid)
		})
	}
	t.Run("this PID before the last boot", func(t *testing.T) {
		path := lockPath(t)
		c := holder(t, path)
		os.WriteFile(path, fmt.Appendf(nil, "%d\n77 %s\n", c.Process.Pid, otherBoot), 0o644)
		if o := wantHolder(t, path, c.Process.Pid); o.StartTime != 0 {
			t.Errorf("start time of an earlier boot: %+v", o)
		}
	})
}

// A text nobody stands behind: the process it names lives, but holds nothing.
func TestTextWithoutLockMeansNobody(t *testing.T) {
	path := lockPath(t)
	os.WriteFile(path, fmt.Appendf(nil, "%d\n%d %s\n", os.Getppid(), 1, readBootID()), 0o644)
	wantFree(t, path)
	acquire(t, path)
}

func TestDescribe(t *testing.T) {
	boot := readBootID()
	own := text{pid: 10, startTime: 99, bootID: boot}
	for _, tt := range []struct {
		name  string
		text  text
		pid   int
		named bool
		want  Owner
	}{
		{"both agree", own, 10, true, Owner{PID: 10, FromKernel: true, StartTime: 99, BootID: boot, TextPID: 10}},
		{"they differ", own, 11, true, Owner{PID: 11, FromKernel: true, TextPID: 10}},
		{"kernel knows one we cannot see", own, 0, true, Owner{TextPID: 10}},
		{"kernel names nobody", own, 0, false, Owner{PID: 10, StartTime: 99, BootID: boot, TextPID: 10}},
		{"nobody knows", text{}, 0, false, Owner{}},
		{"old text only", text{pid: 10, startTime: 99, bootID: "0-0"}, 0, false, Owner{TextPID: 10}},
		{"old text", text{pid: 10, startTime: 99, bootID: "0-0"}, 10, true, Owner{PID: 10, FromKernel: true, TextPID: 10}},
		{"no /proc when it was written", text{pid: 10}, 10, true, Owner{PID: 10, FromKernel: true, TextPID: 10}},
	} {
		if got := describe(tt.text, tt.pid, tt.named); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestReplacedAfterwards(t *testing.T) {
	path := lockPath(t)
	l := acquire(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); !errors.Is(err, ErrLost) {
		t.Errorf("Check after unlink = %v, want ErrLost", err)
	}
	acquire(t, path) // there are two now, which is what Check is for
	if err := l.Check(); !errors.Is(err, ErrLost) {
		t.Errorf("Check after replacement = %v, want ErrLost", err)
	}
}

// Somebody unlinks the file again and again while it is being locked: whoever gets a lock has one that counts.
func TestReplacedMeanwhile(t *testing.T) {
	path := lockPath(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
				os.Remove(path)
			}
		}
	}()
	var locks []*Lock
	for range 200 {
		l, err := Acquire(path)
		if err == nil {
			locks = append(locks, l)
		} else if !errors.Is(err, ErrHeld) && !errors.Is(err, errReplaced) {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	for _, l := range locks {
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
	acquire(t, path)
}

func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	os.WriteFile(target, []byte("precious"), 0o644)
	for name, make := range map[string]func(string) error{
		"directory":        func(p string) error { return os.Mkdir(p, 0o755) },
		"fifo":             func(p string) error { return unix.Mkfifo(p, 0o644) },
		"symbolic link":    func(p string) error { return os.Symlink(target, p) },
		"dangling link":    func(p string) error { return os.Symlink(filepath.Join(dir, "none"), p) },
		"socket":           func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) },
		"character device": func(p string) error { return os.Symlink("/dev/null", p) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Acquire(path); !errors.Is(err, ErrNotRegular) {
			t.Errorf("Acquire of a %s: %v, want ErrNotRegular", name, err)
		}
		if _, _, err := Holder(path); !errors.Is(err, ErrNotRegular) {
			t.Errorf("Holder of a %s: %v, want ErrNotRegular", name, err)
		}
	}
	if b, _ := os.ReadFile(target); string(b) != "precious" {
		t.Errorf("the link's target was written: %q", b)
	}
	if _, err := Acquire(filepath.Join(dir, "missing", "x.lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Acquire in a missing directory: %v", err)
	}
}

// Testing never takes the lock: another process takes and gives it back, again and again, while this one looks all the
// time; it is never refused.
func TestTestingDoesNotTake(t *testing.T) {
	path := lockPath(t)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				Holder(path)
			}
		}
	}()
	for range 10 {
		c := holder(t, path)
		c.in.Close()
		c.says(t)
		c.Wait()
	}
	close(stop)
	<-ended
}

func TestOneWins(t *testing.T) {
	path := lockPath(t)
	var all []*child
	for range 8 {
		c := start(t, "race", path)
		c.says(t)
		all = append(all, c)
	}
	for _, c := range all {
		c.in.Close()
	}
	winner, told := 0, map[string]int{}
	for _, c := range all {
		got := c.says(t)
		if got == "won" {
			if winner != 0 {
				t.Errorf("both %d and %d won", winner, c.Process.Pid)
			}
			winner = c.Process.Pid
		}
		told[got]++
	}
	if told["won"] != 1 {
		t.Fatalf("got %v, want one winner", told)
	}
	wantHolder(t, path, winner)
}

// The child of a holder has no part in the lock once it has executed its program.
func TestChildDoesNotInherit(t *testing.T) {
	path := lockPath(t)
	l := acquire(t, path)
	c := start(t, "race", lockPath(t)) // any program will do
	c.says(t)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	wantFree(t, path)
}

func TestHolderInAnotherPIDNamespace(t *testing.T) {
	path := lockPath(t)
	c := holder(t, path, func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID}
	})
	// It wrote the PID it sees; the kernel translates.
	o := wantHolder(t, path, c.Process.Pid)
	if o.TextPID != 1 || o.StartTime != 0 {
		t.Errorf("Holder = %+v, want text PID 1 and no start time", o)
	}
}

// A full disk must not keep a service from starting.
func TestTextCannotBeWritten(t *testing.T) {
	path := lockPath(t)
	os.WriteFile(path, []byte("4711\n"), 0o644)
	c := start(t, "full", path)
	if got := c.says(t); got != "held, text error true" {
		t.Fatalf("it says %q", got)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != 0 {
		t.Errorf("the previous holder's text is still there: %v, %v", fi, err)
	}
	wantHolder(t, path, c.Process.Pid)
}
