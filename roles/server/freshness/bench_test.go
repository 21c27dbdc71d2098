package freshness

import "testing"

// BenchmarkHit is all that this package does for a cache hit.
func BenchmarkHit(b *testing.B) {
	m, head := kept(b, "Cache-Control: max-age=60", `ETag: "a"`, "Vary: Accept-Encoding")
	q, qh := request(b, "GET", "User-Agent: x", "Accept: */*", "Accept-Encoding: gzip, br")
	s := &Selection{Request: q, Head: qh}
	vary := []byte("accept-encoding:gzip, br\n")
	b.ReportAllocs()
	for b.Loop() {
		c := ParseRequest(q, qh)
		if !s.MatchVary(vary) || Decide(&m, &c, noon) != Fresh || NotModified(q, qh, &m, head) {
			b.Fatal("no hit")
		}
	}
}

// BenchmarkStore is what it does for a miss that is stored.
func BenchmarkStore(b *testing.B) {
	x := exchange(b, "GET", []string{"Accept-Encoding: gzip"}, "200", []string{
		"Date: " + noonDate, "Content-Type: text/plain", "Cache-Control: max-age=60", `ETag: "a"`, "Vary: Accept-Encoding",
		"Last-Modified: " + noonDate, "Content-Length: 1024"})
	buf, block := make([]byte, 0, 1024), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		m, _ := x.Judge()
		x.AppendHead(buf, &m)
		x.AppendVary(block)
	}
}
