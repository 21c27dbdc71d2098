package session

import (
	"golang.org/x/sys/unix"

	"trafficd/roles/server/buffer"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/sock"
	"trafficd/roles/server/transaction"
)

// work is the part of a session that an idle one does not need.
type work struct {
	req http1.Request
	txn transaction.Transaction

	// The request's body.
	at       int // of the head, in the session's page
	framing  bodyFraming
	left     int64
	chunks   http1.Chunked
	data     int        // decoded bytes that come next, not yet taken
	taken    uint64     // decoded bytes taken
	dropped  uint64     // those of them that nobody wanted
	page     buffer.Ref // what came after the page that the head is in
	pageLo   int
	pageHi   int
	pageBase uint64 // number in the client's stream of the page's first byte
	failed   bool   // the body can never be completed
	expect   bool   // the client waits for 100 (Continue)
	refused  bool   // the request was not understood
	interims int    // of the origin's, passed on

	// The reply.
	reply    *transaction.Reply
	rendered bool // its head is
	close    bool
	cut      bool // what was sent ahead of the reply went out in part only
	out      buffer.Ref
	outLo    int
	outHi    int
	outTx    uint64 // number in our stream of the first byte of out
	// The body's run that goes with out: [from, end) of the reply's body, then CRLF. Of it
	// [off, end) and tail bytes of the CRLF are still to be sent.
	from       int64
	off        int64
	end        int64 // of the run when chunked; of the body otherwise; -1 unknown
	tail       int
	chunked    bool
	lastSent   bool // the last chunk is in out
	untilClose bool // the end of the connection ends the body
	iov        [sock.IOVMax]unix.Iovec

	up, down account // of the client's sending and taking
	untaken  int64   // bytes in the kernel for the client when that was last looked at; see holds

	tale   tale // for the access log
	logged bool
}

// bodyFraming says how the end of a request's body is known.
type bodyFraming uint8

const (
	noBody bodyFraming = iota
	lengthBody
	chunkedBody
	endedBody // it was, and its end has been consumed
)

func (w *work) reset() {
	w.at, w.framing, w.left, w.chunks, w.data, w.taken, w.dropped = 0, noBody, 0, http1.Chunked{}, 0, 0, 0
	w.page, w.pageLo, w.pageHi, w.pageBase = 0, 0, 0, 0
	w.failed, w.expect, w.refused, w.interims = false, false, false, 0
	w.reply, w.rendered, w.close, w.cut = nil, false, false, false
	w.out, w.outLo, w.outHi, w.outTx = 0, 0, 0, 0
	w.from, w.off, w.end, w.tail = 0, 0, 0, 0
	w.chunked, w.lastSent, w.untilClose = false, false, false
	w.up, w.down, w.untaken = account{}, account{}, 0
	w.logged = false // of the tale nothing is read before it is written
}

// bodyConsumed reports whether the request's body is behind us, so that the
// next bytes are the next request.
func (w *work) bodyConsumed() bool {
	return w.framing == noBody || w.framing == endedBody
}
