package disk

import (
	"encoding/binary"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// A writer appends to the log. One goroutine owns it.
//
// Records gather in a buffer that is written when it is full or the backlog is empty; only then their entries are made. So
// a burst costs one write for some hundred records, and a crash leaves none half done that could be found.
type writer struct {
	store *Store

	open    bool // there is a segment to append to
	seg     uint32
	seq     uint64
	off     uint32 // where the next record goes
	summary []byte // of what is in the segment
	count   uint32 // entries of it

	room   []byte // for buf
	buf    []byte // of the segment from bufAt on, not written yet; it begins in a page where it does in the file
	bufAt  uint32
	queued []queued
	buried []grave    // whose tombstones are in the buffer
	hot    []response // to be written once more, since their place is about to be used again
	turn   bool       // whether the next is a new one

	writes, bytes uint64 // to be counted

	failures int // in a row
	errors   int // in all
	pause    time.Duration
	until    time.Time // no write before
	gauged   time.Time
	list     []byte // of the chunks of one response

	runway  uint32        // segments
	delay   time.Duration // between two looks into the backlog, while much comes
	flood   bool          // a look found enough for a write past the page cache
	rate    float64       // responses in that time, of late
	counted time.Time     // when they were counted
	seen    uint64        // the backlog's tail then

	asks chan func()   // run between two turns
	done chan struct{} // closed when there are no more turns
	dead atomic.Bool   // a test has killed the process: nothing is done any more
}

// queued is an entry to be made when its record has been written.
type queued struct {
	object cache.Object // pinned
	grave
	place   place
	info    info
	changes uint64 // of the shard, when memory was looked at
}

// flushSize is how much is gathered before it is written: what comes in floodDelay at most, while it stays in the processor's cache.
const flushSize = 512 << 10

// burst is how much may come, in bytes of bodies, between two times at which nothing waits.
const burst = 2 << 20

func (w *writer) init(s *Store) {
	w.store, w.asks, w.done, w.delay = s, make(chan func()), make(chan struct{}), batchDelay
	w.runway = max(1, s.index.segCount/runwayShare)
}

// run is the writer's life.
func (w *writer) run() {
	s := w.store
	defer close(w.done)
	defer w.index().guard(debug.SetPanicOnFault(true))
	if !s.scan.prepare() {
		return
	}
	if s.files != nil {
		s.files.settle()
	}
	w.begin()
	s.ended.Go(s.scan.run)
	s.ended.Go(s.findUnsaved)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !w.index().broken.Load() {
		some := w.work()
		wait := w.delay
		if w.flood {
			wait = floodDelay
		}
		if w.fewCome() {
			s.backlog.idle.Store(true)
			switch {
			case s.backlog.waiting() > 0: // it came before that
				wait = 0
			case !s.backlog.empty(): // a removal, which came before that or has to wait
			case some:
				wait = linger
			default:
				if wait = time.Hour; s.scan.active.Load() {
					wait = gaugeEvery // there are more objects from look to look
				}
				w.gauged = time.Time{}
			}
		}
		w.gauge()
		timer.Reset(wait)
		select {
		case <-s.stop:
			w.finish()
			return
		case f := <-w.asks:
			f()
		case <-s.backlog.wake:
		case <-timer.C:
		}
		s.backlog.idle.Store(false)
	}
}

// fewCome tells whether so little comes that each response may wake the writer, which costs the loop a system call. What is
// gathered instead is lost if all processes are killed.
func (w *writer) fewCome() bool {
	if now := time.Now(); now.Sub(w.counted) >= w.delay {
		tail := w.store.backlog.tail.Load()
		w.rate = float64(tail-w.seen) * float64(w.delay) / float64(now.Sub(w.counted))
		w.counted, w.seen = now, tail
	}
	return w.rate <= few
}

// ask has f run between two turns, and waits. False: there are no more turns.
func (w *writer) ask(f func()) bool {
	done := make(chan struct{})
	select {
	case w.asks <- func() { f(); close(done) }:
		<-done
		return true
	case <-w.done:
		return false
	}
}

func (w *writer) index() *index { return w.store.index }

// begin finds where to go on: in the segment of the process before, if that can write no more, or behind it.
func (w *writer) begin() {
	s := w.store
	if s.opts.Gone != nil {
		select {
		case <-s.opts.Gone:
		case <-s.stop:
			return
		case <-time.After(goneWait):
			return
		}
	}
	hdr := w.index().hdr
	seg, seq := hdr.cursor.Load(), hdr.seq.Load()
	if seq == 0 || s.scan.rebuilds || seg >= w.index().segCount {
		return
	}
	r := &w.index().rows[seg]
	used := r.used.Load()
	if r.seq.Load() != seq || r.full.Load() != 0 || used < segHeaderSize || used > w.index().segSize {
		return
	}
	b := make([]byte, w.index().segSize)
	if err := readAll(s.dev, b, w.index().segmentAt(seg)); err != nil {
		s.failed(err, "read")
		return
	}
	behind := false
	end := s.walkRecords(b, seg, seq, func(e *entry) {
		behind = behind || e.off >= used
		w.note(e)
	})
	// What the process before wrote last, and died before it had noted that, is as good as new where it is not overwritten: a
	// rebuild would take it for the newest, since it lies behind. So nothing is appended there.
	if end != used || behind {
		w.summary, w.count = w.summary[:0], 0
		return
	}
	w.appendTo(seg, seq, used)
}

// appendTo opens a segment in its use seq, which has records up to off.
func (w *writer) appendTo(seg uint32, seq uint64, off uint32) {
	if w.room == nil {
		w.room = paged(int(w.index().segSize) + pageSize)
	}
	w.open, w.seg, w.seq, w.off = true, seg, seq, off
	w.gather()
}

// gather begins an empty buffer for what comes next.
func (w *writer) gather() {
	w.bufAt = w.off
	w.buf = w.room[w.off%pageSize:][:0]
}

// finish writes what is left, within bounds.
func (w *writer) finish() {
	if w.dead.Load() {
		return
	}
	w.until = time.Time{}
	limit := time.Now().Add(closeWait)
	for w.work() && time.Now().Before(limit) {
	}
	w.store.flushDirty()
}

// work does what there is to do. It reports whether there was anything.
func (w *writer) work() (some bool) {
	s := w.store
	if time.Now().Before(w.until) {
		return w.discard()
	}
	some = w.buryAll()
	s.backlog.bytes.Store(0)
	w.flood = false
	for range backlogSize {
		r, ok := w.next()
		if !ok {
			break
		}
		some = true
		if w.save(r); len(w.buf) > flushSize {
			w.flush()
		}
	}
	w.flush()
	return some
}

// settle writes the tombstones that are due, if anything can be written now.
func (w *writer) settle() {
	if time.Now().Before(w.until) {
		return
	}
	w.buryAll()
	w.flush()
}

// buryAll appends the tombstones that are due. It reports whether there were any.
func (w *writer) buryAll() bool {
	graves, all := w.store.backlog.graves()
	if all {
		w.index().hdr.floor.Store(w.index().hdr.seq.Load() + 1)
		w.seal() // the next segment's header says it
	}
	for g := range graves {
		w.bury(g)
	}
	return graves != nil
}

// next takes what is to be written next: what is new and what is to be kept in turns.
func (w *writer) next() (r response, ok bool) {
	if w.turn = !w.turn; w.turn || len(w.hot) == 0 {
		if r, ok = w.store.backlog.pop(); ok || len(w.hot) == 0 {
			return r, ok
		}
	}
	n := len(w.hot) - 1
	r, w.hot = w.hot[n], w.hot[:n]
	return r, true
}

// discard is work while nothing can be written. Removals wait: they must not be forgotten.
func (w *writer) discard() (some bool) {
	w.hot = w.hot[:0]
	for {
		r, ok := w.store.backlog.pop()
		if !ok {
			return some
		}
		some = true
		w.drop(r.grave)
	}
}

// drop gives a response up for now: it is looked for again later.
func (w *writer) drop(g grave) {
	w.store.lost.Store(true)
	w.refuse(g)
}

// refuse gives a response up that does not fit. What is older must not come back in its place.
func (w *writer) refuse(g grave) {
	w.store.opts.Stats.Inc(stats.DiskDrops)
	w.store.backlog.remove(g)
}

// save appends a response, if it is still the stored one.
func (w *writer) save(q response) {
	s := w.store
	changes := w.index().changes(q.key) // before memory is looked at: a removal in between is seen by put
	o, ok := s.mem.OpenStored(q.id)
	if !ok {
		// Evicted, unless there is something newer, which is on its way, or it was removed.
		s.opts.Stats.Inc(stats.DiskDrops)
		w.bury(q.grave)
		return
	}
	r := record{kind: kindObject, key: o.Key(), body: o.BodyLen(), meta: *o.Meta(), vary: o.Vary(), uri: o.URI(), head: o.Head()}
	var list []byte
	errors := w.errors
	if r.body > w.index().storeSize()/4 {
		o.Release()
		w.refuse(q.grave) // it would overwrite itself, or nearly all else
		return
	}
	if r.body > w.index().maxInline() {
		r.kind = kindList
		if list, ok = w.saveChunks(&o); !ok || w.errors != errors {
			o.Release()
			w.drop(q.grave)
			return
		}
	}
	r.shape(len(list) / chunkSize)
	if int(r.headLen) > w.index().maxHead() {
		o.Release()
		w.refuse(q.grave)
		return
	}
	e := entry{key: r.key, length: r.length, vary: varyHash(r.vary), kind: r.kind, uri: r.uri, labels: s.opts.Labels(nil, r.head)}
	e.shorten()
	b, p, ok := w.reserve(&r, &e)
	if !ok {
		o.Release()
		w.drop(q.grave)
		return
	}
	if r.kind == kindObject {
		copyBody(b[r.bodyAt():][:r.body], &o, 0)
	}
	r.encode(b, list)
	if w.errors != errors { // some of its chunks are not there
		o.Release()
		w.drop(q.grave)
		return
	}
	w.queued = append(w.queued, queued{object: o, grave: q.grave, place: p, info: infoOf(r.length, e.vary), changes: changes})
}

func copyBody(b []byte, o *cache.Object, off int64) {
	for len(b) > 0 {
		n := copy(b, o.Fragment(off))
		b, off = b[n:], off+int64(n)
	}
}

// saveChunks appends the body of a large response, and returns the list of what it made.
func (w *writer) saveChunks(o *cache.Object) ([]byte, bool) {
	list := w.list[:0]
	for off, part := int64(0), uint32(0); off < o.BodyLen(); part++ {
		r := record{kind: kindChunk, key: o.Key(), body: min(w.index().maxChunk(), o.BodyLen()-off), part: part}
		r.shape(0)
		b, p, ok := w.reserve(&r, nil)
		if !ok {
			return nil, false
		}
		copyBody(b[r.bodyAt():][:r.body], o, off)
		r.encode(b, nil)
		list = appendChunk(list, chunk{seq: r.seq, seg: r.seg, off: p.offset(), length: r.length, bytes: uint32(r.body)})
		off += r.body
	}
	w.list = list
	return list, true
}

// bury appends a tombstone.
func (w *writer) bury(g grave) {
	if w.index().hdr.seq.Load() == 0 {
		return // nothing was ever written
	}
	if g.alternate != everyAlternate && w.index().holds(g.key, g.alternate) {
		return // what is newer than the one that is meant has been written already
	}
	r := record{kind: kindTombstone, key: g.key, part: g.alternate}
	r.shape(0)
	b, _, ok := w.reserve(&r, &entry{key: g.key, length: r.length, kind: kindTombstone, vary: g.alternate})
	if !ok {
		w.store.backlog.remove(g) // it is due all the same
		return
	}
	r.encode(b, nil)
	w.buried = append(w.buried, g)
}

// reserve finds room for a record of the shape that r has, and says in r where that is. With e the record is
// in the summary.
func (w *writer) reserve(r *record, e *entry) ([]byte, place, bool) {
	x := w.index()
	extra := trailerSize
	if e != nil {
		extra += e.size()
	}
	fits := func() bool {
		return w.open && int64(w.off)+int64(r.length)+int64(len(w.summary)+extra) <= int64(x.segSize)
	}
	if !fits() {
		w.seal()
		if !w.openNext() || !fits() {
			return nil, 0, false
		}
	}
	r.id, r.seq, r.seg, r.off = w.store.header.id, w.seq, w.seg, w.off
	n := len(w.buf)
	w.buf = w.buf[:n+int(r.length)]
	p := placeOf(w.seg, w.off, w.seq)
	if e != nil {
		e.off = w.off
		w.note(e)
	}
	w.off += r.length
	w.bytes += uint64(r.length)
	return w.buf[n:], p, true
}

func (w *writer) note(e *entry) {
	w.summary = e.append(w.summary)
	w.count++
}

// flush writes the buffer, and makes the entries of what is in it.
func (w *writer) flush() bool {
	if len(w.buf) == 0 {
		return true
	}
	s, x := w.store, w.index()
	w.flood = w.flood || len(w.buf) >= leastDirect
	err := writeAll(w.way(), w.buf, x.segmentAt(w.seg)+int64(w.bufAt))
	w.buf = w.buf[:0]
	s.dirty.Store(true)
	if err != nil {
		w.fail(err)
		return false
	}
	w.failures, w.pause = 0, 0
	w.gather()
	x.rows[w.seg].used.Store(w.off)
	if s.mem.KeysNoted() {
		x.hdr.keys.Store(1)
	}
	for i := range w.queued {
		if next := i + expectAhead; next < len(w.queued) {
			x.expect(w.queued[next].key, true)
		}
		w.enter(&w.queued[i])
	}
	clear(w.queued)
	w.queued = w.queued[:0]
	w.buried = w.buried[:0]
	// Once a batch: a loop counts in the same lines.
	s.opts.Stats.Add(stats.DiskWrites, w.writes)
	s.opts.Stats.Add(stats.DiskBytesWritten, w.bytes)
	w.writes, w.bytes = 0, 0
	return true
}

// expectAhead is how many entries before its turn the processor is told of one: enough for memory to answer.
const expectAhead = 8

// way is how the buffer is written. While more comes than the medium takes, that is through the page cache, which takes it
// at once: what waits here would be lost if all processes were killed.
func (w *writer) way() device {
	if f := w.store.files; f != nil && w.store.backlog.bytes.Load() > burst {
		return f.store.File
	}
	return w.store.dev
}

func (w *writer) enter(q *queued) {
	id := q.object.ID()
	done := w.index().put(q.key, q.place, q.info, func(changes uint64) bool {
		if changes == q.changes {
			return true
		}
		o, ok := w.store.mem.OpenStored(id)
		o.Release()
		return ok
	})
	if done {
		q.object.MarkOnDisk()
		w.writes++
	}
	q.object.Release()
}

// fail deals with a write that did not work: what was in it is given up, and so is the segment. The tombstones in it
// are due still.
func (w *writer) fail(err error) {
	for _, g := range w.buried {
		w.store.backlog.remove(g)
	}
	w.buried = w.buried[:0]
	for i := range w.queued {
		w.queued[i].object.Release()
		w.drop(w.queued[i].grave)
	}
	clear(w.queued)
	w.queued = w.queued[:0]
	w.abandon()
	w.errors++
	if w.failures++; w.failures%failLimit == 0 {
		w.pause = min(max(2*w.pause, pauseMin), pauseMax)
		w.until = time.Now().Add(w.pause)
	}
	w.store.failed(err, "write")
}

// abandon leaves a segment without a summary.
func (w *writer) abandon() {
	w.open, w.summary, w.count = false, w.summary[:0], 0
}

// seal ends the segment with its summary.
func (w *writer) seal() {
	if !w.open || !w.flush() {
		return
	}
	s, x := w.store, w.index()
	t := trailer{id: s.header.id, seq: w.seq, off: w.off, length: uint32(len(w.summary)), count: w.count, sum: checksum(w.summary)}
	b := make([]byte, trailerSize)
	t.encode(b)
	at := x.segmentAt(w.seg)
	err := writeAll(s.dev, w.summary, at+int64(w.off))
	if err == nil {
		err = writeAll(s.dev, b, at+int64(x.segSize)-trailerSize)
	}
	if err != nil {
		w.fail(err)
		return
	}
	x.rows[w.seg].used.Store(x.segSize)
	x.rows[w.seg].full.Store(1)
	w.abandon()
}

// openNext begins to overwrite the oldest segment.
func (w *writer) openNext() bool {
	x := w.index()
	if time.Now().Before(w.until) {
		return false
	}
	for range x.segCount {
		seg := (x.hdr.cursor.Load() + 1) % x.segCount
		if x.hdr.seq.Load() == 0 {
			seg = 0
		}
		r := &x.rows[seg]
		old := r.seq.Load()
		w.rescue(seg)
		gone := r.live.Load()
		seq := x.hdr.seq.Load() + 1
		// A predecessor that is dying may want the same one.
		if !r.seq.CompareAndSwap(old, seq) {
			x.hdr.cursor.Store(seg)
			continue
		}
		x.hdr.seq.Store(seq)
		x.hdr.cursor.Store(seg)
		r.used.Store(0)
		r.full.Store(0)
		r.live.Add(-gone)
		x.hdr.objects.Add(-gone)
		if err := w.writeHeader(seg, seq, old); err != nil {
			w.fail(err)
			return false
		}
		w.appendTo(seg, seq, segHeaderSize)
		return true
	}
	return false
}

// writeHeader begins a segment over what was written there under the number old. It waits for the medium where
// that is not dead there yet.
func (w *writer) writeHeader(seg uint32, seq, old uint64) error {
	s := w.store
	h := segmentHeader{id: s.header.id, seq: seq, floor: w.floor(seg), seg: seg}
	b := make([]byte, segHeaderSize)
	h.encode(b)
	waits := !s.medium.mayFollow(old, seq)
	if err := writeAll(s.dev, b, s.index.segmentAt(seg)); err != nil {
		return err
	}
	s.dirty.Store(true)
	s.medium.opened(waterline{seq, h.floor})
	if waits {
		return s.flush()
	}
	return nil
}

// floor is the number below which nothing counts after a power cut: of what was removed, and of the segments that are overwritten
// after seg.
func (w *writer) floor(seg uint32) uint64 {
	x := w.index()
	floor := x.hdr.floor.Load()
	for i := range w.runway {
		floor = max(floor, x.rows[(seg+1+i)%x.segCount].seq.Load()+1)
	}
	return floor
}

// rescueShare bounds what of a segment is written again: the rest is for what is new.
const rescueShare = 2

// rescue has what is still in memory written again, of what lies in a segment that is about to be overwritten.
func (w *writer) rescue(seg uint32) {
	s, x := w.store, w.index()
	r := &x.rows[seg]
	seq := r.seq.Load()
	if seq == 0 || r.live.Load() <= 0 || len(w.hot) > 0 {
		return
	}
	es, err := s.contents(seg, seq)
	if err != nil {
		return
	}
	budget := int64(x.segSize) / rescueShare
	for _, e := range slices.Backward(es) {
		if e.kind == kindTombstone {
			continue
		}
		s.mem.EachAlternate(e.key, func(o *cache.Object) { // mostly there is none
			if varyHash(o.Vary()) == e.vary && o.BodyLen()+int64(e.length) <= budget && x.leadsTo(e.key, placeOf(seg, e.off, seq)) {
				budget -= o.BodyLen() + int64(e.length)
				w.hot = append(w.hot, response{o.ID(), grave{e.key, e.vary}})
			}
		})
	}
}

// gauge publishes how much there is.
func (w *writer) gauge() {
	now := time.Now()
	if now.Sub(w.gauged) < gaugeEvery {
		return
	}
	w.gauged = now
	x := w.index()
	used := int64(0)
	for i := range x.rows {
		used += int64(x.rows[i].used.Load())
	}
	w.store.opts.Stats.Set(stats.DiskObjects, uint64(max(0, x.hdr.objects.Load())))
	w.store.opts.Stats.Set(stats.DiskBytes, uint64(used))
}

// findUnsaved queues what memory has and the disk has not: of a server that died before it could be written, at first, and
// later what was dropped.
func (s *Store) findUnsaved() {
	defer s.index.guard(debug.SetPanicOnFault(true))
	tick := time.NewTicker(unsavedGap)
	defer tick.Stop()
	for {
		if s.lost.Swap(false) {
			s.queueUnsaved()
		}
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
}

// queueUnsaved goes through memory, as fast as the writer keeps up.
func (s *Store) queueUnsaved() {
	s.mem.Walk(func(o *cache.Object) bool {
		if o.Meta().RangeTotal != 0 { // parts are kept in memory only
			return true
		}
		if o.OnDisk() && s.index.holds(o.Key(), varyHash(o.Vary())) {
			return true
		}
		for s.backlog.waiting() > backlogSize/4 {
			select {
			case <-s.stop:
				return false
			case <-time.After(batchDelay):
			}
		}
		s.backlog.push(response{o.ID(), grave{o.Key(), varyHash(o.Vary())}})
		return true
	})
}

// walkRecords calls f with what a summary would say of the records in b, the beginning of segment seg in its
// use seq. It returns where the unbroken run of records ends; what lies behind a damaged one is looked for as well.
func (s *Store) walkRecords(b []byte, seg uint32, seq uint64, f func(*entry)) (end uint32) {
	h, ok := decodeSegmentHeader(b)
	if !ok || h.id != s.header.id || h.seq != seq || h.seg != seg {
		return 0
	}
	unbroken := true
	end = segHeaderSize
	for off := uint32(segHeaderSize); int64(off)+fixedSize <= int64(len(b)); {
		if binary.LittleEndian.Uint32(b[off:]) != recordMagic {
			unbroken = false
			off += granule
			continue
		}
		r, err := parseRecord(b[off:])
		if err != nil || !r.lies(s.header.id, seq, seg, off) || int64(off)+int64(r.length) > int64(len(b)) {
			unbroken = false
			off += granule
			continue
		}
		if r.kind != kindChunk {
			e := entry{key: r.key, off: off, length: r.length, vary: varyHash(r.vary), kind: r.kind, uri: r.uri, labels: s.opts.Labels(nil, r.head)}
			if e.shorten(); r.kind == kindTombstone {
				e.vary = r.part
			}
			f(&e)
		}
		if off += r.length; unbroken {
			end = off
		}
	}
	return end
}

// contents lists what was written to a segment in its use seq, the oldest first.
func (s *Store) contents(seg uint32, seq uint64) ([]entry, error) {
	x := s.index
	b := make([]byte, trailerSize)
	at := x.segmentAt(seg)
	if err := readAll(s.dev, b, at+int64(x.segSize)-trailerSize); err != nil {
		s.failed(err, "read")
		return nil, err
	}
	if t, ok := decodeTrailer(b); ok && t.id == s.header.id && t.seq == seq && int64(t.off)+int64(t.length) <= int64(x.segSize) {
		b = make([]byte, t.length)
		if err := readAll(s.dev, b, at+int64(t.off)); err == nil && checksum(b) == t.sum {
			if es, ok := parseSummary(nil, b); ok {
				return es, nil
			}
		}
	}
	b = make([]byte, x.segSize)
	if err := readAll(s.dev, b, at); err != nil {
		s.failed(err, "read")
		return nil, err
	}
	var es []entry
	s.walkRecords(b, seg, seq, func(e *entry) { es = append(es, *e) })
	return es, nil
}
