package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"trafficd/roles/internal/stats"
)

// Requests that wait for one response: who leads, who follows, who leaves.

// collapse makes n clients ask for path at once and waits until all but the
// first follow it.
func (e *engine) collapse(n int, path string) []*bufio.Reader {
	e.t.Helper()
	var ins []*bufio.Reader
	before := e.count(stats.CacheCollapsed)
	for i := range n {
		c := e.dial()
		e.say(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		ins = append(ins, bufio.NewReader(c))
		if i == 0 {
			waitFor(e.t, "the leader", func() bool { return e.flights.Len() == 1 })
		}
	}
	waitFor(e.t, "the followers", func() bool { return e.count(stats.CacheCollapsed) == before+n-1 })
	return ins
}

func TestALeaderThatLeavesEarlyIsReplaced(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-r.Context().Done() // the leader's connection
			return
		}
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "second")
	})
	e := startEngine(t, 2, nil, "/="+o)
	lead := e.dial()
	e.say(lead, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	waitFor(t, "the leader", func() bool { return asked.Load() == 1 })
	var ins []*bufio.Reader
	for range 4 {
		c := e.dial()
		e.say(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		ins = append(ins, bufio.NewReader(c))
	}
	waitFor(t, "the followers", func() bool { return e.count(stats.CacheCollapsed) == 4 })
	if err := lead.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	lead.Close()
	waitFor(t, "another to lead", func() bool { return asked.Load() == 2 && e.flights.Len() == 1 })
	close(release)
	for _, in := range ins {
		e.expect(in, 200, "second")
	}
}

func TestALeaderMayLeaveWhenTheResponseIsComing(t *testing.T) {
	rest := make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "8")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-rest
		io.WriteString(w, "half")
	})
	e := startEngine(t, 2, nil, "/="+o)
	lead := e.dial()
	e.say(lead, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := io.ReadFull(lead, make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	c := e.dial()
	e.say(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	waitFor(t, "a follower", func() bool { return e.count(stats.CacheCollapsed) == 1 })
	if err := lead.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	lead.Close()
	waitFor(t, "the leader to go", func() bool { return e.sessions() == 1 })
	close(rest)
	e.expect(bufio.NewReader(c), 200, "halfhalf")
	waitFor(t, "the fetch to end", func() bool { return e.flights.Len() == 0 })
	got := e.raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if !strings.HasSuffix(got, "\r\n\r\nhalfhalf") || e.count(stats.CacheHits) != 1 {
		t.Errorf("got %q after %d hits", got, e.count(stats.CacheHits))
	}
}

func TestAResponseThatCannotBeSharedReleasesItsFollowers(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		<-release
		fmt.Fprint(w, n)
	})
	e := startEngine(t, 2, nil, "/="+o)
	ins := e.collapse(5, "/")
	close(release)
	bodies := map[string]bool{}
	for _, in := range ins {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		bodies[string(b)] = true
	}
	if len(bodies) != 5 {
		t.Errorf("got %d different responses, want 5", len(bodies))
	}
}

// A body of unknown length that turns out too large to be stored goes on through
// a window, to followers on other loops and at other places in it.
func TestOverflowWithFollowers(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 12<<20/16)
	release := make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		w.(http.Flusher).Flush()
		io.WriteString(w, body)
	})
	e := startEngine(t, 2, nil, "/="+o)
	ins := e.collapse(4, "/")
	close(release)
	var wg sync.WaitGroup
	for i, in := range ins {
		wg.Go(func() {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Error(err)
				return
			}
			io.CopyN(io.Discard, resp.Body, int64(i)) // at different offsets
			rest, err := io.ReadAll(resp.Body)
			if err != nil || string(rest) != body[i:] {
				t.Errorf("client %d: got %d bytes, %v", i, len(rest), err)
			}
		})
	}
	wg.Wait()
	if n := e.count(stats.CacheStores); n != 0 {
		t.Errorf("%d responses were stored", n)
	}
}

func TestA304WithAnotherValidatorIsFetchedAnew(t *testing.T) {
	var asked atomic.Int32
	o := scriptedOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			switch n := asked.Add(1); {
			case r.Header.Get("If-None-Match") != "":
				io.WriteString(c, "HTTP/1.1 304 Not Modified\r\nEtag: \"other\"\r\nCache-Control: max-age=60\r\n\r\n")
			default:
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nEtag: \"e%d\"\r\nCache-Control: no-cache\r\nContent-Length: 1\r\n\r\n%d", n, n)
			}
		}
	})
	e := startEngine(t, 1, nil, "/="+o)
	c := e.client()
	for _, want := range []string{"1", "3", "5"} { // between them the 304s
		if _, body := e.get(c, "/"); body != want {
			t.Errorf("got %q, want %q", body, want)
		}
	}
}
