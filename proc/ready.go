package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a child says on its notify pipe, in lines:
//
//	PID 4711 8833021    only from the middle process of Daemonize: who the daemon is (PID, start time)
//	READY               serving; the last line
//	ERROR reason        will never serve, and why; the last line. Newlines and backslashes are escaped
//
// A line written at once and no longer than PIPE_BUF is not torn (pipe(7)), and the pipe is empty, so the child never blocks.
const (
	maxReason = 3 << 10  // bytes of a reason, before escaping makes it at most twice as long; longer ones are cut
	maxNotice = 16 << 10 // bytes of all a child may say; the rest is not read
)

// RefusedError is what a child said instead of being ready.
type RefusedError struct {
	PID    int
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

var (
	reasonEscaper   = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\x00", `\0`)
	reasonUnescaper = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\0`, "\x00")
)

// notice is one line, parsed.
type notice struct {
	kind   noticeKind
	reason string   // of refused
	id     Identity // of named
}

type noticeKind uint8

const (
	noticeOther   noticeKind = iota // not in the list above: ignored
	noticeNamed                     // PID
	noticeReady                     // READY
	noticeRefused                   // ERROR
)

func parseNotice(line string) notice {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "READY":
		if rest == "" {
			return notice{kind: noticeReady}
		}
	case "ERROR":
		return notice{kind: noticeRefused, reason: reasonUnescaper.Replace(rest)}
	case "PID":
		pid, start, ok := strings.Cut(rest, " ")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil || n < 1 || n > 1<<22 { // PID_MAX_LIMIT
			return notice{}
		}
		at, err := strconv.ParseUint(start, 10, 64)
		if err != nil {
			return notice{}
		}
		return notice{kind: noticeNamed, id: Identity{n, at}}
	}
	return notice{}
}

// noticeReader reads what one child says. run is its goroutine; the nil pointer is a child that cannot say anything.
type noticeReader struct {
	r       *os.File      // non-blocking; closed by run or finish
	ready   chan struct{} // closed by feed when the child is ready
	refused chan struct{} // closed by feed when the child gave a reason
	known   chan struct{} // closed by feed when the child has said who the daemon is
	over    chan struct{} // closed by run, last
	pending []byte        // the line not complete yet; owned by run, then by finish
	size    int           // bytes read; as pending

	mu      sync.Mutex
	decided bool
	reason  string
	named   Identity
}

// newNoticeReader takes ownership of r.
func newNoticeReader(r *os.File) *noticeReader {
	return &noticeReader{
		r: r, ready: make(chan struct{}), refused: make(chan struct{}), known: make(chan struct{}), over: make(chan struct{}),
	}
}

// run reads until the child has decided, has closed its end, or finish or close interrupt it.
func (n *noticeReader) run() {
	defer close(n.over)
	var b [512]byte
	for {
		m, err := n.r.Read(b[:])
		if n.feed(b[:m]) {
			n.r.Close()
			return
		}
		if err != nil {
			return
		}
	}
}

// finish ends run and takes what the dead child has left in the pipe.
func (n *noticeReader) finish() {
	if n == nil {
		return
	}
	n.r.SetReadDeadline(time.Unix(1, 0)) // wakes run; an expired deadline hides what can be read, hence the raw read below
	<-n.over
	if c, err := n.r.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			var b [512]byte
			for {
				m, err := unix.Read(int(fd), b[:])
				if err == unix.EINTR {
					continue
				}
				if m <= 0 || n.feed(b[:m]) {
					return
				}
			}
		})
	}
	n.r.Close()
}

// close ends run without reading further.
func (n *noticeReader) close() {
	if n != nil {
		n.r.Close()
	}
}

// feed takes bytes of the child, and reports whether there is nothing more to expect.
func (n *noticeReader) feed(b []byte) (over bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.size += len(b)
	n.pending = append(n.pending, b...)
	for !n.decided {
		line, rest, ok := bytes.Cut(n.pending, []byte{'\n'})
		if !ok {
			break
		}
		n.pending = rest
		switch c := parseNotice(string(line)); c.kind {
		case noticeNamed:
			if n.named.PID == 0 {
				n.named = c.id
				close(n.known)
			}
		case noticeReady:
			n.decided = true
			close(n.ready)
		case noticeRefused:
			n.decided, n.reason = true, c.reason
			close(n.refused)
		}
	}
	return n.decided || n.size > maxNotice
}

// refusal returns the reason the child pid gave, nil if none.
func (n *noticeReader) refusal(pid int) error {
	if n == nil {
		return nil
	}
	select {
	case <-n.refused:
	default:
		return nil
	}
	return &RefusedError{PID: pid, Reason: n.reason} // written before refused was closed
}

// own is this process's end of the pipe to whoever started it.
var own struct {
	mu      sync.Mutex
	claimed bool
	fd      int // -1: none (any more)
	err     error
}

// claimNotify takes the descriptor out of the environment and makes it close-on-exec, once. After that no child of this process can
// mistake it for its own, or keep it open.
func claimNotify() (fd int, err error) {
	own.mu.Lock()
	defer own.mu.Unlock()
	return claimNotifyLocked()
}

func claimNotifyLocked() (int, error) {
	if own.claimed {
		return own.fd, own.err
	}
	own.claimed, own.fd = true, -1
	v, ok := os.LookupEnv(NotifyEnv)
	if !ok {
		return -1, nil
	}
	os.Unsetenv(NotifyEnv)
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		own.err = fmt.Errorf("%s=%q is no descriptor", NotifyEnv, v)
		return -1, own.err
	}
	// A number that somebody left in the environment may be anything by now; do not write to what is no pipe.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		own.err = fmt.Errorf("%s=%d is no pipe", NotifyEnv, fd)
		return -1, own.err
	}
	unix.CloseOnExec(fd)
	own.fd = fd
	return fd, nil
}

// NotifyReady tells the process that started this one (Spec.Notify) that it is ready. It can be said once; then the
// pipe is closed and the environment variable gone. Without anybody to tell it does nothing. An error means that the other
// side no longer listens, or that NotifyEnv was garbage.
func NotifyReady() error { return notifyLast("READY\n") }

// NotifyError tells the process that started this one that it will not be ready, and why. Then exit. It is otherwise like NotifyReady.
func NotifyError(reason error) error {
	text := reason.Error()
	if len(text) > maxReason {
		text = text[:maxReason-3] + "..."
	}
	text = reasonEscaper.Replace(text)
	if len(text) > 4000 { // PIPE_BUF less the rest of the line
		text = strings.TrimRight(text[:4000], `\`)
	}
	return notifyLast("ERROR " + text + "\n")
}

func notifyLast(line string) error {
	own.mu.Lock()
	defer own.mu.Unlock()
	fd, err := claimNotifyLocked()
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	if fd < 0 {
		return nil
	}
	own.fd = -1
	err = writeLine(fd, line)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

func writeLine(fd int, line string) error {
	for {
		_, err := unix.Write(fd, []byte(line))
		if err != unix.EINTR {
			return err
		}
	}
}
