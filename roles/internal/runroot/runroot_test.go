package runroot

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/exitcode"
)

func TestNewMakesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b/run")
	t.Chdir(filepath.Dir(filepath.Dir(filepath.Dir(dir))))
	for range 2 { // the second time it is there
		r, err := New("a/b/run")
		if err != nil {
			t.Fatal(err)
		}
		if r.Dir() != dir || r.ControlSocket() != dir+"/control.sock" {
			t.Errorf("root = %s, control socket %s, want below %s", r, r.ControlSocket(), dir)
		}
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&0o022 != 0 || st.Mode().Perm()&0o700 != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestNewRefuses(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "file")
	open := filepath.Join(tmp, "open")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		dir, want string
		code      exitcode.Code
	}{
		{file, "not a directory", exitcode.Config},
		{file + "/x", "not a directory", exitcode.Config},
		{open, "everybody can write to it", exitcode.Permission},
		{filepath.Join(tmp, strings.Repeat("x", 300)), "file name too long", exitcode.Config},
	} {
		_, err := New(tt.dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || exitcode.Of(err) != tt.code {
			t.Errorf("New(%s): %v (exit code %d), want %s (%d)", tt.dir, err, exitcode.Of(err), tt.want, tt.code)
		}
	}
	r := Root{"/x"}
	for err, want := range map[error]exitcode.Code{unix.EROFS: exitcode.Permission, fs.ErrPermission: exitcode.Permission, unix.EIO: exitcode.Failed} {
		if got := exitcode.Of(r.fail("make", err)); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

func TestDefault(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	want := "/run/user/7/trafficd"
	if os.Geteuid() == 0 {
		want = "/run/trafficd"
	}
	if got := Default(); got != want {
		t.Errorf("Default = %s, want %s", got, want)
	}
}

// deep makes a directory whose path alone is longer than a socket's address.
func deep(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSocketsShortAndLong(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": deep(t)} {
		for kindName, kind := range map[string]Kind{"stream": Stream, "packet": Packet} {
			t.Run(name+" "+kindName, func(t *testing.T) {
				path := filepath.Join(dir, kindName+".sock")
				l, err := ListenUnix(path, kind)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				st, err := os.Lstat(path)
				if err != nil || st.Mode() != fs.ModeSocket|0o600 {
					t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
				}
				c, err := DialUnix(path, kind, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				s, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				b := make([]byte, 10)
				if n, err := s.Read(b); err != nil || string(b[:n]) != "hello" {
					t.Errorf("read %q, %v", b[:n], err)
				}
			})
		}
		entries, _ := os.ReadDir(dir)
		if len(entries) != 2 {
			t.Errorf("%s: %v left behind, want the two sockets", name, entries)
		}
	}
}

// While a name goes from one listener to the next, a client always finds somebody.
func TestListenReplacesTheName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	next := func() {
		l, err := ListenUnix(path, Stream)
		if err != nil {
			t.Error(err)
			return
		}
		listeners = append(listeners, l)
	}
	next()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			fd, err := Dial(path, Stream, 0)
			switch {
			case err == nil:
				unix.Close(fd)
			case !errors.Is(err, unix.EAGAIN): // nobody accepts here, so a queue may be full
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for range 100 {
		next()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDialNobody(t *testing.T) {
	dir := deep(t)
	if _, err := Dial(filepath.Join(dir, "none"), Stream, time.Minute); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	path := filepath.Join(dir, "dead")
	fd, err := Listen(path, Stream)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := Dial(path, Stream, time.Minute); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dead socket: %v", err)
	}
	if _, err := Dial(filepath.Join(dir, strings.Repeat("n", 120)), Stream, 0); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("name too long: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, "none/x"), Stream); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no directory: %v", err)
	}
}

// A listener that does not accept must not hold the dialler.
func TestDialFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := Listen(path, Stream)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Listen(fd, 0); err != nil { // shrinks the queue
		t.Fatal(err)
	}
	var held []int
	defer func() {
		for _, c := range held {
			unix.Close(c)
		}
	}()
	for {
		c, err := Dial(path, Stream, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil || len(held) > 100 {
			t.Fatalf("after %d connections: %v", len(held), err)
		}
		held = append(held, c)
	}
	if _, err := Dial(path, Stream, time.Millisecond); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("with a timeout: %v", err)
	}
}

func TestServesHTTP(t *testing.T) {
	path := filepath.Join(deep(t), "control.sock")
	l, err := ListenUnix(path, Stream)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	c, err := DialUnix(path, Stream, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 12)
	if _, err := c.Read(b); err != nil || string(b) != "HTTP/1.0 404" {
		t.Errorf("read %q, %v", b, err)
	}
	srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the name went with the listener: %v", err)
	}
}
