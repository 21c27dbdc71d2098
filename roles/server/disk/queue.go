package disk

import (
	"sync"
	"sync/atomic"

	"trafficd/roles/server/cache"
)

// A backlog is what the writer still has to do, given to it by loops, which never wait for it: a bounded ring of
// responses, and a set of keys that were removed.
type backlog struct {
	slots [backlogSize]slot
	_     [56]byte
	tail  atomic.Uint64 // where the next is put
	_     [56]byte
	head  atomic.Uint64 // what is taken next; the writer's
	_     [56]byte

	bytes atomic.Int64 // of the bodies that came since the writer began with what waits
	hurry int64        // so many do not wait for the writer's next look; immutable

	idle atomic.Bool   // the writer is to be woken
	wake chan struct{} // of one

	mu       sync.Mutex // guards below
	removed  map[grave]struct{}
	overflow bool // more keys were removed than are kept
}

// A grave is what a tombstone is for: an alternate of a key, or all of them.
type grave struct {
	key       cache.Key
	alternate uint32 // vary hash, or everyAlternate
}

const everyAlternate = ^uint32(0)

const (
	backlogSize = 16 << 10
	maxRemoved  = 64 << 10
)

// A slot is free for the ticket that turn says, and filled when turn is one more (Vyukov's bounded queue).
type slot struct {
	turn atomic.Uint64
	response
}

// A response is something to be written: its identity in memory, and what it is known by if it is not there any
// more when its turn comes.
type response struct {
	id cache.ID
	grave
}

func newBacklog() *backlog {
	b := &backlog{wake: make(chan struct{}, 1), removed: map[grave]struct{}{}}
	for i := range b.slots {
		b.slots[i].turn.Store(uint64(i))
	}
	return b
}

// push adds a response. False: there is no room.
func (b *backlog) push(r response) bool {
	for {
		n := b.tail.Load()
		s := &b.slots[n%backlogSize]
		switch turn := s.turn.Load(); {
		case turn == n:
			if b.tail.CompareAndSwap(n, n+1) {
				s.response = r
				s.turn.Store(n + 1)
				b.rouse()
				return true
			}
		case turn < n:
			return false
		}
	}
}

// rouse wakes the writer if it sleeps, which it does only when few come: else they cost no system call.
func (b *backlog) rouse() {
	if b.idle.Load() && b.idle.CompareAndSwap(true, false) {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// weigh wakes the writer before its time when much waits: it might be evicted from memory before it is written.
func (b *backlog) weigh(size int64) {
	if n := b.bytes.Add(size); n >= b.hurry && n-size < b.hurry {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// pop takes the oldest response. The writer's.
func (b *backlog) pop() (response, bool) {
	n := b.head.Load()
	s := &b.slots[n%backlogSize]
	if s.turn.Load() != n+1 {
		return response{}, false
	}
	r := s.response
	s.turn.Store(n + backlogSize)
	b.head.Store(n + 1)
	return r, true
}

// waiting is how many responses wait.
func (b *backlog) waiting() uint64 { return b.tail.Load() - b.head.Load() }

// empty reports whether there is nothing to pop and nothing to bury.
func (b *backlog) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.removed) == 0 && b.waiting() == 0
}

// remove notes that a tombstone is due.
func (b *backlog) remove(g grave) {
	b.mu.Lock()
	if len(b.removed) < maxRemoved {
		b.removed[g] = struct{}{}
	} else {
		b.overflow = true
	}
	b.mu.Unlock()
	b.rouse()
}

// graves takes what was removed. all: and more than these, so that nothing written so far may count.
func (b *backlog) graves() (gs map[grave]struct{}, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.removed) == 0 {
		return nil, false
	}
	gs, all = b.removed, b.overflow
	b.removed, b.overflow = map[grave]struct{}{}, false
	return gs, all
}
