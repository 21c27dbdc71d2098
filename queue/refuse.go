package queue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// RefuserOptions sets the bounds of a Refuser. The zero value of a field
// stands for the default named there.
type RefuserOptions struct {
	// RetryAfter is told to the client, rounded up to whole seconds. Default 5 s.
	RetryAfter time.Duration
	// Linger bounds each refusal from its start to the close. Default 2 s.
	Linger time.Duration
	// Most is how many refusals may be under way at once. Beyond it a client
	// gets its answer without the patience. Default 512.
	Most int
	// Body is the text of the answer. Default: one line.
	Body string
}

// Refuser answers connections with 503 and closes them so that the answer
// arrives: it waits for the request, since an answer before the question is
// discarded by some clients; writes; shuts down its side; and reads on until
// the client closes, since closing with unread bytes makes the kernel send a
// reset, which can overtake the answer (RFC 9112 section 9.6). All of it is
// bounded in time and number. One goroutine per refusal.
//
// It belongs to the manager. Close ends every refusal under way.
type Refuser struct {
	o      RefuserOptions
	full   []byte // immutable: the answer
	head   []byte // immutable: the answer to HEAD, a prefix of full
	places chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	open   map[*os.File]struct{} // guarded by mu: refusals under way
	closed bool                  // guarded by mu

	answered, curt, failed atomic.Uint64
}

// NewRefuser makes a Refuser. It needs no clean-up until Refuse was called.
func NewRefuser(o RefuserOptions) *Refuser {
	if o.RetryAfter <= 0 {
		o.RetryAfter = 5 * time.Second
	}
	if o.Linger <= 0 {
		o.Linger = 2 * time.Second
	}
	if o.Most <= 0 {
		o.Most = 512
	}
	if o.Body == "" {
		o.Body = "The service is starting. Please try again in a moment.\n"
	}
	head := "HTTP/1.1 503 Service Unavailable\r\n" +
		"Retry-After: " + strconv.Itoa(int((o.RetryAfter+time.Second-1)/time.Second)) + "\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: " + strconv.Itoa(len(o.Body)) + "\r\n" +
		"Cache-Control: no-store\r\n" +
		"Connection: close\r\n\r\n"
	full := []byte(head + o.Body)
	return &Refuser{
		o:      o,
		full:   full,
		head:   full[:len(head):len(head)],
		places: make(chan struct{}, o.Most),
		open:   make(map[*os.File]struct{}),
	}
}

// Refuse takes over the connection fd (non-blocking, as Accept and Take return
// it), answers and closes it. It does not wait.
func (r *Refuser) Refuse(fd int) {
	select {
	case r.places <- struct{}{}:
	default:
		r.refuseCurtly(fd)
		return
	}
	_ = unix.SetNonblock(fd, true) // os.NewFile polls only what is non-blocking
	f := os.NewFile(uintptr(fd), "refused connection")
	if !r.begin(f) {
		<-r.places
		f.Close()
		r.failed.Add(1)
		return
	}
	go r.refuse(f)
}

func (r *Refuser) begin(f *os.File) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.open[f] = struct{}{}
	r.wg.Add(1)
	return true
}

func (r *Refuser) end(f *os.File) {
	r.mu.Lock()
	delete(r.open, f)
	r.mu.Unlock()
	f.Close()
	<-r.places
	r.wg.Done()
}

func (r *Refuser) refuse(f *os.File) {
	defer r.end(f)
	if err := r.answer(f); err != nil {
		r.failed.Add(1)
		return
	}
	r.answered.Add(1)
}

// mostDrained bounds how much of an upload is read to be polite.
const mostDrained = 1 << 20

func (r *Refuser) answer(f *os.File) error {
	// A quarter of the time for the request to begin, the rest for the farewell.
	if err := r.setDeadline(f, time.Now().Add(r.o.Linger/4)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, err := f.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("refuse connection: %w", err) // gone already
	}
	// From now on: a process that did not run for so long owes an answer all the same.
	if err := r.setDeadline(f, time.Now().Add(r.o.Linger-r.o.Linger/4)); err != nil {
		return err
	}
	if _, err := f.Write(r.text(buf[:n])); err != nil {
		return fmt.Errorf("refuse connection: %w", err)
	}
	if err := shutdownWrite(f); err != nil {
		return fmt.Errorf("refuse connection: %w", err)
	}
	for drained := n; err == nil && drained < mostDrained; drained += n {
		n, err = f.Read(buf)
	}
	return nil
}

// setDeadline never undoes what Close has set.
func (r *Refuser) setDeadline(f *os.File, t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("refuse connection: refuser is closed")
	}
	if err := f.SetDeadline(t); err != nil {
		return fmt.Errorf("refuse connection: %w", err)
	}
	return nil
}

// text is the answer to a request that begins with head: to HEAD without the
// body (RFC 9110 section 9.3.2).
func (r *Refuser) text(head []byte) []byte {
	if bytes.HasPrefix(head, []byte("HEAD ")) {
		return r.head
	}
	return r.full
}

func shutdownWrite(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var shutErr error
	err = rc.Control(func(fd uintptr) { shutErr = unix.Shutdown(int(fd), unix.SHUT_WR) })
	return errors.Join(err, shutErr)
}

// refuseCurtly answers without waiting for anything: what has arrived is read,
// so that most clients still see the answer and no reset.
func (r *Refuser) refuseCurtly(fd int) {
	defer unix.Close(fd)
	r.curt.Add(1)
	var buf [4096]byte
	n, _, _ := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
	_ = unix.Sendto(fd, r.text(buf[:max(n, 0)]), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	_, _, _ = unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
}

// RefuserStats counts refusals since New.
type RefuserStats struct {
	Active   int    // under way
	Answered uint64 // 503 written, farewell observed or timed out
	Curt     uint64 // 503 written without farewell: too many at once
	Failed   uint64 // client gone before the answer, or Close
}

// Stats reads the counters.
func (r *Refuser) Stats() RefuserStats {
	return RefuserStats{
		Active:   len(r.places),
		Answered: r.answered.Load(),
		Curt:     r.curt.Load(),
		Failed:   r.failed.Load(),
	}
}

// Close cuts every refusal short and waits for its goroutine. A Refuse that
// comes later closes its connection without an answer.
func (r *Refuser) Close() {
	r.mu.Lock()
	r.closed = true
	for f := range r.open {
		_ = f.SetDeadline(time.Unix(1, 0)) // the goroutine closes it itself
	}
	r.mu.Unlock()
	r.wg.Wait()
}
