package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
	"trafficd/roles/internal/supervise"
	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/disk"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/purge"
	"trafficd/roles/server/resolve"
	"trafficd/roles/server/transaction"
)

// Options of Run.
type Options struct {
	Flags config.Overrides // the instance's; of use here is RunRoot, the rest is for a cop that this server may start
}

// Server is the process. Fields without a remark are immutable once it has
// started.
type Server struct {
	root       runroot.Root
	flags      config.Overrides
	exe        *proc.Executable
	log        *logging.Log
	generation uint64
	heritage   *heritage.Set
	link       *manager

	custody  *keeping // nil: what this server has dies with it
	region   *stats.Region
	bank     stats.Bank
	role     *stats.Role
	memory   []byte       // the cache's mapping; nil: there is none
	store    *cache.Store // in memory, from begin on; nil: nothing is cached
	disk     *disk.Store  // below it, from begin on; nil: there is none
	flights  *transaction.Flights
	purges   *transaction.Purges
	machine  *machine
	names    *resolve.System
	resolver *resolve.Resolver
	parents  *parent.Directory
	fifo     *queue.FIFO // nil: there is none
	clients  clients
	crowded  atomic.Int32 // loops that have no room for more connections

	threads int
	group   *eventloop.Group
	workers []*worker

	settings  atomic.Pointer[transaction.Settings]
	config    atomic.Pointer[config.Config]
	lines     atomic.Pointer[accesslog.Format] // of the access log; nil: there is none
	accessLog atomic.Pointer[accesslog.Output] // set by build; the manager may ask for it earlier
	opened    atomic.Pointer[cache.Store]      // store, for who is asked about it earlier
	noDisk    atomic.Pointer[disk.Trouble]     // why there is no disk though there should be; nil: there is no reason
	inspector inspector

	mu     sync.Mutex // guards what follows
	state  stats.State
	lock   *lockfile.Lock                  // held while ready; set by takeLock
	stop   chan struct{}                   // closed when the server is to end
	fast   bool                            // without waiting for what is under way
	yields chan struct{}                   // closed when the server is to leave its connections to its standby
	causes map[uint64]chan supervise.Fault // who asks why a generation died
	kept   bool                            // custody is set: journalID is asked by the link's goroutine
}

// Run is the server's life. It returns the exit code.
func Run(ctx context.Context, o Options) int {
	if err := proc.SetName("traffic_server"); err != nil {
		fmt.Fprintln(os.Stderr, "trafficd server:", err)
	}
	s := newServer(supervise.TakeGeneration())
	if err := s.run(ctx, o); err != nil {
		if nerr := proc.NotifyError(err); nerr != nil {
			s.complain(nerr)
		}
		s.complain(err)
		return int(exitcode.Of(err))
	}
	return int(exitcode.OK)
}

func (s *Server) complain(err error) {
	if s.log == nil {
		fmt.Fprintln(os.Stderr, "trafficd server:", err)
		return
	}
	s.log.Error().Err(err).Msg("server failed")
}

func (s *Server) run(ctx context.Context, o Options) error {
	// A client that is gone is an error of one call, not the end of a process.
	signal.Ignore(unix.SIGPIPE)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGHUP)
	if err := s.inherit(o); err != nil {
		return err
	}
	if err := crash.CatchOutput(s.root.Crashes(), "server"); err != nil {
		s.log.Warn().Err(err).Msg("stacks of a crash will not be recorded")
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.link = s.tether(ctx)
	go s.watchStop(ctx, end)
	cfg, err := s.link.config(ctx)
	if errors.Is(context.Cause(ctx), errStopping) {
		return nil
	}
	if err != nil {
		return err
	}
	// In place: the manager may have it reopened at any time.
	if err := errors.Join(s.log.SetLevel(cfg.Log.Level), s.log.SetFormat(cfg.Log.Format)); err != nil {
		return err
	}
	if err := s.build(cfg); err != nil {
		return err
	}
	if err := s.live(ctx, signals); err != nil {
		return err
	}
	s.end()
	return nil
}

// live is the time in which the server stands by and then serves. It returns when it is
// to end in order.
func (s *Server) live(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := make(chan error, 1)
	go func() { begun <- s.become(ctx) }()
	for {
		select {
		case err := <-begun:
			if errors.Is(err, errEnding) {
				return nil
			}
			if err != nil {
				return err
			}
			begun = nil // there is no second
			go s.watchParents(ctx)
			continue
		case <-ctx.Done():
		case <-s.stop:
		case <-s.yields:
			s.leave()
		case sig := <-signals:
			s.signal(sig)
			continue
		}
		cancel()
		if begun != nil {
			<-begun // what it has begun by now is ended with the rest
		}
		return nil
	}
}

func newServer(generation uint64) *Server {
	s := &Server{generation: generation, stop: make(chan struct{}), yields: make(chan struct{}), machine: newMachine()}
	s.inspector.init(s)
	return s
}

// inherit takes over what the manager has prepared.
func (s *Server) inherit(o Options) (err error) {
	if s.root, err = runroot.Open(o.Flags.RunRoot); err != nil {
		return err
	}
	o.Flags.RunRoot = s.root.Dir()
	s.flags = o.Flags
	if s.exe, err = proc.OpenSelf(); err != nil {
		return err
	}
	if s.log, err = logging.ForRole("server", s.root.LogFile(), "", ""); err != nil {
		return err
	}
	if s.heritage, err = heritage.FromEnv(); err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	if _, err := proc.RaiseNoFile(); err != nil {
		s.log.Warn().Err(err).Msg("descriptor limit")
	}
	fd, ok := s.heritage.Get(heritage.Stats)
	if !ok || len(s.heritage.Listeners()) == 0 {
		return exitcode.Errorf(exitcode.Usage, "a server is started by a manager, which gives it its listeners; start one with: trafficd cop")
	}
	dup, err := dupFile(fd, "stats")
	if err != nil {
		return err
	}
	if s.region, err = stats.Attach(dup); err != nil {
		return err
	}
	s.bank = s.region.Bank(s.generation)
	if self := proc.Self(); s.bank.Generation() == s.generation {
		s.bank.Enter(self.PID, self.StartTime)
	}
	s.role = s.region.Role(stats.RoleServer)
	in, okIn := s.heritage.Get(heritage.QueueIn)
	out, okOut := s.heritage.Get(heritage.QueueOut)
	if okIn && okOut {
		if s.fifo, err = queue.AdoptFIFO(in, out, takeOnly); err != nil {
			return err
		}
	}
	return nil
}

// takeOnly is the limit of a queue that the server takes from and puts nothing
// into.
const takeOnly = 1

func dupFile(fd int, name string) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// build makes everything a request needs and starts the loops.
func (s *Server) build(c *config.Config) error {
	if s.threads = c.Threads; s.threads == 0 {
		s.threads = runtime.NumCPU()
	}
	s.threads = min(s.threads, stats.MaxLoops)
	tuneRuntime(s.threads)
	if err := s.mapCache(c); err != nil {
		return err
	}
	s.flights, s.purges = transaction.NewFlights(), new(transaction.Purges)
	s.names = resolve.NewSystem()
	s.resolver = resolve.New(resolve.Limits{Min: c.Resolver.MinTTL, Max: c.Resolver.MaxTTL}, s.names.Lookup)
	s.parents = parent.NewDirectory(parentSettings(c), s.serverChanged)
	group, err := eventloop.NewGroup(s.threads, func(i int) eventloop.Options {
		return eventloop.Options{Name: fmt.Sprintf("net/%d", i), Cell: s.bank.Cell(i)}
	})
	if err != nil {
		return err
	}
	s.group = group
	s.openCustody(c)
	s.mu.Lock()
	s.kept = s.custody != nil
	s.mu.Unlock()
	if err := s.openAccessLog(); err != nil {
		return err
	}
	for i, l := range group.Loops() {
		w, err := s.newWorker(i, l)
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	if err := s.use(c); err != nil {
		return err
	}
	for _, w := range s.workers {
		w.configure(c)
	}
	group.Start()
	return nil
}

// tuneRuntime gives every loop a processor of its own beside one for what is not
// on a loop, and lets the collector wait: a server's heap is small and hardly
// grows, since what is in flight and what is cached lie outside it.
func tuneRuntime(threads int) {
	runtime.GOMAXPROCS(threads + 1)
	debug.SetGCPercent(400)
}

// mapCache maps the store and leaves it alone: it is another server's as long as this one
// stands by.
func (s *Server) mapCache(c *config.Config) error {
	fd, ok := s.heritage.Get(heritage.Cache)
	if !ok || c.Cache.Size == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("size of the cache: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the cache of %d bytes: %w", st.Size, err)
	}
	if err := keepFromKeeper(mem); err != nil {
		return fmt.Errorf("keep the cache from the keeper: %w", err)
	}
	s.memory = mem
	return nil
}

// openCache makes the mapped store this server's; whatever an earlier one left in it is there,
// and that one writes to it no more. The loops run, and serve nobody yet.
//
// pid and start tell that server.
func (s *Server) openCache(pid int, start uint64) error {
	if s.memory == nil {
		return nil
	}
	c := s.config.Load()
	seed := s.openDisk(c, pid, start)
	store, err := cache.Open(s.memory, cache.Options{MaxObject: c.Cache.MaxObject(), Hold: true, Seed: seed, Tags: purge.Tagged})
	if err != nil {
		return err
	}
	if want, most := c.Cache.MaxObjectSize, store.MaxObject(); want > most {
		s.log.Warn().Int64("configured", want).Int64("bytes", most).Msg("cache.max_object_size is more than the cache takes")
	}
	s.store = store
	s.opened.Store(store)
	if s.disk != nil {
		s.disk.Attach(store)
	}
	below := s.tierBelow()
	s.each(func(w *worker) { w.env.Store, w.env.Cache, w.env.Disk = store, store.Arena(), below })
	return nil
}

// each runs f for every worker on its loop and waits.
func (s *Server) each(f func(*worker)) {
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Add(1)
		if !w.loop.Post(func() { defer wg.Done(); f(w) }) {
			wg.Done()
		}
	}
	wg.Wait()
}

// run runs f on the loop and waits.
func (w *worker) run(f func()) {
	done := make(chan struct{})
	if w.loop.Post(func() { f(); close(done) }) {
		<-done
	}
}

// begin starts to serve, as the holder of server.lock.
//
// With custody the connections of the server before go on first; what is new waits for the
// manager's word, which makes sure that the queue has one consumer.
func (s *Server) begin(ctx context.Context, lock *lockfile.Lock) error {
	pid, start := int(s.role.PID.Load()), s.role.StartTime.Load() // of the server before
	self := proc.Self()
	s.role.Enter(self.PID, self.StartTime, s.generation)
	if err := s.openCache(pid, start); err != nil {
		return err
	}
	if s.store != nil {
		go s.store.Tend(ctx.Done())
		go s.store.Sweep(ctx.Done())
	}
	if s.forwards() {
		s.machine.look() // what was seen before the wait is old
	}
	go s.machine.watch(ctx.Done(), s.forwards)
	turn := make(chan error, 1)
	if s.custody != nil {
		s.say(stats.Starting)
		go func() { turn <- s.link.turn(ctx) }() // meanwhile
		if err := s.takeOver(lock); err != nil {
			return fmt.Errorf("take over: %w", err)
		}
		if err := <-turn; err != nil {
			return err
		}
	} else {
		s.takeAccessLog()
		s.succeed(pid, start)
	}
	s.parents.Start(s.dialServer)
	queued, err := s.accept()
	if err != nil {
		return err
	}
	if err := s.listenHeartbeats(); err != nil {
		return err
	}
	s.enter(stats.Ready)
	s.log.Info().Uint64("generation", s.generation).Int("loops", len(s.workers)).Int("queued", queued).
		Bool("custody", s.custody != nil).Msg("server ready")
	if err := proc.NotifyReady(); err != nil {
		s.log.Debug().Err(err).Msg("nobody waits for readiness")
	}
	return nil
}

// accept empties the manager's queue and then takes what is newer.
func (s *Server) accept() (queued int, err error) {
	if s.fifo != nil {
		s.workers[0].run(func() { queued = s.workers[0].takeQueue(s.fifo) })
	}
	for name, fd := range s.heritage.Listeners() {
		for _, w := range s.workers {
			var err error
			w.run(func() { err = w.acceptOn(fd) })
			if err != nil {
				return queued, fmt.Errorf("accept on %s: %w", name, err)
			}
		}
	}
	return queued, nil
}

// succeed lets the cache use again what the server before this one may still be
// reading, as soon as that one is gone. Under custody the adoption knows better.
func (s *Server) succeed(pid int, startTime uint64) {
	if s.store == nil {
		return
	}
	go func() {
		if pid != 0 {
			if before, err := proc.Adopt(pid, startTime); err == nil {
				<-before.Done()
			}
		}
		s.store.EndHold()
	}()
}

// enter notes a new state of the server where cop and manager see it.
func (s *Server) enter(st stats.State) {
	s.role.State.Store(uint64(st))
	s.say(st)
}

// say notes a new state where the manager sees it. The record of the role is another
// process's as long as this one stands by.
func (s *Server) say(st stats.State) {
	s.mu.Lock()
	s.state = st
	s.mu.Unlock()
	s.link.tell(st)
}

func (s *Server) current() stats.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// signal acts on a signal to the process.
func (s *Server) signal(sig os.Signal) {
	switch sig {
	case unix.SIGUSR1:
		_ = s.reopen() // it has been logged
	case unix.SIGHUP: // the manager's affair
	case unix.SIGINT:
		s.shutdown(true)
	default:
		s.shutdown(false)
	}
}

func (s *Server) reopen() error {
	err := errors.Join(s.log.Rotate(), s.reopenAccessLog())
	if err != nil {
		s.log.Error().Err(err).Msg("reopen log")
	}
	return err
}

// shutdown asks the server to end. fast does not wait for what is under way.
func (s *Server) shutdown(fast bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut(fast)
}

// shut is shutdown; s.mu is held.
func (s *Server) shut(fast bool) {
	s.fast = s.fast || fast
	if !s.ends() {
		close(s.stop)
	}
}
