package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// putPart stores want[from:to] as a part of k.
func putPart(t *testing.T, a *Arena, k Key, want []byte, from, to int) {
	t.Helper()
	meta := Meta{Status: 200, RangeFrom: int64(from), RangeTotal: int64(len(want))}
	w, err := a.Create(k.Parts(), &meta, []byte("uri"), nil, []byte("A: b\r\n"), int64(to-from))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if _, err := w.Write(want[from:to]); err != nil {
		t.Fatal(err)
	}
	o, err := w.Publish()
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
}

// parts returns the parts of k by their first byte; they are released with the test.
func parts(t *testing.T, a *Arena, k Key) map[int64]*Object {
	t.Helper()
	m := map[int64]*Object{}
	for _, o := range a.AppendParts(nil, k.Parts(), nil) {
		m[o.Meta().RangeFrom] = &o
		t.Cleanup(o.Release)
	}
	return m
}

func TestPartsLieBesideTheWhole(t *testing.T) {
	s := newStore(t, small, Options{})
	a := s.Arena()
	k, want := keyN(1), content(keyN(1), 1, 1000)
	putPart(t, a, k, want, 0, 100)
	putPart(t, a, k, want, 500, 700)
	putPart(t, a, k, want, 0, 200) // takes the place of the first
	if _, found := a.Lookup(k, nil); found {
		t.Fatal("a look-up for the whole found a part")
	}
	got := parts(t, a, k)
	if len(got) != 2 || got[0].BodyLen() != 200 || got[500].BodyLen() != 200 {
		t.Fatalf("got %v", got)
	}
	if k.Parts().Parts() != k {
		t.Error("Parts is not its own inverse")
	}
	if s.place(k.Parts()) != s.place(k) {
		t.Error("the parts lie in another set")
	}
	if n := s.Remove(k); n != 2 {
		t.Errorf("removed %d, want 2", n)
	}
	if len(parts(t, a, k)) != 0 {
		t.Error("a removed part is found")
	}
}

// Bodies that come in pieces of all sizes, in order, end as the whole, and their fragments stay few.
func TestAssemble(t *testing.T) {
	for _, c := range []struct{ piece, size int }{
		{1, 500}, {700, 100_000}, {20_000, 600_000}, {100_000, 1_000_000}, {400_000, 1_900_000},
	} {
		s := newStore(t, 16<<20, Options{MaxObject: 2 << 20})
		a := s.Arena()
		k := keyN(uint64(c.size))
		want := content(k, 1, c.size)
		putPart(t, a, k, want, 0, c.piece)
		for at := c.piece; at < c.size; {
			end := min(at+c.piece, c.size)
			front := parts(t, a, k)[0]
			if front == nil || front.BodyLen() != int64(at) {
				t.Fatalf("pieces of %d: %d bytes are not there", c.piece, at)
			}
			w, err := a.Create(k.Parts(), &Meta{}, nil, nil, nil, int64(end-at))
			if err != nil {
				t.Fatal(err)
			}
			w.Write(want[at:end])
			piece := w.Reader()
			meta := Meta{RangeTotal: int64(c.size)}
			if err := a.Assemble(k.Parts(), &meta, []byte("uri"), nil, []byte("H: 1\r\n"), front, &piece); err != nil {
				t.Fatal(err)
			}
			piece.Release()
			w.Abort()
			w.Release()
			at = end
			front.Release()
		}
		o := parts(t, a, k)[0]
		if !bytes.Equal(body(o), want) {
			t.Fatalf("pieces of %d: another body", c.piece)
		}
		if n, most := int64(o.hdr.fragments.Load()), 2*int64(c.size)/s.small()+16; n > most {
			t.Errorf("pieces of %d: %d fragments, want at most %d", c.piece, n, most)
		}
		if string(o.URI()) != "uri" || string(o.Head()) != "H: 1\r\n" {
			t.Errorf("got %q, %q", o.URI(), o.Head())
		}
		o.Release()
		if n := s.Stats().Pinned; n != 0 {
			t.Errorf("pieces of %d: %d segments still pinned", c.piece, n)
		}
	}
}

// What was assembled outlives its pieces, and the store may come round to all of them meanwhile.
func TestAssembledUnderEviction(t *testing.T) {
	s := newStore(t, small, Options{MaxObject: 1 << 20})
	a := s.Arena()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		k := keyN(uint64(i))
		size := 1 + r.IntN(300_000)
		want := content(k, 1, size)
		cut := r.IntN(size)
		putPart(t, a, k, want, 0, cut+1)
		putPart(t, a, k, want, cut, size) // overlaps: not used
		var pieces []*Object
		got := a.AppendParts(nil, k.Parts(), nil)
		for j := range got {
			if got[j].BodyLen() == int64(cut+1) && got[j].Meta().RangeFrom == 0 {
				pieces = append(pieces, &got[j])
			}
		}
		if len(pieces) == 1 && cut+1 < size {
			w, err := a.Create(k.Parts(), &Meta{}, nil, nil, nil, int64(size-cut-1))
			if err != nil {
				t.Fatal(err)
			}
			w.Write(want[cut+1:])
			rest := w.Reader()
			err = a.Assemble(k, &Meta{}, nil, nil, nil, pieces[0], &rest)
			rest.Release()
			w.Release()
			if err != nil && !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
		}
		for j := range got {
			got[j].Release()
		}
		if o, found := a.Lookup(k, nil); found {
			if !bytes.Equal(body(&o), want) {
				t.Fatalf("object %d: another body", i)
			}
			o.Release()
		}
	}
	if n := s.Stats().Pinned; n != 0 {
		t.Errorf("%d segments still pinned", n)
	}
}

func TestAssembleTooLarge(t *testing.T) {
	s := newStore(t, small, Options{MaxObject: 1000})
	a := s.Arena()
	k := keyN(1)
	want := content(k, 1, 1200)
	putPart(t, a, k, want, 0, 600)
	putPart(t, a, k, want, 600, 1200)
	p := parts(t, a, k)
	if err := a.Assemble(k, &Meta{}, nil, nil, nil, p[0], p[600]); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// What one more piece of 64 KiB costs at the end of 128 MiB that came like that.
func BenchmarkAssemble(b *testing.B) {
	const piece, pieces = 64 << 10, 2048
	s := newStore(b, 1<<30, Options{MaxObject: 200 << 20})
	a := s.Arena()
	k := keyN(1)
	chunk := content(k, 1, piece)
	add := func(front *Object) {
		w, err := a.Create(k.Parts(), &Meta{}, nil, nil, nil, piece)
		if err != nil {
			b.Fatal(err)
		}
		w.Write(chunk)
		r := w.Reader()
		list := []*Object{&r}
		if front != nil {
			list = []*Object{front, &r}
		}
		if err := a.Assemble(k.Parts(), &Meta{RangeTotal: 1 << 40}, nil, nil, nil, list...); err != nil {
			b.Fatal(err)
		}
		r.Release()
		w.Abort()
		w.Release()
	}
	last := func() *Object { all := a.AppendParts(nil, k.Parts(), nil); return &all[0] }
	add(nil)
	for range pieces - 1 {
		front := last()
		add(front)
		front.Release()
	}
	front := last()
	defer front.Release()
	b.Logf("%d fragments", front.hdr.fragments.Load())
	b.ResetTimer()
	for b.Loop() {
		add(front)
	}
}
