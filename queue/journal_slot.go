package queue

import (
	"sync/atomic"
)

// Page names a page of a loop's pool: the number, from 1, and a bit for the
// large ones. The zero Page names none. It fits into the words of a Slot.
type Page uint32

// largePageBit is the highest of the 20 bits a Page has.
const largePageBit Page = 1 << 19

// Large tells whether it is a page of LargePage bytes.
func (p Page) Large() bool { return p&largePageBit != 0 }

// Len is the number of bytes of the page, 0 for the zero Page.
func (p Page) Len() int {
	switch {
	case p == 0:
		return 0
	case p.Large():
		return LargePage
	}
	return SmallPage
}

// A Slot is the journal of one connection: 128 bytes, two cache lines.
//
// What is in it, and what is not:
//
//	cookie   whose it is; 0: nobody's. SO_COOKIE, which is never used twice
//	kind     what the connection is for (the user's number)
//	buffer   page and base: the stream byte that lies at the page's start
//	cur      which of the two entries is true, and the user's note on it
//	entry    rx, tx: at which byte of either stream this request and its answer begin
//	         request: its length, once it is complete
//	         head: where the answer's head lies (page, offset, length), once it is complete
//	         object, body: which bytes follow the head, and how many
//
// How many bytes were received and sent is not in it: the kernel knows.
//
// # The protocol
//
// Each step is a method. Each becomes true with its last store, and on x86 and
// arm64 alike Go's atomic stores are seen in their order (they are
// sequentially consistent), so whoever finds that store finds all before it. A
// death leaves the step done or not done.
//
//			Open ─▶ Attach ─▶ (recv)* ─▶ Complete ─▶ Answer ─▶ (writev)* ─▶ Finish ─▶ Detach
//			 │         ▲  └─ Replace ─┘                                        │         │
//			 │         └──────────── next request, more of it in the page ─────┘         │
//			 ▼                                                                           │
//			Close ◀──────────────────────── idle ◀───────────────────────────────────────┘
//
//		 1. The page is named (Attach) before the first byte is received into it, and
//		    bytes are received at (bytes received so far − base). Bytes are never
//		    moved in a page: when it is full they are copied to another (Replace).
//		    So after a death, Consumed − base bytes of the page are valid.
//		 2. A head is rendered where it will stay, and sent from there, after Answer.
//		    It may contain what differs each time (dates, process IDs): it is not
//		    rendered again. Only the body is read again, hence an immutable object.
//		 3. After the last byte: Finish, and only then may the page be given back or
//		    the next request be looked at.
//		 4. Close before close(2). So a connection without a slot whose counters
//		    stand at 0 was never read from: serve it. One without a slot whose
//		    counters have moved was being closed: close it.
//	 5. The last answer of a connection (Connection: close) is not finished but
//	    closed: from Answered straight to Close, with what says so in the Note,
//	    stored before Answer. Finish clears the note, and a death behind it would
//	    leave a connection that looks idle, to a client that waits for its end.
//
// The owner is the loop of the slot; at adoption, whoever adopts.
type Slot struct {
	cookie  atomic.Uint64
	buffer  atomic.Uint64 // page:20 | base:44
	cur     atomic.Uint32 // note:31 | number of the true entry:1
	kind    atomic.Uint32
	entries [2]entry
	peer    atomic.Uint64 // the user's: the other connection of a transaction
}

type entry struct {
	rx      atomic.Uint64
	tx      atomic.Uint64
	head    atomic.Uint64 // 0: none; else headBit | page:20 | offset:17 | length:17
	body    atomic.Uint64
	object  atomic.Uint64
	request atomic.Uint64
}

// UnknownBody is the length of a body of which it is not known yet, as when
// it goes on until the origin closes. Such an answer is never finished by
// counting.
const UnknownBody = ^uint64(0)

// A killStep is a place between two stores of the journal protocol.
type killStep int

const (
	stepClaim killStep = iota
	stepMarkKept
	stepMarkReceived
	stepReceived
	stepOpenBegun
	stepOpen
	stepAttach
	stepReplaceBegun
	stepReplace
	stepComplete
	stepAnswerBegun
	stepAnswer
	stepFinishBegun
	stepFinish
	stepDetach
	stepClose // the last: a test goes through them by number
)

// base is kept modulo 2^44: 16 TiB on one connection, and the difference to
// another number of the stream is right beyond.
const baseBits = 44

const baseMask = 1<<baseBits - 1

func packBuffer(p Page, base uint64) uint64 { return uint64(p)<<baseBits | base&baseMask }

// Head is where the head of an answer lies.
type Head struct {
	Page   Page
	Offset int // in the page
	Length int // at least 1
}

const headBit = 1 << 63

func (h Head) pack() uint64 {
	return headBit | uint64(h.Page)<<34 | uint64(h.Offset)<<17 | uint64(h.Length)
}

func unpackHead(v uint64) Head {
	const mask = 1<<17 - 1
	return Head{Page: Page(v >> 34 & (1<<20 - 1)), Offset: int(v >> 17 & mask), Length: int(v & mask)}
}

// open gives the slot to the connection with this cookie, of which rx bytes
// were consumed and tx bytes written (0 and 0 for one just accepted; the
// counters' values for one that is adopted without a slot).
func (s *Slot) open(cookie uint64, kind uint32, rx, tx uint64) {
	s.buffer.Store(0)
	s.kind.Store(kind)
	s.peer.Store(0)
	s.entries[0].clear(rx, tx)
	s.cur.Store(0)
	killpoint(stepOpenBegun)
	s.cookie.Store(cookie)
	killpoint(stepOpen)
}

func (e *entry) clear(rx, tx uint64) {
	e.head.Store(0)
	e.request.Store(0)
	e.body.Store(0)
	e.object.Store(0)
	e.rx.Store(rx)
	e.tx.Store(tx)
}

func (s *Slot) now() *entry { return &s.entries[s.cur.Load()&1] }

// Attach says that the stream's bytes from base on are received into p, the
// byte number base to its start. Before the first recv into it.
func (s *Slot) Attach(p Page, base uint64) {
	s.buffer.Store(packBuffer(p, base))
	killpoint(stepAttach)
}

// Replace says that p, into which the caller has copied what is still needed,
// stands for the page attached before; base is the byte number at its start.
// One store: before it the old page is true, after it the new one, and only
// after it may the old one be given back.
func (s *Slot) Replace(p Page, base uint64) {
	killpoint(stepReplaceBegun)
	s.buffer.Store(packBuffer(p, base))
	killpoint(stepReplace)
}

// Complete says that the request is whole and length bytes long. Whoever adopts
// it then knows so without parsing; before, it parses what is there.
func (s *Slot) Complete(length uint64) {
	s.now().request.Store(length)
	killpoint(stepComplete)
}

// Answer says that the head at h is what is being sent, followed by body bytes
// of the object (UnknownBody: until further notice). The head must be rendered
// completely. After it, and not before, may the first byte be sent. Length and
// Complete must have been told.
func (s *Slot) Answer(h Head, object, body uint64) {
	if h.Length <= 0 || h.Page == 0 || h.Offset+h.Length > h.Page.Len() {
		panic("queue: the head of an answer lies outside of its page")
	}
	e := s.now()
	e.object.Store(object)
	e.body.Store(body)
	killpoint(stepAnswerBegun)
	e.head.Store(h.pack())
	killpoint(stepAnswer)
}

// Finish says that the answer has been sent to its last byte, the stream now
// standing at tx. The next request begins where this one ended. Only then may
// pages be given back.
func (s *Slot) Finish(tx uint64) {
	cur := s.cur.Load() & 1
	e := &s.entries[cur]
	next := &s.entries[cur^1]
	next.clear(e.rx.Load()+e.request.Load(), tx)
	killpoint(stepFinishBegun)
	s.cur.Store(cur ^ 1) // and with the same store the note is 0
	killpoint(stepFinish)
}

// Detach says that no page is needed: everything received has been answered.
// The page may be given back after it.
func (s *Slot) Detach() {
	s.buffer.Store(0)
	killpoint(stepDetach)
}

// close says that the connection is about to be closed. Before close(2).
func (s *Slot) close() {
	s.cookie.Store(0)
	killpoint(stepClose)
}

// Cookie is the connection's, 0 if the slot is free.
func (s *Slot) Cookie() uint64 { return s.cookie.Load() }

// Peer is the user's word, for instance the cookie of the origin's connection
// that belongs to this session; SetPeer stores it. No step of the protocol
// touches it but Open.
func (s *Slot) Peer() uint64 { return s.peer.Load() }

// SetPeer stores the word that Peer returns.
func (s *Slot) SetPeer(v uint64) { s.peer.Store(v) }

// Note is the user's word for the request in progress, 0 when it begins;
// SetNote stores it. For what decides about poison: attempts.
func (s *Slot) Note() uint32 { return s.cur.Load() >> 1 }

// SetNote stores the word that Note returns, of 31 bits.
func (s *Slot) SetNote(v uint32) { s.cur.Store(s.cur.Load()&1 | v<<1) }

// SlotState is what a slot says, taken out of shared memory.
type SlotState struct {
	Cookie  uint64
	Kind    uint32
	Page    Page   // that bytes are received into; 0: none
	Base    uint64 // byte of the stream at its start, modulo 2^44
	Rx, Tx  uint64 // where the request and its answer begin
	Request uint64 // its length, 0: not known to be complete
	Head    Head   // Length 0: no answer is committed
	Object  uint64
	Body    uint64
}

// State reads the slot. By its owner, or after the owner has died.
func (s *Slot) State() SlotState {
	e := s.now()
	b := s.buffer.Load()
	return SlotState{
		Cookie: s.cookie.Load(), Kind: s.kind.Load(),
		Page: Page(b >> baseBits), Base: b & baseMask,
		Rx: e.rx.Load(), Tx: e.tx.Load(), Request: e.request.Load(),
		Head: unpackHead(e.head.Load()), Object: e.object.Load(), Body: e.body.Load(),
	}
}

// Behind is how far the stream's byte number n lies behind Base.
func (s SlotState) Behind(n uint64) uint64 { return (n - s.Base) & baseMask }
