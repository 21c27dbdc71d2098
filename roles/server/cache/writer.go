package cache

import "sync/atomic"

// Extents: how much of a segment a fill takes at a time. What is small is taken
// together with its header, so that a hit reads adjacent lines.
const (
	contiguous  = 64 << 10 // announced bodies up to this lie behind their header
	firstExtent = 16 << 10 // first guess at a body of unknown length
)

// A Writer fills one object. Create returns it to its owner, who alone calls Space,
// Commit, Write, Publish, Abort and, once, Release. Others may read along, by Fragment,
// Len and State, from any goroutine: the bytes stay until Release, also after Abort.
type Writer struct {
	arena *Arena
	obj   Object // the pins; taken back by Release
	state atomic.Uint32

	// Owner's. All of it can be found again from the record.
	size int64  // bytes committed
	end  int64  // offset in the body where the current extent ends
	room []byte // of the current extent, not committed
}

// FillState says how far a fill is.
type FillState uint32

// The states. Only Filling is ever left.
const (
	Filling   FillState = iota // more may come
	Published                  // complete, and it could be found
	Aborted                    // no more comes; what there is can still be read
)

func (f FillState) String() string {
	return [...]string{"filling", "published", "aborted"}[f]
}

// Create begins an object of size body bytes, -1 if that is not known. uri is what k was
// made of, as AppendURI writes it. meta, uri, vary and head are copied. Nobody finds the object before Publish. Errors: ErrTooLarge,
// ErrNoSpace, ErrFenced; the response is then served without being stored.
func (a *Arena) Create(k Key, meta *Meta, uri, vary, head []byte, size int64) (*Writer, error) {
	s := a.store
	r := record{key: k, meta: meta, uri: uri, vary: vary, head: head, declared: size}
	if size > s.opts.MaxObject || r.text() > s.maxHead() {
		return nil, ErrTooLarge
	}
	if s.returns(k) {
		r.flags = hitOne
		if size > s.small() {
			a = s.protected
		}
	}
	return a.create(r)
}

func (a *Arena) create(r record) (*Writer, error) {
	s := a.store
	least, most := s.firstExtent(r.size(), r.declared)
	a.mu.Lock()
	defer a.mu.Unlock()
	l, n, err := a.reserve(least, most)
	if err != nil {
		return nil, err
	}
	h := s.writeRecord(l, r, n)
	w := a.writerLocked()
	w.begin(l, h)
	return w, nil
}

// firstExtent is how much to take at once for a record and the beginning of its body.
func (s *Store) firstExtent(record uint32, size int64) (least, most uint32) {
	record = alignUp(record, granule)
	switch {
	case size < 0:
		guess := min(firstExtent, s.segSize/16)
		return record + guess, record + guess
	case size <= s.small():
		return record + uint32(size), record + uint32(size)
	default:
		return record + s.segSize/16, uint32(min(int64(record)+size, int64(s.segSize)))
	}
}

// small is the largest body laid behind its header. With the largest head it takes a
// quarter of a segment, so it fits beside the survivors of an eviction.
func (s *Store) small() int64 { return int64(min(contiguous, s.segSize/8)) }

// maxHead bounds vary block, head block and URI together.
func (s *Store) maxHead() int { return int(s.segSize / 8) }

func (a *Arena) writerLocked() *Writer {
	if n := len(a.idle); n > 0 {
		w := a.idle[n-1]
		a.idle = a.idle[:n-1]
		return w
	}
	return &Writer{arena: a, obj: Object{arena: a}}
}

// begin sets the writer to what the record says, for a new fill and a resumed one.
func (w *Writer) begin(l location, h *objectHeader) {
	w.obj.loc, w.obj.hdr = l, h
	w.size, w.end, w.room = int64(h.committed.Load()), 0, nil
	w.state.Store(uint32(Filling))
	if n := h.fragments.Load(); n > 0 {
		w.enter(w.arena.store.fragment(h, n-1))
	}
}

// enter makes f, the last fragment, the one being filled.
func (w *Writer) enter(f *fragment) {
	s := w.arena.store
	w.end = min(f.end(), s.opts.MaxObject)
	if d := w.obj.hdr.declared; d >= 0 {
		w.end = min(f.end(), d)
	}
	w.room = s.bytesAt(f.loc, uint32(w.end-f.start()))[w.size-f.start():]
}

// Space returns memory to receive the next body bytes into; Commit says how many came.
// It is empty with a nil error when the announced length has been reached. After an error the fill can
// only be aborted: ErrTooLarge when the body turns out larger than the store takes,
// ErrNoSpace, ErrFenced.
func (w *Writer) Space() ([]byte, error) {
	if len(w.room) == 0 && w.size != w.obj.hdr.declared {
		if err := w.extend(); err != nil {
			return nil, err
		}
	}
	return w.room, nil
}

// Commit makes the next n bytes of Space part of the body; readers see them from then on.
func (w *Writer) Commit(n int) {
	w.room = w.room[n:]
	w.size += int64(n)
	w.obj.hdr.committed.Store(uint64(w.size))
	killpoint()
}

// Write copies p into the body. It returns how much it took and the error of Space;
// more than was announced is ErrTooLarge.
func (w *Writer) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		space, err := w.Space()
		if err == nil && len(space) == 0 {
			err = ErrTooLarge
		}
		if err != nil {
			return done, err
		}
		n := copy(space, p[done:])
		w.Commit(n)
		done += n
	}
	return done, nil
}

// extend takes the next extent and enters it in the fragment table: the entry before
// the count, the count before any byte of it is committed.
func (w *Writer) extend() error {
	a, h := w.arena, w.obj.hdr
	s := a.store
	left := s.opts.MaxObject - w.size
	if h.declared >= 0 {
		left = h.declared - w.size
	}
	if left <= 0 {
		return ErrTooLarge
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n := h.fragments.Load()
	if err := w.makeRoom(n, left); err != nil {
		return err
	}
	least, most := s.nextExtent(n, w.size, left, h.declared >= 0)
	l, got, err := a.reserve(least, most)
	if err != nil {
		return err
	}
	if l.segment() == w.obj.loc.segment() {
		a.unpin(l) // the record's own pin covers it
	}
	f := s.fragment(h, n)
	*f = makeFragment(l, w.size, got)
	killpoint()
	h.fragments.Store(n + 1)
	killpoint()
	w.enter(f)
	return nil
}

// nextExtent grows with the body, so that a guess wastes at most half as much as is
// there. None but the first few is smaller than a sixteenth of a segment, which bounds the fragment table.
func (s *Store) nextExtent(n uint32, size, left int64, known bool) (least, most uint32) {
	floor, ceiling := int64(s.segSize/16), int64(s.segSize/4)
	if n < inlineFrs-1 {
		floor = min(floor, firstExtent)
	}
	want := left
	if !known {
		want = min(max(size/2, floor), ceiling, left)
	}
	return uint32(min(left, floor)), uint32(min(want, int64(s.segSize)))
}

// makeRoom sees to it that the fragment table has an entry n, for a body that may
// still grow by left bytes. The caller holds a.mu.
func (w *Writer) makeRoom(n uint32, left int64) error {
	s, h := w.arena.store, w.obj.hdr
	if n < inlineFrs {
		return nil
	}
	if h.overflow.Load() != 0 { // also when it was made, and the extent then refused
		if n-inlineFrs >= h.overflowCap {
			return ErrTooLarge
		}
		return nil
	}
	entries := uint32(left/int64(s.segSize/16)) + 2
	l, _, err := w.arena.reserve(entries*fragmentSize, entries*fragmentSize)
	if err != nil {
		return err
	}
	if l.segment() == w.obj.loc.segment() {
		w.arena.unpin(l)
	}
	h.overflowCap = entries
	killpoint()
	h.overflow.Store(uint64(l))
	killpoint()
	return nil
}

// Publish makes the object findable and returns it, pinned. It replaces the alternate
// with the same vary block. The writer is finished, and released by its owner as
// before. ErrIncomplete, ErrFenced, ErrPurged: nothing was published, Abort it.
func (w *Writer) Publish() (Object, error) {
	a, h, l := w.arena, w.obj.hdr, w.obj.loc
	s := a.store
	if h.declared >= 0 && w.size != h.declared {
		return Object{}, ErrIncomplete
	}
	if s.Fenced() {
		return Object{}, ErrFenced
	}
	w.trim()
	s.complete(l, h, w.size)
	if err := a.publish(l, h, 0); err != nil {
		return Object{}, err
	}
	s.super.published.Add(1)
	o := a.again(l, h)
	w.state.Store(uint32(Published))
	s.tellPublished(o)
	return o, nil
}

// replace is Publish for a copy of o, if that can still be found.
func (w *Writer) replace(o *Object) bool {
	a, h, l := w.arena, w.obj.hdr, w.obj.loc
	w.trim()
	a.store.complete(l, h, w.size)
	w.state.Store(uint32(Published))
	return !a.store.Fenced() && a.store.moveEntry(o.loc, o.hdr, l, h)
}

// Abort gives the fill up. Who retained the writer can still read what there is.
func (w *Writer) Abort() {
	if w.State() != Filling {
		return
	}
	w.obj.hdr.flags.Or(flagAborted)
	killpoint()
	w.trim()
	w.state.Store(uint32(Aborted))
}

// trim gives the unused rest of the last extent back, where it is still the arena's newest.
func (w *Writer) trim() {
	a, h := w.arena, w.obj.hdr
	n := h.fragments.Load()
	if n == 0 {
		return
	}
	f := a.store.fragment(h, n-1)
	a.mu.Lock()
	a.giveBack(f.loc, uint32(f.capacity()), uint32(w.size-f.start()))
	a.mu.Unlock()
	w.room = nil
}

// Release ends the writer's life; what is not published by then is aborted.
func (w *Writer) Release() {
	w.Abort()
	w.obj.Release()
	a := w.arena
	a.mu.Lock()
	a.idle = append(a.idle, w)
	a.mu.Unlock()
}

// State says how far the fill is.
func (w *Writer) State() FillState { return FillState(w.state.Load()) }

// Len returns the number of body bytes committed.
func (w *Writer) Len() int64 { return int64(w.obj.hdr.committed.Load()) }

// Declared returns the body length announced to Create, -1 if it is unknown.
func (w *Writer) Declared() int64 { return w.obj.hdr.declared }

// Fragment returns the longest contiguous run of committed body bytes at off.
func (w *Writer) Fragment(off int64) []byte { return w.arena.store.fragmentAt(w.obj.hdr, off) }

// Meta, Vary, Head, URI and Key return what Create was given. Read only, until Release.
func (w *Writer) Meta() *Meta { return &w.obj.hdr.meta }

// Vary returns the vary block given to Create.
func (w *Writer) Vary() []byte { return w.obj.hdr.varyBlock() }

// Head returns the head block given to Create.
func (w *Writer) Head() []byte { return w.obj.hdr.headBlock() }

// URI returns the URI given to Create.
func (w *Writer) URI() []byte { return w.obj.hdr.uri() }

// Key returns the key given to Create.
func (w *Writer) Key() Key { return w.obj.hdr.key }

// ID names the fill, for Resume by a later process, and from Publish on the object.
func (w *Writer) ID() ID { return ID(w.obj.loc) }

// Rejoin opens a fill of a dead process whatever became of it: one that was finished or aborted
// can be read, as State says, and an unfinished one goes on. It is called once for a fill, before
// EndHold. False: its bytes are gone.
func (a *Arena) Rejoin(id ID) (*Writer, bool) {
	l := location(id)
	h, ok := a.reopen(l)
	if !ok {
		return nil, false
	}
	a.mu.Lock()
	w := a.writerLocked()
	a.mu.Unlock()
	w.begin(l, h)
	switch flags := h.flags.Load(); {
	case flags&flagComplete != 0:
		w.state.Store(uint32(Published))
	case flags&flagAborted != 0:
		w.state.Store(uint32(Aborted))
	}
	return w, true
}
