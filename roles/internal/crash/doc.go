// Package crash keeps the records of deaths: how a process of the instance ended, and what became of every
// connection it had.
//
// Nobody knows all of a death. Its supervisor sees the exit status; the watchdog whose gate killed it knows why; the
// process that went on with the connections knows what it found. They may die themselves, in any order. So there is no
// record that is updated: each witness writes a part, a file of its own, and the reader joins the parts that there are.
//
//	crashes/
//	  server-4711-123456.death.manager.json     how it ended, by its supervisor
//	  server-4711-123456.death.cop.json         the same by cop, which may have had it killed
//	  server-4711-123456.adoption.13.json       its connections, by the server of generation 13
//	  server-4711-123456.succession.json        who came after it, by its supervisor, if nobody adopted anything
//	  stacks-server-4720-123999                 where the runtime of a living process will write when it crashes
//
// # Invariants
//
// A record is of one process: role, PID and start time name it (Process.ID), and no two processes of one boot share
// them. A part appears whole, by rename, or not at all; it is never changed, only replaced by the same witness. It is
// not synced: after a power cut it may be torn, and what is torn, foreign, too large, of another version or not about
// the process that its name says is refused with the reason, and hides nothing else.
//
// The directory is bounded: the newest MaxRecords records, MaxTotal bytes, and of each at most MaxConnections
// connections, MaxStacks of stacks and MaxLines log lines. Connections beyond that are counted.
//
// # Life cycle
//
// A role calls CatchOutput when it starts and, when it has ended in good order, ReleaseOutput. Its supervisor keeps a
// Ledger, which is told of what the gate did, of deaths and of successors, and gives back work for a goroutine:
// nothing here is done on a loop. The adopting server fills an Adoption, and writes it from a goroutine once it
// serves.
//
//	a := crash.Adoption{When: noticed, Dead: old, Successor: me, TookMS: crash.Milliseconds(took)}
//	a.Add(crash.Connection{Kind: crash.Client, Peer: "127.0.0.1:40000", State: crash.PartlyAnswered,
//		Outcome: crash.Resumed, ResponseByte: 70000})
//	go func() { err := store.WriteAdoption(a) … }()
//
// # What it is not
//
// It is no log, and nothing of the instance depends on it: a record that cannot be written costs a line in the log.
package crash
