package cache

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	childEnv  = "TRAFFICD_CACHE_TEST_CHILD" // set: this is the process to be killed; its value seeds the work
	crashSize = 4 << 20
	crashFD   = 3
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if seed := os.Getenv(childEnv); seed != "" {
		os.Exit(victim(seed))
	}
	os.Exit(m.Run())
}

// victim works on the inherited mapping until it is killed. It says on standard output
// that it has opened the store. Before that it checks what the last victim left.
func victim(seed string) int {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return 2
	}
	mem, err := unix.Mmap(crashFD, 0, crashSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 3
	}
	s, err := Open(mem, Options{})
	if err != nil {
		return 4
	}
	fmt.Println("open")
	fail := make(chan string)
	for i := range uint64(2) {
		a, w := s.Arena(), newWork(n*2+i)
		go func() {
			for {
				if msg := w.step(s, a); msg != "" {
					fail <- msg
					return
				}
			}
		}()
	}
	fmt.Fprintln(os.Stderr, <-fail)
	return 5
}

// startVictim runs a victim on fd and waits until it has opened the store. What it says on standard
// error is gathered in the command's Stderr; see killedBy.
func startVictim(t *testing.T, fd int, seed uint64, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+strconv.FormatUint(seed, 10), "GOMAXPROCS=2"), env...)
	cmd.Stderr = &bytes.Buffer{}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "cache")
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start victim: %v", err)
	}
	// A victim that is to die inside Open closes the pipe without a word.
	_, _ = bufio.NewReader(out).ReadString('\n')
	return cmd
}

// killedBy waits for the victim and fails unless it died by SIGKILL without a complaint: one that found
// something wrong can be killed before it has ended by itself.
func killedBy(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	_ = cmd.Wait()
	said := cmd.Stderr.(*bytes.Buffer).String()
	ws, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool })
	switch {
	case !ok || !ws.Signaled():
		t.Fatalf("victim ended by itself: %v; it said: %q", cmd.ProcessState, said)
	case said != "":
		t.Fatalf("victim said: %q", said)
	}
}

// checkAll opens the store a dead process left and checks every byte of every object
// the index leads to, and that the store still works.
func checkAll(t *testing.T, mem []byte) (objects int) {
	t.Helper()
	s := open(t, mem, Options{})
	a := s.Arena()
	for i := range s.sets {
		for j := range s.sets[i].locs {
			o, ok := a.open(location(s.sets[i].locs[j].Load()))
			if !ok {
				continue
			}
			if s.set(o.Key()) != &s.sets[i] {
				t.Fatalf("set %d leads to a key of another set", i)
			}
			if msg := verify(&o, o.Key()); msg != "" {
				t.Fatal(msg)
			}
			objects++
			o.Release()
		}
	}
	o := store(t, a, keyN(1), 9, "", 2000, true)
	check(t, &o, 9, 2000)
	o.Release()
	return objects
}

// TestKilledAtRandom kills a process that stores, finds, updates and removes, at a
// random instant, 200 times over the same mapping.
func TestKilledAtRandom(t *testing.T) {
	mem, fd := shared(t, crashSize)
	kills, most := 200, 0
	if testing.Short() {
		kills = 20
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range kills {
		cmd := startVictim(t, fd, uint64(i))
		// Not synchronisation: the instant of death is what is being drawn.
		death := time.NewTimer(time.Duration(r.IntN(8_000)) * time.Microsecond)
		<-death.C
		_ = cmd.Process.Kill()
		killedBy(t, cmd)
		most = max(most, checkAll(t, mem))
	}
	if most < 100 {
		t.Errorf("never more than %d objects survived a kill: the test tests nothing", most)
	}
	t.Logf("%d kills, up to %d objects checked after one", kills, most)
}

// TestSealIsLast holds what Resume relies on: a record without its seal is not opened.
func TestSealIsLast(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	o := store(t, a, keyN(1), 1, "", 10, true)
	defer o.Release()
	h := (*objectHeader)(unsafe.Pointer(s.header(o.loc)))
	seal := h.seal
	h.seal = 0
	if _, ok := a.OpenID(o.ID()); ok {
		t.Error("opened a record without a seal")
	}
	h.seal = seal
}
