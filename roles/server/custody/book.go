package custody

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
)

// What a connection is: the kind of its slot.
const (
	Client uint32 = iota + 1 // accepted
	Origin                   // made to an origin
)

// A Tag says what is in progress on a connection, and so what its record is.
type Tag uint8

const (
	Nothing  Tag = iota // the connection is idle
	Session             // package session: a request
	Exchange            // package origin: a request to an origin
	Tunnel              // package tunnel, on the client's connection: both directions
)

// Where one loop's tag and page lie in the word of a slot.
const tagShift = 56

// Word makes the word of a slot.
func Word(t Tag, record buffer.Ref) uint64 { return uint64(t)<<tagShift | uint64(record) }

// Split takes the word of a slot apart.
func Split(word uint64) (Tag, buffer.Ref) { return Tag(word >> tagShift), buffer.Ref(word) }

// A Book is one loop's part of the journal. Owned by the loop. A nil Book is
// custody switched off: nothing is noted.
type Book struct {
	Loop   int // immutable
	Arena  *buffer.Arena
	Ledger *queue.Ledger // made when the journal is claimed
	work   *atomic.Uint64
	busy   []byte // by descriptor: not 0 while something is in progress on it; the keeper's hint
}

// NewBook makes a loop's part of a journal. busy has a byte for each descriptor number, 0 for those on
// which nothing is in progress: the loops write those of their own connections, the keeper reads it. The ledger is
// made when the journal is claimed.
func NewBook(j *queue.Journal, loop int, a *buffer.Arena, busy []byte) *Book {
	return &Book{Loop: loop, Arena: a, work: j.Work(loop), busy: busy}
}

// mark says whether something is in progress on a connection: set before the slot says so, and
// taken back after, so that the keeper sends too much first and never too little.
func (b *Book) mark(fd int, on byte) {
	if fd < len(b.busy) {
		b.busy[fd] = on
	}
}

// Work says for whose request the loop works from now on: the cookie of the client's connection.
// If the loop dies of it, the successor knows whom to blame.
func (b *Book) Work(cookie uint64) {
	if b != nil {
		b.work.Store(cookie)
	}
}

// Accused returns what Work was told last, and forgets it.
func (b *Book) Accused() uint64 { return b.work.Swap(0) }

// Open gives a connection its slot: right after accept or connect. Without custody, or without a
// slot to spare, it is nil, and the connection ends with this process.
func (b *Book) Open(fd int, kind uint32) *queue.Slot {
	if b == nil {
		return nil
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil
	}
	s, err := b.Ledger.Open(cookie, kind)
	if err != nil {
		return nil
	}
	return s
}

// An Entry is a connection's slot and, while something is in progress on it, its
// record. Owned by the connection. The zero Entry is a connection that is not in
// custody: noting something in it does nothing.
type Entry[T any] struct {
	Slot *queue.Slot
	FD   int
	rec  *queue.Record[T]
	ref  buffer.Ref
}

// Enter gives a connection its slot and makes its entry.
func Enter[T any](b *Book, fd int, kind uint32) Entry[T] {
	return Entry[T]{Slot: b.Open(fd, kind), FD: fd}
}

// Kept reports whether the connection is in custody.
func (e *Entry[T]) Kept() bool { return e.Slot != nil }

// Cookie is the connection's identity; 0 when it is not in custody.
func (e *Entry[T]) Cookie() uint64 {
	if e.Slot == nil {
		return 0
	}
	return e.Slot.Cookie()
}

// Commit makes v what is true of the connection. With no record to spare the connection leaves
// custody, rather than stay in it with a note that is out of date.
func (e *Entry[T]) Commit(b *Book, t Tag, v *T, s queue.Step) {
	if e.Slot == nil {
		return
	}
	if e.rec != nil {
		e.rec.Commit(v, s)
		return
	}
	ref, ok := b.Arena.GetRecord()
	if !ok {
		b.Ledger.Close(e.Slot)
		e.Slot = nil
		return
	}
	e.ref, e.rec = ref, queue.RecordAt[T](b.Arena.Bytes(ref))
	e.rec.Commit(v, s)
	b.mark(e.FD, 1)
	e.Slot.Set(Word(t, ref))
}

// Load returns what was committed last. The entry must have a record.
func (e *Entry[T]) Load() T { return e.rec.Load() }

// Rest says that nothing is in progress any more. What the record named may be
// given back after it.
func (e *Entry[T]) Rest(b *Book) {
	if e.rec == nil {
		return
	}
	e.Slot.Set(0)
	b.mark(e.FD, 0)
	b.Arena.Put(e.ref)
	e.rec, e.ref = nil, 0
}

// Close takes the connection out of custody for good. When it is about to be closed that comes before close(2), and before
// what the record named is given back.
func (e *Entry[T]) Close(b *Book) {
	if e.Slot == nil {
		return
	}
	b.Ledger.Close(e.Slot)
	b.mark(e.FD, 0)
	b.Arena.Put(e.ref)
	*e = Entry[T]{}
}

// Busy says that something is in progress of which there is nothing to note yet.
func (e *Entry[T]) Busy(b *Book) {
	if e.Slot != nil {
		b.mark(e.FD, 1)
	}
}

// Yield gives the slot away, with the page of its record.
func (e *Entry[T]) Yield() (*queue.Slot, buffer.Ref) {
	slot, ref := e.Slot, e.ref
	*e = Entry[T]{}
	return slot, ref
}

// Resume makes the entry of a connection that came out of custody, and returns what
// its record says. The slot's tag must be T's.
func Resume[T any](b *Book, fd int, s *queue.Slot) (Entry[T], T) {
	r := Read[T](b, s)
	_, ref := Split(s.Word())
	b.mark(fd, 1)
	return Entry[T]{Slot: s, FD: fd, rec: queue.RecordAt[T](b.Arena.Bytes(ref)), ref: ref}, r
}

// Amend changes what the record of a slot says. The slot's tag must be T's.
func Amend[T any](b *Book, s *queue.Slot, v *T, step queue.Step) {
	_, ref := Split(s.Word())
	queue.RecordAt[T](b.Arena.Bytes(ref)).Commit(v, step)
}

// Read returns what the record of a slot says. The slot's tag must be T's.
func Read[T any](b *Book, s *queue.Slot) T {
	_, ref := Split(s.Word())
	return queue.RecordAt[T](b.Arena.Bytes(ref)).Load()
}
