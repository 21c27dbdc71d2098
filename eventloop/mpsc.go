package eventloop

import (
	"sync"
	"sync/atomic"
)

// A Task is what [Loop.PostTask] runs. A pointer type that lives anyway costs nothing to
// post; a closure is an allocation.
type Task interface {
	// RunTask runs on the loop and must not block.
	RunTask()
}

// taskFunc makes a function a Task. A func is one pointer, so the conversion is free.
type taskFunc func()

func (f taskFunc) RunTask() { f() }

// A node is a task in a queue. It is owned by the poster until push has stored it in the head, and by
// the loop from the swap in take.
type node struct {
	next *node
	task Task
}

// nodes recycles them. Reuse is safe here although it makes for the classic ABA: push is
// right with any head that is the present one, and take takes everything.
var nodes = sync.Pool{New: func() any { return new(node) }}

// A mailbox is the inbound queue of a loop: many posters, one taker, no lock.
//
// head points to the newest node and each node to the one before it. A poster pushes
// with one compare-and-swap; the loop takes the whole list with another, and turns it
// round. So every poster's order is kept, tasks posted by a task wait for
// the next turn, and only the poster that finds the mailbox empty has to think
// of waking the loop.
//
// Closing is one more push, of a node that nobody can push upon and that take leaves in place:
// what was accepted is exactly what lies below it.
type mailbox struct {
	head    atomic.Pointer[node]
	closing sync.Mutex // guards last.next until last is the head; then the loop owns it
	last    node       // the closing node
}

// push adds t. It reports whether it was accepted, and whether the mailbox was empty.
func (m *mailbox) push(t Task) (accepted, first bool) {
	n := nodes.Get().(*node)
	n.task = t
	for {
		head := m.head.Load()
		if head == &m.last {
			n.task = nil
			nodes.Put(n)
			return false, false
		}
		n.next = head
		if m.head.CompareAndSwap(head, n) {
			return true, head == nil
		}
	}
}

// close ends the mailbox and reports whether this call did. What lies in it stays there for take.
func (m *mailbox) close() bool {
	m.closing.Lock()
	defer m.closing.Unlock()
	for {
		head := m.head.Load()
		if head == &m.last {
			return false
		}
		m.last.next = head
		if m.head.CompareAndSwap(head, &m.last) {
			return true
		}
	}
}

// take empties the mailbox, oldest node first, and reports whether it is closed: if so
// this was the last that will ever come. Loop only.
func (m *mailbox) take() (oldest *node, closed bool) {
	for {
		head := m.head.Load()
		if head == nil {
			return nil, false
		}
		if head == &m.last {
			newest := m.last.next
			m.last.next = nil
			return reversed(newest), true
		}
		if m.head.CompareAndSwap(head, nil) {
			return reversed(head), false
		}
	}
}

// pending reports whether take would bring anything or the mailbox is closed. Any goroutine.
func (m *mailbox) pending() bool { return m.head.Load() != nil }

// reversed turns a list round: nodes point to the one pushed before them.
func reversed(newest *node) (oldest *node) {
	for n := newest; n != nil; {
		n.next, oldest, n = oldest, n, n.next
	}
	return oldest
}

// spend gives a node back and returns its task and its successor.
func (n *node) spend() (Task, *node) {
	task, next := n.task, n.next
	n.task, n.next = nil, nil
	nodes.Put(n)
	return task, next
}
