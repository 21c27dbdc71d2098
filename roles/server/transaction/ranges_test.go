package transaction

import "testing"

func TestParseRange(t *testing.T) {
	for _, c := range []struct {
		field   string
		size    int64
		from, n int64
		ok      bool
	}{
		{"bytes=0-0", 10, 0, 1, true},
		{"bytes=0-", 10, 0, 10, true},
		{"bytes=3-5", 10, 3, 3, true},
		{"Bytes=3-500", 10, 3, 7, true},
		{"bytes=-4", 10, 6, 4, true},
		{"bytes=-40", 10, 0, 10, true},
		{"bytes=-0", 10, 10, 0, true},
		{"bytes=9-", 10, 9, 1, true},
		{"bytes=10-", 10, 10, 0, true},
		{"bytes=10-12", 10, 10, 0, true},
		{"bytes=0-", 0, 0, 0, true},
		{"bytes=-1", 0, 0, 0, true},
		{"bytes=9223372036854775807-", 10, 9223372036854775807, 0, true},
		{"bytes=0-9223372036854775807", 10, 0, 10, true},
		{"bytes=5-3", 10, 0, 0, false},
		{"bytes=-", 10, 0, 0, false},
		{"bytes=", 10, 0, 0, false},
		{"bytes=1", 10, 0, 0, false},
		{"bytes=a-2", 10, 0, 0, false},
		{"bytes=1-b", 10, 0, 0, false},
		{"bytes=0-1,3-4", 10, 0, 0, false},
		{"bytes=99999999999999999999-", 10, 0, 0, false},
		{"lines=0-1", 10, 0, 0, false},
		{"", 10, 0, 0, false},
	} {
		from, n, ok := parseRange([]byte(c.field), c.size)
		if ok != c.ok || ok && (from != c.from || n != c.n) {
			t.Errorf("%q of %d: got %d+%d %v, want %d+%d %v", c.field, c.size, from, n, ok, c.from, c.n, c.ok)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=9-", "bytes=1-2,3-4", "bytes=--1", "x"} {
		f.Add([]byte(s), int64(10))
	}
	f.Fuzz(func(t *testing.T, field []byte, size int64) {
		if size < 0 {
			return
		}
		from, n, ok := parseRange(field, size)
		if ok && (from < 0 || n < 0 || n > 0 && from+n > size) {
			t.Errorf("%q of %d: got %d+%d", field, size, from, n)
		}
	})
}
