package disk

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/lockfile"
)

// Why a store cannot be opened.
var (
	// ErrInUse: another instance has it.
	ErrInUse = errors.New("in use by another instance")
	// ErrForeign: the file named store was made by another program.
	ErrForeign = errors.New("a file that is no store of trafficd is in the way")
	// ErrFull: there is no room for a file of that size.
	ErrFull = errors.New("no space left for a file of that size")
)

// The files of a store.
const (
	lockName  = "lock"
	storeName = "store"
	indexName = "index"
)

// files is what a store has open.
type files struct {
	lock   *lockfile.Lock
	store  *storeFile
	index  *os.File
	memory []byte
}

// Open takes the store in o.Dir, which is made if it is not there. It does not wait and does not scan: what takes
// time is done behind Attach. A store of another size or version begins anew.
func Open(o Options) (*Store, error) {
	if o.Size < MinSize {
		return nil, fmt.Errorf("open cache on disk: %d bytes are too few, %d are needed", o.Size, MinSize)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	f := new(files)
	s, err := f.open(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open cache on disk in %s: %w", o.Dir, err), f.release())
	}
	return s, nil
}

func (f *files) open(o Options) (*Store, error) {
	var err error
	if f.lock, err = lockfile.Acquire(filepath.Join(o.Dir, lockName)); err != nil {
		if errors.Is(err, lockfile.ErrHeld) {
			return nil, fmt.Errorf("%w: %w", ErrInUse, err)
		}
		return nil, err
	}
	h, found, err := f.openStore(o)
	if err != nil {
		return nil, err
	}
	x, good, err := f.openIndex(o, h, bootID())
	if err != nil {
		return nil, err
	}
	s := newStore(f.store, h, x, o, found && !good)
	s.files = f
	s.warm.Store(o.Gone != nil || resident(f.memory)) // who had it a moment ago has used it
	return s, nil
}

// openStore opens the store file, or makes it. found: there was one that can be used.
func (f *files) openStore(o Options) (h storeHeader, found bool, err error) {
	path := filepath.Join(o.Dir, storeName)
	if f.store, err = openFile(path); err != nil {
		return h, false, err
	}
	page := make([]byte, pageSize)
	n, err := f.store.ReadAt(page, 0)
	if err != nil && n == 0 && !isEnd(err) {
		return h, false, err
	}
	h, kin := decodeStoreHeader(page[:n])
	want := plan(o.Size)
	if kin == foreign {
		return h, false, fmt.Errorf("%s: %w: move it away", path, ErrForeign)
	}
	if kin == ours && (h.geometry == want || o.Keep && h.sound()) && fileSize(f.store.File) == h.storeSize() {
		return h, true, nil
	}
	if kin != blank && o.Log != nil {
		o.Log.Warn().Str("file", path).Msg("cache on disk has another size or version: it begins anew")
	}
	return f.format(o, want)
}

// Size is how large the store in dir is; 0: there is none.
func Size(dir string) int64 {
	st, err := os.Stat(filepath.Join(dir, storeName))
	if err != nil {
		return 0
	}
	return st.Size()
}

// format makes an empty store of the given shape. The header is written last.
func (f *files) format(o Options, g geometry) (h storeHeader, found bool, err error) {
	if err := f.store.Truncate(0); err != nil {
		return h, false, err
	}
	if err := allocate(f.store.File, g.storeSize()); err != nil {
		return h, false, errors.Join(err, f.store.Truncate(0))
	}
	h = storeHeader{geometry: g, layout: layout, id: random(), seed: o.Seed}
	if h.seed == [2]uint64{} {
		h.seed = [2]uint64{random(), random()}
	}
	if _, err := f.store.WriteAt(h.encode(), 0); err != nil {
		return h, false, err
	}
	return h, false, nil
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// allocate gives a file its size and its blocks, where the file system can. It looks for room first: what fallocate
// cannot finish it has begun, and for that moment nobody else would find any.
func allocate(f *os.File, size int64) error {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) == nil && st.Blocks > 0 && size/int64(st.Bsize) > int64(st.Bavail) {
		return fmt.Errorf("%s: %w: %w", f.Name(), ErrFull, unix.ENOSPC)
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch err {
	case nil:
		return nil
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return fmt.Errorf("%s: %w: %w", f.Name(), ErrFull, err)
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL:
		return f.Truncate(size) // a write may find the disk full, then
	}
	return fmt.Errorf("allocate %s: %w", f.Name(), err)
}

// openIndex maps the index. good: what it says can be used.
func (f *files) openIndex(o Options, h storeHeader, boot [16]byte) (x *index, good bool, err error) {
	path := filepath.Join(o.Dir, indexName)
	if f.index, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, false, err
	}
	size := h.indexSize()
	if fileSize(f.index) != size {
		if err := f.clearIndex(size); err != nil {
			return nil, false, err
		}
	}
	if err := f.mapIndex(size); err != nil {
		return nil, false, err
	}
	x = newIndex(h.geometry, f.memory)
	if x.hdr.usable(h, boot) {
		x.hdr.adopt(boot)
		return x, true, nil
	}
	if x.hdr.magic.Load() != 0 {
		if err := unix.Munmap(f.memory); err != nil {
			return nil, false, err
		}
		f.memory = nil
		if err := f.clearIndex(size); err != nil {
			return nil, false, err
		}
		if err := f.mapIndex(size); err != nil {
			return nil, false, err
		}
		x = newIndex(h.geometry, f.memory)
	}
	x.hdr.format(h, boot)
	return x, false, nil
}

// clearIndex makes the file all zeros. Its blocks are allocated, so that no store into the mapping finds the disk full.
func (f *files) clearIndex(size int64) error {
	if err := f.index.Truncate(0); err != nil {
		return err
	}
	return allocate(f.index, size)
}

func (f *files) mapIndex(size int64) (err error) {
	if f.memory, err = unix.Mmap(int(f.index.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map %s: %w", f.index.Name(), err)
	}
	// No child, and no keeper, has a use for it.
	if err := unix.Madvise(f.memory, unix.MADV_DONTFORK); err != nil {
		return fmt.Errorf("map %s: %w", f.index.Name(), err)
	}
	return nil
}

// usable reports whether an index is this store's and nothing of it can be lost.
func (h *indexHeader) usable(s storeHeader, boot [16]byte) bool {
	if h.magic.Load() != indexMagic || h.store != s.id || h.segSize != s.segSize || h.segCount != s.segCount || h.setCount != s.setCount {
		return false
	}
	state := h.state.Load()
	return state == indexClosed || state == indexUsed && h.boot == boot && boot != [16]byte{}
}

// settle puts the header of the index on the medium: from here on, a power cut finds it to be in use, and does not trust the rest.
func (f *files) settle() { _ = unix.Msync(f.memory[:pageSize], unix.MS_SYNC) }

func (h *indexHeader) adopt(boot [16]byte) {
	h.boot = boot
	h.state.Store(indexUsed)
}

// format describes an empty index; what the log has is still to be found.
func (h *indexHeader) format(s storeHeader, boot [16]byte) {
	h.magic.Store(0)
	h.store, h.segSize, h.segCount, h.setCount = s.id, s.segSize, s.segCount, s.setCount
	h.boot = boot
	h.state.Store(indexRebuilds)
	h.magic.Store(indexMagic)
}

// bootID tells this run of the machine from any other; zero if the kernel does not say.
func bootID() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id
	}
	return [16]byte(raw)
}

// Warm reports whether the index is in memory, so that no look-up waits for the disk. It is where the machine has
// not been started anew meanwhile. Until it is, nothing is found.
func (s *Store) Warm() bool { return s.warm.Load() }

// WarmUp brings the index into memory and, where the limits allow, keeps it there. It takes time.
func (s *Store) WarmUp() {
	if s.files != nil {
		_ = unix.Madvise(s.files.memory, unix.MADV_POPULATE_READ) // kernels before 5.14: it comes when it is used
		_ = unix.Mlock(s.files.memory)                            // within RLIMIT_MEMLOCK only
	}
	s.warm.Store(true)
}

// residentSamples is how many pages of an index are looked at to tell whether it is in memory.
const residentSamples = 128

// resident reports whether a mapping seems to be in memory.
func resident(mem []byte) bool {
	pages := len(mem) / pageSize
	for i := range min(pages, residentSamples) {
		if !inMemory(&mem[i*pages/residentSamples%pages*pageSize]) {
			return false
		}
	}
	return true
}

// inMemory reports whether a mapping's page is.
func inMemory(page *byte) bool {
	var in [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(page)), pageSize, uintptr(unsafe.Pointer(&in)))
	return errno == 0 && in[0]&1 != 0
}

// LockDescriptors are those that hold the lock: a keeper that shares the descriptor table closes them when
// this process dies.
func (s *Store) LockDescriptors() []int {
	if s.files == nil {
		return nil
	}
	return s.files.lock.Descriptors()
}

// close puts everything on the medium, says so in the index and gives the directory free. The mapping stays: a loop may be
// reading it.
func (f *files) close(s *Store) error {
	var errs []error
	errs = append(errs, f.store.Sync(), unix.Msync(f.memory, unix.MS_SYNC))
	if errors.Join(errs...) == nil && !s.index.broken.Load() && s.index.hdr.state.CompareAndSwap(indexUsed, indexClosed) {
		errs = append(errs, unix.Msync(f.memory[:pageSize], unix.MS_SYNC))
	}
	errs = append(errs, f.store.Close(), f.index.Close(), f.lock.Release())
	return errors.Join(errs...)
}

// release gives back what an Open that failed has taken.
func (f *files) release() error {
	var errs []error
	if f.memory != nil {
		errs = append(errs, unix.Munmap(f.memory))
	}
	if f.index != nil {
		errs = append(errs, f.index.Close())
	}
	if f.store != nil {
		errs = append(errs, f.store.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Release())
	}
	return errors.Join(errs...)
}

func fileSize(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil {
		return -1
	}
	return st.Size()
}

// isEnd reports whether there is nothing (more) to read.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
