package disk

import (
	"errors"
	"sync"
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// A Waiter is told that a load is over, by whatever goroutine, and whether anything was brought into memory: look there
// again. It need not be there still.
type Waiter interface{ Loaded(some bool) }

// readers bring responses into memory. However many wait for one key, it is read once.
type readers struct {
	store *Store
	jobs  chan cache.Key
	ended sync.WaitGroup

	mu      sync.Mutex // guards below
	waiting map[cache.Key][]Waiter
	closed  bool
}

// readQueue bounds the loads that wait for a thread: more than that and the origin is faster.
const readQueue = 256

func newReaders(s *Store) *readers {
	return &readers{store: s, jobs: make(chan cache.Key, readQueue), waiting: map[cache.Key][]Waiter{}, closed: true}
}

func (r *readers) start(threads int) {
	r.mu.Lock()
	r.closed = false
	r.mu.Unlock()
	for range threads {
		r.ended.Go(r.run)
	}
}

func (r *readers) close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.jobs)
	}
	r.mu.Unlock()
	r.ended.Wait()
}

// Load has what is stored under k brought into memory, and then tells w. False: w is not told, since
// there is too much to do, or the store is closed. It never waits.
func (s *Store) Load(k cache.Key, w Waiter) bool {
	r := s.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if ws, ok := r.waiting[k]; ok {
		r.waiting[k] = append(ws, w)
		return true
	}
	select {
	case r.jobs <- k:
		r.waiting[k] = []Waiter{w}
		return true
	default:
		s.opts.Stats.Inc(stats.DiskOverloads)
		return false
	}
}

// run is a thread's life.
func (r *readers) run() {
	var buf []byte
	for k := range r.jobs {
		some := r.store.load(k, &buf)
		if some {
			r.store.opts.Stats.Inc(stats.DiskHits)
		} else {
			r.store.opts.Stats.Inc(stats.DiskMisses)
		}
		r.mu.Lock()
		ws := r.waiting[k]
		delete(r.waiting, k)
		r.mu.Unlock()
		for _, w := range ws {
			w.Loaded(some)
		}
	}
}

// load brings every alternate of k that memory has not into memory. It reports whether there was any.
func (s *Store) load(k cache.Key, buf *[]byte) (some bool) {
	var few [setWays]candidate
	for _, c := range s.index.find(few[:0], k) {
		ok, err := s.loadOne(k, c, buf)
		switch {
		case err == nil, !s.index.still(c): // overwritten meanwhile, which is nobody's fault
		case err == errOverwritten:
			s.forsake(k, c)
		default:
			s.failed(err, "read")
			s.forsake(k, c)
		}
		some = some || ok
	}
	return some
}

// forsake takes an entry out that leads to nothing good. While the index is made anew, what is older must not come in
// its place: a good copy of the same may have been passed over for it.
func (s *Store) forsake(k cache.Key, c candidate) {
	s.scan.touch(k)
	s.index.drop(k, c)
}

var (
	errElsewhere   = errors.New("the record belongs to another place or time")
	errOverwritten = errors.New("a part of the response has been overwritten")
)

// fetch reads the record at c into buf and parses it.
func (s *Store) fetch(seg, off, length uint32, seq uint64, buf *[]byte) (record, []byte, error) {
	if length > maxSegment || int64(off)+int64(length) > int64(s.index.segSize) {
		return record{}, nil, errElsewhere
	}
	if cap(*buf) < int(length) {
		*buf = make([]byte, length)
	}
	b := (*buf)[:length]
	s.opts.Stats.Inc(stats.DiskReads)
	if err := readAll(s.dev, b, s.index.segmentAt(seg)+int64(off)); err != nil {
		return record{}, nil, err
	}
	r, err := parseRecord(b)
	if err != nil {
		return r, nil, err
	}
	if !r.lies(s.header.id, seq, seg, off) || r.length != length {
		return r, nil, errElsewhere
	}
	return r, b, nil
}

// loadOne brings what an entry leads to into memory. False without an error: memory has it, or
// cannot take it, or it is another key's.
func (s *Store) loadOne(k cache.Key, c candidate, buf *[]byte) (bool, error) {
	seq := s.index.sequence(c.place.segment())
	if seq&seqMask != c.place.seq() {
		return false, nil // overwritten meanwhile
	}
	r, b, err := s.fetch(c.place.segment(), c.place.offset(), c.info.length(), seq, buf)
	switch {
	case err != nil:
		return false, err
	case r.key != k:
		return false, nil
	case r.kind != kindObject && r.kind != kindList:
		return false, errElsewhere
	case s.mem.Has(k, r.vary):
		return false, nil
	}
	var w *cache.Writer
	if s.patiently(func() error {
		w, err = s.mem.Create(k, &r.meta, r.uri, r.vary, r.head, r.body)
		return err
	}) != nil {
		return false, nil
	}
	defer w.Release()
	switch err := s.fill(w, &r, b, buf); {
	case err == errNoRoom:
		return false, nil
	case err != nil:
		return false, err
	}
	ok, err := w.PublishLoaded(func() bool { return s.index.still(c) })
	return ok && err == nil, nil
}

// fill verifies a body and writes it into memory.
func (s *Store) fill(w *cache.Writer, r *record, b []byte, buf *[]byte) error {
	if r.kind == kindObject {
		body, err := r.verify(b)
		if err != nil {
			return err
		}
		return s.pour(w, body)
	}
	list := append([]byte(nil), r.chunks...) // the buffer is used again
	key, left := r.key, r.body
	for part := uint32(0); len(list) > 0; part++ {
		c := decodeChunk(list)
		list = list[chunkSize:]
		if c.seg >= s.index.segCount {
			return errElsewhere
		}
		p, b, err := s.fetch(c.seg, c.off, c.length, c.seq, buf)
		if s.index.sequence(c.seg) != c.seq {
			return errOverwritten
		}
		if err != nil {
			return err
		}
		if p.kind != kindChunk || p.key != key || p.part != part || p.body != int64(c.bytes) {
			return errElsewhere
		}
		body, err := p.verify(b)
		if err != nil {
			return err
		}
		if err := s.pour(w, body); err != nil {
			return err
		}
		left -= p.body
	}
	if left != 0 {
		return errDamaged
	}
	return nil
}

// errNoRoom ends a load that memory has no room for.
var errNoRoom = errors.New("no room in memory")

// pour writes a part of a body into memory.
func (s *Store) pour(w *cache.Writer, body []byte) error {
	err := s.patiently(func() error {
		n, err := w.Write(body)
		body = body[n:]
		return err
	})
	if err != nil {
		return errNoRoom
	}
	return nil
}

// How long a load waits for memory to make room: what is there is being sent, and it takes some time to evict the rest.
const (
	roomWait = 50 * time.Millisecond
	roomLook = time.Millisecond
)

// patiently does what may fail for lack of room until that works, or it has taken too long.
func (s *Store) patiently(f func() error) error {
	limit := time.Now().Add(roomWait)
	for {
		err := f()
		if !errors.Is(err, cache.ErrNoSpace) || time.Now().After(limit) {
			return err
		}
		select {
		case <-s.stop:
			return err
		case <-time.After(roomLook):
		}
	}
}
