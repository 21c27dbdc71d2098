package tunnel

import (
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
)

// A record is what a successor must know of a tunnel. Numbers of streams are counted
// from the beginning of each connection, as queue.Progress counts them.
type record struct {
	origin                 uint64 // cookie of the other connection
	toClient               flight
	toOrigin               flight
	keep                   buffer.Ref
	shutClient, shutOrigin bool // the end of the direction is passed on, or is about to be
}

// A flight is what lies in the page of one direction: its first byte is number base
// of the stream it comes from, and number first of the stream it goes to. Without a page nothing is in
// flight.
type flight struct {
	page  buffer.Ref
	base  uint64
	first uint64
}

// note commits where the tunnel stands.
func (t *Tunnel) note(step queue.Step) {
	if !t.entry.Kept() {
		return
	}
	r := record{origin: t.origin.slot.Cookie(), toClient: t.client.flight(), toOrigin: t.origin.flight(),
		keep: t.o.Keep, shutClient: t.client.shut, shutOrigin: t.origin.shut}
	t.entry.Commit(t.o.Book, custody.Tunnel, &r, step)
}

func (s *side) flight() flight { return flight{s.page, s.base, s.first} }

// leaveCustody gives both slots back. What the tunnel's pages hold dies with this process.
func (t *Tunnel) leaveCustody() {
	t.entry.Close(t.o.Book)
	if t.origin.slot != nil {
		t.o.Book.Ledger.Close(t.origin.slot)
		t.origin.slot = nil
	}
}

// Pages tells which pages the record in a slot names. The slot's tag is
// custody.Tunnel.
func Pages(b *custody.Book, slot *queue.Slot, page func(buffer.Ref)) {
	r := custody.Read[record](b, slot)
	page(r.toClient.page)
	page(r.toOrigin.page)
	page(r.keep)
}

// Kept is the page that the tunnel keeps for its owner; 0: none. The slot's tag is custody.Tunnel.
func Kept(b *custody.Book, slot *queue.Slot) buffer.Ref {
	r := custody.Read[record](b, slot)
	return r.keep
}

// Origin is the cookie of the tunnel's other connection. The slot's tag is custody.Tunnel.
func Origin(b *custody.Book, slot *queue.Slot) uint64 {
	r := custody.Read[record](b, slot)
	return r.origin
}

// Shut tells which of the two connections has been told that nothing more comes. The slot's tag is
// custody.Tunnel.
func Shut(b *custody.Book, slot *queue.Slot) (client, origin bool) {
	r := custody.Read[record](b, slot)
	return r.shutClient, r.shutOrigin
}

// Resume makes the tunnel of a dead server, whose connections are now client and origin, with what
// the kernel says of them. False: the two do not fit the record. Start begins to move bytes.
func Resume(o Options, client, origin End) (*Tunnel, bool) {
	t := newTunnel(o, client, origin)
	entry, r := custody.Resume[record](o.Book, client.FD, client.Slot)
	t.entry, t.o.Keep = entry, r.keep
	toClient, toOrigin := t.client.resume(&t.origin, r.toClient), t.origin.resume(&t.client, r.toOrigin)
	if toClient && toOrigin {
		t.origin.slot.Set(0) // its server may have died before it came to that
		return t, true
	}
	t.o.Closed = func(Summary) {}
	t.close(false)
	return nil, false
}

func (s *side) resume(from *side, f flight) bool {
	s.page, s.base, s.first = f.page, f.base, f.first
	if f.page == 0 {
		return true
	}
	hi, lo := from.rx-f.base, s.tx-f.first
	s.lo, s.hi = int(lo), int(hi)
	return lo <= hi && hi <= uint64(len(s.t.o.Arena.Bytes(f.page)))
}
