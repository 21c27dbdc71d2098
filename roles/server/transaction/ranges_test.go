package transaction

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	mimeparts "mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

func TestParseRanges(t *testing.T) {
	const ignored = "ignored"
	for _, c := range []struct {
		field string
		size  int64
		want  string
	}{
		{"bytes=0-0", 10, "0-0"},
		{"bytes=0-", 10, "0-9"},
		{"bytes=3-5", 10, "3-5"},
		{"Bytes=3-500", 10, "3-9"},
		{"bytes=-4", 10, "6-9"},
		{"bytes=-40", 10, "0-9"},
		{"bytes=-0", 10, ""},
		{"bytes=9-", 10, "9-9"},
		{"bytes=10-", 10, ""},
		{"bytes=10-12", 10, ""},
		{"bytes=0-", 0, ""},
		{"bytes=-1", 0, ""},
		{"bytes=9223372036854775807-", 10, ""},
		{"bytes=0-9223372036854775807", 10, "0-9"},
		{"bytes=99999999999999999999-", 10, ""},
		{"bytes=2-99999999999999999999", 10, "2-9"},
		{"bytes=-99999999999999999999", 10, "0-9"},
		{"bytes=0-1,4-5", 10, "0-1 4-5"},
		{"bytes=4-5, 0-1", 10, "4-5 0-1"},
		{"bytes= 4-5 ,\t0-1", 10, "4-5 0-1"},
		{"bytes=,4-5,,0-1,", 10, "4-5 0-1"},
		{"bytes=0-1,2-3", 10, "0-3"},
		{"bytes=4-8,0-1,1-5", 10, "0-8"},
		{"bytes=6-7,0-1,3-3,2-5", 10, "0-7"},
		{"bytes=0-1,20-30", 10, "0-1"},
		{"bytes=20-30,40-", 10, ""},
		{"bytes=0-0,-1", 10, "0-0 9-9"},
		{"bytes=0-0,-1", 1, "0-0"},
		{"bytes=-5,0-9", 10, "0-9"},
		{"bytes=0-1,5-3", 10, ignored},
		{"bytes=0-1,a", 10, ignored},
		{"bytes=5-3", 10, ignored},
		{"bytes=-", 10, ignored},
		{"bytes=--1", 10, ignored},
		{"bytes=", 10, ignored},
		{"bytes=,", 10, ignored},
		{"bytes=1", 10, ignored},
		{"bytes=a-2", 10, ignored},
		{"bytes=1-b", 10, ignored},
		{"bytes=1 -2", 10, ignored},
		{"bytes=+1-2", 10, ignored},
		{"bytes=1-2-3", 10, ignored},
		{"bytes=" + strings.Repeat("0-1,", maxSpecs), 10, "0-1"},
		{"bytes=" + strings.Repeat("0-1,", maxSpecs+1), 10, ignored},
		{"lines=0-1", 10, ignored},
		{"bytes 0-1", 10, ignored},
		{"", 10, ignored},
	} {
		r, ok := parseRanges(nil, []byte(c.field), c.size)
		got := ignored
		if ok {
			var all []string
			for _, s := range r {
				all = append(all, fmt.Sprintf("%d-%d", s.from, s.to-1))
			}
			got = strings.Join(all, " ")
		}
		if got != c.want {
			t.Errorf("%q of %d: got %q, want %q", c.field, c.size, got, c.want)
		}
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=9-", "bytes=1-2,3-4", "bytes=--1", "bytes=0-0,2-2, -1", "x", "bytes=99999999999999999999-"} {
		f.Add([]byte(s), int64(10))
	}
	f.Fuzz(func(t *testing.T, field []byte, size int64) {
		if size < 0 {
			return
		}
		r, ok := parseRanges(nil, field, size)
		if !ok && r != nil || len(r) > maxSpecs {
			t.Fatalf("%q of %d: got %v %v", field, size, r, ok)
		}
		slices.SortFunc(r, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
		for i, s := range r {
			if s.from < 0 || s.to > size || s.len() <= 0 || i > 0 && r[i-1].to >= s.from {
				t.Fatalf("%q of %d: got %v", field, size, r)
			}
		}
	})
}

// A shelf is a store with one response in it.
type shelf struct {
	env  *Env
	obj  cache.ID
	body []byte
}

const shelfHead = "Content-Type: text/plain\r\nETag: \"v1\"\r\nX-A: b\r\n"

func newShelf(t *testing.T, size int) *shelf {
	t.Helper()
	s := &shelf{env: newEstate(t).env(t, 1, nil)}
	r := rand.New(rand.NewPCG(uint64(size), 1))
	for range size {
		s.body = append(s.body, byte('a'+r.IntN(26)))
	}
	meta := cache.Meta{Status: 200, ETagOff: uint32(strings.Index(shelfHead, `"v1"`)), ETagLen: 4}
	w, err := s.env.Cache.Create(s.env.Store.KeyOf([]byte("http"), []byte("h"), []byte("/"), nil), &meta, nil, nil, []byte(shelfHead), int64(size))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if _, err := w.Write(s.body); err != nil {
		t.Fatal(err)
	}
	o, err := w.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.obj = o.ID()
	o.Release()
	return s
}

// ask makes the transaction of a GET with these field lines that is answered with the response.
func (s *shelf) ask(t *testing.T, lines string) *Transaction {
	t.Helper()
	head := []byte("GET / HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n")
	req := new(http1.Request)
	if err := req.Parse(head, nil); err != nil {
		t.Fatal(err)
	}
	x := &Transaction{env: s.env, req: req, head: head}
	var ok bool
	if x.obj, ok = s.env.Cache.OpenID(s.obj); !ok {
		t.Fatal("the object is gone")
	}
	t.Cleanup(x.obj.Release)
	x.reply = Reply{Status: 200, Lines: x.obj.Head(), Length: x.obj.BodyLen(), Body: (*storedBody)(&x.obj)}
	return x
}

func (s *shelf) answer(t *testing.T, lines string) *Transaction {
	t.Helper()
	x := s.ask(t, lines)
	x.narrow(x.obj.Meta(), x.obj.Head())
	return x
}

// read takes n bytes of a body from off, in pieces.
func read(t *testing.T, b Body, off, n int64) []byte {
	t.Helper()
	var all []byte
	for end := off + n; off < end; {
		p, state := b.Bytes(off)
		if len(p) == 0 {
			t.Fatalf("byte %d of %d: nothing is there, %v", off, end, state)
		}
		p = p[:min(int64(len(p)), end-off, 1+off%97)]
		all, off = append(all, p...), off+int64(len(p))
	}
	return all
}

func field(t *Transaction, name header.ID) string {
	var r http1.Response
	head := append([]byte("HTTP/1.1 200 OK\r\n"), t.reply.Lines...)
	head = append(append(head, t.reply.Extra...), "\r\n"...)
	if err := r.Parse(head, nil); err != nil {
		return err.Error()
	}
	if r.Repeated(name) {
		return "repeated"
	}
	return string(r.Value(head, name))
}

// Whatever ranges are asked for, the standard library's server and we send the same bytes of the same response.
func TestRangesAsTheStandardLibrary(t *testing.T) {
	const rounds = 3000
	r := rand.New(rand.NewPCG(14, 2))
	for _, size := range []int{1, 10, 1000, 200_000} {
		s := newShelf(t, size)
		position := func() string { return fmt.Sprint(r.IntN(size + size/4 + 1)) }
		for range rounds / (1 + size/10_000) {
			var specs []string
			for range 1 + r.IntN(4)*r.IntN(2) {
				switch r.IntN(4) {
				case 0:
					specs = append(specs, position()+"-")
				case 1:
					specs = append(specs, fmt.Sprint("-", 1+r.IntN(size+size/4+1))) // theirs finds "-0" satisfiable
				default:
					specs = append(specs, position()+"-"+position())
				}
			}
			field := "bytes=" + strings.Join(specs, ",")
			q := httptest.NewRequest("GET", "/", nil)
			q.Header.Set("Range", field)
			theirs := httptest.NewRecorder()
			theirs.Header().Set("Content-Type", "text/plain")
			http.ServeContent(theirs, q, "", time.Time{}, bytes.NewReader(s.body))
			ours := s.answer(t, "Range: "+field+"\r\n")
			compare(t, fmt.Sprintf("%q of %d", field, size), s.body, theirs.Result(), ours)
			ours.obj.Release()
		}
	}
}

// compare looks for the same bytes. Ours may be in fewer parts (RFC 9110 §15.3.7.2), all of it where theirs
// gives parts back or forth, and in the other way where they refuse what RFC 9110 §14.2 has ignored.
func compare(t *testing.T, what string, body []byte, theirs *http.Response, ours *Transaction) {
	t.Helper()
	var got []byte
	if ours.reply.Body != nil {
		got = read(t, ours.reply.Body, ours.reply.Offset, ours.reply.Length)
	}
	wanted := cover(t, theirs.StatusCode, theirs.Header.Get("Content-Range"), theirs.Header.Get("Content-Type"), theirs.Body, body)
	sent := cover(t, ours.reply.Status, field(ours, header.ContentRange), field(ours, header.ContentType), bytes.NewReader(got), body)
	_, valid := parseRanges(nil, ours.req.Value(ours.head, header.Range), int64(len(body)))
	switch {
	case !valid:
		if ours.reply.Status != 200 || !bytes.Equal(got, body) {
			t.Errorf("%s: malformed, got %d with %d bytes", what, ours.reply.Status, len(got))
		}
	case theirs.StatusCode == 200: // asked for more than all
	case theirs.StatusCode == 416:
		if ours.reply.Status != 416 || field(ours, header.ContentRange) != fmt.Sprintf("bytes */%d", len(body)) {
			t.Errorf("%s: got %d %q, want 416", what, ours.reply.Status, ours.reply.Extra)
		}
	case ours.reply.Status != 206 || !slices.Equal(sent, wanted):
		t.Errorf("%s: got %d, %d bytes; want %d", what, ours.reply.Status, len(got), theirs.StatusCode)
	}
}

// cover says which bytes of body a response brings, and fails if one of them is wrong.
func cover(t *testing.T, status int, contentRange, contentType string, r io.Reader, body []byte) []bool {
	t.Helper()
	seen := make([]bool, len(body))
	one := func(contentRange string, r io.Reader) {
		var from, to, size int
		if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &from, &to, &size); err != nil || size != len(body) {
			t.Fatalf("Content-Range %q: %v", contentRange, err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(b, body[from:to+1]) {
			t.Fatalf("%q: wrong bytes, %v", contentRange, err)
		}
		for i := from; i <= to; i++ {
			seen[i] = true
		}
	}
	if status != 206 {
		return seen
	}
	if contentRange != "" {
		one(contentRange, r)
		return seen
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q: %v", contentType, err)
	}
	parts := mimeparts.NewReader(r, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil || p.Header.Get("Content-Type") != "text/plain" {
			t.Fatalf("part with %v: %v", p, err)
		}
		one(p.Header.Get("Content-Range"), p)
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Fatalf("%q behind the last part", rest)
	}
	return seen
}

func TestRangesThatAreNotServed(t *testing.T) {
	s := newShelf(t, 1000)
	var many []string
	for i := range maxParts + 1 {
		many = append(many, fmt.Sprintf("%d-%d", i*10, i*10+1))
	}
	for _, c := range []struct {
		name, lines string
		status      int
	}{
		{"as many as there may be", "Range: bytes=" + strings.Join(many[:maxParts], ",") + "\r\n", 206},
		{"too many", "Range: bytes=" + strings.Join(many, ",") + "\r\n", 200},
		{"the same again and again", "Range: bytes=" + strings.Repeat("0-,", 60) + "0-\r\n", 206},
		{"two fields", "Range: bytes=0-1\r\nRange: bytes=3-4\r\n", 200},
		{"another version", "Range: bytes=0-1,5-6\r\nIf-Range: \"v2\"\r\n", 200},
		{"this version", "Range: bytes=0-1,5-6\r\nIf-Range: \"v1\"\r\n", 206},
		{"weak", "Range: bytes=0-1,5-6\r\nIf-Range: W/\"v1\"\r\n", 200},
		{"not modified first", "Range: bytes=0-1,5-6\r\nIf-None-Match: \"v1\"\r\n", 304},
		{"none there", "Range: bytes=2000-,3000-\r\n", 416},
	} {
		x := s.answer(t, c.lines)
		if x.reply.Status != c.status {
			t.Errorf("%s: got %d, want %d", c.name, x.reply.Status, c.status)
		}
		if x.reply.Length > 1000+200*maxParts {
			t.Errorf("%s: %d bytes for 1000", c.name, x.reply.Length)
		}
	}
}

// A successor that goes on with several ranges sends the bytes that its predecessor would have sent.
func TestSeveralRangesAreMadeAgain(t *testing.T) {
	s := newShelf(t, 100_000)
	const field = "Range: bytes=90000-,5-70000,-1,80000-80000\r\n"
	x := s.answer(t, field)
	want := read(t, x.reply.Body, 0, x.reply.Length)
	if id := x.Object(); id != s.obj {
		t.Errorf("the body is in %v, want %v", id, s.obj)
	}
	again := s.ask(t, field)
	again.reply = Reply{Status: 206, Length: -1, Body: again.reply.Body}
	again.resumeRanges(0)
	if got := read(t, again.reply.Body, 0, x.reply.Length); !bytes.Equal(got, want) {
		t.Error("another body")
	}
}

func BenchmarkOneRange(b *testing.B) {
	x := Transaction{}
	head := []byte("GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=3-5\r\n\r\n")
	x.req, x.head = new(http1.Request), head
	if err := x.req.Parse(head, nil); err != nil {
		b.Fatal(err)
	}
	meta := cache.Meta{Status: 200}
	b.ReportAllocs()
	for b.Loop() {
		x.reply = Reply{Status: 200, Length: 1000}
		x.cutRange(&meta, nil)
	}
}
