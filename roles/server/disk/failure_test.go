package disk

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/stats"
)

// TestAFailingDisk: reads and writes fail, at random and for a while altogether, or are short. What is found is right, nothing hangs,
// and once the disk is well again things are written again, also what was not meanwhile.
func TestAFailingDisk(t *testing.T) {
	ram := ramOf(t)
	for _, how := range []struct {
		name string
		fail func(rng *rand.Rand, write bool, n int) (int, error)
	}{
		{"EIO now and then", func(rng *rand.Rand, _ bool, _ int) (int, error) {
			if rng.IntN(10) == 0 {
				return 0, unix.EIO
			}
			return 0, nil
		}},
		{"short writes", func(rng *rand.Rand, write bool, n int) (int, error) {
			if write && rng.IntN(4) == 0 {
				return rng.IntN(n), unix.ENOSPC
			}
			return 0, nil
		}},
		{"no writes", func(_ *rand.Rand, write bool, _ int) (int, error) {
			if write {
				return 0, unix.ENOSPC
			}
			return 0, nil
		}},
		{"no reads", func(_ *rand.Rand, write bool, _ int) (int, error) {
			if !write {
				return 0, unix.EIO
			}
			return 0, nil
		}},
		{"nothing", func(*rand.Rand, bool, int) (int, error) { return 0, unix.EIO }},
	} {
		t.Run(how.name, func(t *testing.T) {
			w := newWorld(t, 99, ram)
			w.live(100)
			rng := rand.New(rand.NewPCG(3, 3))
			w.dev.set(func(write bool, _ int64, n int) (int, error) { return how.fail(rng, write, n) })
			for range 300 {
				n := w.rng.IntN(worldKeys)
				if w.rng.IntN(3) == 0 {
					w.look(n)
					continue
				}
				w.latest[n]++
				w.now[n] = w.latest[n]
				w.server.store(n, w.latest[n], 3000, w.vary(n))
				w.write.ask(func() { w.write.work() })
			}
			if w.count(stats.DiskErrors) == 0 {
				t.Error("no errors were counted")
			}
			w.dev.set(nil)
			for n := range worldKeys {
				w.latest[n]++
				w.now[n] = w.latest[n]
				w.server.store(n, w.latest[n], 1000, w.vary(n))
			}
			w.write.ask(func() { w.write.until = time.Time{} })
			w.queueUnsaved() // what came in the pause
			w.written()
			w.end()
			w.solid()
			w.open(false, nil)
			if hits := w.lookAtAll(); hits != worldKeys {
				t.Errorf("%d hits of %d, once the disk is well", hits, worldKeys)
			}
			w.end()
		})
	}
}

// TestWhatCouldNotBeWrittenIsLater: it is in memory still, and looked for there.
func TestWhatCouldNotBeWrittenIsLater(t *testing.T) {
	w := newWorld(t, 5, ramOf(t))
	w.dev.set(func(write bool, _ int64, _ int) (int, error) {
		if write {
			return 0, unix.EIO
		}
		return 0, nil
	})
	for n := range 20 {
		w.server.store(n, 1, 100, "")
	}
	w.written()
	if w.count(stats.DiskDrops) < 20 || w.count(stats.DiskWrites) != 0 {
		t.Errorf("%d drops, %d writes", w.count(stats.DiskDrops), w.count(stats.DiskWrites))
	}
	w.dev.set(nil)
	w.write.ask(func() { w.write.until = time.Time{} })
	w.queueUnsaved()
	w.written()
	w.end()
	w.open(false, nil)
	defer w.end()
	for n := range 20 {
		if w.get(n, "") != 1 {
			t.Errorf("object %d is not there", n)
		}
	}
}

// TestWhatCannotBeWrittenIsLeftAlone: a response too large for the disk is in memory only, and is not tried again and again.
func TestWhatCannotBeWrittenIsLeftAlone(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Close()
	s.store(1, 1, testSize/4+1, "")
	s.store(2, 1, 1000, "")
	s.written()
	if got := s.count(stats.DiskDrops); got != 1 {
		t.Fatalf("%d drops, want 1", got)
	}
	if s.lost.Load() {
		t.Error("it is looked for again")
	}
	if s.Has(keyOf(1)) || !s.Has(keyOf(2)) {
		t.Errorf("the large one is there: %v, the small one: %v", s.Has(keyOf(1)), s.Has(keyOf(2)))
	}
}

// TestOverload: more waits than there is room for. What is dropped is counted, and nothing older comes in its place.
func TestOverload(t *testing.T) {
	w := newWorld(t, 6, ramOf(t))
	for n := range 10 {
		w.server.store(n, 1, 100, "")
	}
	w.written()
	busy, release := make(chan struct{}), make(chan struct{})
	go w.write.ask(func() { close(busy); <-release })
	<-busy
	for i := range backlogSize + 100 {
		w.server.store(1000+i%50, 1+i, 10, "")
	}
	for n := range 10 {
		w.server.store(n, 2, 100, "")
	}
	if w.count(stats.DiskDrops) != 110 {
		t.Errorf("%d drops, want 110", w.count(stats.DiskDrops))
	}
	close(release)
	w.written()
	w.end()
	w.page = nil
	w.open(true, nil)
	defer w.end()
	w.rebuilt()
	for n := range 10 {
		if v := w.get(n, ""); v == 1 {
			t.Errorf("object %d: what was replaced is back", n)
		}
	}
}

// TestReadersAreBounded: with all threads busy, look-ups are turned away and not kept waiting.
func TestReadersAreBounded(t *testing.T) {
	w := newWorld(t, 7, ramOf(t))
	for n := range 60 {
		w.server.store(n, 1, 10, "")
	}
	w.written()
	w.end()
	w.open(false, nil)
	defer w.end()
	release := make(chan struct{})
	w.dev.set(func(write bool, _ int64, _ int) (int, error) {
		if !write {
			<-release
		}
		return 0, nil
	})
	taken := 0
	for n := range readQueue + 20 {
		k := keyOf(n % 60)
		k[15] ^= byte(n / 60) // as many keys as it takes
		if w.Load(k, make(bell)) {
			taken++
		}
	}
	if w.count(stats.DiskOverloads) == 0 || taken > readQueue+1 {
		t.Errorf("%d taken, %d turned away", taken, w.count(stats.DiskOverloads))
	}
	close(release)
}

func (d *memDevice) set(f func(write bool, off int64, n int) (int, error)) {
	d.mu.Lock()
	d.fail = f
	d.mu.Unlock()
}

// TestARemovalOutlivesAFailedWrite: the write that had its tombstone fails. It is written later, so that what was removed does not come back
// from the log.
func TestARemovalOutlivesAFailedWrite(t *testing.T) {
	w := newWorld(t, 8, ramOf(t))
	for n := range 10 {
		w.server.store(n, 1, 100, "")
	}
	w.settled()
	w.dev.set(func(write bool, _ int64, _ int) (int, error) {
		if write {
			return 0, unix.EIO
		}
		return 0, nil
	})
	w.mem.Remove(keyOf(3))
	w.write.ask(func() { w.write.work() })
	if w.count(stats.DiskErrors) == 0 {
		t.Error("no write has failed")
	}
	w.dev.set(nil)
	w.write.ask(func() { w.write.until = time.Time{} })
	w.settled()
	w.losePower()
	defer w.end()
	if v := w.get(3, ""); v != 0 {
		t.Error("what was removed is back")
	}
	if w.get(4, "") != 1 {
		t.Error("what was not removed is gone")
	}
}
