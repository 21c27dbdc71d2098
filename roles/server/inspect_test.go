package server

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/cacheview"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/purge"
)

func TestSplitURL(t *testing.T) {
	for _, c := range []struct{ url, host, path, query string }{
		{"http://h/a/b?c", "h", "/a/b", "?c"}, {"HTTP://H:80/a", "H:80", "/a", ""}, {"http://h", "h", "", ""},
		{"http://[::1]:8080/?", "[::1]:8080", "/", "?"}, {"Http://h?q", "h", "", "?q"}, {"http://h/%41", "h", "/%41", ""},
		{"http://h/?to=ftp://x", "h", "/", "?to=ftp://x"},
	} {
		host, path, query, err := split(c.url)
		if err != nil || string(host) != c.host || string(path) != c.path || string(query) != c.query {
			t.Errorf("%s: %q %q %q, %v", c.url, host, path, query, err)
		}
	}
	for _, url := range []string{"", "/a", "https://h/", "http://", "http://u@h/", "http://h/#f", "http://h/a b", "ftp://h/", "http://h/%zz", "h", "h:80/a", "h/?to=http://x", "://h"} {
		if _, _, _, err := split(url); err == nil || !strings.Contains(err.Error(), "URL") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestPrefixOf(t *testing.T) {
	for text, want := range map[string]string{
		"http://H": "h/", "http://h/a*": "h/a", "http://h/a/": "h/a/", "HTTP://h:80/a?b": "h/a?b", "http://h/*": "h/", "http://h*": "h/",
		"http://h/a?b*": "h/a?b",
	} {
		if got, err := prefixOf(text); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

// FuzzSplitURL: whatever an operator writes, the pieces together are what was written.
func FuzzSplitURL(f *testing.F) {
	for _, s := range []string{"http://h/a?b", "h", "HTTP://h:1/*", "//", "http://[::1]/", "\x00", "h/\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, path, query, err := split(text)
		if err != nil {
			return
		}
		if got := string(host) + string(path) + string(query); !strings.EqualFold(text[:7], "http://") || got != text[7:] || len(host) == 0 {
			t.Errorf("%q: %q %q %q", text, host, path, query)
		}
	})
}

// TestAnswersThatNobodyComesFor: they make room for new questions, the oldest first. What is being found is not given up.
func TestAnswersThatNobodyComesFor(t *testing.T) {
	var i inspector
	i.init(&Server{})
	q := cacheview.Question{Ask: cacheview.Stat}
	for range maxPending {
		_, answer, err := i.begin(&q)
		if err != nil {
			t.Fatal(err)
		}
		answer <- <-answer // it is found
	}
	last, _, err := i.begin(&q)
	if err != nil {
		t.Fatalf("with %d answers that nobody comes for: %v", maxPending, err)
	}
	for _, ticket := range []uint64{2, last} {
		if _, _, err := i.begin(&cacheview.Question{Ask: cacheview.Result, Ticket: ticket}); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := i.begin(&cacheview.Question{Ask: cacheview.Result, Ticket: 1}); err == nil {
		t.Error("the oldest was not given up")
	}
	for ticket := range i.pending {
		i.pending[ticket] = make(chan cacheview.Answer, 1)
	}
	if _, _, err := i.begin(&q); err != errTooMany {
		t.Errorf("with %d answers to be found: %v", maxPending, err)
	}
}

// TestStored: what is said of a response, and of one that is not there.
func TestStored(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	store, err := cache.Open(mem, cache.Options{Tags: purge.Tagged})
	if err != nil {
		t.Fatal(err)
	}
	uri := cache.AppendURI(nil, schemeHTTP, []byte("h"), []byte("/a"), nil)
	now := int64(1_000_000e9)
	meta := cache.Meta{Status: 200, ResponseTime: now - 30e9, Lifetime: 60e9}
	w, err := store.Create(store.KeyOf(schemeHTTP, []byte("h"), []byte("/a"), nil), &meta, uri, []byte("accept-encoding: gzip\n"), []byte("Surrogate-Key: a b\r\nCache-Tag: c\r\n"), 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	o, err := w.Publish()
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
	w.Release()
	v := stored(store, uri, now)
	if len(v.Alternates) != 1 || v.URI != "h/a" || v.Disk {
		t.Fatalf("got %+v", v)
	}
	a := v.Alternates[0]
	if a.Status != 200 || a.Age != 30 || a.Lifetime != 60 || !a.Fresh || a.Soft || a.Size != 5 || a.Tier != "memory" || a.Kept ||
		strings.Join(a.Tags, " ") != "a b c" || strings.Join(a.Vary, "|") != "accept-encoding: gzip" {
		t.Errorf("got %+v", a)
	}
	if _, err := store.Purge(&cache.Purge{URI: uri, Soft: true, Now: now}); err != nil {
		t.Fatal(err)
	}
	if a := stored(store, uri, now).Alternates[0]; a.Fresh || !a.Soft || a.Lifetime != 30 {
		t.Errorf("after a soft purge: %+v", a)
	}
	if v := stored(store, []byte("h/b"), now); len(v.Alternates) != 0 {
		t.Errorf("of another URL: %+v", v)
	}
}
