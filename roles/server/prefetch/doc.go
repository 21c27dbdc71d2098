// Package prefetch has the processor fetch memory that is going to be used, without waiting for it.
//
// What a miss touches is cold: the sets of the indexes, and the memory that the response will lie in, were used last some
// hundred thousand responses ago, or never. Each is a wait for main memory of its own where it is touched, and
// the records are written with atomic operations, each of which waits for all that was written before. Asked for in time
// they come together, beside other work.
//
// It is a hint. It touches nothing, faults on no address, and changes nothing but the time that what follows takes; on processors
// that it is not written for it does nothing.
package prefetch

// line is what the processor fetches at a time, in bytes; some fetch two.
const line = 64
