package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func dialer(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unixpacket", path)
	}
}

func TestTetherFindsTheNextHub(t *testing.T) {
	for name, watched := range map[string]bool{"inotify": true, "poll": false} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			o := KeepOptions{Dial: dialer(path), Self: as("server")}
			if watched {
				o.Dir, o.Name = filepath.Dir(path), filepath.Base(path)
			}
			lost := make(chan error, 1)
			connected := make(chan *Conn, 1)
			o.OnConnect = func(c *Conn) { connected <- c }
			o.OnLost = func(_ *Conn, err error) { lost <- err }
			tether := Keep(context.Background(), o)
			defer tether.Close()
			for generation := range uint64(3) {
				mux := NewMux()
				mux.Handle("echo", echo)
				s := serve(t, path, ServerOptions{Mux: mux, Self: func() Hello {
					return Hello{Role: "manager", PID: os.Getpid(), Generation: generation}
				}})
				c, err := tether.Wait(soon(t))
				if err != nil {
					t.Fatal(err)
				}
				if <-connected != c || c.Hello().Generation != generation {
					t.Errorf("connected to generation %d, want %d", c.Hello().Generation, generation)
				}
				if _, err := c.Call(soon(t), "echo", 1); err != nil {
					t.Error(err)
				}
				s.Close()
				if err := <-lost; !errors.Is(err, io.EOF) {
					t.Errorf("lost by %v", err)
				}
				if tether.Conn() != nil {
					t.Error("a lost connection is still offered")
				}
			}
		})
	}
}

func TestSocketReplacedByRenameIsNoticed(t *testing.T) {
	dir := t.TempDir()
	w := watch(dir, "manager.sock")
	defer w.close()
	if !w.working() {
		t.Fatal("no inotify")
	}
	// Other names do not wake it, or the poll would never slow down.
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "temp.sock"), ServerOptions{})
	if err := os.Rename(filepath.Join(dir, "temp.sock"), filepath.Join(dir, "manager.sock")); err != nil {
		t.Fatal(err)
	}
	if !w.wait(soon(t), time.Minute) {
		t.Error("rename not noticed")
	}
	if len(w.events) != 0 {
		t.Error("noticed more than once")
	}
}

func TestRefusedTetherSaysSoAndGoesOn(t *testing.T) {
	path := socketPath(t)
	var mu sync.Mutex
	admit := errors.New("not now")
	serve(t, path, ServerOptions{Admit: func(Peer, Hello) error {
		mu.Lock()
		defer mu.Unlock()
		return admit
	}})
	refused := make(chan error, 10)
	tether := Keep(context.Background(), KeepOptions{
		Dial: dialer(path), Self: as("server"),
		OnRefused: func(err error) { refused <- err },
	})
	defer tether.Close()
	var remote *RemoteError
	if err := <-refused; !errors.As(err, &remote) || remote.Text != "not now" {
		t.Errorf("refused by %v", err)
	}
	mu.Lock()
	admit = nil
	mu.Unlock()
	if _, err := tether.Wait(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestTetherEndsWhileItWaits(t *testing.T) {
	tether := Keep(context.Background(), KeepOptions{Dial: dialer(socketPath(t)), Self: as("server")})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tether.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v", err)
	}
	tether.Close()
	if _, err := tether.Wait(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after Close = %v", err)
	}
}

// A hub that accepts and never answers (stopped, say) must not hold Close up.
func TestSilentHubIsLeft(t *testing.T) {
	path := socketPath(t)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tether := Keep(context.Background(), KeepOptions{Dial: dialer(path), Self: as("server")})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tether.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := connect(ctx, dialRaw(t, path), as("server")(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("connect with an ended context: %v", err)
	}
}
