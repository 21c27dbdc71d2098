package manager

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/stats"
)

// autoconfPrefix begins the heritage name of the autoconfiguration port's listener, which is
// kept like the others so that nobody who asks for proxy.pac meets a closed port either.
// It is not called a listener: no server may accept on it.
const autoconfPrefix = "autoconf:"

// estate is what all processes of the instance share, and how this one holds it. The set is
// the original; the rest are this process's own views, made of duplicates. Owned by the
// loop, but for what pump and autoconf are given of it.
type estate struct {
	set       *heritage.Set
	region    *stats.Region // never nil: ordinary memory until there is shared memory
	listeners []*queue.Listener
	stale     []*queue.Listener // earlier views, which the pump may be using still
	changed   bool              // the set is not what was deposited last
	former    *heritage.Set     // what a planned restart replaces, until it has succeeded; nil: nothing
}

// newEstate makes an estate of what was inherited, and reads the statistics if they are
// among it.
func newEstate(set *heritage.Set) (*estate, error) {
	e := &estate{set: set, region: stats.New(), changed: true}
	return e, e.attach()
}

// attach maps the statistics that the set holds, if any.
func (e *estate) attach() error {
	fd, err := e.set.GetDup(heritage.Stats)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), heritage.Stats)
	r, err := stats.Attach(f)
	if err != nil {
		f.Close()
		return err
	}
	e.region = r
	return nil
}

// born is when the instance began, as its shared memory tells; zero without.
func (e *estate) born() time.Time {
	if e.region.File() == nil {
		return time.Time{}
	}
	return e.region.Created()
}

// loops is how many event loops a server with this configuration has.
func loops(c *config.Config) int {
	n := c.Threads
	if n == 0 {
		n = runtime.NumCPU()
	}
	return min(n, stats.MaxLoops)
}

// listenerName is what the heritage calls the listener of a configured address, whoever put
// it there.
func listenerName(addr string) string {
	if canonical, err := queue.ListenerName(addr); err == nil {
		addr = canonical
	}
	return heritage.ListenerPrefix + addr
}

// provide makes the estate what the configuration wants for the next server: binds what is not
// bound, lets go of what is no longer configured, makes memory and queue that are missing. What
// is there is used. It goes on after an error, which is that of the listeners; a
// server can do with fewer of them.
func (e *estate) provide(c *config.Config, log zerolog.Logger) error {
	if err := e.provideShared(c, log); err != nil {
		return err
	}
	return e.provideListeners(c, log)
}

// usable reports whether a server can be started with what there is.
func (e *estate) usable() bool {
	_, ok := e.set.Get(heritage.Stats)
	return ok && len(e.listeners) > 0
}

// lacks reports whether a living server may hold what the set has not.
func (e *estate) lacks(c *config.Config) bool {
	for _, name := range []string{heritage.Stats, heritage.QueueIn, heritage.QueueOut} {
		if _, ok := e.set.Get(name); !ok {
			return true
		}
	}
	for _, addr := range c.Listen {
		if _, ok := e.set.Get(listenerName(addr)); !ok {
			return true
		}
	}
	return false
}

// provideShared makes statistics, queue, cache and custody.
func (e *estate) provideShared(c *config.Config, log zerolog.Logger) error {
	made, err := e.provideMemory(c, log)
	if err != nil {
		return err
	}
	return e.provideCustody(c, made, log)
}

// provideMemory makes statistics, queue and cache; made says that the cache is a new one.
func (e *estate) provideMemory(c *config.Config, log zerolog.Logger) (made bool, err error) {
	if err := e.provideStats(log); err != nil {
		return false, err
	}
	if err := e.provideQueue(c.Queue.Limit); err != nil {
		return false, err
	}
	return e.provideCache(c.Cache.Size, log)
}

func (e *estate) provideStats(log zerolog.Logger) error {
	if e.region.File() != nil {
		return nil
	}
	if err := e.attach(); err != nil {
		log.Error().Err(err).Msg("statistics begin anew")
		if err := e.remove(heritage.Stats); err != nil {
			return err
		}
	}
	if e.region.File() != nil {
		return nil
	}
	r, err := stats.Create()
	if err != nil {
		return fmt.Errorf("make statistics: %w", err)
	}
	if err := e.put(heritage.Stats, int(r.File().Fd())); err != nil {
		r.Close()
		return err
	}
	e.region = r
	return nil
}

func (e *estate) provideQueue(limit int) error {
	_, in := e.set.Get(heritage.QueueIn)
	_, out := e.set.Get(heritage.QueueOut)
	if in && out {
		return nil
	}
	f, err := queue.NewFIFO(limit)
	if err != nil {
		return fmt.Errorf("make connection queue: %w", err)
	}
	defer f.Close() // the set has its own copies
	// One end without the other is of no use: what was in it is lost already.
	return errors.Join(e.remove(heritage.QueueIn), e.remove(heritage.QueueOut),
		e.put(heritage.QueueIn, f.In()), e.put(heritage.QueueOut, f.Out()))
}

// fifo is this process's view of the queue; the caller closes it.
func (e *estate) fifo(limit int) (*queue.FIFO, error) {
	in, err := e.set.GetDup(heritage.QueueIn)
	if err != nil {
		return nil, err
	}
	out, err := e.set.GetDup(heritage.QueueOut)
	if err != nil {
		unix.Close(in)
		return nil, err
	}
	f, err := queue.AdoptFIFO(in, out, limit)
	if err != nil {
		unix.Close(in)
		unix.Close(out)
		return nil, fmt.Errorf("adopt connection queue: %w", err)
	}
	return f, nil
}

// provideCache makes the memory of the cache. One of another size is left to whoever maps it
// now, and a new one, or none, is for the next server; made says so.
func (e *estate) provideCache(size int64, log zerolog.Logger) (made bool, err error) {
	if fd, ok := e.set.Get(heritage.Cache); ok {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return false, fmt.Errorf("size of the cache: %w", err)
		}
		if st.Size == size {
			return false, nil
		}
		log.Info().Int64("old_bytes", st.Size).Int64("bytes", size).Msg("cache begins anew")
		if err := e.setAside(heritage.Cache); err != nil {
			return false, err
		}
		made = true
	}
	if size == 0 {
		return made, nil
	}
	fd, err := makeMemory("trafficd-cache", size)
	if err != nil {
		return true, fmt.Errorf("make cache of %d bytes: %w", size, err)
	}
	defer unix.Close(fd)
	return true, e.put(heritage.Cache, fd)
}

// makeMemory makes shared memory that nobody can resize: whoever shrank it would make every
// other holder's access a SIGBUS.
func makeMemory(label string, size int64) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(label, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(label, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("ftruncate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal: %w", err)
	}
	return fd, nil
}

// provideListeners binds the configured addresses that are not in the set, and drops from it
// those that are no longer configured. (A server that accepts on one holds it itself.)
func (e *estate) provideListeners(c *config.Config, log zerolog.Logger) error {
	wanted := map[string]bool{}
	for _, addr := range c.Listen {
		wanted[listenerName(addr)] = true
	}
	for _, name := range e.set.Names() {
		if strings.HasPrefix(name, heritage.ListenerPrefix) && !wanted[name] && !e.isAutoconf(name, c) {
			log.Info().Str("listener", name).Msg("listener is no longer configured")
			if err := e.remove(name); err != nil {
				return err
			}
		}
	}
	var errs []error
	for _, addr := range c.Listen {
		if _, ok := e.set.Get(listenerName(addr)); ok {
			continue
		}
		if err := e.bind(listenerName(addr), addr, c.ListenBacklog); err != nil {
			errs = append(errs, err)
			continue
		}
		log.Info().Str("address", addr).Msg("listening")
	}
	return errors.Join(append(errs, e.view(c))...)
}

// isAutoconf: an init system that holds the socket of the autoconfiguration port passes it
// under the name of a listener.
func (e *estate) isAutoconf(name string, c *config.Config) bool {
	return c.Autoconf.Enabled() && name == listenerName(c.Autoconf.Listen)
}

func (e *estate) bind(name, addr string, backlog int) error {
	l, err := queue.Bind(addr, backlog)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer l.Close() // the set has its own copy
	return e.put(name, l.FD())
}

// view makes this process's own view of the listeners.
func (e *estate) view(c *config.Config) error {
	e.stale = append(e.stale, e.listeners...)
	e.listeners = nil
	var errs []error
	for _, addr := range c.Listen {
		fd, err := e.set.GetDup(listenerName(addr))
		if err != nil {
			continue // could not be bound
		}
		l, err := queue.FromFD(fd, addr)
		if err != nil {
			unix.Close(fd)
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.DeferAccept(int(c.ListenDefer/time.Second)))
		e.listeners = append(e.listeners, l)
	}
	return errors.Join(errs...)
}

// closeStale closes earlier views. The pump calls it when it has the present one.
func (e *estate) closeStale() {
	for _, l := range e.stale {
		l.Close()
	}
	e.stale = nil
}

// provideAutoconf makes the listener of the autoconfiguration port and returns a duplicate,
// the caller's; nil if there is to be none.
func (e *estate) provideAutoconf(c *config.Config) (*os.File, error) {
	name := autoconfPrefix + c.Autoconf.Listen
	for _, n := range e.set.Names() {
		if strings.HasPrefix(n, autoconfPrefix) && (n != name || !c.Autoconf.Enabled()) {
			if err := e.remove(n); err != nil {
				return nil, err
			}
		}
	}
	if !c.Autoconf.Enabled() {
		return nil, nil
	}
	if _, ok := e.set.Get(name); !ok {
		if err := e.makeAutoconf(name, c); err != nil {
			return nil, fmt.Errorf("autoconfiguration port: %w", err)
		}
	}
	fd, err := e.set.GetDup(name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// autoconfBacklog is small: it is for browsers that start, and for health checks.
const autoconfBacklog = 128

func (e *estate) makeAutoconf(name string, c *config.Config) error {
	if passed, ok := e.set.Take(listenerName(c.Autoconf.Listen)); ok {
		defer unix.Close(passed)
		e.changed = true
		return e.put(name, passed)
	}
	return e.bind(name, c.Autoconf.Listen, autoconfBacklog)
}

func (e *estate) put(name string, fd int) error {
	e.changed = true
	return e.set.PutDup(name, fd)
}

func (e *estate) remove(name string) error {
	e.changed = true
	return e.set.Remove(name)
}

// merge takes over what another process held for the instance.
func (e *estate) merge(o *heritage.Set) ([]string, error) {
	added, err := e.set.Merge(o)
	if len(added) > 0 {
		e.changed = true
	}
	return added, err
}

// close gives up this process's share, but for the mapping of the statistics: an answer of
// /metrics may be under way, and the end of the process is near.
func (e *estate) close() error {
	e.closeStale()
	for _, l := range e.listeners {
		l.Close()
	}
	return errors.Join(e.settle(), e.set.Close())
}
