package e2e

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"
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
