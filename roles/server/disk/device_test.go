package disk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// newStoreFile makes a file of zeros.
func newStoreFile(t *testing.T, size int64) *storeFile {
	f, err := openFile(filepath.Join(t.TempDir(), storeName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := allocate(f.File, size); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestBothWaysIntoTheFile: pieces of all sizes, at places and from memory that begin in a page or not, are what is read
// next, also where it had been read before, and while others read.
func TestBothWaysIntoTheFile(t *testing.T) {
	const size = 4 << 20
	f := newStoreFile(t, size)
	want, room := make([]byte, size), paged(size+pageSize)
	rng, noise := rand.New(rand.NewPCG(7, 7)), rand.NewChaCha8([32]byte{7})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		b := make([]byte, 32<<10)
		for off := int64(0); ; off = (off + 12345) % (size - int64(len(b))) {
			select {
			case <-stop:
				return
			default:
				f.ReadAt(b, off)
			}
		}
	})
	defer readers.Wait()
	defer close(stop)
	for range 300 {
		n := 1 + rng.IntN([]int{100, 3 * pageSize, leastDirect + 2*pageSize, size / 2}[rng.IntN(4)])
		off := rng.IntN(size - n)
		at := off % pageSize
		if rng.IntN(4) == 0 {
			at = rng.IntN(pageSize)
		}
		p := room[at:][:n]
		noise.Read(p)
		copy(want[off:], p)
		if done, err := f.WriteAt(p, int64(off)); done != n || err != nil {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, done, err)
		}
		from, to := max(0, off-2*pageSize), min(size, off+n+2*pageSize)
		got := make([]byte, to-from)
		if err := readAll(f, got, int64(from)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[from:to]) {
			t.Fatalf("%d bytes written at %d: something else is read there, or beside", n, off)
		}
	}
}

// TestMuchGoesPastThePageCache: a large piece leaves none of its whole pages there, a small one does.
func TestMuchGoesPastThePageCache(t *testing.T) {
	const size = 1 << 20
	f := newStoreFile(t, size)
	skipWithoutDirect(t, f)
	room := paged(size)
	for _, c := range []struct {
		off, n int
		cached int // pages
	}{
		{off: 4 * pageSize, n: 10 * pageSize, cached: 10},
		{off: 100, n: leastDirect + 2*pageSize, cached: 2}, // in which it begins and ends
		{off: 50 * pageSize, n: 100 * pageSize, cached: 0},
	} {
		if err := writeAll(f, room[c.off%pageSize:][:c.n], int64(c.off)); err != nil {
			t.Fatal(err)
		}
		if n := cachedPages(t, f.File, c.off/pageSize, (c.off+c.n-1)/pageSize); n != c.cached {
			t.Errorf("%d bytes at %d: %d pages in the page cache, want %d", c.n, c.off, n, c.cached)
		}
		if err := f.Sync(); err != nil { // what is dirty there could not be dropped
			t.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFloodGoesPastThePageCache: the writer lays what it gathers so that it can be written that way, wherever in a
// segment it begins; but not while more comes than the medium takes.
func TestAFloodGoesPastThePageCache(t *testing.T) {
	s := start(t, t.TempDir(), func(o *Options) { o.Size = 256 << 20 })
	defer s.Close()
	skipWithoutDirect(t, s.files.store)
	w := &s.write
	for batch, c := range []struct{ came, cached int }{{0, 0}, {burst, 0}, {burst + 1, 100}, {0, 0}} {
		s.store(-1-batch, 1, 100+batch*777, "")
		await(t, "one that comes alone", func() bool { return s.index.holds(keyOf(-1-batch), varyHash(nil)) })
		w.ask(func() {
			seg, from := w.seg, w.off
			for n := range 120 {
				s.store(batch*120+n, 1, 1000, "")
				r, _ := w.next()
				w.save(r)
			}
			s.backlog.bytes.Store(int64(c.came))
			w.flush()
			if w.seg != seg {
				t.Error("the test wants all of it in one segment")
				return
			}
			first, last := (s.index.segmentAt(seg)+int64(from))/pageSize, (s.index.segmentAt(seg)+int64(w.off)-1)/pageSize
			cached, whole := cachedPages(t, s.files.store.File, int(first), int(last)), int(last-first)-1
			if want := whole * c.cached / 100; cached < want || cached > want+2 {
				t.Errorf("%d bytes have come: %d of %d pages are in the page cache, want %d and those at the ends", c.came, cached, whole, want)
			}
		})
	}
}

func skipWithoutDirect(t *testing.T, f *storeFile) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		t.Fatal(err)
	}
	if f.direct == nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the temporary directory's file system has the page cache only")
	}
}

// cachedPages counts, of a file's pages from first to last, those in the page cache.
func cachedPages(t *testing.T, f *os.File, first, last int) (n int) {
	mem, err := unix.Mmap(int(f.Fd()), int64(first)*pageSize, (last-first+1)*pageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := 0; i < len(mem); i += pageSize {
		if inMemory(&mem[i]) {
			n++
		}
	}
	return n
}

// TestDirectWritesRefused: a device that wants another alignment costs nothing but the way past the page cache.
func TestDirectWritesRefused(t *testing.T) {
	f := newStoreFile(t, 1<<20)
	refuses, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0) // EINVAL for all that is no number
	if err != nil {
		t.Fatal(err)
	}
	f.direct = refuses
	p := paged(3 * leastDirect)
	for i := range p {
		p[i] = byte('a' + i%26)
	}
	for off := int64(0); off < 2; off++ {
		if n, err := f.WriteAt(p[off:], off); n != len(p)-int(off) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := make([]byte, len(p))
	if err := readAll(f, got, 0); err != nil || !bytes.Equal(got, p) {
		t.Fatal("something else is read than was written", err)
	}
	if f.direct != nil {
		t.Error("it would be tried again")
	}
	if err := refuses.Close(); err == nil {
		t.Error("the descriptor was left open")
	}
}

// TestWholePages: which part of a piece can go past the page cache.
func TestWholePages(t *testing.T) {
	room := paged(8 * pageSize)
	for _, c := range []struct {
		name     string
		at, n    int
		off      int64
		from, to int
	}{
		{"all of it", 0, 4 * pageSize, 8 * pageSize, 0, 4 * pageSize},
		{"it begins and ends within a page", 100, 4 * pageSize, 100, pageSize - 100, 4*pageSize - 100},
		{"it ends within a page", 0, pageSize + 1, 0, 0, pageSize},
		{"memory lies otherwise", 64, 4 * pageSize, 0, 0, 0},
		{"no whole page", 100, pageSize, 100, 0, 0},
		{"nothing", 0, 0, 0, 0, 0},
	} {
		if from, to := wholePages(room[c.at:][:c.n], c.off); from != c.from || to != c.to {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, from, to, c.from, c.to)
		}
	}
}
