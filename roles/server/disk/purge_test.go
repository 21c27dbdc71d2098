package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
)

// TestPurge: by what stands in the URI and in the labels, in sealed segments and the open one; it holds after a power cut.
func TestPurge(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	tagged := func(n int, tag string, uri []byte) {
		t.Helper()
		head := []byte("Cache-Tag: " + tag + "\r\n")
		if err := publish(s.mem, keyOf(n), &cache.Meta{Status: 200}, uri, nil, head, content(n, 1, 5000)); err != nil {
			t.Fatal(err)
		}
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
	s.rebuilt()
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
		s.rebuilt()
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
		if err := publish(w.mem, k, &cache.Meta{Status: 200}, []byte("h"+path), nil, nil, nil); err != nil {
			t.Fatal(err)
		}
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
	w.rebuilt()
	for path, k := range keys {
		if w.Has(k) != (path == "/c") {
			t.Errorf("%s: found %v", path, w.Has(k))
		}
	}
}

// TestAPurgeMeetsTheEnd: a purge that goes through the log while the store is closed stops, says so, and gives nothing up for it.
func TestAPurgeMeetsTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n := range 90 {
		s.store(n, 1, 20_000, "")
	}
	s.written()
	closed := make(chan error, 1)
	var once sync.Once
	if s.Purge(func(cache.Key, []byte, []byte) bool {
		once.Do(func() {
			go func() { closed <- s.Close() }()
			<-s.stop
		})
		return false
	}) {
		t.Error("the purge says that it has looked at everything")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if n := s.count(stats.DiskErrors); n != 0 {
		t.Errorf("%d errors", n)
	}
	s = start(t, dir)
	defer s.Close()
	for n := range 90 {
		if !s.Has(keyOf(n)) {
			t.Fatalf("object %d is gone", n)
		}
	}
}

// TestNothingComesBackAfterTheEnd: a server that has closed its store, for one that is to follow, goes on with memory until
// that one fences it. What it removes and replaces there the other does not find on disk, and no purge pretends.
func TestNothingComesBackAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	for n := range 3 {
		s.store(n, 1, 1000, "")
	}
	s.written()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.mem.Remove(keyOf(0))
	s.store(1, 2, 1000, "")
	if _, err := s.mem.Purge(&cache.Purge{Prefix: []byte("example.org/")}); !errors.Is(err, cache.ErrFenced) {
		t.Errorf("a purge: %v", err)
	}
	next := start(t, dir)
	defer next.Close()
	for n, want := range []int{0, 0, 1} {
		if v := next.get(n, ""); v != want {
			t.Errorf("object %d: version %d, want %d", n, v, want)
		}
	}
}

// TestAPurgeByURLOutlivesAKill: the server dies as soon as it has answered. What was purged stays away, also when the index is lost.
func TestAPurgeByURLOutlivesAKill(t *testing.T) {
	w := newWorld(t, 11, ramOf(t))
	uri := cache.AppendURI(nil, []byte("http"), []byte("example.org"), []byte("/a"), nil)
	k := w.mem.KeyOf([]byte("http"), []byte("example.org"), []byte("/a"), nil)
	if err := publish(w.mem, k, &cache.Meta{Status: 200}, uri, nil, nil, []byte("body")); err != nil {
		t.Fatal(err)
	}
	w.server.store(1, 1, 100, "")
	w.settled()
	if n, err := w.mem.Purge(&cache.Purge{URI: uri}); err != nil || n.Memory != 1 {
		t.Fatalf("purged %+v, %v", n, err)
	}
	if !w.backlog.empty() {
		t.Error("the purge is over, and its tombstone is not written")
	}
	w.end()
	w.page = nil
	w.open(true, nil)
	defer w.end()
	w.rebuilt()
	if w.Has(k) {
		t.Error("what was purged is back")
	}
	if !w.Has(keyOf(1)) {
		t.Error("what was not purged is gone")
	}
}

// TestAPurgeDoesNotWaitForADiskThatStandsStill: longer than a moment.
func TestAPurgeDoesNotWaitForADiskThatStandsStill(t *testing.T) {
	w := newWorld(t, 12, ramOf(t))
	defer w.end()
	busy, release := make(chan struct{}), make(chan struct{})
	go w.write.ask(func() { close(busy); <-release })
	<-busy
	defer close(release)
	if _, err := w.mem.Purge(&cache.Purge{URI: []byte("h/a")}); err != nil {
		t.Error(err)
	}
}

// TestAPurgeMeetsWhatIsOnItsWay: what waited for the writer when the purge began is written to a segment that the purge has been to, and
// memory evicts it before it is purged there.
func TestAPurgeMeetsWhatIsOnItsWay(t *testing.T) {
	w := newWorld(t, 13, ramOf(t))
	defer w.end()
	w.server.store(1, 1, 100, "")
	w.written()
	var once sync.Once
	w.Purge(func(_ cache.Key, uri, _ []byte) bool {
		once.Do(func() {
			w.server.store(2, 1, 100, "")
			w.written()
		})
		return string(uri) == string(uriOf(2))
	})
	if !w.Has(keyOf(1)) || w.Has(keyOf(2)) {
		t.Errorf("what was purged is there: %v, what was not: %v", w.Has(keyOf(2)), w.Has(keyOf(1)))
	}
}
