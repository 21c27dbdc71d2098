package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
)

// runLocked is a server with its lock file, its keeper and many connections. 3:
// the end to send into, 4: where to say ready.
func runLocked() error {
	lock, err := lockfile.Acquire(os.Getenv("LOCK"))
	if err != nil {
		return err
	}
	fd, err := descriptorOf(lock.Path())
	if err != nil {
		return err
	}
	k, err := StartKeeper(KeeperOptions{
		End: 3, Generation: uint64(envInt("GENERATION")), CloseFirst: []int{fd}, Never: []int{4},
	})
	if err != nil {
		return err
	}
	for range envInt("SOCKETS") {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.NewFile(4, "ready"), "%d %d\n", k.PID(), k.StartTime())
	return hang()
}

// descriptorOf finds the descriptor of this process that has path open.
func descriptorOf(path string) (int, error) {
	var want, st unix.Stat_t
	if err := unix.Lstat(path, &want); err != nil {
		return -1, err
	}
	for fd := range 1024 {
		if unix.Fstat(fd, &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("%s is not open", path)
}

func startLocked(t *testing.T, in *os.File, path string, generation uint64, sockets int) (*child, Sender) {
	t.Helper()
	r, w := pipe(t)
	c := startRole(t, "locked", nil, []*os.File{in, w}, "LOCK="+path, env("GENERATION", generation), env("SOCKETS", sockets))
	w.Close()
	keeper := Sender{Generation: generation}
	if _, err := fmt.Sscan(ready(t, r), &keeper.PID, &keeper.StartTime); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill(); endKeeper(t, keeper); reapOrphans() })
	return c, keeper
}

// TestTheLockPassesOnWhileTheKeeperSends: both locks of package lockfile are free
// once their holder is dead, though its keeper still has the table; the next takes
// them, starts a keeper of its own into the same socket, and receives.
func TestTheLockPassesOnWhileTheKeeperSends(t *testing.T) {
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	// Room for one or two messages: the first keeper must wait in the middle.
	if err := unix.SetsockoptInt(int(in.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "server.lock")
	first, keeper := startLocked(t, in, path, 1, 1500)
	if _, err := lockfile.Acquire(path); !errors.Is(err, lockfile.ErrHeld) {
		t.Fatalf("the lock of a living server: %v, want ErrHeld", err)
	}
	first.kill()
	eventually(t, "lock file free", func() bool {
		_, held, err := lockfile.Holder(path)
		if err != nil {
			t.Fatal(err)
		}
		return !held
	})
	second, nextKeeper := startLocked(t, in, path, 2, 300)
	if keeper.over() {
		t.Fatal("the first keeper has ended; it was to wait")
	}
	if owner, held, err := lockfile.Holder(path); !held || owner.PID != second.cmd.Process.Pid || err != nil {
		t.Errorf("the lock is held: %v, by %+v, %v; want the second server", held, owner, err)
	}
	got, c := receiveAll(t, out, CustodyOptions{Senders: []Sender{keeper}})
	if c.Err() != nil || len(got) != 1500 {
		t.Errorf("%d descriptors of the first, want 1500; %v", len(got), c.Err())
	}
	second.kill()
	got, c = receiveAll(t, out, CustodyOptions{Senders: []Sender{nextKeeper}})
	if c.Err() != nil || len(got) != 300 {
		t.Errorf("%d descriptors of the second, want 300; %v", len(got), c.Err())
	}
	last, err := lockfile.Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Release(); err != nil {
		t.Error(err)
	}
}
