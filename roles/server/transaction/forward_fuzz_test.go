package transaction

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"trafficd/eventloop"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/remap"
)

// nobody is a client that is only asked who it is.
type nobody struct{ Client }

func (nobody) Peer() netip.AddrPort { return netip.MustParseAddrPort("192.0.2.1:4711") }

func (nobody) RequestBody() origin.RequestBody { return nil }

// FuzzForward: whatever request is accepted, what is sent in its place is one request for all who
// read it, and means the same.
func FuzzForward(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a/../b?c=d;e HTTP/1.1\r\nHost: A:80\r\nContent-Length: 005\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For:\r\n\r\n",
		"PUT http://B.test/%00 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n",
		"OPTIONS /x HTTP/1.1\r\nHost: [::1]:80\r\nMax-Forwards: 7\r\nConnection: close, X\r\nX: y\r\nTE: a\r\nTrailer: b\r\n\r\n",
		"GET /x HTTP/1.0\r\nX_Forwarded_For: 1\r\nProxy: p\r\nX-Original-URL: /e\r\nX-HTTP-Method: DELETE\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nA: \xff\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a, b/1,,(h2c)\r\n\r\n",
		"get //x?? HTTP/1.7\r\nHost: a.:99\r\nX: \t a\tb\r\nX:\r\nVia: 1.1 b\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	table, err := remap.New([]remap.Spec{{Prefix: "/", Origin: "http://o.test:81"}})
	if err != nil {
		f.Fatal(err)
	}
	settings := &Settings{Remap: table, Via: "t", PreserveHost: true}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req http1.Request
		if req.Parse(b, nil) != nil {
			return
		}
		tr := Transaction{env: &Env{}, client: nobody{}, settings: settings, req: &req, head: b[:req.HeadLen]}
		if status, _ := tr.unacceptable(); status != 0 || tr.endsHere() || !tr.findRule() || tr.match.Origin == nil {
			return
		}
		fetch := &fetch{}
		fetch.x.Upgrade = tr.mayUpgrade()
		compareForwarded(t, &tr, tr.appendRequest(nil, fetch))
	})
}

func compareForwarded(t *testing.T, tr *Transaction, sent []byte) {
	t.Helper()
	req, in := tr.req, func(s http1.Span) string { return string(s.In(tr.head)) }
	var again http1.Request
	if err := again.Parse(sent, &http1.Limits{RequestLine: 1 << 20, Head: 1 << 20, Fields: 1000}); err != nil || again.HeadLen != len(sent) {
		t.Fatalf("%q sent as %q: %v", tr.head, sent, err)
	}
	if again.ContentLength != req.ContentLength || again.Chunked != req.Chunked || again.Minor != 1 || again.Form != http1.OriginForm {
		t.Fatalf("%q sent as %q: framed otherwise", tr.head, sent)
	}
	r := bufio.NewReader(bytes.NewReader(sent))
	q, err := http.ReadRequest(r)
	if err != nil {
		t.Fatalf("%q sent as %q: net/http: %v", tr.head, sent, err)
	}
	host, target := strings.ToLower(strings.TrimSuffix(in(req.Host), ":80")), string(tr.path)+string(tr.query())
	if host == "" {
		host = "o.test:81"
	}
	if q.Method != in(req.MethodName) || q.RequestURI != target || q.Host != host {
		t.Fatalf("%q sent as %q: %s %s for %s", tr.head, sent, q.Method, q.RequestURI, q.Host)
	}
	if chunked := slices.Equal(q.TransferEncoding, []string{"chunked"}); chunked != req.Chunked || !chunked && q.ContentLength != max(req.ContentLength, 0) {
		t.Fatalf("%q sent as %q: net/http takes %d bytes, %v", tr.head, sent, q.ContentLength, q.TransferEncoding)
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Fatalf("%q sent as %q: %q is left", tr.head, sent, rest)
	}
	for name := range q.Header {
		id := header.Lookup([]byte(name))
		if header.HopByHop(id) && !(tr.mayUpgrade() && (id == header.Connection || id == header.Upgrade)) || looksKnown([]byte(name)) {
			t.Fatalf("%q sent as %q: with %s", tr.head, sent, name)
		}
	}
	for _, m := range strings.Split(q.Header.Get("Upgrade"), ",") {
		if m = strings.Trim(m, " \t"); m != "" && !protocol.MatchString(m) {
			t.Fatalf("%q sent as %q: to upgrade to %q", tr.head, sent, m)
		}
	}
	if v := q.Header["X-Forwarded-For"]; len(v) != 1 || !strings.HasSuffix(v[0], "192.0.2.1") {
		t.Fatalf("%q sent as %q: X-Forwarded-For %q", tr.head, sent, v)
	}
}

// protocol is RFC 9110 §7.8.
var protocol = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+(/[-!#$%&'*+.^_`|~0-9A-Za-z]+)?$")

// FuzzPassOn: whatever response is accepted, the lines that are passed on have none of its framing, and are
// fields to all who read them.
func FuzzPassOn(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", "HTTP/1.0 200 \xff\r\nConnection: a, Content-Length\r\nA: b\r\nAge: 7\r\n\r\n",
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\nKeep-Alive: a\r\nX: \xff\t y\r\nX:\r\n\r\n", "HTTP/1.1 204 N\r\nContent-Length: 5\r\nDate: x\r\n\r\n",
		"HTTP/1.9 999 a b\r\nProxy-Authenticate: a\r\nUpgrade: h2c\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	e := &Env{Loop: l}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r http1.Response
		if r.Parse(b, nil) != nil || r.Status == 101 || r.Status < 200 {
			return
		}
		head := b[:r.HeadLen]
		lines := e.appendLines(nil, &r, head)
		sent := append(http1.AppendStatusLine(nil, r.Status), lines...)
		sent = append(http1.AppendContentLength(sent, 0), "\r\n"...)
		q, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(sent)), nil)
		if err != nil {
			t.Fatalf("%q passed on as %q: net/http: %v", head, sent, err)
		}
		if q.StatusCode != r.Status || q.ContentLength != 0 || len(q.TransferEncoding) > 0 {
			t.Fatalf("%q passed on as %q: %d, %d bytes, %v", head, sent, q.StatusCode, q.ContentLength, q.TransferEncoding)
		}
		if got, want := q.Header["Set-Cookie"], countFields(&r, header.SetCookie); len(got) != want {
			t.Fatalf("%q passed on as %q: %d cookies, want %d", head, sent, len(got), want)
		}
	})
}

func countFields(r *http1.Response, id header.ID) (n int) {
	for i := range r.Fields {
		if r.Fields[i].ID == id {
			n++
		}
	}
	return n
}
