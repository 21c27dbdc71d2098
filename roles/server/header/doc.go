// Package header knows HTTP fields: which names matter to a proxy cache, which
// of them are hop-by-hop, and how the values that the engine acts on are
// written (lists, directives, dates, delta-seconds, entity tags).
//
// The idea: a field name is looked up once, when a head is parsed, and is an
// [ID] from then on. Every later question ("is there a Range?", "does this go
// to the origin?") is then a comparison of bytes or a bit test.
//
// Invariants:
//   - Nothing here allocates, keeps a reference to its input, writes to it,
//     or reads a clock. Inputs may lie in shared memory. (A value that another
//     process changes during a call can yield a wrong answer, never a crash.)
//   - Every function accepts any bytes. What is not well-formed yields "no",
//     never a guess; the caller then takes the conservative branch.
//
// It is not a map of fields (http1 holds those, as spans) and takes no
// decision about freshness or forwarding.
//
// The cursors are small values, used as
//
//	cur := header.Directives(value)
//	for cur.Next() {
//		if header.LookupDirective(cur.Name) == header.MaxAge { ... cur.Value ... }
//	}
//	if cur.Malformed() { ... }
package header
