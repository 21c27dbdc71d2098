package disk

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// storeFile is the device that a store usually is on.
//
// What is written in large pieces goes past the page cache (O_DIRECT, open(2)). A flood of misses is asked for again from memory,
// if at all, and would push out of the page cache what the machine has better use for; the pages it takes there
// cost more than the write does, most of all in a virtual machine that has to ask its host for them. What comes in small pieces
// stays in the page cache, where it waits for its neighbours.
type storeFile struct {
	*os.File
	direct *os.File // the same file, past the page cache; nil: that cannot be had
}

// openFile opens the store's file, or makes it.
func openFile(path string) (*storeFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &storeFile{f, past(f)}, nil
}

// past opens a file once more, past the page cache; nil: that cannot be had here, as on tmpfs before Linux 6.6.
func past(f *os.File) *os.File {
	direct, err := os.OpenFile(f.Name(), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	a, errA := f.Stat()
	b, errB := direct.Stat()
	if errors.Join(errA, errB) != nil || !os.SameFile(a, b) {
		_ = direct.Close()
		return nil
	}
	return direct
}

// leastDirect is what must lie in whole pages for a write to go past the page cache: for less, a page cache that
// gathers is cheaper.
const leastDirect = 64 << 10

// WriteAt implements device. Only the store's writer calls it. No page is written both ways: where p begins and ends within
// one, those bytes go through the page cache.
func (f *storeFile) WriteAt(p []byte, off int64) (n int, err error) {
	from, to := wholePages(p, off)
	if f.direct == nil || to-from < leastDirect {
		return f.File.WriteAt(p, off)
	}
	for _, piece := range [...]struct {
		way *os.File
		end int
	}{{f.File, from}, {f.direct, to}, {f.File, len(p)}} {
		done, err := piece.way.WriteAt(p[n:piece.end], off+int64(n))
		n += done
		if piece.way == f.direct && errors.Is(err, unix.EINVAL) { // it wants another alignment
			_ = f.direct.Close()
			f.direct = nil
			done, err = f.File.WriteAt(p[n:piece.end], off+int64(n))
			n += done
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// wholePages returns which part of p, to be written at off, fills pages of the file from pages of memory.
func wholePages(p []byte, off int64) (from, to int) {
	from = int(-off & (pageSize - 1))
	if len(p) < from+pageSize || (uintptr(unsafe.Pointer(unsafe.SliceData(p)))+uintptr(from))%pageSize != 0 {
		return 0, 0
	}
	return from, from + (len(p)-from)/pageSize*pageSize
}

// paged returns n bytes of memory that begin with a page.
func paged(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % pageSize
	return b[skip:][:n]
}

// Sync implements device: the size never changes, so the data is all there is to flush.
func (f *storeFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }

func (f *storeFile) Close() error {
	err := f.File.Close()
	if f.direct != nil {
		err = errors.Join(err, f.direct.Close())
	}
	return err
}

func writeAll(d device, b []byte, at int64) error {
	n, err := d.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = fmt.Errorf("short write: %d of %d bytes", n, len(b))
	}
	return err
}

func readAll(d device, b []byte, at int64) error {
	n, err := d.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("short read: %d of %d bytes", n, len(b))
	}
	return err
}
