package buffer

import "testing"

func newArena(t *testing.T, small, large int) *Arena {
	t.Helper()
	a, err := New(Shape{Smalls: small, Larges: large})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestPagesDoNotOverlap(t *testing.T) {
	a := newArena(t, 3, 2)
	var refs []Ref
	for range 3 {
		r, ok := a.GetSmall()
		if !ok {
			t.Fatal("GetSmall: the arena is full too early")
		}
		refs = append(refs, r)
	}
	for range 2 {
		r, ok := a.GetLarge()
		if !ok {
			t.Fatal("GetLarge: the arena is full too early")
		}
		refs = append(refs, r)
	}
	for i, r := range refs {
		p := a.Bytes(r)
		for j := range p {
			p[j] = byte(i + 1)
		}
	}
	for i, r := range refs {
		for j, b := range a.Bytes(r) {
			if b != byte(i+1) {
				t.Fatalf("page %d byte %d: got %d, want %d", i, j, b, i+1)
			}
		}
	}
}

func TestAFullArenaSaysSo(t *testing.T) {
	a := newArena(t, 1, 1)
	s, _ := a.Get(10)
	l, _ := a.Get(Small + 1)
	if len(a.Bytes(s)) != Small || len(a.Bytes(l)) != Large {
		t.Fatalf("got pages of %d and %d bytes", len(a.Bytes(s)), len(a.Bytes(l)))
	}
	for _, n := range []int{1, Small + 1, Large + 1} {
		if _, ok := a.Get(n); ok {
			t.Errorf("Get(%d) from a full arena: got a page", n)
		}
	}
	a.Put(s)
	if r, ok := a.GetSmall(); !ok || r != s {
		t.Errorf("after Put: got %v %v, want the page that was given back", r, ok)
	}
}

func TestTheWarmestPageIsUsedNext(t *testing.T) {
	a := newArena(t, 8, 0)
	r1, _ := a.GetSmall()
	r2, _ := a.GetSmall()
	a.Put(r1)
	a.Put(r2)
	if got, _ := a.GetSmall(); got != r2 {
		t.Errorf("got page %d, want %d, given back last", got, r2)
	}
}

func TestZeroRefIsNoPage(t *testing.T) {
	a := newArena(t, 1, 1)
	a.Put(0)
	if a.Bytes(0) != nil {
		t.Error("Bytes(0): got a page")
	}
	if used := a.InUse(); used != (Shape{}) {
		t.Errorf("in use: got %+v, want none", used)
	}
}
