package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// newMemory makes a memory tier of n bytes whose keys are those of the store.
func newMemory(t testing.TB, n int, seed [2]uint64) *cache.Store {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	m, err := cache.Open(mem, cache.Options{MaxObject: int64(n) / 4, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A server is a store with memory above it, as one process has them.
type server struct {
	*Store
	t    testing.TB
	mem  *cache.Store
	row  *stats.Row
	opts Options
}

const (
	testSize   = 4 << 20
	testMemory = 8 << 20
)

// start opens the store in dir with empty memory.
func start(t testing.TB, dir string, tune ...func(*Options)) *server {
	t.Helper()
	return startOver(t, dir, nil, tune...)
}

// startOver is start with the memory of the server before.
func startOver(t testing.TB, dir string, mem *cache.Store, tune ...func(*Options)) *server {
	t.Helper()
	o := Options{Dir: dir, Size: testSize, Threads: 2, Stats: new(stats.Row), Labels: testLabels}
	for _, f := range tune {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if mem == nil {
		mem = newMemory(t, testMemory, s.Seed())
	}
	s.Attach(mem)
	return &server{s, t, mem, o.Stats, o}
}

func testLabels(b, head []byte) []byte {
	if bytes.HasPrefix(head, []byte("Cache-Tag")) {
		return append(b, head...)
	}
	return b
}

// kill ends the server as SIGKILL does: nothing is flushed and nothing noted. Its writer has come to the end
// of a turn.
func (s *server) kill() {
	s.t.Helper()
	s.mem.SetLower(nil)
	s.write.dead.Store(true)
	close(s.stop)
	s.reads.close()
	s.ended.Wait()
	if err := s.files.release(); err != nil {
		s.t.Error(err)
	}
}

func (s *server) count(m stats.Metric) int { return int(s.row.Load(m)) }

// newLog makes a log, and what reads it.
func newLog(t testing.TB) (*logging.Log, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := logging.New(logging.Options{Path: path, Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// await polls for what other goroutines do.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// written waits until the writer has nothing more to do.
func (s *server) written() {
	s.t.Helper()
	s.write.ask(func() {
		for s.write.work() {
		}
	})
}

// rebuilt waits until the index has been made anew.
func (s *server) rebuilt() {
	s.t.Helper()
	await(s.t, "the rebuild", func() bool { return !s.scan.active.Load() })
}

func keyOf(n int) cache.Key {
	var k cache.Key
	r := rand.New(rand.NewPCG(uint64(n), 77))
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

func uriOf(n int) []byte { return fmt.Appendf(nil, "example.org/%d?q", n) }

// content is the body of object n in version v: no two share a run.
func content(n, v, size int) []byte {
	b := make([]byte, 0, size+8)
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d", n, v)
	for x := h.Sum64() | 1; len(b) < size; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:size]
}

func headOf(v, size int) []byte { return fmt.Appendf(nil, "X-Version: %d\r\nX-Size: %d\r\n", v, size) }

// store puts version v of object n into memory.
func (s *server) store(n, v, size int, vary string) {
	s.t.Helper()
	if err := tryStore(s.mem, n, v, size, vary); err != nil {
		s.t.Fatal(err)
	}
}

func tryStore(m *cache.Store, n, v, size int, vary string) error {
	meta := cache.Meta{Status: 200, Date: int64(v), ETagLen: uint32(v)}
	return publish(m, keyOf(n), &meta, uriOf(n), []byte(vary), headOf(v, size), content(n, v, size))
}

func publish(m *cache.Store, k cache.Key, meta *cache.Meta, uri, vary, head, body []byte) error {
	w, err := m.Create(k, meta, uri, vary, head, int64(len(body)))
	if err != nil {
		return err
	}
	defer w.Release()
	if _, err := w.Write(body); err != nil {
		return err
	}
	o, err := w.Publish()
	o.Release()
	return err
}

// bell is a Waiter.
type bell chan struct{}

func (b bell) Loaded(bool) { close(b) }

// load brings object n into memory, if it is on disk.
func (s *server) load(n int) {
	s.t.Helper()
	if !s.Has(keyOf(n)) {
		return
	}
	b := make(bell)
	if s.Load(keyOf(n), b) {
		<-b
	}
}

// get loads object n and returns the version that is there, 0 for none. Any wrong byte fails the test.
func (s *server) get(n int, vary string) int {
	s.t.Helper()
	s.load(n)
	o, ok := s.mem.Find(keyOf(n), []byte(vary))
	if !ok {
		return 0
	}
	defer o.Release()
	return check(s.t, &o, n)
}

func check(t testing.TB, o *cache.Object, n int) int {
	t.Helper()
	v := int(o.Meta().Date)
	if o.Key() != keyOf(n) || string(o.URI()) != string(uriOf(n)) || o.Meta().ETagLen != uint32(v) ||
		string(o.Head()) != string(headOf(v, int(o.BodyLen()))) {
		t.Fatalf("object %d version %d: wrong record: %q %q", n, v, o.URI(), o.Head())
	}
	got := make([]byte, 0, o.BodyLen())
	for int64(len(got)) < o.BodyLen() {
		got = append(got, o.Fragment(int64(len(got)))...)
	}
	if !bytes.Equal(got, content(n, v, len(got))) {
		t.Fatalf("object %d version %d: wrong body", n, v)
	}
	return v
}

// memDevice is a store file that can fail, and that forgets what was not flushed.
type memDevice struct {
	mu    sync.Mutex
	data  []byte                                          // what a reader sees
	solid []byte                                          // what survives a power cut
	dirty map[int64]bool                                  // pages written since the last flush
	fail  func(write bool, off int64, n int) (int, error) // nil: all is well

	stalled chan struct{}
}

func newMemDevice(size int64) *memDevice {
	return &memDevice{data: make([]byte, size), solid: make([]byte, size), dirty: map[int64]bool{}}
}

func (d *memDevice) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if n, err := d.fail(false, off, len(p)); err != nil {
			return n, err
		}
	}
	if off >= int64(len(d.data)) {
		return 0, io.EOF
	}
	n := copy(p, d.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *memDevice) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := len(p), error(nil)
	if d.fail != nil {
		if n, err = d.fail(true, off, len(p)); err == nil {
			n = len(p)
		}
	}
	n = copy(d.data[off:], p[:n])
	for page := off / pageSize; n > 0 && page <= (off+int64(n)-1)/pageSize; page++ {
		d.dirty[page] = true
	}
	return n, err
}

func (d *memDevice) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if done := d.stalled; done != nil {
		d.mu.Unlock()
		<-done
		d.mu.Lock()
	}
	for page := range d.dirty {
		d.settle(page)
	}
	return nil
}

// stall lets no flush return before done is closed.
func (d *memDevice) stall(done chan struct{}) {
	d.mu.Lock()
	d.stalled = done
	d.mu.Unlock()
}

func (d *memDevice) settle(page int64) {
	at := page * pageSize
	copy(d.solid[at:min(at+pageSize, int64(len(d.solid)))], d.data[at:])
	delete(d.dirty, page)
}

func TestMain(m *testing.M) { os.Exit(m.Run()) }

func unsafeAddr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func leUint32(b []byte) uint32     { return binary.LittleEndian.Uint32(b) }
func putUint32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
