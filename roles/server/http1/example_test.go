package http1_test

import (
	"fmt"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

func ExampleRequest() {
	buf := []byte("POST http://example.com/a?b HTTP/1.1\r\nHost: other\r\nContent-Length: 2\r\n\r\nhi")
	var req http1.Request
	if err := req.Parse(buf, nil); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v %s %s\n", req.Method, req.Host.In(buf), req.Path.In(buf))
	fmt.Printf("%q\n", buf[req.HeadLen:req.HeadLen+int(req.ContentLength)])
	fmt.Println(req.Has(header.Range))
	// Output:
	// POST example.com /a
	// "hi"
	// false
}

func ExampleChunked() {
	in := []byte("5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\nContent-Length: 9\r\n\r\nGET /")
	var c http1.Chunked
	var out []byte
	for {
		ev, data, n, err := c.Step(in)
		if err != nil {
			fmt.Println(err)
			return
		}
		out = append(out, data.In(in)...)
		in = in[n:]
		if ev == http1.ChunkedEnd || ev == http1.NeedMore {
			break
		}
	}
	fmt.Printf("%q\n%q\n", out, in)
	// Output:
	// "hello, world"
	// "GET /"
}
