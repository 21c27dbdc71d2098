package cache

import "testing"

func benchStore(b testing.TB) (*Store, *Arena, []Key) {
	s := newStore(b, 64<<20, Options{})
	a := s.Arena()
	keys := make([]Key, 10_000)
	for i := range keys {
		keys[i] = keyN(uint64(i))
		o := store(b, a, keys[i], 0, "", 1024, true)
		o.Release()
	}
	return s, a, keys
}

func TestHitAllocatesNothing(t *testing.T) {
	s, a, keys := benchStore(t)
	m := exactly("")
	n := 0
	if avg := testing.AllocsPerRun(1000, func() {
		k := s.KeyOf([]byte("http"), []byte("example.org"), []byte("/"), nil)
		_, _ = a.Lookup(k, m)
		o, ok := a.Lookup(keys[n%len(keys)], nil)
		if ok {
			n += 1 + len(o.Fragment(0))/1024
			o.Release()
		}
	}); avg != 0 {
		t.Errorf("%v allocations per look-up, want 0", avg)
	}
}

func TestMissAllocatesNothing(t *testing.T) {
	_, a, keys := benchStore(t)
	meta, head, data := Meta{}, sampleHead(0), make([]byte, 1024)
	n := 0
	if avg := testing.AllocsPerRun(1000, func() {
		w, err := a.Create(keys[n%len(keys)], &meta, nil, nil, head, 1024)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(data)
		o, _ := w.Publish()
		o.Release()
		w.Release()
		n++
	}); avg != 0 {
		t.Errorf("%v allocations per store, want 0", avg)
	}
}

func BenchmarkKeyOf(b *testing.B) {
	s, _, _ := benchStore(b)
	scheme, host, path := []byte("http"), []byte("www.example.org"), []byte("/some/path/to/an/object.html")
	b.ReportAllocs()
	for b.Loop() {
		s.KeyOf(scheme, host, path, nil)
	}
}

func BenchmarkLookupHot(b *testing.B) {
	_, a, keys := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		o, _ := a.Lookup(keys[0], nil)
		o.Release()
	}
}

// BenchmarkLookup goes over 10,000 objects, so most of its time is cache misses.
func BenchmarkLookup(b *testing.B) {
	_, a, keys := benchStore(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		o, _ := a.Lookup(keys[n], nil)
		o.Release()
		if n++; n == len(keys) {
			n = 0
		}
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	_, a, _ := benchStore(b)
	k := keyN(1 << 40)
	for b.Loop() {
		a.Lookup(k, nil)
	}
}

func BenchmarkLookupParallel(b *testing.B) {
	s, _, keys := benchStore(b)
	b.RunParallel(func(pb *testing.PB) {
		a, n := s.Arena(), 0
		for pb.Next() {
			o, _ := a.Lookup(keys[n], nil)
			o.Release()
			if n++; n == len(keys) {
				n = 0
			}
		}
	})
}

// BenchmarkStore1K includes its share of evictions.
func BenchmarkStore1K(b *testing.B) {
	_, a, _ := benchStore(b)
	meta, head, data := Meta{}, sampleHead(0), make([]byte, 1024)
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		k := Key{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 0, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), byte(n), byte(n >> 8)}
		n++
		w, err := a.Create(k, &meta, nil, nil, head, 1024)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = w.Write(data)
		o, _ := w.Publish()
		o.Release()
		w.Release()
	}
}

// BenchmarkOpen opens a store of 2 GiB, as the successor of a dead process does.
func BenchmarkOpen(b *testing.B) {
	mem, _ := shared(b, 2<<30)
	open(b, mem, Options{})
	for b.Loop() {
		open(b, mem, Options{})
	}
}

func BenchmarkFlights(b *testing.B) {
	f, k, me := NewFlights[*fill](), keyN(1), &fill{}
	no := func(*fill) bool { return false }
	b.ReportAllocs()
	for b.Loop() {
		f.Join(k, Anybody, me, 0, no)
		f.Finish(k, me)
	}
}
