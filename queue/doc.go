// Package queue keeps clients waiting in order, and out of harm's way, while
// no server is there to serve them.
//
// # Two stages
//
// The first stage is the kernel's accept queue of each Listener. Listeners are
// bound once and held by several processes, so handshakes are completed and
// connections queued whatever has died. Nothing can be lost here, and it is
// the place to wait for as long as it has room.
//
// The second stage is the FIFO: accepted connections lying as messages in a
// Unix socketpair whose ends several processes hold. It is used when the first
// is nearly full or a server has been missing for long (Policy), since only an
// accepted connection can be told 503 (Refuser). It survives the death of
// whoever filled it.
//
//	client ──▶ kernel's accept queue ──Collect──▶ FIFO ──Take──▶ server
//	                    │                           └─TakeOlder─▶ Refuser: 503
//	                    └────────────Accept────────────────────▶ server
//
// # Hand-off
//
// Order is first come, first served over both stages, kept by a protocol
// between the manager and the server:
//
//	manager                                server
//	no server is ready: may Collect,
//	TakeOlder and Refuse, as Decide says   starts
//	                            ◀──────    "ready"
//	Decide says Stop: ends a Collect
//	that runs, and from now on neither
//	Puts nor Takes
//	"go"                        ──────▶
//	                                       Take until ErrEmpty, by one loop;
//	                                       only then Accept on the listeners
//
// Thus one consumer at a time: the manager before "go", that server after it,
// until it has died or has said that it drains. What is put into the FIFO
// before "go" is older than all that is in the listeners after it. "go" is
// idempotent: a manager that was started anew repeats it to a server that says
// it is ready. A Take at the wrong time breaks the order, never a connection
// (see Take).
//
// Within one listener the order is exact; between listeners, to within one
// round of Collect.
//
// # Custody
//
// The idea: the kernel is the journal. Sockets, what is queued in them and how
// far they got survive a process as long as another holds the descriptors. What
// the kernel does not remember is little: a slot of 32 bytes for each connection,
// and a record while something is in progress on it. Four parts, each of use alone:
//
//	Keeper    shares the descriptor table of the server; sends what is in it to a
//	          successor when the server dies. Custody receives
//	Notice    the death of a thread, announced by the kernel (robust futex) before it
//	          takes the memory apart, and proof that the thread does nothing any more
//	Journal   shared memory: slots (Slot, Ledger) and a pool for each loop, with the
//	          user's records (Record) and all that they name. Each step is one store
//	Progress  how far a TCP connection got, out of its socket; with the record it
//	          tells where to go on
//
//	server N                                     server N+1
//	OpenJournal, Notice.Register                 OpenJournal
//	Claim, KeepFromChildren,                     (waits: WaitAllNotices)
//	StartKeeper
//	serve ──▶ dies
//	            keeper: closes the lock files,
//	            waits for the last thread        takes the lock, then as N did:
//	                                             Register, Claim, KeepFromChildren,
//	                                             StartKeeper
//	            sends 253 a message, END ─────▶  ReceiveCustody(Outstanding)
//	                                             each: slot by cookie, its record,
//	                                             ReadProgress; go on
//	                                             close the slots that are left over
//	                                             MarkReceived
//
// One request, as the journal sees it (Slot has the protocol, and its reasons):
//
//	accept            Ledger.Open(cookie)
//	                  Record.Commit: bytes are received into this place; Slot.Set
//	recv ... recv
//	                  Record.Commit: this head lies there, this body follows
//	send ... send
//	idle              Slot.Set(0); then what the record named may be used again
//	close             Ledger.Close; then what the record named; then close(2)
//
// What a successor finds follows from slot, record and counters, and there is no
// other case:
//
//	no slot, counters at 0         accepted and not read: serve it
//	no slot, counters have moved   was being closed: close it
//	slot, word 0                   idle
//	slot, record                   Progress minus the record's numbers: how much lies
//	                               in the place it names, how much of the answer is sent
//	slot, no socket                lost, and the only sign of it
//
// Invariants: a successor has its own keeper before it receives the first
// descriptor, and that keeper waits for the thread that receives (Journal.Receiver) as for the loops', so its death at
// any instruction loses nothing, however often that happens. Nothing in the journal is a pointer. The shape of the journal is checked
// before it is used, and what cannot be read is refused; slots and records are as
// trustworthy as the processes that wrote them: a place that a record names must
// be checked by whoever adopts it before it is used.
//
// What is lost: a server and its keeper killed at one instant take the
// connections along; so does a server killed before its keeper, killed from outside, has been
// replaced, which takes it a millisecond. Urgent data is counted wrongly without SO_OOBINLINE. A
// process that is stopped, not dead, still shares its sockets: kill it first.
// A keeper whose server calls exec sends everything, as if it had died.
//
// Kernel: clone(2) with CLONE_FILES, get_robust_list(2), futex_waitv (5.16; without it,
// threads), pidfd_open (5.3; without it, time limits), TCP_INFO with byte
// counters (4.2). No privilege. amd64 and arm64.
//
// The steps are tested by death: the build tag killpoints compiles a place to die
// between each two stores. Without it there is nothing there.
//
// # What is not kept
//
// A manager killed between accept and the end of Put, some microseconds, takes
// that one connection along. Custody (the keeper) closes this gap as well.
// Without privilege the FIFO is smaller than asked for: see NewFIFO.
//
// # What to measure
//
//	depth     Listener.Backlog().Queued of each listener, FIFO.Len, FIFO.Bytes
//	wait      Entry.Age at Take
//	overflow  FIFO.Overflows, and Decide's reason Overflow
//	answered  RefuserStats: Answered, Curt, Failed
//
// The depths are asked of the kernel and therefore right in every process; the
// counters start at 0 with each process, which adds them to its own statistics.
//
// # What it is not
//
// Not a load balancer, not an admission control for a server that is ready: its
// backlog is its own affair. It knows no protocol but the one answer 503, keeps
// no log, and starts no process.
package queue
