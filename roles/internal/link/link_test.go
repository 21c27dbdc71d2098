package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func as(role string) func() Hello {
	return func() Hello {
		return Hello{Role: role, PID: os.Getpid(), StartTime: 7, Generation: 3, State: "ready", Want: []string{"heritage"}}
	}
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "manager.sock") }

func serve(t *testing.T, path string, o ServerOptions) *Server {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	if o.Self == nil {
		o.Self = as("manager")
	}
	s := Serve(l, o)
	t.Cleanup(func() { s.Close() })
	return s
}

func dialRaw(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

func connectTo(t *testing.T, path string, mux *Mux) *Conn {
	t.Helper()
	c, err := connect(soon(t), dialRaw(t, path), as("server")(), mux)
	if err != nil {
		t.Fatal(err)
	}
	c.start(nil)
	t.Cleanup(func() { c.Close(); c.wait() })
	return c
}

func echo(_ context.Context, _ *Conn, m *Message) (Reply, error) {
	return Reply{Body: m.Body, FDs: m.fds}, nil
}

func TestBothSidesIntroduceThemselves(t *testing.T) {
	path := socketPath(t)
	connected := make(chan *Conn, 1)
	serve(t, path, ServerOptions{OnConnect: func(c *Conn) { connected <- c }})
	c := connectTo(t, path, nil)
	h := <-connected
	if got := fmt.Sprint(c.Hello()); got != fmt.Sprint(as("manager")()) {
		t.Errorf("dialer was told %s", got)
	}
	if got := fmt.Sprint(h.Hello()); got != fmt.Sprint(as("server")()) {
		t.Errorf("hub was told %s", got)
	}
	want := Peer{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	if c.peer != want || h.peer != want {
		t.Errorf("peers %+v and %+v, want %+v", c.peer, h.peer, want)
	}
}

func TestCallsWithDescriptorsBothWays(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("echo", echo)
	connected := make(chan *Conn, 1)
	serve(t, path, ServerOptions{Mux: mux, OnConnect: func(c *Conn) { connected <- c }})
	there := connectTo(t, path, mux)
	here := <-connected
	before := openFDs(t)
	r, w, _ := os.Pipe()
	for name, c := range map[string]*Conn{"dialer": there, "hub": here} {
		reply, err := c.Call(soon(t), "echo", map[string]int{"n": 5}, int(r.Fd()), int(w.Fd()))
		if err != nil {
			t.Fatal(name, err)
		}
		var body struct{ N int }
		if err := reply.Decode(&body); err != nil || body.N != 5 || len(reply.fds) != 2 {
			t.Errorf("%s: reply %s with %d descriptors, %v", name, reply.Body, len(reply.fds), err)
		}
		fds := reply.TakeFDs()
		if _, err := unix.Write(fds[1], []byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 1 {
			t.Errorf("%s: descriptor came back as another: %v", name, err)
		}
		queue.CloseAll(fds)
		reply.Close() // nothing left in it
	}
	r.Close()
	w.Close()
	eventually(t, "handlers' copies closed", func() bool { return openFDs(t) == before })
}

func TestBodiesOfEverySize(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("echo", echo)
	serve(t, path, ServerOptions{Mux: mux})
	c := connectTo(t, path, nil)
	null, _ := os.Open(os.DevNull)
	defer null.Close()
	for _, n := range []int{0, 1, maxInline - 2, maxInline - 1, maxDatagram, 1 << 20} {
		want := strings.Repeat("x", n)
		raw := json.RawMessage(`"` + want + `"`)
		reply, err := c.Call(soon(t), "echo", raw, int(null.Fd()))
		if err != nil {
			t.Fatalf("body of %d bytes: %v", n, err)
		}
		var got string
		if err := reply.Decode(&got); err != nil || got != want || len(reply.fds) != 1 {
			t.Errorf("body of %d bytes came back with %d, %d descriptors, %v", n, len(got), len(reply.fds), err)
		}
		reply.Close()
	}
	if _, err := c.Call(soon(t), "echo", func() {}); err == nil {
		t.Error("a function was sent")
	}
	if _, err := c.Call(soon(t), strings.Repeat("x", maxOp+1), nil); err == nil {
		t.Error("a long op was sent")
	}
}

func TestErrorsAreTold(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("fail", func(context.Context, *Conn, *Message) (Reply, error) { return Reply{}, errors.New("no room") })
	mux.Handle("busy", func(context.Context, *Conn, *Message) (Reply, error) {
		return Reply{}, &RemoteError{Code: "busy", Text: strings.Repeat("x", maxText+1)}
	})
	mux.Handle("bad", func(context.Context, *Conn, *Message) (Reply, error) { return Reply{Body: func() {}}, nil })
	serve(t, path, ServerOptions{Mux: mux})
	c := connectTo(t, path, nil)
	for op, want := range map[string]string{"fail": CodeFailed, "busy": "busy", "none": CodeUnknownOp, "hello": CodeUnknownOp, "bad": CodeFailed} {
		_, err := c.Call(soon(t), op, nil)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != want || len(remote.Text) > maxText {
			t.Errorf("%s: %v, want code %s", op, err, want)
		}
	}
	if c.Err() != nil {
		t.Errorf("the connection ended: %v", c.Err())
	}
}

func TestMessagesAreHandledInOrder(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	handled := make(chan int, 100)
	mux.Handle("n", func(_ context.Context, _ *Conn, m *Message) (Reply, error) {
		var n int
		err := m.Decode(&n)
		handled <- n
		return Reply{}, err
	})
	serve(t, path, ServerOptions{Mux: mux})
	c := connectTo(t, path, nil)
	var want []int
	for i := range 100 {
		want = append(want, i)
		if i == 99 {
			if _, err := c.Call(soon(t), "n", i); err != nil {
				t.Fatal(err)
			}
		} else if err := c.Emit("n", i); err != nil {
			t.Fatal(err)
		}
	}
	var got []int
	for range want {
		got = append(got, <-handled)
	}
	if !slices.Equal(got, want) {
		t.Errorf("handled %v", got)
	}
}

func TestHandlerMayCallItsPeer(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("ask", func(ctx context.Context, c *Conn, m *Message) (Reply, error) {
		r, err := c.Call(ctx, "echo", "from the handler")
		if err != nil {
			return Reply{}, err
		}
		defer r.Close()
		return Reply{Body: r.Body}, nil
	})
	serve(t, path, ServerOptions{Mux: mux})
	back := NewMux()
	back.Handle("echo", echo)
	r, err := connectTo(t, path, back).Call(soon(t), "ask", nil)
	if err != nil || string(r.Body) != `"from the handler"` {
		t.Errorf("%v, %v", r, err)
	}
}

func TestCallEndsWithItsContextOrConnection(t *testing.T) {
	path := socketPath(t)
	null, _ := os.Open(os.DevNull)
	t.Cleanup(func() { null.Close() }) // after the hub, whose handler uses it
	started, release := make(chan struct{}, 2), make(chan struct{})
	mux := NewMux()
	mux.Handle("wait", func(ctx context.Context, _ *Conn, m *Message) (Reply, error) {
		started <- struct{}{}
		<-release
		return Reply{FDs: []int{int(null.Fd())}}, nil
	})
	mux.Handle("hang", func(ctx context.Context, _ *Conn, m *Message) (Reply, error) {
		started <- struct{}{}
		<-ctx.Done()
		return Reply{}, nil
	})
	mux.Handle("echo", echo)
	s := serve(t, path, ServerOptions{Mux: mux})
	c := connectTo(t, path, nil)
	before := openFDs(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-started; cancel() }()
	if _, err := c.Call(ctx, "wait", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
	// The late reply, with its descriptor, falls on the floor and is swept up.
	close(release)
	if _, err := c.Call(soon(t), "echo", 1); err != nil {
		t.Error(err)
	}
	eventually(t, "late descriptor closed", func() bool { return openFDs(t) == before })

	go func() { <-started; s.Close() }()
	if _, err := c.Call(soon(t), "hang", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("call when the hub closes: %v", err)
	}
	<-c.Done()
	if !errors.Is(c.Err(), io.EOF) {
		t.Errorf("connection ended with %v, want EOF", c.Err())
	}
	if _, err := c.Call(soon(t), "echo", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("call on an ended connection: %v", err)
	}
	if err := c.Emit("echo", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("emit on an ended connection: %v", err)
	}
}

func TestLastWordsAreHeard(t *testing.T) {
	path := socketPath(t)
	heard := make(chan string, 10)
	mux := NewMux()
	mux.Handle("bye", func(_ context.Context, _ *Conn, m *Message) (Reply, error) {
		heard <- string(m.Body)
		return Reply{}, nil
	})
	closed := make(chan error, 1)
	serve(t, path, ServerOptions{Mux: mux, OnClose: func(_ *Conn, err error) { closed <- err }})
	c := connectTo(t, path, nil)
	for i := range 3 {
		if err := c.Emit("bye", i); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("closed by %v", err)
	}
	if len(heard) != 3 {
		t.Errorf("%d of 3 last words heard", len(heard))
	}
}

func TestHelloIsRefused(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{MaxConns: 2, Admit: func(p Peer, h Hello) error {
		if h.Generation != 3 {
			return fmt.Errorf("generation %d is over", h.Generation)
		}
		return nil
	}})
	for want, h := range map[string]Hello{
		"generation 9 is over":  {Role: "server", PID: os.Getpid(), Generation: 9},
		"hello says pid 1":      {Role: "server", PID: 1, Generation: 3},
		"hello without a role":  {PID: os.Getpid(), Generation: 3},
		"generation 10 is over": {Role: "cop", PID: os.Getpid(), Generation: 10},
	} {
		_, err := connect(soon(t), dialRaw(t, path), h, nil)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != CodeRefused || !strings.Contains(remote.Text, want) {
			t.Errorf("%+v: %v, want %q", h, err, want)
		}
	}
}

// raw talks to the hub in bytes.
func raw(t *testing.T, path string, messages ...string) string {
	t.Helper()
	u := dialRaw(t, path)
	defer u.Close()
	for _, m := range messages {
		if err := queue.Send(u, []byte(m)); err != nil {
			return err.Error()
		}
	}
	u.SetReadDeadline(time.Now().Add(time.Minute))
	var all []string
	for {
		buf := make([]byte, maxDatagram)
		n, fds, err := queue.Recv(u, buf)
		queue.CloseAll(fds)
		if err != nil {
			return strings.Join(append(all, err.Error()), "\n")
		}
		all = append(all, string(buf[:n]))
	}
}

func TestWhateverAPeerSendsOnlyItsConnectionEnds(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("echo", echo)
	serve(t, path, ServerOptions{Mux: mux})
	good := connectTo(t, path, nil)
	hello := fmt.Sprintf(`{"v":1,"kind":"call","id":1,"op":"hello","body":{"role":"server","pid":%d}}`, os.Getpid())
	for _, c := range []struct {
		messages []string
		want     string
	}{
		{[]string{`x`}, "EOF"},
		{[]string{`{"v":1,"kind":"call","id":1,"op":"echo"}`}, "before hello"},
		{[]string{`{"v":2,"kind":"shout","id":4}`}, `"id":4,"error":{"code":"version","text":"link version 2 is not spoken here, only 1"}`},
		{[]string{`{"v":1,"kind":"call","id":1,"op":"hello","body":7}`}, CodeRefused},
		{[]string{hello, `x`}, "EOF"},
		{[]string{hello, `{"v":2,"kind":"event","op":"echo"}`}, "EOF"},
		{[]string{hello, `{"v":1,"kind":"call","op":"echo"}`}, "EOF"},
		{[]string{hello, `{"v":1,"kind":"event","op":"echo","memory":100}`}, "EOF"},
		{[]string{hello, strings.Repeat("x", maxDatagram+1)}, "EOF"},
	} {
		if got := raw(t, path, c.messages...); !strings.Contains(got, c.want) {
			t.Errorf("%.60q: hub answers %q, want %q", c.messages, got, c.want)
		}
	}
	if _, err := good.Call(soon(t), "echo", 1); err != nil {
		t.Errorf("another connection suffered: %v", err)
	}
}

func TestBodyInMemoryMustBeSealedAndOfItsLength(t *testing.T) {
	before := openFDs(t)
	if _, err := sealBody(make([]byte, MaxBody+1)); err == nil || !strings.Contains(err.Error(), "at most 16777216") {
		t.Errorf("body beyond the limit: %v", err)
	}
	body := bytes.Repeat([]byte("x"), 100)
	sealed, err := sealBody(body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readBody(sealed, 100); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := readBody(sealed, 99); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrong length: %v", err)
	}
	open, _ := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	unix.Ftruncate(open, 100)
	if _, err := readBody(open, 100); !errors.Is(err, ErrMalformed) {
		t.Errorf("memory not sealed: %v", err)
	}
	null, _ := os.Open(os.DevNull)
	if _, err := readBody(int(null.Fd()), 100); !errors.Is(err, ErrMalformed) {
		t.Errorf("not memory: %v", err)
	}
	null.Close()
	queue.CloseAll([]int{sealed, open})
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestTooManyConnections(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{MaxConns: 1})
	connectTo(t, path, nil)
	if _, err := connect(soon(t), dialRaw(t, path), as("cop")(), nil); err == nil {
		t.Error("one too many was let in")
	}
}

func TestPeerThatRunsAheadIsDisconnected(t *testing.T) {
	path := socketPath(t)
	mux := NewMux()
	mux.Handle("slow", func(ctx context.Context, _ *Conn, _ *Message) (Reply, error) {
		<-ctx.Done()
		return Reply{}, nil
	})
	serve(t, path, ServerOptions{Mux: mux})
	c := connectTo(t, path, nil)
	var err error
	for n := 0; err == nil && n < 100*inboxLen; n++ {
		err = c.Emit("slow", n)
	}
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Emit = %v, want ErrClosed", err)
	}
}

func TestOnlyOurUserAndRootAreTrusted(t *testing.T) {
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, os.Geteuid() + 1: false} {
		if err := (Peer{UID: uid}).trusted(); (err == nil) != want {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"kind":"call","id":1,"op":"hello","body":{"role":"server"}}`), uint8(0))
	f.Add([]byte(`{"v":1,"kind":"reply","id":1,"error":{"code":"x","text":"y"}}`), uint8(1))
	f.Add([]byte(`{"v":1,"kind":"event","op":"x","memory":5}`), uint8(1))
	f.Add([]byte(`{"v":2}`), uint8(0))
	f.Add([]byte(`[]`), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		fds := int(n)
		e, err := decode(b, fds)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.As(err, new(*VersionError)) {
				t.Errorf("%q: %v", b, err)
			}
			return
		}
		if e.Memory > 0 && fds == 0 {
			t.Errorf("%q: body in memory without descriptor", b)
		}
	})
}

func FuzzInotify(f *testing.F) {
	f.Add(append(append(make([]byte, 12), 16, 0, 0, 0), "manager.sock\x00\x00\x00\x00"...))
	f.Add(append(make([]byte, 12), 255, 255, 255, 255))
	f.Fuzz(func(t *testing.T, b []byte) { mentions(b, "manager.sock") })
}
