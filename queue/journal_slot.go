package queue

import (
	"sync/atomic"
)

// A Slot is a connection's place in the journal: 32 bytes.
//
//	cookie   whose it is (SO_COOKIE, which is never used twice); 0: nobody's
//	word     the user's; 0 for a connection on which nothing is in progress
//	kind     the user's number for what the connection is
//
// How many bytes were received and sent is not in it: the kernel knows (see
// Progress). While something is in progress, word says where the Record is that
// tells what those numbers mean.
//
// # The protocol
//
//		Open ─▶ Set(record) ─▶ (recv, Commit, send)* ─▶ Set(0) ─▶ Close
//		          ▲                                       │
//		          └───────────────────────────────────────┘
//
//	 1. A connection gets its slot right after accept, before a byte is read. So
//	    one without a slot whose counters stand at 0 was never read from: serve it.
//	 2. Between two Commits of a record there is nothing but receiving into a place
//	    that the record names, at an offset that follows from the counters, and
//	    sending from such a place. All else (parsing, decoding, deciding) is a
//	    function of what is committed, and is done again after a death.
//	 3. What is sent and would not come out the same if it were made again (a head
//	    with a date in it) lies in the pool, committed, before its first byte is sent.
//	 4. Memory in the pool is given back after the commit that names it no more.
//	 5. word is 0 only when all that was received has been answered and all that was
//	    to be sent is sent: an idle connection needs no counters.
//	 6. Close before close(2). So a connection without a slot whose counters have
//	    moved was being closed: close it.
//
// The owner is the loop of the slot; at adoption, whoever adopts.
type Slot struct {
	cookie atomic.Uint64
	word   atomic.Uint64
	kind   atomic.Uint32
	_      [12]byte
}

// A Step is a place between two stores, where a process may die.
type Step int

// The steps of this package. A user of it numbers its own from UserStep on.
const (
	stepClaim Step = iota
	stepKept
	stepMarkReceived
	stepReceived
	stepOpenBegun
	stepOpen
	stepSet
	stepClose // the last: a test goes through them by number

	UserStep Step = 32
)

// open gives the slot to the connection with this cookie.
func (s *Slot) open(cookie uint64, kind uint32) {
	s.word.Store(0)
	s.kind.Store(kind)
	Killpoint(stepOpenBegun)
	s.cookie.Store(cookie)
	Killpoint(stepOpen)
}

// Set stores the user's word. It commits whatever the word stands for.
func (s *Slot) Set(word uint64) {
	s.word.Store(word)
	Killpoint(stepSet)
}

// Word returns what Set stored last, 0 after Open.
func (s *Slot) Word() uint64 { return s.word.Load() }

// Kind returns what the connection is.
func (s *Slot) Kind() uint32 { return s.kind.Load() }

// Cookie is the connection's, 0 if the slot is free.
func (s *Slot) Cookie() uint64 { return s.cookie.Load() }

// close says that the connection is about to be closed. Before close(2).
func (s *Slot) close() {
	s.cookie.Store(0)
	Killpoint(stepClose)
}
