package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/stats"
)

var sizes = []int{0, 1, 100, 4000, fragmentSize - 1, fragmentSize, fragmentSize + 1, 200_000, 600_000}

// TestHitsAfterTheDeathOfAll: memory is gone, and what was written is there, byte for byte.
func TestHitsAfterTheDeathOfAll(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n, size := range sizes {
		s.store(n, 1, size, "")
	}
	s.written()
	if got := s.count(stats.DiskWrites); got < len(sizes) { // more, if the search for what is not written saw some, too
		t.Fatalf("%d written, want %d", got, len(sizes))
	}
	s.kill()
	s = start(t, dir)
	defer s.Close()
	for n := range sizes {
		if v := s.get(n, ""); v != 1 {
			t.Errorf("object of %d bytes: version %d", sizes[n], v)
		}
	}
	if got := s.count(stats.DiskHits); got != len(sizes) {
		t.Errorf("%d hits", got)
	}
	if s.get(1000, "") != 0 || s.count(stats.DiskErrors) != 0 {
		t.Errorf("misses %d, errors %d", s.count(stats.DiskMisses), s.count(stats.DiskErrors))
	}
}

// TestWhatComesAloneIsWrittenAtOnce: nothing is gathered while little comes, since what is gathered is lost if all processes
// are killed.
func TestWhatComesAloneIsWrittenAtOnce(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Close()
	s.write.ask(func() { s.write.delay = time.Hour })
	for n := range 20 {
		s.store(n, 1, 1000, "")
		await(t, "the write", func() bool { return s.index.holds(keyOf(n), varyHash(nil)) })
	}
}

// TestHitsAfterAnOrderlyEnd: also what had not been written when it was asked to end.
func TestHitsAfterAnOrderlyEnd(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n := range 100 {
		s.store(n, 1, 1000, "")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer s.Close()
	if s.scan.rebuilds {
		t.Error("an index that was closed is made anew")
	}
	for n := range 100 {
		if s.get(n, "") != 1 {
			t.Fatalf("object %d is not there", n)
		}
	}
}

func TestTheNewestVersionCounts(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for v := 1; v <= 5; v++ {
		for n := range 20 {
			s.store(n, v, 100*v, "")
			s.store(n, v, 100*v, "a: b\r\n")
		}
		s.written()
		s.kill()
		s = start(t, dir)
		for n := range 20 {
			if got := s.get(n, ""); got != v {
				t.Fatalf("object %d: version %d, want %d", n, got, v)
			}
			if got := s.get(n, "a: b\r\n"); got != v {
				t.Fatalf("object %d, alternate: version %d, want %d", n, got, v)
			}
		}
	}
	s.kill()
}

// TestRemovedIsRemoved: at once, after a death, and after a power cut, when the index is made anew.
func TestRemovedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n := range 40 {
		s.store(n, 1, 1000, "")
	}
	s.written()
	for n := range 20 {
		s.mem.Remove(keyOf(n))
		if s.Has(keyOf(n)) {
			t.Fatal("it is still there")
		}
	}
	s.written()
	s.kill()
	for _, cut := range []bool{false, true} {
		if cut {
			if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
				t.Fatal(err)
			}
		}
		s = start(t, dir)
		s.rebuilt()
		for n := range 40 {
			want := 1
			if n < 20 {
				want = 0
			}
			if got := s.get(n, ""); got != want {
				t.Errorf("cut %v: object %d: version %d, want %d", cut, n, got, want)
			}
		}
		s.kill()
	}
}

// TestARebuildFindsTheNewest: over several turns of the ring, sealed segments and open ones.
func TestARebuildFindsTheNewest(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	want := map[int]int{}
	for i := range 3000 {
		n, v := i%700, i/700+1
		s.store(n, v, 3000, "")
		want[n] = v
		if i%500 == 0 {
			s.written()
		}
	}
	s.written()
	s.kill()
	s = start(t, dir)
	found := map[int]bool{}
	for n := range want {
		v := s.get(n, "")
		if v != 0 && v != want[n] {
			t.Fatalf("object %d: version %d, want %d", n, v, want[n])
		}
		found[n] = v != 0
	}
	s.kill()
	if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer s.kill()
	s.rebuilt()
	missing := 0
	for n := range want {
		v := s.get(n, "")
		if v != 0 && v != want[n] {
			t.Fatalf("rebuilt: object %d: version %d, want %d", n, v, want[n])
		}
		if found[n] && v == 0 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d objects were not found again", missing, len(want))
	}
	if s.count(stats.DiskErrors) != 0 {
		t.Errorf("%d errors", s.count(stats.DiskErrors))
	}
}

// TestTheSuccessorWritesWhatWasNot: memory outlives the server, and has more than the disk.
func TestTheSuccessorWritesWhatWasNot(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	mem := s.mem
	for n := range 50 {
		s.store(n, 1, 1000, "")
	}
	s.written()
	s.kill()
	for n := 25; n < 100; n++ {
		if err := tryStore(mem, n, 2, 1000, ""); err != nil { // what its writer did not come to
			t.Fatal(err)
		}
	}
	s = startOver(t, dir, mem)
	await(t, "75 to be written", func() bool { return s.count(stats.DiskWrites) >= 75 })
	s.written()
	s.kill()
	s = start(t, dir)
	defer s.Close()
	for n := range 100 {
		want := 2
		if n < 25 {
			want = 1
		}
		if got := s.get(n, ""); got != want {
			t.Errorf("object %d: version %d, want %d", n, got, want)
		}
	}
}

// TestWhatIsHotStays: what memory still has is written once more when its segment is overwritten.
func TestWhatIsHotStays(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, func(o *Options) { o.Size = 8 << 20 })
	s.kill()
	s = startOver(t, dir, newMemory(t, 3<<20, s.Seed()), func(o *Options) { o.Size = 8 << 20 })
	s.store(0, 1, 1000, "")
	s.written()
	hold, _ := s.mem.Find(keyOf(0), nil) // a pin keeps it in memory
	for n := 1; n < 4000; n++ {
		s.store(n, 1, 3000, "")
		if n%200 == 0 {
			s.written()
		}
	}
	s.written()
	hold.Release()
	s.kill()
	s = start(t, dir, func(o *Options) { o.Size = 8 << 20 })
	defer s.Close()
	if s.get(1000, "") != 0 { // not in a segment of memory with the first
		t.Error("the ring has not gone round")
	}
	if s.get(0, "") != 1 {
		t.Error("what was in memory all the time is not on disk")
	}
}

// TestDamageIsAMiss: a byte is changed anywhere in the file.
func TestDamageIsAMiss(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n := range 200 {
		s.store(n, 1, 2000, "")
	}
	s.written()
	s.kill()
	b, err := os.ReadFile(filepath.Join(dir, storeName))
	if err != nil {
		t.Fatal(err)
	}
	for i := pageSize + segHeaderSize + 3; i < len(b); i += 2200 {
		b[i] ^= 4
	}
	if err := os.WriteFile(filepath.Join(dir, storeName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer s.Close()
	hits := 0
	for n := range 200 {
		hits += s.get(n, "") // checks every byte
	}
	if errors := s.count(stats.DiskErrors); hits+errors != 200 || errors < 100 {
		t.Errorf("%d hits, %d errors", hits, errors)
	}
	for n := range 200 {
		if s.Has(keyOf(n)) != (s.get(n, "") != 0) {
			t.Fatal("what is damaged is looked for again")
		}
	}
}

// TestAFileIsTruncated: the store's, and the index's while it is mapped, which is the end of the tier and said once.
func TestAFileIsTruncated(t *testing.T) {
	dir := t.TempDir()
	l, log := newLog(t)
	s := start(t, dir, func(o *Options) { o.Log = l })
	defer s.kill()
	for n := range 200 {
		s.store(n, 1, 2000, "")
	}
	s.written()
	s.mem.SetLower(nil) // not told of what is forgotten here
	for n := range 200 {
		s.mem.Remove(keyOf(n))
	}
	s.mem.SetLower(s.Store)
	if err := os.Truncate(filepath.Join(dir, storeName), 300<<10); err != nil {
		t.Fatal(err)
	}
	hits := 0
	for n := range 200 {
		hits += s.get(n, "")
	}
	if hits == 0 || hits == 200 {
		t.Errorf("%d hits", hits)
	}
	failed := s.count(stats.DiskErrors)
	if err := os.Truncate(filepath.Join(dir, indexName), 0); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if s.mem.Remove(keyOf(n)); s.Has(keyOf(n)) {
			t.Fatal("found without an index")
		}
		s.store(n, 2, 100, "")
	}
	if !s.index.broken.Load() {
		t.Error("it did not notice")
	}
	if tr := s.Trouble(); tr == nil || !tr.Off || !strings.Contains(tr.Reason, "index") {
		t.Errorf("it says %+v", tr)
	}
	if n := s.count(stats.DiskErrors); n != failed+1 {
		t.Errorf("%d errors were counted, want one", n-failed)
	}
	if n := strings.Count(log(), `"level":"error"`); n != 1 {
		t.Errorf("%d errors were logged: %s", n, log())
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, storeName)
	if err := os.WriteFile(path, []byte("somebody's diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: dir, Size: testSize}
	if _, err := Open(o); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v, want ErrForeign", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "somebody's diary" {
		t.Errorf("it says %q now", b)
	}
}

// TestAnotherSizeBeginsAnew: and so does another version.
func TestAnotherSizeBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	fill := func(tune func(*Options)) {
		s := start(t, dir, tune)
		if s.Has(keyOf(1)) {
			t.Error("it is still there")
		}
		s.store(1, 1, 10, "")
		s.written()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fill(func(*Options) {})
	fill(func(o *Options) { o.Size *= 2 })
	fill(func(o *Options) { o.Size = MinSize })
	b := []byte("tfstore\x00")
	f, err := os.OpenFile(filepath.Join(dir, storeName), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	fill(func(o *Options) { o.Size = MinSize })
}

// TestKeep: a store of another size is used as it is, if that is wished.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	s.store(1, 1, 10, "")
	s.written()
	s.kill()
	s = start(t, dir, func(o *Options) { o.Size, o.Keep = 64<<20, true })
	if s.get(1, "") != 1 || Size(dir) != s.header.storeSize() || Size(dir) > testSize {
		t.Errorf("%d bytes, version %d", Size(dir), s.get(1, ""))
	}
	s.kill()
}

// TestOneInstanceADirectory: also within one process.
func TestOneInstanceADirectory(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	if _, err := Open(s.opts); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	s.kill()
}

// TestNoRoom: the file does not fit.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Dir: dir, Size: int64(st.Bavail)*st.Bsize + 1<<30})
	if !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if size := func() int64 { f, _ := os.Stat(filepath.Join(dir, storeName)); return f.Size() }(); size != 0 {
		t.Errorf("it left %d bytes", size)
	}
	s := start(t, dir) // a smaller one does
	s.kill()
}

// TestManyWaitForOneRead: concurrent look-ups are collapsed.
func TestManyWaitForOneRead(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	s.store(1, 1, 600_000, "")
	s.written()
	s.kill()
	s = start(t, dir)
	defer s.kill()
	var bells []bell
	for range 100 {
		if !s.Has(keyOf(1)) {
			continue // it is there by now
		}
		b := make(bell)
		if !s.Load(keyOf(1), b) {
			t.Fatal("refused")
		}
		bells = append(bells, b)
	}
	for _, b := range bells {
		<-b
	}
	if s.get(1, "") != 1 {
		t.Error("it is not there")
	}
}

func TestGeometry(t *testing.T) {
	for _, size := range []int64{MinSize, 4 << 20, 16 << 20, 1 << 30, 40 << 30, 1 << 44} {
		g := plan(size)
		if g.storeSize() > size || g.storeSize() < size*9/10-int64(g.segSize) || g.segCount < minSegments {
			t.Errorf("%d bytes: %+v", size, g)
		}
		if p := placeOf(g.segCount-1, g.segSize-granule, 1<<22-1); p.segment() != g.segCount-1 || p.offset() != g.segSize-granule || p.seq() != 1<<22-1 {
			t.Errorf("place %x", p)
		}
		if perObject := float64(g.indexSize()) / (float64(g.storeSize()) / 4096); size >= 1<<30 && perObject > 32.1 {
			t.Errorf("%d bytes: %.0f bytes of index for each 4 KiB", size, perObject)
		}
	}
	if i := infoOf(maxSegment-granule, 1<<14-1); i.length() != maxSegment-granule || i.vary() != 1<<14-1 {
		t.Errorf("info %x", i)
	}
}

// TestNothingOlderComesForWhatIsDamaged: while the index is made anew, what cannot be read takes its place in the order along.
func TestNothingOlderComesForWhatIsDamaged(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Close()
	s.store(1, 1, 1000, "")
	s.written()
	k := keyOf(1)
	c := s.index.find(nil, k)
	if len(c) != 1 {
		t.Fatalf("%d entries, want 1", len(c))
	}
	s.scan.active.Store(true)
	s.forsake(k, c[0])
	if s.index.has(k) {
		t.Error("it is still there")
	}
	if s.index.putOlder(k, c[0].place, c[0].info, make([]bool, s.index.setCount), func() bool { return s.scan.mayEnter(k) }) {
		t.Error("something older has come in its place")
	}
}
