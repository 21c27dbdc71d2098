package buffer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Page sizes in bytes. A Small page takes an ordinary request head or response
// head; a Large one the longest head that the limits allow, or a window of a
// body. A Record page takes what is noted of a connection in custody.
const (
	Record = 1 << 10
	Small  = 4 << 10
	Large  = 64 << 10
)

// Shape says how many pages of each size an arena has.
type Shape struct{ Records, Smalls, Larges int }

// Size returns the number of bytes a mapping for these pages needs.
func (s Shape) Size() int { return s.Records*Record + s.Smalls*Small + s.Larges*Large }

// A Ref names a page of an arena. The zero Ref names none.
type Ref uint32

// These bits tell the kinds of Ref apart.
const (
	largeBit  Ref = 1 << 31
	recordBit Ref = 1 << 30
)

// An Arena hands out pages of one mapping. It is owned by one event loop.
type Arena struct {
	mem    []byte // immutable; the small pages, the large ones, the records
	small  class
	large  class
	record class
}

// A class is the free list of one page size. Owned by the arena's loop.
type class struct {
	base int   // offset of the first page in mem
	size int   // bytes a page
	max  int   // pages in the mapping
	high int   // pages ever handed out; those above were never touched
	free []Ref // given back; the last is the warmest
	used int
}

// New makes an arena over private memory of its own, reserved now and touched
// only as it is used. Close gives it back.
func New(s Shape) (*Arena, error) {
	mem, err := unix.Mmap(-1, 0, s.Size(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map an arena of %d bytes: %w", s.Size(), err)
	}
	return Over(mem, s), nil
}

// Over makes an arena over mem, which must hold s.Size() bytes and stays the
// caller's.
func Over(mem []byte, s Shape) *Arena {
	if len(mem) < s.Size() {
		panic("buffer: the mapping is too small for its pages")
	}
	return &Arena{
		mem:    mem,
		small:  class{size: Small, max: s.Smalls},
		large:  class{base: s.Smalls * Small, size: Large, max: s.Larges},
		record: class{base: s.Smalls*Small + s.Larges*Large, size: Record, max: s.Records},
	}
}

// Reserve makes the pages in use those that are named, each of them once or more,
// as somebody left them who had the memory before; all others are free. It comes
// before any page is handed out. A name of a page that does not exist is an error.
func (a *Arena) Reserve(used []Ref) error {
	taken := make(map[Ref]bool, len(used))
	for _, r := range used {
		if r == 0 {
			continue
		}
		if c, n := a.of(r); n < 1 || n > c.max {
			return fmt.Errorf("reserve page %#x: there is no such page", uint32(r))
		}
		taken[r] = true
	}
	for r := range taken {
		c, n := a.of(r)
		c.high = max(c.high, n)
		c.used++
	}
	for bit, c := range map[Ref]*class{0: &a.small, largeBit: &a.large, recordBit: &a.record} {
		for n := c.high; n >= 1; n-- {
			if r := Ref(n) | bit; !taken[r] {
				c.free = append(c.free, r)
			}
		}
	}
	return nil
}

// of returns the class of a page and its number there.
func (a *Arena) of(r Ref) (*class, int) {
	n := int(r &^ (largeBit | recordBit))
	switch {
	case r&largeBit != 0:
		return &a.large, n
	case r&recordBit != 0:
		return &a.record, n
	}
	return &a.small, n
}

// Close unmaps the memory of an arena made by New. No page may be in use.
func (a *Arena) Close() error {
	mem := a.mem
	a.mem = nil
	return unix.Munmap(mem)
}

// GetSmall takes a page of Small bytes; ok is false when all are in use.
func (a *Arena) GetSmall() (r Ref, ok bool) { return a.small.get(0) }

// GetLarge takes a page of Large bytes; ok is false when all are in use.
func (a *Arena) GetLarge() (r Ref, ok bool) { return a.large.get(largeBit) }

// GetRecord takes a page of Record bytes; ok is false when all are in use.
func (a *Arena) GetRecord() (r Ref, ok bool) { return a.record.get(recordBit) }

// Get takes the smallest page that holds n bytes.
func (a *Arena) Get(n int) (r Ref, ok bool) {
	switch {
	case n <= Small:
		return a.GetSmall()
	case n <= Large:
		return a.GetLarge()
	}
	return 0, false
}

// Put gives a page back. Its bytes may be handed out at once. Putting the zero
// Ref does nothing.
func (a *Arena) Put(r Ref) {
	if r == 0 {
		return
	}
	mangle(a.Bytes(r))
	c, _ := a.of(r)
	c.put(r)
}

// Bytes returns the whole page that r names; nil for the zero Ref.
func (a *Arena) Bytes(r Ref) []byte {
	if r == 0 {
		return nil
	}
	c, n := a.of(r)
	off := c.base + (n-1)*c.size
	return a.mem[off : off+c.size : off+c.size]
}

// InUse returns how many pages of each size are handed out.
func (a *Arena) InUse() Shape {
	return Shape{Records: a.record.used, Smalls: a.small.used, Larges: a.large.used}
}

func (c *class) get(bit Ref) (Ref, bool) {
	if n := len(c.free); n > 0 {
		r := c.free[n-1]
		c.free = c.free[:n-1]
		c.used++
		return r, true
	}
	if c.high == c.max {
		return 0, false
	}
	c.high++
	c.used++
	return Ref(c.high) | bit, true
}

func (c *class) put(r Ref) {
	c.used--
	c.free = append(c.free, r)
}
