package eventloop

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// An Event is a set of conditions of a descriptor: of interest in [Loop.Watch] and
// [Loop.Modify], observed in [Handler.HandleEvent]. See epoll_ctl(2).
type Event uint32

const (
	// Readable: a read would not block (EPOLLIN).
	Readable Event = 1 << iota
	// Writable: a write would not block (EPOLLOUT).
	Writable
	// Hangup: the peer shut down its sending side (EPOLLRDHUP), both sides are shut
	// (EPOLLHUP), or the descriptor has an error (EPOLLERR). The first is reported
	// where it was asked for; the others always, as the kernel does.
	Hangup
	// Edge, as interest: report a condition when it comes about, not as long as it
	// lasts (EPOLLET). The handler must then go on until EAGAIN or a short count.
	Edge
	// Exclusive, as interest in a descriptor watched by several loops: wake one or more
	// of them and not all (EPOLLEXCLUSIVE). The kernel refuses Modify of such a watch
	// and has no EPOLLRDHUP for it.
	Exclusive
	// Broken is observed only, always together with Hangup: it was EPOLLHUP or EPOLLERR, so
	// no direction is left. Hangup without Broken is a half-close, whose sender may
	// still be reading.
	Broken
)

// A Handler is the continuation of a watch. It runs on the loop and must not block.
//
// With a level-triggered watch (no [Edge]) a handler that leaves a condition as it is
// will be called again on the next turn; that includes a Hangup it did not ask for.
type Handler interface {
	HandleEvent(w *Watch, ev Event)
}

// A Watch ties a descriptor to its handler. The zero value is ready for [Loop.Watch];
// embed it by value in what it serves, so that it costs no allocation of its own. It
// must not be copied or moved while it is active. All fields are owned by the loop.
type Watch struct {
	loop    *Loop // nil: not active
	handler Handler
	number  int32 // descriptor + 1, so that the zero value has none
	want    Event // what may be delivered
}

// FD returns the descriptor last given to [Loop.Watch], also after Remove; -1 if there
// never was one.
func (w *Watch) FD() int { return int(w.number) - 1 }

// Active reports whether the watch can still be called.
func (w *Watch) Active() bool { return w.loop != nil }

var (
	// ErrActive is returned by [Loop.Watch] for a watch that is in use.
	ErrActive = errors.New("watch is already active")
	// ErrNotActive is returned by [Loop.Modify] for a watch that is not one of this loop.
	ErrNotActive = errors.New("watch is not active on this loop")
)

// A place is the table's entry for one descriptor number.
type place struct {
	watch      *Watch // nil: nobody
	generation uint32 // how often this number was watched; never reset
}

// Watch begins to report ev of fd to h. The descriptor must be non-blocking and stays
// the caller's. Loop only.
func (l *Loop) Watch(w *Watch, fd int, ev Event, h Handler) error {
	l.checkOwner("Watch")
	if w.loop != nil {
		return fmt.Errorf("watch fd %d: %w", fd, ErrActive)
	}
	if fd < 0 {
		return fmt.Errorf("watch fd %d: %w", fd, unix.EBADF)
	}
	if l.ended {
		return fmt.Errorf("watch fd %d: %w", fd, ErrClosed)
	}
	p := l.placeOf(fd)
	if err := l.epoll.control(unix.EPOLL_CTL_ADD, fd, interest(ev), p.generation+1); err != nil {
		return fmt.Errorf("watch fd %d: add to epoll: %w", fd, err)
	}
	if p.watch == nil {
		l.watches++
	} else {
		// The kernel would have answered EEXIST if the old descriptor were still open: its
		// owner closed it without Remove or Forget. Its watch ends here.
		p.watch.loop = nil
	}
	p.generation++
	p.watch = w
	w.loop, w.handler, w.number, w.want = l, h, int32(fd)+1, deliverable(ev)
	return nil
}

// Modify changes what is reported, at once: conditions no longer wanted are also masked
// out of an event of the same batch. With [Edge] it makes the kernel look again, so a
// condition that holds now is reported once more. Loop only.
func (l *Loop) Modify(w *Watch, ev Event) error {
	l.checkOwner("Modify")
	if w.loop != l {
		return fmt.Errorf("modify watch of fd %d: %w", w.FD(), ErrNotActive)
	}
	fd := w.FD()
	if err := l.epoll.control(unix.EPOLL_CTL_MOD, fd, interest(ev), l.places[fd].generation); err != nil {
		return fmt.Errorf("modify watch of fd %d: %w", fd, err)
	}
	w.want = deliverable(ev)
	return nil
}

// Remove ends the watch: its handler is not called again, not for an event of the same
// batch, nor after the descriptor number was reused. The caller closes the descriptor,
// afterwards. A watch that is not active is left alone.
//
// An error means that the kernel did not know the descriptor (it was closed before); the
// watch has ended all the same. Loop only.
func (l *Loop) Remove(w *Watch) error {
	l.checkOwner("Remove")
	if w.loop != l {
		return nil
	}
	fd := w.FD()
	l.release(w)
	if l.ended {
		return nil
	}
	if err := l.epoll.control(unix.EPOLL_CTL_DEL, fd, 0, 0); err != nil {
		return fmt.Errorf("remove watch of fd %d: %w", fd, err)
	}
	return nil
}

// Pass makes to the watch of from's descriptor, with the handler h and the same interest: without a system call, and
// without an event being missed. from is not active afterwards; to must not be before. Loop only.
func (l *Loop) Pass(from, to *Watch, h Handler) {
	l.checkOwner("Pass")
	if from.loop != l || to.loop != nil {
		panic("eventloop: Pass from a watch that is not active on this loop, or to one that is")
	}
	*to = Watch{loop: l, handler: h, number: from.number, want: from.want}
	l.places[to.FD()].watch = to
	from.loop, from.handler = nil, nil
}

// Forget is Remove without the system call, for a descriptor that the caller is about to
// close and that has no duplicate, here or in another process: the kernel forgets a
// registration with the last descriptor of its open file, not with this one
// (epoll(7), "Will closing a file descriptor cause it to be removed"). Where a
// duplicate lives on, events keep arriving, are dropped and counted in [Cell.Stale]. Loop only.
func (l *Loop) Forget(w *Watch) {
	l.checkOwner("Forget")
	if w.loop == l {
		l.release(w)
	}
}

// release takes w out of the table. The generation stays, so that events that are
// already fetched, or of a descriptor that reuses the number, do not match.
func (l *Loop) release(w *Watch) {
	l.places[w.FD()].watch = nil
	l.watches--
	w.loop, w.handler = nil, nil
}

// placeOf returns the entry of fd, growing the table. Descriptor numbers are the lowest
// free ones (POSIX), so the table is as dense as the process's own.
func (l *Loop) placeOf(fd int) *place {
	if fd >= len(l.places) {
		grown := make([]place, max(2*len(l.places), fd+1, 64))
		copy(grown, l.places)
		l.places = grown
	}
	return &l.places[fd]
}

// dispatch runs the handlers of the n events fetched last.
//
// A handler can remove any watch, close any descriptor, and watch a new one that got the
// same number. So each event is looked up at its turn, by number and generation.
func (l *Loop) dispatch(n int) {
	l.fetched = n
	for i := range l.epoll.events[:n] {
		l.turn = i + 1
		e := &l.epoll.events[i]
		if e.Fd == wakeFD {
			continue // posts are run on every turn anyway
		}
		p := &l.places[e.Fd]
		w := p.watch
		if w == nil || p.generation != uint32(e.Pad) {
			l.stale++
			continue
		}
		ev := observed(e.Events) & w.want
		if ev == 0 {
			continue
		}
		l.events++
		w.handler.HandleEvent(w, ev)
		l.ran()
	}
}

// Pending reports whether the handler of w may be about to be called: an event of its descriptor is in the batch that is
// being worked off, or more was ready than a batch holds. It asks the kernel nothing, so what came about
// since the batch was fetched is not known. Loop only.
func (l *Loop) Pending(w *Watch) bool {
	l.checkOwner("Pending")
	if w.loop != l {
		return false
	}
	if l.fetched == len(l.epoll.events) {
		return true
	}
	fd := int32(w.FD())
	for i := l.turn; i < l.fetched; i++ {
		if l.epoll.events[i].Fd == fd {
			return true
		}
	}
	return false
}

// interest translates to the kernel's bits for epoll_ctl(2).
func interest(ev Event) uint32 {
	var bits uint32
	if ev&Readable != 0 {
		bits |= unix.EPOLLIN
	}
	if ev&Writable != 0 {
		bits |= unix.EPOLLOUT
	}
	if ev&Hangup != 0 && ev&Exclusive == 0 {
		bits |= unix.EPOLLRDHUP
	}
	if ev&Edge != 0 {
		bits |= unix.EPOLLET
	}
	if ev&Exclusive != 0 {
		bits |= unix.EPOLLEXCLUSIVE
	}
	return bits
}

// deliverable returns what may reach a handler that asked for ev.
func deliverable(ev Event) Event { return ev&(Readable|Writable) | Hangup | Broken }

// observed translates from the kernel's bits.
func observed(bits uint32) Event {
	ev := Event(bits&unix.EPOLLIN) | Event(bits&unix.EPOLLOUT)>>1
	if bits&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		ev |= Hangup
		if bits&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			ev |= Broken
		}
	}
	return ev
}
