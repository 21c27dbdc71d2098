package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/roles/server/cache"
)

// TestPurge: by what stands in the URI and in the labels, in sealed segments and the open one; it holds after a power cut.
func TestPurge(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	tagged := func(n int, tag string, uri []byte) {
		t.Helper()
		head := []byte("Cache-Tag: " + tag + "\r\n")
		w, err := s.mem.Create(keyOf(n), &cache.Meta{Status: 200}, uri, nil, head, 5000)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Release()
		if _, err := w.Write(content(n, 1, 5000)); err != nil {
			t.Fatal(err)
		}
		o, err := w.Publish()
		if err != nil {
			t.Fatal(err)
		}
		o.Release()
	}
	for n := range 90 {
		tagged(n, []string{"a", "b", "c"}[n%3], uriOf(n))
	}
	tagged(90, strings.Repeat("x", 2*longText), uriOf(90))
	tagged(91, "a", append(uriOf(91), bytes.Repeat([]byte("y"), 2*longText)...))
	s.written()
	if n := s.purged(func(_ cache.Key, uri, labels []byte) bool { return string(labels) == "Cache-Tag: a\r\n" }); n != 31 {
		t.Errorf("%d purged by tag, want 31", n)
	}
	if n := s.purged(func(_ cache.Key, uri, labels []byte) bool { return bytes.Contains(labels, []byte("xxx")) }); n != 1 {
		t.Errorf("%d purged by a long tag, want 1", n)
	}
	if n := s.purged(func(_ cache.Key, uri, labels []byte) bool { return string(uri) == string(uriOf(1)) }); n != 1 {
		t.Errorf("%d purged by URI, want 1", n)
	}
	expect := func() {
		t.Helper()
		for n := range 92 {
			want := n%3 != 0 && n < 90 && n != 1
			if s.load(n); s.Has(keyOf(n)) != want {
				t.Errorf("object %d: %v, want %v", n, !want, want)
			}
		}
	}
	expect()
	s.kill()
	if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer s.kill()
	await(t, "the rebuild", func() bool { return !s.scan.active.Load() })
	expect()
}

// TestPurgeOfOneAlternate leaves the others.
func TestPurgeOfOneAlternate(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	s.store(1, 1, 100, "a: b\r\n")
	s.store(1, 2, 100, "a: c\r\n")
	s.written()
	first := true
	if n := s.purged(func(cache.Key, []byte, []byte) bool { defer func() { first = false }(); return first }); n != 1 {
		t.Fatalf("%d purged", n)
	}
	s.kill()
	for _, cut := range []bool{false, true} {
		if cut {
			if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
				t.Fatal(err)
			}
		}
		s = start(t, dir)
		await(t, "the rebuild", func() bool { return !s.scan.active.Load() })
		if a, b := s.get(1, "a: b\r\n"), s.get(1, "a: c\r\n"); a != 0 || b != 2 {
			t.Errorf("cut %v: versions %d and %d, want 0 and 2", cut, a, b)
		}
		s.kill()
	}
}

// purged is how many match has accepted.
func (s *server) purged(match func(k cache.Key, uri, labels []byte) bool) (n int) {
	s.Purge(func(k cache.Key, uri, labels []byte) bool {
		yes := match(k, uri, labels)
		if yes {
			n++
		}
		return yes
	})
	return n
}

// TestPurgeDuringARebuild: what has not been found again yet does not come back either.
func TestPurgeDuringARebuild(t *testing.T) {
	w := newWorld(t, 8, ramOf(t))
	keys := map[string]cache.Key{}
	for _, path := range []string{"/a", "/b", "/c"} {
		k := w.mem.KeyOf([]byte("http"), []byte("h"), []byte(path), nil)
		keys[path] = k
		c, err := w.mem.Create(k, &cache.Meta{Status: 200}, []byte("h"+path), nil, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		o, err := c.Publish()
		if err != nil {
			t.Fatal(err)
		}
		o.Release()
		c.Release()
	}
	w.written()
	w.end()
	w.page = nil
	release := make(chan struct{})
	w.dev.set(func(write bool, off int64, _ int) (int, error) {
		if !write {
			<-release
		}
		return 0, nil
	})
	w.open(true, nil)
	defer w.end()
	purged := make(chan struct{})
	go func() { // it waits for the disk
		defer close(purged)
		if _, err := w.mem.Purge(&cache.Purge{URI: []byte("h/a")}); err != nil {
			t.Error(err)
		}
	}()
	w.mem.Remove(keys["/b"])
	close(release)
	<-purged
	await(t, "the rebuild", func() bool { return !w.scan.active.Load() })
	for path, k := range keys {
		if w.Has(k) != (path == "/c") {
			t.Errorf("%s: found %v", path, w.Has(k))
		}
	}
}
