package http1

import (
	"strings"
	"testing"

	"trafficd/roles/server/header"
)

const wrkRequest = "GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

const fiveFields = "GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n"

const browserRequest = "GET /assets/app.3f9c1e.js?v=20261122 HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-GB,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://www.example.com/index.html\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=5f2b9c0e7a1d4e3f8b6a; theme=dark; consent=1\r\n" +
	"If-None-Match: \"3f9c1e-5d2\"\r\n" +
	"Cache-Control: max-age=0\r\n\r\n"

const originResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.28.0\r\n" +
	"Date: Sun, 22 Nov 2026 20:00:00 GMT\r\n" +
	"Content-Type: application/javascript\r\n" +
	"Content-Length: 1024\r\n" +
	"Last-Modified: Sun, 01 Nov 2026 10:00:00 GMT\r\n" +
	"Connection: keep-alive\r\n" +
	"ETag: \"3f9c1e-5d2\"\r\n" +
	"Cache-Control: public, max-age=3600\r\n" +
	"Accept-Ranges: bytes\r\n\r\n"

func benchmarkRequest(b *testing.B, text string) {
	head := []byte(text)
	var r Request
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(head, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestWrk(b *testing.B)     { benchmarkRequest(b, wrkRequest) }
func BenchmarkRequest5Fields(b *testing.B) { benchmarkRequest(b, fiveFields) }
func BenchmarkRequestBrowser(b *testing.B) { benchmarkRequest(b, browserRequest) }

func BenchmarkHeadScanBrowser(b *testing.B) {
	head := []byte(browserRequest)
	b.ReportAllocs()
	for b.Loop() {
		var s HeadScan
		if end, _ := s.Request(head, nil); end != len(head) {
			b.Fatal(end)
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	head := []byte(originResponse)
	var r Response
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(head, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	names := [][]byte{[]byte("Host"), []byte("User-Agent"), []byte("accept-encoding"), []byte("If-None-Match"), []byte("X-Unknown")}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		header.Lookup(names[i%len(names)])
		i++
	}
}

func BenchmarkChunked16K(b *testing.B) {
	body := []byte("4000\r\n" + strings.Repeat("x", 0x4000) + "\r\n0\r\n\r\n")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var c Chunked
		for n := 0; !c.Done(); {
			_, k, err := c.Next(body[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}

func BenchmarkHitHead(b *testing.B) {
	var d DateLine
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendStatusLine(buf[:0], 200)
		buf = d.Append(buf, 1795377600)
		buf = AppendAge(buf, 12)
		buf = AppendContentLength(buf, 1024)
		buf = AppendVia(buf, 1, "trafficd")
	}
}
