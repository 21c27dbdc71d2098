package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"sync"
	"testing"

	"trafficd/e2e/harness"
)

// numbered is a body of n bytes in which each place can be told from the others.
func numbered(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%011d ", i)
	}
	return b.String()[:n]
}

// partsOf takes a multipart/byteranges apart: the bytes of each part by its Content-Range.
func partsOf(t *testing.T, r *harness.Response) map[string]string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(r.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q: %v", r.Get("Content-Type"), err)
	}
	parts, in := map[string]string{}, multipart.NewReader(strings.NewReader(string(r.Body)), params["boundary"])
	for {
		p, err := in.NextPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts[p.Header.Get("Content-Range")] = string(b)
	}
}

// RFC 9110 §14.6.
func TestSeveralRanges(t *testing.T) {
	t.Parallel()
	body := numbered(100_000)
	o := harness.NewOrigin(t, harness.Reply(200, body, "Cache-Control: max-age=60", `ETag: "v1"`, "Content-Type: text/plain"))
	p := harness.Start(t, harness.Map("/", o))
	p.Client().Get("/a").Expect(200, body)
	r := p.Client().Get("/a", "Range: bytes=50000-59999, 0-4, -1").ExpectStatus(206)
	got := partsOf(t, r)
	want := map[string]string{"bytes 50000-59999/100000": body[50000:60000], "bytes 0-4/100000": body[:5], "bytes 99999-99999/100000": body[99999:]}
	for place, bytes := range want {
		if got[place] != bytes {
			t.Errorf("%s: got %d bytes, want %d", place, len(got[place]), len(bytes))
		}
	}
	p.Client().Get("/a", "Range: bytes=0-9,5-20,21-29").Expect(206, body[:30]).Header("Content-Range", "bytes 0-29/100000")
	p.Client().Get("/a", "Range: bytes=100000-,200000-").ExpectStatus(416).Header("Content-Range", "bytes */100000")
	p.Client().Get("/a", "Range: bytes="+strings.Repeat("0-,", 1000)+"0-").Expect(200, body)
	p.Client().Head("/a", "Range: bytes=0-1,5-6").ExpectStatus(200).Header("Content-Length", "100000")
	o.ExpectCount("/a", 1)
}

// The server dies while it sends several ranges; its successor sends the rest of the same bytes.
func TestSeveralRangesSurvive(t *testing.T) {
	t.Parallel()
	body := numbered(24 << 20)
	o := harness.NewOrigin(t, harness.Reply(200, body, "Cache-Control: max-age=60", "Content-Type: text/plain"))
	p := harness.Start(t, harness.Map("/", o))
	p.Client().Get("/a").ExpectStatus(200)
	const field = "Range: bytes=12000000-23999999,3-8000000,25000000-"
	whole := p.Client().Get("/a", field).ExpectStatus(206)
	c := p.Client().Dial().Send(harness.Request("GET", "/a", "", field))
	h := c.ReadHead().ExpectStatus(206)
	n := h.Int("Content-Length")
	var got strings.Builder
	for _, part := range []int{1000, n / 3, n - 1000 - n/3} {
		got.WriteString(c.ReadRaw(part))
		old := p.PID(harness.Server)
		p.Standby(old)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
	}
	if got.String() != string(whole.Body) || h.Get("Content-Type") != whole.Get("Content-Type") {
		t.Error("another body")
	}
	c.Send(harness.Request("GET", "/a", "", "Range: bytes=0-4")).Read("GET").Expect(206, body[:5])
	o.ExpectCount("/a", 1)
}

// A fileServer is an origin that knows ranges, of one representation at a time.
type fileServer struct {
	body, tag string
	headers   []string
	// breaks is where the next full or partial answers break off, counted in bytes of their bodies.
	breaks chan int
}

func newFile(body, tag string, headers ...string) *fileServer {
	return &fileServer{body: body, tag: tag, headers: headers, breaks: make(chan int, 8)}
}

func (f *fileServer) serve(e *harness.Exchange) {
	from, to := 0, len(f.body)
	headers := append([]string{"Content-Type: text/plain"}, f.headers...)
	if f.tag != "" {
		headers = append(headers, "ETag: "+f.tag)
	}
	if tag := e.Header.Get("If-None-Match"); tag != "" && tag == f.tag {
		e.Reply(304, "", headers...)
		return
	}
	status, tag := 200, e.Header.Get("If-Range")
	if field := e.Header.Get("Range"); field != "" && (tag == "" || tag == f.tag) {
		status = 206
		first, last, _ := strings.Cut(strings.TrimPrefix(field, "bytes="), "-")
		switch {
		case first == "":
			fmt.Sscan(last, &from)
			from = max(0, len(f.body)-from)
		default:
			fmt.Sscan(first, &from)
			if last != "" {
				fmt.Sscan(last, &to)
				to = min(to+1, len(f.body))
			}
		}
		if from >= len(f.body) {
			e.Reply(416, "", fmt.Sprintf("Content-Range: bytes */%d", len(f.body)))
			return
		}
		headers = append(headers, fmt.Sprintf("Content-Range: bytes %d-%d/%d", from, to-1, len(f.body)))
	}
	select {
	case n := <-f.breaks:
		headers = append(headers, fmt.Sprintf("Content-Length: %d", to-from))
		e.Reply(status, f.body[from:min(from+n, to)], headers...)
		e.Close()
	default:
		e.Reply(status, f.body[from:to], headers...)
	}
}

// asked are the ranges that the origin was asked for, "" without.
func asked(o *harness.Origin, target string) (all []string) {
	for _, r := range o.Requests() {
		if r.Target == target {
			all = append(all, strings.TrimPrefix(r.Header.Get("Range"), "bytes="))
		}
	}
	return all
}

func expectAsked(t *testing.T, o *harness.Origin, target string, want ...string) {
	t.Helper()
	if got := asked(o, target); !slices.Equal(got, want) {
		t.Errorf("%s: the origin was asked for %q, want %q", target, got, want)
	}
}

const fresh = "Cache-Control: max-age=3600"

// RFC 9111 §3.3, §3.4: a part is stored, answers what lies in it, and is completed.
func TestPartsAreStoredAndCompleted(t *testing.T) {
	t.Parallel()
	body := numbered(1000)
	o := harness.NewOrigin(t, newFile(body, `"v1"`, fresh).serve)
	p := harness.Start(t, harness.Map("/", o))
	get := func(target, field string, from, to int) {
		t.Helper()
		p.Client().Get(target, "Range: bytes="+field).Expect(206, body[from:to]).
			Header("Content-Range", fmt.Sprintf("bytes %d-%d/1000", from, to-1)).Header("Content-Type", "text/plain")
	}
	whole := func(target string) {
		t.Helper()
		p.Client().Get(target).Expect(200, body).Header("Content-Type", "text/plain")
	}

	get("/in-order", "0-99", 0, 100)
	get("/in-order", "20-29", 20, 30)
	get("/in-order", "0-0", 0, 1)
	get("/in-order", "50-149", 50, 150)
	get("/in-order", "150-199", 150, 200)
	get("/in-order", "0-199", 0, 200)
	whole("/in-order")
	whole("/in-order")
	get("/in-order", "-1", 999, 1000)
	for _, c := range []struct{ field, status string }{{"Range: bytes=0-99", "; fwd=uri-miss; stored"}, {"Range: bytes=0-9", "; hit"}, {"X: y", "; fwd=partial; stored"}} {
		if got := p.Client().Get("/status", c.field).Get("Cache-Status"); !strings.Contains(got, c.status) {
			t.Errorf("%s: Cache-Status %q, want %q", c.field, got, c.status)
		}
	}
	expectAsked(t, o, "/in-order", "0-99", "100-149", "150-199", "200-")

	get("/tail", "-100", 900, 1000)
	get("/tail", "950-", 950, 1000)
	get("/tail", "-10", 990, 1000)
	get("/tail", "800-", 800, 1000)
	get("/tail", "0-9", 0, 10)
	whole("/tail")
	whole("/tail")
	expectAsked(t, o, "/tail", "-100", "800-899", "0-9", "10-799")

	get("/several", "100-199", 100, 200)
	r := p.Client().Get("/several", "Range: bytes=190-199,100-109").ExpectStatus(206)
	if got := partsOf(t, r); got["bytes 100-109/1000"] != body[100:110] || got["bytes 190-199/1000"] != body[190:200] {
		t.Errorf("several ranges of a part: got %v", got)
	}
	expectAsked(t, o, "/several", "100-199")

	get("/all-at-once", "0-", 0, 1000)
	whole("/all-at-once")
	expectAsked(t, o, "/all-at-once", "0-")

	p.Client().Get("/only-cached", "Range: bytes=0-9", "Cache-Control: only-if-cached").ExpectStatus(504)
	get("/only-cached", "0-9", 0, 10)
	p.Client().Get("/only-cached", "Range: bytes=0-9", "Cache-Control: only-if-cached").Expect(206, body[:10])
	p.Client().Get("/only-cached", "Cache-Control: only-if-cached").ExpectStatus(504)
	p.Client().Get("/only-cached", "Range: bytes=0-9", `If-None-Match: "v1"`).ExpectStatus(304)
	p.Client().Head("/only-cached").ExpectStatus(200).Header("Content-Length", "1000")
}

// What was combined would be of two representations, if it were not for the condition.
func TestPartsOfAnotherRepresentationAreDropped(t *testing.T) {
	t.Parallel()
	old, now := numbered(1000), strings.ToUpper(strings.Repeat("another body ", 100))
	first, second := newFile(old, `"v1"`, fresh), newFile(now, `"v2"`, fresh)
	var changed harness.Switch
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		if changed.On() {
			second.serve(e)
			return
		}
		first.serve(e)
	})
	p := harness.Start(t, harness.Map("/", o))
	for _, target := range []string{"/whole", "/range", "/tail"} {
		p.Client().Get(target, "Range: bytes=0-499").Expect(206, old[:500])
	}
	changed.Set()
	p.Client().Get("/whole").Expect(200, now)
	p.Client().Get("/whole", "Range: bytes=0-9").Expect(206, now[:10])
	// An origin that finds another representation sends all of it, and the answer is cut from that.
	p.Client().Get("/range", "Range: bytes=400-599").Expect(206, now[400:600])
	p.Client().Get("/range").Expect(200, now)
	p.Client().Get("/tail", `If-Range: "v1"`, "Range: bytes=400-599").Expect(200, now)
	expectAsked(t, o, "/whole", "0-499", "500-")
	expectAsked(t, o, "/range", "0-499", "500-599")
}

// A part that is stale is validated, as a whole response is.
func TestStaleParts(t *testing.T) {
	t.Parallel()
	body := numbered(1000)
	o := harness.NewOrigin(t, newFile(body, `"v1"`, "Cache-Control: max-age=0").serve)
	p := harness.Start(t, harness.Map("/", o))
	p.Client().Get("/a", "Range: bytes=100-199").Expect(206, body[100:200])
	p.Client().Get("/a", "Range: bytes=150-159").Expect(206, body[150:160])
	if r := o.Last("/a"); r.Header.Get("If-None-Match") != `"v1"` || r.Header.Get("Range") != "bytes=150-159" {
		t.Errorf("the origin was asked %v", r.Header)
	}
	p.Expect("trafficd_cache_revalidated_total", 1)
	p.Client().Get("/a", "Range: bytes=200-299").Expect(206, body[200:300])
	p.Client().Get("/a", "Range: bytes=100-299").Expect(206, body[100:300])
	expectAsked(t, o, "/a", "100-199", "150-159", "200-299", "100-299")
}

// Without a strong validator nothing is combined; what is stored is still good for what lies in it.
func TestPartsWithoutAValidator(t *testing.T) {
	t.Parallel()
	body := numbered(1000)
	for _, tag := range []string{"", `W/"v1"`} {
		o := harness.NewOrigin(t, newFile(body, tag, fresh).serve)
		p := harness.Start(t, harness.Map("/", o))
		p.Client().Get("/a", "Range: bytes=0-499").Expect(206, body[:500])
		p.Client().Get("/a", "Range: bytes=10-19").Expect(206, body[10:20])
		p.Client().Get("/a", "Range: bytes=400-599").Expect(206, body[400:600])
		p.Client().Get("/a", "Range: bytes=0-9").Expect(206, body[:10])
		p.Client().Get("/a").Expect(200, body)
		p.Client().Get("/a").Expect(200, body)
		if got := asked(o, "/a"); got[1] != "400-599" || got[len(got)-1] != "" || len(got) > 4 {
			t.Errorf("%s: the origin was asked for %q", tag, got)
		}
	}
}

// An origin that breaks off is asked for the rest, and its client notices nothing.
func TestMidBodyResume(t *testing.T) {
	t.Parallel()
	body := numbered(3 << 20)
	for _, c := range []struct {
		name, cacheControl, tag, field string
		breaks                         []int
		cut                            bool
		asks                           []string
	}{
		{"stored", fresh, `"v1"`, "", []int{1 << 20}, false, []string{"", "1048576-"}},
		{"not stored", noStore, `"v1"`, "", []int{1 << 20}, false, []string{"", "1048576-"}},
		{"range", fresh, `"v1"`, "1000-1999999", []int{1 << 20}, false, []string{"1000-1999999", "1049576-1999999"}},
		{"range that is not stored", noStore, `"v1"`, "1000-1999999", []int{1 << 20}, false, []string{"1000-1999999", "1049576-1999999"}},
		{"twice", fresh, `"v1"`, "", []int{1 << 20, 1 << 19}, false, []string{"", "1048576-", "1572864-"}},
		{"too often", fresh, `"v1"`, "", []int{1 << 20, 1 << 19, 1}, true, []string{"", "1048576-", "1572864-"}},
		{"at once", fresh, `"v1"`, "", []int{0}, false, []string{"", "0-"}},
		{"weak", fresh, `W/"v1"`, "", []int{1 << 20}, true, []string{""}},
		{"no validator", fresh, "", "", []int{1 << 20}, true, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := newFile(body, c.tag, c.cacheControl)
			for _, n := range c.breaks {
				file.breaks <- n
			}
			o := harness.NewOrigin(t, file.serve)
			p := harness.Start(t, harness.Map("/", o))
			var lines []string
			if c.field != "" {
				lines = append(lines, "Range: bytes="+c.field)
			}
			r, err := p.Client().Dial().Send(harness.Request("GET", "/a", "", lines...)).Try("GET")
			switch {
			case c.cut && err == nil:
				t.Error("what was cut off looks complete")
			case !c.cut && err != nil:
				t.Fatal(err)
			case c.field != "":
				r.Expect(206, body[1000:2000000])
			case !c.cut:
				r.Expect(200, body)
			}
			expectAsked(t, o, "/a", c.asks...)
			p.Expect("trafficd_origin_resumes_total", float64(len(c.asks)-1))
		})
	}
}

// What has come of a response that breaks off is kept, and only the rest is asked for the next time.
func TestBrokenResponseIsCompletedLater(t *testing.T) {
	t.Parallel()
	body := numbered(3 << 20)
	file := newFile(body, `"v1"`, fresh)
	file.breaks <- 2 << 20
	o := harness.NewOrigin(t, file.serve)
	p := harness.Start(t, harness.Map("/", o), harness.Set("origin.resume_attempts", "0"))
	if _, err := p.Client().Dial().Send(harness.Request("GET", "/a", "")).Try("GET"); err == nil {
		t.Fatal("what was cut off looks complete")
	}
	p.Client().Get("/a", "Range: bytes=1000000-1999999").Expect(206, body[1000000:2000000])
	p.Client().Get("/a").Expect(200, body)
	p.Client().Get("/a").Expect(200, body)
	expectAsked(t, o, "/a", "", "2097152-")
	p.Expect("trafficd_cache_combined_total", 1)
}

// A client that leaves half way leaves a part behind.
func TestAbandonedResponseIsCompletedLater(t *testing.T) {
	t.Parallel()
	body := numbered(8 << 20)
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		if e.Header.Get("Range") == "" {
			e.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\n%s\r\nContent-Length: %d\r\n\r\n", fresh, len(body)))
			e.Raw(body[:1<<20])
			gate.Wait(e)
			return
		}
		newFile(body, `"v1"`, fresh).serve(e)
	})
	p := harness.Start(t, harness.Map("/", o))
	c := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
	c.ReadHead().ExpectStatus(200)
	c.ReadRaw(1 << 20)
	c.Reset()
	p.ExpectMetric("trafficd_cache_partial_stores_total", "1", func(n float64) bool { return n == 1 })
	gate.Open()
	p.Client().Get("/a").Expect(200, body)
	expectAsked(t, o, "/a", "", "1048576-")
}

// What an origin may not answer is refused, and never stored.
func TestMalformedPartialContent(t *testing.T) {
	t.Parallel()
	answer := func(headers ...string) harness.Handler {
		return harness.Reply(206, "0123456789", append(headers, fresh, `ETag: "v1"`)...)
	}
	const good = "Content-Range: bytes 0-9/100"
	o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
		"/none":        answer(),
		"/garbage":     answer("Content-Range: bytes zero-nine/100"),
		"/backwards":   answer("Content-Range: bytes 9-0/100"),
		"/beyond":      answer("Content-Range: bytes 95-104/100"),
		"/short":       answer("Content-Range: bytes 0-10/100"),
		"/shorter":     answer("Content-Range: bytes 50-99/100"),
		"/long":        answer("Content-Range: bytes 0-8/100"),
		"/twice":       answer(good, "Content-Range: bytes 1-10/100"),
		"/unit":        answer("Content-Range: lines 0-9/100"),
		"/unsatisfied": answer("Content-Range: bytes */100"),
		"/parts":       answer("Content-Type: multipart/byteranges; boundary=x"),
		"/good":        answer(good),
		"/unknown":     answer("Content-Range: bytes 0-9/*"),
		"/other":       answer("Content-Range: bytes 20-29/100"),
	}))
	p := harness.Start(t, harness.Map("/", o))
	for _, target := range []string{"/none", "/garbage", "/backwards", "/beyond", "/short", "/shorter", "/long", "/twice", "/unit", "/unsatisfied", "/parts"} {
		for range 2 {
			if r := p.Client().Get(target, "Range: bytes=0-9"); r.Status != 502 {
				t.Errorf("%s: got %d, want 502", target, r.Status)
			}
		}
		o.ExpectCount(target, 2)
	}
	p.Client().Get("/good").ExpectStatus(502) // it was not asked for a range
	for range 2 {
		p.Client().Get("/unknown", "Range: bytes=0-9").Expect(206, "0123456789").Header("Content-Range", "bytes 0-9/*")
		p.Client().Get("/good", "Range: bytes=0-9").Expect(206, "0123456789").Header("Content-Range", "bytes 0-9/100")
	}
	o.ExpectCount("/unknown", 2)
	o.ExpectCount("/good", 2)
	// Another range than was asked for says what it is, and is stored as that.
	p.Client().Get("/other", "Range: bytes=0-9").Expect(206, "0123456789").Header("Content-Range", "bytes 20-29/100")
	p.Client().Get("/other", "Range: bytes=25-26").Expect(206, "56").Header("Content-Range", "bytes 25-26/100")
	o.ExpectCount("/other", 1)
}

// RFC 9110 section 15.3.7.1: a part that is not stored is as long as it says, whatever comes in chunks, also when the
// server dies before its head and in the middle of it, and where nothing is stored in parts.
func TestPartIsAsLongAsItSays(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]harness.Option{
		"no-store": nil, "no parts": {harness.Set("cache.partial", "false")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const begin = "HTTP/1.1 206 Partial Content\r\n" + noStore + "\r\nContent-Range: bytes 0-99999/200000\r\nTransfer-Encoding: chunked\r\n\r\n"
			body := numbered(200_000)
			gates := []*harness.Gate{harness.NewGate(), harness.NewGate()}
			o := harness.NewOrigin(t, harness.Routes(map[string]harness.Handler{
				"/long": func(e *harness.Exchange) {
					gates[0].Wait(e)
					e.Raw(begin)
					e.Chunk(body[:50_000])
					gates[1].Wait(e)
					e.Chunk(body[50_000:])
					e.Raw("0\r\n\r\n")
				},
				"/short": func(e *harness.Exchange) {
					e.Raw(begin)
					e.Chunk(body[:50_000])
					e.Raw("0\r\n\r\n")
				},
				"/next": harness.Reply(200, "next", noStore),
			}))
			p := harness.Start(t, append(opts, harness.Map("/", o))...)
			kill := func() {
				old := p.PID(harness.Server)
				p.Standby(old)
				p.Kill(harness.Server)
				p.WaitReplaced(harness.Server, old)
			}
			c := p.Client().Dial().Send(harness.Request("GET", "/long", "", "Range: bytes=0-99999"))
			o.WaitCount("/long", 1)
			kill()
			gates[0].Open()
			c.ReadHead().ExpectStatus(206).Header("Content-Length", "100000").Header("Transfer-Encoding", "")
			got := c.ReadRaw(50_000)
			kill()
			gates[1].Open()
			if got += c.ReadRaw(50_000); got != body[:100_000] {
				t.Error("another body")
			}
			c.Send(harness.Request("GET", "/next", "")).Read("GET").Expect(200, "next")
			o.ExpectCount("/long", 1)
			if r, err := harness.Fetch(p.Addr, harness.Request("GET", "/short", "", "Range: bytes=0-99999")); err == nil {
				t.Errorf("half of it passes for a response: %d, %d bytes", r.Status, len(r.Body))
			}
		})
	}
}

// What no origin should see: it gets the request without a range, or none at all.
func TestRangesThatAreNotPassedOn(t *testing.T) {
	t.Parallel()
	body := numbered(1000)
	o := harness.NewOrigin(t, newFile(body, `"v1"`, fresh).serve)
	p := harness.Start(t, harness.Map("/", o))
	for i, field := range []string{"bytes=9-0", "bytes=a-b", "bytes=0-5,3-9", "bytes=" + strings.Repeat("0-,", 40) + "0-"} {
		target := fmt.Sprint("/", i)
		r := p.Client().Get(target, "Range: "+field)
		if r.Status == 200 && string(r.Body) != body || r.Status != 200 && r.Status != 206 {
			t.Errorf("%s: got %d", field, r.Status)
		}
		expectAsked(t, o, target, "")
	}
	p.Client().Get("/two", "Range: bytes=0-1", "Range: bytes=3-4").Expect(200, body)
	expectAsked(t, o, "/two", "")
	// RFC 9110 section 13.1.5: no range without its condition. Two of them are none, for what comes and for what is stored.
	for range 2 {
		p.Client().Get("/if", "Range: bytes=0-1", `If-Range: "v1"`, `If-Range: "v0"`).Expect(200, body)
	}
	expectAsked(t, o, "/if", "")
	p.Client().Get("/beyond", "Range: bytes=5000-").ExpectStatus(416)
	expectAsked(t, o, "/beyond", "5000-")
}

// Many ask for the same range at the same time: the origin is asked once.
func TestCollapsedRanges(t *testing.T) {
	t.Parallel()
	body := numbered(100_000)
	gate := harness.NewGate()
	file := newFile(body, `"v1"`, fresh)
	o := harness.NewOrigin(t, func(e *harness.Exchange) { gate.Wait(e); file.serve(e) })
	p := harness.Start(t, harness.Map("/", o))
	request := harness.Request("GET", "/a", "", "Range: bytes=1000-59999")
	for _, r := range p.Client().Concurrently(50, request, func() {
		o.WaitCount("/a", 1)
		p.ExpectMetric("trafficd_cache_collapsed_total", "49", func(n float64) bool { return n == 49 })
		gate.Open()
	}) {
		if r != nil {
			r.Expect(206, body[1000:60000])
		}
	}
	o.ExpectCount("/a", 1)
}

// The server dies while it puts a response together from a stored part before, what comes, and a stored part behind.
func TestCombinedFillSurvives(t *testing.T) {
	t.Parallel()
	const half = 1 << 20
	body := numbered(6 << 20)
	gates := []*harness.Gate{harness.NewGate(), harness.NewGate()}
	file := newFile(body, `"v1"`, fresh)
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		if e.Header.Get("Range") != "bytes=2097152-4194303" {
			file.serve(e)
			return
		}
		gates[0].Wait(e)
		e.Raw(fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2097152-4194303/%d\r\nETag: \"v1\"\r\n%s\r\nContent-Length: 2097152\r\n\r\n", len(body), fresh))
		e.Raw(body[2<<20 : 2<<20+half])
		gates[1].Wait(e)
		e.Raw(body[2<<20+half : 4<<20])
	})
	p := harness.Start(t, harness.Map("/", o))
	p.Client().Get("/a", "Range: bytes=0-2097151").Expect(206, body[:2<<20])
	p.Client().Get("/a", "Range: bytes=4194304-").Expect(206, body[4<<20:])
	kill := func() {
		old := p.PID(harness.Server)
		p.Standby(old)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
	}
	c := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
	o.WaitCount("/a", 3)
	kill()
	gates[0].Open()
	c.ReadHead().ExpectStatus(200)
	got := c.ReadRaw(2<<20 + half)
	kill()
	gates[1].Open()
	got += c.ReadRaw(2<<20 - 100)
	kill()
	if got += c.ReadRaw(half + 100); got != body {
		t.Error("another body")
	}
	p.Client().Get("/a").Expect(200, body)
	expectAsked(t, o, "/a", "0-2097151", "4194304-", "2097152-4194303")
}

// The server dies while it waits for the rest of a response that has broken off, and while that comes.
func TestMidBodyResumeSurvives(t *testing.T) {
	t.Parallel()
	const piece = 1 << 20
	body := numbered(3 * piece)
	for _, c := range []struct {
		cacheControl string
		after        []string // what the origin is asked for by another request
	}{
		{fresh, nil},
		{noStore, []string{""}},
	} {
		t.Run(c.cacheControl, func(t *testing.T) {
			t.Parallel()
			gates := []*harness.Gate{harness.NewGate(), harness.NewGate()}
			file := newFile(body, `"v1"`, c.cacheControl)
			file.breaks <- piece
			o := harness.NewOrigin(t, func(e *harness.Exchange) {
				if e.Header.Get("Range") == "" {
					file.serve(e)
					return
				}
				gates[0].Wait(e)
				e.Raw(fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\n%s\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n",
					c.cacheControl, piece, 3*piece-1, 3*piece, 2*piece))
				e.Raw(body[piece : 2*piece])
				gates[1].Wait(e)
				e.Raw(body[2*piece:])
			})
			p := harness.Start(t, harness.Map("/", o))
			kill := func() {
				old := p.PID(harness.Server)
				p.Standby(old)
				p.Kill(harness.Server)
				p.WaitReplaced(harness.Server, old)
			}
			conn := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
			conn.ReadHead().ExpectStatus(200)
			got := conn.ReadRaw(piece)
			o.WaitCount("/a", 2)
			kill()
			gates[0].Open()
			got += conn.ReadRaw(piece)
			kill()
			gates[1].Open()
			if got += conn.ReadRaw(piece); got != body {
				t.Error("another body")
			}
			p.Client().Get("/a").Expect(200, body)
			expectAsked(t, o, "/a", append([]string{"", "1048576-"}, c.after...)...)
		})
	}
}

// Without cache.partial a range is passed on and nothing of it is stored.
func TestPartsCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	body := numbered(1000)
	o := harness.NewOrigin(t, newFile(body, `"v1"`, fresh).serve)
	p := harness.Start(t, harness.Map("/", o), harness.Set("cache.partial", "false"))
	for range 2 {
		p.Client().Get("/a", "Range: bytes=0-99").Expect(206, body[:100])
	}
	p.Client().Get("/a").Expect(200, body)
	p.Client().Get("/a", "Range: bytes=0-99").Expect(206, body[:100])
	expectAsked(t, o, "/a", "0-99", "0-99", "")
}

// Whatever is asked for, however the origin breaks off, changes what it has and is killed over it: each answer is bytes of
// one representation, those that it says.
func TestRandomRanges(t *testing.T) {
	t.Parallel()
	const (
		size    = 100_000
		objects = 24
		clients = 6
		rounds  = 60
	)
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	body := func(object, version int) string {
		b := []byte(numbered(size - 1000*version))
		for i := range b {
			if b[i] == ' ' {
				b[i] = byte('A' + (object*7+version)%26)
			}
		}
		return string(b)
	}
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	versions := [objects]int{}
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		var object int
		fmt.Sscanf(e.Target, "/%d", &object)
		mu.Lock()
		if rng.IntN(25) == 0 {
			versions[object]++
		}
		v := versions[object]
		mu.Unlock()
		b := body(object, v)
		f := newFile(b, fmt.Sprintf(`"%d"`, v), "Cache-Control: max-age="+[]string{"0", "3600"}[chance(2)])
		if chance(6) == 0 {
			f.breaks <- chance(1000)
		}
		f.serve(e)
	})
	p := harness.Start(t, harness.Map("/", o))
	ask := func(r *rand.Rand) error {
		object := r.IntN(objects)
		headers := ""
		position := func() int { return r.IntN(size * 11 / 10) }
		switch r.IntN(6) {
		case 0:
		case 1:
			headers = fmt.Sprintf("Range: bytes=%d-\r\n", position())
		case 2:
			headers = fmt.Sprintf("Range: bytes=-%d\r\n", position()+1)
		case 3:
			headers = fmt.Sprintf("Range: bytes=%d-%d,%d-%d\r\n", position(), position(), position(), position())
		default:
			from := position()
			headers = fmt.Sprintf("Range: bytes=%d-%d\r\n", from, from+r.IntN(50_000))
		}
		if r.IntN(8) == 0 {
			headers += fmt.Sprintf("If-Range: \"%d\"\r\n", r.IntN(4))
		}
		a, err := harness.Fetch(p.Addr, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n%s\r\n", object, headers))
		if err != nil {
			return nil // the origin broke off too often; what came was not taken for the whole
		}
		what := fmt.Sprintf("/%d %q: %d, ETag %s, Content-Range %q", object, headers, a.Status, a.Get("ETag"), a.Get("Content-Range"))
		var v int
		if n, _ := fmt.Sscanf(a.Get("ETag"), `"%d"`, &v); n != 1 && (a.Status == 200 || a.Status == 206) {
			return fmt.Errorf("%s: no version", what)
		}
		want := body(object, v)
		one := func(place, got string) error {
			var from, to, total int
			if _, err := fmt.Sscanf(place, "bytes %d-%d/%d", &from, &to, &total); err != nil || total != len(want) || got != want[from:to+1] {
				return fmt.Errorf("%s: wrong bytes", what)
			}
			return nil
		}
		switch {
		case a.Status == 200 && string(a.Body) != want:
			return fmt.Errorf("%s: wrong bytes", what)
		case a.Status == 206 && a.Get("Content-Range") != "":
			return one(a.Get("Content-Range"), string(a.Body))
		case a.Status == 206:
			for place, got := range partsOf(t, a) {
				if err := one(place, got); err != nil {
					return err
				}
			}
		case a.Status != 200 && a.Status != 416 && a.Status != 502:
			return fmt.Errorf("%s: unexpected", what)
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i+2)))
			for range rounds {
				if err := ask(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		old := p.PID(harness.Server)
		p.Standby(old)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
	}
	wg.Wait()
	p.ExpectMetric("trafficd_cache_combined_total", "some", func(n float64) bool { return n > 0 })
	p.ExpectMetric("trafficd_requests_lost_total", "0", func(n float64) bool { return n == 0 })
}

// A range of what is being fetched as a whole comes from there, if it is about to come; one that lies far ahead is asked
// for by itself.
func TestRangeOfAFillUnderWay(t *testing.T) {
	t.Parallel()
	body := numbered(8 << 20)
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		if e.Header.Get("Range") != "" {
			newFile(body, `"v1"`, fresh).serve(e)
			return
		}
		e.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\n%s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", fresh, len(body)))
		e.Raw(body[:1<<20])
		gate.Wait(e)
		e.Raw(body[1<<20:])
	})
	p := harness.Start(t, harness.Map("/", o))
	whole := p.Client().Dial().Send(harness.Request("GET", "/a", ""))
	whole.ReadHead().ExpectStatus(200)
	whole.ReadRaw(1 << 20)
	p.Client().Get("/a", "Range: bytes=100-199").Expect(206, body[100:200])
	p.Client().Get("/a", "Range: bytes=7000000-7000009").Expect(206, body[7000000:7000010])
	several := p.Client().Dial().Send(harness.Request("GET", "/a", "", "Range: bytes=2000000-2099999,0-9,1000000-1199999"))
	near := p.Client().Dial().Send(harness.Request("GET", "/a", "", "Range: bytes=1500000-"))
	old := p.PID(harness.Server)
	p.Standby(old)
	h := several.ReadHead().ExpectStatus(206)
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old)
	gate.Open()
	near.Read("GET").Expect(206, body[1500000:])
	h.Body = []byte(several.ReadRaw(h.Int("Content-Length")))
	got := partsOf(t, h)
	for place, want := range map[string]string{
		"bytes 0-9/8388608": body[:10], "bytes 1000000-1199999/8388608": body[1000000:1200000], "bytes 2000000-2099999/8388608": body[2000000:2100000],
	} {
		if got[place] != want {
			t.Errorf("%s: got %d bytes", place, len(got[place]))
		}
	}
	if whole.ReadRaw(len(body)-1<<20) != body[1<<20:] {
		t.Error("another body")
	}
	expectAsked(t, o, "/a", "", "7000000-7000009")
}

// RFC 9110 section 15.3.7: who asks with If-Range has the fields of the representation already, so an origin leaves them out. What
// it sends then is not for others.
func TestAnAbridgedPartIsNotForOthers(t *testing.T) {
	t.Parallel()
	const part, tag, fresh = "Content-Range: bytes 0-4/10", `ETag: "a"`, "Cache-Control: max-age=600"
	p, o := proxy(t, map[string]harness.Handler{"/a": func(e *harness.Exchange) {
		if e.Header.Get("If-Range") != "" {
			e.Reply(206, "01234", part, tag, fresh)
			return
		}
		e.Reply(206, "01234", part, tag, fresh, "Content-Type: text/x")
	}})
	p.Client().Get("/a", "Range: bytes=0-4", `If-Range: "a"`).Expect(206, "01234").Header("Content-Type", "")
	p.Client().Get("/a", "Range: bytes=0-4").Expect(206, "01234").Header("Content-Type", "text/x")
	p.Client().Get("/a", "Range: bytes=0-4", `If-Range: "a"`).Expect(206, "01234").Header("Content-Type", "text/x")
	o.ExpectCount("/a", 2)
}
