package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when a name appears in a directory. A watcher that could not
// be made never tells; its owner then relies on the clock alone.
type watcher struct {
	f      *os.File // nil: not working
	name   string
	events chan struct{} // one place: "since you last looked"
	wg     sync.WaitGroup
}

func watch(dir, name string) *watcher {
	w := &watcher{name: name, events: make(chan struct{}, 1)}
	if dir == "" {
		return w
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	// bind makes the name (IN_CREATE); a server that binds elsewhere and
	// renames moves it there (IN_MOVED_TO).
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return w
	}
	w.f = os.NewFile(uintptr(fd), "inotify")
	w.wg.Add(1)
	go w.read()
	return w
}

func (w *watcher) working() bool { return w.f != nil }

func (w *watcher) read() {
	defer w.wg.Done()
	buf := make([]byte, 16*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return
		}
		if !mentions(buf[:n], w.name) {
			continue
		}
		select {
		case w.events <- struct{}{}:
		default:
		}
	}
}

// mentions looks for an event about name in what inotify gave (inotify(7)):
// wd, mask, cookie, len as 32-bit words, then len bytes of name, zero-padded.
// After an overflow of the queue anything may have happened.
func mentions(b []byte, name string) bool {
	for len(b) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		b = b[unix.SizeofInotifyEvent:]
		if uint64(length) > uint64(len(b)) {
			return false
		}
		if mask&unix.IN_Q_OVERFLOW != 0 || string(bytes.TrimRight(b[:length], "\x00")) == name {
			return true
		}
		b = b[length:]
	}
	return false
}

// wait returns true at an event, false after d or the end of ctx.
func (w *watcher) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.events:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (w *watcher) close() {
	if w.f != nil {
		w.f.Close()
		w.wg.Wait()
	}
}
