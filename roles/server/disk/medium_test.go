package disk

import (
	"fmt"
	"testing"

	"trafficd/roles/internal/stats"
)

// newLazyWorld is a world in which nothing is flushed unless somebody waits for it.
func newLazyWorld(t *testing.T, runway uint32) *world {
	w := newWorld(t, 11, ramOf(t))
	w.end()
	w.lazy = true
	w.open(false, nil)
	w.write.ask(func() { w.write.runway = runway })
	return w
}

// fill stores new objects, from n on, until the segment seg is the one that is open.
func (w *world) fill(n int, seg uint32) (next int) {
	w.t.Helper()
	for limit := n + 1000; w.index.hdr.cursor.Load() != seg; n++ {
		if n > limit {
			w.t.Fatalf("segment %d is not opened", seg)
		}
		w.server.store(n, 1, 20_000, "")
		w.written()
	}
	return n
}

// keep is a power cut after which the medium has only those unflushed pages that which accepts.
func (w *world) keep(which func(page int64) bool) {
	for page := range w.dev.dirty {
		if which(page) {
			w.dev.settle(page)
		}
	}
	clear(w.dev.dirty)
	w.reboot()
}

// in reports whether a page lies in a segment, behind its header.
func (w *world) in(page int64, seg uint32) bool {
	at := w.head.segmentAt(seg) / pageSize
	return page > at && page < at+int64(w.head.segSize/pageSize)
}

// TestTheOlderDoesNotOutliveTheNewer: a response in one segment, its removal in the next. Both are overwritten, and the
// power is cut before anybody has flushed that: of the first nothing new is on the medium, of the second all but its header.
func TestTheOlderDoesNotOutliveTheNewer(t *testing.T) {
	for _, runway := range []uint32{1, 3} {
		t.Run(fmt.Sprint(runway), func(t *testing.T) {
			w := newLazyWorld(t, runway)
			older := 3 + runway
			n := w.fill(100, older)
			w.server.store(1, 1, 1000, "")
			n = w.fill(n, older+1)
			w.mem.Remove(keyOf(1))
			n = w.fill(n, 2)
			w.settled()
			w.fill(n, older+2)
			w.end()
			w.keep(func(page int64) bool { return w.in(page, older+1) })
			w.open(true, nil)
			defer w.end()
			w.rebuilt()
			if w.get(1, "") != 0 {
				t.Error("what was removed is back")
			}
		})
	}
}

// TestNoNumberIsUsedTwice: a segment loses its header in a power cut, and is opened again. What was removed then does not come
// back from a record that the first use has left.
func TestNoNumberIsUsedTwice(t *testing.T) {
	w := newLazyWorld(t, 1)
	n := w.fill(100, 1)
	for range 3 {
		w.server.store(n, 1, 20_000, "")
		n++
	}
	w.server.store(1, 1, 1000, "")
	w.written()
	w.end()
	w.keep(func(page int64) bool { return w.in(page, 0) || w.in(page, 1) })
	w.open(true, nil)
	w.rebuilt()
	if w.get(1, "") != 0 {
		t.Fatal("the segment has its header")
	}
	w.fill(n, 1)
	w.mem.Remove(keyOf(1))
	w.settled()
	w.losePower()
	defer w.end()
	if w.get(1, "") != 0 {
		t.Error("what was removed is back")
	}
}

// TestTheWriterStaysNearTheMedium: it is never further ahead than a rebuild allows for.
func TestTheWriterStaysNearTheMedium(t *testing.T) {
	h := storeHeader{geometry: plan(pageSize + (maxAhead+40)*minSegment), layout: layout, id: 7}
	dev := newMemDevice(h.storeSize())
	page := make([]byte, h.indexSize()+pageSize)
	x := newIndex(h.geometry, aligned(page))
	x.hdr.format(h, [16]byte{1})
	s := newStore(dev, h, x, Options{Threads: 1, Stats: new(stats.Row)}, false)
	s.medium.behind = nil
	mem := newMemory(t, testMemory, h.seed)
	s.Attach(mem)
	defer s.Close()
	w := &server{Store: s, t: t, mem: mem}
	for n := 0; x.hdr.seq.Load() < maxAhead+30; n++ {
		w.store(n, 1, 30_000, "")
		w.written()
		if opened, solid := x.hdr.seq.Load(), s.medium.solid.Load(); solid == nil || opened > solid.seq+maxAhead+1 {
			t.Fatalf("segment %d is open, and on the medium is %v", opened, solid)
		}
	}
}

// TestABurstDoesNotWaitForTheMedium: a flush takes very long. What comes meanwhile is written behind memory all the same, where it outlives
// all processes.
func TestABurstDoesNotWaitForTheMedium(t *testing.T) {
	w := newWorld(t, 12, ramOf(t))
	w.write.ask(func() { w.write.runway = 3 })
	n := w.fill(100, 9)
	n = w.fill(n, 2) // the store is full
	w.settled()
	done := make(chan struct{})
	w.dev.stall(done)
	seg := w.index.hdr.cursor.Load()
	for ; w.index.hdr.cursor.Load() != seg+3; n++ {
		w.server.store(n, 1, 20_000, "")
		await(t, "the write", func() bool { return w.index.holds(keyOf(n), varyHash(nil)) })
	}
	close(done)
	w.end()
}
