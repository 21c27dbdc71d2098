package queue

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// A Record is a value of many words that changes as a whole: two copies, and a
// word that says which of them is true. A death leaves the value before a Commit
// or the one after it.
//
// T must not contain pointers, and must mean the same to every process: it lies in
// shared memory. One owner writes; readers are others only after its death.
type Record[T any] struct {
	cur  atomic.Uint64 // its lowest bit
	bank [2]T
}

// RecordSize is the number of bytes that a Record[T] takes.
func RecordSize[T any]() int { return int(unsafe.Sizeof(Record[T]{})) }

// RecordAt gives the record in mem, which must be long enough and aligned to 8
// bytes. What is in it is what was there: whatever bits those are, Load returns one
// of the two copies, and what is in it must be checked before it is trusted. A T of
// numbers and arrays of them has no value that is not one.
func RecordAt[T any](mem []byte) *Record[T] {
	p := unsafe.Pointer(unsafe.SliceData(mem))
	if len(mem) < RecordSize[T]() || uintptr(p)%8 != 0 {
		panic(fmt.Sprintf("queue: a record of %d bytes does not fit into %d at %p", RecordSize[T](), len(mem), p))
	}
	return (*Record[T])(p)
}

// Commit makes v the value.
func (r *Record[T]) Commit(v *T, s Step) {
	next := r.cur.Load() + 1
	r.bank[next&1] = *v
	Killpoint(s)
	r.cur.Store(next)
	Killpoint(s)
}

// Load returns the value.
func (r *Record[T]) Load() T { return r.bank[r.cur.Load()&1] }
