package buffer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Page sizes in bytes. A Small page takes an ordinary request head or response
// head; a Large one the longest head that the limits allow, or a window of a
// body.
const (
	Small = 4 << 10
	Large = 64 << 10
)

// A Ref names a page of an arena. The zero Ref names none.
type Ref uint32

// largeBit tells the two kinds of Ref apart.
const largeBit Ref = 1 << 31

// An Arena hands out pages of one mapping. It is owned by one event loop.
type Arena struct {
	mem   []byte // immutable; the small pages, then the large ones
	small class
	large class
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

// Size returns the number of bytes a mapping for this many pages needs.
func Size(small, large int) int { return small*Small + large*Large }

// New makes an arena over private memory of its own, reserved now and touched
// only as it is used. Close gives it back.
func New(small, large int) (*Arena, error) {
	mem, err := unix.Mmap(-1, 0, Size(small, large), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map an arena of %d bytes: %w", Size(small, large), err)
	}
	return Over(mem, small, large), nil
}

// Over makes an arena over mem, which must hold Size(small, large) bytes and
// stays the caller's.
func Over(mem []byte, small, large int) *Arena {
	if len(mem) < Size(small, large) {
		panic("buffer: the mapping is too small for its pages")
	}
	return &Arena{
		mem:   mem,
		small: class{size: Small, max: small},
		large: class{base: small * Small, size: Large, max: large},
	}
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
	if r&largeBit != 0 {
		a.large.put(r)
	} else {
		a.small.put(r)
	}
}

// Bytes returns the whole page that r names; nil for the zero Ref.
func (a *Arena) Bytes(r Ref) []byte {
	if r == 0 {
		return nil
	}
	c := &a.small
	if r&largeBit != 0 {
		c = &a.large
	}
	off := c.base + (int(r&^largeBit)-1)*c.size
	return a.mem[off : off+c.size : off+c.size]
}

// InUse returns how many pages of each size are handed out.
func (a *Arena) InUse() (small, large int) { return a.small.used, a.large.used }

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
