// Package stats is the counters of an instance: one declared table, in memory that outlives every process.
//
// The memory is a memfd that the manager makes once (Create) and that is part of the heritage: cop keeps it, each new
// manager and server maps the same one (Attach). A death of any process resets nothing, and whoever holds the
// descriptor can read everything at any time without asking anybody.
//
// # Layout
//
// All words are 64 bits, native byte order, and accessed atomically. Offsets in bytes:
//
//	0       header     4096  magic, layout version, layout hash, size, creation time; written once
//	4096    roles      3 × 256   cop, manager, server: see Role
//	8192    banks      4 × 64    what the server in the bank is: see Bank
//	12288   supervisor rows  2 × RowSize   the manager's and cop's own counters
//	16384   banks' memory, each: 64 progress cells of 384 bytes, then 64 rows of RowSize bytes
//
// The hash covers the table and the sizes. A mapping with another magic, version, hash or size is refused
// (ErrUnreadable), and the manager makes a new one: better to count from nothing than to guess.
//
// # Ownership
//
// A row and a cell have a single writer, one loop of one server. Two servers live side by side during every
// replacement, one draining while the other serves, and a third may wait as a standby; so loops are grouped in banks, and
// the server of generation g writes bank g mod 4 only, and the manager leaves out generations whose bank is that of a
// living one. Counters in a bank are never set back, and the next server to use it counts on. Gauges belong to the living:
// when the manager has seen a server dead it calls ZeroGauges for its bank, and only then the sums are right again.
//
// Adding is a locked instruction on a line no other core writes: about 5 ns, no contention.
//
//	st, err := stats.Attach(heritage.File("stats"))
//	row := st.Bank(generation).Row(i)
//	row.Inc(stats.Requests)
//
// What it is not: there are no histograms and no labels made at run time; what belongs to a single request goes to the
// access log.
package stats
