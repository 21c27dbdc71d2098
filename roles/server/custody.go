package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
	"trafficd/proc"
	"trafficd/queue"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/server/buffer"
)

// keeping is what keeps this server's connections over its death, and gave it those of
// the server before it.
type keeping struct {
	server  *Server
	journal *queue.Journal
	in      int    // what a keeper sends goes in here
	out     int    // and comes out here
	busy    []byte // see custody.NewBook
	lock    *lockfile.Lock
	before  predecessor

	mu     sync.Mutex
	keeper *queue.Keeper // nil before takeOver, and after release
}

// predecessor is the server before this one; zeros: there was none.
type predecessor struct {
	PID        int
	StartTime  uint64
	Generation uint64
	Asked      bool // its end was planned
}

// succeed reads from the journal who had it before, and writes down who has it now.
func (k *keeping) succeed() {
	o := k.journal.Owner()
	k.before = predecessor{
		PID: int(o[0].Load()), StartTime: o[1].Load(), Generation: o[2].Load(), Asked: o[3].Load() == yielded,
	}
	self := proc.Self()
	o[3].Store(0)
	o[0].Store(uint64(self.PID))
	o[1].Store(self.StartTime)
	o[2].Store(k.server.generation)
}

// yielded is the fourth word of the journal's owner once it leaves by plan: the successor does not take that for
// a crash.
const yielded = 1

// pages is the shape of each loop's arena without custody. Pages cost address space until
// they are used.
var pages = buffer.Shape{Smalls: 64 << 10, Larges: 8 << 10}

// shape is that of each loop's arena in custody: two records for each slot, since a fetch has one as
// well, and of the rest of the pool a third in small pages.
func shape(g queue.Geometry) buffer.Shape {
	s := buffer.Shape{Records: 2 * g.Slots}
	rest := max(g.Pool-s.Size(), 0)
	s.Smalls = rest / 3 / buffer.Small
	s.Larges = (rest - s.Smalls*buffer.Small) / buffer.Large
	return s
}

// openCustody maps the journal of the heritage. Without one, or when something is missing, s.custody stays
// nil: this server's connections end with it, and that is said aloud.
func (s *Server) openCustody(c *config.Config) {
	if !c.Custody.Enabled {
		s.log.Warn().Msg("custody is switched off: connections end with the server")
		return
	}
	k, err := s.newKeeping()
	if err != nil {
		s.log.Error().Err(err).Msg("no custody: connections end with the server")
		return
	}
	s.custody = k
}

func (s *Server) newKeeping() (*keeping, error) {
	fd, ok := s.heritage.Get(heritage.Journal)
	in, okIn := s.heritage.Get(heritage.CustodyIn)
	out, okOut := s.heritage.Get(heritage.CustodyOut)
	if !ok || !okIn || !okOut {
		return nil, errors.New("the manager gave no journal")
	}
	j, err := queue.OpenJournal(fd)
	if err != nil {
		return nil, err
	}
	if g := j.Geometry(); g.Loops != s.threads || shape(g).Larges == 0 {
		return nil, fmt.Errorf("the journal is for %+v, this server has %d loops", g, s.threads)
	}
	if err := j.KeepFromChildren(); err != nil {
		return nil, err
	}
	if err := j.Populate(1 << 10); err != nil {
		return nil, err
	}
	// What a server had open, its successor must be able to have open.
	limit, err := queue.KeepLimit()
	if err != nil {
		s.log.Warn().Err(err).Msg("descriptor limit")
	}
	if err := queue.GrowTable(int(min(limit, maxTable))); err != nil {
		s.log.Warn().Err(err).Msg("descriptor table")
	}
	busy, err := unix.Mmap(-1, 0, int(min(max(limit, 1024), maxBusy)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	return &keeping{server: s, journal: j, in: in, out: out, busy: busy}, nil
}

// maxTable bounds how far the descriptor table is grown ahead: 8 bytes each.
const maxTable = 128 << 10

// maxBusy bounds the descriptors that can be sent first.
const maxBusy = 1 << 20

// arena makes the memory of loop i for bytes in flight.
func (s *Server) arena(i int) (*buffer.Arena, error) {
	if s.custody == nil {
		return buffer.New(pages)
	}
	return buffer.Over(s.custody.journal.Pool(i), shape(s.custody.journal.Geometry())), nil
}

// await returns when the loop threads of the server that serves now are dead; at once if none
// lives.
func (k *keeping) await(ctx context.Context) error {
	for ctx.Err() == nil {
		err := queue.WaitAllNotices(k.journal.Notices(), queue.WatcherStandby, 50*time.Millisecond)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return ctx.Err()
}

// takeOver makes this process the one whose connections are kept, and goes on with those of
// the server before it. The server's lock has been taken. When it returns all connections go
// on, or are on their way to their loops.
//
// The order is that of package queue: claim, register the threads that use descriptors, keeper, and only then
// receive, so that a death at any instruction leaves everything in somebody's table.
func (s *Server) takeOver(lock *lockfile.Lock) error {
	k := s.custody
	began := time.Now()
	k.lock = lock
	armKillpoints()
	generation, err := k.journal.Claim()
	if err != nil {
		return err
	}
	k.succeed()
	if err := k.register(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	release, err := k.journal.Receiver().Register() // before the keeper, which would not wait for this thread
	if err != nil {
		return err
	}
	defer func() { _ = release() }() // on the thread that registered it cannot fail
	if err := k.startKeeper(generation); err != nil {
		return err
	}
	s.takeAccessLog()
	a := newAdoption(k)
	if err := a.read(); err != nil {
		s.log.Error().Err(err).Msg("the journal cannot be trusted: its connections are lost")
		a.forsake()
	}
	if err := a.receive(); err != nil {
		s.log.Error().Err(err).Msg("custody")
	}
	a.finish()
	k.journal.MarkReceived()
	a.report(began)
	return nil
}

// register has the kernel announce the death of each loop's thread.
func (k *keeping) register() error {
	var mu sync.Mutex
	var errs []error
	k.server.each(func(w *worker) {
		runtime.LockOSThread()
		_, err := k.journal.Notice(w.index).Register()
		mu.Lock()
		errs = append(errs, err)
		mu.Unlock()
	})
	return errors.Join(errs...)
}

// keeperAdj keeps the keeper alive like cop; the server goes first.
var keeperAdj = -900

func (k *keeping) startKeeper(generation uint64) error {
	log := k.server.log
	keeper, err := queue.StartKeeper(queue.KeeperOptions{
		End: k.in, Generation: generation, Kinds: queue.KindTCP,
		First: k.busy, CloseFirst: k.server.lockDescriptors(), Threads: k.journal.Notices(), OOMScoreAdj: &keeperAdj,
		Journal: k.journal,
		Replaced: func(gone queue.Sender, why error) {
			log.Warn().Int("keeper", gone.PID).AnErr("reason", why).Msg("keeper is gone, there is another")
		},
	})
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.keeper = keeper
	k.mu.Unlock()
	go k.mind(keeper)
	return nil
}

// mind says so when there is no keeper any more.
func (k *keeping) mind(keeper *queue.Keeper) {
	<-keeper.Done()
	if err := keeper.Err(); err != nil {
		k.server.log.Error().Err(err).Msg("no custody: connections end with the server")
	}
}

// release ends custody in order: whatever is still open ends with this process.
func (k *keeping) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keeper != nil {
		k.keeper.Stop()
		k.keeper = nil
	}
}

// park stops every loop for good, between two turns. After it this process touches no
// connection any more; its exit hands them over.
func (s *Server) park() {
	s.freeze() // and nobody thaws them
}

// freeze stops every loop between two turns until the function that it returns is called: what belongs to the loops belongs
// to the caller meanwhile.
func (s *Server) freeze() (thaw func()) {
	var frozen sync.WaitGroup
	resume := make(chan struct{})
	for _, w := range s.workers {
		frozen.Add(1)
		if !w.loop.Post(func() { frozen.Done(); <-resume }) {
			frozen.Done()
		}
	}
	frozen.Wait()
	return func() { close(resume) }
}

// keepFromKeeper keeps a large shared mapping out of the keeper, which makes it cheap to fork.
func keepFromKeeper(mem []byte) error { return unix.Madvise(mem, unix.MADV_DONTFORK) }
