package e2e

import (
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// Without a rule there is a page to read, which sends back what is sent to it: enough to try an
// installation, and HTTP test programs that want an echo, before there is an origin.
func TestTheBuiltinPageEchoes(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--threads", "1"))
	c := p.Client().Dial()
	c.Send(harness.Request("POST", "/", "hello")).Read("POST").Expect(200, "hello").Header("Content-Type", "text/plain; charset=utf-8").Header("X-Content-Type-Options", "nosniff").Header("Cache-Control", "no-store")
	c.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").Read("POST").Expect(200, "hello world")
	c.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if r := c.ReadHead(); r.Status != 100 {
		t.Errorf("got %d, want 100 (Continue)", r.Status)
	}
	c.Send("hello").Read("POST").Expect(200, "hello")
	c.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").Send("llo"+harness.Request("GET", "/nothing", "")).Read("POST").Expect(200, "hello")
	c.Read("GET").ExpectStatus(404)
	c.Send(harness.Request("POST", "/", "")).Read("POST").Expect(200, "")
	c.Send(harness.Request("POST", "/", strings.Repeat("a", 64<<10))).Read("POST").Expect(200, strings.Repeat("a", 64<<10))
	p.Client().Dial().Offer(harness.Request("POST", "/", strings.Repeat("a", 1<<20))).Read("POST").ExpectStatus(413)
	p.Client().Dial().Send(harness.Request("POST", "/other", "hello")).Read("POST").ExpectStatus(405)
	p.Client().Dial().Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").CloseWrite().Read("POST").ExpectStatus(400)
	c.Send(harness.Request("POST", "/", "still there")).Read("POST").Expect(200, "still there")
}
