package queue

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What is marked goes before everything else, whatever its number, and once; the mark behind it
// tells the receiver so before the first of the others.
func TestWhatGoesFirst(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK)
	var sockets []int
	for range 300 { // more than one message
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		sockets = append(sockets, fd)
	}
	first := make([]byte, sockets[len(sockets)-1]+1)
	want := map[int]bool{sockets[299]: true, sockets[7]: true}
	for fd := range want {
		first[fd] = 1
	}
	page, err := newKeeperPage(&KeeperOptions{End: int(in.Fd()), Kinds: KindTCP, First: first})
	if err != nil {
		t.Fatal(err)
	}
	defer page.unmap()
	// In this process, which is its own keeper for once.
	if errno := keeperSendAll(page); errno != 0 {
		t.Fatal(errno)
	}
	c, err := ReceiveCustody(int(out.Fd()), CustodyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	early, seen := 0, map[int]int{}
	for k := range c.All() {
		seen[k.Number]++
		if want[k.Number] == c.First() {
			t.Errorf("descriptor %d: First says %v", k.Number, c.First())
		}
		if !c.First() {
			early++
		}
		unix.Close(k.FD)
	}
	if c.Err() != nil || early != len(want) {
		t.Errorf("%d before the mark, want %d; %v", early, len(want), c.Err())
	}
	for _, fd := range sockets {
		if seen[fd] != 1 {
			t.Errorf("descriptor %d arrived %d times", fd, seen[fd])
		}
	}
}
