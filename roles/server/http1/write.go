package http1

import "trafficd/roles/server/header"

// The Append functions write parts of a head into a buffer that the caller has
// made large enough; they allocate only if it is not.

// statusTexts holds the reason phrases of the registered status codes (the IANA
// registry, RFC 9110 §15 and others). Immutable.
var statusTexts = map[int]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	104: "Upload Resumption Supported",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
	408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed",
	413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
	417: "Expectation Failed", 421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked",
	424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}

// StatusText returns the reason phrase of a registered status code, else "".
func StatusText(status int) string {
	if status < 100 || status >= 100+len(statusLines) {
		return ""
	}
	line := statusLines[status-100]
	return line[len("HTTP/1.1 200 ") : len(line)-len(CRLF)]
}

// statusLines holds the status line of each code from 100 to 599. Immutable
// after init.
var statusLines = makeStatusLines()

func makeStatusLines() (t [500]string) {
	for i := range t {
		b := append([]byte("HTTP/1.1 "), byte('1'+i/100), byte('0'+i/10%10), byte('0'+i%10), ' ')
		t[i] = string(b) + statusTexts[100+i] + CRLF
	}
	return t
}

// AppendStatusLine appends "HTTP/1.1 200 OK" CRLF. We speak HTTP/1.1 whatever the
// client's version (RFC 9110 §2.5). The phrase of a code without one is empty. status is
// 100 to 999; anything else is written as 500.
func AppendStatusLine(dst []byte, status int) []byte {
	if i := status - 100; i >= 0 && i < len(statusLines) {
		return append(dst, statusLines[i]...)
	}
	if status < 600 || status > 999 {
		return append(dst, statusLines[500-100]...)
	}
	dst = append(dst, "HTTP/1.1 "...)
	return append(header.AppendUint(dst, uint64(status)), " \r\n"...)
}

// AppendField appends a field line. Nothing is checked: name must be a token and
// value hold nothing that stops header.ScanText, as is so of what Parse accepted.
func AppendField(dst, name, value []byte) []byte {
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, value...), CRLF...)
}

// AppendFieldID appends a field line with the canonical spelling of its name.
func AppendFieldID(dst []byte, id header.ID, value []byte) []byte {
	dst = append(append(dst, id.String()...), ": "...)
	return append(append(dst, value...), CRLF...)
}

// AppendParsed appends f from the head it was parsed from.
func AppendParsed(dst, head []byte, f *Field) []byte {
	return AppendField(dst, f.Name.In(head), f.Value.In(head))
}

// AppendContentLength appends a Content-Length field; n >= 0.
func AppendContentLength(dst []byte, n int64) []byte {
	dst = header.AppendUint(append(dst, "Content-Length: "...), uint64(n))
	return append(dst, CRLF...)
}

// AppendAge appends an Age field (RFC 9111 §5.1). seconds beyond 2^31 is written
// as 2^31, below 0 as 0.
func AppendAge(dst []byte, seconds int64) []byte {
	seconds = min(max(seconds, 0), header.MaxDelta)
	dst = header.AppendUint(append(dst, "Age: "...), uint64(seconds))
	return append(dst, CRLF...)
}

// AppendVia appends a Via field line of its own for a message received with
// HTTP/1.minor (RFC 9110 §7.6.3). It goes after those received. pseudonym is a
// token or host[:port].
func AppendVia(dst []byte, minor uint8, pseudonym string) []byte {
	dst = append(dst, "Via: 1."...)
	dst = append(append(dst, '0'+minor, ' '), pseudonym...)
	return append(dst, CRLF...)
}

// AppendDate appends a Date field; unix is in Unix seconds.
func AppendDate(dst []byte, unix int64) []byte {
	dst = header.AppendDate(append(dst, "Date: "...), unix)
	return append(dst, CRLF...)
}

// DateLine is a Date field line that is written anew when the second changes.
// The zero value is ready. It belongs to one loop.
type DateLine struct {
	unix int64
	line [len("Date: ") + header.DateLen + len(CRLF)]byte
}

// Append appends the Date field line for unix (Unix seconds).
func (d *DateLine) Append(dst []byte, unix int64) []byte {
	if d.unix != unix || d.line[0] == 0 {
		d.unix = unix
		AppendDate(d.line[:0], unix)
	}
	return append(dst, d.line[:]...)
}

// AppendError appends a whole response that says what status means in a line of
// text and ends the connection. date is a Date field line or nil; extra is nil
// or field lines that go with the status, such as Allow or Retry-After. content
// is false in answer to HEAD: the fields are then the same, the body is left out.
func AppendError(dst []byte, status int, date, extra []byte, content bool) []byte {
	text := StatusText(status)
	if text == "" {
		status = 500
		text = StatusText(status)
	}
	dst = AppendStatusLine(dst, status)
	dst = append(dst, date...)
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"...)
	dst = AppendContentLength(dst, int64(len("400 \n")+len(text)))
	dst = append(dst, extra...)
	dst = append(dst, "Connection: close\r\n\r\n"...)
	if content {
		dst = append(header.AppendUint(dst, uint64(status)), ' ')
		dst = append(append(dst, text...), '\n')
	}
	return dst
}
