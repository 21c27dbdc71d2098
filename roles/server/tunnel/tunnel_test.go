package tunnel

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
)

// joint is a tunnel between the far ends of two socket pairs.
type joint struct {
	t              *testing.T
	loop           *eventloop.Loop
	arena          *buffer.Arena
	client, origin *os.File // our ends
	closed         chan Summary
}

func join(t *testing.T, idle time.Duration, toClient, toOrigin string) *joint {
	t.Helper()
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := &joint{t: t, loop: l, closed: make(chan Summary, 2)}
	if j.arena, err = buffer.New(buffer.Shape{Smalls: 4, Larges: 8}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	client, a := pair(t)
	origin, b := pair(t)
	j.client, j.origin = client, origin
	j.on(func() {
		Join(Options{Loop: l, Arena: j.arena, Idle: idle, Closed: func(s Summary) { j.closed <- s }},
			End{FD: a}, End{FD: b}, []byte(toClient), []byte(toOrigin)).Start()
	})
	t.Cleanup(func() {
		client.Close()
		origin.Close()
		j.on(func() {
			if used := j.arena.InUse(); used != (buffer.Shape{}) {
				t.Errorf("pages are still in use: %+v", used)
			}
		})
		l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return j
}

// pair returns our end, with time limits, and the tunnel's, non-blocking.
func pair(t *testing.T) (*os.File, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "end")
	if err := f.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return f, fds[1]
}

func (j *joint) on(f func()) {
	done := make(chan struct{})
	j.loop.Post(func() { defer close(done); f() })
	<-done
}

func (j *joint) halfClose(f *os.File) {
	j.t.Helper()
	rc, err := f.SyscallConn()
	if err != nil {
		j.t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		j.t.Fatal(err)
	}
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *joint) say(f *os.File, s string) {
	j.t.Helper()
	if _, err := io.WriteString(f, s); err != nil {
		j.t.Fatal(err)
	}
}

func (j *joint) expect(f *os.File, want string) {
	j.t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(f, b); err != nil || string(b) != want {
		j.t.Fatalf("got %q %v, want %q", b, err, want)
	}
}

func (j *joint) expectEnd(f *os.File) {
	j.t.Helper()
	if n, err := f.Read(make([]byte, 1)); err != io.EOF {
		j.t.Fatalf("got %d bytes and %v, want the end", n, err)
	}
}

func TestEachDirectionEndsByItself(t *testing.T) {
	for _, first := range []string{"client", "origin"} {
		t.Run(first, func(t *testing.T) {
			j := join(t, 0, "to client ", "to origin ")
			a, b := j.client, j.origin
			if first == "origin" {
				a, b = b, a
			}
			j.expect(j.client, "to client ")
			j.expect(j.origin, "to origin ")
			j.say(a, "last words")
			j.halfClose(a)
			j.expect(b, "last words")
			j.expectEnd(b)
			j.say(b, "answer")
			j.expect(a, "answer")
			j.halfClose(b)
			j.expectEnd(a)
			if s := <-j.closed; s.TimedOut || s.ToClient+s.ToOrigin != int64(len("to client to origin last wordsanswer")) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestASideThatDoesNotReadStopsTheOther(t *testing.T) {
	j := join(t, 0, "", "")
	payload := bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16)
	wrote := make(chan error, 1)
	go func() {
		_, err := j.client.Write(payload)
		wrote <- err
	}()
	for full := false; !full; {
		j.on(func() { full = j.arena.InUse().Larges == 1 })
	}
	select {
	case err := <-wrote:
		t.Fatalf("all was taken though nobody reads: %v", err)
	default:
	}
	got := make([]byte, len(payload))
	if _, err := io.ReadFull(j.origin, got); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("what came is not what was sent: %v", err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	j.client.Close()
	j.expectEnd(j.origin)
	j.origin.Close()
	<-j.closed
}

func TestAnIdleTunnelIsClosed(t *testing.T) {
	j := join(t, 20*time.Millisecond, "", "")
	if s := <-j.closed; !s.TimedOut {
		t.Errorf("got %+v", s)
	}
	j.expectEnd(j.client)
	j.expectEnd(j.origin)
}

func TestABrokenSideEndsBoth(t *testing.T) {
	j := join(t, 0, "", "")
	j.origin.Close()
	j.expectEnd(j.client) // the end of the origin's direction
	j.client.Write([]byte("x"))
	if s := <-j.closed; s.TimedOut {
		t.Errorf("got %+v", s)
	}
}

func TestWhatDoesNotFitClosesTheTunnel(t *testing.T) {
	j := join(t, 0, string(make([]byte, buffer.Large+1)), "")
	<-j.closed
	j.expectEnd(j.client)
}
