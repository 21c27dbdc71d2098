package disk

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// device is the store file, or what a test puts in its place.
type device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error // what was written is on the medium when it returns
}

// A Store is the persistent tier of one server. Its methods may be called from any goroutine; those that a loop
// calls (Has, Load, Published, Removed) touch memory only.
type Store struct {
	opts   Options
	header storeHeader
	dev    device
	index  *index
	files  *files // nil in tests

	mem     *cache.Store // set by Attach
	backlog *backlog
	reads   *readers
	write   writer
	medium  medium
	scan    rebuild

	stop    chan struct{} // closed by Close
	ended   sync.WaitGroup
	closing sync.Once
	closed  atomic.Bool
	purging sync.RWMutex // held for reading by each Purge, and by Close before it takes the files away
	warm    atomic.Bool  // the index is in memory
	dirty   atomic.Bool  // written since the last sync
	lost    atomic.Bool  // something was not written that memory has

	off      atomic.Pointer[Trouble] // why nothing is found or written any more; nil: it works
	failures complaints
}

// Trouble is what is wrong with a store.
type Trouble struct {
	Since  time.Time
	Off    bool // nothing is found or written any more
	Reason string
}

// Options of Open.
type Options struct {
	Dir     string // made if it is missing
	Size    int64  // of the store file, in bytes
	Threads int    // that read; at least one
	Keep    bool   // a store that is there is used, whatever its size
	// Seed is the seed of the keys of a store that has to be made; zero: a random one.
	Seed [2]uint64
	// Gone is closed when the process that had the store before can write no more; nil: there was none.
	Gone <-chan struct{}
	// Labels appends the lines of a head block by which responses are purged; nil: none.
	Labels func(b, head []byte) []byte

	Stats *stats.Row
	Log   *logging.Log
}

// What the tier does on its own, and how often.
const (
	batchDelay = 2 * time.Millisecond   // between two looks into the backlog, while much comes
	floodDelay = 5 * time.Millisecond   // while so much comes that it is written past the page cache
	few        = 4                      // responses in batchDelay are not much: each wakes the writer
	linger     = 50 * time.Millisecond  // without anything before the writer sleeps
	syncEvery  = 2 * time.Second        // what was written is flushed that often
	goneWait   = time.Second            // for a predecessor's last write
	pauseMin   = time.Second            // after several failed writes
	pauseMax   = time.Minute            //
	failLimit  = 3                      // failed writes in a row before a pause
	unsavedGap = 5 * time.Second        // between two searches for what was not written
	closeWait  = 2 * time.Second        // for the writer, at the end
	settleWait = time.Second            // for the tombstones of a purge
	gaugeEvery = 500 * time.Millisecond // how old the gauges may be
)

// Seed is what the keys of this store are made with; memory must use the same.
func (s *Store) Seed() [2]uint64 { return s.header.seed }

// newStore puts a store together. fresh: there is nothing in it; rebuild: there may be, but the index knows
// nothing of it.
func newStore(dev device, h storeHeader, x *index, o Options, rebuilds bool) *Store {
	if o.Stats == nil {
		o.Stats = new(stats.Row)
	}
	if o.Labels == nil {
		o.Labels = func(b, _ []byte) []byte { return b }
	}
	if !rebuilds {
		x.hdr.state.Store(indexUsed)
	}
	s := &Store{opts: o, header: h, dev: dev, index: x, backlog: newBacklog(), stop: make(chan struct{})}
	s.warm.Store(true)
	x.lost = s.indexLost
	s.write.init(s)
	s.medium.init()
	s.scan.init(s, rebuilds)
	s.reads = newReaders(s)
	return s
}

// Attach connects the store to memory, whose keys must be made with Seed, and starts to work.
func (s *Store) Attach(mem *cache.Store) {
	s.mem = mem
	st := mem.Stats()
	s.lost.Store(st.Objects > 0) // a server that died has left it
	s.backlog.hurry = st.Capacity / 32
	if s.scan.rebuilds || s.index.hdr.keys.Load() != 0 {
		mem.NoteKeys() // that memory may have known it, which is gone
	}
	mem.SetLower(s)
	s.reads.start(max(1, s.opts.Threads))
	s.ended.Go(s.write.run)
	s.ended.Go(s.syncing)
}

// Close ends the tier: what is still to be written is, as long as that does not take too long, and the index is noted to be
// good. Look-ups find nothing any more. The directory is free for another process then.
//
// Until that process fences memory, what is published and removed there is still taken out of the index, which it shares with
// this one: it must not find on disk what was purged, or replaced, meanwhile.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.stop)
		s.reads.close()
		s.ended.Wait()
		s.purging.Lock()
		defer s.purging.Unlock()
		s.closed.Store(true)
		if s.files != nil {
			err = s.files.close(s)
		}
	})
	return err
}

var _ cache.Lower = (*Store)(nil)

// Published implements cache.Lower: what was there for the key and vary block is out of date at once, and the new
// response is on its way.
func (s *Store) Published(k cache.Key, vary []byte, id cache.ID, size int64) {
	v := varyHash(vary)
	s.scan.touch(k)
	older := s.index.remove(k, func(_ place, in info) bool { return in.vary() == v })
	if s.closed.Load() {
		return
	}
	if !s.backlog.push(response{id, grave{k, v}}) {
		s.opts.Stats.Inc(stats.DiskDrops)
		s.lost.Store(true)
		if older {
			s.backlog.remove(grave{k, v})
		}
	}
	s.backlog.weigh(size)
}

// Removed implements cache.Lower.
func (s *Store) Removed(k cache.Key) {
	s.scan.touch(k)
	s.index.remove(k, nil)
	if !s.closed.Load() {
		s.backlog.remove(grave{k, everyAlternate})
	}
}

// Has reports whether a response for k may be here. It reads memory only.
func (s *Store) Has(k cache.Key) bool {
	return s.warm.Load() && !s.closed.Load() && s.index.has(k)
}

// Expect implements cache.Lower.
func (s *Store) Expect(k cache.Key) { s.index.expect(k, false) }

// Count tells how many responses that is, one for each alternate.
func (s *Store) Count(k cache.Key) int {
	if !s.Has(k) {
		return 0
	}
	var few [setWays]candidate
	return len(s.index.find(few[:0], k))
}

// Sync waits until what was published and removed so far is on the medium.
func (s *Store) Sync() error {
	if !s.write.ask(func() { s.write.work() }) {
		return errClosed
	}
	return s.flush()
}

// stopping reports whether the store is closed, or is being closed.
func (s *Store) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

var errClosed = errors.New("the cache on disk is closed")

func (s *Store) failed(err error, act string) {
	s.opts.Stats.Inc(stats.DiskErrors)
	s.complain(s.failures.note(time.Now(), act, err))
}

func (s *Store) complain(lines []complaint) {
	if s.opts.Log == nil {
		return
	}
	for _, c := range lines {
		s.opts.Log.Warn().Err(c.err).Str("act", c.act).Str("directory", s.opts.Dir).Int("errors", c.unsaid).Msg("cache on disk")
	}
}

// indexLost ends the tier for this process; the next one makes the index anew.
func (s *Store) indexLost() {
	if s.closed.Load() {
		return // whoever has it now may have made another
	}
	s.off.Store(&Trouble{Since: time.Now(), Off: true, Reason: "its index cannot be read: somebody has truncated it, or the disk fails"})
	o := &s.opts
	o.Stats.Inc(stats.DiskErrors)
	o.Stats.Set(stats.DiskObjects, 0)
	o.Stats.Set(stats.DiskBytes, 0)
	if o.Log != nil {
		o.Log.Error().Str("directory", o.Dir).Msg("cache on disk is off until the next server: its index cannot be read")
	}
}

// Trouble tells what is wrong with the store now; nil for nothing.
func (s *Store) Trouble() *Trouble {
	if off := s.off.Load(); off != nil {
		return off
	}
	return s.failures.trouble(time.Now())
}

// syncing flushes what was written, and tells of failures that were not told yet.
func (s *Store) syncing() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.medium.behind:
		case <-tick.C:
			s.complain(s.failures.due(time.Now()))
		}
		s.flushDirty()
	}
}

func (s *Store) flushDirty() {
	if !s.dirty.Load() {
		return
	}
	if err := s.flush(); err != nil {
		s.failed(err, "flush")
	}
}
