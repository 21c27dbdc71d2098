package harness

import (
	"syscall"
	"testing"
)

// NeedFiles sees to it that this process, and those that it starts from now on, may have so many files
// open.
func NeedFiles(t testing.TB, n uint64) {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if lim.Cur >= n {
		return
	}
	was := lim
	lim.Cur, lim.Max = n, max(n, lim.Max)
	// By this function, not by that of x/sys: package os lowers the limit of children else.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatalf("this story has %d files open at a time, and may have %d: %v", n, was.Max, err)
	}
}
