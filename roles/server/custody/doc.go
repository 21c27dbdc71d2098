// Package custody is what the packages of the server share to keep their
// connections over the server's own death: the kinds of slots and records in the
// journal (package queue), and the entry through which a connection notes where it
// stands.
//
// The idea: the kernel remembers how far each socket got. What it does not
// remember is what those numbers mean, and that is a record of a few words: where the
// request lies, where the head of the answer lies and with which byte of the stream
// it began, which bytes of which body follow. Between two commits of a record its owner only
// receives into places that the record names and sends from such places. So a
// successor reads record and counters, does the rest (parsing, decoding, looking up)
// again, and goes on with the next byte.
//
// Each package has a record of its own type and says itself how to go on from it:
//
//	session      record  ─ in the slot of the client's connection
//	tunnel       record  ─ the same, once the connection has left HTTP
//	origin       record  ─ in the slot of the connection to the origin
//	transaction  record of a fetch ─ named by the records of those that follow it
//
// Invariants: a page that a record names is given back after the commit that
// names it no more, so what is free follows from the records alone; a connection
// that cannot be noted leaves custody for good, and is lost with this process instead of
// being continued wrongly.
//
// It is not the adoption: that is in package server.
package custody
