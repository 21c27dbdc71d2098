package origin

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/parent"
	"trafficd/roles/server/remap"
)

func TestEveryFramingIsReadToItsEnd(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 6000)
	for _, c := range []struct {
		name, answer, body string
		reusable           bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true},
		{"length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true},
		{"long", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long), long, true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n", "abcde", true},
		{"long chunk", fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long), long, true},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", "", true},
		{"304", "HTTP/1.1 304 Not Modified\r\n\r\n", "", true},
		{"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", false},
		{"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			addr := serve(t, answer(c.answer), answer(c.answer))
			for range 2 {
				q := r.get(addr).start().wait()
				if q.failure != nil || string(q.body) != c.body {
					t.Fatalf("got %d bytes and failure %+v, want %d", len(q.body), q.failure, len(c.body))
				}
			}
			r.on(func() {
				if reused := r.reused == 1; reused != c.reusable {
					t.Errorf("connection used again: %v, want %v", reused, c.reusable)
				}
			})
		})
	}
}

func TestABodyWithoutLengthEndsWithTheConnection(t *testing.T) {
	r := newRig(t, nil)
	body := strings.Repeat("x", 9000)
	q := r.get(serve(t, func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\n\r\n" + body) })).start().wait()
	if q.failure != nil || string(q.body) != body {
		t.Errorf("got %d bytes and %+v", len(q.body), q.failure)
	}
}

func TestAResponseMayBeCutAnywhere(t *testing.T) {
	const whole = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;e=\"q\"\r\nefg\r\n0\r\nTrailer: x\r\n\r\n"
	r := newRig(t, nil)
	seen := make(chan struct{}) // the first part has been looked at
	addr := serve(t, func(p *peer) {
		for i := 1; i < len(whole); i++ {
			if _, ok := p.request(); !ok {
				return
			}
			p.say(whole[:i])
			<-seen
			p.say(whole[i:])
		}
		p.stay()
	})
	for i := 1; i < len(whole); i++ {
		q := r.get(addr)
		q.start()
		r.until("the first part", func() bool {
			return q.conn != nil && (q.conn.inHi > 0 || q.status != 0 || len(q.interims) > 0)
		})
		seen <- struct{}{}
		q.wait()
		if q.failure != nil || string(q.body) != "abcdefg" || fmt.Sprint(q.interims) != "[103]" {
			t.Fatalf("cut at %d: got %q, %v, %+v", i, q.body, q.interims, q.failure)
		}
	}
	r.on(func() {
		if r.opened != 1 {
			t.Errorf("%d connections were opened, want 1", r.opened)
		}
	})
}

func TestBrokenResponsesFail(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		want         error
	}{
		{"nothing", "", ErrNoAnswer},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-", ErrTruncated},
		{"interim only", "HTTP/1.1 100 Continue\r\n\r\n", ErrTruncated},
		{"short body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", ErrTruncated},
		{"short chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", ErrTruncated},
		{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ErrTruncated},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", nil},
		{"not HTTP", "SSH-2.0-OpenSSH\r\n", nil},
		{"unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", ErrNotUpgrade},
		{"a flood of interim responses", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 500), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			addr := serve(t, func(p *peer) { p.request(); p.say(c.answer); p.CloseWrite(); p.stay() })
			q := r.get(addr).start().wait()
			if q.failure == nil || c.want != nil && !errors.Is(q.failure.Err, c.want) {
				t.Errorf("got failure %+v, want %v", q.failure, c.want)
			}
			if q.failure != nil && (q.failure.Idle || q.failure.Timeout || !q.failure.Connected) {
				t.Errorf("got %+v: this connection was new, and no limit passed", q.failure)
			}
		})
	}
}

func TestInterimResponsesAreBoundedHoweverTheyArrive(t *testing.T) {
	r := newRig(t, nil)
	step := make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.request()
		for range step {
			p.say("HTTP/1.1 102 Processing\r\n\r\n")
		}
		p.stay()
	})
	q := r.get(addr).start()
	defer close(step)
	for n := 1; n <= maxInterim; n++ {
		step <- struct{}{}
		r.until("an interim response", func() bool { return len(q.interims) == n })
	}
	step <- struct{}{}
	if q.wait(); q.failure == nil {
		t.Error("the exchange goes on")
	}
}

// What comes behind a response belongs to no request: it must not be taken for
// the answer to the next one.
func TestAConnectionWithStrayBytesIsNotUsedAgain(t *testing.T) {
	const stray = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
	large := strings.Repeat("x", buffer.Large)
	for name, answer1 := range map[string]string{
		"behind a short response": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + stray,
		"behind a long body":      fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(large), large) + stray,
		"behind a full buffer":    fill("HTTP/1.1 204 No Content\r\nA: ", "\r\n\r\n") + stray,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			addr := serve(t, answer(answer1), answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"))
			r.get(addr).start().wait()
			if q := r.get(addr).start().wait(); string(q.body) != "good" {
				t.Errorf("got %.20q, want the second connection's answer", q.body)
			}
		})
	}
}

// An origin that sends the content of a HEAD or a 304 all the same: it may come at any time, and would be taken for the
// answer to whatever has been asked by then.
func TestContentThatComesBehindAHead(t *testing.T) {
	for name, answered := range map[string]struct {
		method http1.Method
		says   string
	}{
		"HEAD":             {http1.HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 41\r\n\r\n"},
		"HEAD with chunks": {http1.HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"304":              {http1.GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 41\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			addr := serve(t, func(p *peer) {
				p.request()
				p.say(answered.says)
				p.request() // must not come
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
				p.stay()
			}, answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"))
			q := r.get(addr)
			q.Method = answered.method
			q.start().wait()
			if q := r.get(addr).start().wait(); string(q.body) != "good" {
				t.Errorf("got %.20q, want the second connection's answer", q.body)
			}
		})
	}
}

// fill makes a head of exactly one small page.
func fill(head, end string) string {
	return head + strings.Repeat("a", 4096-len(head)-len(end)) + end
}

func TestAConnectionThatEndsWithItsResponseIsNotUsedAgain(t *testing.T) {
	r := newRig(t, nil)
	now, both := make(chan struct{}), make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.request()
		<-now
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		p.CloseWrite()
		close(both)
		p.stay()
	}, answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"))
	q := r.get(addr).start()
	r.until("the request on its way", func() bool {
		return q.conn != nil && q.conn.state == readingHead && q.conn.out == 0
	})
	// The loop is kept busy until response and end are both in the socket, so
	// that one event reports them.
	r.on(func() { close(now); <-both })
	q.wait()
	if q := r.upload(addr, &body{state: BodyEnd}).start().wait(); q.failure != nil || string(q.body) != "other" {
		t.Errorf("got %q and %+v", q.body, q.failure)
	}
}

func TestAStaleConnectionIsReportedAsSuch(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		p.request() // and no answer
	})
	r.get(addr).start().wait()
	q := r.get(addr).start().wait()
	if q.failure == nil || !q.failure.Idle || !q.failure.Connected || q.failure.BodyTaken {
		t.Errorf("got %+v", q.failure)
	}
}

// A connection that is used again is called by whose request it carries now.
func TestAFailureNamesTheOriginOfItsOwnRequest(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		p.request()
		p.say("nonsense\r\n\r\n")
		p.stay()
	})
	r.get(addr).start().wait()
	q := r.get(addr)
	q.Origin = &remap.Origin{Name: "group:other", Group: "other"}
	q.start().wait()
	if q.failure == nil || !strings.Contains(q.failure.Err.Error(), "origin group:other ("+addr+")") {
		t.Errorf("got %+v", q.failure)
	}
	r.on(func() {
		if r.reused != 1 {
			t.Error("the connection was not used again")
		}
	})
}

func TestOnceAvoidsAConnectionThatWasIdleForLong(t *testing.T) {
	r := newRig(t, nil)
	ok := answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	addr := serve(t, ok, ok)
	r.get(addr).start().wait()
	r.on(func() {
		for _, l := range r.pool.idle {
			l.conns[0].idleSince -= 2 * onceIdle
		}
	})
	q := r.get(addr)
	q.Once = true
	q.start().wait()
	r.on(func() {
		if r.reused != 0 || r.opened != 2 {
			t.Errorf("%d connections opened, %d used again", r.opened, r.reused)
		}
	})
}

// RFC 9112 section 9.3.1: what must not be sent twice is not sent where it is known to be lost.
func TestOnceAvoidsAConnectionThatHasEnded(t *testing.T) {
	r := newRig(t, nil)
	now, ended := make(chan struct{}), make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-now
		p.CloseWrite()
		close(ended)
		p.stay()
	}, answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"))
	r.get(addr).start().wait()
	r.until("the connection to be idle", func() bool { return len(r.pool.idle) == 1 && r.opened == 1 })
	q := r.upload(addr, &body{state: BodyEnd})
	q.Once = true
	// The loop is kept busy until the end is in the socket: no event has told of it.
	r.on(func() { close(now); <-ended; r.pool.Start(&q.Exchange) })
	q.wait()
	if q.failure != nil || string(q.body) != "other" {
		t.Errorf("got %q and %+v", q.body, q.failure)
	}
	r.on(func() {
		if r.opened != 2 || r.closed != 1 || r.reused != 0 {
			t.Errorf("%d connections opened, %d closed, %d used again", r.opened, r.closed, r.reused)
		}
	})
}

// speaksUp answers a request, and when it is time says something more, unasked.
func speaksUp(now <-chan struct{}, said chan<- struct{}) func(*peer) {
	return func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-now
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		said <- struct{}{}
		p.stay()
	}
}

// RFC 9112 section 9.2: what came before the request was sent is no answer to it, also where no event has told of it. It may be
// the answer to a request that an origin took out of a body that it did not read.
func TestWhatCameUnaskedIsNoAnswer(t *testing.T) {
	r := newRig(t, nil)
	now, said := make(chan struct{}), make(chan struct{})
	addr := serve(t, speaksUp(now, said), speaksUp(now, said), answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"))
	both := []*request{r.get(addr), r.get(addr)}
	r.on(func() {
		for _, q := range both {
			r.pool.Start(&q.Exchange)
		}
	})
	for _, q := range both {
		q.wait()
	}
	r.until("two connections to be idle", func() bool {
		for _, l := range r.pool.idle {
			return len(l.conns) == 2
		}
		return false
	})
	q := r.get(addr)
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bell)
	var asks eventloop.Watch
	r.on(func() { // the loop is kept busy until somebody wants to ask, and then the bytes are in the sockets
		if err := r.loop.Watch(&asks, bell, eventloop.Readable|eventloop.Edge, onEvent(func() { r.pool.Start(&q.Exchange) })); err != nil {
			t.Error(err)
		}
		unix.Write(bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(now)
		<-said
		<-said
	})
	q.wait()
	r.on(func() { r.loop.Remove(&asks) })
	if q.failure != nil || string(q.body) != "good" {
		t.Errorf("got %q and %+v", q.body, q.failure)
	}
	r.on(func() {
		if r.opened != 3 || r.closed != 2 || r.reused != 0 {
			t.Errorf("%d connections opened, %d closed, %d used again", r.opened, r.closed, r.reused)
		}
	})
}

// onEvent makes a function a handler.
type onEvent func()

func (f onEvent) HandleEvent(*eventloop.Watch, eventloop.Event) { f() }

// The same where a request waits for the connection.
func TestWhatCameUnaskedIsNoAnswerToWhoWaits(t *testing.T) {
	r := newRig(t, func(l *Limits) { l.Wait = long })
	r.parents.Configure(parent.Settings{MaxConnections: 1, MaxWaiting: 1}, nil)
	now, said := make(chan struct{}), make(chan struct{})
	addr := serve(t, speaksUp(now, said), answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"))
	first, next := r.get(addr), r.get(addr)
	first.hook = func(at string) {
		if at == "end" { // the response has come, and nothing more
			close(now)
			<-said
		}
	}
	r.on(func() {
		r.pool.Start(&first.Exchange)
		r.pool.Start(&next.Exchange)
	})
	first.wait()
	next.wait()
	if next.failure != nil || string(next.body) != "good" {
		t.Errorf("got %q and %+v", next.body, next.failure)
	}
}

func TestIdleConnections(t *testing.T) {
	r := newRig(t, func(l *Limits) { l.MaxIdle = 1 })
	closed := make(chan struct{})
	ok := answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	addr := serve(t, ok, func(p *peer) { ok(p); close(closed) }, ok)
	q1, q2 := r.get(addr), r.get(addr)
	r.on(func() { r.pool.Start(&q1.Exchange); r.pool.Start(&q2.Exchange) })
	q1.wait()
	q2.wait()
	r.on(func() {
		if r.opened != 2 || r.closed != 1 {
			t.Errorf("%d opened, %d closed, want one to be kept", r.opened, r.closed)
		}
		r.pool.limits.Idle = time.Millisecond
	})
	r.get(addr).start().wait()
	r.until("the idle connection to be closed", func() bool { return r.closed == r.opened })
}

func TestConnecting(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	r.names["two.test"] = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}
	if q := r.get("two.test:" + port).start().wait(); string(q.body) != "ok" {
		t.Errorf("the second address was not tried: %+v", q.failure)
	}
	for _, host := range []string{"127.0.0.2", "none.test"} {
		q := r.get(host + ":" + port).start().wait()
		if q.failure == nil || q.failure.Connected || q.failure.Idle {
			t.Errorf("%s: got %+v", host, q.failure)
		}
	}
}

func TestAnOriginMaySpeakFirst(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		p.say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		p.CloseWrite()
		p.stay()
	})
	if q := r.get(addr).start().wait(); q.status != 503 {
		t.Errorf("got %d and %+v", q.status, q.failure)
	}
}

func TestTimeLimits(t *testing.T) {
	short := 30 * time.Millisecond
	for _, c := range []struct {
		name, answer string
		tune         func(*Limits)
		body         *body
	}{
		{"no answer", "", func(l *Limits) { l.Response = short }, nil},
		{"half a head", "HTTP/1.1 200", func(l *Limits) { l.Response = short }, nil},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", func(l *Limits) { l.Body = short }, nil},
		{"no answer to a body", "", func(l *Limits) { l.Response = short }, &body{p: []byte("abc"), state: BodyEnd}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.tune)
			addr := serve(t, func(p *peer) { p.request(); p.say(c.answer); p.stay() })
			q := r.get(addr)
			if c.body != nil {
				q = r.upload(addr, c.body)
			}
			q.start().wait()
			if q.failure == nil || !q.failure.Timeout || q.failure.Idle {
				t.Errorf("got %+v", q.failure)
			}
		})
	}
}

func TestAnOriginThatTakesNoBodyIsGivenUp(t *testing.T) {
	r := newRig(t, func(l *Limits) { l.Body = 30 * time.Millisecond })
	release := make(chan struct{})
	addr := serve(t, func(p *peer) { <-release })
	q := r.upload(addr, &body{p: make([]byte, 64<<20), state: BodyEnd}).start().wait()
	close(release)
	if q.failure == nil || !q.failure.Timeout || !q.failure.BodyTaken {
		t.Errorf("got %+v", q.failure)
	}
}

// While the client owes the body the origin has nothing to do, and no limit.
func TestASlowClientIsNotTheOriginsFault(t *testing.T) {
	short := 30 * time.Millisecond
	r := newRig(t, func(l *Limits) { l.Response, l.Body = short, short })
	addr := serve(t, func(p *peer) {
		b, _ := p.request()
		p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b))
		p.stay()
	})
	b := &body{state: BodyWait}
	q := r.upload(addr, b)
	q.Head = []byte("POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 3\r\n\r\n")
	q.start()
	r.until("the head to be sent", func() bool { return q.conn != nil && q.conn.out != 0 && q.conn.outHi == 0 })
	passed := make(chan struct{})
	r.on(func() { r.loop.AfterFunc(3*short, func() { close(passed) }) })
	<-passed
	r.on(func() {
		r.pool.limits.Response, r.pool.limits.Body = long, long // how soon the origin answers then is another matter
		b.p, b.state = []byte("abc"), BodyWait
		q.BodyReady()
		b.state = BodyEnd
		q.BodyReady()
	})
	if q.wait(); string(q.body) != "abc" {
		t.Errorf("got %q and %+v", q.body, q.failure)
	}
}

// What the client brings byte by byte fills the sockets to the brim, and then it is for the origin to take it.
func TestAnOriginThatTakesNoMoreBytesIsTimed(t *testing.T) {
	r := newRig(t, nil)
	release := make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.SetReadBuffer(4096)
		<-release
	})
	defer close(release)
	b := &body{state: BodyWait}
	q := r.upload(addr, b)
	q.Head = []byte("POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 100000000\r\n\r\n")
	q.start()
	r.until("the head to be sent", func() bool { return q.conn != nil && q.conn.out != 0 && q.conn.outHi == 0 })
	r.on(func() {
		if err := unix.SetsockoptInt(q.conn.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
			t.Error(err)
		}
		for stuck := false; !stuck && q.conn != nil; {
			b.p = []byte("x")
			q.BodyReady()
			stuck = q.conn.outLo < q.conn.outHi
		}
		if q.conn != nil && q.conn.limit.At() == 0 {
			t.Error("the origin has all the time in the world")
		}
		q.Cancel()
	})
}

func TestExpectations(t *testing.T) {
	upload := func(r *rig, addr string) *request {
		q := r.upload(addr, &body{p: []byte("abc"), state: BodyEnd})
		q.Head = []byte("POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
		q.Expect = true
		return q.start().wait()
	}
	head := func(p *peer) {
		for line := ""; line != "\r\n"; {
			line, _ = p.in.ReadString('\n')
		}
	}
	three := func(p *peer) string { b := make([]byte, 3); io.ReadFull(p.in, b); return string(b) }
	for _, c := range []struct {
		name   string
		hold   time.Duration // only who is not answered goes on without a word: however late the others are, they come first
		origin func(p *peer)
		body   string
	}{
		{"welcome", long, func(p *peer) {
			head(p)
			p.say("HTTP/1.1 100 Continue\r\n\r\n")
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + three(p))
			p.stay()
		}, "abc"},
		{"unheard of", 30 * time.Millisecond, func(p *peer) {
			head(p)
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + three(p))
			p.stay()
		}, "abc"},
		{"refused", long, func(p *peer) {
			head(p)
			p.say("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
			if b, _ := io.ReadAll(p.in); len(b) > 0 {
				t.Errorf("the body was sent though it was refused: %q", b)
			}
		}, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.on(func() { r.pool.hold = c.hold })
			if q := upload(r, serve(t, c.origin)); string(q.body) != c.body {
				t.Errorf("got %q and %+v, want %q", q.body, q.failure, c.body)
			}
		})
	}
}

func TestAnAnswerToABodyThatWasNotTakenIsRead(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		p.in.ReadByte()
		p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		p.CloseWrite()
		p.CloseRead()
		p.stay()
	})
	q := r.upload(addr, &body{p: make([]byte, 32<<20), state: BodyEnd}).start().wait()
	if q.status != 413 || string(q.body) != "big" {
		t.Errorf("got %d %q %+v", q.status, q.body, q.failure)
	}
}

func TestChunkedUpload(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		b, ok := p.request()
		p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(fmt.Sprint(len(b), ok)), fmt.Sprint(len(b), ok)))
		p.stay()
	})
	q := r.upload(addr, &body{p: make([]byte, 200_000), state: BodyEnd})
	q.Chunked, q.Head = true, []byte("POST / HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n")
	if q.start().wait(); string(q.body) != "200000 true" {
		t.Errorf("the origin got %q", q.body)
	}
	q = r.upload(addr, &body{p: []byte("abc"), state: BodyFailed})
	q.Chunked = true
	if q.start().wait(); q.failure == nil || q.failure.Err != ErrBody || !q.failure.BodyTaken {
		t.Errorf("got %+v", q.failure)
	}
}

// A full sink stops the exchange without a time limit; Resume goes on, and then
// the origin's silence counts again.
func TestPauseAndResume(t *testing.T) {
	payload := strings.Repeat("0123456789", 20_000)
	for name, framed := range map[string]string{
		"length":      fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(payload), payload),
		"chunked":     fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(payload), payload),
		"until close": "Connection: close\r\n\r\n" + payload,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			addr := serve(t, func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\n" + framed) })
			q := r.get(addr)
			q.most = 0
			q.start()
			for {
				more := false
				r.until("a pause or the end", func() bool {
					more = q.conn != nil && q.conn.paused
					return more || !q.active
				})
				if !more {
					break
				}
				r.on(func() { q.most += 1234; q.Resume() })
			}
			if q.wait(); q.failure != nil || string(q.body) != payload {
				t.Errorf("got %d bytes and %+v", len(q.body), q.failure)
			}
		})
	}
}

func TestSilenceAfterAPauseIsLimited(t *testing.T) {
	r := newRig(t, nil)
	headed := make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
		<-headed
		p.say("abc") // as much as the sink takes, so the pause leaves nothing behind
		p.stay()
	})
	q := r.get(addr)
	q.most = 3
	q.start()
	<-q.headed
	close(headed)
	r.until("a pause", func() bool { return q.conn != nil && q.conn.paused })
	r.on(func() {
		r.pool.limits.Body = 30 * time.Millisecond // only now: until the pause the origin may be as slow as the machine
		q.most = 100
		q.Resume()
	})
	if q.wait(); q.failure == nil || !q.failure.Timeout {
		t.Errorf("got %+v", q.failure)
	}
}

// The sink has a little space again before it says so, and the origin sends more: it is still for the client to go on.
func TestWhatComesDuringAPauseEndsItNot(t *testing.T) {
	r := newRig(t, nil)
	more := make(chan struct{})
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
		<-more
		p.say("3\r\nghi\r\n0\r\n\r\n")
		p.stay()
	})
	q := r.get(addr)
	q.most = 3
	q.start()
	r.until("a pause", func() bool { return q.conn != nil && q.conn.paused })
	r.on(func() { q.most = 100 })
	close(more)
	r.until("more to come", func() bool { return q.conn.untaken > 0 || len(q.body) > 3 })
	r.on(func() {
		if at := q.conn.limit.At(); at != 0 {
			t.Error("a limit is running")
		}
		q.Resume()
	})
	if q.wait(); string(q.body) != "abcdefghi" {
		t.Errorf("got %q and %+v", q.body, q.failure)
	}
}

func TestCancel(t *testing.T) {
	for _, where := range []string{"interim", "head", "space", "progress"} {
		t.Run(where, func(t *testing.T) {
			r := newRig(t, nil)
			gone := make(chan struct{})
			addr := serve(t, func(p *peer) {
				p.request()
				p.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
				p.stay()
				close(gone)
			})
			q := r.get(addr)
			q.hook = func(at string) {
				if at == where {
					q.hook = nil
					q.Cancel()
				}
			}
			q.start()
			<-gone
			r.on(func() {
				if q.active || q.failure != nil {
					t.Errorf("active %v, failure %+v", q.active, q.failure)
				}
			})
			select {
			case <-q.over:
				t.Error("the handler was called after Cancel")
			default:
			}
		})
	}
	t.Run("resolving", func(t *testing.T) {
		r := newRig(t, nil)
		q := r.get("slow.test:1")
		r.on(func() { r.pool.Start(&q.Exchange); q.Cancel() })
	})
	t.Run("connecting", func(t *testing.T) {
		r := newRig(t, nil)
		q := r.get(serve(t, answer("")))
		r.on(func() { r.pool.Start(&q.Exchange); q.Cancel(); q.Cancel() })
	})
}

func TestSwitchingProtocolsGivesTheConnectionAway(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
		p.stay()
	})
	q := r.get(addr)
	q.Upgrade = true
	q.start().wait()
	if q.fd < 0 || string(q.early) != "early" || q.framing != http1.Tunnel {
		t.Fatalf("got %d %q %+v", q.fd, q.early, q.failure)
	}
	if err := unix.Close(q.fd); err != nil {
		t.Error(err)
	}
}

func TestFullArenaIsAFailure(t *testing.T) {
	r := newRig(t, nil)
	addr := serve(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	q := r.get(addr)
	r.on(func() {
		for ok := true; ok; _, ok = r.arena.GetSmall() {
			continue
		}
		r.pool.Start(&q.Exchange)
	})
	q.wait()
	r.on(func() {
		if q.failure == nil || q.failure.Err != ErrNoBuffers {
			t.Errorf("got %+v", q.failure)
		}
	})
	r.on(func() {
		for ref := range 256 {
			r.arena.Put(buffer.Ref(ref + 1))
		}
	})
}

// Clients of a forward proxy name as many hosts as they like.
func TestListsOfIdleConnectionsAreBounded(t *testing.T) {
	p := &Pool{idle: map[address]*idleList{}}
	kept := &idleList{conns: []*Conn{nil}}
	p.idle[address{"kept", 80}] = kept
	for i := range 3 * maxLists {
		p.forgetEmpty()
		p.idle[address{"a", uint16(i)}] = &idleList{}
	}
	if len(p.idle) > maxLists || p.idle[address{"kept", 80}] != kept {
		t.Errorf("there are %d lists", len(p.idle))
	}
}
