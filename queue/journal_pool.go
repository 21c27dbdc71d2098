package queue

import (
	"fmt"
	"unsafe"
)

// A Ledger is one loop's part of a journal: its slots and its pages, with the
// free lists, which are in process memory and owned by the loop. Made anew by
// every generation, from what the slots say.
type Ledger struct {
	journal *Journal
	loop    int
	slots   []int32 // free below high; the last is the warmest
	high    int     // slots ever used; journalHeader.high is its copy
	small   pageList
	large   pageList
}

// A pageList is the free list of one page size.
type pageList struct {
	mem  []byte
	size int
	bit  Page
	max  int
	high int // pages handed out since the list was made, and those in use then
	free []Page
}

// Ledger makes the free lists of a loop: every slot without a cookie and every
// page that no slot names is free. Nobody else may have made one in this
// generation.
//
// A page that is named by two slots, or does not exist, is an error: the
// journal cannot be trusted then (ErrNotJournal).
func (j *Journal) Ledger(loop int) (*Ledger, error) {
	mem := j.PoolMemory(loop)
	small := j.shape.Small * SmallPage
	l := &Ledger{
		journal: j, loop: loop, high: int(j.header.high[loop].Load()),
		small: pageList{mem: mem[:small:small], size: SmallPage, max: j.shape.Small},
		large: pageList{mem: mem[small:], size: LargePage, bit: largePageBit, max: j.shape.Large},
	}
	used := make(map[Page]int)
	for i := l.high - 1; i >= 0; i-- {
		s := j.Slot(loop, i).State()
		if s.Cookie == 0 {
			l.slots = append(l.slots, int32(i))
			continue
		}
		for _, p := range s.pages() {
			if p == 0 {
				continue
			}
			if other, taken := used[p]; taken || !l.exists(p) {
				return nil, fmt.Errorf("read journal: %w: slot %d of loop %d has page %#x, of slot %d", ErrNotJournal, i, loop, p, other)
			}
			used[p] = i
		}
	}
	l.small.rebuild(used)
	l.large.rebuild(used)
	return l, nil
}

// pages are those that the slot names, each once; 0 where there is none.
func (s SlotState) pages() [2]Page {
	if s.Head.Page == s.Page {
		return [2]Page{s.Page}
	}
	return [2]Page{s.Page, s.Head.Page}
}

func (l *Ledger) exists(p Page) bool {
	n := int(p &^ largePageBit)
	return n >= 1 && n <= l.of(p).max
}

func (l *Ledger) of(p Page) *pageList {
	if p.Large() {
		return &l.large
	}
	return &l.small
}

// rebuild puts the holes below the highest page in use into the free list, so
// that pages above it stay untouched.
func (l *pageList) rebuild(used map[Page]int) {
	for p := range used {
		if p&largePageBit == l.bit {
			l.high = max(l.high, int(p&^largePageBit))
		}
	}
	for n := l.high; n >= 1; n-- {
		if _, taken := used[Page(n)|l.bit]; !taken {
			l.free = append(l.free, Page(n)|l.bit)
		}
	}
}

func (l *pageList) get() (Page, bool) {
	if n := len(l.free); n > 0 {
		p := l.free[n-1]
		l.free = l.free[:n-1]
		return p, true
	}
	if l.high == l.max {
		return 0, false
	}
	l.high++
	return Page(l.high) | l.bit, true
}

// Page takes the smallest page that holds n bytes; ok is false when there is
// none. It is nobody's until Attach, Replace or Answer names it: a death before
// that gives it back by itself.
func (l *Ledger) Page(n int) (p Page, ok bool) {
	switch {
	case n <= SmallPage:
		return l.small.get()
	case n <= LargePage:
		return l.large.get()
	}
	return 0, false
}

// Free gives a page back, after the step that made the slot forget it. The
// zero Page does nothing.
func (l *Ledger) Free(p Page) {
	if p != 0 {
		f := l.of(p)
		f.free = append(f.free, p)
	}
}

// Bytes is the whole page.
func (l *Ledger) Bytes(p Page) []byte {
	if p == 0 {
		return nil
	}
	f := l.of(p)
	at := (int(p&^largePageBit) - 1) * f.size
	return f.mem[at : at+f.size : at+f.size]
}

// Open gives a free slot to the connection with this cookie: right after it was
// accepted, and before its first byte is read. kind is the user's. For a
// connection adopted without a slot, rx and tx are its Progress; else 0.
func (l *Ledger) Open(cookie uint64, kind uint32, rx, tx uint64) (*Slot, error) {
	if cookie == 0 {
		return nil, fmt.Errorf("open slot: no cookie")
	}
	var i int
	if n := len(l.slots); n > 0 {
		i = int(l.slots[n-1])
		l.slots = l.slots[:n-1]
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
	s.open(cookie, kind, rx, tx)
	return s, nil
}

// Close gives the slot back, and the pages it names. Before close(2) of the
// connection. The slot is not to be used any more.
func (l *Ledger) Close(s *Slot) {
	pages := s.State().pages()
	s.close()
	for _, p := range pages {
		l.Free(p)
	}
	l.slots = append(l.slots, int32(l.index(s)))
}

func (l *Ledger) index(s *Slot) int {
	first := l.journal.Slot(l.loop, 0)
	return int(uintptr(unsafe.Pointer(s))-uintptr(unsafe.Pointer(first))) / slotSize
}

// InUse returns how many slots and pages are taken.
func (l *Ledger) InUse() (slots, small, large int) {
	return l.high - len(l.slots), l.small.high - len(l.small.free), l.large.high - len(l.large.free)
}

// Find gives all slots that are in use, by cookie.
func (l *Ledger) Find() map[uint64]*Slot {
	found := make(map[uint64]*Slot)
	for i := range l.high {
		if s := l.journal.Slot(l.loop, i); s.Cookie() != 0 {
			found[s.Cookie()] = s
		}
	}
	return found
}
