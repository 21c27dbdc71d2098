package parent

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"trafficd/roles/server/remap"
)

// answerer serves every connection with what comes from answers next; it closes each after it.
func answerer(t *testing.T, answers func() string) (host string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, answers())
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), uint16(a.Port)
}

func dialTest(ctx context.Context, host string, port uint16) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", serverName(host, port))
}

func statuses(all ...int) *[600]bool {
	var set [600]bool
	for _, s := range all {
		set[s] = true
	}
	return &set
}

func TestWhatACheckTakesForAnAnswer(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n", ""},
		{"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""},
		{"HTTP/1.1 500 Oops\r\n\r\n", "the answer has status 500"},
		{"", "without an answer"},
		{"HTTP/1.1 200", "without an answer"},
		{"SSH-2.0-OpenSSH\r\n\r\n", "malformed answer"},
		{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxCheckHead), ""},
	} {
		host, port := answerer(t, func() string { return c.answer })
		k := &check{&Server{Host: host, Port: port, name: serverName(host, port)}, Check{Path: "/h", Timeout: time.Minute, Expect: statuses(200, 204)}}
		err := k.once(t.Context(), dialTest)
		if len(c.answer) > maxCheckHead {
			c.want = "head"
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.40q: got %v, want %q", c.answer, err, c.want)
		}
	}
}

func TestACheckHasATimeLimit(t *testing.T) {
	gate := make(chan struct{})
	host, port := answerer(t, func() string { <-gate; return "" })
	k := &check{&Server{Host: host, Port: port}, Check{Path: "/", Timeout: 20 * time.Millisecond, Expect: statuses(200)}}
	for range 20 {
		err := k.once(t.Context(), dialTest)
		if err == nil || err.Error() != "no answer within 20ms" {
			t.Errorf("of a server that says nothing: %v", err)
		}
	}
	close(gate)
}

// A server goes out and comes back by what its checks say, without a request.
func TestChecksTakeAServerOutAndBringItBack(t *testing.T) {
	status := make(chan string)
	host, port := answerer(t, func() string { return "HTTP/1.1 " + <-status + " X\r\n\r\n" })
	changes := make(chan Change)
	d := NewDirectory(Settings{}, func(c Change) { changes <- c })
	s := Spec{Name: "g", Servers: []ServerSpec{{host, port, 1}}, Check: &Check{
		Path: "/", Interval: time.Millisecond, Timeout: time.Minute, Expect: statuses(200), Rise: 2, Fall: 2,
	}}
	d.Configure(Settings{}, []Spec{s})
	d.Start(dialTest)
	say := func(codes ...string) {
		for _, c := range codes {
			status <- c
		}
	}
	go say("200", "500", "200", "500", "500")
	if c := <-changes; c.To != Sick || !strings.Contains(c.Why, "500") {
		t.Errorf("got %+v", c)
	}
	if got, _ := d.Of(&remap.Origin{Group: "g"}).Pick(0, 0, 0); got != nil {
		t.Error("it still gets requests")
	}
	go say("200", "500", "200", "200")
	if c := <-changes; c.To != Up {
		t.Errorf("got %+v", c)
	}
	ended := make(chan struct{})
	go func() { d.Close(); close(ended) }()
	for {
		select {
		case status <- "200":
		case <-ended:
			return
		}
	}
}
