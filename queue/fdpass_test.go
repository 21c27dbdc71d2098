package queue

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T, kind int) (a, b *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(p[0]), "a"), os.NewFile(uintptr(p[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestDescriptorsArriveOnEveryKindOfSocket(t *testing.T) {
	for name, kind := range map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "dgram": unix.SOCK_DGRAM, "stream": unix.SOCK_STREAM} {
		a, b := pair(t, kind)
		r, w, _ := os.Pipe()
		if err := Send(a, []byte("hello"), int(r.Fd()), int(w.Fd())); err != nil {
			t.Fatal(err)
		}
		r.Close()
		w.Close()
		buf := make([]byte, 100)
		n, fds, err := Recv(b, buf)
		if err != nil || string(buf[:n]) != "hello" || len(fds) != 2 {
			t.Fatalf("%s: %q, %v, %v", name, buf[:n], fds, err)
		}
		for _, fd := range fds {
			if fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: descriptor would be inherited by exec", name)
			}
		}
		if _, err := unix.Write(fds[1], []byte("through")); err != nil {
			t.Error(err)
		}
		if n, err := unix.Read(fds[0], buf); string(buf[:n]) != "through" {
			t.Errorf("%s: read %q, %v", name, buf[:n], err)
		}
		CloseAll(fds)
	}
}

func TestMostDescriptorsOfAMessage(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	before := openFDs(t)
	null, _ := os.Open("/dev/null")
	fds := make([]int, MaxFDs)
	for i := range fds {
		fds[i] = int(null.Fd())
	}
	if err := Send(a, []byte("x"), append(fds, fds[0])...); err == nil {
		t.Error("one too many was sent")
	}
	if err := Send(a, []byte("x"), fds...); err != nil {
		t.Fatal(err)
	}
	_, got, err := Recv(b, make([]byte, 1))
	if err != nil || len(got) != MaxFDs {
		t.Errorf("%d arrived, %v", len(got), err)
	}
	CloseAll(got)
	null.Close()
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestTruncatedMessageClosesWhatCame(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	before := openFDs(t)
	if err := Send(a, []byte("too long"), int(a.Fd())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Recv(b, make([]byte, 3)); !errors.Is(err, ErrTruncated) {
		t.Errorf("Recv = %v, want ErrTruncated", err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestEndsOfAConnection(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	if err := Send(a, nil); err == nil {
		t.Error("an empty message was sent: it would look like the end")
	}
	if _, _, err := RecvFD(int(b.Fd()), make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("RecvFD of nothing = %v, want EAGAIN", err)
	}
	a.Close()
	if _, _, err := Recv(b, make([]byte, 1)); err != io.EOF {
		t.Errorf("Recv after close = %v, want EOF", err)
	}
	if err := Send(b, []byte("x")); !errors.Is(err, ErrPeerGone) {
		t.Errorf("Send after close = %v, want ErrPeerGone", err)
	}
}

func TestLongStreamMessageIsWrittenWhole(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	long := bytes.Repeat([]byte("abc"), 1<<20)
	done := make(chan error, 1)
	go func() { done <- Send(a, long, int(a.Fd())) }()
	var got []byte
	fds := 0
	for len(got) < len(long) {
		buf := make([]byte, 1<<16)
		n, f, err := Recv(b, buf)
		if err != nil {
			t.Fatal(err)
		}
		fds += len(f)
		CloseAll(f)
		got = append(got, buf[:n]...)
	}
	if err := <-done; err != nil || !bytes.Equal(got, long) || fds != 1 {
		t.Errorf("%v, %d bytes, %d descriptors", err, len(got), fds)
	}
}

func TestSendObeysTheWriteDeadline(t *testing.T) {
	a, _ := pair(t, unix.SOCK_SEQPACKET)
	a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	var err error
	for err == nil {
		err = Send(a, make([]byte, 4096))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send to a peer that does not read = %v", err)
	}
}

func FuzzControlData(f *testing.F) {
	f.Add(unix.UnixRights(3, 4, 5))
	f.Add(append(unix.UnixCredentials(&unix.Ucred{Pid: 1}), unix.UnixRights(9)...))
	f.Add(unix.UnixRights(3)[:18])
	f.Fuzz(func(t *testing.T, oob []byte) {
		if n := len(parseRights(oob)); n > len(oob)/4 {
			t.Errorf("%d descriptors in %d bytes", n, len(oob))
		}
	})
}
