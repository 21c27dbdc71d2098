//go:build killpoints

package cache

import (
	"fmt"
	"testing"
)

// TestKilledAtEveryStore has a process kill itself at the first store into a fresh
// mapping, then at the second on the next, and so on; then at wider and wider steps of a long life over one
// mapping, where segments are evicted and opened again.
func TestKilledAtEveryStore(t *testing.T) {
	t.Run("fresh", func(t *testing.T) {
		for n := 1; n <= 300; n++ {
			mem, fd := shared(t, crashSize)
			dieAt(t, mem, fd, uint64(n), n)
		}
	})
	t.Run("old", func(t *testing.T) {
		mem, fd := shared(t, crashSize)
		total := 0
		for n := 1; n < 150_000; n += 1 + n/4 + n%7 {
			dieAt(t, mem, fd, uint64(n), n)
			total++
		}
		for n := 30_000; n < 30_150; n++ {
			dieAt(t, mem, fd, 1, n)
			total++
		}
		t.Logf("%d deaths on one mapping", total)
	})
}

func dieAt(t *testing.T, mem []byte, fd int, seed uint64, n int) {
	t.Helper()
	cmd := startVictim(t, fd, seed, fmt.Sprintf("TRAFFICD_CACHE_KILL_AFTER=%d", n))
	killedBy(t, cmd)
	checkAll(t, mem)
}
