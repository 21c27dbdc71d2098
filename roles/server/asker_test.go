package server

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trafficd/roles/internal/stats"
)

// What one request may not have kept says nothing of the requests of others.

// gatedOrigin answers every request but the first when n more have come: they must not wait for each other.
func gatedOrigin(n int32, answer func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
	var asked atomic.Int32
	all := make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
		case n + 1:
			close(all)
			fallthrough
		default:
			await(r, all)
		}
		answer(w, r)
	}
}

// await waits for c, unless nobody waits for the answer any more.
func await(r *http.Request, c chan struct{}) {
	select {
	case <-c:
	case <-r.Context().Done():
	}
}

// ask sends a GET on a connection of its own.
func (e *engine) ask(fields string) *bufio.Reader {
	c := e.dial()
	e.say(c, "GET / HTTP/1.1\r\nHost: h\r\n"+fields+"\r\n")
	return bufio.NewReader(c)
}

func TestWhatARequestMayNotHaveKeptIsCollapsedForOthers(t *testing.T) {
	for name, fields := range map[string]string{
		"no-store":           "Cache-Control: no-store\r\n",
		"Authorization":      "Authorization: Basic YTpi\r\n",
		"both":               "Cache-Control: no-store\r\nAuthorization: Basic YTpi\r\n",
		"a long Vary":        "Accept: " + strings.Repeat("x", 5000) + "\r\n",
		"a refused head":     "X-Large: 1\r\n",
		"nothing to be kept": "",
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			release := make(chan struct{})
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 {
					await(r, release)
				}
				w.Header().Set("Vary", "Accept")
				if name == "nothing to be kept" {
					return
				}
				w.Header().Set("Cache-Control", "max-age=60")
				if r.Header.Get("X-Large") != "" {
					w.WriteHeader(431)
				}
				fmt.Fprint(w, "ok")
			})
			e := startEngine(t, 2, nil, "/="+o)
			if name == "nothing to be kept" { // the response says so: this is remembered
				e.expect(e.ask(""), 200, "")
				ins := []*bufio.Reader{e.ask(""), e.ask("")}
				waitFor(t, "both to be passed on", func() bool { return asked.Load() == 3 })
				close(release)
				for _, in := range ins {
					e.expect(in, 200, "")
				}
				return
			}
			resp, err := http.ReadResponse(e.ask(fields), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			if n := e.count(stats.CacheStores); n != 0 {
				t.Fatal("it was stored")
			}
			ins := e.collapse(4, "/")
			close(release)
			for _, in := range ins {
				e.expect(in, 200, "ok")
			}
			if n := asked.Load(); n != 2 {
				t.Errorf("the origin was asked %d times, want once for each of the two kinds of request", n)
			}
		})
	}
}

// And they are not made to wait for each other, either.
func TestRequestsThatKeepNothingAreNotSerialised(t *testing.T) {
	for name, fields := range map[string]string{
		"no-store":      "Cache-Control: no-store\r\n",
		"Authorization": "Authorization: Basic YTpi\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, gatedOrigin(4, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprint(w, "ok")
			}))
			e := startEngine(t, 2, nil, "/="+o)
			e.expect(e.ask(fields), 200, "ok")
			var ins []*bufio.Reader
			for range 4 {
				ins = append(ins, e.ask(fields))
			}
			for _, in := range ins {
				e.expect(in, 200, "ok")
			}
		})
	}
}

// Nobody waits behind a request with no-store, not even at first.
func TestNobodyWaitsBehindNoStore(t *testing.T) {
	release := make(chan struct{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cache-Control") != "" {
			await(r, release)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "ok")
	})
	e := startEngine(t, 1, nil, "/="+o)
	first := e.ask("Cache-Control: no-store\r\n")
	waitFor(t, "the first to be passed on", func() bool { return e.count(stats.CacheMisses) == 1 })
	e.expect(e.ask(""), 200, "ok")
	e.expect(e.ask("Cache-Control: no-store\r\n"), 200, "ok") // a hit
	close(release)
	e.expect(first, 200, "ok")
}

// What is stored and found good by such a request stays stored.
func TestARequestThatKeepsNothingTakesNothingAway(t *testing.T) {
	for name, fields := range map[string]string{
		"no-store":      "Cache-Control: no-store\r\n",
		"Authorization": "Authorization: Basic YTpi\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var whole atomic.Int32
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "no-cache")
				w.Header().Set("ETag", `"a"`)
				if r.Header.Get("If-None-Match") == `"a"` {
					w.WriteHeader(304)
					return
				}
				whole.Add(1)
				fmt.Fprint(w, "ok")
			})
			e := startEngine(t, 1, nil, "/="+o)
			for _, f := range []string{"", fields, "", fields} {
				e.expect(e.ask(f), 200, "ok")
			}
			if n := whole.Load(); n != 1 {
				t.Errorf("the origin has sent it %d times", n)
			}
		})
	}
}

func TestARequestThatKeepsNothingLeavesThePartsAlone(t *testing.T) {
	body := strings.Repeat("0123456789", 1000)
	var ranges atomic.Pointer[[]string]
	ranges.Store(&[]string{})
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		all := append(*ranges.Load(), r.Header.Get("Range"))
		ranges.Store(&all)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"a"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	})
	for name, fields := range map[string]string{
		"no-store":      "Cache-Control: no-store\r\n",
		"Authorization": "Authorization: Basic YTpi\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t, 1, nil, "/="+o)
			e.expect(e.ask("Range: bytes=0-4999\r\n"), 206, body[:5000])
			e.expect(e.ask(fields), 200, body)
			e.expect(e.ask(""), 200, body)
			if all := *ranges.Load(); all[len(all)-1] != "bytes=5000-" {
				t.Errorf("the part was not there any more: the origin was asked for %q", all)
			}
		})
	}
}

// A part is stored however it is framed: its Content-Range says how long it is.
func TestAPartIsStoredHoweverItIsFramed(t *testing.T) {
	for _, size := range []int{5000, 300_000} {
		body := strings.Repeat("0123456789", 2*size/10)
		var asked atomic.Int32
		o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("ETag", `"a"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, len(body)))
			w.WriteHeader(206)
			w.(http.Flusher).Flush() // chunked
			io.WriteString(w, body[:size])
		})
		e := startEngine(t, 1, nil, "/="+o)
		for range 2 {
			e.expect(e.ask(fmt.Sprintf("Range: bytes=0-%d\r\n", size-1)), 206, body[:size])
			waitFor(t, "the fetch to end", func() bool { return e.flights.Len() == 0 })
		}
		if n := asked.Load(); n != 1 || e.count(stats.CacheStoreFailures) != 0 {
			t.Errorf("%d bytes: the origin was asked %d times, %d could not be stored", size, n, e.count(stats.CacheStoreFailures))
		}
	}
}
