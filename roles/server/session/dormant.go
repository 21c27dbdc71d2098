package session

import (
	"math"
	"net/netip"
	"time"

	"trafficd/eventloop"
	"trafficd/queue"
	"trafficd/roles/server/custody"
)

// Most connections of a busy server are idle. Their sessions would be most of its memory, so a session that has
// been idle for longer than some hundred others is put to sleep: what is left of it is a dormant, and the session
// serves another connection. Whatever happens on the connection wakes it.
//
// Connections that are at work all the time are never put to sleep: the few that became idle last are left
// as they are.
//
// In custody a dormant is what an idle session is: a slot without a record.

// A dormant is a session that sleeps. Owned by the loop.
type dormant struct {
	watch      eventloop.Watch
	host       *Host
	prev, next *dormant // in Host.asleep, or of what is free
	slot       *queue.Slot
	until      int64 // when the time between two requests is over, monotonic ns
	rx, tx     uint64
	served     uint32
	port       uint16 // 0: peer is not known
	counted    bool
	among      bool
	peer       [16]byte
}

// dormants is those of a host, the oldest first, and the memory for more.
type dormants struct {
	head, tail *dormant
	n          int
	free       *dormant
	timer      eventloop.Timer // of the oldest
	set        bool            // timer is initialised

	// Who became idle last, in a ring: with how many requests served, by which it is seen whether the session is idle
	// since.
	last [awake]idler
	at   int
}

type idler struct {
	s      *Session
	served int
}

// awake is how many sessions that became idle last are not put to sleep.
const awake = 512

// slab is how many dormants are allocated at once: 8 KiB.
const slab = 73

// idled notes that s has become idle, and puts to sleep who did so some time ago and still is.
func (h *Host) idled(s *Session) {
	d := &h.asleep
	last := &d.last[d.at]
	d.at = (d.at + 1) % awake
	old := *last
	*last = idler{s, s.served}
	if old.s != nil && old.s.served == old.served {
		old.s.sleep()
	}
}

// sleep makes a dormant of an idle session, if nothing is going on there at all.
func (s *Session) sleep() {
	h := s.host
	until := s.limit.At()
	if until == 0 {
		until = math.MaxInt64
	}
	switch {
	case s.phase != phaseIdle, s.served == 0, s.running, s.turn, s.readable, s.hangup, s.eof, s.in != 0, s.waits != nil,
		s.looked, !s.watch.Active(), s.blamed.count() > 0, h.Draining:
		return
	case h.asleep.tail != nil && h.asleep.tail.until > until:
		return // the limit has been changed
	}
	d := h.takeDormant()
	d.slot, d.until, d.rx, d.tx, d.counted = s.entry.Slot, until, s.rx, s.tx, s.counted
	d.served, d.among = uint32(min(s.served, math.MaxUint32)), s.among
	if s.peer.IsValid() {
		d.peer, d.port = s.peer.Addr().As16(), s.peer.Port()
	}
	h.Loop.Pass(&s.watch, &d.watch, d)
	s.limit.Stop()
	h.sessions.remove(s)
	s.phase = phaseClosed // to whoever still has it: it is not this connection's any more
	h.putSession(s)
	h.asleep.push(d)
}

// wake makes a session of d again.
func (d *dormant) wake() *Session {
	h := d.host
	s := h.takeSession()
	s.fd, s.served = d.watch.FD(), int(d.served)
	s.rx, s.tx, s.counted, s.among = d.rx, d.tx, d.counted, d.among
	if d.port != 0 {
		s.peer = netip.AddrPortFrom(netip.AddrFrom16(d.peer).Unmap(), d.port)
	}
	s.entry = custody.Entry[record]{Slot: d.slot, FD: s.fd}
	if d.until != math.MaxInt64 {
		s.limit.Set(max(time.Duration(d.until-h.Loop.Now()), 1))
	}
	h.Loop.Pass(&d.watch, &s.watch, s)
	h.asleep.remove(d)
	h.putDormant(d)
	h.sessions.push(s)
	return s
}

// HandleEvent implements eventloop.Handler.
func (d *dormant) HandleEvent(_ *eventloop.Watch, ev eventloop.Event) {
	if ev&(eventloop.Readable|eventloop.Hangup) == 0 {
		return // it can be written to: nobody wants to
	}
	s := d.wake()
	s.HandleEvent(&s.watch, ev)
}

// addDormant makes the dormant of a connection that comes out of custody.
func (h *Host) addDormant(fd int, slot *queue.Slot) error {
	d := h.takeDormant()
	d.slot, d.until, d.served = slot, math.MaxInt64, 1
	if h.Limits.Idle > 0 {
		d.until = h.Loop.Now() + int64(h.Limits.Idle)
	}
	if last := h.asleep.tail; last != nil {
		d.until = max(d.until, last.until)
	}
	if err := h.Loop.Watch(&d.watch, fd, watched, d); err != nil {
		h.putDormant(d)
		return err
	}
	h.asleep.push(d)
	return nil
}

func (h *Host) takeDormant() *dormant {
	a := &h.asleep
	if !a.set {
		a.set = true
		a.timer.Init(h.Loop, eventloop.TimerFunc(func(*eventloop.Timer) { h.wakeExpired() }))
	}
	if a.free == nil {
		more := make([]dormant, slab)
		for i := range more {
			more[i].next, a.free = a.free, &more[i]
		}
	}
	d := a.free
	a.free = d.next
	*d = dormant{host: h}
	return d
}

func (h *Host) putDormant(d *dormant) {
	*d = dormant{next: h.asleep.free}
	h.asleep.free = d
}

// lookAfter is how often it is looked for those whose time is over.
const lookAfter = time.Second

// wakeExpired ends the sessions whose time between two requests is over.
func (h *Host) wakeExpired() {
	a := &h.asleep
	now := h.Loop.Now()
	for n := 0; a.head != nil && a.head.until <= now && n < expireTurn; n++ {
		a.head.wake().expired()
	}
	if a.head != nil {
		a.timer.Reset(max(min(lookAfter, time.Duration(a.head.until-now)), 0))
	}
}

// expireTurn bounds how many are ended in one turn.
const expireTurn = 64

// wakeOldest wakes up to n of those that sleep, and returns them.
func (h *Host) wakeOldest(n int) (woken []*Session) {
	for h.asleep.head != nil && len(woken) < n {
		woken = append(woken, h.asleep.head.wake())
	}
	return woken
}

func (a *dormants) push(d *dormant) {
	d.prev, d.next = a.tail, nil
	if a.tail != nil {
		a.tail.next = d
	} else {
		a.head = d
		a.timer.Reset(max(min(lookAfter, time.Duration(d.until-d.host.Loop.Now())), 0))
	}
	a.tail = d
	a.n++
}

func (a *dormants) remove(d *dormant) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		a.head = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		a.tail = d.prev
	}
	a.n--
}
