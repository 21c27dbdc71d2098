package witness

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxFailures is how many failures of one client are kept in words. All are
// counted.
const maxFailures = 100

// Failure is one thing that a client saw and that must not be.
type Failure struct {
	At      time.Time
	Kind    Kind
	Client  int    // of its kind, from 0
	Conn    int    // of the client's connections, from 1; 0: it had none
	Request int    // on the connection, from 1
	Line    string // method and target, or what else was under way
	Offset  int64  // in the body or in the tunnel; -1: not in one
	Seen    string
}

func (f Failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s[%d] connection %d request %d: %s", f.At.Format("15:04:05.000"), f.Kind, f.Client, f.Conn, f.Request, f.Line)
	if f.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", f.Offset)
	}
	return b.String() + ": " + f.Seen
}

// Tally is what one client has done and seen. It may be read while the client
// runs.
type Tally struct {
	requests, bytes, conns, failed atomic.Int64

	mu       sync.Mutex // guards below
	failures []Failure  // the first maxFailures
	worst    time.Duration
	worstAt  time.Time
}

// Requests that ended well: each byte of them was right.
func (t *Tally) Requests() int64 { return t.requests.Load() }

// Bytes of bodies and tunnels that were right, in both directions.
func (t *Tally) Bytes() int64 { return t.bytes.Load() }

// Connections that were opened.
func (t *Tally) Connections() int64 { return t.conns.Load() }

// Failed is the number of failures, also those not kept in words.
func (t *Tally) Failed() int64 { return t.failed.Load() }

// Failures are the first ones. It is a copy.
func (t *Tally) Failures() []Failure {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Failure(nil), t.failures...)
}

// Worst is the longest time that the client waited in vain for its peer to take
// or give a byte, and when that began. Of probes it is the longest request, its
// connect included.
func (t *Tally) Worst() (time.Duration, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worst, t.worstAt
}

func (t *Tally) fail(f Failure) {
	t.failed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) < maxFailures {
		t.failures = append(t.failures, f)
	}
}

// waited is told of each wait.
func (t *Tally) waited(began time.Time, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d > t.worst {
		t.worst, t.worstAt = d, began
	}
}
