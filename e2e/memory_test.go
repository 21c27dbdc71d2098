package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// memoryLimit is what the whole instance may have: a cache of 16 MiB, four Go processes, and what all these clients
// make it hold.
const memoryLimit = 128 << 20

// A cache for which there is no memory is refused before anything is started, and by a reload: of the machine's, and of
// the control group's.
func TestCacheBeyondMemoryIsRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("cache: {size: 8MiB}\n"))
	p.WriteConfig("cache:\n  size: 8TiB\n")
	const want = "trafficd.yaml:2:9: cache.size (8TiB) is larger than the memory of this machine ("
	for _, verb := range []string{"check", "reload"} {
		if r := p.Ctl("config", verb); r.Code != 78 || !strings.Contains(r.Stderr, want) {
			t.Errorf("ctl config %s: exit code %d, %s", verb, r.Code, r.Stderr)
		}
	}
	p.Client().Get("/").ExpectStatus(200)
	r := harness.Run(t, "cop", "--foreground", "--config", p.ConfigPath(), "--run-root", t.TempDir(), "--listen", "127.0.0.1:0", "--autoconf", "off")
	if r.Code != 78 || !strings.Contains(r.Stderr, want) {
		t.Errorf("cop: exit code %d, %s", r.Code, r.Stderr)
	}
}

// The same of a control group, in which the instance runs.
func TestCacheBeyondTheControlGroupIsRefused(t *testing.T) {
	t.Parallel()
	fence := harness.NewFence(t, memoryLimit)
	p := harness.Start(t, fence.Within(), harness.Config("cache: {size: 8MiB}\n"))
	p.WriteConfig("cache: {size: 3GiB}\n")
	if r := p.Ctl("config", "check"); r.Code != 78 || !strings.Contains(r.Stderr, "cache.size (3GiB) is larger than the memory of the control group /") {
		t.Errorf("ctl config check: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// What clients and origins can do does not add up to more memory than is configured: under a hard limit large
// objects, thousands of connections, slow readers, large heads, stalled uploads and many alternates kill
// nothing, and others are served.
func TestMemoryStaysBounded(t *testing.T) {
	t.Parallel()
	harness.NeedFiles(t, 12_000)
	fence := harness.NewFence(t, memoryLimit)
	large := strings.Repeat("0123456789abcdef", 3<<20/16)
	stall := harness.NewGate()
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/large":   harness.Reply(200, large, "Cache-Control: max-age=600"),
		"/chunked": func(e *harness.Exchange) { chunked(e, large) },
		"/vary": func(e *harness.Exchange) {
			e.Reply(200, strings.Repeat("v", 4000), "Cache-Control: max-age=600", "Vary: X-Kind", "X-Filler: "+strings.Repeat("h", 8000))
		},
		"/stall": func(e *harness.Exchange) { stall.Wait(e); e.Reply(200, "late", noStore) },
		"/ok":    harness.Reply(200, "ok", noStore),
	}))
	p := harness.Start(t, harness.Map("/", o), harness.Args("--threads", "2"), fence.Within(),
		harness.Set("cache.size", "16MiB"), harness.Set("limits.connections", "6000"))
	server := p.PID(harness.Server)
	if !fence.Holds(server) {
		t.Fatal("the server is not in its control group")
	}
	var held []net.Conn
	hold := func(n int, request string) {
		t.Helper()
		for range n {
			c, err := net.Dial("tcp", p.Addr)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	healthy := func(when string) {
		t.Helper()
		for range 3 {
			p.Client().Get("/ok").Expect(200, "ok")
		}
		t.Logf("%s: at most %d MiB", when, fence.Peak()>>20)
	}
	healthy("at the start")
	hold(2000, "")
	healthy("thousands of connections")
	hold(200, "GET /large HTTP/1.1\r\nHost: localhost\r\nX-Head: "+strings.Repeat("h", 12_000))
	healthy("large heads")
	hold(100, harness.Request("GET", "/large", ""))
	for n := range 40 {
		hold(1, harness.Request("GET", fmt.Sprintf("/large?%d", n), ""))
		hold(1, harness.Request("GET", fmt.Sprintf("/chunked?%d", n), ""))
	}
	healthy("slow readers of large responses")
	hold(150, "POST /stall HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n"+strings.Repeat("b", 60_000))
	healthy("stalled uploads")
	c := p.Client().Dial()
	for n := range 600 {
		c.Send(harness.Request("GET", "/vary", "", fmt.Sprintf("X-Kind: %d", n))).Read("GET").ExpectStatus(200)
	}
	healthy("many alternates")
	for n := range 20 {
		if r := p.Client().Get(fmt.Sprintf("/large?fresh-%d", n)).ExpectStatus(200); len(r.Body) != len(large) {
			t.Fatalf("%d bytes of a large response", len(r.Body))
		}
	}
	stall.Open()
	healthy("large responses")
	if n := fence.Killed(); n != 0 {
		t.Errorf("the kernel has killed %d processes for want of memory", n)
	}
	p.ExpectSame(harness.Server, server)
}

// chunked sends a response whose length nobody knows beforehand.
func chunked(e *harness.Exchange, body string) {
	e.Raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := min(len(body), 64<<10)
		e.Chunk(body[:n])
		body = body[n:]
	}
	e.Chunk("")
}
