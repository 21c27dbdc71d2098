// Package disk is the persistent tier of the cache: what the store in memory (package cache) has
// published is written behind it into one file, and what is no longer in memory, or was in the memory of
// processes that are all dead, is read back from there. Sessions never read from here: a
// response is verified and put into memory first.
//
// # Files
//
//	lock    held by the one server that has the directory open
//	store   | header page | segment 0 | segment 1 | …      preallocated; read and written at offsets, never mapped
//	index   | header page | a row a segment | sets of 16 ways |      mapped, shared
//
// The store is a log in a ring of segments with one cursor. Nothing is changed in place; what the cursor comes to is
// evicted by being overwritten. A segment is a header, records, and at its end a summary of them:
//
//	| header 64 B | record | record | … | summary | trailer 64 B |
//
// A record is a header (kind, key, lengths, the sequence number of its segment, its own place, CRC32C), the metadata, vary
// block, URI and head of a response, the CRC32C of each 64 KiB of body, and the body. A body too large
// for that lies in records of its own, chunks, written before the record that lists them. A tombstone is a record
// that says that nothing older under its key counts.
//
// The index takes 16 bytes an object: a tag of 32 bits, a place (segment:24 | offset/64:18 | sequence number:22), and 32
// bits of length and vary hash, so that one read fetches a record and nothing needs reading to replace one alternate and not
// another. An entry is good as long as its sequence number is its segment's.
//
// # Invariants
//
//   - Nothing in the index or in a summary is believed. A record proves itself: magic, store, sequence number, place, key and
//     checksums, of all that is served. What does not fit is an error counted and a miss.
//   - A segment gets its new sequence number in the index before its first byte is overwritten, so its old entries are dead
//     by then. Numbers grow with each segment opened, so they order all records there are, and none is used twice.
//   - An entry is made after its record has been written as a whole, and only while memory still has that very response.
//   - What is replaced in memory loses its entry at once, before its successor is queued to be written. What is removed
//     loses it at once, too, and a tombstone follows into the log. So no order of deaths brings back what was
//     replaced or removed: over a death the index is kept, and without an index (below) newer records and tombstones win.
//   - No power cut brings the older of two versions back without the newer: a segment is overwritten when everything up
//     to it is dead on the medium (medium.go).
//   - Writers: one goroutine appends. A process whose writer may still be inside a write is waited for, or its segment is
//     left alone: the number of a segment changes by compare-and-swap, as its predecessor may want the same one.
//
// # What survives what
//
// The death of any process, and of all: everything whose write had returned, which is all but the last milliseconds. The
// page cache has the index, and of the log what is not on the device yet (device.go). Index.boot is the boot id of the
// machine: as long as that is the same, or the store was closed in order, the index is taken as it is, without a scan. After a power cut it is not, since its
// pages were written back in any order: it is cleared and made anew in the background from the summaries, the newest segment
// first (from the records of a segment that has none), while what has been found so far is served. Written
// data is flushed with each segment opened and at least every few seconds (syncEvery): a power cut may lose what was written since, removals
// included, and of a full store the sixteenth that is overwritten next.
//
// # Failures
//
// A failed or short write drops what was in it and leaves the segment; after several in a row the writer pauses. A failed read
// is a miss, and takes the entry out. If the index mapping faults (the file was truncated behind our
// back), the tier is switched off until the next start. A store of another size, version or layout is formatted; a file
// that is not ours is left alone, and the tier is off. Whatever happens here, the proxy goes on with the tier above.
//
// # Life cycle
//
// Open takes the lock and the files; Attach connects it to a cache.Store, starts writer, rebuild and syncing; Close ends
// them, and notes that the index is good. A server that takes over from a dead one does the same, and Attach then
// also queues what memory has and disk has not.
//
// # What it is not
//
// It knows no HTTP. It decides neither what is worth keeping nor what is fresh. A response larger than memory takes is not
// here either.
package disk
