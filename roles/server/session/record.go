package session

import (
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
)

// A record is what a successor must know of a session on which something is in
// progress. Numbers of streams are counted from the beginning of the connection, as
// queue.Progress counts them.
type record struct {
	state    recordState
	framing  bodyFraming
	source   bodySource
	flags    custody.Flags
	status   uint16 // of the reply
	interims uint16
	blamed   blame

	// The request. Its head begins at byte at of page in, whose first byte is number
	// base of the client's stream; in holds inHi bytes once its body is received into page.
	in   buffer.Ref
	at   uint32
	inHi uint32
	base uint64

	// Its body: the next byte that was not taken is number next; the next data bytes
	// from there are decoded; taken is how many decoded bytes were taken before.
	page     buffer.Ref
	data     uint32
	pageBase uint64
	next     uint64
	left     int64
	taken    uint64
	dropped  uint64 // of them, those that nobody wanted
	chunks   http1.Chunked

	// What is being sent: outLen bytes of page out, the first of them number outTx of
	// our stream, then [from, end) of the reply's body, then the tail of a chunk.
	out    buffer.Ref
	outLen uint32
	outTx  uint64
	from   int64
	end    int64
	object cache.ID     // where the body is
	fetch  custody.Name // where else it may be

	tale tale
}

// recordState is what is in progress.
type recordState uint8

const (
	recordHead      recordState = iota + 1 // a request head is being received
	recordAnswering                        // it is whole; no reply is known
	recordReplying                         // the reply's head is known
	recordLingering                        // the last reply is sent
)

// bodySource says where the body of a reply comes from.
type bodySource uint8

const (
	noSource bodySource = iota
	storedSource
	fetchSource
)

const (
	flagClose custody.Flags = 1 << iota
	flagChunked
	flagTail
	flagLastSent
	flagUntilClose
	flagExpect
	flagFailed
	flagRefused // the request was not understood
	flagLogged  // its line is in the access log
)

// note commits where the session stands.
func (s *Session) note(step queue.Step) {
	if !s.entry.Kept() {
		return
	}
	r := record{in: s.in, base: s.base, at: uint32(s.lo), inHi: uint32(s.hi), blamed: s.blamed}
	switch {
	case s.phase == phaseLingering:
		r = record{state: recordLingering}
	case s.work == nil || s.phase == phaseIdle || s.phase == phaseHead:
		r.state = recordHead
	default:
		s.work.describe(s, &r)
		s.describeTale(&r)
	}
	s.entry.Commit(s.host.Book, custody.Session, &r, step)
}

// describe writes down a request in progress.
func (w *work) describe(s *Session, r *record) {
	r.state = recordAnswering
	r.at, r.interims = uint32(w.at), uint16(w.interims)
	r.framing, r.left, r.chunks = w.framing, w.left, w.chunks
	r.data, r.taken, r.dropped = uint32(w.data), w.taken, w.dropped
	r.page, r.pageBase = w.page, w.pageBase
	r.next = s.base + uint64(s.lo)
	if s.lo == s.hi && w.page != 0 {
		r.next = w.pageBase + uint64(w.pageLo)
	}
	r.out, r.outTx, r.outLen = w.out, w.outTx, uint32(w.outHi)
	r.flags.Set(flagClose, w.close)
	r.flags.Set(flagExpect, w.expect)
	r.flags.Set(flagFailed, w.failed)
	r.flags.Set(flagRefused, w.refused)
	if !w.rendered {
		return
	}
	r.state = recordReplying
	r.status = uint16(w.reply.Status)
	r.from, r.end = w.from, w.end
	r.flags.Set(flagChunked, w.chunked)
	r.flags.Set(flagTail, w.chunked && w.from < w.end)
	r.flags.Set(flagLastSent, w.lastSent)
	r.flags.Set(flagUntilClose, w.untilClose)
	if w.reply.Body == nil {
		return
	}
	if r.object = w.txn.Object(); r.object != 0 {
		r.source = storedSource
		return
	}
	r.source, r.fetch = fetchSource, w.txn.Fetch()
}

// Pages tells which pages the record in a slot names, and which
// fetch, for the successor's arena. The slot's tag is custody.Session.
func Pages(b *custody.Book, slot *queue.Slot, page func(buffer.Ref), fetch func(custody.Name)) {
	r := custody.Read[record](b, slot)
	page(r.in)
	page(r.page)
	page(r.out)
	if r.source == fetchSource {
		fetch(r.fetch)
	}
}
