package freshness

import (
	"fmt"
	"testing"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/http1"
)

func TestParseContentRange(t *testing.T) {
	for _, c := range []struct {
		value string
		want  ContentRange
		ok    bool
	}{
		{"bytes 0-9/10", ContentRange{0, 10, 10}, true},
		{"Bytes 0-0/1", ContentRange{0, 1, 1}, true},
		{"bytes 5-9/*", ContentRange{5, 10, -1}, true},
		{"bytes 5-9/9223372036854775807", ContentRange{5, 10, 1<<63 - 1}, true},
		{"bytes */10", ContentRange{}, false},
		{"bytes 0-10/10", ContentRange{}, false},
		{"bytes 9-0/10", ContentRange{}, false},
		{"bytes 0-9223372036854775807/9223372036854775807", ContentRange{}, false},
		{"bytes 0-9/99999999999999999999", ContentRange{}, false},
		{"bytes=0-9/10", ContentRange{}, false},
		{"bytes  0-9/10", ContentRange{}, false},
		{"bytes 0 -9/10", ContentRange{}, false},
		{"bytes 0-9 /10", ContentRange{}, false},
		{"bytes 0-9/", ContentRange{}, false},
		{"bytes 0-9", ContentRange{}, false},
		{"bytes -9/10", ContentRange{}, false},
		{"bytes 0-/10", ContentRange{}, false},
		{"bytes 0-9/10, bytes 0-9/10", ContentRange{}, false},
		{"bytes +0-9/10", ContentRange{}, false},
		{"lines 0-9/10", ContentRange{}, false},
		{"", ContentRange{}, false},
	} {
		got, ok := ParseContentRange([]byte(c.value))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: got %v %v, want %v %v", c.value, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-0/1", "bytes 0-9223372036854775807/*", "lines 0-1/2", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		c, ok := ParseContentRange(v)
		if !ok {
			return
		}
		if c.From < 0 || c.To <= c.From || c.Total >= 0 && c.To > c.Total || c.Total < -1 {
			t.Fatalf("%q: got %v", v, c)
		}
		total := "*"
		if c.Total >= 0 {
			total = fmt.Sprint(c.Total)
		}
		again, ok := ParseContentRange(fmt.Appendf(nil, "bytes %d-%d/%s", c.From, c.To-1, total))
		if !ok || again != c {
			t.Fatalf("%q: got %v, and written again %v", v, c, again)
		}
	})
}

// RFC 9111 §3.4: what is combined has the same strong validator.
func TestContinues(t *testing.T) {
	const (
		date   = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
		old    = "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT\r\n"
		recent = "Last-Modified: Sun, 06 Nov 1994 08:49:30 GMT\r\n"
	)
	part := func(lines string) (Exchange, cache.Meta, []byte) {
		head := []byte("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 10\r\n" + date + lines + "\r\n")
		r := new(http1.Response)
		if err := r.Parse(head, nil); err != nil {
			t.Fatal(err)
		}
		x := Exchange{Request: new(http1.Request), Response: r, ResponseHead: head, ResponseTime: 784111777 * second}
		y := x.WholeOf()
		meta, _ := y.Judge()
		block := y.AppendHead(nil, &meta)
		return x, meta, block
	}
	for _, c := range []struct {
		stored, next string
		want         bool
	}{
		{"ETag: \"a\"\r\n", "ETag: \"a\"\r\n", true},
		{"ETag: \"a\"\r\n", "ETag: \"b\"\r\n", false},
		{"ETag: \"a\"\r\n", "ETag: W/\"a\"\r\n", false},
		{"ETag: W/\"a\"\r\n", "ETag: W/\"a\"\r\n", false},
		{"ETag: \"a\"\r\n", "ETag: \"a\"\r\nETag: \"a\"\r\n", false},
		{"ETag: \"a\"\r\n", "", false},
		{"", "ETag: \"a\"\r\n", false},
		{"", "", false},
		{old, old, true},
		{old, recent, false},
		{recent, recent, false},
		{old + "ETag: \"a\"\r\n", old, false},
		{old + "ETag: \"a\"\r\n", recent + "ETag: \"a\"\r\n", true},
		{old + "ETag: W/\"a\"\r\n", old + "ETag: W/\"a\"\r\n", false},
	} {
		_, meta, block := part(c.stored)
		x, nextMeta, nextBlock := part(c.next)
		if got := Continues(&x, &meta, block); got != c.want {
			t.Errorf("%q then %q: got %v", c.stored, c.next, got)
		}
		if got := Alike(&meta, block, &nextMeta, nextBlock); got != c.want {
			t.Errorf("%q beside %q: got %v", c.stored, c.next, got)
		}
		if meta.Status != 200 || string(block) != date+c.stored {
			t.Errorf("stored %d %q", meta.Status, block)
		}
		if line := AppendIfRange(nil, &meta, block); (len(line) > 0) != Strong(&meta, block) {
			t.Errorf("%q: strong %v, but %q", c.stored, Strong(&meta, block), line)
		}
	}
}

func TestFindETag(t *testing.T) {
	for lines, want := range map[string]string{
		"A: b\r\nETag: \"x\"\r\n":        `"x"`,
		"etag:\"x\"\r\nC: d\r\n":         `"x"`,
		"ETag: W/\"x\"\r\n":              "",
		"ETag: \"x\"\r\nETag: \"x\"\r\n": "",
		"ETag: x\r\n":                    "",
		"A: b\r\n":                       "",
		"":                               "",
	} {
		if got := string(FindETag([]byte(lines))); got != want {
			t.Errorf("%q: got %q, want %q", lines, got, want)
		}
	}
}
