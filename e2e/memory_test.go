package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// An idle connection that made one request costs half a kilobyte at most, in all processes together (PSS).
func TestMemoryOfIdleConnections(t *testing.T) {
	if harness.Race() {
		t.Log("the race detector's shadow memory is many times that of the program: not measured")
		return
	}
	const n = 6000
	p, _ := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "hello", "Cache-Control: max-age=600")})
	standby := p.Standby()
	idle(t, p.Addr, 600) // what the first ones cost is not what each costs
	pids := []int{standby}
	for _, pid := range p.PIDs() {
		pids = append(pids, pid)
	}
	before := pss(t, pids)
	idle(t, p.Addr, n)
	grown := pss(t, pids) - before
	t.Logf("%d connections: %d kB, %.3f kB each", n, grown, float64(grown)/n)
	if grown > n/2 {
		t.Errorf("%d idle connections took %d kB, want %d at most", n, grown, n/2)
	}
}

// idle makes connections that ask once and stay, until the end of the story.
func idle(t *testing.T, addr string, n int) {
	t.Helper()
	var answer [1024]byte
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(harness.Request("GET", "/a", ""))); err != nil {
			t.Fatal(err)
		}
		for got := 0; !bytes.HasSuffix(answer[:got], []byte("hello")); {
			n, err := c.Read(answer[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
}

// pss is the proportional share of memory of all these processes, in kB.
func pss(t *testing.T, pids []int) (sum int) {
	t.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
				if err != nil {
					t.Fatal(err)
				}
				sum += kb
			}
		}
	}
	return sum
}
