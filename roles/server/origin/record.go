package origin

import (
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/http1"
)

// A record is what a successor must know of a connection that carries an exchange.
// Numbers of streams are counted from the beginning of the connection, as queue.Progress
// counts them.
type record struct {
	state    connState
	framing  http1.Framing
	flags    custody.Flags
	interims uint16
	attempt  uint32
	token    custody.Name // the handler's

	// The request: outLen bytes of page out, the first of them number outTx of our
	// stream; with them taken bytes of the body have been taken.
	out    buffer.Ref
	outLen uint32
	outTx  uint64
	taken  uint64

	// The response: the next byte to consume is number next of the origin's stream. It lies in
	// page in, whose first byte is number base; without a page, what was consumed since next has
	// been received into the sink.
	in     buffer.Ref
	base   uint64
	next   uint64
	at     int64 // bytes of the body that are consumed before next
	left   int64
	chunks http1.Chunked
}

const (
	flagUsed custody.Flags = 1 << iota
	flagBodyDone
	flagExpecting
	flagClose // the origin will close
)

// note commits where the connection stands, and gives back what it needed before.
func (c *Conn) note(step queue.Step) {
	c.dirty = false
	if c.x == nil {
		return
	}
	if c.entry.Kept() {
		r := record{
			state: c.state, framing: c.framing, attempt: c.x.Attempt, interims: uint16(c.interims), token: c.x.Token,
			out: c.out, outLen: uint32(c.outHi), outTx: c.outTx, taken: c.taken,
			in: c.in, base: c.base, next: c.rx, at: c.at, left: c.left, chunks: c.chunks,
		}
		if c.in != 0 {
			r.next = c.base + uint64(c.inLo)
		}
		if c.out == 0 {
			r.outLen = 0
		}
		r.flags.Set(flagUsed, c.used > 0)
		r.flags.Set(flagBodyDone, c.bodyDone)
		r.flags.Set(flagExpecting, c.expecting)
		r.flags.Set(flagClose, c.state == readingBody && c.resp.Close)
		c.entry.Commit(c.pool.book, custody.Exchange, &r, step)
	}
	c.release()
}

// spend gives a page back with the next note, which names it no more.
func (c *Conn) spend(r buffer.Ref) {
	switch {
	case r == 0:
	case !c.entry.Kept():
		c.pool.arena.Put(r)
	default:
		c.spent = append(c.spent, r)
	}
}

// release gives back what is spent: nothing names it.
func (c *Conn) release() {
	for _, r := range c.spent {
		c.pool.arena.Put(r)
	}
	c.spent = c.spent[:0]
}

// Pages tells which pages the record in a slot names. The slot's tag is
// custody.Exchange.
func Pages(b *custody.Book, slot *queue.Slot, page func(buffer.Ref)) {
	r := custody.Read[record](b, slot)
	page(r.in)
	page(r.out)
}

// Token is the handler's name for what the connection in a slot fetches, and its number of the
// attempt. The slot's tag is custody.Exchange.
func Token(b *custody.Book, slot *queue.Slot) (custody.Name, uint32) {
	r := custody.Read[record](b, slot)
	return r.token, r.attempt
}
