package e2e

import "strings"

// Heads of responses: okFor is one that may be stored, so that what is wrong with a row
// would be handed to others, too.
func okFor(fields string) string {
	return "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n" + fields + "\r\n"
}

const smuggledReply = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\nevil"

// strictReplies is the table of responses.
func strictReplies() []strictReply {
	var all []strictReply
	for _, t := range [][]strictReply{replyFraming(), replyChunks(), replyHeads(), replyStatuses(), replyNone(), replyParts(), replyInterims(), replyFields()} {
		all = append(all, t...)
	}
	return all
}

func refused(name, rfc, raw string) strictReply {
	return strictReply{name: name, rfc: rfc, raw: raw, close: true, want: "502"}
}

func cut(name, rfc, raw string) strictReply {
	return strictReply{name: name, rfc: rfc, raw: raw, close: true, want: "cut 502"}
}

func passes(name, rfc, raw, body string, fields ...string) strictReply {
	return strictReply{name: name, rfc: rfc, raw: raw, want: "200", body: body, fields: fields}
}

func replyFraming() []strictReply {
	const rfc = "9112 6.3"
	rows := []strictReply{
		passes("a length", rfc, okFor("Content-Length: 5\r\n")+"hello", "hello", "Content-Length: 5", "!Transfer-Encoding"),
		passes("chunks", rfc, okFor("Transfer-Encoding: chunked\r\n")+"5\r\nhello\r\n0\r\n\r\n", "hello"),
		passes("length 0", rfc, okFor("Content-Length: 0\r\n"), "", "Content-Length: 0"),
		{name: "until the end", rfc: rfc, raw: okFor("") + "hello", close: true, want: "200", body: "hello"},
		{name: "until the end of HTTP/1.0", rfc: rfc, raw: "HTTP/1.0 200 OK\r\n\r\nhello", close: true, want: "200", body: "hello"},
		{name: "a length of HTTP/1.0, closed", rfc: rfc, raw: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", close: true, want: "200", body: "hello", fields: []string{"Content-Length: 5"}},
		passes("a length of HTTP/1.0, kept alive", "9112 9.3", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello", "!Keep-Alive"),
		passes("more than its length", "9112 6.3", okFor("Content-Length: 5\r\n")+"hello and more", "hello"),
		passes("a response behind its length", "9112 11.1", okFor("Content-Length: 5\r\n")+"hello"+smuggledReply, "hello"),
		passes("a response behind length 0", "9112 11.1", okFor("Content-Length: 0\r\n")+smuggledReply, ""),
		passes("a response behind the chunks", "9112 11.1", okFor("Transfer-Encoding: chunked\r\n")+"5\r\nhello\r\n0\r\n\r\n"+smuggledReply, "hello"),
		passes("line breaks behind its length", "9112 2.2", okFor("Content-Length: 5\r\n")+"hello\r\n\r\n", "hello"),
		cut("less than its length", "9112 8", okFor("Content-Length: 50\r\n")+"hello"),
		cut("nothing of its length", "9112 8", okFor("Content-Length: 50\r\n")),
		refused("length and chunked", rfc, okFor("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")+"0\r\n\r\n"),
		refused("chunked and length", rfc, okFor("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")+"5\r\nhello\r\n0\r\n\r\n"),
		refused("two lengths", rfc, okFor("Content-Length: 5\r\nContent-Length: 6\r\n")+"hello!"),
		refused("two equal lengths", rfc, okFor("Content-Length: 5\r\nContent-Length: 5\r\n")+"hello"),
		refused("chunked in HTTP/1.0", "9112 6.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("coding twice", rfc, okFor("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")+"0\r\n\r\n"),
		refused("length spelt with an underscore", rfc, okFor("Content_Length: 5\r\n")+"hello"),
		refused("coding with a blank before the colon", "9112 5.1", okFor("Transfer-Encoding : chunked\r\n")+"0\r\n\r\n"),
		refused("length with a blank before the colon", "9112 5.1", okFor("Content-Length : 5\r\n")+"hello"),
	}
	for _, v := range []string{"+5", "-5", "0x5", "5, 5", "5,6", "5 5", "", "five", "5.0", "1e1", "99999999999999999999", "18446744073709551621", "5\x00", "\x0b5", "5;", "\"5\""} {
		rows = append(rows, refused("length "+v, "9110 8.6", okFor("Content-Length: "+v+"\r\n")+"hello"))
	}
	for _, v := range []string{"gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "xchunked", "", "chunked;q=1", "\x0bchunked", "chunked\x00", "\"chunked\"", ", chunked", "cow"} {
		rows = append(rows, refused("coding "+v, "9112 6.1", okFor("Transfer-Encoding: "+v+"\r\n")+"0\r\n\r\n"))
	}
	return rows
}

func replyChunks() []strictReply {
	const rfc = "9112 7.1"
	head := okFor("Transfer-Encoding: chunked\r\n")
	rows := []strictReply{
		passes("chunks with extensions", rfc, head+"5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", "hello"),
		passes("chunks with a trailer", "9110 6.5.1", head+"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "hello", "!X-Sum"),
		passes("chunks with a length for a trailer", "9110 6.5.1", head+"5\r\nhello\r\n0\r\nContent-Length: 50\r\nSet-Cookie: a=b\r\n\r\n", "hello", "!Set-Cookie"),
	}
	for name, body := range map[string]string{
		"no last one": "5\r\nhello\r\n", "no end": "5\r\nhello\r\n0\r\n", "cut in the data": "5\r\nhel", "a blank behind the size": "5 \r\nhello\r\n0\r\n\r\n", "0x": "0x5\r\nhello\r\n0\r\n\r\n", "a sign": "+5\r\nhello\r\n0\r\n\r\n", "minus": "-5\r\nhello\r\n0\r\n\r\n",
		"bare LFs": "5\nhello\n0\n\n", "too much data": "5\r\nhello!!\r\n0\r\n\r\n", "letters": "hello\r\n", "no size": "\r\nhello\r\n0\r\n\r\n", "2^64": "10000000000000000\r\nhello\r\n0\r\n\r\n", "2^63": "8000000000000000\r\nhello", "bare CR behind the size": "5\rhello\r\n0\r\n\r\n",
		"a malformed trailer": "5\r\nhello\r\n0\r\nX : y\r\n\r\n", "a folded trailer": "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", "an endless trailer": "5\r\nhello\r\n0\r\nX: " + strings.Repeat("t", 64<<10) + "\r\n\r\n", "an endless extension": "5;" + strings.Repeat("e", 64<<10) + "\r\nhello\r\n0\r\n\r\n", "NUL in an extension": "5;a\x00\r\nhello\r\n0\r\n\r\n", "nothing": "",
	} {
		rows = append(rows, cut("chunks: "+name, rfc, head+body))
	}
	return rows
}

func replyHeads() []strictReply {
	const rfc = "9112 5"
	rows := []strictReply{
		passes("a head with obs-text", "9110 5.5", okFor("X: caf\xe9\r\nContent-Length: 5\r\n")+"hello", "hello", "X: caf\xe9"),
		passes("a head with blanks around a value", "9110 5.5", okFor("X: \t y \t\r\nContent-Length: 5\r\n")+"hello", "hello", "X: y"),
		passes("a head of 100 fields", "9110 5.4", okFor(manyFields(100)+"Content-Length: 5\r\n")+"hello", "hello", "X-99: y"),
		refused("a head of 5,000 fields", "9110 5.4", okFor(manyFields(5000)+"Content-Length: 5\r\n")+"hello"),
		refused("a head of a megabyte", "9110 5.4", okFor("X: "+strings.Repeat("a", 1<<20)+"\r\nContent-Length: 5\r\n")+"hello"),
		refused("a head that never ends", "9110 5.4", "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", 1<<20)),
		refused("a status line that never ends", "9112 4", "HTTP/1.1 200 "+strings.Repeat("a", 1<<20)),
		refused("a head that is cut", "9112 8", "HTTP/1.1 200 OK\r\nContent-Le"),
		refused("a head without its empty line", "9112 8", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
	}
	for name, raw := range map[string]string{
		"bare LFs": "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "bare LF behind the status line": "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello", "bare LF behind a field": okFor("X: y\nContent-Length: 5\r\n") + "hello", "bare LF for the empty line": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello",
		"bare CR in a value": okFor("X: a\rSet-Cookie: b=c\r\nContent-Length: 5\r\n") + "hello", "bare CR behind the status line": "HTTP/1.1 200 OK\rX: y\r\nContent-Length: 5\r\n\r\nhello", "bare CR in the reason": "HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello", "NUL in the reason": "HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\nhello",
		"NUL in a value": okFor("X: a\x00b\r\nContent-Length: 5\r\n") + "hello", "NUL in a name": okFor("X\x00: a\r\nContent-Length: 5\r\n") + "hello", "a control in a value": okFor("X: a\x01\r\nContent-Length: 5\r\n") + "hello", "a folded field": okFor("X: a\r\n b\r\nContent-Length: 5\r\n") + "hello", "a folded length": okFor("Content-Length:\r\n 5\r\n") + "hello",
		"a blank before the colon": okFor("X : a\r\nContent-Length: 5\r\n") + "hello", "no colon": okFor("nonsense\r\nContent-Length: 5\r\n") + "hello", "no name": okFor(": a\r\nContent-Length: 5\r\n") + "hello", "a blank before the first field": "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 5\r\n\r\nhello", "a high byte in a name": okFor("X\xe9: a\r\nContent-Length: 5\r\n") + "hello",
		"an empty line before the status line": "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "a CR before the empty line": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\r\nhello", "brackets in a name": okFor("X[]: a\r\nContent-Length: 5\r\n") + "hello",
	} {
		rows = append(rows, refused("head: "+name, rfc, raw))
	}
	return rows
}

func replyStatuses() []strictReply {
	const rfc = "9112 4"
	end := "\r\nContent-Length: 5\r\n\r\nhello"
	rows := []strictReply{
		passes("no reason", rfc, "HTTP/1.1 200 "+end, "hello"),
		passes("no blank behind the status", rfc, "HTTP/1.1 200"+end, "hello"),
		passes("obs-text in the reason", rfc, "HTTP/1.1 200 caf\xe9"+end, "hello"),
		passes("HTTP/1.9", "9110 2.5", "HTTP/1.9 200 OK"+end, "hello"),
		{name: "status 299", rfc: "9110 15", raw: "HTTP/1.1 299 Odd" + end, want: "299", body: "hello"},
		{name: "status 499", rfc: "9110 15", raw: "HTTP/1.1 499 Odd" + end, want: "499", body: "hello"},
		{name: "a reason that is a status line", rfc: rfc, raw: "HTTP/1.1 200 HTTP/1.1 500 Evil" + end, want: "200", body: "hello"},
	}
	for _, l := range []string{
		"HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1 000 Zero", "HTTP/1.1 099 Low", "HTTP/1.1 -200 OK", "HTTP/1.1 +200 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", " HTTP/1.1 200 OK", "http/1.1 200 OK", "HTTP/2 200", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "HTTP/1 200 OK", "HTTP/1.x 200 OK",
		"HTTP/1.10 200 OK", "ICY 200 OK", "200 OK", "OK", "<html>", "GET / HTTP/1.1", "HTTP/1.1 OK", "HTTP/1.1 200OK", "HTTP/1.1 0200 OK", "HTTP/1.1 20\x000 OK", "\x00", "HTTP/1.1 \xef\xbc\x92\xef\xbc\x90\xef\xbc\x90 OK", "\x15\x03\x01\x00\x02\x02\x50",
	} {
		rows = append(rows, refused("status line "+l, rfc, l+end))
	}
	return append(rows, refused("nothing at all", "9112 8", ""), refused("HTTP/0.9", "9112 4", "<html>hello</html>"))
}

// replyNone: responses that have no content, whatever they say.
func replyNone() []strictReply {
	const rfc = "9112 6.3"
	none := func(name, request, raw, status string, fields ...string) strictReply {
		return strictReply{name: name, rfc: rfc, request: request, raw: raw, want: status, fields: fields}
	}
	return []strictReply{
		none("HEAD with its content", "HEAD", okFor("Content-Length: 5\r\n")+"hello", "200", "Content-Length: 5"),
		none("HEAD with chunks", "HEAD", okFor("Transfer-Encoding: chunked\r\n")+"5\r\nhello\r\n0\r\n\r\n", "200"),
		none("HEAD with a response behind it", "HEAD", okFor("Content-Length: 69\r\n")+smuggledReply, "200"),
		none("HEAD", "HEAD", okFor("Content-Length: 5\r\n"), "200", "Content-Length: 5"),
		none("204", "", "HTTP/1.1 204 No Content\r\n\r\n", "204", "!Content-Length", "!Transfer-Encoding"),
		none("204 with length 0", "", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204", "!Content-Length"),
		none("204 with content", "", "HTTP/1.1 204 No Content\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello", "204", "!Content-Length"),
		none("204 with chunks", "", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "204", "!Transfer-Encoding"),
		none("204 with a response behind it", "", "HTTP/1.1 204 No Content\r\n\r\n"+smuggledReply, "204"),
		none("304 with content", "GET\nIf-None-Match: \"a\"\r\nAuthorization: Basic eA==\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\nhello", "304 502"),
		none("304 with a response behind it", "GET\nIf-None-Match: \"a\"\r\nCache-Control: no-store\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"+smuggledReply, "304 502"),
		none("304 with a response for its content", "GET\nIf-None-Match: \"a\"\r\nCache-Control: no-store\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 69\r\n\r\n"+smuggledReply, "304 502"),
		{name: "304 with chunks", rfc: rfc, request: "GET\nIf-None-Match: \"a\"\r\nCache-Control: no-store\r\n", raw: "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "304 502"},
		{name: "205 with content", rfc: "9110 15.3.6", raw: "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello", want: "205", body: "hello"},
	}
}

// replyParts: a part is as long as its Content-Range says, however it is framed and whether it is stored or not.
func replyParts() (rows []strictReply) {
	const rfc = "9110 15.3.7.1"
	for _, kept := range []struct{ name, fields string }{
		{"not stored", "Cache-Control: no-store\r\nContent-Range: bytes 0-4/10\r\n"},
		{"of unknown size", "Cache-Control: max-age=60\r\nContent-Range: bytes 0-4/*\r\n"},
		{"stored", "Cache-Control: max-age=60\r\nContent-Range: bytes 0-4/10\r\n"},
	} {
		row := func(name, raw string, closes bool, want, body string) {
			rows = append(rows, strictReply{name: "a part " + kept.name + ", " + name, rfc: rfc, request: "GET\nRange: bytes=0-4\r\n",
				raw: "HTTP/1.1 206 Partial Content\r\n" + kept.fields + raw, close: closes, want: want, body: body, fields: []string{"Content-Length: 5", "!Transfer-Encoding"}})
		}
		const chunked = "Transfer-Encoding: chunked\r\n\r\n"
		row("in chunks", chunked+"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", false, "206", "hello")
		row("in chunks, longer", chunked+"a\r\nhelloworld\r\n0\r\n\r\n", false, "206", "hello")
		row("in chunks, shorter", chunked+"2\r\nhe\r\n0\r\n\r\n", false, "cut", "")
		row("in no chunk", chunked+"0\r\n\r\n", false, "cut", "")
		row("until the end", "\r\nhello", true, "206", "hello")
		row("until the end, longer", "\r\nhelloworld", true, "206", "hello")
		row("until the end, shorter", "\r\nhe", true, "cut", "")
		row("of another length", "Content-Length: 4\r\n\r\nhell", true, "502", "")
	}
	return rows
}

func replyInterims() []strictReply {
	const rfc = "9110 15.2"
	final := okFor("Content-Length: 5\r\n") + "hello"
	switched := func(name, fields string) strictReply {
		return strictReply{name: name, rfc: "9110 7.8", request: "GET\nConnection: upgrade\r\nUpgrade: websocket, irc/6.9\r\n",
			raw: "HTTP/1.1 101 Switching Protocols\r\n" + fields + "\r\n" + smuggledReply, close: true, want: "502"}
	}
	return []strictReply{
		passes("103 and the answer", rfc, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+final, "hello"),
		passes("100 unasked", rfc, "HTTP/1.1 100 Continue\r\n\r\n"+final, "hello"),
		passes("ten interim responses", rfc, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10)+final, "hello"),
		passes("199", rfc, "HTTP/1.1 199 Odd\r\n\r\n"+final, "hello"),
		refused("a flood of interim responses", rfc, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10000)+final),
		refused("100 with a length", "9112 6.3", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello"+final),
		refused("103 with chunks", "9112 6.3", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+final),
		refused("101 unasked", "9110 15.2.2", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"+smuggledReply),
		refused("101 unasked without fields", "9110 15.2.2", "HTTP/1.1 101 Switching Protocols\r\n\r\n"+smuggledReply),
		switched("101 to what was not asked for", "Connection: upgrade\r\nUpgrade: h2c\r\n"),
		switched("101 to more than was asked for", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"),
		switched("101 to no version", "Connection: upgrade\r\nUpgrade: websocket/\r\n"),
		switched("101 to two protocols in two lines", "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: irc\r\n"),
		switched("101 to nothing", "Connection: upgrade\r\nUpgrade:\r\n"),
		switched("101 that does not say to what", ""),
		refused("only an interim response", rfc, "HTTP/1.1 103 Early Hints\r\n\r\n"),
		refused("a malformed interim response", rfc, "HTTP/1.1 103 Early Hints\r\nX : y\r\n\r\n"+final),
	}
}

func replyFields() []strictReply {
	end := "Content-Length: 5\r\n"
	return []strictReply{
		passes("Connection and what it names", "9110 7.6.1", okFor("Connection: X-Hop, keep-alive\r\nX-Hop: y\r\nKeep-Alive: timeout=5\r\n"+end)+"hello", "hello", "!Connection", "!X-Hop", "!Keep-Alive"),
		passes("Connection that names the length", "9110 7.6.1", okFor("Connection: Content-Length\r\n"+end)+"hello", "hello", "Content-Length: 5"),
		passes("Connection that names Cache-Control", "9110 7.6.1", okFor("Connection: Cache-Control, Set-Cookie\r\n"+end)+"hello", "hello", "Cache-Control: max-age=60"),
		passes("a malformed Connection", "9110 7.6.1", okFor("Connection: a b\r\n"+end)+"hello", "hello", "!Connection"),
		refused("65 options", "9110 7.6.1", okFor("Connection: "+strings.Repeat("z,", 65)+"\r\n"+end)+"hello"),
		refused("65 options, one of them malformed", "9110 7.6.1", okFor("Connection: a b,"+strings.Repeat("z,", 64)+"\r\n"+end)+"hello"),
		passes("Proxy-Connection", "9112 C.2.2", okFor("Proxy-Connection: keep-alive\r\n"+end)+"hello", "hello", "!Proxy-Connection"),
		passes("Upgrade", "9110 7.8", okFor("Connection: upgrade\r\nUpgrade: h2c\r\n"+end)+"hello", "hello", "!Upgrade"),
		passes("Trailer", "9110 6.6.2", okFor("Trailer: X-Sum\r\n"+end)+"hello", "hello", "!Trailer"),
		passes("a line break, encoded", "9112 11.1", okFor("Location: /a%0d%0aSet-Cookie:%20b=c\r\n"+end)+"hello", "hello", "!Set-Cookie"),
		refused("a line break in a value, reflected", "9112 11.1", okFor("Location: /a\r\nnonsense\r\n\r\n"+end)+"hello"),
	}
}
