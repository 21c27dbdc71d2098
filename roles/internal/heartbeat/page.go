package heartbeat

import (
	"strconv"
	"strings"
)

// Path is what a heartbeat asks for.
const Path = "/synthetic.txt"

// The original's page (mgmt/MgmtHandlers.cc): 60 lines of the alphabet, 1,680 bytes.
const (
	pageLine  = "abcdefghijklmnopqrstuvwxyz\r\n"
	pageLines = 60
)

// Page is the synthetic page. Its bytes are the whole of the contract.
var Page = strings.Repeat(pageLine, pageLines)

// An answer closes the connection, so that a prober cannot read a stale one, and
// forbids caches to keep it, should somebody ask through one.
var (
	answerHead = "HTTP/1.1 200 OK\r\n" +
		"Content-Type: text/plain\r\n" +
		"Cache-Control: no-store\r\n" +
		"Content-Length: " + strconv.Itoa(len(Page)) + "\r\n" +
		"Connection: close\r\n" +
		"\r\n"
	answerGet   = answerHead + Page
	answerWrong = "HTTP/1.1 405 Method Not Allowed\r\n" +
		"Allow: GET, HEAD\r\n" +
		"Content-Length: 0\r\n" +
		"Connection: close\r\n" +
		"\r\n"
)

// AppendResponse appends the complete answer to a request for [Path] with the given
// method, head and body. It allocates only to grow dst, so a loop may call it. The
// caller closes the connection after it.
func AppendResponse(dst []byte, method string) []byte {
	switch method {
	case "GET":
		return append(dst, answerGet...)
	case "HEAD":
		return append(dst, answerHead...)
	}
	return append(dst, answerWrong...)
}
