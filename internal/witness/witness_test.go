package witness

import (
	"context"
	"fmt"
	"io"
	"net"
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
// seconds.
func quick(o *Origin, addr string) Options {
	return Options{
		Addr: addr, Origin: o, Seed: seed, Patience: 2 * time.Second, Think: time.Microsecond, IdleEvery: time.Millisecond, TunnelTime: 20 * time.Millisecond,
		Rate: 64 << 20, Large: 256 << 10, MaxUpload: 256 << 10,
	}
}

// runUntil lets a client live until cond holds, which is looked at after each
// millisecond, and for patience at most.
func runUntil(t *testing.T, k *Client, cond func(*Tally) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond(k.Tally()) {
		select {
		case <-tick.C:
		case <-deadline:
			cancel()
			<-done
			t.Fatalf("after 10 s: %d requests, failures %v", k.Tally().Requests(), k.Tally().Failures())
		}
	}
	cancel()
	<-done
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
			if kind == Collapsed || kind == Expect {
				enough = 1 // they take their time
			}
			runUntil(t, k, func(t *Tally) bool { return t.Requests() >= enough || t.Failed() > 0 })
			for _, f := range k.Tally().Failures() {
				t.Error(f)
			}
			if k.Tally().Bytes() == 0 && kind != Early && kind != Conditional {
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
					opts.Patience = 300 * time.Millisecond
					k := NewClient(kind, 0, opts)
					runUntil(t, k, func(t *Tally) bool { return t.Failed() > 0 })
					f := k.Tally().Failures()[0]
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
