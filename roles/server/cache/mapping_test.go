package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// shared returns a mapping of n bytes of a new memfd, and its descriptor.
func shared(t testing.TB, n int) ([]byte, int) {
	t.Helper()
	fd, err := unix.MemfdCreate("cache-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatalf("memfd_create: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		t.Fatalf("ftruncate: %v", err)
	}
	return mapFD(t, fd, n), fd
}

func mapFD(t testing.TB, fd, n int) []byte {
	t.Helper()
	mem, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

func open(t testing.TB, mem []byte, o Options) *Store {
	t.Helper()
	s, err := Open(mem, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func newStore(t testing.TB, n int, o Options) *Store {
	t.Helper()
	mem, _ := shared(t, n)
	return open(t, mem, o)
}

// keyN makes the key of test object n; the whole object follows from it.
func keyN(n uint64) (k Key) {
	r := rand.New(rand.NewPCG(n, 1))
	binary.LittleEndian.PutUint64(k[:8], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

// content is what a body stored under k in version v must be: any byte is predictable
// and no two objects share a run.
func content(k Key, v byte, size int) []byte {
	b := make([]byte, 0, size+8)
	x := k.low() ^ uint64(v)*0x9e3779b97f4a7c15
	for len(b) < size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:size]
}

func body(o *Object) []byte {
	var b []byte
	for off := int64(0); off < o.BodyLen(); {
		f := o.Fragment(off)
		if len(f) == 0 {
			return append(b, "short"...)
		}
		b = append(b, f...)
		off += int64(len(f))
	}
	return b
}

// sampleHead carries the version, so that head and body can be checked to belong together.
func sampleHead(v byte) []byte {
	return append([]byte("Content-Type: text/plain\r\nX-Version: "), 'a'+v%26, '\r', '\n')
}

// uriOf is the URI that test objects are stored under; it is of an odd length.
func uriOf(k Key) []byte { return fmt.Appendf(nil, "example.org/%x?%d", k[:], k[0]) }

// store puts an object of the given size under k.
func store(t testing.TB, a *Arena, k Key, v byte, vary string, size int, known bool) Object {
	t.Helper()
	o, err := tryStore(a, k, v, vary, size, known)
	if err != nil {
		t.Fatalf("store %d bytes: %v", size, err)
	}
	return o
}

func tryStore(a *Arena, k Key, v byte, vary string, size int, known bool) (Object, error) {
	declared := int64(size)
	if !known {
		declared = -1
	}
	w, err := a.Create(k, &Meta{Status: 200, Date: int64(v) + 1, Lifetime: int64(v), Born: a.store.Sequence()}, uriOf(k), []byte(vary), sampleHead(v), declared)
	if err != nil {
		return Object{}, err
	}
	defer w.Release()
	if _, err := w.Write(content(k, v, size)); err != nil {
		w.Abort()
		return Object{}, err
	}
	return w.Publish()
}

// intactVersion checks every byte of an object and returns its version; ok is false
// when anything is not as it was stored.
func intactVersion(o *Object) (v byte, ok bool) {
	m := &o.hdr.meta // as it was stored, whether softened or not
	v = byte(m.Lifetime)
	return v, bytes.Equal(o.Head(), sampleHead(v)) && bytes.Equal(o.URI(), uriOf(o.Key())) && bytes.Equal(body(o), content(o.Key(), byte(m.LastModified)+v, int(o.BodyLen())))
}

func check(t testing.TB, o *Object, v byte, size int) {
	t.Helper()
	got, ok := intactVersion(o)
	if !ok || got != v || o.BodyLen() != int64(size) {
		t.Fatalf("object of %d bytes: got version %d, %d bytes, intact %v; want version %d", size, got, o.BodyLen(), ok, v)
	}
}
