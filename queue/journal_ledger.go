package queue

import (
	"fmt"
	"iter"
	"unsafe"
)

// A Ledger is one loop's slots, with the list of those that are free, which is in
// process memory and owned by the loop. Made anew by every generation, from what
// the slots say.
type Ledger struct {
	journal *Journal
	loop    int
	free    []int32 // below high; the last is the warmest
	high    int     // slots ever used; journalHeader.high is its copy
}

// Ledger makes the list of a loop: every slot without a cookie is free. Nobody else
// may have made one in this generation.
func (j *Journal) Ledger(loop int) *Ledger {
	l := &Ledger{journal: j, loop: loop, high: int(j.header.high[loop].Load())}
	for i := l.high - 1; i >= 0; i-- {
		if j.Slot(loop, i).Cookie() == 0 {
			l.free = append(l.free, int32(i))
		}
	}
	return l
}

// Open gives a free slot to the connection with this cookie: right after it was
// accepted, or made, and before its first byte is read or sent. kind is the user's.
func (l *Ledger) Open(cookie uint64, kind uint32) (*Slot, error) {
	if cookie == 0 {
		return nil, fmt.Errorf("open slot: no cookie")
	}
	var i int
	if n := len(l.free); n > 0 {
		i = int(l.free[n-1])
		l.free = l.free[:n-1]
	} else {
		if l.high == l.journal.shape.Slots {
			return nil, ErrJournalFull
		}
		i = l.high
		l.high++
		// Before the slot: one above the mark would not be found again.
		l.journal.header.high[l.loop].Store(uint32(l.high))
	}
	s := l.journal.Slot(l.loop, i)
	s.open(cookie, kind)
	return s, nil
}

// Close gives the slot back. Before close(2) of the connection, and before the
// memory that its word stands for is used again. The slot is not to be used any
// more.
func (l *Ledger) Close(s *Slot) {
	s.close()
	l.free = append(l.free, int32(l.index(s)))
}

func (l *Ledger) index(s *Slot) int {
	first := l.journal.Slot(l.loop, 0)
	return int(uintptr(unsafe.Pointer(s))-uintptr(unsafe.Pointer(first))) / slotSize
}

// InUse returns how many slots are taken.
func (l *Ledger) InUse() int { return l.high - len(l.free) }

// All gives the slots that are in use.
func (l *Ledger) All() iter.Seq[*Slot] {
	return func(yield func(*Slot) bool) {
		for i := range l.high {
			if s := l.journal.Slot(l.loop, i); s.Cookie() != 0 && !yield(s) {
				return
			}
		}
	}
}
