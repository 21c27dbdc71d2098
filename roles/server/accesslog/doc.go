// Package accesslog is the log of requests: a line for each transaction, and no
// line lost or doubled by the death of the server.
//
//	 loop 0 ──Add──▶ ring 0 ─┐
//	 loop 1 ──Add──▶ ring 1 ─┼──writer──▶ batch ──write(2)──▶ file
//	                  …      ┘
//	└──────── shared memory that outlives the server ────────┘
//
// # A line and the end of its transaction
//
// The two are one decision, though they are two stores. A loop publishes the
// line first, by moving the head of its ring, and says in the journal right
// after it that the transaction is over. Between the two it does nothing else, so if
// it dies there, the line is the last one of its ring. A successor reads whose that is
// (Log.Logged), and the transaction that it finds unfinished in the journal is marked as
// logged before anything new is. A line that was not published does not exist: its transaction goes on, and
// logs again.
//
// # A batch and the file
//
// The writer copies lines into the batch, and with one commit notes the batch,
// what has been taken off each ring, and how long the file was. Then it appends. A
// successor that finds the batch compares what lies in the file from there on with the batch, and
// appends what is missing. Appending (O_APPEND), instead of writing at the offset that was noted,
// lets another server that is about to end write to the same file, and copytruncate shorten it.
// A file that was renamed meanwhile is found by its inode in its directory.
//
// A ring that is full, because the disk stands still, drops lines and counts
// them: a loop never waits. When the disk is full, lines stay where they are while there is
// room, and the writer tries again.
//
// # Rotation
//
// Rename the file, then have it reopened (USR1 to cop, or trafficd ctl log reopen): everything up to some
// line is in the old file, everything after in the new one. If the new one cannot be
// opened the old one stays in use, and that is said.
//
// # Order
//
// Lines of one loop are in the order in which their transactions ended; between loops to within
// one batch, a twentieth of a second.
//
// What it is not: it does not sync the file, so a machine that loses its power
// loses lines; it does not rotate; and it is not trafficd's own log (package logging).
package accesslog
