package e2e

import (
	"fmt"
	"strings"
)

func askGet(fields string) string { return ask("GET /r HTTP/1.1", fields) }

func ask(requestLine, fields string) string {
	return requestLine + "\r\nHost: h.test\r\n" + fields + "\r\n"
}

func askPost(fields, body string) string { return ask("POST /r HTTP/1.1", fields) + body }

func askChunks(body string) string { return askPost("Transfer-Encoding: chunked\r\n", body) }

// strictRequests is the table. Where a row could pass in one form the outcome is "pass" and
// says what the origin gets; "400|pass" is not used where the engine has decided.
func strictRequests() []strictRow {
	return slicesOf(framingRows(), lengthRows(), codingRows(), chunkRows(), trailerRows(), lineEndRows(), fieldRows(),
		hostRows(), requestLineRows(), methodRows(), versionRows(), contentRows(), connectionRows(), byteRows(), garden())
}

func slicesOf(tables ...[]strictRow) (all []strictRow) {
	for _, t := range tables {
		all = append(all, t...)
	}
	return all
}

func framingRows() []strictRow {
	const rfc = "9112 6.3"
	both := func(a, b, body string) string { return askPost(a+"\r\n"+b+"\r\n", body) }
	const cl, te = "Content-Length: 5", "Transfer-Encoding: chunked"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: h.test\r\n\r\n"
	return []strictRow{
		{"length then chunked", rfc, both(cl, te, "0\r\n\r\n"), "400", nil},
		{"chunked then length", rfc, both(te, cl, "0\r\n\r\n"), "400", nil},
		{"length then chunked, a request in the body", rfc, both("Content-Length: 44", te, "0\r\n\r\n"+smuggled), "400", nil},
		{"chunked then length, a request in the body", rfc, both(te, "Content-Length: 4", "2c\r\n"+smuggled+"\r\n0\r\n\r\n"), "400", nil},
		{"length beside chunked, closing", rfc, both(cl, te+"\r\nConnection: close", "0\r\n\r\n"), "400", nil},
		{"length 0 beside chunked", rfc, both("Content-Length: 0", te, "0\r\n\r\n"), "400", nil},
		{"length nominated by Connection beside chunked", rfc, both(cl+"\r\nConnection: Content-Length", te, "0\r\n\r\n"), "400", nil},
		{"chunked nominated by Connection beside a length", rfc, both(cl+"\r\nConnection: Transfer-Encoding", te, "0\r\n\r\n"), "400", nil},
		{"length beside Chunked", rfc, both(cl, "Transfer-Encoding: Chunked", "0\r\n\r\n"), "400", nil},
		{"length beside an unknown coding", rfc, both(cl, "Transfer-Encoding: xchunked", "hello"), "400 501", nil},
		{"length beside identity", rfc, both(cl, "Transfer-Encoding: identity", "hello"), "400 501", nil},
		{"length beside an empty coding", rfc, both(cl, "Transfer-Encoding:", "hello"), "400", nil},
		{"length in small letters beside chunked in capitals", rfc, both("content-length: 5", "TRANSFER-ENCODING: chunked", "0\r\n\r\n"), "400", nil},
		{"malformed length beside chunked", rfc, both("Content-Length: x", te, "0\r\n\r\n"), "400", nil},
		{"two lengths beside chunked", rfc, both(cl+"\r\n"+cl, te, "0\r\n\r\n"), "400", nil},
		{"coding behind obs-fold beside a length", rfc, both("Transfer-Encoding:\r\n chunked", cl, "hello"), "400", nil},
		{"length spelt with an underscore beside chunked", rfc, both("Content_Length: 5", te, "0\r\n\r\n"), "400", nil},
		{"coding spelt with an underscore beside a length", rfc, both("Transfer_Encoding: chunked", cl, "hello"), "400", nil},
		{"length spelt with an underscore", rfc, both("Content_Length: 5", "X: y", ""), "400", nil},
		{"length spelt with an underscore beside a length", rfc, both(cl, "Content_Length: 99", "hello"), "400", nil},
		{"coding spelt with an underscore, capitals", rfc, both("TRANSFER_ENCODING: chunked", "X: y", ""), "400", nil},
		{"chunked", rfc, askChunks("5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"POST /r HTTP/1.1\r\n", "=hello", "Transfer-Encoding: chunked", "!Content-Length"}},
		{"length", rfc, askPost(cl+"\r\n", "hello"), "pass", []string{"=hello", "Content-Length: 5", "!Transfer-Encoding"}},
		{"length 0", rfc, askPost("Content-Length: 0\r\n", ""), "pass", []string{"=", "Content-Length: 0"}},
		{"neither", rfc, askPost("", ""), "pass", []string{"=", "!Transfer-Encoding"}},
		{"length 0 and a byte behind it", rfc, askPost("Content-Length: 0\r\n", "X"), "200", nil},
	}
}

func lengthRows() []strictRow {
	const rfc = "9110 8.6"
	var rows []strictRow
	for _, v := range []string{
		"+5", "-5", "-0", "+0", "0x5", "0X5", "0o5", "0b101", "5 5", "5,5", "5, 5", "5,", ",5", "5;", "5.0", "5e0", "1e1", "5\x0b", "\x0b5", "5\x0c", "\x0c5", "5_0", "1_0",
		"five", "\"5\"", "'5'", "(5)", "5a", "a5", "\xb5", "\xa05", "5\xa0", "\x855", "٥", "Infinity", "NaN", "null", "", "%35", "5 ;", "5 a", "5\x00", "\x005",
		"9223372036854775808", "18446744073709551615", "18446744073709551616", "18446744073709551621", "99999999999999999999", "4294967301-", "00000000000000000005",
		strings.Repeat("9", 100), strings.Repeat("0", 300) + "5", "5\x7f", "٠5", "5, 6", "5,5,5", "5 , 5", "0, 5", "5, 0", "{5}", "5-", "--5", "=5", ":5", "5:5",
	} {
		rows = append(rows, strictRow{fmt.Sprintf("length %.40q", v), rfc, askPost("Content-Length: "+v+"\r\n", "hello"), "400", nil})
	}
	return append(rows, []strictRow{
		{"two equal lengths", rfc, askPost("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "400", nil},
		{"two lengths", rfc, askPost("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), "400", nil},
		{"two lengths, the second 0", rfc, askPost("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"), "400", nil},
		{"two lengths apart", rfc, askPost("Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n", "hello"), "400", nil},
		{"two lengths, the first empty", rfc, askPost("Content-Length:\r\nContent-Length: 5\r\n", "hello"), "400", nil},
		{"two lengths in other letters", rfc, askPost("Content-Length: 5\r\ncontent-length: 5\r\n", "hello"), "400", nil},
		{"length with a blank before the colon", "9112 5.1", askPost("Content-Length : 5\r\n", "hello"), "400", nil},
		{"length with a tab before the colon", "9112 5.1", askPost("Content-Length\t: 5\r\n", "hello"), "400", nil},
		{"length with a line break in its name", "9112 5.1", askPost("Content-\r\nLength: 5\r\n", "hello"), "400", nil},
		{"length with a blank in its name", "9112 5.1", askPost("Content Length: 5\r\n", "hello"), "400", nil},
		{"length without a colon", "9112 5.1", askPost("Content-Length 5\r\n", "hello"), "400", nil},
		{"length with 0x85 behind its name", "9112 5.1", askPost("Content-Length\x85: 5\r\n", "hello"), "400", nil},
		{"length behind obs-fold", "9112 5.2", askPost("Content-Length:\r\n 5\r\n", "hello"), "400", nil},
		{"length folded", "9112 5.2", askPost("Content-Length: 5\r\n 0\r\n", "hello"), "400", nil},
		{"length with blanks around it", "9110 5.5", askPost("Content-Length: \t 5 \t\r\n", "hello"), "pass", []string{"=hello", "Content-Length: 5"}},
		{"length without a blank", "9110 5.5", askPost("Content-Length:5\r\n", "hello"), "pass", []string{"=hello", "Content-Length: 5"}},
		{"length with leading zeros is decimal and written anew", rfc, askPost("Content-Length: 005\r\n", "hello"), "400|pass", []string{"=hello", "Content-Length: 5"}},
		{"length 010 is ten, not eight", rfc, askPost("Content-Length: 010\r\n", "hellohello"), "400|pass", []string{"=hellohello", "Content-Length: 10"}},
		{"length 00", rfc, askPost("Content-Length: 00\r\n", ""), "400|pass", []string{"=", "Content-Length: 0"}},
		{"less than its length", "9112 8", askPost("Content-Length: 10\r\n", "hello") + unfinished, "400 cut", nil},
		{"nothing of its length", "9112 8", askPost("Content-Length: 10\r\n", "") + unfinished, "400 cut", nil},
	}...)
}

func codingRows() []strictRow {
	const rfc = "9112 6.1"
	var rows []strictRow
	for _, v := range []string{
		"xchunked", "chunkedx", "chunked, chunked", "chunked,chunked", "chunked chunked", "chunked, identity", "identity, chunked", "identity", "gzip", "gzip, chunked", "gzip, gzip, chunked", "chunked, gzip", "deflate", "x-gzip, chunked", "br, chunked",
		"chunked;q=1", "chunked; q=0", "chunked;ext=val", "chunked; a=b", "\"chunked\"", "'chunked'", "chunked,", ",chunked", ", chunked", "chunked, ", "chunked, x", "x, chunked",
		"\x0bchunked", "\x0cchunked", "chunked\x0b", "chunked\x0c", "chunked\x00", "\x00chunked", "chu\x00nked", "\xa0chunked", "chunked\xa0", "\x85chunked", "\xffchunked\xff", "ch\xc3\xbcnked",
		"", "chunke", "hunked", "c hunked", "chunk", "CHUNKED;", "chunked\x1f", "chunked-", "ſchunked", "chun\u212aed", "chunked=1", "(chunked)", "[chunked]", "chunked\x7f", "nothing", "cow", "chunked, , x", "null", "0", "true",
	} {
		rows = append(rows, strictRow{fmt.Sprintf("coding %q", v), rfc, askPost("Transfer-Encoding: "+v+"\r\n", "0\r\n\r\n"), "400 501", nil})
	}
	return append(rows, []strictRow{
		{"coding twice", rfc, askPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding twice, the second identity", rfc, askPost("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), "400", nil},
		{"coding twice, the first identity", rfc, askPost("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding twice, the second empty", rfc, askPost("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", "0\r\n\r\n"), "400", nil},
		{"coding twice in other letters", rfc, askPost("Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n", "0\r\n\r\n"), "400", nil},
		{"coding over two lines as a list", rfc, askPost("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400 501", nil},
		{"coding with a blank before the colon", "9112 5.1", askPost("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding with a tab before the colon", "9112 5.1", askPost("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding with a control before the colon", "9112 5.1", askPost("Transfer-Encoding\x0b: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding with a blank before its name", "9112 5.2", askPost("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding first of all, behind a blank", "9112 2.2", "POST /r HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: h.test\r\n\r\n0\r\n\r\n", "400", nil},
		{"coding behind a bare LF", "9112 2.2", askPost("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding behind a bare CR", "9112 2.2", askPost("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding behind NUL", "9110 5.5", askPost("X: y\x00\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding behind obs-fold", "9112 5.2", askPost("Transfer-Encoding:\r\n\tchunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding folded in its value", "9112 5.2", askPost("Transfer-Encoding: chu\r\n nked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding with a line break in its name", "9112 5.1", askPost("Transfer-\r\nEncoding: chunked\r\n", "0\r\n\r\n"), "400", nil},
		{"coding in HTTP/1.0", rfc, ask("POST /r HTTP/1.0", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400", nil},
		{"coding in HTTP/1.0 kept alive", rfc, ask("POST /r HTTP/1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400", nil},
		{"coding beside a length in HTTP/1.0", rfc, ask("POST /r HTTP/1.0", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "hello", "400", nil},
		{"identity in HTTP/1.0", rfc, ask("POST /r HTTP/1.0", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n") + "hello", "400 501", nil},
		{"Chunked in capitals", "9112 7", askPost("Transfer-Encoding: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello", "Transfer-Encoding: chunked"}},
		{"chunked between blanks", "9110 5.5", askPost("Transfer-Encoding: \t chunked \t\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello", "Transfer-Encoding: chunked"}},
		{"chunked behind a tab", "9110 5.5", askPost("Transfer-Encoding:\tchunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello", "Transfer-Encoding: chunked"}},
		{"TRANSFER-ENCODING", "9110 5.1", askPost("TRANSFER-ENCODING: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello", "Transfer-Encoding: chunked"}},
		{"chunked in a request for HTTP/1.2", "9110 2.5", ask("POST /r HTTP/1.2", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", "pass", []string{"POST /r HTTP/1.1\r\n", "=hello"}},
	}...)
}

func chunkRows() []strictRow {
	const rfc = "9112 7.1"
	bad := func(name, body string) strictRow {
		return strictRow{"chunks: " + name, rfc, askChunks(body), "400", nil}
	}
	good := func(name, body, content string) strictRow {
		return strictRow{"chunks: " + name, rfc, askChunks(body), "pass", []string{"=" + content, "Transfer-Encoding: chunked"}}
	}
	rows := []strictRow{
		good("two", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world"),
		good("none", "0\r\n\r\n", ""),
		good("capital digits", "A\r\nhellohello\r\n0\r\n\r\n", "hellohello"),
		good("leading zeros", "0005\r\nhello\r\n000\r\n\r\n", "hello"),
		good("an extension", "5;ext=value\r\nhello\r\n0\r\n\r\n", "hello"),
		good("an extension without a value", "5;ext\r\nhello\r\n0\r\n\r\n", "hello"),
		good("two extensions", "5;a=b;c=d\r\nhello\r\n0\r\n\r\n", "hello"),
		good("a quoted extension", "5;a=\"x;\\\"y \"\r\nhello\r\n0\r\n\r\n", "hello"),
		good("an extension of the last", "5\r\nhello\r\n0;a=b\r\n\r\n", "hello"),
		good("a request in the content", "2d\r\nGET /smuggled HTTP/1.1\r\nHost: h.test\r\nX: \r\n\r\n\r\n0\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: h.test\r\nX: \r\n\r\n"),
		good("a last chunk in the content", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
	}
	for name, body := range map[string]string{
		"a blank before the size":         " 5\r\nhello\r\n0\r\n\r\n",
		"blanks before the last size":     "        0\r\n\r\n",
		"a tab before the size":           "\t5\r\nhello\r\n0\r\n\r\n",
		"a blank behind the size":         "5 \r\nhello\r\n0\r\n\r\n",
		"a tab behind the size":           "5\t\r\nhello\r\n0\r\n\r\n",
		"a blank before an extension":     "5 ;a=b\r\nhello\r\n0\r\n\r\n",
		"0x":                              "0x5\r\nhello\r\n0\r\n\r\n",
		"0X":                              "0X5\r\nhello\r\n0\r\n\r\n",
		"-0x0":                            "-0x0\r\n\r\n",
		"plus":                            "+5\r\nhello\r\n0\r\n\r\n",
		"plus nothing":                    "+0\r\n\r\nX",
		"minus":                           "-5\r\nhello\r\n0\r\n\r\n",
		"an underscore":                   "1_0\r\nhello world!!!!!\r\n0\r\n\r\n",
		"0_2e":                            "0_2e\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"no digit":                        "\r\nhello\r\n0\r\n\r\n",
		"an empty body":                   "\r\n\r\n",
		"letters":                         "hello\r\n0\r\n\r\n",
		"g":                               "g\r\nhello\r\n0\r\n\r\n",
		"a comma":                         "5,5\r\nhello\r\n0\r\n\r\n",
		"a fraction":                      "5.0\r\nhello\r\n0\r\n\r\n",
		"quotes":                          "\"5\"\r\nhello\r\n0\r\n\r\n",
		"NUL behind the size":             "5\x00\r\nhello\r\n0\r\n\r\n",
		"NUL before the size":             "\x005\r\nhello\r\n0\r\n\r\n",
		"a high byte behind the size":     "5\xa0\r\nhello\r\n0\r\n\r\n",
		"17 digits":                       "00000000000000005\r\nhello\r\n0\r\n\r\n",
		"2^63":                            "8000000000000000\r\nhello\r\n0\r\n\r\n",
		"2^64":                            "10000000000000000\r\nhello\r\n0\r\n\r\n",
		"2^64+5":                          "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"2^64-1":                          "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"FFFFFFFFFFFFFFFF0":               "FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n",
		"a thousand zeros":                strings.Repeat("0", 1000) + "5\r\nhello\r\n0\r\n\r\n",
		"bare LF behind the size":         "5\nhello\r\n0\r\n\r\n",
		"bare CR behind the size":         "5\rhello\r\n0\r\n\r\n",
		"CR and a letter behind the size": "5\rX\nhello\r\n0\r\n\r\n",
		"CR CR LF behind the size":        "5\r\r\nhello\r\n0\r\n\r\n",
		"CR CR and an extension":          "5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n",
		"CR LF LF behind the size":        "5\r\n\nhello\r\n0\r\n\r\n",
		"bare LF behind the data":         "5\r\nhello\n0\r\n\r\n",
		"bare CR behind the data":         "5\r\nhello\r0\r\n\r\n",
		"nothing behind the data":         "5\r\nhello0\r\n\r\n",
		"two bytes behind the data":       "5\r\nhelloXX0\r\n\r\n",
		"too much data":                   "5\r\nhello!!\r\n0\r\n\r\n",
		"CRLF twice behind the data":      "5\r\nhello\r\n\r\n0\r\n\r\n",
		"bare LF behind the last size":    "5\r\nhello\r\n0\n\r\n",
		"bare LF at the end":              "5\r\nhello\r\n0\r\n\n",
		"bare CR at the end":              "5\r\nhello\r\n0\r\n\rX",
		"an empty extension":              "5;\r\nhello\r\n0\r\n\r\n",
		"an extension without a name":     "5;=b\r\nhello\r\n0\r\n\r\n",
		"an extension with no value":      "5;a=\r\nhello\r\n0\r\n\r\n",
		"an extension that is no token":   "5;bad[=x\r\nhello\r\n0\r\n\r\n",
		"bare LF in an extension":         "5;a\nhello\r\n0\r\n\r\n",
		"bare LF behind the semicolon":    "5;\nhello\r\n0\r\n\r\n",
		"bare CR in an extension":         "5;a\rb\r\nhello\r\n0\r\n\r\n",
		"bare CRs in an extension":        "41;a=b\r\rXXXXXXXX\r\n0\r\n\r\n",
		"NUL in an extension":             "5;a\x00\r\nhello\r\n0\r\n\r\n",
		"a control in an extension":       "5;a=\x01\r\nhello\r\n0\r\n\r\n",
		"a quote not closed":              "5;a=\"b\r\nhello\r\n0\r\n\r\n",
		"LF in a quoted extension":        "5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n",
		"CRLF in a quoted extension":      "5;a=\"b\r\nc\"\r\nhello\r\n0\r\n\r\n",
		"letters behind a quote":          "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
		"an endless extension":            "5;" + strings.Repeat("e", 4096) + "\r\nhello\r\n0\r\n\r\n",
		"64 KiB of extension":             "5;ext=" + strings.Repeat("e", 64<<10) + "\r\nhello\r\n0\r\n\r\n",
		"endless extensions":              strings.Repeat("1;"+strings.Repeat("e", 250)+"\r\nx\r\n", 100) + "0\r\n\r\n",
		"a size behind garbage":           "1these-bytes\r\nZ\r\n0\r\n\r\n",
		"a colon":                         "5:\r\nhello\r\n0\r\n\r\n",
		"a length in the body":            "Content-Length: 5\r\n\r\nhello",
		"no chunk at all":                 "hello world",
	} {
		rows = append(rows, bad(name, body))
	}
	return append(rows,
		strictRow{"chunks: no last one", "9112 8", askChunks("5\r\nhello\r\n") + unfinished, "400 cut", nil},
		strictRow{"chunks: no end", "9112 8", askChunks("5\r\nhello\r\n0\r\n") + unfinished, "400 cut", nil},
		strictRow{"chunks: half an end", "9112 8", askChunks("5\r\nhello\r\n0\r\n\r") + unfinished, "400 cut", nil},
		strictRow{"chunks: cut in the data", "9112 8", askChunks("5\r\nhel") + unfinished, "400 cut", nil},
		strictRow{"chunks: cut in the size", "9112 8", askChunks("5") + unfinished, "400 cut", nil},
		strictRow{"chunks: nothing", "9112 8", askChunks("") + unfinished, "400 cut", nil},
	)
}

func trailerRows() []strictRow {
	const rfc = "9110 6.5.1"
	with := func(trailers string) string { return askChunks("5\r\nhello\r\n0\r\n" + trailers + "\r\n") }
	var rows []strictRow
	for _, f := range []string{
		"X-Checksum: abc", "Content-Length: 50", "Transfer-Encoding: chunked", "Host: evil.test", "Authorization: Basic eA==", "Content-Type: text/evil", "Connection: close",
		"X-Forwarded-For: 1.2.3.4", "Cookie: a=b", "Trailer: x", "Te: trailers", "Range: bytes=0-0", "Cache-Control: no-store", "If-None-Match: *", "Content-Range: bytes 0-0/1", "Set-Cookie: a=b", "Expect: 100-continue", "X:",
	} {
		name, _, _ := strings.Cut(f, ":")
		sees := []string{"=hello", "Host: h.test"}
		if name != "Host" && name != "Transfer-Encoding" && name != "X-Forwarded-For" {
			sees = append(sees, "!"+name)
		}
		rows = append(rows, strictRow{"trailer " + f, rfc, with(f + "\r\n"), "pass", sees})
	}
	for _, f := range []string{
		"X : y", " X: y", "X: y\r\n z", ": y", "no colon", "X: a\x00b", "X: a\rb", "X: a\nY: b", "X\x00: y", "X[: y", "\tX: y", "X\xff: y", "Content_Length: 5", "X: \x7f", "GET /smuggled HTTP/1.1",
		"X: " + strings.Repeat("t", 16<<10), strings.TrimSuffix(strings.Repeat("X: y\r\n", 1000), "\r\n"),
	} {
		rows = append(rows, strictRow{fmt.Sprintf("trailer %.40q", f), "9112 7.1.2", with(f + "\r\n"), "400 431 cut", nil})
	}
	return rows
}

func lineEndRows() []strictRow {
	const rfc = "9112 2.2"
	rows := []strictRow{
		{"two empty lines before the request", rfc, "\r\n\r\n" + askGet(""), "pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"one empty line before the request", rfc, "\r\n" + askGet(""), "pass", nil},
	}
	for name, raw := range map[string]string{
		"bare LF everywhere":                  strings.ReplaceAll(askGet(""), "\r\n", "\n"),
		"bare LF behind the request line":     "GET /r HTTP/1.1\nHost: h.test\r\n\r\n",
		"bare LF behind a field":              "GET /r HTTP/1.1\r\nHost: h.test\nX: y\r\n\r\n",
		"bare LF behind the last field":       "GET /r HTTP/1.1\r\nHost: h.test\n\r\n",
		"bare LF for the empty line":          "GET /r HTTP/1.1\r\nHost: h.test\r\n\n",
		"two bare LFs at the end":             "GET /r HTTP/1.1\r\nHost: h.test\n\n",
		"bare LF within a value":              askGet("X: a\nb\r\n"),
		"two LFs within a value":              askGet("X:\n\nGET /smuggled HTTP/1.1\r\n"),
		"bare CR behind the request line":     "GET /r HTTP/1.1\rHost: h.test\r\n\r\n",
		"bare CR within a value":              askGet("X: a\rb\r\n"),
		"bare CR behind a value":              askGet("X: a\r\r\n"),
		"bare CR before a value":              askGet("X:\ra\r\n"),
		"bare CR in a name":                   askGet("X\rY: a\r\n"),
		"bare CR before a name":               askGet("\rX: a\r\n"),
		"bare CR before the empty line":       "GET /r HTTP/1.1\r\nHost: h.test\r\n\r\r\n",
		"bare CR for the empty line":          "GET /r HTTP/1.1\r\nHost: h.test\r\n\rZGET /smuggled: HTTP/1.1\r\nHost: h.test\r\n\r\n",
		"only CRs":                            strings.ReplaceAll(askGet(""), "\r\n", "\r"),
		"CR CR LF":                            strings.ReplaceAll(askGet(""), "\r\n", "\r\r\n"),
		"LF CR":                               strings.ReplaceAll(askGet(""), "\r\n", "\n\r"),
		"bare LF before the request":          "\n" + askGet(""),
		"bare CR before the request":          "\r" + askGet(""),
		"a hundred empty lines":               strings.Repeat("\r\n", 100) + askGet(""),
		"a blank line before the fields":      "GET /r HTTP/1.1\r\n \r\nHost: h.test\r\n\r\n",
		"a blank before the first field":      "GET /r HTTP/1.1\r\n Host: h.test\r\n\r\n",
		"a tab before the first field":        "GET /r HTTP/1.1\r\n\tHost: h.test\r\n\r\n",
		"a blank line between the fields":     askGet("X: y\r\n \r\nZ: a\r\n"),
		"a blank line at the end":             "GET /r HTTP/1.1\r\nHost: h.test\r\n \r\n\r\n",
		"a vertical tab for a line end":       askGet("X: a\x0bY: b\r\n"),
		"a form feed for a line end":          askGet("X: a\x0cY: b\r\n"),
		"obs-fold with a blank":               askGet("X: a\r\n b\r\n"),
		"obs-fold with a tab":                 askGet("X: a\r\n\tb\r\n"),
		"obs-fold of nothing":                 askGet("X: a\r\n \r\n"),
		"obs-fold of Host":                    "GET /r HTTP/1.1\r\nHost:\r\n h.test\r\n\r\n",
		"obs-fold of a field that frames":     askGet("X: a\r\n Content-Length: 5\r\n"),
		"a byte order mark before the method": "\xef\xbb\xbf" + askGet(""),
	} {
		rows = append(rows, strictRow{"lines: " + name, rfc, raw, "400", nil})
	}
	return append(rows,
		strictRow{"lines: a head that ends early", "9112 8", "GET /r HTTP/1.1\r\nHost: h.te" + unfinished, "400 cut", nil},
		strictRow{"lines: a head without its empty line", "9112 8", "GET /r HTTP/1.1\r\nHost: h.test\r\n" + unfinished, "400 cut", nil},
		strictRow{"lines: nothing", "9112 8", unfinished, "400 cut", nil},
	)
}

func fieldRows() []strictRow {
	rows := []strictRow{
		{"an empty value", "9110 5.5", askGet("X:\r\n"), "pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"blanks for a value", "9110 5.5", askGet("X: \t \r\n"), "pass", nil},
		{"tabs within a value", "9110 5.5", askGet("X: a\tb\r\n"), "pass", []string{"X: a\tb"}},
		{"blanks around a value", "9110 5.5", askGet("X:   a b \t\r\n"), "pass", []string{"X: a b"}},
		{"obs-text in a value", "9110 5.5", askGet("X: caf\xe9 \xff\x80\r\n"), "pass", []string{"X: caf\xe9 \xff\x80"}},
		{"a colon in a value", "9110 5.5", askGet("X: a:b: c\r\n"), "pass", []string{"X: a:b: c"}},
		{"every tchar in a name", "9110 5.6.2", askGet("aZ09!#$%&'*+-.^_`|~: y\r\n"), "pass", []string{"aZ09!#$%&'*+-.^_`|~: y"}},
		{"a name twice", "9110 5.3", askGet("X: a\r\nX: b\r\n"), "pass", []string{"X: a | b"}},
		{"a long value", "9110 5.4", askGet("X: " + strings.Repeat("a", 8000) + "\r\n"), "pass", nil},
		{"a value too long", "9110 5.4", askGet("X: " + strings.Repeat("a", 64<<10) + "\r\n"), "431", nil},
		{"a name too long", "9110 5.4", askGet(strings.Repeat("X", 64<<10) + ": a\r\n"), "431", nil},
		{"5,000 fields", "9110 5.4", askGet(strings.Repeat("X: y\r\n", 5000)), "431", nil},
		{"5,000 fields of other names", "9110 5.4", askGet(manyFields(5000)), "431", nil},
		{"129 fields", "9110 5.4", askGet(manyFields(128)), "431", nil},
		{"100 fields", "9110 5.4", askGet(manyFields(100)), "pass", []string{"X-99: y"}},
	}
	for name, field := range map[string]string{
		"no colon": "nonsense", "no name": ": a", "only a colon": ":", "a blank before the colon": "X : a", "a tab before the colon": "X\t: a", "a blank in the name": "X Y: a", "brackets in the name": "X[]: a",
		"a slash in the name": "X/Y: a", "a quote in the name": "X\"Y: a", "an at in the name": "X@Y: a", "a comma in the name": "X,Y: a", "a semicolon in the name": "X;Y: a", "an equals in the name": "X=Y: a", "braces in the name": "{X}: a",
		"angles in the name": "<X>: a", "a question mark in the name": "X?: a", "a backslash in the name": "X\\Y: a", "a parenthesis in the name": "X(Y): a", "a high byte in the name": "X\xe9: a", "utf-8 in the name": "Xé: a", "0xa0 behind the name": "X\xa0: a",
		"0x85 behind the name": "X\x85: a", "NUL in the name": "X\x00: a", "NUL in the value": "X: a\x00b", "NUL behind the value": "X: a\x00", "DEL in the value": "X: a\x7f", "BEL in the value": "X: a\x07", "DEL in the name": "X\x7f: a", "a request line": "GET / HTTP/1.1",
		"a status line": "HTTP/1.1 200 OK", "a name and no end": "\x00", "a colon before the name": ":X: a",
	} {
		rows = append(rows, strictRow{"field: " + name, "9112 5", askGet(field + "\r\n"), "400", nil})
	}
	return rows
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: y\r\n", i)
	}
	return b.String()
}

func hostRows() []strictRow {
	const rfc = "9112 3.2"
	raw := func(requestLine, fields string) string { return requestLine + "\r\n" + fields + "\r\n" }
	rows := []strictRow{
		{"no Host", rfc, raw("GET /r HTTP/1.1", ""), "400", nil},
		{"no Host but an absolute form", rfc, raw("GET http://h.test/r HTTP/1.1", ""), "400", nil},
		{"no Host in HTTP/1.0", rfc, raw("GET /r HTTP/1.0", ""), "200", nil},
		{"Host twice", rfc, askGet("Host: h.test\r\n"), "400", nil},
		{"two Hosts", rfc, askGet("Host: evil.test\r\n"), "400", nil},
		{"two Hosts, apart and in other letters", rfc, askGet("X: y\r\nhOST: evil.test\r\n"), "400", nil},
		{"two Hosts in HTTP/1.0", rfc, ask("GET /r HTTP/1.0", "Host: evil.test\r\n"), "400", nil},
		{"two Hosts, the second empty", rfc, askGet("Host:\r\n"), "400", nil},
		{"Host with a blank before the colon", "9112 5.1", raw("GET /r HTTP/1.1", "Host : h.test\r\n"), "400", nil},
		{"two Hosts, one with a blank before the colon", "9112 5.1", askGet("Host : evil.test\r\n"), "400", nil},
		{"Host with an underscore beside it", rfc, askGet("X_Host: evil.test\r\n"), "pass", []string{"Host: h.test"}},
		{"absolute form, same Host", "9112 3.2.2", ask("GET http://h.test/r HTTP/1.1", ""), "pass", []string{"GET /r HTTP/1.1\r\n", "Host: h.test"}},
		{"absolute form, other Host: the target's counts", "9112 3.2.2", raw("GET http://other.test/r HTTP/1.1", "Host: h.test\r\n"), "pass", []string{"GET /r HTTP/1.1\r\n", "Host: other.test"}},
		{"absolute form without a path", "9112 3.2.1", ask("GET http://h.test HTTP/1.1", ""), "pass", []string{"GET / HTTP/1.1\r\n", "Host: h.test"}},
		{"absolute form without a path, with a query", "9112 3.2.1", ask("GET http://h.test?q HTTP/1.1", ""), "pass", []string{"GET /?q HTTP/1.1\r\n"}},
		{"absolute form in capitals", "9110 4.2.3", ask("GET HTTP://H.TEST/r HTTP/1.1", ""), "pass", []string{"Host: h.test"}},
		{"absolute form, two Hosts", rfc, ask("GET http://h.test/r HTTP/1.1", "Host: evil.test\r\n"), "400", nil},
		{"absolute form with userinfo", "9110 4.2.4", ask("GET http://user@h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form with userinfo and a password", "9110 4.2.4", ask("GET http://user:pw@h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form of https", "9110 4.2.2", ask("GET https://h.test/r HTTP/1.1", ""), "421", nil},
		{"absolute form of ftp", "9112 3.2.2", ask("GET ftp://h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form of file", "9112 3.2.2", ask("GET file:///etc/passwd HTTP/1.1", ""), "400", nil},
		{"absolute form of gopher", "9112 3.2.2", ask("GET gopher://h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form of javascript", "9112 3.2.2", ask("GET javascript:alert(1) HTTP/1.1", ""), "400", nil},
		{"absolute form of httpx", "9112 3.2.2", ask("GET httpx://h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form with one slash", "9112 3.2.2", ask("GET http:/h.test/r HTTP/1.1", ""), "400", nil},
		{"absolute form with three slashes", "9110 4.2.1", ask("GET http:///r HTTP/1.1", ""), "400", nil},
		{"absolute form without an authority", "9110 4.2.1", ask("GET http:// HTTP/1.1", ""), "400", nil},
		{"absolute form with backslashes", "9112 3.2.2", ask("GET http:\\\\h.test\\r HTTP/1.1", ""), "400", nil},
		{"absolute form with a port", "9112 3.2.2", ask("GET http://h.test:8080/r HTTP/1.1", ""), "pass", []string{"Host: h.test:8080"}},
		{"absolute form with a fragment", "9112 3.2.2", ask("GET http://h.test/r#f HTTP/1.1", ""), "400", nil},
		{"absolute form with an invalid Host field", rfc, raw("GET http://h.test/r HTTP/1.1", "Host: a b\r\n"), "400", nil},
		{"a target without a scheme", "9112 3.2.2", ask("GET h.test/r HTTP/1.1", ""), "400", nil},
		{"a network path", "9112 3.2.1", ask("GET //evil.test/r HTTP/1.1", ""), "pass", []string{"GET //evil.test/r HTTP/1.1\r\n", "Host: h.test"}},
		{"Host in capitals", "9110 4.2.3", raw("GET /r HTTP/1.1", "HOST: H.TEST\r\n"), "pass", []string{"Host: h.test"}},
		{"Host with the default port", "9110 4.2.3", raw("GET /r HTTP/1.1", "Host: h.test:80\r\n"), "pass", []string{"Host: h.test"}},
		{"Host with a port", rfc, raw("GET /r HTTP/1.1", "Host: h.test:8080\r\n"), "pass", []string{"Host: h.test:8080"}},
		{"Host of IPv4", rfc, raw("GET /r HTTP/1.1", "Host: 127.0.0.1\r\n"), "pass", []string{"Host: 127.0.0.1"}},
		{"Host of IPv6", rfc, raw("GET /r HTTP/1.1", "Host: [::1]:80\r\n"), "pass", []string{"Host: [::1]"}},
		{"Host nominated by Connection", "9110 7.6.1", askGet("Connection: Host\r\n"), "pass", []string{"Host: h.test"}},
	}
	for _, v := range []string{
		"", "a b", "a/b", "/", "a?b", "a#b", "a@b", "user@h.test", "user:pw@h.test", "h.test, evil.test", "h.test,evil.test", "h.test:80:80", "h.test:", "h.test:0", "h.test:65536", "h.test:99999999", "h.test:-1", "h.test:80a", "h.test:+80", "h.test: 80", "h.test :80",
		"h.test\x00.evil.test", "h.test\\evil.test", "h.test%00", "h%2etest", "h.te\xffst", "\xe9.test", "[::1", "::1", "[::1]x", "[]", "[::g]", "[1::2::3]", "[::1%eth0]", "h.test;evil", "h'test", "h\"test\"", "<h.test>", "{h.test}", "h.test|", "h.test\t", "*", "http://h.test", "(h.test)", "h.test\x0b", strings.Repeat("a", 300), "$h", "h.test&x", "h=test", "h!test",
	} {
		want := "400"
		if v == "h.test\t" {
			want = "pass" // a blank at the end is none of the value
		}
		rows = append(rows, strictRow{fmt.Sprintf("Host %.40q", v), rfc, raw("GET /r HTTP/1.1", "Host: "+v+"\r\n"), want, nil})
	}
	return rows
}

func requestLineRows() []strictRow {
	const rfc = "9112 3"
	rows := []strictRow{
		{"a percent-encoded NUL", rfc, ask("GET /r%00.html HTTP/1.1", ""), "pass", []string{"GET /r%00.html HTTP/1.1\r\n"}},
		{"a percent-encoded line break", rfc, ask("GET /r%0d%0aX:%20y HTTP/1.1", ""), "pass", []string{"GET /r%0D%0AX:%20y HTTP/1.1\r\n", "!X"}},
		{"a percent-encoded slash", rfc, ask("GET /a%2fr HTTP/1.1", ""), "pass", []string{"GET /a%2Fr HTTP/1.1\r\n"}},
		{"percent-encodings in both letters", "3986 6.2.2.1", ask("GET /r%3a%3A%c3%BC?%3a%3A%41 HTTP/1.1", ""), "pass", []string{"GET /r%3A%3A%C3%BC?%3a%3A%41 HTTP/1.1\r\n"}},
		{"dot segments", "3986 5.2.4", ask("GET /a/../r/./b HTTP/1.1", ""), "pass", []string{"GET /r/b HTTP/1.1\r\n"}},
		{"dot segments beyond the root", "3986 5.2.4", ask("GET /../../r HTTP/1.1", ""), "pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"encoded dot segments", "3986 6.2.2.3", ask("GET /a/%2e%2e/r HTTP/1.1", ""), "pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"empty segments", rfc, ask("GET //a//r HTTP/1.1", ""), "pass", []string{"GET //a//r HTTP/1.1\r\n"}},
		{"a semicolon in the path", rfc, ask("GET /r;jsessionid=1 HTTP/1.1", ""), "pass", []string{"GET /r;jsessionid=1 HTTP/1.1\r\n"}},
		{"a query with semicolons", rfc, ask("GET /r?a=1;b=2&a=3 HTTP/1.1", ""), "pass", []string{"GET /r?a=1;b=2&a=3 HTTP/1.1\r\n"}},
		{"an empty query", rfc, ask("GET /r? HTTP/1.1", ""), "pass", []string{"GET /r? HTTP/1.1\r\n"}},
		{"two question marks", rfc, ask("GET /r?a?b HTTP/1.1", ""), "pass", []string{"GET /r?a?b HTTP/1.1\r\n"}},
		{"overlong UTF-8, encoded", rfc, ask("GET /r%c0%ae HTTP/1.1", ""), "pass", []string{"GET /r%C0%AE HTTP/1.1\r\n"}},
		{"a long target", rfc, ask("GET /r?"+strings.Repeat("a", 7000)+" HTTP/1.1", ""), "pass", nil},
		{"a target too long", rfc, ask("GET /r?"+strings.Repeat("a", 100<<10)+" HTTP/1.1", ""), "414", nil},
		{"OPTIONS *", "9112 3.2.4", ask("OPTIONS * HTTP/1.1", ""), "pass", nil},
		{"CONNECT with a path", "9112 3.2.3", ask("CONNECT /r HTTP/1.1", ""), "400", nil},
		{"CONNECT without a port", "9112 3.2.3", ask("CONNECT h.test HTTP/1.1", ""), "400", nil},
		{"CONNECT with userinfo", "9112 3.2.3", ask("CONNECT a@h.test:443 HTTP/1.1", ""), "400", nil},
		{"CONNECT", "9110 9.3.6", ask("CONNECT h.test:443 HTTP/1.1", ""), "403 405", nil},
		{"CONNECT with content", "9110 9.3.6", ask("CONNECT h.test:443 HTTP/1.1", "Content-Length: 5\r\n") + "hello", "400 403 405", nil},
		{"an authority form", "9112 3.2.3", ask("GET h.test:80 HTTP/1.1", ""), "400", nil},
		{"HTTP/0.9", rfc, "GET /r\r\n", "400", nil},
		{"HTTP/0.9 with fields", rfc, ask("GET /r", ""), "400", nil},
		{"no target", rfc, ask("GET HTTP/1.1", ""), "400", nil},
		{"no target, two blanks", rfc, ask("GET  HTTP/1.1", ""), "400", nil},
		{"no method", rfc, ask(" /r HTTP/1.1", ""), "400", nil},
		{"only a version", rfc, ask("HTTP/1.1", ""), "400", nil},
		{"a status line", rfc, ask("HTTP/1.1 200 OK", ""), "400", nil},
		{"GET *", "9112 3.2.4", ask("GET * HTTP/1.1", ""), "400", nil},
		{"POST *", "9112 3.2.4", ask("POST * HTTP/1.1", "Content-Length: 0\r\n"), "400", nil},
		{"OPTIONS **", "9112 3.2.4", ask("OPTIONS ** HTTP/1.1", ""), "400", nil},
		{"OPTIONS */r", "9112 3.2.4", ask("OPTIONS */r HTTP/1.1", ""), "400", nil},
	}
	for name, l := range map[string]string{
		"two blanks before the target": "GET  /r HTTP/1.1", "two blanks before the version": "GET /r  HTTP/1.1", "a blank at the end": "GET /r HTTP/1.1 ", "a blank before the method": " GET /r HTTP/1.1", "a tab before the target": "GET\t/r HTTP/1.1",
		"a tab before the version": "GET /r\tHTTP/1.1", "a vertical tab": "GET\x0b/r HTTP/1.1", "a form feed": "GET /r\x0cHTTP/1.1", "a no-break space": "GET\xa0/r HTTP/1.1", "four parts": "GET /r x HTTP/1.1", "a blank in the target": "GET /a r HTTP/1.1",
		"two versions": "GET /r HTTP/1.1 HTTP/1.1", "two requests": "GET /r HTTP/1.1GET /r HTTP/1.1", "a tab in the target": "GET /a\tr HTTP/1.1", "a fragment": "GET /r#f HTTP/1.1", "a lone #": "GET /r# HTTP/1.1", "a backslash": "GET /a\\r HTTP/1.1", "a backslash first": "GET \\r HTTP/1.1",
		"no slash": "GET r HTTP/1.1", "a question mark first": "GET ?r HTTP/1.1", "a percent and no digits": "GET /% HTTP/1.1", "a percent and one digit": "GET /%4 HTTP/1.1", "a percent and letters": "GET /%zz HTTP/1.1", "a percent and a u": "GET /%u0041 HTTP/1.1",
		"a quote": "GET /\"r\" HTTP/1.1", "angles": "GET /<r> HTTP/1.1", "a high byte": "GET /caf\xe9 HTTP/1.1", "utf-8": "GET /café HTTP/1.1", "NUL": "GET /\x00r HTTP/1.1", "DEL": "GET /r\x7f HTTP/1.1", "ESC": "GET /\x1br HTTP/1.1", "a bare CR": "GET /r\rHTTP/1.1", "a bare LF": "GET /r\nHTTP/1.1",
		"an overlong UTF-8 dot": "GET /\xc0\xae HTTP/1.1", "a colon only": "GET : HTTP/1.1", "a full stop": "GET . HTTP/1.1", "@": "GET @h.test/r HTTP/1.1", "an exclamation mark": "GET ! HTTP/1.1", "no blank before the version": "GET /rHTTP/1.1",
	} {
		rows = append(rows, strictRow{"request line: " + name, rfc, ask(l, ""), "400", nil})
	}
	return rows
}

func methodRows() []strictRow {
	const rfc = "9110 9.1"
	rows := []strictRow{
		{"get in small letters is another method", rfc, ask("get /r HTTP/1.1", ""), "400 405 501|pass", []string{"get /r HTTP/1.1\r\n"}},
		{"an unknown method", rfc, ask("FOOBAR /r HTTP/1.1", ""), "400 405 501|pass", []string{"FOOBAR /r HTTP/1.1\r\n"}},
		{"a method of odd tchars", rfc, ask("!#$%&'*+-.^_`|~ /r HTTP/1.1", ""), "400 405 501|pass", []string{"!#$%&'*+-.^_`|~ /r HTTP/1.1\r\n"}},
		{"a long method", rfc, ask(strings.Repeat("M", 40)+" /r HTTP/1.1", ""), "501", nil},
		{"a very long method", rfc, ask(strings.Repeat("M", 100<<10)+" /r HTTP/1.1", ""), "501", nil},
		{"PUT", rfc, ask("PUT /r HTTP/1.1", "Content-Length: 1\r\n") + "x", "pass", []string{"PUT /r HTTP/1.1\r\n", "=x"}},
		{"DELETE with content", "9110 9.3.5", ask("DELETE /r HTTP/1.1", "Content-Length: 1\r\n") + "x", "pass", []string{"DELETE /r HTTP/1.1\r\n", "=x"}},
		{"PATCH", rfc, ask("PATCH /r HTTP/1.1", "Content-Length: 1\r\n") + "x", "pass", []string{"=x"}},
		{"OPTIONS with content", rfc, ask("OPTIONS /r HTTP/1.1", "Content-Length: 1\r\n") + "x", "pass", []string{"=x"}},
		{"TRACE with content", "9110 9.3.8", ask("TRACE /r HTTP/1.1", "Content-Length: 5\r\n") + "hello", "400", nil},
		{"TRACE with chunks", "9110 9.3.8", ask("TRACE /r HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400", nil},
		{"PRI", "9113 3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 505", nil},
		{"SM", "9113 3.4", "SM\r\n\r\n", "400", nil},
	}
	for name, m := range map[string]string{
		"no token": "G@T", "quotes": "\"GET\"", "a colon": "GET:", "a slash": "G/T", "a bracket": "G[T", "a brace": "{GET}", "NUL": "GET\x00", "a high byte": "G\xc9T", "a comma": "GET,POST", "an equals": "G=", "a parenthesis": "G(T)", "a semicolon": "GET;", "an angle": "<GET>", "a backslash": "G\\T", "DEL": "GET\x7f", "a prefix": "Extra lineGET",
	} {
		rows = append(rows, strictRow{"method: " + name, rfc, ask(m+" /r HTTP/1.1", ""), "400", nil})
	}
	return rows
}

func versionRows() []strictRow {
	const rfc = "9112 2.3"
	rows := []strictRow{
		{"HTTP/1.0", rfc, ask("GET /r HTTP/1.0", ""), "200", nil},
		{"HTTP/1.0 kept alive", "9112 9.3", ask("GET /r HTTP/1.0", "Connection: keep-alive\r\n"), "pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"HTTP/1.2", "9110 2.5", ask("GET /r HTTP/1.2", ""), "505|pass", []string{"GET /r HTTP/1.1\r\n"}},
		{"HTTP/1.9", "9110 2.5", ask("GET /r HTTP/1.9", ""), "505|pass", []string{"GET /r HTTP/1.1\r\n"}},
	}
	for _, v := range []string{
		"HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/0.9", "HTTP/0.0", "HTTP/9.9", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1.10", "HTTP/11.1", "HTTP/01.1", "HTTP/1.01", "HTTP/1.1.1", "HTTP/1,1", "HTTP/1.x", "HTTP/x.1", "HTTP/ 1.1", "HTTP /1.1", "HTTP/1 .1", "HTTP/1. 1", "HTTP/-1.1", "HTTP/+1.1",
		"http/1.1", "Http/1.1", "HTTP/1.1\x00", "HTTP\\1.1", "HTTP1.1", "HTTP//1.1", "HTTPS/1.1", "XTTP/1.1", "ICY/1.1", "HTTP/1.1x", "xHTTP/1.1", "HTTP/1.1;", "\"HTTP/1.1\"", "HTTP/1.1\x0b", "HTTP/1.1\xa0", "HTTP/\xef\xbc\x91.1", "RTSP/1.0", "SIP/2.0", "HTTP/4294967297.1", "HTTP/1.4294967297", "HTTP/\r\r1.1", "1.1", "HTTP", "-", "HTTP/1.1\t",
	} {
		rows = append(rows, strictRow{fmt.Sprintf("version %q", v), rfc, ask("GET /r "+v, ""), "400 505", nil})
	}
	return rows
}

func contentRows() []strictRow {
	return []strictRow{
		{"GET with content", "9110 9.3.1", ask("GET /r HTTP/1.1", "Content-Length: 5\r\n") + "hello", "pass", []string{"=hello", "Content-Length: 5"}},
		{"GET with chunks", "9110 9.3.1", ask("GET /r HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", "pass", []string{"=hello"}},
		{"GET with a request for content", "9110 9.3.1", ask("GET /r HTTP/1.1", "Content-Length: 23\r\n") + "GET /smuggled HTTP/1.1\r\n", "200", nil},
		{"GET with the beginning of a request for content", "9110 9.3.1", ask("GET /r HTTP/1.1", "Content-Length: 27\r\n") + "GET /smuggled HTTP/1.1\r\nX: ", "pass", []string{"=GET /smuggled HTTP/1.1\r\nX: "}},
		{"GET with length 0", "9110 9.3.1", ask("GET /r HTTP/1.1", "Content-Length: 0\r\n"), "pass", []string{"="}},
		{"HEAD with content", "9110 9.3.2", ask("HEAD /r HTTP/1.1", "Content-Length: 5\r\n") + "hello", "pass", []string{"=hello"}},
		{"HEAD with chunks", "9110 9.3.2", ask("HEAD /r HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", "pass", []string{"=hello"}},
		{"HEAD", "9110 9.3.2", ask("HEAD /r HTTP/1.1", ""), "pass", []string{"HEAD /r HTTP/1.1\r\n"}},
		{"Expect beside content that has come", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"), "pass", []string{"=hello"}},
		{"Expect in capitals", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect: 100-Continue\r\n", "hello"), "pass", []string{"=hello"}},
		{"Expect without content", "9110 10.1.1", askGet("Expect: 100-continue\r\n"), "pass", []string{"!Expect"}},
		{"Expect with chunks", "9110 10.1.1", askPost("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello"}},
		{"Expect of something else", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect: 200-ok\r\n", "hello"), "417", nil},
		{"Expect of two", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect: 100-continue, x\r\n", "hello"), "417", nil},
		{"Expect with a control", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect: 100-continue\x0b\r\n", "hello"), "400", nil},
		{"Expect folded", "9112 5.2", askPost("Content-Length: 5\r\nExpect:\r\n 100-continue\r\n", "hello"), "400", nil},
		{"an empty Expect", "9110 10.1.1", askPost("Content-Length: 5\r\nExpect:\r\n", "hello"), "417|pass", []string{"=hello", "!Expect"}},
		{"Expect in HTTP/1.0", "9110 10.1.1", ask("POST /r HTTP/1.0", "Connection: keep-alive\r\nContent-Length: 5\r\nExpect: 100-continue\r\n") + "hello", "pass", []string{"=hello", "!Expect"}},
		{"a range beside content", "9110 14.2", askPost("Content-Length: 5\r\nRange: bytes=0-10\r\n", "hello"), "pass", []string{"=hello"}},
		{"two content types", "9110 8.3", askPost("Content-Length: 5\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n", "hello"), "400|pass", []string{"=hello"}},
		{"content that is a whole request", "9112 11.2", askPost("Content-Length: 43\r\n", "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n"), "400|pass", nil},
	}
}

func connectionRows() []strictRow {
	const rfc = "9110 7.6.1"
	rows := []strictRow{
		{"Connection: close", "9112 9.3", askGet("Connection: close\r\n"), "200", nil},
		{"Connection: close among others", "9112 9.3", askGet("Connection: keep-alive, close\r\n"), "200", nil},
		{"a nominated field", rfc, askGet("Connection: X\r\nX: y\r\n"), "pass", []string{"!X", "!Connection"}},
		{"a field nominated in other letters", rfc, askGet("Connection: x-SECRET\r\nX-Secret: y\r\n"), "pass", []string{"!X-Secret"}},
		{"fields nominated over two lines", rfc, askGet("Connection: A\r\nConnection: B\r\nA: 1\r\nB: 2\r\nC: 3\r\n"), "pass", []string{"!A", "!B", "C: 3"}},
		{"Content-Length nominated", rfc, askPost("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"), "pass", []string{"=hello", "Content-Length: 5"}},
		{"Transfer-Encoding nominated", rfc, askPost("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "pass", []string{"=hello"}},
		{"Authorization nominated", rfc, askGet("Connection: Authorization\r\nAuthorization: Basic eA==\r\n"), "pass", []string{"Authorization: Basic eA=="}},
		{"Cookie nominated", rfc, askGet("Connection: Cookie\r\nCookie: a=b\r\n"), "pass", []string{"Cookie: a=b"}},
		{"X-Forwarded-For nominated", rfc, askGet("Connection: X-Forwarded-For\r\n"), "pass", []string{"X-Forwarded-For: 127.0.0.1"}},
		{"Via nominated", rfc, askGet("Connection: Via\r\n"), "pass", []string{"Via: 1.1 trafficd"}},
		{"Cache-Control nominated", rfc, askGet("Connection: Cache-Control\r\nCache-Control: no-cache\r\n"), "pass", []string{"Cache-Control: no-cache"}},
		{"a malformed Connection", rfc, askGet("Connection: a b\r\n"), "400", nil},
		{"a quoted Connection", rfc, askGet("Connection: \"close\"\r\n"), "400", nil},
		{"an empty Connection", rfc, askGet("Connection:\r\n"), "pass", nil},
		{"commas in Connection", rfc, askGet("Connection: , ,keep-alive,,\r\n"), "pass", nil},
		{"64 options", rfc, askGet("Connection: " + strings.Repeat("z,", 63) + "X\r\nX: y\r\nY: y\r\n"), "pass", []string{"!X", "Y: y"}},
		{"65 options", rfc, askGet("Connection: " + strings.Repeat("z,", 65) + "\r\n"), "431", nil},
		{"65 options over some lines", rfc, askGet(strings.Repeat("Connection: a, b, c, d, e\r\n", 13)), "431", nil},
		{"15,000 options", rfc, askGet("Connection: " + strings.Repeat("z,", 15000) + "\r\n" + manyFields(100)), "431", nil},
		{"a control in Connection", rfc, askGet("Connection: close\x0b\r\n"), "400", nil},
		{"Keep-Alive", rfc, askGet("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"), "pass", []string{"!Keep-Alive"}},
		{"Proxy-Connection", "9112 C.2.2", askGet("Proxy-Connection: keep-alive\r\n"), "pass", []string{"!Proxy-Connection"}},
		{"TE", "9110 10.1.4", askGet("Connection: TE\r\nTE: trailers, gzip\r\n"), "pass", []string{"!TE"}},
		{"TE not nominated", "9110 10.1.4", askGet("TE: gzip\r\n"), "pass", []string{"!TE"}},
		{"Trailer", "9110 6.6.2", askGet("Trailer: Content-Length\r\n"), "pass", []string{"!Trailer"}},
		{"Proxy-Authorization", "9110 11.7.2", askGet("Proxy-Authorization: Basic eA==\r\n"), "pass", []string{"!Proxy-Authorization"}},
		{"Upgrade to h2c", "9113 3.1", askGet("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"), "pass", []string{"!Upgrade", "!HTTP2-Settings", "!Connection"}},
		{"Upgrade to h2c in other letters", "9113 3.1", askGet("Connection: upgrade\r\nUpgrade: H2C\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade to h2c among others", "9113 3.1", askGet("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade to HTTP/2.0", "9113 3.1", askGet("Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade to TLS", "2817 3", askGet("Connection: upgrade\r\nUpgrade: TLS/1.0\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade twice", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade to more than anybody has", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: " + strings.Repeat("p,", 65) + "\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade not nominated", "9110 7.8", askGet("Upgrade: websocket\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade in HTTP/1.0", "9110 7.8", ask("GET /r HTTP/1.0", "Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n"), "pass", []string{"!Upgrade"}},
		{"Upgrade with content", "9110 7.8", askPost("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"), "pass", []string{"=hello", "!Upgrade"}},
		{"Upgrade to nothing", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade:\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c in quotes", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: \"h2c\"\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c behind a blank", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket h2c\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c behind a tab", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: x\th2c\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c with a parameter", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: h2c;q=1\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c in a comment", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: (h2c)\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to h2c in a version", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: x/1/h2c\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to no version", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket/\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to what is no protocol among others", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket, \"h2c\"\r\n"), "pass", []string{"!Upgrade", "!Connection"}},
		{"Upgrade to several", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket, irc/6.9\r\n"), "pass", []string{"Upgrade: websocket, irc/6.9", "Connection: Upgrade"}},
		{"Upgrade that the origin does not take", "9110 7.8", askGet("Connection: upgrade\r\nUpgrade: websocket\r\n"), "pass", []string{"Upgrade: websocket", "Connection: Upgrade"}},
		{"X-Forwarded-For appended", "7239 8.1", askGet("X-Forwarded-For: 1.2.3.4\r\nX: y\r\nX-Forwarded-For: 5.6.7.8\r\n"), "pass", []string{"X-Forwarded-For: 1.2.3.4, 5.6.7.8, 127.0.0.1"}},
		{"X-Forwarded-For with what is no address", "7239 8.1", askGet("X-Forwarded-For: 1.2.3.4, <evil>, [2001:db8::1]:80,, a.test, unknown\r\n"), "pass", []string{"X-Forwarded-For: 1.2.3.4, [2001:db8::1]:80, unknown, 127.0.0.1"}},
		{"an address that is one", "7239 1", askGet("X-Real-IP: 1.2.3.4\r\nTrue-Client-IP: ::1\r\n"), "pass", []string{"X-Real-IP: 1.2.3.4", "True-Client-IP: ::1"}},
		{"an address that is none", "7239 1", askGet("X-Real-IP: <evil>\r\nTrue-Client-IP: a.test\r\n"), "pass", []string{"!X-Real-IP", "!True-Client-IP"}},
		{"X-Forwarded-For empty", "7239 8.1", askGet("X-Forwarded-For:\r\n"), "pass", []string{"X-Forwarded-For: 127.0.0.1"}},
		{"X_Forwarded_For", "3875 4.1.18", askGet("X_Forwarded_For: 1.2.3.4\r\n"), "pass", []string{"!X_Forwarded_For", "X-Forwarded-For: 127.0.0.1"}},
		{"X-Forwarded_For", "3875 4.1.18", askGet("X-Forwarded_For: 1.2.3.4\r\n"), "pass", []string{"!X-Forwarded_For"}},
		{"Authorization with an underscore", "3875 4.1.18", askGet("Proxy_Authorization: x\r\nIf_None_Match: *\r\n"), "pass", []string{"!Proxy_Authorization", "!If_None_Match"}},
		{"an underscore that looks like nothing", "9110 5.1", askGet("my_field: y\r\n"), "pass", []string{"my_field: y"}},
		{"Proxy", "3875 4.1.18", askGet("Proxy: http://evil.test\r\n"), "pass", []string{"!Proxy"}},
		{"X-Original-URL", "9110 7.1", askGet("X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n"), "pass", []string{"!X-Original-URL", "!X-Rewrite-URL"}},
		{"a method override of a GET", "9110 9.2.1", askGet("X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n"), "pass", []string{"!X-HTTP-Method-Override", "!X-HTTP-Method", "!X-Method-Override"}},
		{"a method override of a POST", "9110 9.2.1", askPost("X-HTTP-Method-Override: PATCH\r\nContent-Length: 5\r\n", "hello"), "pass", []string{"X-HTTP-Method-Override: PATCH"}},
		{"Max-Forwards not of TRACE", "9110 7.6.2", askGet("Max-Forwards: 0\r\n"), "pass", []string{"Max-Forwards: 0"}},
		{"Max-Forwards of OPTIONS", "9110 7.6.2", ask("OPTIONS /r HTTP/1.1", "Max-Forwards: 5\r\n"), "pass", []string{"Max-Forwards: 4"}},
		{"Max-Forwards 0 of OPTIONS", "9110 7.6.2", ask("OPTIONS /r HTTP/1.1", "Max-Forwards: 0\r\n"), "pass", nil},
	}
	return rows
}

// byteRows puts every control byte everywhere it may not stand.
func byteRows() []strictRow {
	var rows []strictRow
	for c := range 256 {
		if c >= 0x20 && c != 0x7f && c < 0x80 || c == 0xff-1 {
			continue
		}
		s := string([]byte{byte(c)})
		if c < 0x20 || c == 0x7f {
			if c != '\t' {
				rows = append(rows, strictRow{fmt.Sprintf("byte %#02x in a value", c), "9110 5.5", askGet("X: a" + s + "b\r\n"), "400", nil})
			}
			rows = append(rows, strictRow{fmt.Sprintf("byte %#02x before Host's value", c), "9110 5.5", "GET /r HTTP/1.1\r\nHost:" + s + "h.test\r\n\r\n", map[bool]string{false: "400", true: "pass"}[c == '\t'], nil})
		}
		if c < 0x20 || c == 0x7f || c%16 == 5 {
			rows = append(rows,
				strictRow{fmt.Sprintf("byte %#02x in a name", c), "9110 5.1", askGet("X" + s + "Y: a\r\n"), "400", nil},
				strictRow{fmt.Sprintf("byte %#02x in the target", c), "9112 3.2", ask("GET /a"+s+"r HTTP/1.1", ""), "400", nil})
		}
	}
	return rows
}

// garden is what has been found in servers and proxies in the wild and fits no other table.
func garden() []strictRow {
	const rfc = "9112 11.2"
	return []strictRow{
		{"a smuggled request behind a length with a sign", rfc, askPost("Content-Length: +42\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h.test\r\n\r\n"), "400", nil},
		{"a smuggled HEAD", rfc, askPost("Content-Length: 50\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nHEAD /smuggled HTTP/1.1\r\nHost: h.test\r\n\r\n"), "400", nil},
		{"a request that ends in a trailer", rfc, askChunks("0\r\nX:POST / HTTP/1.1\r\n\r\n"), "pass", []string{"="}},
		{"a NUL behind the chunks", rfc, askChunks("0\r\n\r\n\x00"), "200", nil},
		{"an empty line behind the content", "9112 2.2", askPost("Content-Length: 5\r\n", "hello") + "\r\n", "pass", []string{"=hello"}},
		{"an invalid request behind a valid one", rfc, askGet("") + "Invalid\r\n\r\n", "200", nil},
		{"a TLS hello", "9112 3", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400", nil},
		{"garbage", "9112 3", "\x00\x01\x02\xff\xfe\r\n\r\n", "400", nil},
		{"a PROXY line", "9112 3", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + askGet(""), "400", nil},
		{"a Redis command", "9112 3", "*1\r\n$4\r\nPING\r\n", "400", nil},
		{"an SMTP command", "9112 3", "EHLO h.test\r\n", "400", nil},
		{"hundreds of codings", rfc, askPost("Transfer-Encoding: "+strings.Repeat("x,", 500)+"chunked\r\n", "0\r\n\r\n"), "400 501", nil},
		{"many lengths", rfc, askPost(strings.Repeat("Content-Length: 5\r\n", 50), "hello"), "400", nil},
	}
}
