package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"trafficd/roles/internal/runroot"
)

// Kind is a way in which a probe failed. Every one is a strike.
type Kind uint8

// The kinds.
const (
	Connect   Kind = iota // no connection: nobody listens, or the accept queue is full
	Timeout               // connected, but not a byte of an answer within the deadline
	Dripping              // an answer began and was not complete at the deadline
	Empty                 // the connection closed without an answer, or the body is empty
	Truncated             // the connection closed too early
	Oversized             // more bytes than the page has, announced or sent
	WrongBody             // the right amount of the wrong thing
	Status                // any status but 200
	Malformed             // not HTTP/1.x, or not of the kind a heartbeat answers
	Broken                // the connection failed in the middle
	numKinds
)

func (k Kind) String() string {
	switch k {
	case Connect:
		return "connect"
	case Timeout:
		return "timeout"
	case Dripping:
		return "dripping"
	case Empty:
		return "empty"
	case Truncated:
		return "truncated"
	case Oversized:
		return "oversized"
	case WrongBody:
		return "wrong body"
	case Status:
		return "status"
	case Malformed:
		return "malformed"
	case Broken:
		return "broken"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Failure is a probe that did not pass.
type Failure struct {
	Kind Kind
	Err  error // the particulars; never nil
}

func (f *Failure) Error() string { return "heartbeat: " + f.Kind.String() + ": " + f.Err.Error() }

// Unwrap returns the particulars.
func (f *Failure) Unwrap() error { return f.Err }

// Dial opens the connection of one probe.
type Dial func(ctx context.Context) (net.Conn, error)

// Unix returns a Dial for the Unix stream socket at path, which may be longer than a
// socket's address allows. Nobody there, and an accept queue that stays full, are errors.
func Unix(path string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		wait := time.Minute
		if d, ok := ctx.Deadline(); ok {
			wait = time.Until(d)
		}
		return runroot.DialUnix(path, runroot.Stream, wait)
	}
}

// Probe fetches path over a new connection and compares the answer with [Page]. ctx's
// deadline covers the whole probe, dialling included; a ctx without one makes the probe
// wait for ever, as long as the peer keeps the connection. It returns nil if the probe
// passed, ctx's own error if ctx was cancelled (which says nothing about the peer), and
// a *[Failure] otherwise.
func Probe(ctx context.Context, dial Dial, path string) error {
	err := probe(ctx, dial, path)
	if errors.Is(ctx.Err(), context.Canceled) && err != nil {
		return fmt.Errorf("heartbeat: %w", context.Canceled)
	}
	return err
}

func probe(ctx context.Context, dial Dial, path string) error {
	conn, err := dial(ctx)
	if err != nil {
		return &Failure{Connect, err}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if d, ok := ctx.Deadline(); ok {
		conn.SetDeadline(d)
	}

	// A peer may answer and close without having read the request, so a failed write
	// decides nothing: what can be read does.
	_, writeErr := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

	a := answer{buf: make([]byte, 0, maxAnswer+1)}
	for {
		n, err := conn.Read(a.buf[len(a.buf):cap(a.buf)])
		a.buf = a.buf[:len(a.buf)+n]
		if n > 0 {
			if fail := a.next(); fail != nil {
				return fail
			}
		}
		if err != nil {
			return a.failed(err, writeErr)
		}
	}
}

// failed turns the end of reading into the verdict on the answer.
func (a *answer) failed(read, write error) error {
	switch {
	case errors.Is(read, io.EOF), errors.Is(read, syscall.ECONNRESET):
		// A reset is how a Unix socket closes when the peer left the request unread.
		if f := a.end(); f != nil {
			return f
		}
		return nil
	case errors.Is(read, os.ErrDeadlineExceeded) && len(a.buf) > 0:
		return failure(Dripping, "deadline passed after %d bytes", len(a.buf))
	case errors.Is(read, os.ErrDeadlineExceeded):
		return failure(Timeout, "deadline passed without an answer")
	case write != nil:
		return &Failure{Broken, write}
	}
	return &Failure{Broken, read}
}
