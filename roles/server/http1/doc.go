// Package http1 reads and writes HTTP/1.1 messages (RFC 9112): heads, chunked
// bodies, and nothing else. It has no sockets, no clock and no goroutines.
//
// The idea: bytes stay where they were received. Parsing a head yields spans
// (offsets into the caller's buffer) and the decisions that follow from it: how
// the body is framed, whether the connection persists, which host is meant. So a
// head can lie in shared memory, be copied and be parsed again by another
// process, and nothing is allocated per request.
//
// # Invariants
//
//   - Nothing keeps a reference to a caller's buffer, nor writes to it.
//   - A result is a function of the bytes, never of how they arrived. The states
//     that live between calls (HeadScan, Chunked) are small values without
//     pointers.
//   - A message has one meaning or none. What peers could read in two ways is
//     refused, also where RFC 9112 would let a lenient recipient repair it: bare
//     CR or LF, obs-fold, blanks before a colon or around a chunk size, any
//     repeated Content-Length, Content-Length beside Transfer-Encoding. After
//     a refusal the connection must be closed.
//   - Every function takes any bytes in linear time, and never panics.
//
// # Life of a request on a connection
//
//	n := http1.SkipEmptyLines(buf)        // where a request is to begin
//	err := req.Parse(buf[n:], limits)     // most heads arrive whole
//	if err == http1.ErrIncomplete {
//		end, err := scan.Request(buf[n:], limits) // after each read, until end > 0
//		...
//		err = req.Parse(buf[n:], limits)
//	}
//
// An error is an *Error with the status to answer with. Then the content:
// ContentLength bytes, or Chunked until it is Done; what follows is the next
// request.
//
// # What is accepted beyond the letter
//
// Letters of either case where RFC 9112 says so; a status line without a reason
// phrase; up to four empty lines before a request line; characters in targets
// that browsers send unencoded; HTTP/1.2 to 1.9, which count as 1.1.
//
// # What the caller still has to do when it forwards
//
//   - Write Content-Length and Transfer-Encoding anew from ContentLength and
//     Chunked, never copy them; none on 1xx and 204.
//   - Write Host from Request.Host, not from the Host field.
//   - Leave out fields for which HopByHop is true.
//   - Let only protocols that it knows pass in Upgrade: an h2c tunnel would carry
//     requests past every check here.
package http1
