// Package heritage is the named set of descriptors that outlives processes:
// what a parent passes to the processes it starts, and what they can give back
// to a parent that was started anew.
//
//	listener:ADDR        a listening socket, bound once, never closed
//	stats, cache         shared memory
//	queue.in, queue.out  the two ends of the manager's connection FIFO
//
// # Ways
//
// The manager makes what is missing and deposits a copy with cop (Marshal,
// sent over the link; Unmarshal). cop passes it to each new manager, and the
// manager to each new server and to a new cop, by exec: Export on the parent's
// side, FromEnv on the child's. A server whose parents are gone hands it back
// over its link. An init system that holds the sockets passes them by its own
// protocol (FromSystemd), and Merge puts the two together.
//
// # Invariants
//
// A Set owns its descriptors; Get borrows, GetDup copies, Take moves out. All
// of them have close-on-exec set, so that nothing is inherited but by Export.
// Descriptors from outside are checked before they are believed, and what
// fails is left alone rather than closed. O_NONBLOCK is a property of the open
// file and so of all copies in all processes: nobody clears it.
//
// # What it is not
//
// It does not make any of these descriptors and does not know what is in them.
package heritage
