package manager

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
)

func smallConfig(listen ...string) *config.Config {
	c := config.Default()
	c.Listen, c.Cache.Size, c.Autoconf.Listen = listen, 4<<20, config.Off
	return c
}

func emptyEstate(t *testing.T) *estate {
	t.Helper()
	e, err := newEstate(heritage.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.close(); e.region.Close() })
	return e
}

func provide(t *testing.T, e *estate, c *config.Config) {
	t.Helper()
	if err := e.provide(c, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
}

// A manager that inherits has what the first one made: the same sockets, the same memory.
func TestEstateIsInherited(t *testing.T) {
	first := emptyEstate(t)
	c := smallConfig("127.0.0.1:0")
	provide(t, first, c)
	first.region.Manager().Add(stats.Reloads, 5)
	first.changed = false

	passed, err := first.set.Dup()
	if err != nil {
		t.Fatal(err)
	}
	second, err := newEstate(passed)
	if err != nil {
		t.Fatal(err)
	}
	defer second.close()
	second.changed = false
	provide(t, second, c)
	if second.changed {
		t.Error("something was made anew")
	}
	if got, want := second.listeners[0].Addr(), first.listeners[0].Addr(); got != want {
		t.Errorf("listens on %v, want %v", got, want)
	}
	if n := second.region.Manager().Load(stats.Reloads); n != 5 {
		t.Errorf("counter is %d, want 5", n)
	}
	if !second.born().Equal(first.born()) || second.born().IsZero() {
		t.Errorf("born %v and %v", first.born(), second.born())
	}
}

// An address that is configured is bound with the next server, one that is not is let go.
func TestEstateFollowsTheConfiguration(t *testing.T) {
	e := emptyEstate(t)
	provide(t, e, smallConfig("127.0.0.1:0"))
	kept := e.listeners[0].Addr()
	c := smallConfig("127.0.0.1:0", "[::1]:0")
	provide(t, e, c)
	if len(e.listeners) != 2 || e.listeners[0].Addr() != kept {
		t.Errorf("listeners %v, want %v and one more", e.listeners, kept)
	}
	provide(t, e, smallConfig("[::1]:0"))
	if names := e.set.Names(); slices.Contains(names, heritage.ListenerPrefix+"127.0.0.1:0") || len(e.listeners) != 1 {
		t.Errorf("%v", names)
	}
	c.Cache.Size = 0
	provide(t, e, c)
	if _, ok := e.set.Get(heritage.Cache); ok {
		t.Error("there is a cache")
	}
	if made, err := e.provideCache(0, zerolog.Nop()); made || err != nil {
		t.Errorf("without a cache as before: made %v, %v", made, err)
	}
}

// The heritage has one name for an address, also if an init system bound it.
func TestListenerNames(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "listener:127.0.0.1:80", ":80": "listener:*:80", "*:80": "listener:*:80", "[::1]:80": "listener:[::1]:80",
	} {
		if got := listenerName(addr); got != want {
			t.Errorf("%s is called %s, want %s", addr, got, want)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e := emptyEstate(t)
	err = e.provide(smallConfig("127.0.0.1:0", taken.Addr().String()), zerolog.Nop())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Fatalf("got %v", err)
	}
	if exitcode.Of(bindError(err)) != exitcode.TryAgain {
		t.Errorf("exit code %v", exitcode.Of(bindError(err)))
	}
	if !e.usable() || len(e.listeners) != 1 {
		t.Error("the other address is not listened on")
	}
}

func TestCacheCannotBeResized(t *testing.T) {
	e := emptyEstate(t)
	provide(t, e, smallConfig("127.0.0.1:0"))
	fd, _ := e.set.Get(heritage.Cache)
	if err := unix.Ftruncate(fd, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("shrinking the cache: %v, want EPERM", err)
	}
}

// Statistics of another version are not guessed at.
func TestForeignStatistics(t *testing.T) {
	fd, err := makeMemory("foreign", stats.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, bytes.Repeat([]byte{0xff}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	set := heritage.New()
	if err := set.Put(heritage.Stats, fd); err != nil {
		t.Fatal(err)
	}
	e, err := newEstate(set)
	if !errors.Is(err, stats.ErrUnreadable) {
		t.Errorf("got %v", err)
	}
	defer e.close()
	provide(t, e, smallConfig("127.0.0.1:0"))
	defer e.region.Close()
	if e.region.File() == nil || e.region.Sum(stats.Requests) != 0 {
		t.Error("no new statistics")
	}
}

// The autoconfiguration port is kept like the listeners, and taken from an init system that
// does not know what it is for.
func TestAutoconfListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	e := emptyEstate(t)
	if err := e.set.PutDup(heritage.ListenerPrefix+addr, int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	f.Close()
	c := smallConfig("127.0.0.1:0")
	c.Autoconf.Listen = addr
	provide(t, e, c)
	for range 2 {
		dup, err := e.provideAutoconf(c)
		if err != nil {
			t.Fatal(err)
		}
		dup.Close()
	}
	if got := e.set.Names(); !slices.Contains(got, autoconfPrefix+addr) || slices.Contains(got, heritage.ListenerPrefix+addr) {
		t.Errorf("names %v", got)
	}
	c.Autoconf.Listen = config.Off
	if dup, err := e.provideAutoconf(c); dup != nil || err != nil {
		t.Errorf("got %v, %v although it is off", dup, err)
	}
	if got := e.set.Names(); slices.Contains(got, autoconfPrefix+addr) {
		t.Errorf("names %v", got)
	}
}
