// Package buffer is the arena that the bytes in flight live in: the request as
// it was received, the response head as it will be sent, bodies on their way.
//
// The idea: nothing that is in flight lies on Go's heap. An arena is one
// mapping cut into pages of two sizes, and a page is named by a number (Ref),
// never by a pointer, so the mapping may be shared memory that another process
// maps elsewhere. Pages are taken and given back in last-in first-out order:
// the warmest page is used next, and an idle connection holds none.
//
// Invariants: an Arena belongs to one event loop, and only that loop calls it;
// a Ref is given back exactly once; the zero Ref names no page. Pages beyond
// the highest one ever used are never touched, so an arena costs address space
// until it is needed.
//
// It is not an allocator for general use: there is no size beyond Large, and a
// full arena is an ordinary answer (the connection is refused or waits), never
// a reason to grow.
package buffer
