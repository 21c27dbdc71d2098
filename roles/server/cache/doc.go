// Package cache keeps responses in one shared mapping that outlives the process: a
// server killed between any two stores loses nothing that it had published, and the next one
// finds its objects at once, without a scan of them.
//
// # Layout
//
//	| superblock | segment table | index                | segment 0 | segment 1 | …
//	  one page     64 B a segment   256 B a set of 16      64 KiB to 1 MiB each
//
// The store is log-structured. An arena (one for each event loop) allocates upwards in a segment;
// a full segment is sealed; segments are evicted whole, oldest first within their class. An object is a
// record (256 bytes of header, vary block, head block, URI) and its body. A body of up to 64 KiB
// lies right behind its record, so that a hit of 1 KiB reads one run of memory; a
// larger one, or one of unknown length, is a table of fragments, anywhere.
//
// The index is a table of sets of 16 ways. A way is 16 bytes: a tag of 32 bits and a
// location, segment:20 | offset/64:16 | generation:28, which is the commit word. An entry is good as long
// as its generation is the segment's. So one store, of the segment's word, evicts all
// objects in it; nobody goes through the index. The record holds the whole key, which is
// compared before anything is believed.
//
// # Invariants
//
//   - A location names one record for ever. What is reachable through the index is complete
//     and never changes, but for the count of its hits and the mark that the tier below has it too.
//   - Bytes are overwritten only after the generation changed, and only while no one in
//     this process has the segment pinned. A reader pins, then looks at the generation;
//     an evictor condemns the segment, then looks at the pins. The atomics of Go are
//     sequentially consistent, so one of them sees the other. What is pinned is passed
//     over and goes on being served.
//   - Whatever takes more than one store is unreachable until the last one. Replacing an
//     alternate is one store; taking a way is three (empty it, tag, location), and a death in
//     between costs the entry that was to be dropped anyway.
//   - After a death every active segment is sealed: nothing is ever written behind what
//     a dead process left half done. Unfinished fills are garbage that nothing leads to,
//     unless their ID was kept, by which Resume goes on with them.
//
// # Alternates
//
// The alternates of a key share one set of the index, so there are at most twelve of them. When there are too many, one that
// was never hit goes, the oldest, as long as those are a third of them; else the one that was hit least.
//
// # Parts
//
// What has only some of a representation's bytes lies under a key of its own (Key.Parts), is found by AppendParts,
// and put together with what came later by Assemble, which copies no more than a few small
// fragments.
//
// # Admission and eviction
//
// S3-FIFO in segments: what is new is on probation, in about a tenth of the store; what was hit there moves to
// protected segments, in which what was hit goes round once more; what went without a hit leaves a tag behind, by which
// its return is noticed. So a scan of any length goes through the tenth (admission.go). A hit costs a look at a
// counter of two bits, and three times in an object's round a store.
//
// # What it may cost
//
// The tender (Store.Tend), a goroutine beside the loops, keeps some segments spare, and moves large bodies that were
// hit. Where it is late, the allocation that opens a segment pays: it walks at most six segments and copies
// at most 512 KiB of bodies up to 64 KiB and as much of larger ones (about 200 µs). What is hot beyond that is lost, but for
// its tag.
//
// # Life cycle
//
// Open formats or adopts the mapping, and fences the processes that opened it before:
// what they publish is refused with ErrFenced. Pins are in process memory and die with it. So
// a successor that means to go on sending what its predecessor was sending, or whose predecessor is still
// draining, opens with Options.Hold: then no segment that was ever used is written to.
// It opens the interrupted objects again (OpenID, Resume), sees the predecessor out, and calls EndHold.
// Nothing needs to be closed.
//
// A persistent tier below (Lower, lower.go) is told of what is published and removed, and puts back what it
// has kept. Options.Seed makes the keys those under which it knows everything.
//
// # Concurrency
//
// All methods of Store and Arena may be called from any goroutine. Look-ups take no lock. Changes of an index set take one of 64
// short mutexes, allocations the arena's, and opening a segment the ring's; the order is
// arena, ring, shard. All locks are in process memory, so a death leaves none held.
//
// # What it is not
//
// It knows no HTTP: whether something may be stored, whether it is fresh and which
// alternate fits is for package freshness to say. It is not on disk (package disk is, below it): there are no checksums of bodies, since a
// process that is killed tears no store. Stray writes into the mapping are not detected.
//
// # Example
//
//	k := store.KeyOf(scheme, host, path, query)
//	if o, ok := arena.Lookup(k, &selection); ok {
//		send(o.Head(), o.Fragment(0))
//		o.Release()
//	} else if w, err := arena.Create(k, &meta, uri, vary, head, length); err == nil {
//		for {
//			space, err := w.Space() // receive from the origin right into the cache
//			...
//			w.Commit(n)
//		}
//		o, err := w.Publish() // or w.Abort()
//		w.Release()
//	}
package cache
