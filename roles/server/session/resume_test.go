package session

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
	"trafficd/queue"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/custody/custodytest"
	"trafficd/roles/server/transaction"
)

// heir is a host with custody and one connection in it, whose record a test writes.
type heir struct {
	*Host
	slot *queue.Slot
	fd   int // the client's end
	left Left
}

func newHeir(t *testing.T) *heir {
	t.Helper()
	shape := buffer.Shape{Records: 8, Smalls: 8, Larges: 2}
	j := custodytest.Journal(t, 8, shape)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]); l.Close() })
	a := buffer.Over(j.Pool(0), shape)
	book := custody.NewBook(j, 0, a, nil)
	book.Ledger = j.Ledger(0)
	h := &Host{
		Loop: l, Arena: a, Book: book, Env: &transaction.Env{Loop: l, Arena: a, Book: book},
		Limits: &Limits{}, Stats: &counter{}, Closed: func() {},
	}
	slot, err := book.Ledger.Open(4711, custody.Client)
	if err != nil {
		t.Fatal(err)
	}
	return &heir{h, slot, fds[1], Left{FD: fds[0], Slot: slot}}
}

// note writes the record of a connection of which these bytes were received, the first of them number base.
func (h *heir) note(t *testing.T, base uint64, at int, received string) {
	t.Helper()
	in, ok := h.Arena.GetSmall()
	if !ok {
		t.Fatal("no page")
	}
	r := record{state: recordHead, in: in, base: base, at: uint32(at)}
	e := custody.Entry[record]{Slot: h.slot}
	e.Commit(h.Book, custody.Session, &r, custody.StepHead)
	h.left.Progress.Consumed = base + uint64(copy(h.Arena.Bytes(in), received))
}

// resume makes the session of the connection; lead finds the fetch of its request.
func (h *heir) resume(t *testing.T, lead func(transaction.Identity) *transaction.Resumed) *Resumed {
	t.Helper()
	h.left.Lead = lead
	r, err := h.Resume(h.left)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// nobody is the lead of a request that no fetch sends.
func nobody(transaction.Identity) *transaction.Resumed { return nil }

// A connection goes on to its next request while the response to the one before is still coming for the
// cache. The fetch of that one must not answer this one.
func TestARequestGoesOnWithItsOwnFetchOnly(t *testing.T) {
	h := newHeir(t)
	h.note(t, 1000, 41, "GET /a HTTP/1.1\r\nHost: a\r\nAccept: a/a\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"[:70])
	var asked []transaction.Identity
	r := h.resume(t, func(id transaction.Identity) *transaction.Resumed {
		asked = append(asked, id)
		return nil
	})
	if len(asked) != 1 || asked[0] != (transaction.Identity{Conn: 4711, Request: 1043}) {
		t.Errorf("asked for the fetches of %+v", asked)
	}
	if r.s.phase != phaseHead {
		t.Errorf("it is %v", r.s.phase)
	}
	r.s.abort()
}

// A session that has left custody is found by no successor, and goes on.
func TestLeavingCustody(t *testing.T) {
	h := newHeir(t)
	h.note(t, 0, 0, "GET / HTTP/1.1\r\n")
	r := h.resume(t, nobody)
	r.s.LeaveCustody()
	if n := h.Book.Ledger.InUse(); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
	r.s.note(custody.StepHead)
	r.s.LeaveCustody()
	if used := h.Arena.InUse(); used.Records != 0 || r.s.phase != phaseHead || r.s.entry.Cookie() != 0 {
		t.Errorf("it is %v; %+v pages are in use", r.s.phase, used)
	}
	r.s.abort()
	if used := h.Arena.InUse(); used != (buffer.Shape{}) {
		t.Errorf("pages are still in use: %+v", used)
	}
}

// A server gives a request up and dies before the client has its answer. The next one answers, and asks no origin: one may
// have acted on the request.
func TestWhatWasGivenUpIsNotBegunAgain(t *testing.T) {
	h := newHeir(t)
	h.note(t, 0, 0, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
	r := h.resume(t, nobody)
	w := h.takeWork()
	r.s.work, r.s.phase, r.s.waits = w, phaseAnswering, nil
	r.s.giveUp()
	r.s.work = nil

	r = h.resume(t, func(transaction.Identity) *transaction.Resumed {
		t.Error("a fetch is looked for")
		return nil
	})
	r.Start()
	var b [64]byte
	n, err := unix.Read(h.fd, b[:])
	if want := "HTTP/1.1 502 "; err != nil || !strings.HasPrefix(string(b[:n]), want) {
		t.Errorf("the client gets %q, %v", b[:max(n, 0)], err)
	}
	r.s.abort()
}

// A request that waits for its judgement does nothing meanwhile, whatever news there is. Its connection may
// have ended by then, and the session be another connection's.
func TestASessionThatWaitsForItsStart(t *testing.T) {
	h := newHeir(t)
	h.note(t, 0, 0, "GET / HTTP/1.1\r\n")
	r := h.resume(t, nobody)
	r.s.Wake()
	if r.s.phase != phaseHead || !r.s.readable {
		t.Errorf("it has not waited: it is %v", r.s.phase)
	}
	r.s.abort()
	other := h.takeSession()
	if other != r.s {
		t.Fatal("the session is not used again")
	}
	other.fd, other.phase = -1, phaseIdle
	h.sessions.push(other)
	r.Condemn()
	r.Start()
	if other.phase != phaseIdle || other.watch.Active() {
		t.Errorf("the other connection is %v", other.phase)
	}
}
