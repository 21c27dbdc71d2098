package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// cpu is the processor time of all threads of this process.
func cpu() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkMiss is what a stored miss of 1 KiB costs, all threads together, with a disk below memory and without.
// It stores 20,000 a second, as a loop does that has other things to do.
func BenchmarkMiss(b *testing.B) {
	for _, name := range []string{"memory", "disk"} {
		b.Run(name, func(b *testing.B) {
			mem := newMemory(b, 64<<20, [2]uint64{1, 2})
			if name == "disk" {
				s, err := Open(Options{Dir: b.TempDir(), Size: 256 << 20, Threads: 1, Stats: new(stats.Row), Seed: [2]uint64{1, 2}})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				s.Attach(mem)
			}
			body, head := content(1, 1, 1024), make([]byte, 200)
			const batch, pause = 200, 10 * time.Millisecond
			n := 0
			began, tick := cpu(), time.NewTicker(pause)
			defer tick.Stop()
			for b.Loop() {
				if n++; n%batch == 0 {
					<-tick.C
				}
				w, err := mem.Create(keyFast(n), &cache.Meta{Status: 200}, head[:40], nil, head, 1024)
				if err != nil {
					b.Fatal(err)
				}
				w.Write(body)
				o, err := w.Publish()
				if err != nil {
					b.Fatal(err)
				}
				o.Release()
				w.Release()
			}
			b.ReportMetric(float64(cpu()-began)/float64(n), "cpu-ns/op")
		})
	}
}

func keyFast(n int) cache.Key {
	var k cache.Key
	x := uint64(n) * 0x9e3779b97f4a7c15
	for i := range 8 {
		k[i] = byte(x >> (8 * i))
		k[8+i] = byte((x * 0xbf58476d1ce4e5b9) >> (8 * i))
	}
	return k
}

// BenchmarkProbe is a look-up on a loop that finds nothing.
func BenchmarkProbe(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), Size: 256 << 20, Stats: new(stats.Row)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	n := 0
	for b.Loop() {
		n++
		s.Has(keyFast(n))
	}
}

// BenchmarkOpenTenMillion is how long it takes until a store with ten million responses can be used, after the
// death of all processes.
func BenchmarkOpenTenMillion(b *testing.B) {
	const objects, size = 10_000_000, 40 << 30
	dir := b.TempDir()
	g := plan(size)
	h := storeHeader{geometry: g, layout: layout, id: 7, seed: [2]uint64{1, 2}}
	f, err := os.Create(filepath.Join(dir, storeName)) // with holes: nobody reads it
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = f.Truncate(g.storeSize())
	}
	if err != nil {
		b.Fatal(err)
	}
	f.Close()
	o := Options{Dir: dir, Size: size, Stats: new(stats.Row)}
	s, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	for i := range s.index.rows {
		s.index.rows[i].seq.Store(uint64(i) + 1)
	}
	for n := range objects {
		seg := uint32(n) % g.segCount
		s.index.put(keyFast(n), placeOf(seg, 64, uint64(seg)+1), infoOf(4096, 0), func(uint64) bool { return true })
	}
	s.index.hdr.state.Store(indexUsed)
	if err := s.files.release(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if !s.Warm() {
			b.Fatal("it is not in memory")
		}
		if s.scan.rebuilds || !s.Has(keyFast(objects-1)) {
			b.Fatal("it is not there")
		}
		b.StopTimer()
		if err := s.files.release(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(s.files.memory))/objects, "index-B/object")
}
