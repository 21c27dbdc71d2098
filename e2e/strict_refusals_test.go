package e2e

import (
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// A body that comes with its head and is none is refused before an origin is asked: one that answers
// without reading on would answer a request that never was.
func TestAnOriginIsNotAskedForAMalformedBody(t *testing.T) {
	t.Parallel()
	o := harness.NewRawOrigin(t, strictOrigin)
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	for _, c := range []struct{ body, says string }{
		{"5 \r\nhello\r\n0\r\n\r\n", "malformed chunk size"},
		{"5\r\nhelloXX0\r\n\r\n", "chunk data not followed by CRLF"},
		{"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "malformed chunk extension"},
		{"10000000000000005\r\nhello\r\n0\r\n\r\n", "chunk size too large"},
		{"5\r\nhello\r\n0\r\nX : y\r\n\r\n", "blank before colon"},
	} {
		mark := o.Mark()
		r := p.Client().Dial().Send(askChunks(c.body) + sentinel).Read("POST").ExpectStatus(400)
		if !strings.Contains(string(r.Body), c.says) {
			t.Errorf("%q: told %q, want %q", c.body, r.Body, c.says)
		}
		if seen := o.Since(mark); len(seen) > 0 {
			t.Errorf("%q: the origin saw %q", c.body, heads(seen))
		}
	}
}

// A HEAD that is refused has no content either (RFC 9110 section 9.3.2), whatever else is wrong with it.
func TestARefusedHeadHasNoContent(t *testing.T) {
	t.Parallel()
	o := harness.NewRawOrigin(t, strictOrigin)
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	for _, raw := range []string{
		"HEAD /r HTTP/1.1\r\nHost: h.test\r\nX : y\r\n\r\n",
		"HEAD /r HTTP/1.1\r\n\r\n",
		"HEAD /r x HTTP/1.1\r\nHost: h.test\r\n\r\n",
		"HEAD /" + strings.Repeat("r", 100<<10) + " HTTP/1.1\r\nHost: h.test\r\n\r\n",
		"HEAD /r HTTP/1.1\r\nHost: h.test\r\n" + manyFields(5000) + "\r\n",
		"HEAD /r HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
	} {
		c := p.Client().Dial().Offer(raw)
		if r := c.Read("HEAD"); r.Status < 400 || r.Get("Content-Length") == "" {
			t.Errorf("%.40q: status %d", raw, r.Status)
		}
		c.ExpectEOF()
	}
}
