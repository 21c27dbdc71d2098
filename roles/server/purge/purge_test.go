package purge

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

func tags(lines string) (all []string) {
	Tagged([]byte(lines), func(tag []byte) bool { all = append(all, string(tag)); return false })
	return all
}

func TestTagged(t *testing.T) {
	for _, c := range []struct {
		lines string
		want  []string
	}{
		{"", nil},
		{"A: b\r\nContent-Type: text/plain\r\n", nil},
		{"Surrogate-Key: one two\r\n", []string{"one", "two"}},
		{"surrogate-key:one\t two  three \r\n", []string{"one", "two", "three"}},
		{"Cache-Tag: one, two,three four\r\n", []string{"one", "two", "three four"}},
		{"Cache-Tag: ,, ,\r\n", nil},
		{"Surrogate-Key: a,b c\r\nX: y\r\nSurrogate-Key: d\r\nCache-Tag: e", []string{"a,b", "c", "d", "e"}},
		{"X-Surrogate-Key: a\r\nSurrogate-Kex: a\r\nCache-Tax: b\r\nNo colon\r\n", nil},
	} {
		if got := tags(c.lines); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.lines, got, c.want)
		}
	}
	if !Tagged([]byte("Cache-Tag: a, b\r\n"), func(tag []byte) bool { return string(tag) == "a" }) {
		t.Error("a tag that is there is not found")
	}
}

func TestTaggedAllocatesNothing(t *testing.T) {
	lines := []byte("Content-Type: text/plain\r\nSurrogate-Key: one two three\r\nCache-Tag: four\r\n")
	found := 0
	if n := testing.AllocsPerRun(100, func() {
		if Tagged(lines, func(tag []byte) bool { return string(tag) == "four" }) {
			found++
		}
	}); n != 0 || found == 0 {
		t.Errorf("%v allocations, found %d times", n, found)
	}
}

// parse parses a request head.
func parse(t testing.TB, target, fields string) (Request, error) {
	t.Helper()
	head := []byte("PURGE " + target + " HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n")
	var req http1.Request
	if err := req.Parse(head, &http1.Limits{RequestLine: 1 << 16, Head: 1 << 20, Fields: 1000}); err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	var query []byte
	if req.HasQuery {
		query = req.Query.In(head)
	}
	return Parse(&req.FieldSet, head, req.Path.In(head), query)
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		target, fields string
		by             By
		soft, star     bool
		tags           string
		err            string
	}{
		{target: "/a"},
		{target: "/a?b*"},
		{target: "/a*", by: ByPrefix, star: true},
		{target: "/a*?b"},
		{target: "/a*", fields: "Purge-Prefix: 0\r\n"},
		{target: "/a*", fields: "Purge-Prefix: 1\r\n", by: ByPrefix},
		{target: "/a", fields: "purge-prefix: TRUE\r\n", by: ByPrefix},
		{target: "/a", fields: "Soft-Purge: 1\r\n", soft: true},
		{target: "/a", fields: "Fastly-Soft-Purge: 1\r\n", soft: true},
		{target: "/a", fields: "Soft-Purge: 0\r\n"},
		{target: "/a", fields: "Soft-Purge: maybe\r\n", err: "Soft-Purge is 1 or 0"},
		{target: "/a", fields: "Purge-Prefix:\r\n", err: "Purge-Prefix is 1 or 0"},
		{target: "/a", fields: "Surrogate-Key: one two\r\n", by: ByTag, tags: "one two"},
		{target: "/a*", fields: "Cache-Tag: one, two\r\nSurrogate-Key: three\r\n", by: ByTag, tags: "one two three"},
		{target: "/a", fields: "Cache-Tag: one\r\nSoft-Purge: yes\r\n", by: ByTag, soft: true, tags: "one"},
		{target: "/a", fields: "Cache-Tag: ,\r\n", err: "no tag"},
		{target: "/a", fields: "Cache-Tag: one\r\nPurge-Prefix: 1\r\n", err: "exclude"},
		{target: "/a", fields: "Cache-Tag: " + strings.Repeat("x", maxTag+1) + "\r\n", err: "bytes"},
		{target: "/a", fields: "Surrogate-Key: " + strings.Repeat("x ", maxTags+1) + "\r\n", err: "more than 256"},
	} {
		r, err := parse(t, c.target, c.fields)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s %q: got %v, want an error with %q", c.target, c.fields, err, c.err)
			}
			continue
		}
		if err != nil || r.By != c.by || r.Soft != c.soft || r.Star != c.star || string(bytes.Join(r.Tags, []byte(" "))) != c.tags {
			t.Errorf("%s %q: got %+v, %v", c.target, c.fields, r, err)
		}
	}
}

func TestCheckTag(t *testing.T) {
	for tag, good := range map[string]bool{"a": true, "a-b:c/1": true, "": false, "a b": false, "a,b": false, "a\r\nb": false, strings.Repeat("x", maxTag+1): false} {
		if err := CheckTag(tag); (err == nil) != good {
			t.Errorf("%.20q: %v", tag, err)
		}
	}
}

// FuzzTagged: a tag is never empty, never has what separates it, and lies within the lines.
func FuzzTagged(f *testing.F) {
	for _, s := range []string{"", "Cache-Tag: a,b\r\n", "Surrogate-Key: a b\r\nX: y\r\n", "Cache-Tag:", "\n\n:\n", "Surrogate-Key: \t \r"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		Tagged(lines, func(tag []byte) bool {
			if len(tag) == 0 || bytes.ContainsAny(tag, "\n") || !bytes.Contains(lines, tag) {
				t.Errorf("%q: tag %q", lines, tag)
			}
			return false
		})
	})
}

// FuzzParse: whatever a client sends, the answer is an error or a request that means something.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"Soft-Purge: 1\r\n", "Cache-Tag: a, b\r\nPurge-Prefix: 1\r\n", "Surrogate-Key: a b c\r\n", "Purge-Prefix: x\r\n", "A: b\r\n"} {
		f.Add("/a*", s)
	}
	f.Fuzz(func(t *testing.T, target, fields string) {
		head := []byte("PURGE " + target + " HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n")
		var req http1.Request
		if req.Parse(head, &http1.Limits{RequestLine: 1 << 12, Head: 1 << 14, Fields: 100}) != nil {
			return
		}
		r, err := Parse(&req.FieldSet, head, req.Path.In(head), nil)
		if err != nil {
			return
		}
		if (r.By == ByTag) != (len(r.Tags) > 0) || len(r.Tags) > maxTags || r.Star && r.By != ByPrefix {
			t.Errorf("%q: %+v", head, r)
		}
		if (req.Has(header.CacheTag) || req.Has(header.SurrogateKey)) != (r.By == ByTag) {
			t.Errorf("%q: tags, and goes by %v", head, r.By)
		}
	})
}
