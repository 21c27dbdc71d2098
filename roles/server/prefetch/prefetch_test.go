package prefetch

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestNothingIsTouched: of memory that may not be read, or that is not there, nothing comes, and nobody notices.
func TestNothingIsTouched(t *testing.T) {
	size := uintptr(unix.Getpagesize())
	m, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uintptr{0, 1, line - 1, line, line + 1, size, 2 * size} {
		Lines(m, n)
		Lines(unsafe.Add(m, 7), n)
	}
	if err := unix.MunmapPtr(m, size); err != nil {
		t.Fatal(err)
	}
	Lines(m, size)
}

// Both together are what it is for: without, the sum of the reads' waits, with it about the longest of them.
func BenchmarkColdLines(b *testing.B) {
	const places, step = 8, 1 << 20
	m := make([]byte, 256<<20)
	for i := range m {
		m[i] = byte(i)
	}
	for _, ahead := range []bool{false, true} {
		name := map[bool]string{false: "as they come", true: "asked for"}[ahead]
		b.Run(name, func(b *testing.B) {
			sum, x := 0, uint64(1)
			for b.Loop() {
				x = x*6364136223846793005 + 1442695040888963407
				at := int(x>>33) % (len(m) - places*step)
				if ahead {
					for i := range places {
						Lines(unsafe.Pointer(&m[at+i*step]), 1)
					}
				}
				for i := range places { // each depends on the one before, as a look-up does
					sum = int(m[(at+i*step)|sum&1])
				}
			}
			_ = sum
		})
	}
}
