package runroot

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A socket's address holds a name of at most 107 bytes (sun_path of 108 with its NUL, unix(7)), and a run root is often
// deeper than that: a test's temporary directory, a user's home. So a long name is reached through a descriptor of its
// directory, as /proc/self/fd/N/name. The other cures were rejected: chdir is per process and would race with every
// other goroutine; a link at a short path is one more thing to own, to clean and to attack.

// maxName is the longest name an address can hold, in bytes.
const maxName = 107

// Kind is the type of a Unix socket.
type Kind int

// The kinds in use.
const (
	Stream Kind = unix.SOCK_STREAM    // bytes
	Packet Kind = unix.SOCK_SEQPACKET // messages, in order, with an end of file
)

// socketSerial tells temporary names of one process apart.
var socketSerial atomic.Uint64

// Listen binds path and listens on it. The name, mode 0600, appears in one step and only once the socket accepts
// connections: it is bound under a temporary name and renamed, and so takes the place of whatever socket had the name,
// which its owner keeps but nobody can find any more. The result is non-blocking and close-on-exec; the caller owns it.
// It does not remove path when it is closed: by then the name may be another process's.
func Listen(path string, kind Kind) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, int(kind)|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: socket: %w", path, err)
	}
	if err := bindAs(fd, path); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	return fd, nil
}

func bindAs(fd int, path string) error {
	dir, name := filepath.Split(path)
	tmp := filepath.Join(dir, "."+name+"."+strconv.Itoa(os.Getpid())+"."+strconv.FormatUint(socketSerial.Add(1), 10))
	// The new inode gets the mode of the socket's own, less the umask (unix_bind_bsd), so nobody can connect between
	// bind and a chmod.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	// A dead process with our pid may have left the name.
	if err := unix.Unlink(tmp); err != nil && err != unix.ENOENT {
		return fmt.Errorf("unlink %s: %w", tmp, err)
	}
	err := withAddress(tmp, func(a unix.Sockaddr) error { return unix.Bind(fd, a) })
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err = unix.Listen(fd, unix.SOMAXCONN); err != nil {
		err = fmt.Errorf("listen: %w", err)
	} else if err = os.Rename(tmp, path); err == nil {
		return nil
	}
	unix.Unlink(tmp)
	return err
}

// Dial connects to path and gives a non-blocking, close-on-exec descriptor that the caller owns. It waits at most
// timeout while the listener's queue is full; 0 or less does not wait. Nobody there is unix.ECONNREFUSED or
// unix.ENOENT, a full queue unix.EAGAIN.
func Dial(path string, kind Kind, timeout time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, int(kind)|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("connect to %s: socket: %w", path, err)
	}
	if err := connect(fd, path, timeout); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}

// connect uses a blocking socket with a send timeout, which bounds the wait of connect (unix_stream_connect): a
// non-blocking one cannot be waited for, as a full queue makes it fail and not be in progress.
func connect(fd int, path string, timeout time.Duration) error {
	tv := unix.NsecToTimeval(max(timeout, time.Microsecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return fmt.Errorf("setsockopt: %w", err)
	}
	if timeout <= 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(timeout)
	err := withAddress(path, func(a unix.Sockaddr) error {
		for {
			err := unix.Connect(fd, a)
			if err != unix.EINTR {
				return err
			}
			if time.Now().After(deadline) {
				return unix.EAGAIN
			}
		}
	})
	if err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// withAddress calls f with an address for path, by way of its directory if it is long.
func withAddress(path string, f func(unix.Sockaddr) error) error {
	if len(path) <= maxName {
		return f(&unix.SockaddrUnix{Name: path})
	}
	dir, name := filepath.Split(path)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	short := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	if len(short) > maxName {
		return fmt.Errorf("the name %s has %d bytes, a socket's may have %d: %w", name, len(name), maxName-len(short)+len(name), unix.ENAMETOOLONG)
	}
	err = f(&unix.SockaddrUnix{Name: short})
	if errors.Is(err, unix.ENOENT) && !procMounted() {
		return fmt.Errorf("the path has %d bytes; without /proc a socket's may have %d, name a shorter --run-root: %w", len(path), maxName, unix.ENAMETOOLONG)
	}
	return err
}

func procMounted() bool { return unix.Access("/proc/self/fd", unix.X_OK) == nil }

// ListenUnix is Listen for use with package net. Close leaves the name.
func ListenUnix(path string, kind Kind) (*net.UnixListener, error) {
	fd, err := Listen(path, kind)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileListener has a duplicate
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// DialUnix is Dial for use with package net.
func DialUnix(path string, kind Kind, timeout time.Duration) (*net.UnixConn, error) {
	fd, err := Dial(path, kind, timeout)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileConn has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return c.(*net.UnixConn), nil
}
