package parent

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// A Door bounds the connections to one address over all loops, idle ones included. Who finds it closed waits in line,
// which is bounded, too. A connection that ends lets in the first who waits; one that is left idle on
// a loop is offered to who waits there, and given up for who waits elsewhere. Safe for any goroutine.
type Door struct {
	dir *Directory

	used    atomic.Int64 // last number of open connections, for reports
	waiting atomic.Int64 // how many wait

	mu      sync.Mutex // guards what follows
	open    int        // connections
	line    list.List  // of *Waiter
	keepers []keeper   // who holds idle connections
}

type keeper struct {
	who   Keeper
	idle  int
	asked int // to spare so many, and has not said whether it did
}

// A Keeper holds idle connections, for one loop.
type Keeper interface {
	// Spare asks to close one idle connection to the door, if there still is one; Spared must follow. Called from any goroutine.
	Spare(d *Door)
}

// A Waiter is who waits at a door. It belongs to one loop and is used again only when Let or Stay has said that it
// does not wait.
type Waiter struct {
	// Keeper is who could use a connection of its own that becomes idle; nil: only a new one will do.
	Keeper Keeper
	// Admit is called from any goroutine, once for each Enter that said Wait, unless Leave took it back.
	Admit func()
	// Owner is the waiter's own affair.
	Owner any

	at *list.Element // guarded by Door.mu; nil: does not wait
}

// Entry is what Enter decided.
type Entry uint8

// The entries.
const (
	Enter Entry = iota // there is room: it is taken
	Wait               // there is none: Admit will be called
	Full               // too many wait already
)

// Enter takes room for one more connection, or lets w wait for it; a nil w does not wait.
func (d *Door) Enter(w *Waiter) Entry {
	set := d.dir.settings.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case set.MaxConnections == 0 || d.open < set.MaxConnections && d.line.Len() == 0:
		d.open++
		d.used.Store(int64(d.open))
		return Enter
	case w == nil || d.line.Len() >= set.MaxWaiting:
		return Full
	}
	w.at = d.line.PushBack(w)
	d.waiting.Store(int64(d.line.Len()))
	d.askLocked()
	return Wait
}

// askLocked asks one who holds an idle connection that nobody was asked for to spare it.
func (d *Door) askLocked() {
	for i := range d.keepers {
		if k := &d.keepers[i]; k.idle > k.asked {
			k.asked++
			k.who.Spare(d)
			return
		}
	}
}

// Spared says that k has done what it was asked for; found: there was one to close. If not, another is asked.
func (d *Door) Spared(k Keeper, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.keepers {
		if d.keepers[i].who == k {
			d.keepers[i].asked--
		}
	}
	if !found && d.line.Len() > 0 {
		d.askLocked()
	}
}

// Leave gives up the room of one connection: it is closed.
func (d *Door) Leave() {
	d.mu.Lock()
	d.open--
	w := d.nextLocked()
	d.mu.Unlock()
	if w != nil {
		w.Admit()
	}
}

// widen lets in who waits when the limit is another one.
func (d *Door) widen() {
	for {
		d.mu.Lock()
		w := d.nextLocked()
		d.mu.Unlock()
		if w == nil {
			return
		}
		w.Admit()
	}
}

// nextLocked lets in the first who waits, if there is room.
func (d *Door) nextLocked() *Waiter {
	limit := d.dir.settings.Load().MaxConnections
	var w *Waiter
	if front := d.line.Front(); front != nil && (limit == 0 || d.open < limit) {
		w = d.takeLocked(front)
		d.open++
	}
	d.used.Store(int64(d.open))
	return w
}

func (d *Door) takeLocked(at *list.Element) *Waiter {
	w := d.line.Remove(at).(*Waiter)
	w.at = nil
	d.waiting.Store(int64(d.line.Len()))
	return w
}

// Forget takes w out of the line. False: it does not wait; it has been let in, and Admit was or will be called.
func (d *Door) Forget(w *Waiter) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.at == nil {
		return false
	}
	d.takeLocked(w.at)
	return true
}

// Limited reports whether there is a limit. Without one nobody waits, and Idle need not be asked.
func (d *Door) Limited() bool { return d.dir.settings.Load().MaxConnections != 0 }

// Idle is asked when a connection of k becomes idle. next: whoever waits first is k's own and takes the connection as
// it is. stay: it may be kept, and Used must follow. Neither: it is to be closed for who waits elsewhere.
func (d *Door) Idle(k Keeper) (next *Waiter, stay bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if front := d.line.Front(); front != nil {
		if front.Value.(*Waiter).Keeper == k {
			return d.takeLocked(front), false
		}
		return nil, false
	}
	for i := range d.keepers {
		if d.keepers[i].who == k {
			d.keepers[i].idle++
			return nil, true
		}
	}
	d.keepers = append(d.keepers, keeper{who: k, idle: 1})
	return nil, true
}

// Used says that an idle connection of k is idle no more.
func (d *Door) Used(k Keeper) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.keepers {
		if d.keepers[i].who == k {
			d.keepers[i].idle--
		}
	}
}
