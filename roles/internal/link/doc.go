// Package link is the private line between the processes of an instance: the
// manager listens on a Unix SOCK_SEQPACKET socket (manager.sock), cop and
// server dial in, and both ends call each other's operations and pass
// descriptors.
//
// # Life cycle
//
//	dialer (Keep)                              hub (Serve)
//	dial                          ──────────▶  accept; same user? (SO_PEERCRED)
//	call hello{role,pid,…}        ──────────▶  version? pid true? Admit?
//	OnConnect, then handlers      ◀──────────  reply hello{role,pid,…} | error, close
//	…calls and events both ways…               OnConnect, then handlers
//	EOF: dial again, at once      ◀──────────  death of either side, or Close
//
// Who restarts finds his peers because they come to him: a manager started
// anew adopts whoever says hello. A Tether (Keep) notices the new socket by
// inotify and is back within milliseconds.
//
// # Messages
//
// One message is one datagram, a JSON object
//
//	{"v":1,"kind":"call|reply|event","id":7,"op":"deposit","body":…,"error":{…}}
//
// and up to 253 descriptors. A body of more than 32 KiB travels in a sealed
// memfd, as the last descriptor ("memory" is its length); more than 16 MiB is
// refused by the sender.
//
// # Invariants
//
// Calls and events from one peer are handled one after the other, in the order
// sent; replies overtake them, so a handler may itself Call its peer.
// Descriptors of a message are closed with it unless they were taken out of
// it. Whatever a peer sends, the worst that happens is that its connection is
// closed.
//
// # What it is not
//
// Not a way for operators (that is the control socket), not between machines,
// not fast: nothing here is on a request's path.
package link
