package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// A world is a store on a simulated disk, and what is known of the objects in it.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	dev  *memDevice
	head storeHeader
	page []byte // the index
	ram  []byte
	lazy bool // nothing is flushed unless it is waited for; else at random
	*server

	latest map[int]int // version stored last; also of what was removed or lost since
	now    map[int]int // version that there is; 0: not known
	least  map[int]int // the oldest version that may still turn up
}

const (
	worldSize   = MinSize + 2*minSegment
	worldMemory = 2 << 20
	worldKeys   = 60
)

func newWorld(t *testing.T, seed uint64, ram []byte) *world {
	h := storeHeader{geometry: plan(worldSize), layout: layout, id: seed | 1, seed: [2]uint64{seed, 5}}
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), dev: newMemDevice(h.storeSize()), head: h, ram: ram,
		latest: map[int]int{}, now: map[int]int{}, least: map[int]int{},
	}
	w.dev.WriteAt(h.encode(), 0)
	w.dev.Sync()
	w.open(false, nil)
	return w
}

// open starts a server on the device. Without an index, one is made anew.
func (w *world) open(rebuild bool, mem *cache.Store) {
	w.t.Helper()
	if w.page == nil {
		w.page = make([]byte, w.head.indexSize()+pageSize)
		newIndex(w.head.geometry, aligned(w.page)).hdr.format(w.head, [16]byte{1})
	}
	x := newIndex(w.head.geometry, aligned(w.page))
	row := new(stats.Row)
	o := Options{Size: worldSize, Threads: 1, Stats: row, Labels: testLabels}
	s := newStore(w.dev, w.head, x, o, rebuild)
	s.write.runway = 1 + uint32(w.rng.IntN(4))
	if w.lazy || w.rng.IntN(2) == 0 {
		s.medium.behind = nil
	}
	if mem == nil {
		clear(w.ram)
		var err error
		if mem, err = cache.Open(w.ram, cache.Options{MaxObject: 200_000, Seed: w.head.seed}); err != nil {
			w.t.Fatal(err)
		}
	}
	s.Attach(mem)
	w.server = &server{s, w.t, mem, row, o}
}

func aligned(b []byte) []byte {
	for i := range b {
		if uintptr(unsafeAddr(b[i:]))%pageSize == 0 {
			return b[i:]
		}
	}
	panic("no page in it")
}

// end stops the server's goroutines between two turns of its writer.
func (w *world) end() {
	w.mem.SetLower(nil)
	w.write.dead.Store(true)
	close(w.stop)
	w.reads.close()
	w.ended.Wait()
}

// live does some random things, and flushes now and then.
func (w *world) live(steps int) {
	for range steps {
		n := w.rng.IntN(worldKeys)
		switch p := w.rng.IntN(100); {
		case p < 70:
			size := []int{0, 10, 1000, 9000, 40_000, fragmentSize + 7, 150_000}[w.rng.IntN(7)]
			w.latest[n]++
			w.now[n] = w.latest[n]
			w.store(n, w.latest[n], size, w.vary(n))
		case p < 80:
			w.now[n] = w.latest[n] + 1 // nothing older
			w.mem.Remove(keyOf(n))
		case p < 83:
			w.purge(n)
		case p < 95:
			w.look(n)
		case p < 97:
			w.written()
		default:
			w.settled()
		}
	}
}

func (w *world) vary(n int) string { return []string{"", "a: b\r\n"}[n%2] }

func (w *world) purge(n int) {
	w.Purge(func(k cache.Key, uri, labels []byte) bool { return string(uri) == string(uriOf(n)) })
	w.mem.Remove(keyOf(n))
	w.now[n] = w.latest[n] + 1
}

// settled notes that all that has happened so far outlives a power cut.
func (w *world) settled() {
	w.written()
	if err := w.Sync(); err != nil {
		w.t.Fatal(err)
	}
	w.solid()
}

// solid notes that nothing older than what is known now may turn up any more.
func (w *world) solid() {
	for n, v := range w.now {
		w.least[n] = max(w.least[n], v)
	}
}

// look checks object n, wherever it is.
func (w *world) look(n int) bool {
	w.t.Helper()
	v := w.get(n, w.vary(n))
	if v == 0 {
		return false
	}
	if v < w.least[n] || v > w.latest[n] {
		w.t.Fatalf("object %d: version %d, not %d to %d", n, v, w.least[n], w.latest[n])
	}
	if w.now[n] == 0 {
		w.now[n] = v
	}
	if v != w.now[n] {
		w.t.Fatalf("object %d: version %d, and %d before", n, v, w.now[n])
	}
	return true
}

func (w *world) lookAtAll() (hits int) {
	w.t.Helper()
	for n := range worldKeys {
		if w.look(n) {
			hits++
		}
	}
	return hits
}

// cut is a power cut: of what was not flushed each sector is there or not.
func (w *world) cut() {
	d := w.dev
	for page := range d.dirty {
		switch w.rng.IntN(3) {
		case 0: // lost
			delete(d.dirty, page)
		case 1:
			d.settle(page)
		default: // torn
			at := page * pageSize
			for s := range int64(pageSize / 512) {
				if w.rng.IntN(2) == 0 {
					copy(d.solid[at+512*s:at+512*s+512], d.data[at+512*s:])
				}
			}
			delete(d.dirty, page)
		}
	}
	w.reboot()
}

// losePower is a power cut while nothing is going on, and a start after it.
func (w *world) losePower() {
	w.t.Helper()
	w.end()
	w.cut()
	w.open(true, nil)
	w.rebuilt()
}

// reboot leaves what the medium has.
func (w *world) reboot() {
	copy(w.dev.data, w.dev.solid)
	clear(w.now) // we shall see
	w.page = nil // another boot id: it would not be used
}

// damage changes bits anywhere, and takes the end away.
func (w *world) damage() {
	d := w.dev
	for range 1 + w.rng.IntN(200) {
		d.data[pageSize+w.rng.IntN(len(d.data)-pageSize)] ^= 1 << w.rng.IntN(8)
	}
	clear(w.now)
	if w.rng.IntN(4) == 0 {
		d.data = d.data[:pageSize+w.rng.IntN(len(d.data)-pageSize)]
	}
	for n := range w.least {
		w.least[n] = 0 // what is older may come up where what is newer cannot be read
	}
}

// tear damages what was written last, as a writer that was killed in the middle of it does.
func (w *world) tear() {
	x := w.index
	cur := x.hdr.cursor.Load()
	at := x.segmentAt(cur) + int64(x.rows[cur].used.Load())
	end := x.segmentAt(cur) + int64(x.segSize)
	for ; at < end && w.rng.IntN(4000) != 0; at++ {
		w.dev.data[at] = byte(w.rng.Uint32())
	}
}

// roundsVariable asks for more lives than there is time for every day.
const roundsVariable = "TRAFFICD_DISK_ROUNDS"

func roundsOf(n int) int {
	if more, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		return more
	}
	return n
}

func ramOf(t *testing.T) []byte {
	ram, err := unix.Mmap(-1, 0, worldMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(ram) })
	return ram
}

// TestPowerCuts: thousands of lives that end in a power cut, some of them in damage as well. What is found afterwards is right to the byte, and not older
// than what had been flushed.
func TestPowerCuts(t *testing.T) {
	ram := ramOf(t)
	hits, cuts := 0, 0
	for seed := range uint64(roundsOf(80)) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, ram)
			for range 1 + w.rng.IntN(5) {
				w.live(w.rng.IntN(150))
				w.end()
				w.cut()
				cuts++
				damaged := w.rng.IntN(5) == 0
				if damaged {
					w.damage()
				}
				w.open(true, nil)
				if w.rng.IntN(2) == 0 {
					hits += w.lookAtAll() // while it is made anew
				}
				w.rebuilt()
				hits += w.lookAtAll()
				if damaged {
					break
				}
			}
			w.end()
		})
		if !ok {
			return
		}
	}
	t.Logf("%d hits after %d power cuts", hits, cuts)
	if hits == 0 {
		t.Error("nothing has survived")
	}
}

// TestKills: lives that end in a kill, with and without memory. The index stays, and is right: nothing is older than what had been
// written, and next to nothing is missing.
func TestKills(t *testing.T) {
	ram := ramOf(t)
	for seed := range uint64(roundsOf(40)) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, ram)
			for range 1 + w.rng.IntN(6) {
				w.live(w.rng.IntN(100))
				if w.rng.IntN(2) == 0 {
					w.written()
				}
				mem := w.mem
				w.end()
				w.tear()
				w.solid() // the index is kept, and memory told it of everything at once
				if w.rng.IntN(2) == 0 {
					mem = nil
				}
				w.open(false, mem)
				w.lookAtAll()
				if n := w.count(stats.DiskErrors); n > 0 {
					t.Fatalf("%d errors", n)
				}
			}
			w.end()
		})
		if !ok {
			return
		}
	}
}

// TestNothingIsWrittenBeforeWhatADeadWriterLeft: a server is killed when its last write is done and not noted yet. What is removed after
// that stays so, although the record lies behind the end of what is known to be written.
func TestNothingIsWrittenBeforeWhatADeadWriterLeft(t *testing.T) {
	w := newWorld(t, 9, ramOf(t))
	w.server.store(1, 1, 100, "")
	w.settled()
	r := &w.index.rows[w.index.hdr.cursor.Load()]
	used := r.used.Load()
	w.server.store(2, 1, 1000, "")
	w.server.store(3, 1, 100, "")
	w.settled()
	w.end()
	for n := 2; n <= 3; n++ { // what comes after the write
		w.index.remove(keyOf(n), nil)
	}
	r.used.Store(used)
	w.open(false, nil)
	w.mem.Remove(keyOf(3))
	w.settled()
	w.losePower()
	defer w.end()
	if v := w.get(3, ""); v != 0 {
		t.Error("what was removed is back")
	}
	if w.get(1, "") != 1 {
		t.Error("what was not removed is gone")
	}
}

// TestARebuildPassesOverWhatIsOlderThanWhatHadNoRoom: the newest version of an object finds its set full. When there is room again, an
// older one does not take its place.
func TestARebuildPassesOverWhatIsOlderThanWhatHadNoRoom(t *testing.T) {
	w := newWorld(t, 10, ramOf(t))
	var same, others []int // objects whose entries lie in one set, and elsewhere
	for n := 0; len(same) < setWays+1; n++ {
		if w.index.setOf(keyOf(n)) == w.index.setOf(keyOf(0)) {
			same = append(same, n)
		} else {
			others = append(others, n)
		}
	}
	w.server.store(same[0], 1, 100, "")
	w.written()
	seg := w.index.hdr.cursor.Load()
	for _, n := range others[:12] { // so that what follows lies in another segment
		w.server.store(n, 1, 30_000, "")
	}
	w.server.store(same[0], 2, 100, "")
	for _, n := range same[1:] {
		w.server.store(n, 1, 100, "")
	}
	w.settled()
	w.end()
	if w.index.hdr.cursor.Load() == seg {
		t.Fatal("all of it is in one segment")
	}
	w.cut()
	var once sync.Once
	reads, opened := make(chan struct{}), make(chan struct{})
	at := w.index.segmentAt(seg) + int64(w.index.segSize) - trailerSize
	w.dev.set(func(write bool, off int64, _ int) (int, error) {
		if !write && off == at { // the rebuild comes to the older segment
			once.Do(func() { <-opened; close(reads); w.index.remove(keyOf(same[1]), nil) })
		}
		return 0, nil
	})
	w.open(true, nil)
	close(opened)
	defer w.end()
	w.rebuilt()
	select {
	case <-reads:
	default:
		t.Fatal("the older segment was not read")
	}
	if v := w.get(same[0], ""); v == 1 {
		t.Error("what was replaced is back")
	}
	if w.get(same[2], "") != 1 {
		t.Error("what is newer is gone")
	}
}

// TestTheGaugeFollowsARebuild: the writer has nothing to do while the index is made anew, and says all the same how much there is.
func TestTheGaugeFollowsARebuild(t *testing.T) {
	w := newWorld(t, 13, ramOf(t))
	for n := range 20 {
		w.server.store(n, 1, 1000, "")
	}
	w.settled()
	w.end()
	w.keep(func(int64) bool { return true })
	at := w.head.segmentAt(0) + int64(w.head.segSize) - trailerSize
	idle := make(chan struct{})
	w.dev.set(func(write bool, off int64, _ int) (int, error) {
		if !write && off == at { // the rebuild comes to the segment
			<-idle
		}
		return 0, nil
	})
	w.open(true, nil)
	defer w.end()
	for range 2 {
		w.write.ask(func() {})
	}
	close(idle)
	await(t, "the number of objects", func() bool { return w.count(stats.DiskObjects) == 20 })
}
