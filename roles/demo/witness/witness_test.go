package witness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const seed = 7

func newOrigin(t *testing.T) *Origin {
	t.Helper()
	o, err := NewOrigin("127.0.0.1:0", seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// quick are options with which a client does in milliseconds what it else does in
// seconds. Its patience is no part of that: a proxy that does nothing wrong may still get no CPU for a while.
func quick(o *Origin, addr string) Options {
	return Options{
		Addr: addr, Origin: o, Seed: seed, Patience: 30 * time.Second, Think: time.Microsecond, IdleEvery: time.Millisecond, RoundEvery: 50 * time.Millisecond, TunnelTime: 20 * time.Millisecond,
		Rate: 64 << 20, Large: 256 << 10, MaxUpload: 256 << 10,
	}
}

// runUntil lets a client live until cond holds.
func runUntil(t *testing.T, k *Client, cond func(*Tally) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	eventually(t, "requests or failures", func() bool { return cond(&k.tally) })
}

// counted is a copy of one of the origin's counts.
func (o *Origin) counted(of *map[string]int) map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(*of)
}

// eventually polls for what another goroutine, or the network, will bring.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Every kind of client is content with a proxy that does nothing wrong, and has
// checked something by then.
func TestNothingIsWrong(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			r := newRelay(t, o, fault{})
			k := NewClient(kind, 0, quick(o, r.addr()))
			enough := int64(8)
			if kind == Expect {
				enough = 2 // it waits for what does not come
			}
			runUntil(t, k, func(t *Tally) bool { return t.Requests() >= enough || t.Failed() > 0 })
			for _, f := range k.tally.Failures() {
				t.Error(f)
			}
			if k.tally.Bytes() == 0 && kind != Early && kind != Conditional {
				t.Error("no byte was checked")
			}
			for _, f := range o.Faults() {
				t.Error(f)
			}
		})
	}
}

// What may go wrong with bytes on their way to the client, and what the client
// says of it. It is enough that one of the texts is there: a wrong byte of a head
// is another failure than one of a body.
var wrongs = []struct {
	name   string
	answer func(client *net.TCPConn, p []byte) bool
	says   []string
}{
	{"wrong byte", func(c *net.TCPConn, p []byte) bool {
		p[0] ^= 1
		c.Write(p)
		return true
	}, []string{"in place of", "bad", "chunk", "too many", "followed by"}},
	{"byte missing", func(c *net.TCPConn, p []byte) bool {
		c.Write(p[1:])
		return true
	}, []string{"in place of", "chunk", "early", "followed by", "no progress", "bad", "closed"}},
	{"byte twice", func(c *net.TCPConn, p []byte) bool {
		c.Write(p[:1])
		c.Write(p)
		return true
	}, []string{"in place of", "chunk", "too many", "early", "followed by", "bad", "after the answer"}},
	{"closed", func(*net.TCPConn, []byte) bool { return false }, []string{"closed", "early"}},
	{"reset", func(c *net.TCPConn, _ []byte) bool {
		c.SetLinger(0)
		c.Close()
		return false
	}, []string{"reset", "closed"}},
	{"never comes", func(c *net.TCPConn, _ []byte) bool {
		io.Copy(io.Discard, c) // until the client has had enough
		return false
	}, []string{"no progress", "early"}},
}

// A fault inside the first answer, at its very first byte, in its head, and
// deep in what follows, is seen by every kind of client.
func TestEveryWrongIsSeen(t *testing.T) {
	for _, kind := range Kinds() {
		for _, wrong := range wrongs {
			for _, at := range []int64{0, 10, behindHead} {
				t.Run(fmt.Sprintf("%s/%s at %d", kind, wrong.name, at), func(t *testing.T) {
					t.Parallel()
					o := newOrigin(t)
					r := newRelay(t, o, fault{at: at, answer: wrong.answer})
					opts := quick(o, r.addr())
					interim := kind == Tunnel && wrong.name == "wrong byte" && at == 10 // 101 becomes 111, which is not the last word
					if interim || slices.Contains(wrong.says, "no progress") {          // the others are seen when they happen
						opts.Patience = 300 * time.Millisecond
					}
					k := NewClient(kind, 0, opts)
					// A client of so little patience may give up before it is connected, and tries again.
					connected := func(f Failure) bool { return f.Conn > 0 }
					runUntil(t, k, func(t *Tally) bool { return slices.ContainsFunc(t.Failures(), connected) })
					all := k.tally.Failures()
					f := all[slices.IndexFunc(all, connected)]
					if f.Kind != kind || f.Conn < 1 || f.Request < 1 || f.Line == "" {
						t.Errorf("failure says too little: %+v", f)
					}
					if !containsAny(f.Seen, wrong.says) {
						t.Errorf("failure %q, want one of %q", f.Seen, wrong.says)
					}
				})
			}
		}
	}
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// once lets a client of the kind live behind a relay with that fault until it has
// had enough requests or a failure, and returns client and origin.
func once(t *testing.T, kind Kind, f fault, requests int64) (*Client, *Origin) {
	t.Helper()
	o := newOrigin(t)
	r := newRelay(t, o, f)
	k := NewClient(kind, 0, quick(o, r.addr()))
	runUntil(t, k, func(t *Tally) bool { return t.Requests() >= requests || t.Failed() > 0 })
	return k, o
}

// A POST that comes to the origin twice is nothing that its client can see; the
// origin does.
func TestADuplicateIsSeen(t *testing.T) {
	for _, kind := range []Kind{Upload, UploadChunked} {
		twice := fault{request: func(p []byte, again net.Conn) []byte {
			again.Write(p)
			return p
		}}
		k, o := once(t, kind, twice, 2)
		eventually(t, "the second copy to arrive", func() bool { return slices.Max(slices.Collect(maps.Values(o.counted(&o.uploads)))) == 2 })
		if n := k.tally.Failed(); n > 0 {
			t.Errorf("%s: the client fails: %v", kind, k.tally.Failures())
		}
		found := Audit(o)
		if len(found) != 1 || !strings.Contains(found[0].Seen, "came 2 times") || !strings.HasPrefix(found[0].Line, "POST ") {
			t.Errorf("%s: audit finds %v", kind, found)
		}
	}
}

// The relay has no cache, so that the second request for a hot object is one that
// a cache would not have made.
func TestAFetchTooManyIsSeen(t *testing.T) {
	_, o := once(t, ProbeKept, fault{}, 2)
	found := Audit(o)
	if len(found) != 1 || !strings.HasPrefix(found[0].Line, "GET /object/1/") {
		t.Errorf("audit finds %v", found)
	}
}

// What happens on a connection that is idle is seen when it happens.
func TestWhatHappensToAnIdleConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(client *net.TCPConn)
		says string
	}{
		{"closed", func(c *net.TCPConn) { c.CloseWrite() }, "closed"},
		{"reset", func(c *net.TCPConn) {
			c.SetLinger(0)
			c.Close()
		}, "reset"},
		{"a byte", func(c *net.TCPConn) { io.WriteString(c, "H") }, "nobody asked for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t)
			f := fault{at: behindHead, answer: func(client *net.TCPConn, p []byte) bool {
				client.Write(p) // the whole of the object: it came with its head
				c.do(client)
				io.Copy(io.Discard, client)
				return false
			}}
			opts := quick(o, newRelay(t, o, f).addr())
			opts.IdleEvery = time.Hour
			k := NewClient(Idle, 0, opts)
			runUntil(t, k, func(t *Tally) bool { return t.Failed() > 0 })
			if f := k.tally.Failures()[0]; !strings.Contains(f.Seen, c.says) || f.Line != "idle" {
				t.Errorf("failure %v, want %q", f, c.says)
			}
		})
	}
}

// A connection that nobody accepts is a failure, and no end of the client.
func TestNobodyListens(t *testing.T) {
	o := newOrigin(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	k := NewClient(KeepAlive, 0, quick(o, l.Addr().String()))
	runUntil(t, k, func(t *Tally) bool { return t.Failed() >= 2 })
	if f := k.tally.Failures()[0]; f.Conn != 0 || !strings.Contains(f.Seen, "refused") {
		t.Errorf("failure %v", f)
	}
}

// At the end of the run a slow transfer is finished and checked: what goes wrong
// only then is still a failure.
func TestTheEndOfTheRunIsNoExcuse(t *testing.T) {
	for _, spoilt := range []bool{false, true} {
		o := newOrigin(t)
		ended, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := newRelay(t, o, fault{at: 100 << 10, answer: func(c *net.TCPConn, p []byte) bool {
			cancel()
			if spoilt {
				p[0] ^= 1
			}
			c.Write(p)
			return true
		}})
		k := NewClient(Download, 0, quick(o, r.addr()))
		k.Run(ended)
		if n := k.tally.Requests() + k.tally.Failed(); n != 1 {
			t.Errorf("%d requests, failures %v: want one of either", k.tally.Requests(), k.tally.Failures())
		}
		if failed := k.tally.Failed() == 1; failed != spoilt {
			t.Errorf("spoilt %t: failures %v", spoilt, k.tally.Failures())
		} else if f := k.tally.Failures(); spoilt && f[0].Offset <= 0 {
			t.Errorf("failure without its place: %v", f[0])
		}
	}
}

// The origin looks at what comes as closely as its clients do.
func TestTheOriginSeesWhatIsWrong(t *testing.T) {
	good := Body{seed, 5}
	bytes := make([]byte, 100)
	good.Fill(bytes, 0)
	bad := append([]byte(nil), bytes...)
	bad[50]++
	for _, c := range []struct{ name, request, says string }{
		{"nothing", head("POST", "/sink/5", "X-Witness-Id: a", "Content-Length: 100") + string(bytes), ""},
		{"byte of an upload", head("POST", "/sink/5", "X-Witness-Id: a", "Content-Length: 100") + string(bad), "wrong byte at offset 50"},
		{"byte of a tunnel", head("GET", "/echo/5", "Connection: Upgrade", "Upgrade: witness") + string(bad), "wrong byte at offset 50"},
		{"no ID", head("POST", "/sink/5", "Content-Length: 0"), "ID"},
		{"target", head("GET", "/nothing"), "was asked for"},
		{"object", head("GET", "/object/1/x?"), "parsing"},
		{"framing", head("POST", "/sink/5", "X-Witness-Id: a", "Content-Length: 1", "Transfer-Encoding: chunked"), "ambiguous"},
		{"line", "GET /\n\n", "CRLF"},
	} {
		o := newOrigin(t)
		conn, err := net.Dial("tcp", o.Addr())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, c.request)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		io.Copy(io.Discard, conn)
		conn.Close()
		if got := strings.Join(o.Faults(), "; "); !strings.Contains(got, c.says) || (c.says == "") != (got == "") {
			t.Errorf("%s: faults %q, want %q", c.name, got, c.says)
		}
	}
}

// The content is the same however it is cut, and no byte of it can be moved.
func TestBody(t *testing.T) {
	b := Body{seed, 3}
	whole := make([]byte, 200)
	b.Fill(whole, 0)
	for from := range 40 {
		for n := range 40 {
			part := make([]byte, n)
			b.Fill(part, int64(from))
			if string(part) != string(whole[from:from+n]) {
				t.Fatalf("%d bytes at %d are others", n, from)
			}
			if i := b.Check(part, int64(from)); i >= 0 {
				t.Fatalf("%d bytes at %d: byte %d is called wrong", n, from, i)
			}
			for i := range part {
				part[i] ^= 1
				if got := b.Check(part, int64(from)); got != i {
					t.Fatalf("%d bytes at %d: byte %d is wrong, Check says %d", n, from, i, got)
				}
				part[i] ^= 1
			}
		}
	}
	for _, other := range []Body{{seed, 4}, {seed + 1, 3}} {
		if other.Check(whole, 0) != 0 && other.Check(whole, 0) != 1 {
			t.Errorf("the content of %v passes for that of %v", b, other)
		}
	}
	if b.Check(whole[8:], 0) < 0 || b.Check(whole[1:], 0) < 0 {
		t.Error("content that has moved passes")
	}
}

func TestTargetsAreReversible(t *testing.T) {
	for _, o := range []Object{
		{}, {Number: 1<<63 + 1, Size: 5, Framing: UntilClose, MaxAge: Revalidate},
		{Number: 2, Size: 1 << 40, Framing: Chunked, MaxAge: 60, Rate: 7, Delay: 3 * time.Millisecond, Hints: true},
	} {
		if got, err := parseObject(o.Target()); err != nil || got != o {
			t.Errorf("%+v became %+v, %v", o, got, err)
		}
	}
}

func FuzzParseObject(f *testing.F) {
	f.Add(Object{Number: 3, Size: 9, Framing: Chunked, MaxAge: Revalidate}.Target())
	f.Add("/object/1/2?framing=none")
	f.Add("/object/-1/9999999999999999999999?age=x")
	f.Fuzz(func(t *testing.T, target string) {
		o, err := parseObject(target)
		if err != nil {
			return
		}
		if again, err := parseObject(o.Target()); err != nil || again != o {
			t.Errorf("%q is %+v, whose target is %+v, %v", target, o, again, err)
		}
	})
}

// Whatever comes, the parsers end, and a body that ended well is one that the
// message has delimited.
func FuzzMessages(f *testing.F) {
	f.Add("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\n\r\nuntil close")
	f.Add("POST /sink/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n")
	f.Add("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		in := func() *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }
		if a, err := readAnswer(in(), "GET"); err == nil {
			b, err := io.ReadAll(&a.body)
			if err == nil && a.body.framing == Length && fmt.Sprint(len(b)) != strings.TrimLeft(a.fields.get("Content-Length"), "0") && len(b) > 0 {
				t.Errorf("%d bytes, Content-Length %s", len(b), a.fields.get("Content-Length"))
			}
		}
		if r, err := readRequest(in()); err == nil {
			io.Copy(io.Discard, &r.body)
		}
	})
}

// The table as people read it.
func TestReport(t *testing.T) {
	o := newOrigin(t)
	c := NewCrew(Mix{KeepAlive: 2, Idle: 1}, Options{Origin: o, Seed: seed})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for i, k := range c.clients {
		k.tally.requests.Add(10)
		k.tally.bytes.Add(1_234_567)
		k.tally.waited(at, time.Duration(i+1)*time.Millisecond)
	}
	c.clients[2].tally.fail(Failure{At: at, Kind: Idle, Client: 0, Conn: 1, Request: 2, Line: "idle", Offset: -1, Seen: "the connection was closed"})
	c.clients[1].tally.fail(Failure{At: at.Add(-time.Second), Kind: KeepAlive, Client: 1, Conn: 1, Request: 9, Line: "GET /a", Offset: 77, Seen: "byte 0x1 in place of 0x2"})
	var b strings.Builder
	r := c.Report()
	if err := r.Write(&b, 1); err != nil || r.Failed() != 2 {
		t.Errorf("%v, %d failures", err, r.Failed())
	}
	want := `     clients     requests   bytes  connections  failures  worst wait
  keep-alive  2        20  2.5 MB            0         1         2ms
        idle  1        10  1.2 MB            0         1         3ms
       total  3        30  3.7 MB            0         2         3ms
  03:04:04.006 keep-alive[1] connection 1 request 9: GET /a at byte 77: byte 0x1 in place of 0x2
  … and 1 more
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// A crew warms the cache with each hot object, once.
func TestWarm(t *testing.T) {
	o := newOrigin(t)
	opts := quick(o, newRelay(t, o, fault{}).addr())
	c := NewCrew(Mix{ProbeKept: 1}, opts)
	if err := c.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(o.counted(&o.fetches)); n != len(opts.cached()) || len(Audit(o)) > 0 {
		t.Errorf("%d of %d objects, audit %v", n, len(opts.cached()), Audit(o))
	}
	o.Close()
	if err := c.Warm(t.Context()); err == nil {
		t.Error("warm without an origin")
	}
}
